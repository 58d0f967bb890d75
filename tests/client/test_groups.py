"""Persistent subscriptions from end to end, against the embedded node and its faults."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import orjson
import pytest
from client.peer import eventually, outcome, soon
from client.proxy import CuttingProxy

import fastpump
import fastpump.server
from fastpump import Client, Event, NakAction, NewEvent, PersistentSubscriptionSettings, TcpCommand
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    MaximumSubscribersReached,
    PersistentSubscriptionAlreadyExists,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionNotFound,
    StreamNotFound,
    SubscriptionCreationFailed,
    UsageError,
)
from fastpump.persistent import PersistentSubscription
from fastpump.server import Node

ADMIN: dict[str, Any] = {"username": "admin", "password": "changeit"}
PUSH = [TcpCommand.PersistentSubscriptionStreamEventAppeared]
CONFIRMATION = [TcpCommand.PersistentSubscriptionConfirmation]

Delivered = tuple[int, int]
"""An event's number and its retry count."""


def client_of(node: Node, **options: Any) -> Client:
    return fastpump.connect(node.host, node.port, **{"reconnect_delay": 0.01, **ADMIN, **options})


@asynccontextmanager
async def node_and_client(**options: Any) -> AsyncIterator[tuple[Node, Client]]:
    async with fastpump.server.run(**options) as node, client_of(node) as client:
        yield node, client


async def write(client: Client, stream: str, count: int) -> None:
    await client.publish(stream, [NewEvent("t", data={"n": n}) for n in range(count)])


async def create(client: Client, stream: str = "s", **settings: Any) -> None:
    settings = {"start_from": 0, **settings}
    await client.create_subscription(
        "g", stream, settings=PersistentSubscriptionSettings(**settings)
    )


async def take(subscription: PersistentSubscription, count: int) -> list[Event]:
    return [await anext(subscription.events) for _ in range(count)]


def delivered(events: Iterable[Event]) -> list[Delivered]:
    return [(event.event_number, event.retry_count) for event in events]


async def finish(subscription: PersistentSubscription, count: int) -> list[Delivered]:
    """Take this many events and acknowledge them."""
    events = await take(subscription, count)
    await subscription.ack(events)
    return delivered(events)


async def gets_nothing(subscription: PersistentSubscription, client: Client) -> bool:
    """Whether nothing comes though the node had the chance to push something."""
    waiting = soon(take(subscription, 1))
    await client.ping()
    await client.ping()
    waiting.cancel()
    await asyncio.wait({waiting})
    return waiting.cancelled()


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


async def checkpoint(client: Client, number: int) -> None:
    """Wait until it is at this number."""
    while True:
        try:
            event = await client.get_event("$persistentsubscription-s::g-checkpoint", -1)
        except StreamNotFound:
            event = None
        if event is not None and event.json() == number:
            return
        await asyncio.sleep(0.01)


# --- create, update, delete ---


async def test_psub_01_create() -> None:
    async with node_and_client() as (_, client):
        await write(client, "used", 2)
        await client.create_subscription("g", "used")
        await client.create_subscription("g", "never used")
        with pytest.raises(PersistentSubscriptionAlreadyExists) as caught:
            await client.create_subscription("g", "used")
        assert caught.value.subscription == "used::g"
        await client.delete_subscription("g", "used")
        await client.create_subscription("g", "used")


@pytest.mark.parametrize("login", [None, ("ada", "secret"), ("ops", "changeit")])
async def test_psub_02_rights(login: tuple[str, str] | None) -> None:
    """Server 4.1.4 refuses `ops` too."""
    settings = PersistentSubscriptionSettings()
    async with node_and_client(users={"ada": "secret"}) as (node, admin):
        await create(admin)
        username, password = login or (None, None)
        async with client_of(node, username=username, password=password) as client:
            for call in (
                client.create_subscription("other", "s"),
                client.update_subscription("g", "s", settings),
                client.delete_subscription("g", "s"),
            ):
                with pytest.raises(AccessDenied):
                    await call
            # photon-pump's way to give another credential to this one call
            credential = fastpump.Credential("admin", "changeit")
            await client.create_subscription("other", "s", credential=credential)
        await admin.update_subscription("g", "s", settings)
        await admin.delete_subscription("g", "s")


