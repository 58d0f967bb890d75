"""The node's replies that are not made in bulk (protocol document, section 3)."""

from __future__ import annotations

from enum import IntEnum

from fastpump._commands import Command
from fastpump.server._messages import encode_fields, encode_reply

INVALID_NUMBER = -(2**31)
"""Event number and prepare position of a write that was refused (section 5.5)."""


class WriteResult(IntEnum):
    SUCCESS = 0
    WRONG_EXPECTED_VERSION = 4
    STREAM_DELETED = 5
    INVALID_TRANSACTION = 6
    ACCESS_DENIED = 7

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    WriteResult.SUCCESS: "",
    WriteResult.WRONG_EXPECTED_VERSION: "Wrong expected version.",
    WriteResult.STREAM_DELETED: "Stream is deleted.",
    WriteResult.INVALID_TRANSACTION: "Invalid transaction.",
    WriteResult.ACCESS_DENIED: "Access denied.",
}


def write_refused(correlation_id: bytes, result: WriteResult, current_version: int) -> bytes:
    payload = encode_fields(
        result, result.message, INVALID_NUMBER, INVALID_NUMBER, INVALID_NUMBER, 0, current_version
    )
    return encode_reply(Command.WriteEventsCompleted, correlation_id, payload)


def delete_completed(correlation_id: bytes, position: int) -> bytes:
    payload = encode_fields(WriteResult.SUCCESS, None, position, position)
    return encode_reply(Command.DeleteStreamCompleted, correlation_id, payload)


def delete_refused(correlation_id: bytes, result: WriteResult) -> bytes:
    payload = encode_fields(result, result.message, -1, -1)
    return encode_reply(Command.DeleteStreamCompleted, correlation_id, payload)


def bad_request(correlation_id: bytes, text: str) -> bytes:
    return encode_reply(Command.BadRequest, correlation_id, text.encode())


def not_understood(correlation_id: bytes, command: int, detail: str) -> bytes:
    """The original's answer to whatever it cannot make sense of (section 1.3)."""
    try:
        name = Command(command).name
    except ValueError:
        name = str(command)
    text = f"Could not unwrap network package for command {name}.\n{detail}"
    return bad_request(correlation_id, text)


def not_authenticated(correlation_id: bytes, text: str) -> bytes:
    return encode_reply(Command.NotAuthenticated, correlation_id, text.encode())
