"""Loops over subscriptions, against the embedded node: left, cancelled, slow, beside other work."""

from __future__ import annotations

import asyncio
import gc
import itertools
from contextlib import aclosing
from typing import Any

import pytest
from client.embedded import node_and_client, write
from client.following import next_event, next_slice, take
from client.peer import eventually, outcome, soon

from fastpump.exceptions import ClientClosed, UsageError
from fastpump.subscriptions import Subscription

# --- left and cancelled ---


async def test_csub_07_unsubscribe_inside_the_loop() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        subscription = await client.subscribe_to("s", 0, batch_size=4)
        seen = []
        async for event in subscription.events:
            seen.append(event.event_number)
            if len(seen) == 6:
                await subscription.unsubscribe()
        assert seen == list(range(6))


@pytest.mark.parametrize("live", [False, True])
async def test_csub_08_consumer_raises(live: bool) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        seen: list[int] = []
        problem = ZeroDivisionError()

        async def consume() -> None:
            async with await client.subscribe_to("s", 0, batch_size=2) as subscription:
                async for event in subscription.events:
                    seen.append(event.event_number)
                    if len(seen) == 10 and live:
                        soon_written.append(soon(write(client, "s", 5)))
                    if len(seen) == (12 if live else 4):
                        raise problem

        soon_written: list[asyncio.Task[None]] = []
        assert await outcome(consume()) is problem
        assert seen == list(range(12 if live else 4))
        await asyncio.gather(*soon_written)
        assert await client.ping() > 0


@pytest.mark.parametrize("turns", range(0, 40, 3))
@pytest.mark.parametrize("start", [-1, 0])
async def test_consumer_cancelled_anywhere(turns: int, start: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)

        async def consume() -> None:
            async with await client.subscribe_to("s", start, batch_size=2) as subscription:
                async for _ in subscription.events:
                    pass

        consuming = soon(consume())
        for _ in range(turns):
            await asyncio.sleep(0)
        consuming.cancel()
        await asyncio.wait({consuming})
        assert consuming.cancelled()
        async with await client.subscribe_to("s", 0) as subscription:
            assert await take(subscription, 10) == list(range(10))


async def test_wait_that_is_cancelled_can_be_repeated() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 20)
        async with await client.subscribe_to("s", 0, batch_size=2) as subscription:
            seen: list[int] = []
            written = 20
            for turns in itertools.cycle(range(25)):
                waiting = soon(next_event(subscription))
                for _ in range(turns):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait({waiting})
                if not waiting.cancelled():
                    seen.append(waiting.result().event_number)
                elif written < 40 and subscription.is_live:
                    await write(client, "s", 2)
                    written += 2
                if len(seen) == 40:
                    break
            assert seen == list(range(40))


@pytest.mark.parametrize("items", ["events", "slices"])
async def test_closing_the_loop_ends_it(items: str) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        subscription = await client.subscribe_to("s", 0, batch_size=5)
        loop = subscription.events if items == "events" else subscription.slices()
        async with aclosing(loop) as running:  # type: ignore[type-var]
            await anext(running)
            await anext(running)
        assert subscription.checkpoint == (0 if items == "events" else 4)
        assert [item async for item in loop] == [], "nothing is left out and the rest given"
        assert subscription.checkpoint == (0 if items == "events" else 4)
        await client.ping()
        assert client.stats().subscriptions == 0


# --- slow consumers ---


def waiting_in(subscription: Subscription) -> int:
    pushes = subscription._pushes
    return 0 if pushes is None else pushes._events


@pytest.mark.parametrize("limit", [{"buffer_events": 10}, {"buffer_bytes": 5000}])
@pytest.mark.parametrize("start", [-1, 0])
async def test_csub_13_vsub_12_slow_consumer(limit: dict[str, Any], start: int) -> None:
    async with node_and_client() as (_, client):
        async with (
            await client.subscribe_to("s", start, **limit, batch_size=20) as slow,
            await client.subscribe_to("s", start) as other,
        ):
            keeping_up = soon(take(other, 300))
            first = soon(take(slow, 1))
            await eventually(lambda: slow.is_live and other.is_live)
            await write(client, "s", 1, 100)
            seen = await first
            for _ in range(25):
                await write(client, "s", 10, 100)
            assert not slow.is_live
            assert waiting_in(slow) <= 40
            seen += await take(slow, 250)
            reading = soon(take(slow, 49))
            await eventually(lambda: slow.is_live)
            for _ in range(49):
                await write(client, "s", 1, 100)
            assert seen + await reading == list(range(300))
            assert await keeping_up == list(range(300))


async def test_event_larger_than_the_buffer() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s", buffer_bytes=1000) as subscription:
            for _ in range(5):
                await write(client, "s", 1, 5000)
            assert await take(subscription, 5) == [0, 1, 2, 3, 4]


# --- beside other work ---


async def test_other_operations_inside_the_loop() -> None:
    # With photon-pump an operation awaited here waited for ever behind a full queue. A subscription
    # must not take the one place for operations either.
    async with node_and_client(max_in_flight=1) as (_, client):
        await write(client, "s", 10)
        async with await client.subscribe_to("s", 0, batch_size=2) as subscription:
            async for event in subscription.events:
                await client.publish_event("copy", "t")
                assert await client.ping() > 0
                if event.event_number < 10:
                    await client.publish_event("s", "t")
                if event.event_number == 19:
                    break
        assert len(await client.get("copy")) == 20


@pytest.mark.parametrize("start", [-1, 0])
async def test_client_closed_while_subscribed(start: int) -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s", start) as subscription:
            reading = soon(take(subscription, 1))
            await eventually(lambda: subscription.is_live)
            await client.close()
            assert isinstance(await outcome(reading), ClientClosed)
            assert not subscription.is_live
            assert [event async for event in subscription.events] == []


async def test_client_closed_before_the_loop() -> None:
    async with node_and_client() as (_, client):
        subscription = await client.subscribe_to("s", 0)
        await client.close()
        with pytest.raises(ClientClosed):
            await take(subscription, 1)


@pytest.mark.parametrize("kind", ["events", "slices"])
async def test_two_loops_at_a_time(kind: str) -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s") as subscription:
            first = soon(next_event(subscription))
            await asyncio.sleep(0)
            second = next_event if kind == "events" else next_slice
            with pytest.raises(UsageError, match="subscribe once more"):
                await second(subscription)
            await write(client, "s", 1)
            assert (await first).event_number == 0


async def test_loop_left_and_entered_again() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        async with await client.subscribe_to("s", 0, batch_size=4) as subscription:
            counts = (3, 1, 2, 4)
            assert [await take(subscription, count) for count in counts] == [
                [0, 1, 2],
                [3],
                [4, 5],
                [6, 7, 8, 9],
            ]


async def test_forgotten_without_unsubscribe() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)

        async def look() -> int:
            subscription = await client.subscribe_to("s", 0, batch_size=2)
            async for event in subscription.events:
                if event.event_number == 4:
                    break
            return event.event_number

        assert await look() == 4
        gc.collect()
        assert await client.ping() > 0