async def test_psub_03_no_subscription_to_the_log() -> None:
    async with node_and_client() as (_, client):
        with pytest.raises(SubscriptionCreationFailed, match="Bad stream name"):
            await client.create_subscription("g", "$all")


@pytest.mark.parametrize(
    "strategy", [fastpump.ROUND_ROBIN, fastpump.DISPATCH_TO_SINGLE, fastpump.PINNED]
)
async def test_psub_04_the_strategies_have_their_right_names(strategy: str) -> None:
    async with node_and_client() as (_, client):
        await client.create_subscription("g", "s", consumer_strategy=strategy)


@pytest.mark.parametrize("strategy", ["DisptchToSingle", fastpump.PINNED_BY_CORRELATION])
async def test_psub_04_what_the_server_does_not_know(strategy: str) -> None:
    async with node_and_client() as (_, client):
        with pytest.raises(SubscriptionCreationFailed, match=f"{strategy} does not exist"):
            await client.create_subscription("g", "s", consumer_strategy=strategy)
        await create(client)
        settings = PersistentSubscriptionSettings(consumer_strategy=strategy)
        with pytest.raises(PersistentSubscriptionCommandFailed, match=strategy):
            await client.update_subscription("g", "s", settings)


@pytest.mark.parametrize(("prefer_round_robin", "first"), [(True, [0, 2]), (False, [0, 1])])
async def test_psub_04_the_flag_decides(prefer_round_robin: bool, first: list[int]) -> None:
    async with node_and_client() as (_, client):
        await create(client, consumer_strategy="", prefer_round_robin=prefer_round_robin)
        async with (
            await client.connect_subscription("g", "s") as one,
            await client.connect_subscription("g", "s"),
        ):
            await write(client, "s", 4)
            assert [event.event_number for event in await take(one, 2)] == first


async def test_psub_06_update() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await create(client)
        subscription = await client.connect_subscription("g", "s")
        reading = soon(take(subscription, 4))
        await client.ping()
        settings = PersistentSubscriptionSettings(start_from=2, subscriber_max_count=1)
        await client.update_subscription("g", "s", settings)
        assert isinstance(await outcome(reading), StopAsyncIteration)
        assert [event async for event in subscription.events] == []
        async with await client.connect_subscription("g", "s") as subscription:
            assert await finish(subscription, 1) == [(2, 0)]
            with pytest.raises(MaximumSubscribersReached):
                await client.connect_subscription("g", "s")
        with pytest.raises(PersistentSubscriptionNotFound) as caught:
            await client.update_subscription("other", "s", settings)
        assert caught.value.subscription == "s::other"


async def test_psub_07_delete() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await create(client, checkpoint_after=0, checkpoint_max_count=1)
        subscription = await client.connect_subscription("g", "s")
        assert await finish(subscription, 3) == [(0, 0), (1, 0), (2, 0)]
        await checkpoint(client, 2)
        await client.delete_subscription("g", "s")
        assert [event async for event in subscription.events] == []
        with pytest.raises(PersistentSubscriptionNotFound):
            await client.connect_subscription("g", "s")
        with pytest.raises(PersistentSubscriptionNotFound):
            await client.delete_subscription("g", "s")
        await create(client, start_from=1)
        async with await client.connect_subscription("g", "s") as subscription:
            assert await finish(subscription, 2) == [(1, 0), (2, 0)]


# --- connect ---


async def test_psub_09_pp_14_connect() -> None:
    async with node_and_client() as (node, client):
        with pytest.raises(PersistentSubscriptionNotFound, match="'s::g' does not exist"):
            await client.connect_subscription("g", "s")
        await write(client, "s", 3)
        await create(client, start_from=-1)
        async with await client.connect_subscription("g", "s") as subscription:
            assert (subscription.name, subscription.stream) == ("s::g", "s")
            assert subscription.last_event_number == 2
            assert subscription.initial_commit_position > 0
        await create(client, "$s")
        async with client_of(node, username=None, password=None) as nobody:
            with pytest.raises(AccessDenied):
                await nobody.connect_subscription("g", "$s")


@pytest.mark.parametrize("login", [{}, {"username": None, "password": None}])
async def test_psub_10_no_credentials(login: dict[str, Any]) -> None:
    async with node_and_client() as (node, admin):
        await write(admin, "s", 1)
        await create(admin)
        async with client_of(node, **login) as client:
            async with await client.connect_subscription("g", "s") as subscription:
                assert await finish(subscription, 1) == [(0, 0)]


