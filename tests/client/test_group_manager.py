"""Persistent subscriptions, looked at over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from client.embedded import ADMIN, client_of

import fastpump
import fastpump.server
from fastpump import Client, NakAction, NewEvent
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    ConnectFailed,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionNotFound,
    ProtocolError,
    StreamNotFound,
    UsageError,
)
from fastpump.persistent_manager import PersistentSubscriptions
from fastpump.server import Node

pytest.importorskip("aiohttp")


def node() -> Node:
    return fastpump.server.run(http_port=0)


def manager_of(node: Node, *who: str, **options: Any) -> PersistentSubscriptions:
    assert node.http_port is not None
    return PersistentSubscriptions(node.host, node.http_port, *who, **options)


async def test_list_and_describe() -> None:
    async with node() as running, client_of(running) as client, manager_of(running) as groups:
        assert await groups.list() == []
        assert await groups.list("a/b?c") == []
        await client.publish("a/b?c", [NewEvent("t") for _ in range(5)])
        await client.create_subscription("g/1", "a/b?c", start_from=0)
        await client.create_subscription("g", "größe")
        everything = await groups.list()
        assert {(group.name, group.stream) for group in everything} == {
            ("g/1", "a/b?c"),
            ("g", "größe"),
        }
        [of_stream] = await groups.list("größe")
        assert (of_stream.name, of_stream.connection_count, of_stream.consumers) == ("g", 0, ())
        async with await client.connect_subscription("g/1", "a/b?c", in_flight=4) as subscription:
            await subscription.ack([await anext(subscription.events) for _ in range(2)])
            await client.ping()
            status = await groups.describe("g/1", "a/b?c")
            assert (status.name, status.stream, status.status) == ("g/1", "a/b?c", "Live")
            assert (status.last_processed_event_number, status.in_flight) == (-1, 3)
            assert status.total_items_processed == 5
            [consumer] = status.consumers
            assert status.connection_count == 1
            assert (consumer.username, consumer.available_slots) == ("admin", 1)
            assert (consumer.in_flight, consumer.total_items_processed) == (3, 5)
            assert consumer.address
            assert status.raw["config"]["maxRetryCount"] == 10


async def parked(client: Client, count: int) -> None:
    """Wait until there are this many parked events."""
    while True:
        try:
            page = await client.get("$persistentsubscription-s::g-parked")
        except StreamNotFound:
            continue
        if len(page) == count:
            return


async def test_replay_parked() -> None:
    async with node() as running, client_of(running) as client:
        await client.publish("s", [NewEvent("t", data=n) for n in range(3)])
        await client.create_subscription("g", "s", start_from=0)
        async with (
            await client.connect_subscription("g", "s") as subscription,
            manager_of(running, *ADMIN) as groups,
        ):
            events = [await anext(subscription.events) for _ in range(3)]
            await subscription.nak(events, NakAction.Park)
            await parked(client, 3)
            await groups.replay_parked("g", "s", stop_at=1)
            again = [await anext(subscription.events)]
            await parked(client, 2)
            await groups.replay_parked("g", "s")
            again += [await anext(subscription.events) for _ in range(2)]
            assert [(event.json(), event.retry_count) for event in again] == [
                (0, 0),
                (1, 0),
                (2, 0),
            ]
            assert {event.received_event.stream for event in again} == {
                "$persistentsubscription-s::g-parked"
            }
            await subscription.ack(again)


async def test_replay_without_right() -> None:
    async with node() as running, client_of(running) as client, manager_of(running) as groups:
        await client.create_subscription("g", "s")
        with pytest.raises(AccessDenied, match="s::g"):
            await groups.replay_parked("g", "s")
        async with manager_of(running, "admin", "wrong") as groups:
            with pytest.raises(AccessDenied):
                await groups.replay_parked("g", "s")


async def test_missing() -> None:
    async with node() as running, manager_of(running, *ADMIN) as groups:
        for call in (groups.describe("g", "s"), groups.replay_parked("g", "s")):
            with pytest.raises(PersistentSubscriptionNotFound) as caught:
                await call
            assert caught.value.subscription == "s::g"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"7", b'{"groupName": "g"}', b"[{}]"])
async def test_answers_that_are_none(body: bytes) -> None:
    async with node() as running, manager_of(running) as groups:
        with running.faults.http(body):
            with pytest.raises(ProtocolError):
                await groups.describe("g", "s")
            if body != b"[]":
                with pytest.raises(ProtocolError):
                    await groups.list()


async def test_refused_for_another_reason() -> None:
    async with node() as running, manager_of(running) as groups:
        with (
            running.faults.http(b"", status=500),
            pytest.raises(PersistentSubscriptionCommandFailed, match="status 500"),
        ):
            await groups.describe("g", "s")


async def test_arguments() -> None:
    async with PersistentSubscriptions("127.0.0.1", 1) as groups:
        for call in (
            groups.list(""),
            groups.describe("", "s"),
            groups.describe("g", ""),
            groups.replay_parked("g", "s", -1),
        ):
            with pytest.raises(UsageError):
                await call
        with pytest.raises(ConnectFailed):
            await groups.list()
    with pytest.raises(ClientClosed, match="async with PersistentSubscriptions"):
        await groups.list()
    assert "subscriptions" in repr(groups)
