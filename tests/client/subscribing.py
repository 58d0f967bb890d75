"""A subscription and the scripted server that it has to do with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from client.pages import record
from client.peer import Link, Peer, Request, connected, reply_to, soon

from fastpump import Client
from fastpump.persistent import PersistentSubscription
from fastpump.subscriptions import Subscription

READ = "ReadStreamEventsForward"
GARBAGE = b"\x0a\xff"


def push(request: Request, *numbers: int, stream: str = "s") -> bytes:
    """Pushes for a request to subscribe; the event n is at position n + 1."""
    return b"".join(
        reply_to(
            request,
            "StreamEventAppeared",
            event={
                "event": record(stream, number),
                "commit_position": number + 1,
                "prepare_position": number + 1,
            },
        )
        for number in numbers
    )


async def read_into(seen: list[int], subscription: Subscription | PersistentSubscription) -> None:
    """The numbers of its events, until it ends."""
    async for event in subscription.events:
        seen.append(event.event_number)


async def next_number(subscription: Subscription) -> int:
    return (await anext(subscription.events)).event_number


async def following_from(client: Client, link: Link, start: int) -> asyncio.Task[None]:
    """Somebody who waits for an event of "s", and is told of no history: it subscribes next."""

    async def follow() -> None:
        async with await client.subscribe_to("s", start) as subscription:
            await next_number(subscription)

    following = soon(follow())
    if start >= 0:
        link.reply(await link.expect(READ), result=1)
    return following


async def confirm(link: Link, last: int = -1, commit: int = 0) -> Request:
    request = await link.expect("SubscribeToStream")
    link.reply(request, last_commit_position=commit, last_event_number=last)
    return request


@asynccontextmanager
async def volatile(
    **options: Any,
) -> AsyncIterator[tuple[Subscription, Request, Link, Peer]]:
    """A confirmed subscription to what is new in "s"."""
    async with connected(**options) as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        yield await subscribing, request, link, peer