async def test_another_credential_for_the_consumer() -> None:
    """Its answers carry it too."""
    async with node_and_client(users={"ada": "secret"}) as (node, admin):
        await write(admin, "s", 3)
        await create(admin)
        async with client_of(node, username=None, password=None) as client:
            ada = client.acting_as(("ada", "secret"))
            async with await ada.connect_subscription("g", "s", in_flight=1) as subscription:
                for number in range(3):
                    assert await finish(subscription, 1) == [(number, 0)]


async def test_psub_11_most_consumers() -> None:
    async with node_and_client() as (_, client):
        await create(client, subscriber_max_count=1)
        first = await client.connect_subscription("g", "s")
        with pytest.raises(MaximumSubscribersReached) as caught:
            await client.connect_subscription("g", "s")
        assert caught.value.retriable
        await write(client, "s", 1)
        assert await finish(first, 1) == [(0, 0)]
        await first.unsubscribe()
        async with await client.connect_subscription("g", "s") as second:
            await write(client, "s", 1)
            assert await finish(second, 1) == [(1, 0)]


@pytest.mark.parametrize(
    ("start_from", "stored", "then", "first"),
    [(0, 0, 2, 0), (0, 10, 0, 0), (2, 0, 3, 2), (4, 10, 0, 4), (10, 10, 1, 10), (11, 11, 1, 11)],
)
async def test_psub_13_and_15_start(start_from: int, stored: int, then: int, first: int) -> None:
    async with node_and_client() as (_, client):
        if stored:
            await write(client, "s", stored)
        await create(client, start_from=start_from)
        async with await client.connect_subscription("g", "s") as subscription:
            if then:
                await write(client, "s", then)
            assert await finish(subscription, 1) == [(first, 0)]


async def test_psub_14_from_now_on() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 10)
        await create(client, start_from=-1)
        async with await client.connect_subscription("g", "s") as subscription:
            assert await gets_nothing(subscription, client)
            await write(client, "s", 1)
            assert await finish(subscription, 1) == [(10, 0)]


@pytest.mark.parametrize(("stored", "total"), [(0, 20), (20, 20), (20, 25)])
@pytest.mark.parametrize("auto_ack", [False, True])
@pytest.mark.parametrize("in_slices", [False, True])
async def test_psub_16_every_event_once(
    stored: int, total: int, auto_ack: bool, in_slices: bool
) -> None:
    async with node_and_client() as (_, client):
        if stored:
            await write(client, "s", stored)
        await create(client)
        async with await client.connect_subscription("g", "s", auto_ack=auto_ack) as subscription:
            if total > stored:
                await write(client, "s", total - stored)
            seen: list[Delivered] = []
            if in_slices:
                async for batch in subscription.slices():
                    seen += delivered(batch)
                    if not auto_ack:
                        await subscription.ack(batch)
                    if len(seen) == total:
                        break
            else:
                async for event in subscription.events:
                    seen += delivered([event])
                    if not auto_ack:
                        await subscription.ack(event)
                    if len(seen) == total:
                        break
        assert seen == [(number, 0) for number in range(total)]


async def test_psub_16_written_while_the_group_catches_up() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 250)
        await create(client)
        async with await client.connect_subscription("g", "s", auto_ack=True) as subscription:
            writing = soon(write_one_by_one(client, 250))
            seen: list[Delivered] = []
            async for event in subscription.events:
                seen += delivered([event])
                if len(seen) == 500:
                    break
            await writing
        assert seen == [(number, 0) for number in range(500)]


async def write_one_by_one(client: Client, count: int) -> None:
    for _ in range(count):
        await write(client, "s", 1)


async def test_psub_17_links() -> None:
    async with node_and_client() as (_, client):
        await write(client, "target", 3)
        links = [NewEvent("$>", data=f"{number}@target".encode()) for number in (2, 0, 1)]
        await client.publish("s", links)
        await create(client, resolve_links=True)
        async with await client.connect_subscription("g", "s") as subscription:
            events = await take(subscription, 3)
            assert [event.event_number for event in events] == [0, 1, 2]
            assert [event.json() for event in events] == [{"n": 2}, {"n": 0}, {"n": 1}]
            assert {event.stream for event in events} == {"target"}
            assert all(event.is_resolved for event in events)
            await subscription.ack(events[:2])
        async with await client.connect_subscription("g", "s") as subscription:
            assert await finish(subscription, 1) == [(2, 1)]
            assert await gets_nothing(subscription, client)


