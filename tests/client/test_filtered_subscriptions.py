"""Filtered subscriptions: against the embedded node, and against a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from client.embedded import node_and_client
from client.peer import Link, Request, connected, eventually, outcome, reply_to, soon
from client.subscribing import push, read_into

import fastpump
import fastpump.server
from fastpump import Beginning, Client, End, Filter, NewEvent, Position, TcpCommand
from fastpump.exceptions import AccessDenied, BadRequest, PayloadUnreadable, UsageError
from fastpump.subscriptions import Subscription

STREAM_A = Filter.stream_prefix("stream-a")
READ = "FilteredReadAllEventsForward"
SUBSCRIBE = "FilteredSubscribeToStream"


async def write(client: Client, letters: str) -> None:
    """An event to stream-a or stream-b for each letter."""
    for letter in letters:
        await client.publish_event(f"stream-{letter}", "t")


async def take(subscription: Subscription, count: int) -> list[int]:
    seen: list[int] = []
    async for event in subscription.events:
        assert event.stream == "stream-a"
        seen.append(event.event_number)
        if len(seen) == count:
            break
    return seen


async def positions_of(client: Client) -> list[Position]:
    return [event.position async for event in client.iter_all() if event.position is not None]


# --- live ---


async def test_filt_08_only_what_fits() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(filter=STREAM_A) as subscription:
            assert subscription.is_live
            await write(client, "ab" * 10)
            assert await take(subscription, 10) == list(range(10))


@pytest.mark.parametrize("letters", ["a" * 10, "ab" * 5])
async def test_filt_08_checkpoint_at_every_second_event(letters: str) -> None:
    checkpoints: list[Position] = []
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=2, on_checkpoint=checkpoints.append
        ) as subscription:
            seen: list[Any] = []
            following = soon(read_into(seen, subscription))
            await write(client, letters)
            await eventually(lambda: len(checkpoints) == 5)
            assert seen == list(range(letters.count("a")))
            assert checkpoints == (await positions_of(client))[-9::2]
            assert subscription.checkpoint == checkpoints[-1]
        await following


async def test_filt_08_no_checkpoints() -> None:
    checkpoints: list[Position] = []
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=-1, on_checkpoint=checkpoints.append
        ) as subscription:
            await write(client, "ab" * 200)
            assert await take(subscription, 200) == list(range(200))
            assert checkpoints == []


@pytest.mark.parametrize("interval", [0, -2, 2**31, "1", 1.5])
async def test_filt_08_11_wrong_intervals(interval: Any) -> None:
    async with node_and_client() as (_, client):
        with pytest.raises(UsageError, match="checkpoint_interval"):
            await client.subscribe_to_all(filter=STREAM_A, checkpoint_interval=interval)


async def test_filt_11_wrong_arguments() -> None:
    async with node_and_client() as (_, client):
        for window in (0, -1, 9):
            with pytest.raises(UsageError, match="max_search_window"):
                await client.subscribe_to_all(
                    Beginning, batch_size=10, filter=STREAM_A, max_search_window=window
                )
        for name in ("max_search_window", "checkpoint_interval", "on_checkpoint"):
            alone: dict[str, Any] = {name: 200}
            with pytest.raises(UsageError, match=f"{name}: means nothing without a filter"):
                await client.subscribe_to_all(**alone)
        with pytest.raises(UsageError, match="on_checkpoint"):
            await client.subscribe_to_all(filter=STREAM_A, on_checkpoint=7)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="filter"):
            await client.subscribe_to_all(filter="stream-a")  # type: ignore[arg-type]


async def test_checkpoint_moves_while_the_loop_waits() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=1
        ) as subscription:
            waiting = soon(take(subscription, 1))
            await write(client, "bbb")
            last = (await positions_of(client))[-1]
            await eventually(lambda: subscription.checkpoint == last)
            await write(client, "a")
            assert await waiting == [0]


# --- from history into live ---


async def test_filt_09_checkpoints_of_history() -> None:
    checkpoints: list[Position] = []
    async with node_and_client() as (_, client):
        await write(client, "ab" * 10)
        async with await client.subscribe_to_all(
            Beginning,
            batch_size=2,
            filter=STREAM_A,
            max_search_window=2,
            on_checkpoint=checkpoints.append,
        ) as subscription:
            seen: list[Any] = []
            following = soon(read_into(seen, subscription))
            assert await subscription.caught_up()
            assert seen == list(range(10))
            assert len(checkpoints) >= 10
            assert checkpoints == sorted(checkpoints)
        await following


async def check_resuming_anywhere(client: Client, turns: list[Any]) -> None:
    """Resumed at each checkpoint: nothing missing, nothing twice. Numbers stand for events."""
    for place, turn in enumerate(turns):
        if isinstance(turn, Position):
            async with await client.subscribe_to_all(
                turn, batch_size=1, filter=STREAM_A
            ) as resumed:
                seen: list[Any] = []
                following = soon(read_into(seen, resumed))
                assert await resumed.caught_up()
                assert seen == [turn for turn in turns[place:] if isinstance(turn, int)]
            await following


async def test_filt_10_from_history_into_live() -> None:
    turns: list[Any] = []
    async with node_and_client() as (_, client):
        await write(client, "ab" * 10)
        async with await client.subscribe_to_all(
            Beginning, batch_size=1, filter=STREAM_A, on_checkpoint=turns.append
        ) as subscription:
            following = soon(read_into(turns, subscription))
            assert await subscription.caught_up()
            await eventually(lambda: subscription.checkpoint == turns[-1])
            # The one on the switch to live: behind it everything is pushed.
            assert turns[-1] >= (subscription.last_commit_position, 0)
            so_far = len(turns)
            for number in range(10, 20):
                await write(client, "a")
                so_far += 2
                await eventually(lambda: len(turns) == so_far)  # noqa: B023
                assert turns[-2:] == [number, (await positions_of(client))[-1]]
            assert [turn for turn in turns if isinstance(turn, int)] == list(range(20))
            checkpoints = [turn for turn in turns if isinstance(turn, Position)]
            assert checkpoints == sorted(checkpoints)
            await check_resuming_anywhere(client, turns)
        await following


@pytest.mark.parametrize("before", [0, 3, 100])
async def test_filt_10_transactions(before: int) -> None:
    """Of a transaction's events one may lie just where the page with the one before it ended."""
    turns: list[Any] = []
    async with node_and_client() as (_, client):

        async def write_transaction() -> None:
            async with client.transaction("stream-a") as transaction:
                await transaction.write([NewEvent("t"), NewEvent("t")])
                await write(client, "b")
                await transaction.write([NewEvent("t"), NewEvent("t")])

        for _ in range(3):
            await write_transaction()
        start: Any = Beginning if before == 100 else (await positions_of(client))[-1 - before]
        async with await client.subscribe_to_all(
            start, batch_size=1, filter=STREAM_A, on_checkpoint=turns.append
        ) as subscription:
            following = soon(read_into(turns, subscription))
            assert await subscription.caught_up()
            await write_transaction()
            await write(client, "ab")
            last = (await positions_of(client))[-1]
            await eventually(lambda: turns[-1] == last)
            numbers = [turn for turn in turns if isinstance(turn, int)]
            assert numbers == list(range(12 - before if before < 100 else 0, 17))
            await check_resuming_anywhere(client, turns)
        await following


