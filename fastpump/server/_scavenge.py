"""ScavengeDatabase as version 4 answers it: when it is done (protocol document, section 3.8)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.server._access import ADMINS, OPS
from fastpump.server._messages import decode_message, encode_fields, encode_reply

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._access import User

_MAY_SCAVENGE = frozenset((ADMINS, OPS))


class ScavengeResult(IntEnum):
    SUCCESS = 0
    IN_PROGRESS = 1
    FAILED = 2


def scavenge(user: User | None, frame: Frame, offset: int) -> bytes:
    """The reply to a ScavengeDatabase. The node keeps everything, so nothing is ever left to do.

    Raises:
        InvalidRequest: the request is not one.
    """
    decode_message(frame, offset, "")
    result, error = ScavengeResult.SUCCESS, None
    if user is None or not user.has_any(_MAY_SCAVENGE):
        result, error = ScavengeResult.FAILED, "Access denied."
    payload = encode_fields(result, error, 0, 0)
    return encode_reply(Command.ScavengeDatabaseCompleted, frame.correlation_id, payload)
