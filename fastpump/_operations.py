"""One class per request: the frame it sends, what its replies mean, what it ends with.

An operation knows nothing of connections. It ends by its waiter, a future or something that takes a
result or an exception like one.
"""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from fastpump import _cold
from fastpump._arguments import MAX_PORT, is_host
from fastpump._commands import Command, name_of
from fastpump._dispatcher import Retry
from fastpump._framing import Frame, encode_frame
from fastpump._replies import (
    WriteResult,
    decode_all_slice,
    decode_read_event,
    decode_stream_slice,
    decode_write_completed,
)
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    InvalidTransaction,
    NotAuthenticated,
    NotHandled,
    NotMaster,
    NotReady,
    OperationNotSupported,
    OperationTimedOut,
    PayloadUnreadable,
    ProtocolError,
    ReadError,
    ServerError,
    StreamDeleted,
    StreamNotFound,
    TooBusy,
    UnexpectedCommand,
    WriteFailed,
    WrongExpectedVersion,
)
from fastpump.messages import (
    NotHandledReason,
    OperationResult,
    Position,
    ReadAllResult,
    ReadEventResult,
    ReadStreamResult,
    StreamDirection,
)


class Waiter(Protocol):
    """The part of a future that an operation uses."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...


class Operation:
    """A request with one reply.

    Args:
        correlation_id, frame: the request.
        waiter: gets the result or the error.
        timeout: seconds the reply may take each time it is sent.
        stream: the stream it is about, for results and errors.
        number: the expected version of a write, the first event number of a read.
    """

    __slots__ = (
        "attempts",
        "correlation_id",
        "deadline",
        "frame",
        "number",
        "stream",
        "timeout",
        "waiter",
    )

    reply: Command
    is_repeatable = True

    def __init__(
        self,
        correlation_id: bytes,
        frame: bytes,
        waiter: Waiter,
        timeout: float,
        stream: str = "",
        number: int = 0,
    ) -> None:
        self.correlation_id = correlation_id
        self.frame = frame
        self.waiter = waiter
        self.timeout = timeout
        self.deadline = 0.0  # the dispatcher sets it
        self.stream = stream
        self.number = number
        self.attempts = 0

    @property
    def conversation_id(self) -> UUID:
        return UUID(bytes_le=self.correlation_id)

    @property
    def is_abandoned(self) -> bool:
        return self.waiter.done()

    def on_frame(self, frame: Frame, retry: Retry) -> bool:
        """Take the reply.

        Args:
            retry: takes the operation if the node did not handle it now and may do so later.

        Raises:
            ProtocolError: it could not be decoded. The operation has failed with it.
        """
        if self.waiter.done():
            return True
        try:
            if frame.command == self.reply:
                self.on_reply(frame, retry)
            else:
                self._on_other_frame(frame, retry)
        except ProtocolError as error:
            unreadable = PayloadUnreadable(self.conversation_id, error)
            unreadable.__cause__ = error
            self.fail(unreadable)
            raise
        return True

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        """Decode the reply and end by it."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        if not self.waiter.done():
            self.waiter.set_exception(error)

    def access_denied(self) -> AccessDenied:
        return AccessDenied(self.conversation_id, type(self).__name__, self.stream)

    def bad_request(self, text: str) -> BadRequest:
        return BadRequest(self.conversation_id, text)

    def no_reply(self) -> OperationTimedOut:
        return OperationTimedOut(self.conversation_id, name_of(self.frame[4]), self.timeout)

    def take_back(self) -> bytes | None:
        return None  # what was heard may well be done

    def _on_other_frame(self, frame: Frame, retry: Retry) -> None:
        if frame.command == Command.NotHandled:
            self._on_not_handled(frame, retry)
        elif frame.command == Command.BadRequest:
            self.fail(self.bad_request(text_of(frame, "Bad request")))
        elif frame.command == Command.NotAuthenticated:
            self.fail(NotAuthenticated(self.conversation_id, text_of(frame, "Not authenticated")))
        else:
            expected, actual = self.reply.name, name_of(frame.command)
            self.fail(UnexpectedCommand(self.conversation_id, expected, actual))

    def _on_not_handled(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("NotHandled", frame.body)
        if reply.reason == NotHandledReason.NotReady:
            retry(self, NotReady(self.conversation_id))
        elif reply.reason == NotHandledReason.TooBusy:
            retry(self, TooBusy(self.conversation_id))
        elif reply.reason == NotHandledReason.NotMaster:
            retry(self, self._not_master(reply.additional_info))
        elif reply.reason == NotHandledReason.IsReadOnly:
            self.fail(OperationNotSupported(self.conversation_id))
        else:
            self.fail(NotHandled(self.conversation_id, reply.reason))

    def _not_master(self, info: bytes) -> NotMaster:
        leader = _cold.decode("LeaderInfo", info)
        return NotMaster(
            self.conversation_id,
            _address(leader.external_tcp_address, leader.external_tcp_port),
            _address(leader.external_secure_tcp_address, leader.external_secure_tcp_port),
        )


def _address(host: str, port: int) -> tuple[str, int] | None:
    return (host, port) if is_host(host) and 0 < port <= MAX_PORT else None


def text_of(frame: Frame, default: str) -> str:
    """The UTF-8 text a BadRequest or NotAuthenticated carries."""
    return bytes(frame.body).decode(errors="replace").strip() or default


class Ping(Operation):
    """Ends with the payload the server sent back."""

    __slots__ = ()
    reply = Command.Pong

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        self.waiter.set_result(bytes(frame.body))


class Authenticate(Operation):
    """Makes the credentials in its auth block the connection's own. Ends with None."""

    __slots__ = ()
    reply = Command.Authenticated

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        self.waiter.set_result(None)


class IdentifyClient(Operation):
    """Tells protocol version 1 and a name for the connection. Ends with None."""

    __slots__ = ()
    reply = Command.ClientIdentified

    @staticmethod
    def encode(correlation_id: bytes, name: str) -> bytes:
        body = _cold.encode("IdentifyClient", version=1, connection_name=name)
        return encode_frame(Command.IdentifyClient, correlation_id, body)

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        self.waiter.set_result(None)


class Change(Operation):
    """An operation that is answered with an OperationResult."""

    __slots__ = ()

    def settle(
        self, outcome: int, message: str, result: Any, retry: Retry, version: int | None = None
    ) -> None:
        """End with `result` if the outcome is success; `version` is what the stream is at."""
        if outcome == 0:
            self.waiter.set_result(result)
        elif outcome in _SERVER_TIMEOUTS:
            retry(self, WriteFailed(self.conversation_id, message))
        else:
            self.fail(self._refusal(outcome, message, version))

    def _refusal(self, outcome: int, message: str, version: int | None) -> ServerError:
        if outcome == OperationResult.WrongExpectedVersion:
            return WrongExpectedVersion(self.conversation_id, self.stream, self.number, version)
        if outcome == OperationResult.StreamDeleted:
            return StreamDeleted(self.conversation_id, self.stream)
        if outcome == OperationResult.AccessDenied:
            return self.access_denied()
        kind = InvalidTransaction if outcome == OperationResult.InvalidTransaction else WriteFailed
        return kind(self.conversation_id, f"result {outcome}: {message}")


class WriteEvents(Change):
    """Ends with a WriteResult. Sent again it is not written again: the event ids are the same."""

    __slots__ = ()
    reply = Command.WriteEventsCompleted

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        written = decode_write_completed(frame)
        if written.result == 0:
            self.waiter.set_result(written)
        else:
            self.settle(written.result, written.message, None, retry, written.current_version)


class DeleteStream(Change):
    """Ends with the Position of what was written: the tombstone, or the stream's new metadata."""

    __slots__ = ()
    reply = Command.DeleteStreamCompleted

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("DeleteStreamCompleted", frame.body)
        position = Position(reply.commit_position, reply.prepare_position)
        version = reply.current_version if reply.HasField("current_version") else None
        self.settle(reply.result, reply.message, position, retry, version)


class TransactionStart(Change):
    """Ends with the transaction's id."""

    __slots__ = ()
    reply = Command.TransactionStartCompleted

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("TransactionStartCompleted", frame.body)
        self.settle(reply.result, reply.message, reply.transaction_id, retry)


class TransactionWrite(Change):
    """Ends with None. Heard twice, its events would be in the transaction twice."""

    __slots__ = ()
    reply = Command.TransactionWriteCompleted
    is_repeatable = False

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("TransactionWriteCompleted", frame.body)
        self.settle(reply.result, reply.message, None, retry)


class TransactionCommit(Change):
    """Ends with a WriteResult."""

    __slots__ = ()
    reply = Command.TransactionCommitCompleted

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        reply = _cold.decode("TransactionCommitCompleted", frame.body)
        position = Position(reply.commit_position, reply.prepare_position)
        result = WriteResult(reply.first_event_number, reply.last_event_number, position)
        self.settle(reply.result, reply.message, result, retry)


_SERVER_TIMEOUTS = frozenset(
    {
        OperationResult.PrepareTimeout,
        OperationResult.CommitTimeout,
        OperationResult.ForwardTimeout,
    }
)


class ReadEvent(Operation):
    """Ends with an Event, or None if the stream exists and has no such event."""

    __slots__ = ()
    reply = Command.ReadEventCompleted

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        result, event, error = decode_read_event(frame)
        if result in (ReadEventResult.Success, ReadEventResult.NotFound):
            self.waiter.set_result(event)
        else:
            self.fail(self._refusal(result, error))

    def _refusal(self, result: int, error: str) -> ServerError:
        if result == ReadEventResult.NoStream:
            return StreamNotFound(self.conversation_id, self.stream)
        if result == ReadEventResult.StreamDeleted:
            return StreamDeleted(self.conversation_id, self.stream)
        if result == ReadEventResult.AccessDenied:
            return self.access_denied()
        return ReadError(self.conversation_id, self.stream, error or f"result {result}")


class ReadStreamForward(Operation):
    """Ends with a StreamSlice."""

    __slots__ = ()
    reply = Command.ReadStreamEventsForwardCompleted
    direction = StreamDirection.Forward

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        result, page, error = decode_stream_slice(frame, self.stream, self.number, self.direction)
        if result == 0:
            self.waiter.set_result(page)
        else:
            self.fail(self._refusal(result, error))

    def _refusal(self, result: int, error: str) -> ServerError:
        if result == ReadStreamResult.NoStream:
            return StreamNotFound(self.conversation_id, self.stream)
        if result == ReadStreamResult.StreamDeleted:
            return StreamDeleted(self.conversation_id, self.stream)
        if result == ReadStreamResult.AccessDenied:
            return self.access_denied()
        return ReadError(self.conversation_id, self.stream, error or f"result {result}")


class ReadStreamBackward(ReadStreamForward):
    __slots__ = ()
    reply = Command.ReadStreamEventsBackwardCompleted
    direction = StreamDirection.Backward


class ReadAllForward(Operation):
    """Ends with an AllStreamSlice."""

    __slots__ = ()
    reply = Command.ReadAllEventsForwardCompleted
    direction = StreamDirection.Forward
    filtered = False

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        result, page, error = decode_all_slice(frame, self.direction, self.filtered)
        if result == 0:
            self.waiter.set_result(page)
        else:
            self.fail(self.refusal(result, error))

    def refusal(self, result: int, error: str) -> ServerError:
        if result == ReadAllResult.AccessDenied:
            return self.access_denied()
        return ReadError(self.conversation_id, self.stream, error or f"result {result}")


class ReadAllBackward(ReadAllForward):
    __slots__ = ()
    reply = Command.ReadAllEventsBackwardCompleted
    direction = StreamDirection.Backward


class Filtered(Operation):
    """A request with a filter: servers before version 20 do not know it."""

    __slots__ = ()

    def bad_request(self, text: str) -> BadRequest:
        hint = "filters need a server of version 20 or later, and patterns must be .NET's"
        return BadRequest(self.conversation_id, f"{text} ({hint})")


class ReadFilteredForward(Filtered, ReadAllForward):
    """Ends with an AllStreamSlice. A refusal comes as an unfiltered read's (section 2.1)."""

    __slots__ = ()
    reply = Command.FilteredReadAllEventsForwardCompleted
    refused = Command.ReadAllEventsForwardCompleted
    filtered = True

    def _on_other_frame(self, frame: Frame, retry: Retry) -> None:
        if frame.command == self.refused:
            result, _, error = decode_all_slice(frame, self.direction)
            if result != 0:
                self.fail(self.refusal(result, error))
                return
        super()._on_other_frame(frame, retry)


class ReadFilteredBackward(ReadFilteredForward):
    __slots__ = ()
    reply = Command.FilteredReadAllEventsBackwardCompleted
    refused = Command.ReadAllEventsBackwardCompleted
    direction = StreamDirection.Backward
