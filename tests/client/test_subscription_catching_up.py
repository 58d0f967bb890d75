"""From history into live, and again after a lost connection, against the embedded node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client.embedded import AS_ADMIN, node_and_client, write
from client.following import next_event, next_slice, nothing_comes, take
from client.peer import eventually, outcome, soon
from client.subscribing import read_into

import fastpump
import fastpump.server
from fastpump import Beginning, Client, Position, TcpCommand
from fastpump.exceptions import ClientClosed, ConnectFailed, StreamDeleted, UsageError
from fastpump.subscriptions import Subscription


async def of_stream(log: Subscription, stream: str, count: int) -> list[int]:
    seen: list[int] = []
    async for event in log.events:
        if event.stream == stream:
            seen.append(event.event_number)
            if len(seen) == count:
                break
    return seen


# --- from history into live ---


async def test_csub_01_missing_stream() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s", 0) as subscription:
            assert not subscription.is_live
            await nothing_comes(subscription, client)
            await eventually(lambda: subscription.is_live)
            await write(client, "s", 1)
            assert await take(subscription, 1) == [0]


async def test_csub_01_02_caught_up() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        for start, expected in ((0, [0, 1, 2]), (3, []), (-1, [])):
            async with await client.subscribe_to("s", start, batch_size=2) as subscription:
                seen: list[int] = []
                following = soon(read_into(seen, subscription))
                # Told once to all who wait, after the last event of history.
                told = await asyncio.gather(subscription.caught_up(), subscription.caught_up())
                assert (told, seen) == ([True, True], expected)
                assert subscription.is_live
                assert subscription.last_event_number == 2
            await following


async def test_caught_up_only_by_the_loop() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s", 0) as subscription:
            assert subscription.last_event_number is subscription.last_commit_position is None
            waiting = soon(subscription.caught_up())
            await client.ping()
            assert not waiting.done()
        assert await waiting is False
        assert await subscription.caught_up() is False


async def test_caught_up_again_after_a_reconnect() -> None:
    async with node_and_client() as (node, client):
        async with await client.subscribe_to("s", 0) as subscription:
            following = soon(read_into([], subscription))
            assert await subscription.caught_up()
            with node.faults.refuse_connections():
                node.faults.disconnect()
                await eventually(lambda: not subscription.is_live)
            assert await subscription.caught_up()
            assert subscription.is_live
        await following


async def test_caught_up_asked_before_the_loop_knows_of_the_loss() -> None:
    async with node_and_client() as (node, client):
        async with await client.subscribe_to("s", 0) as subscription:
            following = soon(read_into([], subscription))
            assert await subscription.caught_up()
            node.faults.disconnect()
            while subscription.is_live:
                await asyncio.sleep(0)
            assert await subscription.caught_up()
            assert subscription.is_live
        await following


async def test_caught_up_of_one_that_cannot_go_on() -> None:
    async with node_and_client() as (_, client):
        await client.delete_stream("s", hard=True)
        async with await client.subscribe_to("s", 0) as subscription:
            waiting = soon(subscription.caught_up())
            with pytest.raises(StreamDeleted):
                await take(subscription, 1)
            assert await waiting is False


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
async def test_csub_02_stored_and_live(batch_size: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        async with await client.subscribe_to("s", 0, batch_size=batch_size) as subscription:
            assert await take(subscription, 10) == list(range(10))
            assert not subscription.is_live
            reading = soon(take(subscription, 10))
            await eventually(lambda: subscription.is_live)
            await write(client, "s", 10)
            assert await reading == list(range(10, 20))


@pytest.mark.parametrize("pause", [0, 1, 3])
async def test_csub_02_11_written_all_the_time(pause: int) -> None:
    count = 600

    async def keep_writing(client: Client) -> None:
        for _ in range(count // 10):
            await write(client, "s", 10)
            for _ in range(pause):
                await asyncio.sleep(0)

    async with node_and_client() as (_, client):
        writing = soon(keep_writing(client))
        async with (
            await client.subscribe_to("s", 0, batch_size=7) as stream,
            await client.subscribe_to_all(Beginning, batch_size=7) as log,
        ):
            first, second = await asyncio.gather(take(stream, count), of_stream(log, "s", count))
            assert first == second == list(range(count))
        await writing


@pytest.mark.parametrize(("stored", "start"), [(20, 10), (5, 4), (5, 5), (5, 0), (1, 1)])
async def test_csub_03_pp_12_start_is_inclusive(stored: int, start: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", stored)
        async with await client.subscribe_to("s", start) as subscription:
            assert subscription.checkpoint == start - 1
            if start < stored:
                assert await take(subscription, stored - start) == list(range(start, stored))
            await nothing_comes(subscription, client)
            await write(client, "s", 2)
            assert await take(subscription, 2) == [stored, stored + 1]


async def test_start_behind_the_end() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 2)
        async with await client.subscribe_to("s", 4) as subscription:
            await nothing_comes(subscription, client)
            await write(client, "s", 4)
            assert await take(subscription, 2) == [4, 5]


async def test_csub_04_log_from_everywhere() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        everything = [event.position async for event in client.iter_all()]
        for start in (Beginning, None):
            async with await client.subscribe_to_all(start, batch_size=3) as log:
                assert log.checkpoint is None
                seen = [(await next_event(log)).position for _ in everything]
                assert seen == everything
                await nothing_comes(log, client)
        for index, position in enumerate(everything):
            assert position is not None
            async with await client.subscribe_to_all(position, batch_size=1) as log:
                seen = [(await next_event(log)).position for _ in everything[index + 1 :]]
                assert seen == everything[index + 1 :]
                await nothing_comes(log, client)


async def test_csub_04_position_zero_is_that_of_an_event() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(Position(0, 0)) as log:
            assert log.checkpoint == (0, 0)


@pytest.mark.parametrize("stop_after", [1, 4, 5, 8])
async def test_csub_05_checkpoint(stop_after: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 6)
        async with await client.subscribe_to("s", 0, batch_size=4) as subscription:
            seen = await take(subscription, min(stop_after, 6))
            if stop_after > 6:
                await nothing_comes(subscription, client)
                await write(client, "s", 4)
                seen += await take(subscription, stop_after - 6)
            assert subscription.checkpoint == stop_after - 2, "the last one's turn is not over"
        assert subscription.checkpoint == stop_after - 2
        async with await client.subscribe_to("s", subscription.checkpoint + 1) as resumed:
            assert await take(resumed, 1) == [stop_after - 1]


async def test_csub_05_checkpoint_of_the_log() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 6)
        positions = [event.position async for event in client.iter_all()]
        async with await client.subscribe_to_all(Beginning) as log:
            await take(log, 5)
            assert log.checkpoint == positions[3]
        async with await client.subscribe_to_all(log.checkpoint) as resumed:
            assert (await next_event(resumed)).position == positions[4]


async def test_csub_05_checkpoint_of_slices() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 6)
        async with await client.subscribe_to("s", 0, batch_size=4) as subscription:
            slices = subscription.slices()
            assert [event.event_number for event in await anext(slices)] == [0, 1, 2, 3]
            assert subscription.checkpoint == -1
            assert [event.event_number for event in await anext(slices)] == [4, 5]
            assert subscription.checkpoint == 3
            reading = soon(next_slice(subscription))
            await eventually(lambda: subscription.is_live)
            assert subscription.checkpoint == 5
            await write(client, "s", 2)
            assert (await reading)[0].event_number == 6


async def test_describes_itself() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s", 3) as subscription:
            assert repr(subscription) == "<Subscription to s, catching up, at 2>"
        assert repr(subscription) == "<Subscription to s, over, at 2>"
        async with await client.subscribe_to_all() as log:
            assert repr(log).startswith("<Subscription to $all, live, at Position(")


async def test_csub_06_different_checkpoints() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 20)
        starts = [0, 5, 19, 20]
        followed = {start: await client.subscribe_to("s", start, batch_size=3) for start in starts}
        reading = [soon(take(followed[start], 25 - start)) for start in starts]
        await write(client, "s", 5)
        assert await asyncio.gather(*reading) == [list(range(start, 25)) for start in starts]
        for subscription in followed.values():
            await subscription.unsubscribe()


async def test_csub_12_arguments() -> None:
    async with node_and_client() as (_, client):
        wrong: list[dict[str, Any]] = [
            *({"batch_size": size} for size in (0, -1, 4097)),
            {"buffer_events": 0},
            {"buffer_bytes": 0},
        ]
        for arguments in wrong:
            with pytest.raises(UsageError, match=next(iter(arguments))):
                await client.subscribe_to("s", 0, **arguments)
            with pytest.raises(UsageError, match=next(iter(arguments))):
                await client.subscribe_to_all(**arguments)
        for start in (-2, 2**63, None):
            with pytest.raises(UsageError, match="start_from"):
                await client.subscribe_to("s", start)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="stream"):
            await client.subscribe_to("")
        with pytest.raises(UsageError, match="from_position"):
            await client.subscribe_to_all("start")  # type: ignore[arg-type]


async def test_not_connected() -> None:
    client = fastpump.connect()
    with pytest.raises(ClientClosed):
        await client.subscribe_to("s")
    with pytest.raises(ClientClosed):
        await client.subscribe_to_all()


async def test_csub_14_batch_size_one() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 5000)
        async with await client.subscribe_to("s", 0, batch_size=1) as subscription:
            assert await take(subscription, 5000) == list(range(5000))
            await nothing_comes(subscription, client)


@pytest.mark.parametrize("metadata", [{"$tb": 5}, {"$maxCount": 5}])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
async def test_csub_15_truncated_stream(metadata: dict[str, int], batch_size: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        await client.publish_event("$$s", "$metadata", metadata)
        async with await client.subscribe_to("s", 0, batch_size=batch_size) as subscription:
            assert await take(subscription, 5) == [5, 6, 7, 8, 9]
            reading = soon(take(subscription, 1))
            await eventually(lambda: subscription.is_live)
            await write(client, "s", 1)
            assert await reading == [10]


# --- connections that are lost ---


@pytest.mark.parametrize("after", [1, 500, 1000, 3000, 5500, 7000, 9000])
async def test_csub_16_pp_13_cut_in_history(after: int) -> None:
    async with node_and_client(max_attempts=1) as (node, client):
        await write(client, "s", 30, 100)
        node.faults.cut(after=after, times=3)
        async with await client.subscribe_to("s", 0, batch_size=4) as subscription:
            assert await take(subscription, 30) == list(range(30))
            await nothing_comes(subscription, client)


@pytest.mark.parametrize("instead_of", ["SubscriptionConfirmation", "StreamEventAppeared"])
async def test_csub_16_pp_13_cut_between_history_and_live(instead_of: str) -> None:
    async with node_and_client() as (node, client):
        await write(client, "s", 10)
        node.faults.cut_instead_of([TcpCommand[instead_of]], times=3)
        async with await client.subscribe_to("s", 0, batch_size=4) as subscription:
            reading = soon(take(subscription, 30))
            for _ in range(20):
                await eventually(lambda: subscription.is_live)
                await write(client, "s", 1)
            assert await reading == list(range(30))


async def test_csub_16_pp_13_cut_at_many_bytes_of_the_pushes() -> None:
    async with node_and_client() as (node, client):
        async with fastpump.connect(
            node.host, node.port, **AS_ADMIN, heartbeat_interval=60
        ) as writer:
            async with (
                await client.subscribe_to("s") as stream,
                await client.subscribe_to_all() as log,
            ):
                seen = soon(take(stream, 360)), soon(of_stream(log, "s", 360))
                connector = client._connector
                assert connector is not None
                for after in range(1, 1200, 20):
                    await eventually(lambda: stream.is_live and log.is_live)
                    reconnects = connector.reconnects
                    with node.faults.cut(after=after, times=2):
                        await write(writer, "s", 6, 50)
                    await eventually(lambda: connector.reconnects > reconnects)  # noqa: B023
                first, second = await asyncio.gather(*seen)
                assert first == second == list(range(360))


async def test_pushes_sent_twice() -> None:
    async with node_and_client() as (node, client):
        node.faults.repeat(
            replies=[TcpCommand.StreamEventAppeared, TcpCommand.SubscriptionConfirmation]
        )
        async with (
            await client.subscribe_to("s") as stream,
            await client.subscribe_to_all() as log,
        ):
            for _ in range(5):
                await write(client, "s", 4)
            assert await take(stream, 20) == list(range(20))
            assert await take(log, 20) == list(range(20))
            await nothing_comes(stream, client)


async def test_written_while_the_connection_is_gone() -> None:
    async with node_and_client() as (node, client):
        async with fastpump.connect(node.host, node.port, **AS_ADMIN) as writer:
            async with await client.subscribe_to("s") as subscription:
                for _ in range(5):
                    node.faults.disconnect()
                    await write(writer, "s", 3)
                assert await take(subscription, 15) == list(range(15))


async def test_vsub_11_node_that_comes_back(tmp_path: Any) -> None:
    path = tmp_path / "events.db"
    async with fastpump.server.run(path=path) as node:
        client = fastpump.connect(
            node.host, node.port, max_reconnects=-1, reconnect_delay=0.01, operation_timeout=0.3
        )
        await client.connect()
        subscription = await client.subscribe_to("s", 0)
        reading = soon(take(subscription, 4))
        await eventually(lambda: subscription.is_live)
        await write(client, "s", 2)
        # As if it were killed: a node that shuts down takes its leave, see the next test.
        node.faults.drop(replies=[TcpCommand.SubscriptionDropped])
        await eventually(lambda: subscription.checkpoint == 1)
    await asyncio.sleep(0.7)  # longer than one operation may take
    async with fastpump.server.run(port=node.port, path=path):
        async with fastpump.connect(node.host, node.port) as other:
            await write(other, "s", 2)
        assert await reading == [0, 1, 2, 3]
        await subscription.unsubscribe()
        await client.close()


async def test_pp_15_node_that_shuts_down_ends_the_loop() -> None:
    async with fastpump.server.run() as node:
        client = fastpump.connect(node.host, node.port, reconnect_delay=0.01)
        await client.connect()
        subscription = await client.subscribe_to("s", 0)
        reading = soon(take(subscription, 4))
        await eventually(lambda: subscription.is_live)
        await write(client, "s", 2)
    assert await reading == [0, 1]
    assert subscription.checkpoint == 1
    await subscription.unsubscribe()
    await client.close()


async def test_node_that_does_not_come_back() -> None:
    async with fastpump.server.run() as node:
        client = fastpump.connect(node.host, node.port, max_reconnects=2, reconnect_delay=0.01)
        await client.connect()
        subscription = await client.subscribe_to("s")
        reading = soon(take(subscription, 1))
        node.faults.drop(replies=[TcpCommand.SubscriptionDropped])
    assert isinstance(await outcome(reading), ConnectFailed)
    assert [event async for event in subscription.events] == []
    await client.close()