async def test_filt_10_checkpoint_behind_what_does_not_fit() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(filter=STREAM_A) as subscription:
            start = subscription.checkpoint
        await write(client, "bab")
        last = (await positions_of(client))[-1]
        async with await client.subscribe_to_all(start, filter=STREAM_A) as resumed:
            assert await take(resumed, 1) == [0]
            waiting = soon(take(resumed, 1))
            await eventually(lambda: resumed.checkpoint >= last)
            await write(client, "a")
            assert await waiting == [1]


async def test_slices_are_never_empty() -> None:
    async with node_and_client() as (_, client):
        await write(client, "bbbbaabbbb")
        async with await client.subscribe_to_all(
            Beginning, batch_size=2, filter=STREAM_A, checkpoint_interval=1
        ) as subscription:
            sizes = []
            async for batch in subscription.slices():
                sizes.append(len(batch))
                assert subscription.checkpoint < batch[0].position
                if sum(sizes) == 2:
                    await write(client, "bba")
                if sum(sizes) == 3:
                    break
            assert 0 not in sizes


# --- the callback ---


async def test_on_checkpoint_may_be_a_coroutine_function() -> None:
    turns: list[Any] = []

    async def save(position: Position) -> None:
        turns.append("begin")
        await client.ping()
        turns.append("end")

    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=1, on_checkpoint=save
        ) as subscription:
            following = soon(read_into(turns, subscription))
            await write(client, "aab")
            last = (await positions_of(client))[-1]
            await eventually(lambda: subscription.checkpoint == last and turns[-1] == "end")
            assert turns[:3] == [0, "begin", "end"]
            numbers = [turn for turn in turns if isinstance(turn, int)]
            calls = [turn for turn in turns if isinstance(turn, str)]
            assert (numbers, calls) == ([0, 1], ["begin", "end"] * (len(calls) // 2))
        await following


@pytest.mark.parametrize("start", [Beginning, End])
@pytest.mark.parametrize("kind", ["events", "slices"])
async def test_filt_11_callback_that_raises(start: Any, kind: str) -> None:
    problem = ZeroDivisionError()

    def fail(position: Position) -> None:
        raise problem

    async with node_and_client() as (_, client):
        subscription = await client.subscribe_to_all(
            start, filter=STREAM_A, checkpoint_interval=1, on_checkpoint=fail
        )
        items = subscription.events if kind == "events" else subscription.slices()
        await write(client, "b")
        assert await outcome(anext(items)) is problem
        assert not await subscription.caught_up()
        assert [item async for item in items] == []
        assert await client.ping() > 0


async def test_unsubscribed_inside_the_callback() -> None:
    calls: list[Position] = []

    async def stop(position: Position) -> None:
        calls.append(position)
        await subscription.unsubscribe()

    async with node_and_client() as (_, client):
        subscription = await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=1, on_checkpoint=stop
        )
        await write(client, "bab")
        assert [event async for event in subscription.events] == []
        assert len(calls) == 1


async def test_cancelled_inside_the_callback() -> None:
    entered = asyncio.Event()

    async def save(position: Position) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=2, on_checkpoint=save
        ) as subscription:
            await write(client, "a")
            waiting = soon(take(subscription, 2))
            await write(client, "b")
            await entered.wait()
            waiting.cancel()
            await asyncio.wait({waiting})
            await write(client, "a")
            assert await take(subscription, 1) == [1]


