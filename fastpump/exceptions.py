"""The errors fastpump raises: one root, below it by blame.

* `UsageError`: the call was wrong; nothing was sent.
* `ProtocolError`: the peer sent bytes that are not the protocol.
* `ConnectFailed`, `ConnectionLost`, `ClientClosed`: there is no connection to use.
* `ConversationException` and below: one operation failed, mostly because the server said so.

photon-pump's names and attributes are kept, so that an `except` clause written for it still works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

__all__ = [
    "AccessDenied",
    "BadRequest",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "ConversationException",
    "DiscoveryFailed",
    "EventNotFound",
    "FastpumpError",
    "InvalidTransaction",
    "MaximumSubscribersReached",
    "MessageUnhandled",
    "NotAuthenticated",
    "NotHandled",
    "NotMaster",
    "NotReady",
    "OperationExpired",
    "OperationNotSupported",
    "OperationTimedOut",
    "PayloadUnreadable",
    "PersistentSubscriptionAlreadyExists",
    "PersistentSubscriptionCommandFailed",
    "PersistentSubscriptionDeleted",
    "PersistentSubscriptionNotFound",
    "PhotonPumpException",
    "ProtocolError",
    "PublishFailed",
    "ReadError",
    "ReplayFailed",
    "RetriesLimitReached",
    "ServerError",
    "StreamDeleted",
    "StreamNotFound",
    "SubscriptionCreationFailed",
    "SubscriptionFailed",
    "TooBusy",
    "UnexpectedCommand",
    "UsageError",
    "UserCommandConflict",
    "UserCommandFailed",
    "UserCommandUnauthorized",
    "UserNotFound",
    "WriteFailed",
    "WrongExpectedVersion",
]


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class FastpumpError(Exception):
    """Root of every error that fastpump raises on its own account."""

    retriable = False
    """Whether the same request may succeed later without being changed."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An error may cross to another process. What its constructor was given, it has not kept.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[FastpumpError], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


PhotonPumpException = FastpumpError


class UsageError(FastpumpError, ValueError):
    """An argument is not acceptable; nothing was sent. `argument` names it."""

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument


class ProtocolError(FastpumpError):
    """Bytes that the protocol does not allow; `offset` counts from the start of what was read."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


class ConnectFailed(FastpumpError, ConnectionError):
    """No usable connection could be made; the text says what was tried."""

    retriable = True


class DiscoveryFailed(ConnectFailed):
    """No node of the cluster could be found or chosen."""


class ConnectionLost(FastpumpError, ConnectionError):
    """The connection ended while the operation waited, and the operation could not be re-sent."""

    retriable = True


class ClientClosed(FastpumpError):
    """The client was closed, or never connected, when the operation was asked for."""


class ConversationException(FastpumpError):
    """One operation failed. `conversation_id` is its correlation id, where it had one."""

    def __init__(self, conversation_id: UUID | None, message: str, *args: Any) -> None:
        super().__init__(message, *args)
        self.conversation_id = conversation_id
        self.message = message

    def __str__(self) -> str:
        return self.message


class OperationExpired(ConversationException, TimeoutError):
    """The operation waited too long for a place or a connection; see `queue_timeout` of `connect`.

    Nothing of it was sent, unless it was waiting because its connection was lost.
    """

    retriable = True

    def __init__(self, conversation_id: UUID | None, seconds: float) -> None:
        super().__init__(conversation_id, f"Could not be sent within {seconds:g} s")


class RetriesLimitReached(ConversationException):
    """The operation was sent as often as `max_attempts` of `connect` allows.

    The last time it failed with `last_error`, which is its `__cause__` too.
    """

    retriable = True

    def __init__(
        self, conversation_id: UUID | None, attempts: int, last_error: BaseException
    ) -> None:
        super().__init__(
            conversation_id,
            f"Sent {attempts} times, the last one failed with {describe(last_error)}",
        )
        self.attempts = attempts
        self.last_error = self.__cause__ = last_error


class OperationTimedOut(ConversationException, TimeoutError):
    """No reply came within the time of one attempt."""

    retriable = True

    def __init__(self, conversation_id: UUID | None, operation: str, seconds: float) -> None:
        super().__init__(conversation_id, f"{operation}: no reply within {seconds:g} s")


class ServerError(ConversationException):
    """The server answered that it will not or cannot do what was asked."""


class StreamNotFound(ServerError):
    def __init__(self, conversation_id: UUID | None, stream: str) -> None:
        super().__init__(conversation_id, f"The stream {stream!r} does not exist")
        self.stream = stream


class StreamDeleted(ServerError):
    def __init__(self, conversation_id: UUID | None, stream: str) -> None:
        super().__init__(conversation_id, f"The stream {stream!r} has been deleted")
        self.stream = stream


class EventNotFound(ServerError):
    """Kept for photon-pump's programs; `Client.get_event` returns None instead of raising it."""

    def __init__(self, conversation_id: UUID | None, stream: str, event_number: int) -> None:
        super().__init__(conversation_id, f"The stream {stream!r} has no event {event_number}")
        self.stream = stream
        self.event_number = event_number


