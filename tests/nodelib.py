"""The embedded node for tests: run in a thread, and asked over a plain socket.

Nothing of fastpump's client is used; payloads are encoded and decoded by the reference codec.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

import goldenlib
import uvloop

from fastpump import server
from fastpump._commands import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ANY, NO_STREAM, STREAM_EXISTS = -2, -1, -4
SUCCESS = 0
WRONG_VERSION, DELETED, DENIED = 4, 5, 7
"""Results of a write."""
MAX = 2**63 - 1
INVALID = -(2**31)

ADMIN = ("admin", "changeit")
OPS = ("ops", "changeit")
WRONG = ("admin", "wrong")

PATIENCE = 10.0
"""Seconds to wait for a reply."""

Fields = dict[str, Any]
Auth = tuple[str, str] | None


class NodeThread:
    """A node that lives in a thread of its own while the `with` block runs."""

    def __init__(
        self,
        path: Any = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
        **options: Any,
    ) -> None:
        self._node = self.make(path, **options)
        self._loop = loop_factory()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self) -> NodeThread:
        self._thread.start()
        self._ready.wait(PATIENCE)
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the node did not stop"

    @staticmethod
    def make(path: Any, **options: Any) -> Any:
        """What lives in the thread: a node, or whatever a subclass makes."""
        return server.run(path=path, **options)

    @property
    def address(self) -> tuple[str, int]:
        return self._node.host, self._node.port

    def client(self, **options: Any) -> RawClient:
        return RawClient(self.address, **options)

    def run(self, function: Callable[[Any], Any]) -> Any:
        """Call a function with the node in the node's own thread; await what can be awaited."""

        async def call() -> Any:
            result = function(self._node)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        except BaseException as error:
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        async with self._node:
            self._ready.set()
            await self._stop.wait()


def new_id() -> bytes:
    return uuid.uuid4().bytes_le


def event(
    event_id: bytes | None = None,
    data: bytes = b"{}",
    *,
    type: str = "tested",
    metadata: bytes | None = None,
    is_json: bool = True,
) -> Fields:
    """A NewEvent."""
    fields = {
        "event_id": new_id() if event_id is None else event_id,
        "event_type": type,
        "data_content_type": int(is_json),
        "metadata_content_type": 0,
        "data": data,
    }
    return fields if metadata is None else {**fields, "metadata": metadata}


def link(number: int | str, stream: str) -> Fields:
    return event(data=f"{number}@{stream}".encode(), type="$>", is_json=False)


