"""A consumer of a persistent subscription and the scripted server that it has to do with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from client.pages import record
from client.peer import Link, Peer, Request, connected, reply_to, soon

from fastpump import Event
from fastpump.persistent import PersistentSubscription

CONNECT = "ConnectToPersistentSubscription"
CREATE = "CreatePersistentSubscription"
UPDATE = "UpdatePersistentSubscription"
DELETE = "DeletePersistentSubscription"
PUSH = "PersistentSubscriptionStreamEventAppeared"
ACK = "PersistentSubscriptionAckEvents"
NAK = "PersistentSubscriptionNakEvents"
LEAVE = "UnsubscribeFromStream"
DROPPED = "SubscriptionDropped"


def push(request: Request, *numbers: int, retry_count: int = 0) -> bytes:
    """Events n of the stream, pushed to the consumer that connected with the request."""
    return b"".join(
        reply_to(request, PUSH, event={"event": record("s", number)}, retryCount=retry_count)
        for number in numbers
    )


def answered(request: Request) -> list[int]:
    """The numbers of the events that an ack or nak names."""
    assert request.fields["subscription_id"] == "s::g"
    return [int.from_bytes(event_id, "big") for event_id in request.fields["processed_event_ids"]]


async def confirm(link: Link, last: int = -1) -> Request:
    request = await link.expect(CONNECT)
    link.reply(request, last_commit_position=7, subscription_id="s::g", last_event_number=last)
    return request


@asynccontextmanager
async def consuming(
    *, in_flight: int = 10, auto_ack: bool = False, **options: Any
) -> AsyncIterator[tuple[PersistentSubscription, Request, Link, Peer]]:
    """A confirmed consumer of the persistent subscription "g" to "s"."""
    async with connected(**options) as (client, link, peer):
        connecting = soon(
            client.connect_subscription("g", "s", in_flight=in_flight, auto_ack=auto_ack)
        )
        request = await confirm(link)
        yield await connecting, request, link, peer


async def take(subscription: PersistentSubscription, count: int = 1) -> list[Event]:
    return [await anext(subscription.events) for _ in range(count)]


async def come_back(link: Link, peer: Peer) -> tuple[Request, Link]:
    """Cut the connection, and let the consumer connect again."""
    await link.cut()
    link = await peer.accept_and_greet()
    return await confirm(link), link