class ReadError(ServerError):
    def __init__(self, conversation_id: UUID | None, stream: str, error: str) -> None:
        super().__init__(conversation_id, f"Reading {stream!r} failed: {error}")
        self.stream = stream
        self.error = error


class AccessDenied(ServerError):
    """The credentials in force do not permit the operation on this stream."""

    def __init__(self, conversation_id: UUID | None, type: str, error: str) -> None:
        super().__init__(conversation_id, f"{type}: access denied on {error}")
        self.conversation_type = type


class WrongExpectedVersion(ServerError):
    """The stream is not at the version the write expected.

    `actual_version` is the stream's last event number (-1: it has no events), or None where the
    server does not tell it (transactions; servers before 4.1).
    """

    def __init__(
        self,
        conversation_id: UUID | None,
        stream: str,
        expected_version: int,
        actual_version: int | None,
    ) -> None:
        actual = "" if actual_version is None else f", it is at {actual_version}"
        super().__init__(
            conversation_id, f"The stream {stream!r} is not at version {expected_version}{actual}"
        )
        self.stream = stream
        self.expected_version = expected_version
        self.actual_version = actual_version


class WriteFailed(ServerError):
    """The server gave up on a write, or refused it for another reason than those above."""

    retriable = True


class InvalidTransaction(WriteFailed):
    """The transaction is none, or one that cannot be committed."""

    retriable = False


class BadRequest(ServerError):
    """The server could not make sense of the request."""


class NotAuthenticated(ServerError):
    """The credentials are wrong, or there are none where some are needed."""


class MessageUnhandled(ServerError):
    """The node received the request and did not process it."""

    retriable = True

    def __init__(self, conversation_id: UUID | None, message: str, reason: int) -> None:
        super().__init__(conversation_id, message)
        self.reason = reason


class NotReady(MessageUnhandled):
    def __init__(self, conversation_id: UUID | None) -> None:
        super().__init__(conversation_id, "The node is not ready", 0)


class TooBusy(MessageUnhandled):
    def __init__(self, conversation_id: UUID | None) -> None:
        super().__init__(conversation_id, "The node is too busy", 1)


class NotMaster(MessageUnhandled):
    """Only the leader may answer, this node is not it, and following what it said led nowhere.

    `leader` and `secure_leader` are the (host, port) it named, without TLS and with it, or None.
    """

    def __init__(
        self,
        conversation_id: UUID | None,
        leader: tuple[str, int] | None = None,
        secure_leader: tuple[str, int] | None = None,
    ) -> None:
        named = leader or secure_leader
        where = "" if named is None else f"; it says that is {named[0]}:{named[1]}"
        super().__init__(conversation_id, f"The node is not the leader{where}", 2)
        self.leader = leader
        self.secure_leader = secure_leader


class OperationNotSupported(MessageUnhandled):
    """The node is a read-only replica, which takes no writes; connect to another one."""

    retriable = False

    def __init__(self, conversation_id: UUID | None) -> None:
        super().__init__(conversation_id, "The node is a read-only replica and takes no writes", 3)


class NotHandled(MessageUnhandled):
    """The node did not process the request, for a reason this client does not know."""

    def __init__(self, conversation_id: UUID | None, reason: int) -> None:
        super().__init__(conversation_id, f"The node refused the request (reason {reason})", reason)


class PayloadUnreadable(ConversationException, ProtocolError):
    """The reply to an operation could not be decoded; the ProtocolError is its `__cause__`."""

    def __init__(self, conversation_id: UUID | None, problem: ProtocolError) -> None:
        ConversationException.__init__(
            self, conversation_id, f"The reply could not be read: {problem}"
        )
        self.offset = problem.offset