# --- cut, slow, refused ---


@pytest.mark.parametrize("start", [Beginning, End])
async def test_cut_again_and_again(start: Any) -> None:
    checkpoints: list[Position] = []
    async with node_and_client() as (node, client):
        async with await client.subscribe_to_all(
            start,
            batch_size=2,
            filter=STREAM_A,
            checkpoint_interval=1,
            on_checkpoint=checkpoints.append,
        ) as subscription:
            taking = soon(take(subscription, 60))
            for _ in range(20):
                node.faults.disconnect()
                await write(client, "abbaba")
            assert await taking == list(range(60))
            assert checkpoints == sorted(checkpoints)


@pytest.mark.parametrize("reply", ["StreamEventAppeared", "CheckpointReached"])
async def test_pushes_and_checkpoints_sent_twice(reply: str) -> None:
    checkpoints: list[Position] = []
    async with node_and_client() as (node, client):
        node.faults.repeat(replies=[TcpCommand[reply]])
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=1, on_checkpoint=checkpoints.append
        ) as subscription:
            await write(client, "ab" * 10)
            assert await take(subscription, 10) == list(range(10))
            assert checkpoints == sorted(checkpoints)


async def test_slow_consumer_of_checkpoints_alone() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all(
            filter=STREAM_A, checkpoint_interval=1, buffer_events=10
        ) as subscription:
            await write(client, "b" * 50)
            await client.ping()
            assert subscription.is_live
            pushes = subscription._pushes
            assert pushes is not None
            assert len(pushes._batches) == 1
            await write(client, "a" * 11)
            await client.ping()
            assert not subscription.is_live
            await write(client, "ba")
            assert await take(subscription, 12) == list(range(12))


@pytest.mark.parametrize("start", [Beginning, End])
async def test_filt_07_no_right(start: Any) -> None:
    async with fastpump.server.run() as node, fastpump.connect(node.host, node.port) as client:

        async def consume() -> None:
            async with await client.subscribe_to_all(start, filter=STREAM_A) as subscription:
                await take(subscription, 1)

        assert isinstance(await outcome(consume()), AccessDenied)
        assert await client.ping() > 0


async def test_links_are_filtered_by_their_own_names() -> None:
    async with node_and_client() as (_, client):
        await client.publish_event("target", "t", {"n": 7})
        for start in (Beginning, End):
            wanted = Filter.stream_prefix("links")
            async with await client.subscribe_to_all(start, filter=wanted) as subscription:
                await client.publish_event("links", "$>", b"0@target")
                event = await anext(subscription.events)
                assert (event.stream, event.json()) == ("target", {"n": 7})


# --- against a scripted server ---


def checkpoint(request: Request, position: int) -> bytes:
    return reply_to(
        request, "CheckpointReached", commit_position=position, prepare_position=position
    )


