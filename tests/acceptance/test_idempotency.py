"""IDEM: writes and transactions that come again.

`e0 … e5`, `a … d`, `x` stand for ids of events; `n` is one that was never used before. Where a row
says "WEV" the write must be refused with both versions, and by a transaction's commit with the
expected one only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest
from acceptance.scenes import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    count,
    last_of,
    new_events,
    node_and_admin,
    numbers,
    refused,
    write,
)

import fastpump.server
from fastpump import (
    Client,
    NewEvent,
    NewEventData,
    StreamDeleted,
    StreamMetadata,
    StreamNotFound,
    TcpCommand,
)

WEV = "WEV"


class Write(NamedTuple):
    """The ids of its events, its expected version, and the last event number it answers or WEV."""

    ids: str
    version: int
    outcome: int | str


S6 = [Write(f"e{number}", number - 1, number) for number in range(6)]
S3, S1 = S6[:3], S6[:1]
B2 = [Write("e0 e1", NO_STREAM, 1)]
NOTHING: list[Write] = []


class Ids:
    """One UUID for each name in a row; every test has its own."""

    def __init__(self) -> None:
        self._ids: defaultdict[str, UUID] = defaultdict(uuid4)

    def events(self, names: str) -> list[NewEventData]:
        return [NewEvent("t", self._ids[name]) for name in names.split()]


async def check(client: Client, ids: Ids, stream: str, row: Write) -> None:
    """Do the write and compare its outcome."""
    writing = client.publish(stream, ids.events(row.ids), row.version)
    if row.outcome == WEV:
        await refused(writing, row.version, await count(client, stream) - 1, stream)
    else:
        assert await last_of(writing) == row.outcome, row


@pytest.mark.parametrize(
    ("before", "then", "events"),
    [
        pytest.param(S6, [Write("e0", NO_STREAM, 0)], 6, id="IDEM-01"),
        pytest.param(S6, [Write("e0", ANY, 0)], 6, id="IDEM-02"),
        pytest.param(S6, [Write("e0", 5, 6)], 7, id="IDEM-03"),
        pytest.param(S6, [Write("e0", 6, WEV)], 6, id="IDEM-04"),
        pytest.param(S6, [Write("e0", 4, WEV)], 6, id="IDEM-05"),
        pytest.param(S6, S6, 6, id="IDEM-06"),
        pytest.param(S1, [Write("e0", 0, 1)], 2, id="IDEM-07"),
        pytest.param(S1, [Write("e0", ANY, 0)], 1, id="IDEM-08"),
        pytest.param(S1, [Write("e0", NO_STREAM, 0)], 1, id="IDEM-09"),
        pytest.param(S3, [Write("e1", ANY, 1)] * 2, 3, id="IDEM-10"),
        pytest.param(B2, [Write("e0", NO_STREAM, 0)], 2, id="IDEM-11"),
        pytest.param(B2, [Write("e0", ANY, 0)], 2, id="IDEM-12"),
        pytest.param(B2, [Write("e1", 0, 1)], 2, id="IDEM-13"),
        pytest.param(B2, [Write("e1", ANY, 1)], 2, id="IDEM-14"),
        pytest.param(B2, [Write("e0 e1 n", NO_STREAM, WEV)], 2, id="IDEM-15"),
        pytest.param(
            B2, [Write("e0 e1", v, 1) for v in (NO_STREAM, ANY, STREAM_EXISTS)], 2, id="IDEM-16"
        ),
        pytest.param(
            B2, [Write("e1", NO_STREAM, WEV), Write("e1 e0", NO_STREAM, WEV)], 2, id="IDEM-17"
        ),
        pytest.param(B2, [Write("e1 e0", ANY, 0)], 2, id="IDEM-18"),
        pytest.param(
            B2, [Write("e0 n", v, WEV) for v in (ANY, STREAM_EXISTS, NO_STREAM)], 2, id="IDEM-19"
        ),
        pytest.param(B2, [Write("n e0", ANY, 3)], 4, id="IDEM-20"),
        pytest.param(B2, [Write("e0 e1", 1, 3)], 4, id="IDEM-21"),
        pytest.param(B2, [Write("", NO_STREAM, WEV), Write("", 0, WEV)], 2, id="IDEM-22"),
        pytest.param(NOTHING, [Write("a b c d", ANY, 3)] * 2, 4, id="IDEM-23"),
        pytest.param(NOTHING, [Write("x x x x x x", ANY, 5)], 6, id="IDEM-24"),
        pytest.param(
            NOTHING,
            [Write("x x x x x x", ANY, 5), Write("x x x x x x", ANY, 0)],
            6,
            id="IDEM-25",
        ),
        pytest.param(NOTHING, [Write("x x x x x x", NO_STREAM, 5)] * 2, 6, id="IDEM-26"),
    ],
)
async def test_idem_01_to_26_plain_writes(
    before: list[Write], then: list[Write], events: int
) -> None:
    ids = Ids()
    async with admin_client() as client:
        for row in (*before, *then):
            await check(client, ids, "s", row)
        assert await count(client, "s") == events


async def test_idem_27_an_id_belongs_to_the_first_stream_that_had_it() -> None:
    """In another stream it is written, and the first stream still knows it.

    A server was recorded to go further than the row: the other stream never knows the id, so that
    there it is written again each time.
    """
    ids = Ids()
    async with admin_client() as client:
        await check(client, ids, "first", Write("e0", NO_STREAM, 0))
        for number in (0, 1):
            await check(client, ids, "second", Write("e0", ANY, number))
        await check(client, ids, "third", Write("e0", NO_STREAM, 0))
        await check(client, ids, "first", Write("e0", ANY, 0))
        assert [await count(client, stream) for stream in ("first", "second", "third")] == [1, 2, 1]


async def test_idem_28_and_29_the_first_content_stays() -> None:
    """A repetition has the position of the first write from 21.10 on, and none before."""
    async with admin_client() as client:
        first = NewEvent("first", data={"n": 1}, metadata={"m": 1})
        second = NewEvent("second", first.id, data=b"other")
        written = await client.publish("s", [first], NO_STREAM)
        repeated = await client.publish("s", [second], NO_STREAM)
        assert (written.last_event_number, repeated.last_event_number) == (0, 0)
        assert repeated.position in ((-1, -1), written.position)
        (stored,) = await client.get("s")
        assert (stored.type, stored.data, stored.metadata) == ("first", b'{"n":1}', b'{"m":1}')


@pytest.mark.parametrize(
    ("metadata", "visible"),
    [(StreamMetadata(truncate_before=2), []), (StreamMetadata(max_count=1), [1])],
)
async def test_idem_30_hidden_events_are_known(
    metadata: StreamMetadata, visible: list[int]
) -> None:
    async with admin_client() as client:
        events = new_events(2)
        await client.publish("s", events)
        await client.set_stream_metadata("s", metadata)
        assert await last_of(client.publish("s", events, NO_STREAM)) == 1
        assert numbers(await client.get("s")) == visible


@pytest.mark.parametrize("version", [NO_STREAM, ANY])
async def test_idem_31_a_repetition_brings_no_deleted_stream_back(version: int) -> None:
    async with admin_client() as client:
        events = new_events(2)
        await client.publish("s", events)
        await client.delete_stream("s")
        assert await last_of(client.publish("s", events, version)) == 1
        with pytest.raises(StreamNotFound):
            await client.get("s")
        assert await write(client, "s", 1, NO_STREAM) == 2
        assert numbers(await client.get("s")) == [2]


async def test_idem_32_a_repetition_after_a_hard_delete() -> None:
    async with admin_client() as client:
        events = new_events(2)
        await client.publish("s", events)
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted):
            await client.publish("s", events, NO_STREAM)


async def test_idem_33_the_node_is_restarted_before_the_repetition(tmp_path: Path) -> None:
    """With Any a server may know the events or not; all it must do is answer."""
    path = tmp_path / "events.db"
    first, second = new_events(1), new_events(1)
    async with node_and_admin(path=path) as (_, client):
        await client.publish("s", first, NO_STREAM)
        await client.publish("s", second, 0)
    async with node_and_admin(path=path) as (_, client):
        assert await last_of(client.publish("s", first, NO_STREAM)) == 0
        assert await last_of(client.publish("s", second, 0)) == 1
        assert await count(client, "s") == 2
        assert await last_of(client.publish("s", second, ANY)) in (1, 2)


@pytest.mark.parametrize("version", [ANY, NO_STREAM, 1])
async def test_idem_34_cut_between_request_and_reply(version: int) -> None:
    async with node_and_admin() as (node, client):
        before = max(version, NO_STREAM) + 1
        if before:
            await write(client, "s", before)
        events = new_events(3)
        with node.faults.cut_instead_of([TcpCommand.WriteEventsCompleted], times=2) as cut:
            written = await client.publish("s", events, version)
        assert cut.count == 2
        assert (written.first_event_number, written.last_event_number) == (before, before + 2)
        assert [event.id for event in (await client.get("s"))[before:]] == [e.id for e in events]
        assert await count(client, "s") == before + 3


async def test_idem_34_many_writes_and_several_cuts() -> None:
    async with (
        fastpump.server.run() as node,
        connect(node, max_attempts=100) as client,
    ):
        with node.faults.cut_instead_of([TcpCommand.WriteEventsCompleted], times=5) as cuts:
            await asyncio.gather(*(client.publish_event("s", "t", n) for n in range(100)))
        assert cuts.count == 5
        bodies = [event.json() async for event in client.iter("s", batch_size=7)]
        assert sorted(bodies) == list(range(100))


@pytest.mark.parametrize("version", [NO_STREAM, ANY])
async def test_idem_35_cut_before_the_reply_to_metadata(version: int) -> None:
    async with node_and_admin() as (node, client):
        with node.faults.cut_instead_of([TcpCommand.WriteEventsCompleted], times=1) as cut:
            written = client.set_stream_metadata("s", StreamMetadata(max_count=3), version)
            assert await last_of(written) == 0
        assert cut.count == 1
        assert (await client.get_stream_metadata("s")).version == 0
        log = [event async for event in client.iter_all()]
        assert [event.event_number for event in log if event.stream == "$$s"] == [0]


async def test_idem_36_cut_before_the_reply_to_a_delete() -> None:
    async with node_and_admin() as (node, client):
        for stream in ("soft", "hard"):
            await write(client, stream, 1)
        with node.faults.cut_instead_of([TcpCommand.DeleteStreamCompleted], times=1):
            await client.delete_stream("soft", ANY)
        with pytest.raises(StreamNotFound):
            await client.get("soft")
        with node.faults.cut_instead_of([TcpCommand.DeleteStreamCompleted], times=1):
            with pytest.raises(StreamDeleted):
                await client.delete_stream("hard", hard=True)
        with pytest.raises(StreamDeleted):
            await client.get("hard")


class Transacted(NamedTuple):
    """A transaction: its expected version, the ids of each of its writes, and the outcome."""

    version: int
    writes: list[str]
    outcome: int | str


@pytest.mark.parametrize(
    ("before", "then", "events"),
    [
        pytest.param(
            NOTHING, Transacted(NO_STREAM, [f"e{n}" for n in range(6)], 5), 6, id="IDEM-37"
        ),
        pytest.param(S6, Transacted(NO_STREAM, ["e0"], 0), 6, id="IDEM-38"),
        pytest.param(S6, Transacted(ANY, ["e0"], 0), 6, id="IDEM-39"),
        pytest.param(S6, Transacted(5, ["e0"], 6), 7, id="IDEM-40"),
        pytest.param(S6, Transacted(6, ["e0"], WEV), 6, id="IDEM-41"),
        pytest.param(S6, Transacted(4, ["e0"], WEV), 6, id="IDEM-42"),
        pytest.param(S1, Transacted(0, ["e0"], 1), 2, id="IDEM-43, at 0"),
        pytest.param(S1, Transacted(ANY, ["e0"], 0), 1, id="IDEM-43, Any"),
        pytest.param(S1, Transacted(NO_STREAM, ["e0"], 0), 1, id="IDEM-43, NoStream"),
        pytest.param(S3, Transacted(ANY, ["e1", "e1"], 1), 3, id="IDEM-44"),
        pytest.param(B2, Transacted(NO_STREAM, ["e0", "e1", "n"], WEV), 2, id="IDEM-45"),
    ],
)
async def test_idem_37_to_45_transactions(
    before: list[Write], then: Transacted, events: int
) -> None:
    ids = Ids()
    async with admin_client() as client:
        for row in before:
            await check(client, ids, "s", row)
        transaction = client.transaction("s", then.version)
        await transaction.start()
        for names in then.writes:
            await transaction.write(ids.events(names))
        if then.outcome == WEV:
            await refused(transaction.commit(), then.version, None)
        else:
            assert await last_of(transaction.commit()) == then.outcome
        assert await count(client, "s") == events


async def test_idem_46_two_transactions_with_the_same_event() -> None:
    async with admin_client() as client, AsyncExitStack() as stack:
        events = new_events(1)
        both = [await stack.enter_async_context(client.transaction("s")) for _ in range(2)]
        for transaction in both:
            await transaction.write(events)
        for transaction in both:
            assert await last_of(transaction.commit()) == 0
        assert await count(client, "s") == 1
