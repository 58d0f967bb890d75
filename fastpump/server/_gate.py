"""What a node refuses before it looks into a request: its role in a cluster, and faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fastpump._commands import Command
from fastpump.server._messages import encode_fields, encode_reply

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.messages import NotHandledReason
    from fastpump.server.session import Session

SWALLOWED = b""
"""The answer of a check that has dealt with the request: nothing is sent."""


class Check(Protocol):
    """Something that may refuse requests. A node has a list of them, which is mostly empty."""

    def __call__(self, session: Session, frame: Frame, offset: int) -> bytes | None:
        """The frame to answer with, or None if the request may go on.

        Args:
            offset: where the payload begins in the frame's body.

        Raises:
            InvalidRequest: the request cannot be decoded.
        """


def not_handled(
    correlation_id: bytes, reason: NotHandledReason, additional_info: bytes | None = None
) -> bytes:
    """A NotHandled frame (protocol document, section 3.6)."""
    payload = encode_fields(int(reason), additional_info)
    return encode_reply(Command.NotHandled, correlation_id, payload)
