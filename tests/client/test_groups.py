"""Persistent subscriptions from end to end: made, changed, begun, shared by several consumers."""

from __future__ import annotations

from typing import Any

import pytest
from client.embedded import ADMIN, AS_ADMIN, client_of, node_and_client, write
from client.groupnode import Delivered, checkpoint, create, delivered, finish, gets_nothing
from client.groupwire import take
from client.peer import outcome, soon
from client.proxy import CuttingProxy

import fastpump
from fastpump import Client, NewEvent, PersistentSubscriptionSettings
from fastpump.exceptions import (
    AccessDenied,
    MaximumSubscribersReached,
    PersistentSubscriptionAlreadyExists,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionNotFound,
    SubscriptionCreationFailed,
)

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
            credential = fastpump.Credential(*ADMIN)
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
        await client.publish("target", [NewEvent("t", data={"n": n}) for n in range(3)])
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
        fastpump.connect(proxy.host, proxy.port, max_reconnects=0, **AS_ADMIN) as other,
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
