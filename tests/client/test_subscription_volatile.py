"""Subscriptions to what is new, against the embedded node: what they see, and whom they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from client.embedded import node_and_client, write
from client.following import next_event, nothing_comes, take
from client.peer import eventually, soon

import fastpump
import fastpump.server
from fastpump import Beginning, End, StreamDirection, TcpCommand
from fastpump.exceptions import (
    AccessDenied,
    NotAuthenticated,
    NotReady,
    RetriesLimitReached,
    StreamDeleted,
)


async def test_vsub_01_stream_that_does_not_exist() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to("s") as subscription:
            assert (subscription.name, subscription.checkpoint) == ("s", -1)
            assert subscription.is_live
            await write(client, "s", 1)
            assert await take(subscription, 1) == [0]


async def test_vsub_02_pp_12_only_what_is_new() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 5)
        async with (
            await client.subscribe_to("s", -1) as subscription,
            await client.subscribe_to_all() as log,
        ):
            assert subscription.checkpoint == subscription.last_event_number == 4
            assert log.last_event_number is None
            for followed in (subscription, log):
                assert followed.last_commit_position is not None
                assert followed.last_commit_position >= 0
            (last,) = await client.get_all(StreamDirection.Backward, max_count=1)
            assert log.checkpoint == last.position
            await write(client, "s", 3)
            assert await take(subscription, 3) == [5, 6, 7]
            assert await take(log, 3) == [5, 6, 7]


async def test_vsub_03_several_subscriptions() -> None:
    async with node_and_client() as (_, client):
        async with (
            await client.subscribe_to("a") as first,
            await client.subscribe_to("a") as second,
            await client.subscribe_to("b") as other,
        ):
            taking = [soon(take(first, 1000)), soon(take(second, 1000)), soon(take(other, 10))]
            for _ in range(10):
                await write(client, "a", 100)
                await write(client, "b", 1)
            expected = list(range(1000))
            assert await asyncio.gather(*taking) == [expected, expected, expected[:10]]


@pytest.mark.parametrize("start", [-1, 0])
async def test_vsub_04_pp_15_unsubscribe(start: int) -> None:
    async with node_and_client() as (_, client):
        subscription = await client.subscribe_to("s", start)
        reading = soon(take(subscription, 5))
        await eventually(lambda: subscription.is_live)
        await write(client, "s", 1)
        await client.ping()
        await subscription.unsubscribe()
        await subscription.unsubscribe()
        assert await reading in ([], [0])
        await write(client, "s", 1)
        assert [event async for event in subscription.events] == []
        assert not subscription.is_live
        assert "over" in repr(subscription)


async def test_vsub_05_deletes() -> None:
    async with node_and_client() as (_, client):
        await write(client, "hard", 1)
        await write(client, "soft", 1)
        async with (
            await client.subscribe_to("hard") as hard,
            await client.subscribe_to("soft") as soft,
            await client.subscribe_to_all() as log,
        ):
            await client.delete_stream("hard", hard=True)
            await client.delete_stream("soft")
            await nothing_comes(soft, client)
            assert await take(hard, 1) == [2**63 - 1]
            streams = [(await next_event(log)).stream for _ in range(2)]
            assert streams == ["hard", "$$soft"]


async def test_subscriber_of_a_deleted_stream_after_a_reconnect() -> None:
    async with node_and_client() as (node, client):
        async with await client.subscribe_to("s") as subscription:
            await client.delete_stream("s", hard=True)
            assert await take(subscription, 1) == [2**63 - 1]
            node.faults.disconnect()
            with pytest.raises(StreamDeleted):
                await take(subscription, 1)


async def test_vsub_06_the_log() -> None:
    async with node_and_client() as (_, client):
        async with await client.subscribe_to_all() as log:
            await write(client, "a", 1)
            await client.publish_event("$$a", "$metadata", {"$maxCount": 5})
            await write(client, "b", 1)
            events = [await next_event(log) for _ in range(3)]
            assert [event.stream for event in events] == ["a", "$$a", "b"]
            positions = [event.position for event in events]
            assert None not in positions
            assert positions == sorted(set(positions))  # type: ignore[type-var]
            assert log.checkpoint == positions[1]


@pytest.mark.parametrize("resolve", [True, False])
@pytest.mark.parametrize("start", [-1, 0])
async def test_vsub_07_links(resolve: bool, start: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "target", 4)
        # The numbers of what they point to would say that they are old ones, and the same one.
        links = [b"3@target", b"2@target", b"2@target", b"9@target"]
        async with await client.subscribe_to("links", start, resolve) as subscription:
            for index, link in enumerate(links):
                await client.publish_event("links", "$>", link)
                event = await next_event(subscription)
                assert event.event_number == event.received_event.event_number == index
                if resolve and index < 3:
                    assert (event.is_resolved, event.stream) == (True, "target")
                    assert event.event.event_number == int(link[:1])
                else:
                    assert (event.is_resolved, event.data) == (False, link)
        again = await client.subscribe_to("links", 0, resolve, batch_size=1)
        async with again:
            assert await take(again, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("start", [-1, 0])
async def test_vsub_08_csub_09_no_right(start: int) -> None:
    async with node_and_client() as (node, admin):
        await admin.publish_event("$$s", "$metadata", {"$acl": {"$r": "$admins"}})
        await write(admin, "s", 1)
        async with fastpump.connect(node.host, node.port) as client:
            calls: list[Callable[[], Any]] = [
                lambda: client.subscribe_to("s", start),
                lambda: client.subscribe_to_all(End if start < 0 else Beginning),
            ]
            for subscribe in calls:
                with pytest.raises(AccessDenied):
                    async with await subscribe() as subscription:
                        await take(subscription, 1)
            assert await client.ping() > 0


async def test_vsub_08_csub_09_wrong_password() -> None:
    async with fastpump.server.run() as node:
        client = fastpump.connect(node.host, node.port, username="admin", password="wrong")
        with pytest.raises(NotAuthenticated):
            async with client:
                await client.subscribe_to("s")


@pytest.mark.parametrize("start", [-1, 0, 7])
async def test_csub_09_hard_deleted_stream(start: int) -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted):
            async with await client.subscribe_to("s", start) as subscription:
                await take(subscription, 1)


async def test_soft_deleted_stream_that_comes_back() -> None:
    async with node_and_client() as (_, client):
        await write(client, "s", 3)
        await client.delete_stream("s")
        async with await client.subscribe_to("s", 0) as subscription:
            await nothing_comes(subscription, client)
            await write(client, "s", 2)
            assert await take(subscription, 2) == [3, 4]


@pytest.mark.parametrize("reason", [0, 1])
async def test_vsub_10_not_handled_before_the_confirmation(reason: int) -> None:
    async with node_and_client() as (node, client):
        node.faults.refuse(
            fastpump.NotHandledReason(reason), requests=[TcpCommand.SubscribeToStream], times=2
        )
        async with await client.subscribe_to("s") as subscription:
            await write(client, "s", 2)
            assert await take(subscription, 2) == [0, 1]
            # Were the refused request still known, a reconnect would subscribe twice.
            node.faults.disconnect()
            await write(client, "s", 2)
            assert await take(subscription, 2) == [2, 3]
            await subscription.unsubscribe()


async def test_not_handled_once_too_often() -> None:
    async with node_and_client(max_attempts=2) as (node, client):
        with node.faults.refuse(requests=[TcpCommand.SubscribeToStream]) as fault:
            with pytest.raises(RetriesLimitReached) as caught:
                await client.subscribe_to("s")
            assert isinstance(caught.value.last_error, NotReady)
            assert fault.count == 2
        async with await client.subscribe_to("s") as subscription:
            await write(client, "s", 1)
            assert await take(subscription, 1) == [0]
