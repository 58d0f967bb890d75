"""One class per request: the frame it sends, what its replies mean, what it ends with.

An operation knows nothing of connections. It ends by its waiter, a future or something that takes a
result or an exception like one.
"""

from __future__ import annotations

from typing import Any

from fastpump import _cold
from fastpump._commands import Command
from fastpump._framing import Frame, encode_frame
from fastpump._operation import Operation, Retry
from fastpump._replies import (
    WriteResult,
    decode_all_slice,
    decode_read_event,
    decode_stream_slice,
)
from fastpump.exceptions import (
    BadRequest,
    InvalidTransaction,
    ReadError,
    ServerError,
    StreamDeleted,
    StreamNotFound,
    WriteFailed,
    WrongExpectedVersion,
)
from fastpump.messages import (
    OperationResult,
    Position,
    ReadAllResult,
    ReadEventResult,
    ReadStreamResult,
    StreamDirection,
)


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
