"""Every operation of a client as a call that ends with one reply, or after a few."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from client.pages import all_page, events_of, stream_page
from client.peer import Request, reply_to

from fastpump import Filter, NewEvent, PersistentSubscriptionSettings, StreamMetadata
from fastpump._operating import Operating

FILTER = Filter.stream_prefix("s")

Call = Callable[[Operating], Awaitable[Any]]


async def first(items: AsyncIterator[Any]) -> Any:
    """The first item; what is behind it is let go."""
    item = await anext(items)
    await items.aclose()  # type: ignore[attr-defined]
    return item


async def subscribed(subscribing: Awaitable[Any]) -> None:
    async with await subscribing:
        pass


async def first_of_subscription(subscribing: Awaitable[Any]) -> Any:
    async with await subscribing as subscription:
        return await anext(subscription.events)


async def transaction(client: Operating) -> None:
    async with client.transaction("s") as running:
        await running.write([NewEvent("t")])


SETTINGS = PersistentSubscriptionSettings()

CALLS: dict[str, Call] = {
    "ping": lambda client: client.ping(),
    "publish_event": lambda client: client.publish_event("s", "t"),
    "publish": lambda client: client.publish("s", [NewEvent("t")]),
    "publish_conditional": lambda client: client.publish_conditional("s", [NewEvent("t")], -1),
    "get_event": lambda client: client.get_event("s", 0),
    "get": lambda client: client.get("s"),
    "get_all": lambda client: client.get_all(),
    "get_all_filtered": lambda client: client.get_all(filter=FILTER),
    "iter": lambda client: first(client.iter("s")),
    "iter_slices": lambda client: first(client.iter_slices("s")),
    "iter_all": lambda client: first(client.iter_all()),
    "iter_all_slices": lambda client: first(client.iter_all_slices()),
    "subscribe_to": lambda client: subscribed(client.subscribe_to("s")),
    "subscribe_to_from": lambda client: first_of_subscription(client.subscribe_to("s", 0)),
    "subscribe_to_all": lambda client: subscribed(client.subscribe_to_all()),
    "subscribe_to_all_filtered": lambda client: subscribed(client.subscribe_to_all(filter=FILTER)),
    "create_subscription": lambda client: client.create_subscription("g", "s"),
    "update_subscription": lambda client: client.update_subscription("g", "s", SETTINGS),
    "delete_subscription": lambda client: client.delete_subscription("g", "s"),
    "connect_subscription": lambda client: subscribed(client.connect_subscription("g", "s")),
    "delete_stream": lambda client: client.delete_stream("s"),
    "get_stream_metadata": lambda client: client.get_stream_metadata("s"),
    "set_stream_metadata": lambda client: client.set_stream_metadata("s", StreamMetadata()),
    "set_system_settings": lambda client: client.set_system_settings(),
    "transaction": transaction,
}
"""By the name of the method, and what else tells two calls of it apart."""

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def answer(request: Request) -> bytes | None:
    """The reply that lets a call go on: one event wherever events are asked for."""
    if request.command == "UnsubscribeFromStream":
        return None
    if request.command == "ReadStreamEventsForward":
        return stream_page(request, events_of("s", 1))
    if request.command == "ReadAllEventsForward":
        return all_page(request, 1)
    return reply_to(request, **FIELDS.get(request.command, {}))


FIELDS: dict[str, dict[str, Any]] = {
    "SubscribeToStream": {"last_commit_position": 7},
    "FilteredSubscribeToStream": {"last_commit_position": 7},
    "ConnectToPersistentSubscription": {"subscription_id": "s::g"},
    "TransactionStart": {"transaction_id": 7},
    "TransactionWrite": {"transaction_id": 7},
    "TransactionCommit": {"transaction_id": 7},
}