@asynccontextmanager
async def subscribed(
    **options: Any,
) -> AsyncIterator[tuple[Subscription, Request, Link]]:
    """A confirmed subscription to what is new, with nothing sent yet."""
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to_all(filter=STREAM_A, **options))
        request = await link.expect(SUBSCRIBE)
        link.reply(request, last_commit_position=0)
        subscription = await subscribing
        yield subscription, request, link
        await subscription.unsubscribe()


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        ({}, 100),
        ({"batch_size": 7}, 7),
        ({"max_search_window": 900}, 900),
        ({"checkpoint_interval": 3}, 3),
        ({"checkpoint_interval": -1}, -1),
    ],
)
async def test_request_to_subscribe(options: Any, interval: int) -> None:
    async with subscribed(**options) as (_, request, _):
        assert request.fields == {
            "event_stream_id": "",
            "resolve_link_tos": True,
            "filter": {"context": 0, "type": 1, "data": ["stream-a"]},
            "checkpoint_interval": interval,
        }


async def test_filt_10_once_more_when_it_turns_live() -> None:
    checkpoints: list[Position] = []
    async with connected() as (client, link, _):
        async with await client.subscribe_to_all(
            Beginning, filter=STREAM_A, on_checkpoint=checkpoints.append
        ) as subscription:
            following = soon(read_into([], subscription))
            request = await link.expect(READ)
            link.reply(request, next_commit_position=9, is_end_of_stream=True)
            request = await link.expect(SUBSCRIBE)
            assert checkpoints == [(9, 0)]
            link.reply(request, last_commit_position=8)
            assert await subscription.caught_up()
            await eventually(lambda: checkpoints == [(9, 0), (9, 0)])
        await following


async def test_filt_12_server_that_does_not_know_filters() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to_all(filter=STREAM_A))
        link.refuse(await link.expect(SUBSCRIBE), "BadRequest", "Unknown command.")
        error = await outcome(subscribing)
        assert isinstance(error, BadRequest)
        assert "server of version 20" in str(error)
        subscription = await client.subscribe_to_all(Beginning, filter=STREAM_A)
        waiting = soon(take(subscription, 1))
        link.refuse(await link.expect(READ), "BadRequest", "Unknown command.")
        assert isinstance(await outcome(waiting), BadRequest)
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping


async def test_checkpoints_that_go_back() -> None:
    checkpoints: list[Position] = []
    async with subscribed(on_checkpoint=checkpoints.append) as (subscription, request, link):
        seen: list[Any] = []
        following = soon(read_into(seen, subscription))
        for data in (
            checkpoint(request, 5),
            checkpoint(request, 3),
            push(request, 9),
            checkpoint(request, 9),
            checkpoint(request, 10),
        ):
            link.send_raw(data)
            await link.nothing_more()
        assert seen == [9]
        assert checkpoints == [(5, 5), (10, 10)]
        assert subscription.checkpoint == (10, 10)
    await following


async def test_pushed_before_a_checkpoint_that_was_reached() -> None:
    async with subscribed() as (subscription, request, link):
        seen: list[Any] = []
        following = soon(read_into(seen, subscription))
        link.send_raw(checkpoint(request, 5))
        await link.nothing_more()
        link.send_raw(push(request, 3, 4, 5))
        await link.nothing_more()
        assert seen == [5]
    await following


async def test_checkpoints_after_leaving_are_let_go() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to_all(filter=STREAM_A))
        request = await link.expect(SUBSCRIBE)
        link.reply(request, last_commit_position=0)
        await (await subscribing).unsubscribe()
        await link.expect("UnsubscribeFromStream")
        link.send_raw(checkpoint(request, 5) + push(request, 7) + checkpoint(request, 9))
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.nothing_more()
        assert client.stats().unknown_frames == 0


async def test_unreadable_checkpoint() -> None:
    async with connected() as (client, link, peer):
        subscribing = soon(client.subscribe_to_all(filter=STREAM_A))
        request = await link.expect(SUBSCRIBE)
        link.reply(request, last_commit_position=0)
        async with await subscribing as subscription:
            waiting = soon(take(subscription, 1))
            link.send("CheckpointReached", request.id, b"\x08")
            assert isinstance(await outcome(waiting), PayloadUnreadable)
            await peer.accept_and_greet()


async def test_checkpoint_for_an_unfiltered_subscription() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to_all())
        request = await link.expect("SubscribeToStream")
        link.reply(request, last_commit_position=0)
        async with await subscribing as subscription:
            waiting = soon(take(subscription, 1))
            link.send_raw(checkpoint(request, 5))
            error = await outcome(waiting)
            assert "CheckpointReached" in str(error)