class UnexpectedCommand(ConversationException):
    """The reply to an operation is of a kind that does not belong to it."""

    def __init__(self, conversation_id: UUID | None, expected: str, actual: str) -> None:
        super().__init__(conversation_id, f"Expected {expected}, the server sent {actual}")
        self.expected = expected
        self.actual = actual


class PublishFailure(NamedTuple):
    """Events of one stream that a publisher could not have written, in their order, and why.

    They have their ids still, so they can be given to a publisher again as they are; data and
    metadata are encoded (`bytes` and `Json`).
    """

    stream: str
    events: Sequence[Any]
    reason: FastpumpError


class PublishFailed(FastpumpError):
    """A publisher could not have some events written; `failures` has all of them.

    If the reason of a failure is that no answer came (`RetriesLimitReached`, `OperationTimedOut`,
    `ConnectFailed`, `ClientClosed`), its events may be written nevertheless.
    """

    def __init__(self, failures: Sequence[PublishFailure]) -> None:
        count = sum(len(failure.events) for failure in failures)
        streams = len({failure.stream for failure in failures})
        first = failures[0]
        super().__init__(
            f"{count} {'event' if count == 1 else 'events'} of "
            f"{streams} {'stream' if streams == 1 else 'streams'} could not be published; "
            f"{first.stream!r}: {first.reason}"
        )
        self.failures = failures
        self.__cause__ = first.reason


class ReplayFailed(FastpumpError):
    """Some of many streams could not be read; the others were.

    `failures` has the error of each by the stream's name.
    """

    def __init__(self, failures: Mapping[str, FastpumpError]) -> None:
        count = len(failures)
        stream, reason = next(iter(failures.items()))
        super().__init__(
            f"{count} {'stream' if count == 1 else 'streams'} could not be read; "
            f"{stream!r}: {reason}"
        )
        self.failures = failures
        self.__cause__ = reason


class SubscriptionCreationFailed(ConversationException):
    pass


class SubscriptionFailed(ConversationException):
    pass


class PersistentSubscriptionAlreadyExists(SubscriptionCreationFailed):
    """The stream has a persistent subscription of that name. `subscription` is "stream::name"."""

    def __init__(self, conversation_id: UUID | None, subscription: str) -> None:
        super().__init__(
            conversation_id, f"The persistent subscription {subscription!r} exists already"
        )
        self.subscription = subscription


class PersistentSubscriptionNotFound(SubscriptionCreationFailed):
    """The stream has no persistent subscription of that name. `subscription` is "stream::name"."""

    def __init__(self, conversation_id: UUID | None, subscription: str) -> None:
        super().__init__(
            conversation_id, f"The persistent subscription {subscription!r} does not exist"
        )
        self.subscription = subscription


class MaximumSubscribersReached(SubscriptionCreationFailed):
    """The persistent subscription has as many consumers as it may. `subscription` names it."""

    retriable = True

    def __init__(self, conversation_id: UUID | None, subscription: str) -> None:
        super().__init__(
            conversation_id, f"The persistent subscription {subscription!r} takes no more consumers"
        )
        self.subscription = subscription


class PersistentSubscriptionDeleted(SubscriptionFailed):
    """It was deleted while it had a consumer here. `subscription` is "stream::name"."""

    def __init__(self, conversation_id: UUID | None, subscription: str) -> None:
        super().__init__(
            conversation_id, f"The persistent subscription {subscription!r} was deleted"
        )
        self.subscription = subscription


class PersistentSubscriptionCommandFailed(ServerError):
    """The server did not change or delete a persistent subscription. `subscription` names it."""

    def __init__(self, conversation_id: UUID | None, subscription: str, reason: str) -> None:
        super().__init__(conversation_id, f"The persistent subscription {subscription!r}: {reason}")
        self.subscription = subscription


class UserCommandFailed(FastpumpError):
    """The server did not do what was asked about a user, nor tell why.

    `login` is the user, None if it was about all of them; `status` is that of HTTP.
    """

    problem = "the server refused"

    def __init__(self, login: str | None, status: int) -> None:
        whom = "users" if login is None else f"user {login!r}"
        super().__init__(f"{whom}: {self.problem} (status {status})")
        self.login = login
        self.status = status


class UserCommandConflict(UserCommandFailed):
    """There is such a user already, who is another one."""

    problem = "there is one already"


class UserCommandUnauthorized(UserCommandFailed):
    """The credentials are wrong, missing, or not enough."""

    problem = "not authorised"


class UserNotFound(UserCommandFailed):
    """There is no such user."""

    problem = "there is none"
