"""The persistent subscription "g" of the embedded node, most often to "s", and its consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from client.groupwire import take
from client.peer import soon

from fastpump import Client, Event, PersistentSubscriptionSettings
from fastpump.exceptions import StreamNotFound
from fastpump.persistent import PersistentSubscription

Delivered = tuple[int, int]
"""An event's number and its retry count."""


async def create(client: Client, stream: str = "s", **settings: Any) -> None:
    settings = {"start_from": 0, **settings}
    await client.create_subscription(
        "g", stream, settings=PersistentSubscriptionSettings(**settings)
    )


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
