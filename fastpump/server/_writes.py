"""The operations that change streams: WriteEvents and DeleteStream (sections 5 and 7)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from fastpump.server import _replies as replies
from fastpump.server._access import DELETE, WRITE
from fastpump.server._messages import (
    WriteRequest,
    decode_message,
    decode_write_events,
    encode_fields,
    encode_write_completed,
)
from fastpump.server._metadata import SETTINGS_STREAM, with_truncate_before
from fastpump.server._replies import WriteResult
from fastpump.server._streams import (
    DELETED_NUMBER,
    Stream,
    is_metastream,
    metastream_of,
    original_of,
)
from fastpump.server._versions import ANY, Decision, check
from fastpump.server.errors import InvalidRequest

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._access import User
    from fastpump.server._metadata import MetadataReader
    from fastpump.server._writer import Client, Group
    from fastpump.server.store import Store

REFUSALS = {
    Decision.WRONG_VERSION: WriteResult.WRONG_EXPECTED_VERSION,
    Decision.DELETED: WriteResult.STREAM_DELETED,
}


class History:
    """What the version check asks, answered from the store."""

    def __init__(self, store: Store, metadata: MetadataReader) -> None:
        self._store = store
        self._metadata = metadata
        self.find_id = store.find_id

    def stored_ids(self, stream: Stream, first: int, count: int) -> list[bytes]:
        last = min(first + count - 1, stream.last)
        entries = (self._store.entry(stream, number) for number in range(first, last + 1))
        return [entry.event_id for entry in entries if entry is not None]

    def has_metadata(self, stream: Stream) -> bool:
        return self._store.stream(metastream_of(stream.name)).last >= 0

    def is_soft_deleted(self, stream: Stream) -> bool:
        return self._metadata.of(stream).soft_deleted


class WriteEvents:
    """One WriteEvents request. Raises InvalidRequest where section 5.6 says so."""

    __slots__ = ("client", "correlation_id", "request", "size", "user")

    def __init__(self, client: Client, user: User | None, frame: Frame, offset: int) -> None:
        self.client = client
        self.user = user
        self.correlation_id = frame.correlation_id
        self.request = decode_write_events(frame, offset)
        self.size = self.request.size

    def execute(self, group: Group) -> bool:
        request = self.request
        if not group.access.allows(self.user, request.stream, WRITE):
            return self._refuse(group, WriteResult.ACCESS_DENIED, -1)
        stream = group.store.stream(request.stream)
        history = History(group.store, group.metadata)
        verdict = check(stream, request.expected_version, request.event_ids(), history)
        if verdict.decision is Decision.WRITE:
            self._write(group, stream)
        elif verdict.decision is Decision.IDEMPOTENT:
            reply = encode_write_completed(self.correlation_id, verdict.first, verdict.last, -1)
            group.reply(self.client, reply)
        elif verdict.decision is Decision.UNDECIDED:
            return False
        else:
            is_wrong = verdict.decision is Decision.WRONG_VERSION
            self._refuse(group, REFUSALS[verdict.decision], stream.last if is_wrong else -1)
        return True

    def fail(self, problem: str) -> bytes:
        return replies.bad_request(self.correlation_id, f"The events were not stored: {problem}")

    def _write(self, group: Group, stream: Stream) -> None:
        first = stream.last + 1
        was_deleted = group.metadata.of(stream).soft_deleted
        position = group.append(stream, self.request)
        reply = encode_write_completed(self.correlation_id, first, stream.last, position)
        group.reply(self.client, reply)
        take_effect(group, stream, first, self.request, was_deleted)

    def _refuse(self, group: Group, result: WriteResult, current_version: int) -> bool:
        reply = replies.write_refused(self.correlation_id, result, current_version)
        group.reply(self.client, reply)
        return True


class DeleteStream:
    """One DeleteStream request, soft or hard. Raises InvalidRequest."""

    __slots__ = ("client", "correlation_id", "expected", "is_hard", "size", "stream", "user")

    def __init__(self, client: Client, user: User | None, frame: Frame, offset: int) -> None:
        self.client = client
        self.user = user
        self.correlation_id = frame.correlation_id
        self.size = len(frame)
        self.stream, self.expected, _, self.is_hard = decode_message(frame, offset, "sqbb")
        if not self.stream:
            raise InvalidRequest("no stream name")
        if self.expected < ANY:
            raise InvalidRequest(f"no expected version: {self.expected}")

    def execute(self, group: Group) -> bool:
        if not group.access.allows(self.user, self.stream, DELETE):
            return self._refuse(group, WriteResult.ACCESS_DENIED)
        stream = group.store.stream(self.stream)
        history = History(group.store, group.metadata)
        verdict = check(stream, self.expected, (uuid4().bytes_le,), history)
        if verdict.decision is Decision.UNDECIDED:
            return False
        if verdict.decision is not Decision.WRITE:
            return self._refuse(group, REFUSALS[verdict.decision])
        position = group.append_tombstone(stream) if self.is_hard else soft_delete(group, stream)
        group.reply(self.client, replies.delete_completed(self.correlation_id, position))
        return True

    def fail(self, problem: str) -> bytes:
        return replies.bad_request(self.correlation_id, f"The stream was not deleted: {problem}")

    def _refuse(self, group: Group, result: WriteResult) -> bool:
        group.reply(self.client, replies.delete_refused(self.correlation_id, result))
        return True


def take_effect(
    group: Group, stream: Stream, first: int, newest: WriteRequest | None, was_deleted: bool
) -> None:
    """What else follows from events just written to a stream (section 7).

    Args:
        first: the number of the first one.
        newest: the request with the last one.
        was_deleted: the stream was soft-deleted before.
    """
    if was_deleted:
        _recreate(group, stream, first)
    if is_metastream(stream.name):
        original = group.store.stream(original_of(stream.name))
        if group.metadata.of(original).soft_deleted and not original.deleted:
            _undelete(group, original, newest)
        _metadata_changes(group, original)
    elif stream.name == SETTINGS_STREAM:
        group.is_full = True
        group.on_committed(group.metadata.forget_settings)


def _undelete(group: Group, original: Stream, request: WriteRequest | None) -> None:
    """Metadata set on a soft-deleted stream: the same again with `$tb` (section 7.2)."""
    if request is None or not request.count or not request.is_json(request.count - 1):
        return
    data = with_truncate_before(request.data(request.count - 1), original.last + 1)
    if data is not None:
        _append_metadata(group, original, data)


def soft_delete(group: Group, stream: Stream) -> int:
    data = with_truncate_before(b"{}", DELETED_NUMBER)
    assert data is not None
    position = _append_metadata(group, stream, data)
    _metadata_changes(group, stream)
    return position


def _recreate(group: Group, stream: Stream, first: int) -> None:
    """The first write to a soft-deleted stream: its metadata again, with `$tb` (section 7.2)."""
    entry = group.metadata.last_event(metastream_of(stream.name))
    data = None if entry is None else with_truncate_before(entry.data, first)
    if data is not None:
        _append_metadata(group, stream, data)
        _metadata_changes(group, stream)


def _append_metadata(group: Group, stream: Stream, data: bytes) -> int:
    event = encode_fields(uuid4().bytes_le, "$metadata", 1, 0, data, b"")
    metastream = group.store.stream(metastream_of(stream.name))
    request = decode_write_events(encode_fields(metastream.name, ANY, [event], True))
    return group.append(metastream, request)


def _metadata_changes(group: Group, stream: Stream) -> None:
    """From the commit on the stream's metadata is another, so nothing more goes into this group."""
    group.is_full = True
    group.on_committed(partial(group.metadata.forget, stream.name))
