"""The vocabulary of the public API: what is written, what comes back, and the protocol's enums.

photon-pump's names are kept where it had one. The numbers are those of the protocol document,
sections 3 and 5.1.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from fastpump._commands import Command as TcpCommand
from fastpump._events import AllStreamSlice, Event, EventRecord, Events, StreamSlice
from fastpump._new_events import MAX_EVENT_SIZE, Json, NewEvent, NewEventData
from fastpump._position import Beginning, End, Position, PositionSentinel
from fastpump._replies import WriteResult
from fastpump.exceptions import UsageError

__all__ = [
    "DISPATCH_TO_SINGLE",
    "MAX_EVENT_SIZE",
    "MAX_READ_COUNT",
    "PINNED",
    "PINNED_BY_CORRELATION",
    "ROUND_ROBIN",
    "AllStreamSlice",
    "Beginning",
    "ConditionalWriteResult",
    "ConditionalWriteStatus",
    "ContentType",
    "Credential",
    "End",
    "Event",
    "EventRecord",
    "Events",
    "ExpectedVersion",
    "Header",
    "Json",
    "NakAction",
    "NewEvent",
    "NewEventData",
    "NotHandledReason",
    "OperationFlags",
    "OperationResult",
    "Position",
    "PositionSentinel",
    "ReadAllResult",
    "ReadEventResult",
    "ReadStreamResult",
    "StreamDirection",
    "StreamSlice",
    "SubscriptionDropReason",
    "SubscriptionResult",
    "TcpCommand",
    "Token",
    "WriteResult",
]

ROUND_ROBIN = "RoundRobin"
DISPATCH_TO_SINGLE = "DispatchToSingle"
PINNED = "Pinned"
PINNED_BY_CORRELATION = "PinnedByCorrelation"  # from Event Store 20 on

MAX_READ_COUNT = 4096
"""Most events a server returns in one page."""


class StreamDirection(IntEnum):
    Forward = 0
    Backward = 1


class ContentType(IntEnum):
    Binary = 0x00
    Json = 0x01


class OperationFlags(IntEnum):
    Empty = 0x00
    Authenticated = 0x01


class ExpectedVersion(IntEnum):
    """What a write expects of its stream; any number from 0 on means "the last event is this one".

    `StreamMustBeEmpty` has photon-pump's value, which really means "the last event is number 0".
    """

    Any = -2
    StreamMustNotExist = -1
    StreamMustBeEmpty = 0
    StreamMustExist = -4


class OperationResult(IntEnum):
    Success = 0
    PrepareTimeout = 1
    CommitTimeout = 2
    ForwardTimeout = 3
    WrongExpectedVersion = 4
    StreamDeleted = 5
    InvalidTransaction = 6
    AccessDenied = 7


class ConditionalWriteStatus(IntEnum):
    Succeeded = 0
    VersionMismatch = 1
    StreamDeleted = 2


class ConditionalWriteResult(NamedTuple):
    """What became of `Client.publish_conditional`.

    `last_event_number` and `position` are those of the last event if it succeeded, as in a
    WriteResult. `actual_version` is the stream's last event number (-1: it has none) if that was
    not the one expected, and the server tells it. What does not apply is None.
    """

    status: ConditionalWriteStatus
    last_event_number: int | None = None
    position: Position | None = None
    actual_version: int | None = None


class ReadEventResult(IntEnum):
    Success = 0
    NotFound = 1
    NoStream = 2
    StreamDeleted = 3
    Error = 4
    AccessDenied = 5


class ReadStreamResult(IntEnum):
    Success = 0
    NoStream = 1
    StreamDeleted = 2
    NotModified = 3
    Error = 4
    AccessDenied = 5


class ReadAllResult(IntEnum):
    Success = 0
    NotModified = 1
    Error = 2
    AccessDenied = 3


class NotHandledReason(IntEnum):
    NotReady = 0
    TooBusy = 1
    NotMaster = 2
    IsReadOnly = 3


class SubscriptionDropReason(IntEnum):
    Unsubscribed = 0
    AccessDenied = 1
    NotFound = 2
    PersistentSubscriptionDeleted = 3
    SubscriberMaxCountReached = 4


class SubscriptionResult(IntEnum):
    Success = 0
    AlreadyExists = 1
    Fail = 2
    AccessDenied = 3


class NakAction(IntEnum):
    """What is to become of an event that a consumer refuses (protocol document, section 9.5)."""

    Unknown = 0
    """As Retry."""
    Park = 1
    """Put it aside with the parked ones."""
    Retry = 2
    """Deliver it again; park it once it was retried as often as the subscription allows."""
    Skip = 3
    """Go on without it."""
    Stop = 4
    """As Skip: servers do nothing special."""


class Header(NamedTuple):
    """The header of a frame: `size` counts everything behind the length prefix."""

    size: int
    cmd: int
    flags: int
    correlation_id: UUID
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        """Without the password."""
        return (
            f"Header(size={self.size}, cmd={self.cmd}, flags={self.flags}, "
            f"correlation_id={self.correlation_id!r}, username={self.username!r})"
        )


class Credential:
    """A login and its password. Neither `repr` nor any log shows the password.

    Servers before version 20 take 255 bytes of UTF-8 for each, which is what is checked here. From
    version 20 on it is 127, and the first byte of the login must be below 0x80; a server answers
    what is longer with BadRequest and ends the connection. Give `longest=127` to be told before
    (protocol document, section 1.2).

    Args:
        username, password: the login and its password.
        longest: bytes of UTF-8 each of them may have, 0 to 255.

    Raises:
        UsageError: one of them is longer, or not a str.
    """

    __slots__ = ("auth_block", "password", "username")

    def __init__(self, username: str, password: str, *, longest: int = 255) -> None:
        if not 0 <= longest <= 255:
            raise UsageError("longest", f"must be 0 to 255, not {longest!r:.80}")
        self.username = username
        self.password = password
        self.auth_block = _counted("username", username, longest) + _counted(
            "password", password, longest
        )

    def __repr__(self) -> str:
        return f"<Credential of {self.username!r}>"


LONGEST_TOKEN = 32_765
"""Bytes (protocol document, section 1.2)."""


class Token:
    """A JSON Web Token that stands for a user, for servers from version 20 on.

    Neither `repr` nor any log shows it.

    Args:
        token: the token, 1 to 32,765 ASCII characters.

    Raises:
        UsageError: it is something else.
    """

    __slots__ = ("auth_block",)

    def __init__(self, token: str) -> None:
        if not isinstance(token, str) or not token.isascii():
            raise UsageError("token", "must be a str of ASCII characters")
        if not 1 <= len(token) <= LONGEST_TOKEN:
            raise UsageError("token", f"takes 1 to {LONGEST_TOKEN} bytes, not {len(token)}")
        # A negative length tells it from a login.
        self.auth_block = struct.pack("<h", -len(token)) + token.encode()

    def __repr__(self) -> str:
        return "<Token>"


def utf8_of(argument: str, text: str) -> bytes:
    """An argument's text as UTF-8."""
    if not isinstance(text, str):
        raise UsageError(argument, f"must be a str, not {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        # Not as its cause: that carries the text.
        raise UsageError(argument, f"cannot be encoded as UTF-8: {error.reason}") from None


def _counted(argument: str, text: str, longest: int) -> bytes:
    """UTF-8 bytes behind their count in one byte (protocol document, section 1.2)."""
    encoded = utf8_of(argument, text)
    if len(encoded) > longest:
        raise UsageError(argument, f"takes {longest} bytes at most, these are {len(encoded)}")
    return bytes([len(encoded)]) + encoded
