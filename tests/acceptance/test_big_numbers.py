"""BIG: event numbers above 2^31, in a stream seeded so that its first one is 2147483648."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from acceptance.scenes import (
    BACKWARD,
    NO_STREAM,
    OPEN,
    node_and_admin,
    numbers,
    refused,
    window,
    write,
)

from fastpump import Beginning, Client, NewEvent, PersistentSubscriptionSettings, StreamMetadata
from fastpump.subscriptions import Subscription

LOW = 2**31 - 1
"""The number before the stream's first event."""

NUMBERS = list(range(LOW + 1, LOW + 6))


def seed(node: Any) -> None:
    """Let the next event of the stream "big" be number 2^31."""
    stream = node._engine.store.stream("big")
    stream.last = stream.committed = LOW


@asynccontextmanager
async def big_stream() -> AsyncIterator[Client]:
    """A client of a node whose stream "big" holds the five NUMBERS and begins with them."""
    async with node_and_admin() as (node, client):
        seed(node)
        await write(client, "big", len(NUMBERS))
        await client.set_stream_metadata("big", StreamMetadata(truncate_before=LOW + 1))
        yield client


async def test_big_01_appending() -> None:
    async with big_stream() as client:
        for expected in (LOW, NO_STREAM):
            await refused(write(client, "big", 1, expected), expected, LOW + 5, "big")
        assert await write(client, "big", 1, LOW + 5) == LOW + 6


async def test_big_02_reading() -> None:
    async with big_stream() as client:
        page = await client.get("big", from_event=0, max_count=5)
        assert window(page) == ([], LOW + 1, OPEN)
        forward = await client.get("big", from_event=LOW)
        backward = await client.get("big", BACKWARD, from_event=LOW + 6)
        assert numbers(forward) == NUMBERS
        assert numbers(backward) == NUMBERS[::-1]
        assert forward.last_event_number == LOW + 5
        for number in (*NUMBERS, -1):
            event = await client.get_event("big", number)
            assert event is not None
            assert event.event_number == (LOW + 5 if number == -1 else number)
        everything = [event async for event in client.iter_all()]
        assert numbers(event for event in everything if event.stream == "big") == NUMBERS
        backwards = [event async for event in client.iter_all(BACKWARD)]
        assert backwards == everything[::-1]


async def test_big_03_links() -> None:
    async with big_stream() as client:
        async with await client.subscribe_to("links") as live:
            links = [NewEvent("$>", data=f"{number}@big".encode()) for number in NUMBERS]
            await client.publish("links", links)
            page = await client.get("links")
            assert [event.event.event_number for event in page] == NUMBERS
            pushed = [await live.events.__anext__() for _ in NUMBERS]
            assert [event.event.event_number for event in pushed] == NUMBERS


async def take(subscription: Subscription, count: int) -> list[int]:
    """The numbers of its next events that are of the stream."""
    seen: list[int] = []
    while len(seen) < count:
        event = await anext(subscription.events)
        if event.stream == "big":
            seen.append(event.event_number)
    return seen


async def test_big_04_following() -> None:
    async with big_stream() as client:
        async with await client.subscribe_to("big") as live:
            await client.publish_event("big", "t")
            assert await take(live, 1) == [LOW + 6]
        everything = [*NUMBERS, LOW + 6]
        async with await client.subscribe_to("big", start_from=LOW) as from_low:
            assert await take(from_low, 6) == everything
        async with await client.subscribe_to_all(Beginning) as log:
            assert await take(log, 6) == everything


async def test_big_03_and_04_persistent_subscriptions() -> None:
    """On the stream itself, and on one of links to it, made before there were any."""
    async with big_stream() as client:
        settings = PersistentSubscriptionSettings(resolve_links=True, start_from=0)
        await client.create_subscription("group", "links", settings=settings)
        links = [NewEvent("$>", data=f"{number}@big".encode()) for number in NUMBERS]
        await client.publish("links", links)
        await client.create_subscription("group", "big", start_from=LOW + 1)
        for stream in ("big", "links"):
            async with await client.connect_subscription("group", stream) as consumer:
                events = [await anext(consumer.events) for _ in NUMBERS]
            assert [event.event.event_number for event in events] == NUMBERS
        later = PersistentSubscriptionSettings(start_from=LOW + 3)
        await client.update_subscription("group", "big", settings=later)
        async with await client.connect_subscription("group", "big") as consumer:
            assert (await anext(consumer.events)).event_number == LOW + 3


async def test_big_05_transactions_and_deletes() -> None:
    async with big_stream() as client:
        async with client.transaction("big", LOW + 5) as transaction:
            await transaction.write([NewEvent("t"), NewEvent("t")])
        assert transaction.result is not None
        assert transaction.result.last_event_number == LOW + 7
        assert len([event async for event in client.iter("big")]) == 7
        await client.delete_stream("big", LOW + 7)
        found = await client.get_stream_metadata("big")
        assert found.metadata.truncate_before == 2**63 - 1
