"""A consumer of a persistent subscription from end to end: its answers, reconnects and its end."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from uuid import uuid4
from weakref import ref

import orjson
import pytest
from client.embedded import client_of, node_and_client, write
from client.groupnode import Delivered, checkpoint, create, delivered, finish, gets_nothing
from client.groupwire import take
from client.peer import eventually, outcome, soon

import fastpump
import fastpump.server
from fastpump import Client, Event, NakAction, NewEvent, PersistentSubscriptionSettings, TcpCommand
from fastpump.exceptions import ClientClosed, StreamNotFound, UsageError
from fastpump.persistent import PersistentSubscription
from fastpump.server import Node

PUSH = [TcpCommand.PersistentSubscriptionStreamEventAppeared]
CONFIRMATION = [TcpCommand.PersistentSubscriptionConfirmation]


async def cut(node: Node, subscription: PersistentSubscription) -> None:
    """Cut its connection, and wait until it has connected again."""
    before = subscription.conversation_id
    node.faults.disconnect()
    await eventually(lambda: subscription.conversation_id not in (before, None))


async def parked(client: Client, count: int, key: str = "s::g") -> list[Event]:
    """The parked events, once there are this many."""
    while True:
        try:
            page = await client.get(f"$persistentsubscription-{key}-parked", resolve_links=False)
        except StreamNotFound:
            page = ()  # type: ignore[assignment]
        if len(page) >= count:
            return list(page)
        await asyncio.sleep(0.01)


# --- acknowledge, refuse, retry ---


@pytest.mark.parametrize("in_flight", [1, 10])
async def test_psub_19_in_flight(in_flight: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 20)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=in_flight) as subscription:
            events = await take(subscription, in_flight)
            assert await gets_nothing(subscription, client)
            for number in range(in_flight, 20):
                await subscription.ack(events.pop(0))
                events += await take(subscription, 1)
                assert events[-1].event_number == number
                assert await gets_nothing(subscription, client)


@pytest.mark.parametrize("action", [NakAction.Retry, NakAction.Unknown])
async def test_psub_20_retry(action: NakAction) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 6)
        await create(client)
        async with await client.connect_subscription("g", "s") as subscription:
            seen: list[Delivered] = []
            async for event in subscription.events:
                seen += delivered([event])
                if event.event_number == 2 and event.retry_count < 5:
                    await subscription.nak(event, action)
                else:
                    await subscription.ack(event)
                if len(seen) == 11:
                    break
            assert [retry for number, retry in seen if number == 2] == [0, 1, 2, 3, 4, 5]
            assert [retry for number, retry in seen if number != 2] == [0] * 5
            assert await gets_nothing(subscription, client)


async def test_psub_21_most_retries() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 1)
        await create(client, max_retry_count=3)
        async with await client.connect_subscription("g", "s") as subscription:
            for retry_count in range(4):
                [event] = await take(subscription, 1)
                assert event.retry_count == retry_count
                await subscription.nak(event)
            [link] = await parked(client, 1)
            assert link.data == b"0@s"
            assert await gets_nothing(subscription, client)


async def test_psub_22_park() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 20)
        await create(client)
        async with await client.connect_subscription("g", "s") as subscription:
            for number in range(20):
                [event] = await take(subscription, 1)
                assert delivered([event]) == [(number, 0)]
                await subscription.nak(event, NakAction.Park, "größer")
            links = await parked(client, 20)
            assert {link.type for link in links} == {"$>"}
            assert [link.data for link in links] == [b"%d@s" % number for number in range(20)]
            for number, link in enumerate(links):
                told = orjson.loads(link.metadata)
                assert told["reason"].endswith("größer")
                assert told.get("subscriptionEventNumber", 0) == number
                assert datetime.fromisoformat(told["added"])
            assert await gets_nothing(subscription, client)


@pytest.mark.parametrize("action", [NakAction.Skip, NakAction.Stop])
async def test_psub_23_skip_and_stop(action: NakAction) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 2)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=1) as subscription:
            await subscription.nak(await take(subscription, 1), action)
            assert await finish(subscription, 1) == [(1, 0)]
            assert await gets_nothing(subscription, client)
            with pytest.raises(StreamNotFound):
                await client.get("$persistentsubscription-s::g-parked")


async def test_psub_24_timeout() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 2)
        await create(client, message_timeout=0.5, max_retry_count=1)
        async with await client.connect_subscription("g", "s") as subscription:
            first = await take(subscription, 2)
            again = await take(subscription, 2)
            assert delivered(again) == [(0, 1), (1, 1)]
            await subscription.ack(first[0])  # late, and as good
            [link] = await parked(client, 1)
            assert link.data == b"1@s"
            assert await gets_nothing(subscription, client)


async def test_psub_25_many_in_one_call_and_ids_nobody_knows() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 30)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=10) as subscription:
            events = await take(subscription, 10)
            await subscription.ack([uuid4(), *events[:5], uuid4()])
            await subscription.nak(events[5:], NakAction.Skip)
            await subscription.ack(events)  # twice
            await subscription.ack([])
            assert await finish(subscription, 10) == [(number, 0) for number in range(10, 20)]
            with pytest.raises(UsageError, match="2000"):
                await subscription.ack([uuid4() for _ in range(2001)])
            await subscription.ack([uuid4() for _ in range(2000)])
            assert len(await finish(subscription, 10)) == 10


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
async def test_psub_26_consumer_that_fails(how: str) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await create(client)
        reached = asyncio.Event()

        async def consume() -> None:
            async with await client.connect_subscription("g", "s", auto_ack=True) as subscription:
                async for event in subscription.events:
                    if event.event_number == 1:
                        reached.set()
                        if how == "raises":
                            raise LookupError("nothing found")
                        await asyncio.Event().wait()

        failing = soon(consume())
        await reached.wait()
        if how == "is cancelled":
            failing.cancel()
        await asyncio.wait({failing})
        assert failing.cancelled() or isinstance(failing.exception(), LookupError)
        async with await client.connect_subscription("g", "s") as subscription:
            assert delivered(await take(subscription, 2)) == [(1, 1), (2, 1)]


async def test_psub_27_one_id_twice() -> None:
    async with node_and_client() as (_, client):
        same = uuid4()
        events = [NewEvent("t", id=same), NewEvent("t", id=same), NewEvent("t")]
        await client.publish("s", events)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=1) as subscription:
            for number in range(3):
                assert await finish(subscription, 1) == [(number, 0)]


# --- reconnects ---


async def test_psub_31_pp_14_cut_with_events_in_flight() -> None:
    """photon-pump lost the retry count, and its acks went to the connection that was gone."""
    async with node_and_client() as (node, client):
        await write(client, "s", 4)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=3) as subscription:
            old = await take(subscription, 2)
            await cut(node, subscription)
            new = await take(subscription, 3)
            assert delivered(new) == [(0, 1), (1, 1), (2, 1)]
            await subscription.ack(old)  # of a delivery that is over: they would free slots
            assert await gets_nothing(subscription, client)
            await subscription.ack(new)
            assert await finish(subscription, 1) == [(3, 0)]
            assert await gets_nothing(subscription, client)


async def test_psub_31_cut_again_and_again() -> None:
    """At least once, whatever happens; and never with the retry count of something new."""
    async with node_and_client() as (node, client):
        await write(client, "s", 100)
        await create(client, max_retry_count=1000)
        seen: dict[int, int] = {}
        async with await client.connect_subscription("g", "s", auto_ack=True) as subscription:
            async for event in subscription.events:
                assert (event.retry_count > 0) <= (event.event_number < 60)
                seen[event.event_number] = event.retry_count
                if len(seen) == 100:
                    break
                if event.retry_count == 0 and event.event_number in (1, 15, 30, 45):
                    node.faults.disconnect()
                    await asyncio.sleep(0)
        assert sorted(seen) == list(range(100))


async def test_psub_31_confirmation_lost() -> None:
    async with node_and_client() as (node, client):
        await write(client, "s", 2)
        await create(client)
        with node.faults.cut_instead_of(CONFIRMATION, times=2):
            subscription = await client.connect_subscription("g", "s")
        assert [number for number, _ in await finish(subscription, 2)] == [0, 1]
        await subscription.unsubscribe()


async def test_psub_31_pushes_lost() -> None:
    async with node_and_client() as (node, client):
        await write(client, "s", 3)
        await create(client)
        with node.faults.cut_instead_of(PUSH, times=3):
            async with await client.connect_subscription("g", "s") as subscription:
                seen = {number for number, _ in await finish(subscription, 3)}
        assert seen == {0, 1, 2}


async def test_psub_31_only_one_consumer_allowed_and_cut() -> None:
    async with node_and_client() as (node, client):
        await create(client, subscriber_max_count=1)
        async with await client.connect_subscription("g", "s") as subscription:
            for number in range(3):
                await cut(node, subscription)
                await write(client, "s", 1)
                # An ack that was on its way may be lost, and the event comes again.
                while (await finish(subscription, 1))[0][0] < number:
                    pass


async def test_psub_30_31_node_that_comes_back(tmp_path: Any) -> None:
    path = tmp_path / "events.db"
    options = {"max_reconnects": -1, "operation_timeout": 0.5}
    async with AsyncExitStack() as stack:
        async with fastpump.server.run(path=path) as node:
            client = await stack.enter_async_context(client_of(node, **options))
            await write(client, "s", 4)
            await create(client, checkpoint_after=0, checkpoint_max_count=1)
            subscription = await client.connect_subscription("g", "s")
            events = await take(subscription, 4)
            await subscription.ack(events[:2])
            await checkpoint(client, 1)
            # As if it were killed: a node that shuts down takes its leave, see the next test.
            node.faults.drop(replies=[TcpCommand.SubscriptionDropped])
            waiting = soon(finish(subscription, 3))
        await asyncio.sleep(0.7)  # longer than one operation may take
        await subscription.ack(events[2:])
        async with fastpump.server.run(port=node.port, path=path) as node:
            async with client_of(node) as other:
                await write(other, "s", 1)
            # The node's memory of what it delivered ended with it.
            assert await waiting == [(2, 0), (3, 0), (4, 0)]
            await subscription.unsubscribe()


async def test_pp_15_node_that_shuts_down_ends_the_loop() -> None:
    async with AsyncExitStack() as stack:
        async with fastpump.server.run() as node:
            client = await stack.enter_async_context(client_of(node))
            await create(client)
            subscription = await client.connect_subscription("g", "s")
            reading = soon(take(subscription, 1))
            await client.ping()
        assert isinstance(await outcome(reading), StopAsyncIteration)
        assert [event async for event in subscription.events] == []
        await subscription.unsubscribe()


async def test_client_closed_while_it_is_open() -> None:
    async with node_and_client() as (node, client):
        await write(client, "s", 3)
        await create(client)
        async with client_of(node) as other:
            subscription = await other.connect_subscription("g", "s")
            await subscription.ack(await take(subscription, 1))
        assert isinstance(await outcome(take(subscription, 1)), ClientClosed)
        async with await client.connect_subscription("g", "s") as subscription:
            assert await finish(subscription, 2) == [(1, 1), (2, 1)]


# --- the consumer ---


@pytest.mark.parametrize("turns", range(12))
async def test_consumer_cancelled_anywhere(turns: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await create(client)

        async def consume() -> None:
            async with await client.connect_subscription("g", "s", auto_ack=True) as subscription:
                async for _ in subscription.events:
                    await asyncio.sleep(0)

        consuming = soon(consume())
        for _ in range(turns):
            await asyncio.sleep(0)
        consuming.cancel()
        await asyncio.wait({consuming})
        async with await client.connect_subscription("g", "s") as subscription:
            await write(client, "s", 1)
            while (await finish(subscription, 1))[-1][0] != 3:
                pass


async def test_events_handled_by_tasks() -> None:
    """Answers need not come in order, nor from the loop."""
    async with node_and_client() as (_, client):
        await write(client, "s", 50)
        await create(client)
        async with await client.connect_subscription("g", "s", in_flight=7) as subscription:

            async def handle(event: Event) -> int:
                await client.get_event("s", 49 - event.event_number)
                await subscription.ack(event)
                return event.event_number

            tasks = []
            async for event in subscription.events:
                tasks.append(soon(handle(event)))
                if len(tasks) == 50:
                    break
            assert sorted(await asyncio.gather(*tasks)) == list(range(50))


async def test_several_on_one_connection() -> None:
    async with node_and_client() as (_, client):
        await create(client, "a")
        await create(client, "b")
        async with (
            await client.connect_subscription("g", "a") as a,
            await client.connect_subscription("g", "b") as b,
            await client.subscribe_to("a") as volatile,
        ):
            await write(client, "a", 2)
            await write(client, "b", 1)
            assert await finish(a, 2) == [(0, 0), (1, 0)]
            assert await finish(b, 1) == [(0, 0)]
            assert (await anext(volatile.events)).retry_count == 0


async def test_forgotten_without_unsubscribe() -> None:
    """It stays a consumer, with all it was given, until its connection ends."""
    async with node_and_client() as (node, other):
        await write(other, "s", 2)
        await create(other)
        async with client_of(node) as client:
            subscription = await client.connect_subscription("g", "s", auto_ack=True)
            async for _ in subscription.events:
                break
            forgotten = ref(subscription)
            del subscription

            def is_collected() -> bool:
                gc.collect()
                return forgotten() is None

            # Its generator is closed by a task of the loop, and holds it until then.
            await eventually(is_collected)
            await client.ping()
            staying = await other.connect_subscription("g", "s")
            assert await gets_nothing(staying, other)
        assert await finish(staying, 2) == [(0, 1), (1, 1)], "nothing was acknowledged"
        await staying.unsubscribe()


async def test_names_that_look_like_something_else() -> None:
    async with node_and_client() as (_, client):
        for stream, name in (("a::b", "c"), ("größe", "g r o u p"), ("%41", "::")):
            settings = PersistentSubscriptionSettings(start_from=0)
            await client.create_subscription(name, stream, settings=settings)
            await write(client, stream, 1)
            async with await client.connect_subscription(name, stream, in_flight=1) as consumer:
                assert consumer.name == f"{stream}::{name}"
                assert await finish(consumer, 1) == [(0, 0)]
                await write(client, stream, 1)
                assert await finish(consumer, 1) == [(1, 0)]
            await client.delete_subscription(name, stream)


async def test_redelivered_events_wait_no_more_than_the_limit() -> None:
    """A consumer that stands still gets what it has not looked at again and again."""
    async with node_and_client() as (_, client):
        await write(client, "s", 4)
        await create(client, message_timeout=0.2, max_retry_count=100)
        async with await client.connect_subscription("g", "s", in_flight=4) as subscription:
            waiting = subscription._consumer.waiting
            await eventually(lambda: waiting and waiting[0].retry_count == 2)
            assert delivered(waiting) == [(0, 2), (1, 2), (2, 2), (3, 2)]
            assert await finish(subscription, 4) == [(0, 2), (1, 2), (2, 2), (3, 2)]
            assert await gets_nothing(subscription, client)
