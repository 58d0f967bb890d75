"""Loops over subscriptions to the embedded node."""

from __future__ import annotations

import asyncio
from typing import Any

from client.peer import eventually, soon

import fastpump
from fastpump import Client
from fastpump.subscriptions import Subscription


async def take(subscription: Subscription, count: int) -> list[int]:
    """The numbers of the next `count` events. The last one's turn is not over by that."""
    seen: list[int] = []
    async for event in subscription.events:
        seen.append(event.event_number)
        if len(seen) == count:
            break
    return seen


async def next_event(subscription: Subscription) -> fastpump.Event:
    return await anext(subscription.events)


async def next_slice(subscription: Subscription) -> Any:
    return await anext(subscription.slices())


async def nothing_comes(subscription: Subscription, client: Client) -> None:
    """Fails if an event comes though the node had the chance to push one."""
    waiting = soon(next_event(subscription))
    await client.ping()
    if not subscription.is_live:
        await eventually(lambda: subscription.is_live or waiting.done())
        await client.ping()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
