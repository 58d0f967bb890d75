"""TX: explicit transactions."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from pathlib import Path

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
    take,
    write,
)
from client.proxy import CuttingProxy

import fastpump.server
from fastpump import (
    AccessDenied,
    ConnectionLost,
    End,
    NewEvent,
    OperationTimedOut,
    StreamDeleted,
    StreamNotFound,
    TcpCommand,
    UsageError,
)


@pytest.mark.parametrize("version", [NO_STREAM, ANY])
async def test_tx_01_one_event(version: int) -> None:
    async with admin_client() as client:
        async with client.transaction("s", version) as transaction:
            await transaction.write([NewEvent("t", data={"n": 1})])
        result = transaction.result
        assert result is not None
        assert (result.first_event_number, result.last_event_number) == (0, 0)
        assert result.position.commit > 0
        (event,) = await client.get("s")
        assert event.json() == {"n": 1}


async def test_tx_02_events_appear_with_the_commit() -> None:
    async with admin_client() as client:
        async with (
            await client.subscribe_to("s") as stream,
            await client.subscribe_to_all() as log,
        ):
            end = (await client.get_all(from_position=End)).next_position
            async with client.transaction("s") as transaction:
                await transaction.write([NewEvent("a"), NewEvent("b")])
                await transaction.write(NewEvent(kind) for kind in "cd")
                with pytest.raises(StreamNotFound):
                    await client.get("s")
                assert len(await client.get_all(from_position=end)) == 0
                # What is pushed to the subscribers comes behind this one.
                await write(client, "behind", 1)
            assert [event.type for event in await client.get("s")] == ["a", "b", "c", "d"]
            assert numbers(await take(stream, "s", 4)) == [0, 1, 2, 3]
            pushed = [await anext(log.events) for _ in range(5)]
            assert [event.stream for event in pushed] == ["behind", "s", "s", "s", "s"]


@pytest.mark.parametrize(("before", "version"), [(0, 1), (1, NO_STREAM), (1, 7)])
async def test_tx_03_a_wrong_version_shows_at_the_commit(before: int, version: int) -> None:
    async with admin_client() as client:
        if before:
            await write(client, "s", before)
        transaction = client.transaction("s", version)
        await transaction.start()
        await transaction.write(new_events(1))
        await refused(transaction.commit(), version, None)
        assert await count(client, "s") == before


async def test_tx_04_the_version_counts_at_the_commit() -> None:
    async with admin_client() as client:
        late = client.transaction("s", NO_STREAM)
        await late.start()
        await late.write(new_events(1))
        await write(client, "s", 1)
        await refused(late.commit(), NO_STREAM, None)
        assert await count(client, "s") == 1

        early = client.transaction("other", 0)
        await early.start()
        await early.write(new_events(1))
        await write(client, "other", 1)
        assert await last_of(early.commit()) == 1


@pytest.mark.parametrize("writes", [0, 1])
@pytest.mark.parametrize(("before", "version"), [(0, ANY), (0, NO_STREAM), (3, 2)])
async def test_tx_05_an_empty_commit(before: int, version: int, writes: int) -> None:
    async with admin_client() as client:
        if before:
            await write(client, "s", before)
        async with client.transaction("s", version) as transaction:
            for _ in range(writes):
                await transaction.write([])
        assert transaction.result is not None
        assert transaction.result.last_event_number == before - 1
        assert await count(client, "s") == before


@pytest.mark.parametrize("version", [2, ANY])
async def test_tx_06_writes_after_an_empty_commit(version: int) -> None:
    async with admin_client() as client:
        events = new_events(3)
        await client.publish("s", events)
        async with client.transaction("s", 2) as empty:
            pass
        assert empty.result is not None
        assert empty.result.last_event_number == 2
        assert await write(client, "s", 2, version) == 4
        assert numbers(await client.get("s")) == [0, 1, 2, 3, 4]
        assert await last_of(client.publish("s", events[:1], NO_STREAM)) == 0
        await refused(write(client, "s", 1, NO_STREAM), NO_STREAM, 4)


async def test_tx_07_many_writes_among_others() -> None:
    mine, others = new_events(500), new_events(500)
    async with admin_client() as client:
        async with client.transaction("s") as transaction:
            await asyncio.gather(
                *(
                    writing
                    for one, other in zip(mine, others, strict=True)
                    for writing in (transaction.write([one]), client.publish("s", [other]))
                )
            )
        ids = [event.id async for event in client.iter("s")]
        assert len(ids) == 1000
        assert set(ids[:500]) == {event.id for event in others}
        assert ids[500:] == [event.id for event in mine]


async def test_tx_08_the_stream_is_deleted_before_the_commit() -> None:
    async with admin_client() as client:
        transaction = client.transaction("s")
        await transaction.start()
        await transaction.write(new_events(1))
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted):
            await transaction.commit()


@pytest.mark.parametrize("is_committed", [True, False])
async def test_tx_09_what_is_over_is_over(is_committed: bool) -> None:
    async with admin_client() as client:
        with contextlib.suppress(ZeroDivisionError):
            async with client.transaction("s") as transaction:
                await transaction.write(new_events(1))
                if not is_committed:
                    raise ZeroDivisionError
        for attempt in (transaction.write(new_events(1)), transaction.commit()):
            with pytest.raises(UsageError, match="committed or rolled back"):
                await attempt
        with pytest.raises(UsageError, match="committed or rolled back"):
            transaction.rollback()
        assert await count(client, "s") == (1 if is_committed else 0)


async def test_a_transaction_that_was_not_started_says_how_to() -> None:
    async with admin_client() as client:
        with pytest.raises(UsageError, match="async with"):
            await client.transaction("s").write(new_events(1))


async def test_tx_10_going_on_by_id_on_another_connection() -> None:
    async with node_and_admin() as (node, first):
        started = first.transaction("s")
        await started.start()
        await started.write(new_events(1))
        await first.close()
        async with connect(node) as second:
            continued = second.transaction("s", transaction_id=started.id)
            await continued.write(new_events(1))
            assert await last_of(continued.commit()) == 1


async def test_tx_10_ids_that_never_were() -> None:
    """Writing succeeds, as a server was recorded to answer at once, other than the row has it."""
    async with admin_client() as client:
        with pytest.raises(UsageError, match="transaction_id"):
            client.transaction("s", transaction_id=-1)
        unknown = client.transaction("s", transaction_id=10**15)
        await unknown.write(new_events(1))
        with pytest.raises(AccessDenied):
            await unknown.commit()


async def test_tx_11_over_a_restart_of_the_node(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with AsyncExitStack() as stack:
        async with fastpump.server.run(path=path) as node:
            client = await stack.enter_async_context(connect(node))
            started = client.transaction("s", NO_STREAM)
            await started.start()
            await started.write(new_events(5))
        async with fastpump.server.run(path=path, port=node.port):
            continued = client.transaction("s", transaction_id=started.id)
            await continued.write(new_events(5))
            assert await last_of(continued.commit()) == 9
            assert await count(client, "s") == 10


async def test_tx_12_versions_to_start_with() -> None:
    async with admin_client() as client:
        with pytest.raises(UsageError, match="expected_version"):
            client.transaction("s", STREAM_EXISTS)
        with pytest.raises(UsageError, match="stream"):
            client.transaction("")


@pytest.mark.parametrize("lost", ["reply", "connection"])
async def test_a_lost_reply_does_not_make_a_second_event(lost: str) -> None:
    """A server takes what a transaction writes as often as it hears it."""
    events = new_events(2)
    async with (
        node_and_admin() as (node, _),
        CuttingProxy(node.host, node.port) as proxy,
        connect(proxy, operation_timeout=0.2 if lost == "reply" else 60.0) as client,
    ):
        with node.faults.drop(replies=[TcpCommand.TransactionWriteCompleted]) as drop:

            async def program() -> None:
                async with client.transaction("s") as transaction:
                    writing = asyncio.ensure_future(transaction.write(events))
                    if lost == "connection":
                        while not drop.count:
                            await asyncio.sleep(0)
                        proxy.cut()
                    await writing

            with pytest.raises(ConnectionLost if lost == "connection" else OperationTimedOut):
                await program()
        assert drop.count == 1
        assert await count(client, "s") == 0
        async with client.transaction("s") as transaction:
            await transaction.write(events)
        assert [event.id async for event in client.iter("s")] == [event.id for event in events]


async def test_a_commit_whose_reply_is_lost_is_repeated() -> None:
    async with node_and_admin() as (node, _), connect(node, operation_timeout=0.2) as client:
        node.faults.drop(replies=[TcpCommand.TransactionCommitCompleted], times=1)
        async with client.transaction("s") as transaction:
            await transaction.write(new_events(2))
        assert transaction.result is not None
        assert transaction.result.last_event_number == 1
        assert await count(client, "s") == 2
