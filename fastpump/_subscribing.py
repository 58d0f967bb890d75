"""The operations whose replies go on: a subscription's confirmation, pushes and end.

Once confirmed, such an operation stays with the dispatcher until the server drops it or its
connection is lost. It is not re-sent then, because only who consumes it knows where to go on.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fastpump import _cold
from fastpump._commands import Command
from fastpump._events import Events
from fastpump._framing import Frame, encode_frame
from fastpump._operation import Operation, Retry
from fastpump._operations import Filtered
from fastpump._outlet import Outlet
from fastpump._replies import decode_pushes
from fastpump.exceptions import (
    ConnectionLost,
    ConversationException,
    OperationExpired,
    RetriesLimitReached,
    SubscriptionCreationFailed,
    SubscriptionFailed,
)
from fastpump.filters import Filter
from fastpump.messages import Position, SubscriptionDropReason


class Confirmation(NamedTuple):
    """What a server pushes lies behind these (protocol document, section 8.1)."""

    last_commit_position: int
    last_event_number: int
    """-1: the stream has no event. 2**63 - 1: it was deleted for ever."""
    subscription_id: str = ""
    """What a persistent subscription's events are answered under."""


class Subscriber(Protocol):
    """Who a subscription's replies go to."""

    def on_confirmed(self, confirmation: Confirmation) -> None: ...

    def on_events(self, events: Events) -> None: ...

    def on_end(self, error: BaseException | None) -> None:
        """It is over; None: the server ended it in good order."""


class FilteredSubscriber(Subscriber, Protocol):
    """Who a filtered subscription's replies go to."""

    def on_checkpoint(self, position: Position) -> None:
        """Everything that fits up to this position was in `on_events`."""


class Handover:
    """The waiter of a subscription: nobody waits for one result, a subscriber takes what comes."""

    __slots__ = ("over", "subscriber")

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.over = False

    def done(self) -> bool:
        return self.over

    def set_result(self, _: None) -> None:
        self.over = True
        self.subscriber.on_end(None)

    def set_exception(self, error: BaseException) -> None:
        self.over = True
        self.subscriber.on_end(error)


class Subscribe(Operation):
    """A request whose replies go on.

    Attributes:
        was_dropped: the server has ended it.
    """

    __slots__ = ("_has_left", "_is_confirmed", "was_dropped")
    waiter: Handover
    push: Command
    """What events come in."""

    def __init__(
        self, correlation_id: bytes, frame: bytes, subscriber: Subscriber, timeout: float, name: str
    ) -> None:
        super().__init__(correlation_id, frame, Handover(subscriber), timeout, name)
        self.was_dropped = False
        self._is_confirmed = False
        self._has_left = False

    @property
    def is_abandoned(self) -> bool:
        return self._has_left or self.waiter.done()

    def leave(self) -> None:
        """The subscriber wants no more; what still comes until the server's last word is let go."""
        self._has_left = True

    def take_back(self) -> bytes:
        # The id is the one it has now: a request that was sent again has got a new one.
        return encode_frame(Command.UnsubscribeFromStream, self.correlation_id)

    def on_frame(self, frame: Frame, retry: Retry) -> bool:
        if self._has_left:
            return not self._goes_on(frame.command)
        super().on_frame(frame, retry)
        return self.waiter.done() or not self._is_confirmed

    def _goes_on(self, command: int) -> bool:
        """Whether there is more to come behind such a frame."""
        return command in (self.reply, self.push)

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        if self._is_confirmed:
            return  # said twice
        confirmation = self._decode_confirmation(frame)
        self._is_confirmed = True
        self.waiter.subscriber.on_confirmed(confirmation)

    def _decode_confirmation(self, frame: Frame) -> Confirmation:
        raise NotImplementedError

    def _on_other_frame(self, frame: Frame, retry: Retry) -> None:
        if frame.command == self.push and self._is_confirmed:
            self.waiter.subscriber.on_events(decode_pushes(frame))
        elif frame.command == Command.SubscriptionDropped:
            self._on_dropped(_cold.decode("SubscriptionDropped", frame.body).reason, retry)
        else:
            super()._on_other_frame(frame, retry)

    def _on_dropped(self, reason: int, retry: Retry) -> None:
        self.was_dropped = True
        if reason == SubscriptionDropReason.Unsubscribed and self._is_confirmed:
            self.waiter.set_result(None)
        else:
            self.fail(self._why_dropped(reason))

    def _why_dropped(self, reason: int) -> ConversationException:
        if reason == SubscriptionDropReason.AccessDenied:
            return self.access_denied()
        known = {int(member): member.name for member in SubscriptionDropReason}
        why = known.get(reason, f"reason {reason}")
        kind = SubscriptionFailed if self._is_confirmed else SubscriptionCreationFailed
        text = f"The server dropped the subscription to {self.stream!r}: {why}"
        return kind(self.conversation_id, text)


class SubscribeToStream(Subscribe):
    """A volatile subscription to a stream, or to all of them ("")."""

    __slots__ = ()
    reply = Command.SubscriptionConfirmation
    push = Command.StreamEventAppeared

    @staticmethod
    def encode(correlation_id: bytes, stream: str, resolve_links: bool) -> bytes:
        body = _cold.encode(
            "SubscribeToStream", event_stream_id=stream, resolve_link_tos=resolve_links
        )
        return encode_frame(Command.SubscribeToStream, correlation_id, body)

    def _decode_confirmation(self, frame: Frame) -> Confirmation:
        reply = _cold.decode("SubscriptionConfirmation", frame.body)
        return Confirmation(reply.last_commit_position, reply.last_event_number)


class SubscribeToFiltered(Filtered, SubscribeToStream):
    """A volatile subscription to what a filter lets through of the log of all events."""

    __slots__ = ("_on_checkpoint",)

    def __init__(
        self,
        correlation_id: bytes,
        frame: bytes,
        subscriber: FilteredSubscriber,
        timeout: float,
        name: str,
    ) -> None:
        super().__init__(correlation_id, frame, subscriber, timeout, name)
        self._on_checkpoint = subscriber.on_checkpoint

    @staticmethod
    def encode_filtered(
        correlation_id: bytes, resolve_links: bool, wanted: Filter, interval: int
    ) -> bytes:
        body = _cold.encode(
            "FilteredSubscribeToStream",
            event_stream_id="",
            resolve_link_tos=resolve_links,
            filter=wanted.message,
            checkpoint_interval=interval,
        )
        return encode_frame(Command.FilteredSubscribeToStream, correlation_id, body)

    def _goes_on(self, command: int) -> bool:
        return command == Command.CheckpointReached or super()._goes_on(command)

    def _on_other_frame(self, frame: Frame, retry: Retry) -> None:
        if frame.command == Command.CheckpointReached and self._is_confirmed:
            reached = _cold.decode("CheckpointReached", frame.body)
            self._on_checkpoint(Position(reached.commit_position, reached.prepare_position))
        else:
            super()._on_other_frame(frame, retry)


class Wire:
    """What a subscription needs to talk to the server."""

    def __init__(self, outlet: Outlet, timeout: float) -> None:
        self._outlet = outlet
        self._timeout = timeout

    def unsubscribe(self, operation: Subscribe) -> None:
        """Ask the server to stop."""
        operation.leave()
        self._outlet.send_now(operation.take_back())


def was_out_of_reach(error: BaseException | None) -> bool:
    """Whether a request failed for lack of a connection, and may do well on the next one."""
    if isinstance(error, RetriesLimitReached):
        error = error.last_error
    return isinstance(error, (ConnectionLost, OperationExpired))