class RawClient:
    """A blocking connection to a node; identified with protocol version 1 unless told otherwise."""

    def __init__(self, address: tuple[str, int], *, version: int | None = 1) -> None:
        self._socket = socket.create_connection(address, PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._frames: deque[tuple[int, int, bytes, bytes]] = deque()
        if version is not None:
            self.ask(Command.IdentifyClient, version=version, connection_name="test")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    # --- frames ---

    def send(
        self, command: int, payload: bytes, auth: Auth = None, correlation_id: bytes | None = None
    ) -> bytes:
        """Send one frame; returns its correlation id."""
        used_id = new_id() if correlation_id is None else correlation_id
        self.send_bytes(frame(command, payload, auth, used_id))
        return used_id

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def shutdown_write(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self, timeout: float = PATIENCE) -> tuple[int, bytes, bytes]:
        """The next frame that is no heartbeat: (command, correlation id, payload).

        Heartbeat requests are answered. Raises ConnectionError when the node closed the connection
        and TimeoutError when nothing comes.
        """
        deadline = time.monotonic() + timeout
        while True:
            while not self._frames:
                self._receive_bytes(deadline - time.monotonic())
            command, _, correlation_id, body = self._frames.popleft()
            if command != Command.HeartbeatRequest:
                return command, correlation_id, body
            self.send(Command.HeartbeatResponse, b"", None, correlation_id)

    def _receive_bytes(self, timeout: float) -> None:
        # 0 would mean "do not block", which has another error for "nothing there".
        self._socket.settimeout(max(timeout, 0.001))
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("closed")
        frames, self._received = goldenlib.split_frames(self._received + data)
        self._frames.extend(frames)

    def is_closed(self, timeout: float = PATIENCE) -> bool:
        """Whether the node closes the connection within this time; skips what it still sends."""
        try:
            while True:
                self.receive(timeout)
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    # --- requests ---

    def exchange(
        self, command: int, payload: bytes, auth: Auth = None, correlation_id: bytes | None = None
    ) -> tuple[int, Fields]:
        """Send a payload as it is; the command and the fields of the reply."""
        used_id = self.send(command, payload, auth, correlation_id)
        reply, reply_id, body = self.receive()
        assert reply_id == used_id
        return reply, goldenlib.decode_fields(reply, body)

    def ask(self, command: int, auth: Auth = None, **fields: Any) -> tuple[int, Fields]:
        return self.exchange(command, goldenlib.encode_fields(command, fields), auth)

    def expect(self, reply: int, command: int, auth: Auth = None, **fields: Any) -> Fields:
        """As `ask`, but it must be this reply."""
        actual, content = self.ask(command, auth, **fields)
        assert actual == reply, (hex(actual), content)
        return content

    def write(
        self, stream: str, events: Iterable[Fields], expected: int = ANY, auth: Auth = None
    ) -> Fields:
        return self.expect(
            Command.WriteEventsCompleted,
            Command.WriteEvents,
            auth,
            event_stream_id=stream,
            expected_version=expected,
            events=list(events),
            require_leader=True,
        )

    def write_some(self, stream: str, count: int, auth: Auth = None) -> list[Fields]:
        """Write this many events and return them."""
        events = [event(data=b'{"n":%d}' % number) for number in range(count)]
        assert self.write(stream, events, auth=auth)["result"] == SUCCESS
        return events

    def set_metadata(self, stream: str, data: bytes, auth: Auth = None) -> Fields:
        return self.write(f"$${stream}", [event(data=data, type="$metadata")], auth=auth)

    def delete(
        self, stream: str, expected: int = ANY, *, hard: bool = False, auth: Auth = None
    ) -> Fields:
        return self.expect(
            Command.DeleteStreamCompleted,
            Command.DeleteStream,
            auth,
            event_stream_id=stream,
            expected_version=expected,
            require_leader=True,
            hard_delete=hard,
        )

    def read_event(
        self, stream: str, number: int, *, resolve: bool = False, auth: Auth = None
    ) -> Fields:
        return self.expect(
            Command.ReadEventCompleted,
            Command.ReadEvent,
            auth,
            event_stream_id=stream,
            event_number=number,
            resolve_link_tos=resolve,
            require_leader=False,
        )

    def forward(
        self,
        stream: str,
        start: int = 0,
        count: int = 100,
        *,
        resolve: bool = False,
        auth: Auth = None,
    ) -> Page:
        return self._page(Command.ReadStreamEventsForward, stream, start, count, resolve, auth)

    def backward(
        self,
        stream: str,
        start: int = -1,
        count: int = 100,
        *,
        resolve: bool = False,
        auth: Auth = None,
    ) -> Page:
        return self._page(Command.ReadStreamEventsBackward, stream, start, count, resolve, auth)

    def _page(
        self, command: int, stream: str, start: int, count: int, resolve: bool, auth: Auth
    ) -> Page:
        fields = self.expect(
            command + 1,
            command,
            auth,
            event_stream_id=stream,
            from_event_number=start,
            max_count=count,
            resolve_link_tos=resolve,
            require_leader=False,
        )
        return Page(fields)

    def all_forward(self, position: tuple[int, int] = (0, 0), count: int = 100, **how: Any) -> Page:
        return self._all_page(Command.ReadAllEventsForward, position, count, **how)

    def all_backward(
        self, position: tuple[int, int] = (-1, -1), count: int = 100, **how: Any
    ) -> Page:
        return self._all_page(Command.ReadAllEventsBackward, position, count, **how)

    def _all_page(
        self,
        command: int,
        position: tuple[int, int],
        count: int,
        *,
        resolve: bool = False,
        auth: Auth = ADMIN,
    ) -> Page:
        fields = self.expect(
            command + 1,
            command,
            auth,
            commit_position=position[0],
            prepare_position=position[1],
            max_count=count,
            resolve_link_tos=resolve,
            require_leader=False,
        )
        return Page(fields)


class Page:
    """The reply to a page read."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.items: list[Fields] = fields.get("events", [])
        self.result: int = fields.get("result", SUCCESS)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the original events: of the link where there is one."""
        return [original(item)["event_number"] for item in self.items]

    @property
    def ids(self) -> list[bytes]:
        return [original(item)["event_id"] for item in self.items]

    @property
    def next(self) -> int:
        return int(self.fields["next_event_number"])

    @property
    def last(self) -> int:
        return int(self.fields["last_event_number"])

    @property
    def is_end(self) -> bool:
        return bool(self.fields["is_end_of_stream"])

    @property
    def window(self) -> tuple[list[int], int, bool]:
        """What acceptance tables state: numbers, next number, end of stream."""
        return self.numbers, self.next, self.is_end

    @property
    def position(self) -> tuple[int, int]:
        """Of a page of `$all`: where it was read from."""
        return self.fields["commit_position"], self.fields["prepare_position"]

    @property
    def next_position(self) -> tuple[int, int]:
        return self.fields["next_commit_position"], self.fields["next_prepare_position"]


def may_write(client: RawClient, stream: str, auth: Auth) -> bool:
    """Whether these credentials are allowed to; writes an event if they are."""
    return bool(client.write(stream, [event()], auth=auth)["result"] != DENIED)


def original(item: Fields) -> Fields:
    """The record that was read: the link if there is one."""
    record: Fields = item["link"] if "link" in item else item["event"]
    return record


def position_of(item: Fields) -> tuple[int, int]:
    return item["commit_position"], item["prepare_position"]


def frame(command: int, payload: bytes, auth: Auth, correlation_id: bytes) -> bytes:
    """The bytes of a request."""
    block = b""
    if auth is not None:
        login, password = (text.encode() for text in auth)
        block = bytes([len(login)]) + login + bytes([len(password)]) + password
    return goldenlib.build_frame(command, auth is not None, correlation_id, block + payload)
