"""Batches: the bytes are those of ordinary writes, and become the same events again."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable
from typing import Any

import goldenlib
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import reference

from fastpump._packing import Batch, Lane, Packer
from fastpump._requests import encode_batch, encode_write_events
from fastpump.exceptions import UsageError
from fastpump.messages import Json, NewEventData

ID = bytes(range(16))

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200)
EVENTS = st.builds(
    NewEventData,
    st.uuids().filter(lambda uuid: uuid.int != 0),
    NAMES,
    st.one_of(
        st.none(),
        st.binary(max_size=300),
        st.binary(max_size=9).map(Json),
        st.binary(max_size=9).map(bytearray),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        st.dictionaries(st.text("ab", max_size=3), st.integers(0, 9), max_size=3),
    ),
    st.one_of(st.none(), st.binary(max_size=300)),
)


class Told:
    """A packer, and what it told of."""

    def __init__(self, **limits: int) -> None:
        self.gathering = self.ready = 0
        self.packer = Packer(
            limits.get("batch_events", 1000),
            limits.get("batch_bytes", 1 << 20),
            limits.get("events", 1000),
            limits.get("bytes", 1 << 20),
            self.hold,
            self.on_gathering,
            self.on_ready,
        )

    def hold(self) -> Awaitable[None]:
        return HELD

    def on_gathering(self) -> None:
        self.gathering += 1

    def on_ready(self) -> None:
        self.ready += 1

    def taken(self) -> list[Batch]:
        """Everything that may be sent."""
        batches = []
        while self.packer.ready:
            lane = self.packer.ready.popleft()
            while (batch := lane.take()) is not None:
                batches.append(batch)
            self.packer.finish(lane)
        return batches


HELD: Any = object()


def event(data: Any = b"") -> NewEventData:
    return NewEventData(None, "t", data, None)


def pack(events: list[NewEventData]) -> Batch:
    told = Told()
    for each in events:
        told.packer.send("größe", each)
    told.packer.release()
    (batch,) = told.taken()
    return batch


@given(st.lists(EVENTS, min_size=1, max_size=20), st.integers(-4, 2**63 - 1), st.booleans())
def test_the_frame_is_that_of_a_write(
    events: list[NewEventData], version: int, require_master: bool
) -> None:
    batch = pack(events)
    expected = encode_write_events(ID, "größe", version, events, require_master)
    assert batch.data_size < batch.size
    assert encode_batch(ID, batch, version, require_master) == expected
    again = encode_batch(ID, batch, version, require_master, b"\1a\1b")
    assert again == encode_write_events(ID, "größe", version, events, require_master, b"\1a\1b")


@given(st.lists(EVENTS, min_size=1, max_size=20), st.booleans())
def test_events_come_back(events: list[NewEventData], sent: bool) -> None:
    batch = pack(events)
    if sent:
        encode_batch(ID, batch, -2)
    back = batch.events()
    assert [(e.id, e.type, e.metadata) for e in back] == [
        (e.id, e.type, e.metadata) for e in events
    ]
    # What they are encoded to is the same, so data is, and whether it is JSON.
    assert encode_write_events(ID, "s", -2, back) == encode_write_events(ID, "s", -2, events)
    assert all(type(e.data) in (bytes, Json) for e in back)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), EVENTS), max_size=30),
    st.integers(1, 5),
    st.integers(1, 2000),
    st.integers(-4, 2**63 - 1),
    st.booleans(),
)
def test_protobuf_reads_what_was_given(
    given_events: list[tuple[str, NewEventData]],
    batch_events: int,
    batch_bytes: int,
    version: int,
    require_master: bool,
) -> None:
    """Everything once, in the order of its stream, in batches no larger than allowed."""
    told = Told(batch_events=batch_events, batch_bytes=batch_bytes)
    wanted: dict[str, list[dict[str, Any]]] = {}
    for stream, each in given_events:
        told.packer.send(stream, each)
        wanted.setdefault(stream, []).append(fields_of(each))
    told.packer.release()
    read: dict[str, list[dict[str, Any]]] = {}
    for batch in told.taken():
        frame = encode_batch(ID, batch, version, require_master)
        [(command, flags, identifier, body)], rest = goldenlib.split_frames(frame)
        assert (command, flags, identifier, rest) == (0x82, 0, ID, b"")
        fields = reference.PROTO2.decode("WriteEvents", body)
        events = fields.pop("events")
        assert fields == {
            "event_stream_id": batch.stream,
            "expected_version": version,
            "require_leader": require_master,
        }
        assert len(events) == len(batch) <= batch_events
        assert batch.size <= batch_bytes or len(batch) == 1
        read.setdefault(batch.stream, []).extend(events)
    assert read == wanted


def fields_of(event: NewEventData) -> dict[str, Any]:
    """The NewEvent message, as section 3.1 has it."""
    data = event.data
    fields = {
        "event_id": event.id.bytes_le,
        "event_type": event.type,
        "data_content_type": int(isinstance(data, (Json, str, dict))),
        "metadata_content_type": 0,
        "data": written(data),
    }
    return fields if event.metadata is None else {**fields, "metadata": written(event.metadata)}


def written(body: Any) -> bytes:
    if isinstance(body, dict):
        return orjson.dumps(body)
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def test_a_frame_too_long_is_refused() -> None:
    told = Told(batch_bytes=1 << 30, bytes=1 << 30)
    for _ in range(5):
        told.packer.send("s", event(bytes(16_000_000)))
    told.packer.release()
    (batch,) = told.taken()
    with pytest.raises(UsageError, match="5 events make a message"):
        encode_batch(ID, batch, -2)
    assert len(batch.events()) == 5


def test_nothing_is_kept_of_an_event_that_is_refused() -> None:
    body, told = bytes(17 << 20), Told()
    before = sys.getrefcount(body)
    for _ in range(3):
        with pytest.raises(UsageError, match="over the server's limit"):
            told.packer.send("s", event(body))
    assert sys.getrefcount(body) == before
    assert not told.packer.lanes


def test_events_given_while_an_event_is_taken() -> None:
    """The bytes of an event stay what they were until it is in its batch."""
    told = Told()

    def on_gathering() -> None:
        if not told.gathering:
            told.gathering += 1
            told.packer.send("inner", event({"a": "-" * 5000}))

    told.packer = Packer(9, 1 << 20, 9, 1 << 20, told.hold, on_gathering, told.on_ready)
    told.packer.send("outer", NewEventData(None, "t", {"b": "+" * 5000}, {"c": 1}))
    told.packer.release()
    [outer], [inner] = [batch.events() for batch in told.taken()]
    assert (outer.data, outer.metadata) == (b'{"b":"' + b"+" * 5000 + b'"}', b'{"c":1}')
    assert inner.data == b'{"a":"' + b"-" * 5000 + b'"}'


@pytest.mark.parametrize("limit", [1, 2, 1000])
@pytest.mark.parametrize("place", ["gathering", "ready", "garbage"])
def test_events_given_by_whatever_is_called(place: str, limit: int) -> None:
    """None is lost if taking an event of a stream gives another one of it."""
    told, given, is_giving = Told(), 0, False

    def give() -> None:
        nonlocal given
        given += 1
        told.packer.send(f"s-{given % 3}", event(str(given)))

    def give_once_more(*_: Any) -> None:
        nonlocal is_giving
        if not is_giving:
            is_giving = True
            give()
            is_giving = False

    on_gathering = give_once_more if place == "gathering" else told.on_gathering
    on_ready = give_once_more if place == "ready" else told.on_ready
    told.packer = Packer(limit, 1 << 20, 1000, 1 << 20, told.hold, on_gathering, on_ready)
    thresholds = gc.get_threshold()
    if place == "garbage":
        gc.callbacks.append(give_once_more)
        gc.set_threshold(1)
    try:
        for _ in range(100):
            give()
    finally:
        gc.set_threshold(*thresholds)
        if place == "garbage":
            gc.callbacks.remove(give_once_more)
    told.packer.release()
    batches = told.taken()
    assert given > 100
    events = [int(event.data) for batch in batches for event in batch.events()]
    assert sorted(events) == list(range(1, given + 1))
    assert told.packer.held_events == given
    for batch in batches:
        told.packer.let_go(batch)
    assert (told.packer.held_events, told.packer.held_bytes) == (0, 0)
    assert not told.packer.lanes


def test_who_is_told_and_when() -> None:
    told = Told(batch_events=2)
    for stream in "ab":
        told.packer.send(stream, event())
    assert (told.gathering, told.ready) == (1, 0)
    told.packer.send("a", event())
    assert (told.gathering, told.ready) == (1, 1)
    assert [len(batch) for batch in told.taken()] == [2]
    told.packer.release()
    assert told.ready == 2
    assert [batch.stream for batch in told.taken()] == ["b"]
    assert not told.packer.lanes
    told.packer.send("a", event())
    assert told.gathering == 2


def test_a_busy_lane_waits_and_its_batch_grows() -> None:
    told = Told()
    told.packer.send("s", event())
    told.packer.release()
    lane = told.packer.ready.popleft()
    first = lane.take()
    lane.sending = first
    for _ in range(3):
        told.packer.send("s", event())
        told.packer.release()
    assert not told.packer.ready
    assert lane.last is lane.filling
    told.packer.finish(lane)
    assert [len(batch) for batch in told.taken()] == [3]


def test_held_until_let_go() -> None:
    told = Told(events=3)
    packer = told.packer
    assert packer.send("s", event()) is not HELD
    assert packer.send("s", event()) is not HELD
    assert packer.send("s", event()) is HELD
    assert packer.is_full
    packer.release()
    (batch,) = told.taken()
    assert (packer.held_events, packer.held_bytes) == (3, batch.size)
    packer.let_go(batch)
    assert packer.has_room
    assert (packer.given, packer.held_events, packer.held_bytes) == (3, 0, 0)


def test_a_turn_of_the_loop_is_due_now_and_then() -> None:
    told = Told(events=10_000)
    held = [told.packer.send("s", event()) is HELD for _ in range(2000)].index(True)
    assert 100 < held < 2000
    told.packer.begin_turn()
    assert told.packer.send("s", event()) is not HELD


def test_a_discarded_lane_that_was_ready_gives_nothing() -> None:
    told = Told(batch_events=1)
    told.packer.send("s", event())
    lane = told.packer.lanes["s"]
    assert len(told.packer.discard(lane)) == 1
    assert told.packer.ready.popleft() is lane
    assert lane.take() is None
    told.packer.finish(lane)
    told.packer.finish(lane)
    assert not told.packer.lanes


def test_what_is_ready_needs_no_loop() -> None:
    async def main() -> None:
        ready = Told().packer.send("s", event())
        for _ in range(3):
            await ready
        await asyncio.wait_for(ready, 10)
        assert await asyncio.gather(ready) == [None]

    asyncio.run(main())


def test_lanes_of_ones_own() -> None:
    lane = Lane("s")
    assert lane.take() is None
    assert lane.last is None
    assert Batch("s").events() == []
