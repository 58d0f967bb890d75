"""Volatile subscriptions: what is committed is pushed (protocol document, sections 8.1, 8.2)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.server._access import ALL, READ
from fastpump.server._asking import MAX_INT32, Asker, Sources
from fastpump.server._messages import encode_fields, encode_reply
from fastpump.server._pushes import Subscriber, Subscription, decode_subscription
from fastpump.server._records import span_of
from fastpump.server._streams import DELETED_NUMBER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastpump._framing import Frame
    from fastpump.server._streams import Stream
    from fastpump.server.store import Segment


class DropReason(IntEnum):
    UNSUBSCRIBED = 0
    ACCESS_DENIED = 1
    NOT_FOUND = 2
    PERSISTENT_SUBSCRIPTION_DELETED = 3
    SUBSCRIBER_MAX_COUNT_REACHED = 4


class _Outgoing:
    """What is to be pushed to everybody for one group of writes, one piece per subscriber."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._frames: dict[Subscriber, list[bytes]] = {}
        self._packages: dict[Subscriber, int] = {}

    def add(self, subscription: Subscription, records: bytes, offset: int, count: int) -> None:
        """Some new entries of a segment."""
        frames, packages = subscription.frames(self._sources, records, offset, count)
        if packages:
            subscriber = subscription.subscriber
            self._frames.setdefault(subscriber, []).append(frames)
            self._packages[subscriber] = self._packages.get(subscriber, 0) + packages

    def add_places(self, subscription: Subscription, places: list[int]) -> None:
        """New entries by the triples (number, position, count) of their stream."""
        for index in range(0, len(places), 3):
            _, position, count = places[index : index + 3]
            start, records = self._sources.store.segment(position)
            self.add(subscription, records, position - start, count)

    def push(self) -> None:
        for subscriber, frames in self._frames.items():
            subscriber.push(b"".join(frames), self._packages[subscriber])
            subscriber.flush()


class Subscriptions:
    """All volatile subscriptions of a node."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._by_id: dict[bytes, Subscription] = {}
        self._by_stream: dict[str | None, list[Subscription]] = {}

    def subscribe(self, subscriber: Subscriber, asker: Asker, frame: Frame, offset: int) -> None:
        """Answer a request to subscribe; the pushes follow its confirmation.

        Raises:
            InvalidRequest: the request is not one.
        """
        subscription = decode_subscription(subscriber, asker, frame, offset)
        if not self._sources.access.allows(asker.user, subscription.stream or ALL, READ):
            subscriber.deliver(dropped(frame.correlation_id, DropReason.ACCESS_DENIED))
            return
        # A second one with the same id hides the first, which goes on all the same (SUB-25).
        self._by_id[subscription.correlation_id] = subscription
        self._by_stream.setdefault(subscription.stream, []).append(subscription)
        subscriber.deliver(self._confirmation(subscription))

    def unsubscribe(self, correlation_id: bytes) -> None:
        """End a subscription, whoever asks for it; nothing happens if there is none of this id."""
        subscription = self._by_id.get(correlation_id)
        if subscription is None:
            return
        self._remove(subscription)
        subscription.subscriber.deliver(dropped(correlation_id, DropReason.UNSUBSCRIBED))
        subscription.subscriber.flush()

    def forget(self, subscriber: Subscriber) -> None:
        """The subscriber's connection is gone."""
        for subscription in self._all():
            if subscription.subscriber is subscriber:
                self._remove(subscription)

    def drop_all(self) -> None:
        """Tell every subscriber that the node ends."""
        for subscription in self._all():
            self._remove(subscription)
            reply = dropped(subscription.correlation_id, DropReason.UNSUBSCRIBED)
            subscription.subscriber.deliver(reply)

    def publish(self, segments: list[Segment], written: Iterable[tuple[Stream, list[int]]]) -> None:
        """Push what has just become durable: new segments, and where each stream is in them."""
        if not self._by_stream:
            return
        outgoing = _Outgoing(self._sources)
        for subscription in self._by_stream.get(None, ()):
            for _, records in segments:
                _, count = span_of(records, 0, len(records))
                outgoing.add(subscription, records, 0, count)
        for stream, places in written:
            for subscription in self._by_stream.get(stream.name, ()):
                outgoing.add_places(subscription, places)
        outgoing.push()

    def _confirmation(self, subscription: Subscription) -> bytes:
        store = self._sources.store
        last = None
        if subscription.stream is not None:
            stream = store.stream(subscription.stream)
            is_deleted = self._sources.visibility.is_deleted(stream)
            last = DELETED_NUMBER if is_deleted else stream.committed
            if subscription.asker.is_narrow:
                last = min(last, MAX_INT32)
        payload = encode_fields(store.last_position, last)
        return encode_reply(Command.SubscriptionConfirmation, subscription.correlation_id, payload)

    def _all(self) -> list[Subscription]:
        return [subscription for group in self._by_stream.values() for subscription in group]

    def _remove(self, subscription: Subscription) -> None:
        group = self._by_stream[subscription.stream]
        group.remove(subscription)
        if not group:
            del self._by_stream[subscription.stream]
        if self._by_id.get(subscription.correlation_id) is subscription:
            del self._by_id[subscription.correlation_id]


def dropped(correlation_id: bytes, reason: DropReason) -> bytes:
    """A SubscriptionDropped; the server leaves the reason out where it is 0."""
    return encode_reply(
        Command.SubscriptionDropped, correlation_id, encode_fields(int(reason) or None)
    )
