"""A request under way: what all kinds of them have in common.

An operation knows nothing of connections. It ends by its waiter, a future or something that takes a
result or an exception like one.

Operations are made and answered hundreds of thousands of times a second. So this is compiled, and
`_operation.pxd` says what of it lies in a C structure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from fastpump import _cold
from fastpump._arguments import MAX_PORT, is_host
from fastpump._commands import Command, name_of
from fastpump._framing import Frame
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    ConversationException,
    FastpumpError,
    NotAuthenticated,
    NotHandled,
    NotMaster,
    NotReady,
    OperationNotSupported,
    OperationTimedOut,
    PayloadUnreadable,
    ProtocolError,
    TooBusy,
    UnexpectedCommand,
)
from fastpump.messages import NotHandledReason

Retry = Callable[["Operation", ConversationException], None]
"""Takes a request that the node did not handle now and may handle later."""


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

    is_repeatable = True
    """Sent twice, since there was no reply, it does no more than sent once."""

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
    def reply(self) -> Command:
        """What the reply's command is; a class attribute of each kind."""
        raise NotImplementedError

    @property
    def conversation_id(self) -> UUID:
        return UUID(bytes_le=self.correlation_id)

    @property
    def is_abandoned(self) -> bool:
        """Nobody waits for the result any more."""
        return self.waiter.done()

    def on_frame(self, frame: Frame, retry: Retry) -> bool:
        """Take a reply. False: more replies will follow on this id, until one that returns True.

        Args:
            retry: takes the operation if the node did not handle it now and may do so later.

        Raises:
            ProtocolError: it could not be decoded. The operation has failed with it.
        """
        if self.waiter.done():
            return True
        try:
            if self.is_reply(frame):
                self.on_reply(frame, retry)
            else:
                self._on_other_frame(frame, retry)
        except ProtocolError as error:
            unreadable = PayloadUnreadable(self.conversation_id, error)
            unreadable.__cause__ = error
            self.fail(unreadable)
            raise
        return True

    def is_reply(self, frame: Frame) -> bool:
        """Whether it is the answer, and not a refusal or something else."""
        return frame.command == self.reply

    def on_reply(self, frame: Frame, retry: Retry) -> None:
        """Decode the reply and end by it."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it has ended already."""
        if not self.waiter.done():
            self.waiter.set_exception(error)

    def access_denied(self) -> AccessDenied:
        return AccessDenied(self.conversation_id, type(self).__name__, self.stream)

    def bad_request(self, text: str) -> BadRequest:
        return BadRequest(self.conversation_id, text)

    def no_reply(self) -> FastpumpError:
        """What it ends with, or is sent again for, if no reply has come in time."""
        return OperationTimedOut(self.conversation_id, name_of(self.frame[4]), self.timeout)

    def take_back(self) -> bytes | None:
        """The frame that makes the server forget a request that it may have heard all the same."""
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
