"""The persistent subscriptions of a server, looked at over its HTTP port.

    async with PersistentSubscriptions("localhost", 2113, "admin", "changeit") as subscriptions:
        for subscription in await subscriptions.list():
            print(subscription.name, subscription.status, subscription.in_flight)
        await subscriptions.replay_parked("billing", "orders")

It does what the reference client's PersistentSubscriptionsManager does. Needs aiohttp:
`pip install 'fastpump[cluster]'`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from fastpump._arguments import check_name, check_number
from fastpump._group_operations import group_key
from fastpump._http_manager import HttpManager, text
from fastpump.exceptions import (
    AccessDenied,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionNotFound,
    ProtocolError,
)

__all__ = ["ConsumerStatus", "PersistentSubscriptions", "SubscriptionStatus"]

T = TypeVar("T")


@dataclass(frozen=True)
class ConsumerStatus:
    """A consumer of a persistent subscription.

    Attributes:
        address: where it is connected from.
        username: who it is.
        available_slots: how many more events it could take.
        in_flight: events that it has not answered.
        total_items_processed: events that were delivered to it.
    """

    address: str
    username: str
    available_slots: int
    in_flight: int
    total_items_processed: int


@dataclass(frozen=True)
class SubscriptionStatus:
    """A persistent subscription as the server tells of it; 0 where it does not.

    Attributes:
        name, stream: which one.
        status: "Live", "Behind", …, several joined by a comma.
        last_processed_event_number: its checkpoint; -1 for none.
        last_known_event_number: the last event of the stream that it has seen.
        total_items_processed: events delivered since it runs.
        average_items_per_second: over that time.
        in_flight: events that were not answered.
        connection_count: how many consumers it has.
        consumers: these; only `describe` tells of them.
        raw: all that the server says, for instance "config" and the sizes of buffers.
    """

    name: str
    stream: str
    status: str
    last_processed_event_number: int
    last_known_event_number: int
    total_items_processed: int
    average_items_per_second: float
    in_flight: int
    connection_count: int
    consumers: tuple[ConsumerStatus, ...]
    raw: Mapping[str, Any]


StatusList = list[SubscriptionStatus]


class PersistentSubscriptions(HttpManager):
    """Shows persistent subscriptions, and has parked events delivered again.

    Use it in `async with`; the arguments are those of `fastpump.users.Users`. They are created,
    changed and deleted by a client.

    Raises (every call):
        AccessDenied: the credentials are wrong, missing, or not enough.
        PersistentSubscriptionCommandFailed: the server refused for another reason.
        ConnectFailed: the server cannot be reached.
        OperationTimedOut: there was no answer in time.
        ProtocolError: the answer is not one of Event Store.
        ClientClosed: outside of the `async with`.
    """

    _area = "subscriptions"

    async def list(self, stream: str | None = None) -> StatusList:
        """All persistent subscriptions, or those of a stream."""
        if stream is not None:
            check_name("stream", stream)
        try:
            answer = await self._ask("GET", *(() if stream is None else (stream,)))
        except PersistentSubscriptionNotFound:
            return []
        return _read(answer, _statuses)

    async def describe(self, name: str, stream: str) -> SubscriptionStatus:
        """One of them with its consumers.

        Raises:
            PersistentSubscriptionNotFound: there is none of that name.
        """
        check_name("name", name)
        check_name("stream", stream)
        return _read(await self._ask("GET", stream, name, "info"), _status)

    async def replay_parked(self, name: str, stream: str, stop_at: int | None = None) -> None:
        """Deliver again what was parked. Only for who may write to `$settings`.

        Args:
            name, stream: which persistent subscription.
            stop_at: number of the parked event to stop before (servers from version 20 on).

        Raises:
            PersistentSubscriptionNotFound: there is none of that name.
        """
        check_name("name", name)
        check_name("stream", stream)
        if stop_at is not None:
            check_number("stop_at", stop_at, 0)
        query = "" if stop_at is None else f"?stopAt={stop_at}"
        await self._ask("POST", stream, name, "replayParked", query=query)

    async def _ask(self, method: str, *path: str, query: str = "") -> bytes:
        """One request to a page below `/subscriptions`."""
        body: dict[str, Any] | None = {} if method == "POST" else None
        status, answer = await self._request(method, path, body, query)
        if status == 200:
            return answer
        subject = group_key(*path[:2]) if len(path) > 1 else "".join(path)
        if status == 404:
            raise PersistentSubscriptionNotFound(None, subject)
        if status in (401, 403):
            raise AccessDenied(None, type(self).__name__, subject)
        raise PersistentSubscriptionCommandFailed(None, subject, f"status {status}")


def _read(answer: bytes, read: Callable[[Any], T]) -> T:
    try:
        return read(orjson.loads(answer))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ProtocolError("The server's answer is not about persistent subscriptions") from None


def _statuses(items: Any) -> StatusList:
    if not isinstance(items, list):
        raise TypeError(items)
    return [_status(item) for item in items]


def _status(item: Any) -> SubscriptionStatus:
    consumers = tuple(map(_consumer, item.get("connections") or ()))
    return SubscriptionStatus(
        name=text(item["groupName"]),
        stream=text(item["eventStreamId"]),
        status=text(item.get("status") or ""),
        last_processed_event_number=int(item.get("lastProcessedEventNumber", 0)),
        last_known_event_number=int(item.get("lastKnownEventNumber", 0)),
        total_items_processed=int(item.get("totalItemsProcessed", 0)),
        average_items_per_second=float(item.get("averageItemsPerSecond", 0)),
        in_flight=int(item.get("totalInFlightMessages", 0)),
        connection_count=int(item.get("connectionCount", len(consumers))),
        consumers=consumers,
        raw=item,
    )


def _consumer(item: Any) -> ConsumerStatus:
    return ConsumerStatus(
        address=text(item.get("from") or ""),
        username=text(item.get("username") or ""),
        available_slots=int(item.get("availableSlots", 0)),
        in_flight=int(item.get("inFlightMessages", 0)),
        total_items_processed=int(item.get("totalItemsProcessed", 0)),
    )
