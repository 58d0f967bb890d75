"""How to receive: `BufferedProtocol` into the framer's memory, or `Protocol` and `Framer.feed`.

`python bench/receive.py` reads the answering server's stream in pages through both, on uvloop and
on asyncio's own loop, in interleaved rounds, and prints one Markdown table. Frames are made and
dropped: nothing is decoded, so what differs is the receiving alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, cast

import uvloop

import tools

sys.path.append(str(tools.ROOT))

from fastpump._framing import Frame, Framer, encode_frame

from report import amount, line, machine, ratio
from rows import QUICK, STREAM, Load
from run import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

READ_STREAM_FORWARD = 0xB2
CORRELATION_ID = bytes(16)


class Receiver(asyncio.BaseProtocol):
    """Keeps `WINDOW` pages asked for and counts the events that arrive."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.framer = Framer()
        self.events = 0
        self.next_number = 0
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)
        self.ask(WINDOW)

    def ask(self, pages: int) -> None:
        for _ in range(pages):
            self.transport.write(page_request(self.next_number, self.load.page))
            self.next_number = (self.next_number + self.load.page) % self.load.events

    def take(self, frames: list[Frame]) -> None:
        if frames:
            self.events += len(frames) * self.load.page
            self.ask(len(frames))


class Buffered(Receiver, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint: int) -> memoryview:
        return self.framer.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.take(self.framer.commit(nbytes))


class Plain(Receiver, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.take(self.framer.feed(data))


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def page_request(first: int, count: int) -> bytes:
    """A ReadStreamEventsForward of `count` events from number `first`."""
    name = STREAM.encode()
    body = b"".join(
        (b"\x0a", varint(len(name)), name, b"\x10", varint(first), b"\x18", varint(count))
    )
    return encode_frame(READ_STREAM_FORWARD, CORRELATION_ID, body + b"\x20\x00\x28\x00")


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


async def receive(kind: type[Receiver], port: int, load: Load) -> float:
    """Events per second that `kind` receives in `load.seconds`."""
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.create_connection(lambda: kind(load), "127.0.0.1", port)
    events, started = receiver.events, time.perf_counter()
    await asyncio.sleep(load.seconds)
    rate = (receiver.events - events) / (time.perf_counter() - started)
    transport.abort()
    if not rate:
        raise tools.ToolError(f"{kind.__name__} received nothing")
    return rate


def run_on(loop_name: str, kind: type[Receiver], port: int, load: Load) -> float:
    loop = LOOPS[loop_name]()
    try:
        return loop.run_until_complete(receive(kind, port, load))
    finally:
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=tools.positive, default=5)
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    chosen = parser.parse_args()
    load = QUICK if chosen.quick else Load()
    rates: defaultdict[tuple[str, type[Receiver]], list[float]] = defaultdict(list)
    with tools.answering_server(load.events) as port:
        for _ in range(chosen.rounds):
            for loop_name in LOOPS:
                for kind in (Buffered, Plain):
                    rates[loop_name, kind].append(run_on(loop_name, kind, port, load))
    print(f"{machine()}; events per second, pages of {load.page}, median of {chosen.rounds}.\n")
    print(line(["Loop", "buffered × plain", "BufferedProtocol", "Protocol"]))
    print(line(["---", "---:", "---:", "---:"]))
    for loop_name in LOOPS:
        buffered, plain = (median(rates[loop_name, kind]) for kind in (Buffered, Plain))
        print(line([loop_name, ratio(buffered, plain), amount(buffered), amount(plain)]))


if __name__ == "__main__":
    try:
        main()
    except tools.ToolError as error:
        sys.exit(f"bench: {error}")