@pytest.mark.parametrize("resolve", [True, False])
async def test_psub_18_broken_links(resolve: bool) -> None:
    async with node_and_client() as (_, client):
        await client.publish("s", [NewEvent("$>", data=b"7@missing")])
        await create(client, resolve_links=resolve)
        async with await client.connect_subscription("g", "s") as subscription:
            [event] = await take(subscription, 1)
            assert (event.type, event.data, event.is_resolved) == ("$>", b"7@missing", False)
            assert (event.link is not None) is resolve
            await subscription.ack(event)
        async with await client.connect_subscription("g", "s") as subscription:
            assert await gets_nothing(subscription, client)


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


# --- several consumers, checkpoint ---


async def test_psub_28_round_robin() -> None:
    async with node_and_client() as (_, client):
        await create(client)
        async with (
            await client.connect_subscription("g", "s") as first,
            await client.connect_subscription("g", "s") as second,
        ):
            await write(client, "s", 10)
            assert [number for number, _ in await finish(first, 5)] == [0, 2, 4, 6, 8]
            assert [number for number, _ in await finish(second, 5)] == [1, 3, 5, 7, 9]


async def test_psub_28_dispatch_to_single() -> None:
    async with node_and_client() as (_, client):
        await create(client, consumer_strategy=fastpump.DISPATCH_TO_SINGLE)
        async with (
            await client.connect_subscription("g", "s", in_flight=6) as first,
            await client.connect_subscription("g", "s") as second,
        ):
            await write(client, "s", 10)
            assert [number for number, _ in await finish(first, 6)] == [0, 1, 2, 3, 4, 5]
            assert [number for number, _ in await finish(second, 4)] == [6, 7, 8, 9]


async def test_psub_28_pinned() -> None:
    sources = [f"source-{number}" for number in range(8)]
    async with node_and_client() as (_, client):
        for source in sources:
            await write(client, source, 5)
        await create(client, consumer_strategy=fastpump.PINNED, resolve_links=True)
        async with (
            await client.connect_subscription("g", "s", in_flight=100) as first,
            await client.connect_subscription("g", "s", in_flight=100) as second,
        ):
            for number in range(5):
                links = [NewEvent("$>", data=f"{number}@{source}".encode()) for source in sources]
                await client.publish("s", links)
            got = [{e.stream for e in await take(consumer, 20)} for consumer in (first, second)]
            assert got[0] | got[1] == set(sources)
            assert not got[0] & got[1]


@pytest.mark.parametrize("how", ["leaves", "is closed", "is cut"])
async def test_psub_29_a_consumer_leaves(how: str) -> None:
    async with (
        node_and_client() as (node, client),
        CuttingProxy(node.host, node.port) as proxy,
        fastpump.connect(proxy.host, proxy.port, max_reconnects=0, **ADMIN) as other,
    ):
        await create(client)
        leaving = await other.connect_subscription("g", "s")
        await write(client, "s", 4)
        events = await take(leaving, 4)
        await leaving.ack(events[1])
        await other.ping()
        async with await client.connect_subscription("g", "s") as staying:
            if how == "leaves":
                await leaving.unsubscribe()
            elif how == "is closed":
                await other.close()
            else:
                proxy.cut()
            assert await finish(staying, 3) == [(0, 1), (2, 1), (3, 1)]


async def test_psub_30_checkpoint() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 12)
        settings = PersistentSubscriptionSettings(
            start_from=0, checkpoint_after=0.1, checkpoint_max_count=5, checkpoint_min_count=1
        )
        await client.create_subscription("g", "s", settings=settings)
        async with await client.connect_subscription("g", "s") as subscription:
            await finish(subscription, 10)
            await checkpoint(client, 9)
        await client.update_subscription("g", "s", settings)  # it begins again
        async with await client.connect_subscription("g", "s") as subscription:
            assert await finish(subscription, 2) == [(10, 0), (11, 0)]


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
    async with node_and_client() as (_, client):
        await write(client, "s", 2)
        await create(client)
        subscription = await client.connect_subscription("g", "s", auto_ack=True)
        async for _ in subscription.events:
            break
        del subscription
        gc.collect()
        await client.ping()


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
