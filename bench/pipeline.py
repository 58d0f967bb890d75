"""A client that asks much of a node and little of the processor: requests ahead, no waiting."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, cast

import tools

sys.path.append(str(tools.ROOT))

from fastpump import _cold
from fastpump._commands import Command
from fastpump._framing import Frame, Framer, encode_frame

from node_process import HOST

if TYPE_CHECKING:
    from collections.abc import Iterable

CORRELATION_ID = bytes(15) + b"\x01"
"""Of all requests: replies are counted, and each tells by itself whether it is the right one."""

Count = Callable[[Frame], int]
"""How many events a reply stands for; raises if it is not what was asked for."""


class Connection(asyncio.BufferedProtocol):
    """Identified with protocol version 1, heartbeats answered; `take` gets all other frames."""

    def __init__(self) -> None:
        self.framer = Framer(merge_pushes=True)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)
        identity = _cold.encode("IdentifyClient", version=1, connection_name="bench")
        self.transport.write(encode_frame(Command.IdentifyClient, CORRELATION_ID, identity))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(tools.ToolError(f"the node closed the connection: {error}"))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.framer.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        try:
            self.take([f for f in self.framer.commit(nbytes) if not self._is_housekeeping(f)])
        except Exception as error:
            self.done.set_exception(error)
            self.transport.abort()

    def _is_housekeeping(self, frame: Frame) -> bool:
        if frame.command == Command.HeartbeatRequest:
            beat = encode_frame(Command.HeartbeatResponse, frame.correlation_id)
            self.transport.write(beat)
        return frame.command in (Command.HeartbeatRequest, Command.ClientIdentified)

    def take(self, frames: list[Frame]) -> None:
        raise NotImplementedError


class Pipeline(Connection):
    """Keeps `window` of the requests unanswered, until all are answered.

    Attributes:
        events: how many events the replies stood for.
    """

    def __init__(self, requests: Iterable[bytes], window: int, count: Count) -> None:
        super().__init__()
        self.events = 0
        self._requests = iter(requests)
        self._window = window
        self._waiting = 0
        self._count = count

    def start(self) -> None:
        self._send()

    def take(self, frames: list[Frame]) -> None:
        self._waiting -= len(frames)
        self._send()
        for frame in frames:
            self.events += self._count(frame)
        if not self._waiting and not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        requests = list(islice(self._requests, self._window - self._waiting))
        self._waiting += len(requests)
        self.transport.write(b"".join(requests))


class Subscriber(Connection):
    """Takes the pushes of one stream until `expected` events have arrived."""

    def __init__(self, stream: str, expected: int) -> None:
        super().__init__()
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._expected = expected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        subscribe = _cold.encode(
            "SubscribeToStream", event_stream_id=self._stream, resolve_link_tos=False
        )
        frame = encode_frame(Command.SubscribeToStream, CORRELATION_ID, subscribe)
        self.transport.write(frame)

    def take(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.command == Command.StreamEventAppeared:
                self._expected -= frame.count
            elif frame.command == Command.SubscriptionConfirmation:
                self.confirmed.set_result(None)
            else:
                raise tools.ToolError(f"the subscription ended with command {frame.command:#x}")
        if not self._expected:
            self.done.set_result(None)


async def pipeline(port: int, requests: Iterable[bytes], window: int, count: Count) -> float:
    """Events per second, from the first request to the last reply."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Pipeline(requests, window, count), HOST, port)
    started = time.perf_counter()
    client.start()
    await client.done
    elapsed = time.perf_counter() - started
    client.transport.abort()
    return client.events / elapsed


async def pushes(
    port: int, stream: str, requests: list[bytes], window: int, events: int, count: Count
) -> float:
    """Events per second that reach a subscriber of `stream` while the requests write to it."""
    loop = asyncio.get_running_loop()
    _, subscriber = await loop.create_connection(lambda: Subscriber(stream, events), HOST, port)
    await subscriber.confirmed
    started = time.perf_counter()
    await asyncio.gather(pipeline(port, requests, window, count), subscriber.done)
    elapsed = time.perf_counter() - started
    subscriber.transport.abort()
    return events / elapsed
