"""What a reply says, as plain values: once as fastpump decodes it, once as protobuf does.

``decoded(frame)`` runs fastpump's decoder of the frame's command and reads every attribute of the
result; ``expected(command, fields)`` says what those attributes have to be, given the fields that
the reference codec found. Both sides use the same keys, so that a test compares two dicts.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

from goldenlib import build_frame

from fastpump import _replies
from fastpump._framing import Framer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastpump._events import Event, EventRecord
    from fastpump._framing import Frame

Values = dict[str, Any]

WRITE_COMPLETED = 0x83
READ_EVENT_COMPLETED = 0xB1
STREAM_COMPLETED = (0xB3, 0xB5)
ALL_COMPLETED = (0xB7, 0xB9)
FILTERED_COMPLETED = (0xBB, 0xBE)
STREAM_EVENT = 0xC2
PERSISTENT_EVENT = 0xC7
DECODED = (
    WRITE_COMPLETED,
    READ_EVENT_COMPLETED,
    *STREAM_COMPLETED,
    *ALL_COMPLETED,
    *FILTERED_COMPLETED,
    STREAM_EVENT,
    PERSISTENT_EVENT,
)
"""The replies that have a decoder of their own; the other ones are cold."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TICKS_AT_EPOCH = 621_355_968_000_000_000
_TICKS = (1 << 62) - 1  # the two bits above them are .NET's kind of a DateTime


def one_frame(command: int, payload: bytes) -> Frame:
    """The frame of a reply, as the connection would hand it over."""
    [frame] = Framer().feed(build_frame(command, 0, bytes(range(16)), payload))
    return frame


def decoded(frame: Frame) -> Values:
    """All that fastpump's decoder finds in a frame; raises ProtocolError."""
    return _DECODERS[frame.command](frame)


def expected(command: int, fields: Mapping[str, Any]) -> Values:
    """All that there is to be found in a message with these fields; absent ones are zero."""
    return _EXPECTED[command](fields)


# --- as fastpump decodes it ----------------------------------------------------------------------


def _record(record: EventRecord) -> Values:
    return {
        "stream": record.stream,
        "number": record.event_number,
        "id": record.id,
        "type": record.type,
        "is_json": record.is_json,
        "data": record.data,
        "metadata": record.metadata,
        "created": record.created,
    }


def event_values(event: Event) -> Values:
    """Every attribute of an event."""
    return {
        **_record(event.event),
        "link": None if event.link is None else _record(event.link),
        "is_resolved": event.is_resolved,
        "event_number": event.event_number,
        "received": _record(event.received_event),
        "position": event.position,
        "retry_count": event.retry_count,
        # The shortcuts on the event are those of its record.
        "shortcuts": {
            "stream": event.stream,
            "id": event.id,
            "type": event.type,
            "is_json": event.is_json,
            "data": event.data,
            "metadata": event.metadata,
            "created": event.created,
        },
    }


def _decode_write_completed(frame: Frame) -> Values:
    result = _replies.decode_write_completed(frame)
    return {
        "result": result.result,
        "message": result.message,
        "first": result.first_event_number,
        "last": result.last_event_number,
        "position": result.position,
        "current_version": result.current_version,
    }


def _decode_read_event(frame: Frame) -> Values:
    result, event, error = _replies.decode_read_event(frame)
    return {
        "result": result,
        "event": None if event is None else event_values(event),
        "error": error,
    }


def _decode_stream(frame: Frame) -> Values:
    result, page, error = _replies.decode_stream_slice(frame, "stream", 7, 1)
    assert (page.stream, page.from_event_number, page.direction) == ("stream", 7, 1)
    return {
        "result": result,
        "events": [event_values(event) for event in page],
        "next": page.next_event_number,
        "last": page.last_event_number,
        "is_end": page.is_end_of_stream,
        "last_commit": page.commit_position,
        "error": error,
    }


def _decode_all(frame: Frame) -> Values:
    filtered = frame.command in FILTERED_COMPLETED
    result, page, error = _replies.decode_all_slice(frame, 1, filtered)
    assert page.direction == 1
    return {
        "result": result,
        "events": [event_values(event) for event in page],
        "start": page.start_position,
        "next": page.next_position,
        "is_end": page.is_end_of_stream,
        "error": error,
    }


def _decode_pushes(frame: Frame) -> Values:
    return {"events": [event_values(event) for event in _replies.decode_pushes(frame)]}


_DECODERS: dict[int, Callable[[Frame], Values]] = {
    WRITE_COMPLETED: _decode_write_completed,
    READ_EVENT_COMPLETED: _decode_read_event,
    **dict.fromkeys(STREAM_COMPLETED, _decode_stream),
    **dict.fromkeys((*ALL_COMPLETED, *FILTERED_COMPLETED), _decode_all),
    STREAM_EVENT: _decode_pushes,
    PERSISTENT_EVENT: _decode_pushes,
}


