"""A node, a client of it, and loops over the client's subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from client.peer import eventually, soon

import fastpump
import fastpump.server
from fastpump import Client, NewEvent
from fastpump.server import Node
from fastpump.subscriptions import Subscription

ADMIN: dict[str, Any] = {"username": "admin", "password": "changeit"}


@asynccontextmanager
async def node_and_client(**options: Any) -> AsyncIterator[tuple[Node, Client]]:
    options = {"reconnect_delay": 0.01, **ADMIN, **options}
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port, **options) as client:
            yield node, client


async def write(client: Client, stream: str, count: int, size: int = 0) -> None:
    await client.publish(stream, [NewEvent("t", data=bytes(size)) for _ in range(count)])


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
