"""The work whose instructions are counted: `instructions.py` runs this under callgrind.

Between two pieces of work `mark` calls a function of the C library that nothing else here calls;
there callgrind writes down what it has counted since the last time. No sockets, no clock, nothing
random: the same build does the same every time.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from fastpump import _replies
from fastpump._dispatcher import Dispatcher
from fastpump._event_feed import EventFeed
from fastpump._framing import Framer, encode_frame
from fastpump._futures import Futures
from fastpump._protocol import ConnectionProtocol
from fastpump._read_ahead import ReadAhead, Slot, StreamForward
from fastpump._reading import Reading
from fastpump._requests import encode_write_events
from fastpump._settings import ConnectionSettings
from fastpump._statistics import Traffic
from fastpump._write_events import SingleWrites, WriteEvents
from fastpump._writing import Writing
from fastpump.messages import Event, EventRecord, Events, NewEvent, StreamSlice

PAGE = 100
PAGES = 100
REPLIES = 1000

ID = bytes(range(16))
BODY = b'{"flight":1545,"carrier":"UA","origin":"EWR","destination":"IAH","remark":null}' * 3
WRITTEN = b"\x08\x00\x18\x05\x20\x05\x28\x80\x08\x30\x80\x08"
WRITE, WRITE_COMPLETED, READ, PAGE_COMPLETED, EVENT_APPEARED = 0x82, 0x83, 0xB2, 0xB3, 0xC2


def mark() -> None:
    os.getppid()


def events() -> list[Event]:
    return [
        Event(
            EventRecord("account-7", UUID(int=n + 1), 100_000 + n, "money-paid", BODY),
            position=(10**9 + n, 10**9 + n),
        )
        for n in range(PAGE)
    ]


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def as_field(message: bytes) -> bytes:
    """As field 1 of a message around it."""
    return b"\x0a" + varint(len(message)) + message


PAGE_BODY = b"".join(as_field(event.to_bytes()) for event in events())
PAGE_FRAME = encode_frame(PAGE_COMPLETED, ID, PAGE_BODY)
ANSWERS = {WRITE: (WRITE_COMPLETED, WRITTEN), READ: (PAGE_COMPLETED, PAGE_BODY)}
PUSH_FRAMES = b"".join(
    encode_frame(EVENT_APPEARED, ID, as_field(event.to_bytes())) for event in events()
)


def page(first: int = 0) -> StreamSlice:
    """One of `PAGES` pages of a stream, its events being always the same."""
    numbers = b"\x18" + varint(first + PAGE) + b"\x20" + varint(PAGES * PAGE - 1)
    is_end = b"\x28" + varint(first + PAGE == PAGES * PAGE)
    [frame] = Framer().feed(encode_frame(PAGE_COMPLETED, ID, PAGE_BODY + numbers + is_end))
    return _replies.decode_stream_slice(frame, "account-7", first, 0)[1]


async def calibrate() -> None:
    """What all counts are divided by: the interpreter itself, at calls, numbers and bytes."""
    seen = {}
    for number in range(1_000):
        key = b"%d" % (number % 100)
        seen[key] = max(number, len(key))


async def receive_pages() -> None:
    framer = Framer()
    for _ in range(PAGES):
        for frame in framer.feed(PAGE_FRAME):
            assert len(_replies.decode_stream_slice(frame, "account-7", 0, 0)[1]) == PAGE


async def touch_events() -> None:
    events = page()
    for _ in range(PAGES):
        for event in events:
            event.event_number  # noqa: B018
            event.type  # noqa: B018


async def await_events() -> None:
    async for _ in EventFeed(Pages(), lambda: None):
        pass


async def read_ahead() -> None:
    loop, pages = asyncio.get_running_loop(), [page(n * PAGE) for n in range(PAGES)]

    def ask(start: int, slot: Slot) -> None:
        loop.call_soon(slot.set_result, pages[start // PAGE])

    seen = [len(page) async for page in ReadAhead(StreamForward(0, PAGE), ask, lambda: False)]
    assert seen == [PAGE] * PAGES


async def get_pages() -> None:
    client = Client()
    for _ in range(PAGES):
        assert len(await client.get("account-7", from_event=0, max_count=PAGE)) == PAGE
    client.link.connection_lost(None)


async def take_pushes() -> None:
    framer = Framer(merge_pushes=True)
    for _ in range(PAGES):
        for frame in framer.feed(PUSH_FRAMES):
            pushed = _replies.decode_pushes(frame)
            assert pushed.are_in_log_order()
            for event in pushed:
                event.event_number  # noqa: B018


async def write_batches() -> None:
    for _ in range(10):
        batch = [NewEvent("money-paid", id=None, data=BODY) for _ in range(PAGE)]
        encode_write_events(ID, "account-7", -2, batch, False)


async def dispatch_replies() -> None:
    dispatcher = Dispatcher(ConnectionSettings(max_in_flight=REPLIES + 1))
    dispatcher.connected(lambda frame: None)
    waiter = Waiter()
    ids = [dispatcher.correlation_ids.next() for _ in range(REPLIES)]
    for correlation_id in ids:
        dispatcher.start(WriteEvents(correlation_id, b"", waiter, 7.0, "account-7", -2))
    replies = b"".join(encode_frame(WRITE_COMPLETED, i, WRITTEN) for i in ids)
    dispatcher.dispatch(Framer(merge_pushes=True).feed(replies))
    assert waiter.results == REPLIES


async def publish_singly() -> None:
    client = Client()

    async def publish() -> None:
        for _ in range(10):
            await client.publish_event("account-7", "money-paid", body=BODY)

    await asyncio.gather(*(publish() for _ in range(100)))
    client.link.connection_lost(None)


async def publish_in_bulk() -> None:
    client = Client()
    streams = [f"account-{number}" for number in range(10)]
    async with client.publisher(max_delay=3600.0) as publisher:
        for _ in range(PAGE):
            for stream in streams:
                await publisher.send(stream, NewEvent("money-paid", data=BODY))
    assert publisher.stats.acknowledged == len(streams) * PAGE
    client.link.connection_lost(None)


class Client(Reading, Writing):
    """Reads and publishes through everything but a socket."""

    def __init__(self) -> None:
        settings = ConnectionSettings()
        self._loop = asyncio.get_running_loop()
        self._futures = Futures(self._loop)
        self._timeout = settings.operation_timeout
        self._require_master = False
        self._outlet = dispatcher = Dispatcher(settings)
        self._writes = SingleWrites(self._futures, self._timeout, False)
        self.link = ConnectionProtocol(
            on_frames=dispatcher.dispatch,
            on_lost=lambda protocol, error: None,
            on_paused=dispatcher.pause,
            on_resumed=dispatcher.resume,
            heartbeat_interval=60.0,
            heartbeat_timeout=60.0,
            max_frame_size=settings.max_frame_size,
            traffic=Traffic(),
        )
        self.link.connection_made(Writer(self.link))
        dispatcher.connected(self.link.send)


class Writer(asyncio.Transport):
    """A transport to a server in this process that has one page, and writes nothing down."""

    def __init__(self, link: ConnectionProtocol) -> None:
        self._link = link
        self._framer = Framer()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        replies = []
        for frame in self._framer.feed(data):
            command, body = ANSWERS[frame.command]
            replies.append(encode_frame(command, frame.correlation_id, body))
        asyncio.get_running_loop().call_soon(self._answer, b"".join(replies))

    def _answer(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            buffer = self._link.get_buffer(-1)
            size = min(len(buffer), len(view))
            buffer[:size] = view[:size]
            self._link.buffer_updated(size)
            view = view[size:]

    def close(self) -> None:
        pass


class Pages:
    """As many pages as the other work has, all of them here already."""

    def __init__(self) -> None:
        self._left = PAGES
        self._page = page()

    async def __anext__(self) -> Events:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._page


class Waiter:
    def __init__(self) -> None:
        self.results = 0

    def done(self) -> bool:
        return False

    def set_result(self, result: Any) -> None:
        self.results += 1

    def set_exception(self, error: BaseException) -> None:
        raise error


WORK: tuple[Callable[[], Awaitable[None]], ...] = (
    calibrate,
    receive_pages,
    touch_events,
    await_events,
    read_ahead,
    get_pages,
    take_pushes,
    write_batches,
    dispatch_replies,
    publish_singly,
    publish_in_bulk,
)


async def main() -> None:
    for work in WORK:  # once for caches and specialised bytecode
        await work()
    gc.disable()
    mark()
    for work in WORK:
        await work()
        mark()


if __name__ == "__main__":
    asyncio.run(main())
