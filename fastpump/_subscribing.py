"""The operations whose replies go on: a subscription's confirmation, pushes and end.

Such an operation stays with the dispatcher until the server drops it or its connection is lost. It
is never re-sent by itself, because only who consumes it knows where to go on.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from fastpump import _cold
from fastpump._commands import Command
from fastpump._dispatcher import Retry
from fastpump._events import Events
from fastpump._framing import Frame, encode_frame
from fastpump._operations import Operation
from fastpump._replies import decode_pushes
from fastpump.exceptions import SubscriptionFailed
from fastpump.messages import SubscriptionDropReason

NEVER_AGAIN = 1 << 30
"""As `attempts`: the dispatcher does not send such an operation again."""


class Confirmation(NamedTuple):
    """What a server pushes lies behind these (protocol document, section 8.1)."""

    last_commit_position: int
    last_event_number: int
    """-1: the stream has no event."""


class Subscriber(Protocol):
    """Who a subscription's replies go to."""

    def on_confirmed(self, confirmation: Confirmation) -> None: ...

    def on_events(self, events: Events) -> None: ...

    def on_end(self, error: BaseException | None) -> None:
        """It is over; None: because one side asked for it."""


class _Handover:
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


class SubscribeToStream(Operation):
    """A volatile subscription to a stream, or to all of them ("")."""

    __slots__ = ("subscriber",)
    reply = Command.SubscriptionConfirmation

    def __init__(
        self, correlation_id: bytes, frame: bytes, subscriber: Subscriber, timeout: float, name: str
    ) -> None:
        super().__init__(correlation_id, frame, _Handover(subscriber), timeout, name)
        self.subscriber = subscriber

    @staticmethod
    def encode(correlation_id: bytes, stream: str, resolve_links: bool) -> bytes:
        body = _cold.encode(
            "SubscribeToStream", event_stream_id=stream, resolve_link_tos=resolve_links
        )
        return encode_frame(Command.SubscribeToStream, correlation_id, body)

    def on_frame(self, frame: Frame, retry: Retry) -> bool:
        if frame.command == Command.StreamEventAppeared and not self.waiter.done():
            self.subscriber.on_events(decode_pushes(frame))
            return False
        if frame.command == Command.SubscriptionDropped:
            self._on_dropped(frame)
            return True
        super().on_frame(frame, retry)
        return self.waiter.done()

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("SubscriptionConfirmation", frame.body)
        self.attempts = NEVER_AGAIN
        self.deadline = math.inf
        self.subscriber.on_confirmed(
            Confirmation(reply.last_commit_position, reply.last_event_number)
        )

    def _on_dropped(self, frame: Frame) -> None:
        reason = _cold.decode("SubscriptionDropped", frame.body).reason
        if self.waiter.done():
            return
        if reason == SubscriptionDropReason.Unsubscribed:
            self.waiter.set_result(None)
        elif reason == SubscriptionDropReason.AccessDenied:
            self.fail(self.access_denied())
        else:
            self.fail(
                SubscriptionFailed(
                    self.conversation_id, f"The server dropped {self.stream!r} (reason {reason})"
                )
            )


def encode_unsubscribe(correlation_id: bytes) -> bytes:
    return encode_frame(Command.UnsubscribeFromStream, correlation_id)
