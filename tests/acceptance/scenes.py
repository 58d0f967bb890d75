"""What the acceptance tests share: a fresh node, clients of it, and what their rows speak of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from client.proxy import CuttingProxy

import fastpump
import fastpump.server
from fastpump import (
    Client,
    Event,
    ExpectedVersion,
    NewEvent,
    NewEventData,
    StreamDirection,
    StreamNotFound,
    WrongExpectedVersion,
)
from fastpump._operating import Operating
from fastpump.server import Node
from fastpump.subscriptions import Subscription

ANY = int(ExpectedVersion.Any)
NO_STREAM = int(ExpectedVersion.StreamMustNotExist)
STREAM_EXISTS = int(ExpectedVersion.StreamMustExist)
FORWARD, BACKWARD = StreamDirection
MAX = 2**63 - 1

OPEN, END = False, True
"""Whether a page says that it is the stream's last one."""

Window = tuple[list[int], int, bool]
"""What the rows state of a page: numbers, next number, END or OPEN."""


def connect(
    node: Node | CuttingProxy,
    login: str | None = "admin",
    password: str = "changeit",
    **options: Any,
) -> Client:
    """A client of the node, or of a proxy before it, not connected yet; anonymous without login."""
    if login is not None:
        options.update(username=login, password=password)
    return fastpump.connect(node.host, node.port, **{"reconnect_delay": 0.01, **options})


@asynccontextmanager
async def node_and_admin(**options: Any) -> AsyncIterator[tuple[Node, Client]]:
    """A fresh node and a connected client of its administrator; `options` are the node's."""
    async with fastpump.server.run(**options) as node, connect(node) as client:
        yield node, client


@asynccontextmanager
async def admin_client() -> AsyncIterator[Client]:
    async with node_and_admin() as (_, client):
        yield client


def new_events(count: int) -> list[NewEventData]:
    return [NewEvent("t", data={"n": n}) for n in range(count)]


async def write(client: Operating, stream: str, count: int, version: int = ANY) -> int:
    """Write some events; the number of the last one."""
    return await last_of(client.publish(stream, new_events(count), version))


async def last_of(writing: Awaitable[fastpump.WriteResult]) -> int:
    """What the rows call NEV: the number of the last event of a write."""
    return (await writing).last_event_number


async def refused(
    writing: Awaitable[Any], expected: int, actual: int | None, stream: str = "s"
) -> None:
    """It must end with WrongExpectedVersion, carrying these versions."""
    with pytest.raises(WrongExpectedVersion) as caught:
        await writing
    error = caught.value
    assert (error.stream, error.expected_version, error.actual_version) == (
        stream,
        expected,
        actual,
    )


def numbers(events: Iterable[Event]) -> list[int]:
    return [event.event_number for event in events]


def window(page: fastpump.StreamSlice) -> Window:
    return numbers(page), page.next_event_number, page.is_end_of_stream


async def count(client: Operating, stream: str) -> int:
    """Events found by paging through the stream; 0 if there is none."""
    try:
        return len([event async for event in client.iter(stream, batch_size=3)])
    except StreamNotFound:
        return 0


async def take(subscription: Subscription, stream: str, wanted: int) -> list[Event]:
    """The next events of a subscription that are of the stream."""
    found: list[Event] = []
    async for event in subscription.events:
        if event.received_event.stream == stream:
            found.append(event)
        if len(found) == wanted:
            break
    return found


async def read_every_way(
    client: Client, stream: str, writing: Awaitable[Any]
) -> dict[str, list[Event]]:
    """Write to a new stream, and get its events by every kind of read and subscription."""
    async with (
        await client.subscribe_to(stream) as pushed,
        await client.subscribe_to_all() as pushed_log,
    ):
        await writing
        page = await client.get(stream)
        by_number = [await client.get_event(stream, number) for number in range(len(page))]
        whole_log = [event async for event in client.iter_all()]
        log_backwards = [event async for event in client.iter_all(BACKWARD)]
        async with await client.subscribe_to(stream, start_from=0) as catching_up:
            return {
                "forward": list(page),
                "backward": list(await client.get(stream, BACKWARD))[::-1],
                "by number": [event for event in by_number if event is not None],
                "log": [event for event in whole_log if event.stream == stream],
                "log backwards": [event for event in log_backwards if event.stream == stream][::-1],
                "pushed": await take(pushed, stream, len(page)),
                "pushed by the log": await take(pushed_log, stream, len(page)),
                "catching up": await take(catching_up, stream, len(page)),
            }
