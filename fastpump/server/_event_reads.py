"""ReadEvent (protocol document, section 6.1)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.server._access import READ
from fastpump.server._asking import Asker, Sources, require_name
from fastpump.server._links import LinkDenied
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server.errors import InvalidRequest

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._streams import Stream


class EventResult(IntEnum):
    SUCCESS = 0
    NOT_FOUND = 1
    NO_STREAM = 2
    STREAM_DELETED = 3
    ERROR = 4
    ACCESS_DENIED = 5


def read_event(sources: Sources, asker: Asker, frame: Frame, offset: int) -> bytes:
    """The reply to a ReadEvent whose payload begins at `offset`.

    Raises:
        InvalidRequest: the request is not one.
    """
    name, number, resolve, _ = decode_message(frame, offset, "sqbb")
    require_name(name)
    if number < -1:
        raise InvalidRequest(f"event number {number}")
    result, event = _find(sources, asker, name, number, resolve)
    payload = encode_fields(result, event)
    return encode_reply(Command.ReadEventCompleted, frame.correlation_id, payload)


def _find(
    sources: Sources, asker: Asker, name: str, number: int, resolve: bool
) -> tuple[EventResult, bytes]:
    """The result and the encoded ResolvedIndexedEvent, which is empty where there is no event."""
    if not sources.access.allows(asker.user, name, READ):
        return EventResult.ACCESS_DENIED, b""
    stream = sources.store.stream(name)
    if sources.visibility.is_deleted(stream):
        return EventResult.STREAM_DELETED, b""
    entry = sources.visibility.event(stream, number)
    if entry is None:
        return _why_missing(sources, stream), b""
    try:
        return EventResult.SUCCESS, encode_fields(*sources.deliver(entry, asker, resolve))
    except LinkDenied:
        return EventResult.ACCESS_DENIED, b""


def _why_missing(sources: Sources, stream: Stream) -> EventResult:
    # The original takes any "$xy…" for the metastream of "…", and an existing stream for enough.
    if stream.name.startswith("$") and sources.store.stream(stream.name[2:]).committed >= 0:
        return EventResult.SUCCESS
    if sources.visibility.is_missing(stream):
        return EventResult.NO_STREAM
    return EventResult.NOT_FOUND
