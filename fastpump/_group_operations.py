"""The operations on persistent subscriptions (protocol document, section 9).

The server calls one a group of its stream, and names it "stream::group": that is the `stream` of
these operations.
"""

from __future__ import annotations

from fastpump import _cold
from fastpump._commands import Command
from fastpump._framing import Frame, encode_frame
from fastpump._operation import Operation, Retry
from fastpump._subscribing import Confirmation, Subscribe, Subscriber
from fastpump.exceptions import (
    ConversationException,
    MaximumSubscribersReached,
    PersistentSubscriptionAlreadyExists,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionDeleted,
    PersistentSubscriptionNotFound,
    ProtocolError,
    SubscriptionCreationFailed,
)
from fastpump.messages import SubscriptionDropReason, SubscriptionResult


def group_key(stream: str, name: str) -> str:
    """What the server calls the persistent subscription of that name to the stream."""
    return f"{stream}::{name}"


class ChangeGroup(Operation):
    """An operation that is answered with a SubscriptionResult. Ends with None."""

    __slots__ = ()
    request: Command

    @classmethod
    def encode(
        cls, correlation_id: bytes, stream: str, name: str, auth: bytes | None, **settings: object
    ) -> bytes:
        body = _cold.encode(
            cls.request.name, subscription_group_name=name, event_stream_id=stream, **settings
        )
        return encode_frame(cls.request, correlation_id, body, auth)

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode(self.reply.name, frame.body)
        if reply.result == SubscriptionResult.Success:
            self.waiter.set_result(None)
        elif reply.result == SubscriptionResult.AccessDenied:
            self.fail(self.access_denied())
        else:
            self.fail(self._refusal(reply.result, reply.reason or f"result {reply.result}"))

    def _refusal(self, result: int, reason: str) -> ConversationException:
        # 1 is AlreadyExists to those who create one; the numbers mean different things.
        if result == SubscriptionResult.AlreadyExists:
            return PersistentSubscriptionNotFound(self.conversation_id, self.stream)
        return PersistentSubscriptionCommandFailed(self.conversation_id, self.stream, reason)


class CreateGroup(ChangeGroup):
    __slots__ = ()
    request = Command.CreatePersistentSubscription
    reply = Command.CreatePersistentSubscriptionCompleted

    def _refusal(self, result: int, reason: str) -> ConversationException:
        if result == SubscriptionResult.AlreadyExists:
            return PersistentSubscriptionAlreadyExists(self.conversation_id, self.stream)
        text = f"The persistent subscription {self.stream!r} was not created: {reason}"
        return SubscriptionCreationFailed(self.conversation_id, text)


class UpdateGroup(ChangeGroup):
    __slots__ = ()
    request = Command.UpdatePersistentSubscription
    reply = Command.UpdatePersistentSubscriptionCompleted


class DeleteGroup(ChangeGroup):
    __slots__ = ()
    request = Command.DeletePersistentSubscription
    reply = Command.DeletePersistentSubscriptionCompleted


class ConnectToGroup(Subscribe):
    """A consumer of a persistent subscription.

    Args:
        comes_back: it was one before its connection was lost. The server may not have noticed that
            yet, and may take the consumer itself for the one too many.
    """

    __slots__ = ("_comes_back",)
    reply = Command.PersistentSubscriptionConfirmation
    push = Command.PersistentSubscriptionStreamEventAppeared

    def __init__(
        self,
        correlation_id: bytes,
        frame: bytes,
        subscriber: Subscriber,
        timeout: float,
        key: str,
        comes_back: bool,
    ) -> None:
        super().__init__(correlation_id, frame, subscriber, timeout, key)
        self._comes_back = comes_back

    @staticmethod
    def encode(correlation_id: bytes, stream: str, name: str, in_flight: int) -> bytes:
        body = _cold.encode(
            "ConnectToPersistentSubscription",
            subscription_id=name,
            event_stream_id=stream,
            allowed_in_flight_messages=in_flight,
        )
        return encode_frame(Command.ConnectToPersistentSubscription, correlation_id, body)

    def _decode_confirmation(self, frame: Frame) -> Confirmation:
        reply = _cold.decode("PersistentSubscriptionConfirmation", frame.body)
        if not reply.subscription_id:
            raise ProtocolError(
                "PersistentSubscriptionConfirmation: no name to answer events under"
            )
        return Confirmation(
            reply.last_commit_position, reply.last_event_number, reply.subscription_id
        )

    def _on_dropped(self, reason: int, retry: Retry) -> None:
        is_too_many = reason == SubscriptionDropReason.SubscriberMaxCountReached
        if is_too_many and self._comes_back and not self._is_confirmed:
            retry(self, self._why_dropped(reason))
        else:
            super()._on_dropped(reason, retry)

    def _why_dropped(self, reason: int) -> ConversationException:
        kind = _AFTER.get(reason) if self._is_confirmed else _BEFORE.get(reason)
        if kind is None:
            return super()._why_dropped(reason)
        return kind(self.conversation_id, self.stream)


_BEFORE: dict[int, type[PersistentSubscriptionNotFound | MaximumSubscribersReached]] = {
    SubscriptionDropReason.NotFound: PersistentSubscriptionNotFound,
    SubscriptionDropReason.SubscriberMaxCountReached: MaximumSubscribersReached,
}
"""What a drop means before the confirmation."""

_AFTER: dict[int, type[PersistentSubscriptionDeleted]] = {
    SubscriptionDropReason.PersistentSubscriptionDeleted: PersistentSubscriptionDeleted,
}
"""What it means later."""