# --- as the fields of the reference codec say ----------------------------------------------------


def created_at(ticks: int, milliseconds: int) -> datetime | None:
    """The time of `created` (.NET ticks since year 1), else of `created_epoch`, else none."""
    ticks &= _TICKS
    if ticks:
        return _EPOCH + timedelta(microseconds=(ticks - _TICKS_AT_EPOCH) // 10)
    return _EPOCH + timedelta(milliseconds=milliseconds) if milliseconds else None


def _expected_record(fields: Mapping[str, Any]) -> Values:
    return {
        "stream": fields.get("event_stream_id", ""),
        "number": fields.get("event_number", 0),
        "id": UUID(bytes_le=fields.get("event_id", bytes(16))),
        "type": fields.get("event_type", ""),
        "is_json": fields.get("data_content_type", 0) == 1,
        "data": fields.get("data", b""),
        "metadata": fields.get("metadata", b""),
        "created": created_at(fields.get("created", 0), fields.get("created_epoch", 0)),
    }


def expected_event(fields: Mapping[str, Any], retry_count: int = 0) -> Values:
    """An event that arrived with these fields of a ResolvedEvent or ResolvedIndexedEvent."""
    link = _expected_record(fields["link"]) if "link" in fields else None
    record = _expected_record(fields["event"]) if "event" in fields else link
    if record is None:
        raise ValueError("neither an event nor a link")
    received = record if link is None else link
    has_position = "commit_position" in fields or "prepare_position" in fields
    return {
        **record,
        "link": link,
        "is_resolved": link is not None and "event" in fields,
        "event_number": received["number"],
        "received": received,
        "position": (
            (fields.get("commit_position", 0), fields.get("prepare_position", 0))
            if has_position
            else None
        ),
        "retry_count": retry_count,
        "shortcuts": {name: record[name] for name in _SHORTCUTS},
    }


_SHORTCUTS = ("stream", "id", "type", "is_json", "data", "metadata", "created")


def _expect_write_completed(fields: Mapping[str, Any]) -> Values:
    return {
        "result": fields.get("result", 0),
        "message": fields.get("message", ""),
        "first": fields.get("first_event_number", 0),
        "last": fields.get("last_event_number", 0),
        "position": (fields.get("commit_position", 0), fields.get("prepare_position", 0)),
        "current_version": fields.get("current_version"),
    }


def _expect_read_event(fields: Mapping[str, Any]) -> Values:
    event = fields.get("event", {})
    return {
        "result": fields.get("result", 0),
        "event": expected_event(event) if "event" in event or "link" in event else None,
        "error": fields.get("error", ""),
    }


def _expect_stream(fields: Mapping[str, Any]) -> Values:
    return {
        "result": fields.get("result", 0),
        "events": [expected_event(event) for event in fields.get("events", [])],
        "next": fields.get("next_event_number", 0),
        "last": fields.get("last_event_number", 0),
        "is_end": fields.get("is_end_of_stream", False),
        "last_commit": fields.get("last_commit_position", 0),
        "error": fields.get("error", ""),
    }


def _expect_all(fields: Mapping[str, Any]) -> Values:
    events = fields.get("events", [])
    return {
        "result": fields.get("result", 0),
        "events": [expected_event(event) for event in events],
        "start": (fields.get("commit_position", 0), fields.get("prepare_position", 0)),
        "next": (fields.get("next_commit_position", 0), fields.get("next_prepare_position", 0)),
        "is_end": not events,
        "error": fields.get("error", ""),
    }


def _expect_filtered(fields: Mapping[str, Any]) -> Values:
    return {**_expect_all(fields), "is_end": fields.get("is_end_of_stream", False)}


def _expect_push(fields: Mapping[str, Any]) -> Values:
    retry_count = (fields.get("retryCount", 0) + 2**31) % 2**32 - 2**31
    return {"events": [expected_event(fields["event"], retry_count)]}


_EXPECTED: dict[int, Callable[[Mapping[str, Any]], Values]] = {
    WRITE_COMPLETED: _expect_write_completed,
    READ_EVENT_COMPLETED: _expect_read_event,
    **dict.fromkeys(STREAM_COMPLETED, _expect_stream),
    **dict.fromkeys(ALL_COMPLETED, _expect_all),
    **dict.fromkeys(FILTERED_COMPLETED, _expect_filtered),
    STREAM_EVENT: _expect_push,
    PERSISTENT_EVENT: _expect_push,
}
