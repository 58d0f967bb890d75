"""A volatile subscription and the frames it gets (protocol document, sections 8.1 and 8.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastpump._commands import Command
from fastpump.server._filters import EventFilter, decode_filter
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server._records import entries_of, has_links, positions_of, push_frames, span_of

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._asking import Asker, Sources


class Subscriber(Protocol):
    """Who is pushed to: a session."""

    def deliver(self, reply: bytes) -> None:
        """Queue a reply."""

    def push(self, frames: bytes, packages: int = 1) -> None:
        """Queue so many pushes; a subscriber that does not read them is cut off."""

    def flush(self) -> None:
        """Send what was queued."""


class Subscription:
    """One subscription.

    Attributes:
        stream: its name, or None for the whole log.
    """

    __slots__ = ("asker", "correlation_id", "resolve", "stream", "subscriber")

    def __init__(
        self,
        subscriber: Subscriber,
        correlation_id: bytes,
        stream: str | None,
        asker: Asker,
        *,
        resolve: bool,
    ) -> None:
        self.subscriber = subscriber
        self.correlation_id = correlation_id
        self.stream = stream
        self.asker = asker
        self.resolve = resolve

    def frames(
        self, sources: Sources, records: bytes, offset: int, count: int
    ) -> tuple[bytes, int]:
        """What is pushed for `count` new entries of a segment from `offset` on.

        Returns:
            The frames, and how many they are.
        """
        end, _ = span_of(records, offset, count)
        if not self.asker.is_narrow and not (self.resolve and has_links(records, offset, end)):
            return push_frames(records[offset:end], 0, count, self.correlation_id), count
        events = [
            sources.deliver_unchecked(entry, self.asker, self.resolve)
            for entry in entries_of(records, offset, count)
        ]
        frames = [
            encode_reply(Command.StreamEventAppeared, self.correlation_id, encode_fields(event))
            for event in events
        ]
        return b"".join(frames), count


class FilteredSubscription(Subscription):
    """One that gets only what fits, and now and then is told how far that was looked for.

    Args:
        interval: events looked at from one checkpoint to the next; 0 is every event as 1 is, below
            that there are no checkpoints.
    """

    __slots__ = ("_considered", "_filter", "_interval")

    def __init__(
        self,
        subscriber: Subscriber,
        correlation_id: bytes,
        stream: str | None,
        asker: Asker,
        *,
        resolve: bool,
        wanted: EventFilter,
        interval: int,
    ) -> None:
        super().__init__(subscriber, correlation_id, stream, asker, resolve=resolve)
        self._filter = wanted
        self._interval = interval
        self._considered = 0

    def frames(
        self, sources: Sources, records: bytes, offset: int, count: int
    ) -> tuple[bytes, int]:
        parts = []
        for place, is_wanted in self._filter.consider(records, offset, count):
            if is_wanted:
                parts.append(super().frames(sources, records, place, 1)[0])
            self._considered += 1
            if self._considered >= self._interval >= 0:
                self._considered = 0
                parts.append(self._checkpoint(records, place))
        return b"".join(parts), len(parts)

    def _checkpoint(self, records: bytes, offset: int) -> bytes:
        position = encode_fields(*positions_of(records, offset))
        return encode_reply(Command.CheckpointReached, self.correlation_id, position)


def decode_subscription(
    subscriber: Subscriber, asker: Asker, frame: Frame, offset: int
) -> Subscription:
    """What a SubscribeToStream or a FilteredSubscribeToStream asks for.

    Raises:
        InvalidRequest: the request is not one.
    """
    used_id = frame.correlation_id
    if frame.command == Command.SubscribeToStream:
        name, resolve = decode_message(frame, offset, "sb")
        return Subscription(subscriber, used_id, name or None, asker, resolve=resolve)
    name, resolve, wanted, interval = decode_message(frame, offset, "sbyi")
    return FilteredSubscription(
        subscriber,
        used_id,
        name or None,
        asker,
        resolve=resolve,
        wanted=decode_filter(wanted),
        interval=interval,
    )
