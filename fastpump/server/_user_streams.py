"""Users as events: the streams `$user-…` and `$users`, as the original has them (section 13)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import orjson

from fastpump.server._accounts import Account, account_from_json
from fastpump.server._messages import decode_write_events, encode_fields
from fastpump.server._records import entries_of
from fastpump.server._streams import metastream_of
from fastpump.server._versions import ANY
from fastpump.server._visibility import Visibility
from fastpump.server._writes import soft_delete

if TYPE_CHECKING:
    from fastpump.server._metadata import MetadataReader, StreamMetadata
    from fastpump.server._writer import Group
    from fastpump.server.store import Store

USERS_STREAM = "$users"

_ONLY_ADMINS = {"$w": "$admins", "$d": "$admins", "$mw": "$admins"}


class _Known(NamedTuple):
    """What was read of a stream, and by what it shows whether that still holds."""

    committed: int
    metadata: StreamMetadata
    account: Account | None


class UserStreams:
    """Reads users. What was read is remembered until their streams change."""

    def __init__(self, store: Store, metadata: MetadataReader) -> None:
        self._store = store
        self._metadata = metadata
        self._visibility = Visibility(store, metadata)
        self._known: dict[str, _Known] = {}

    def find(self, login: str) -> Account | None:
        """The user with this login, or None."""
        stream = self._store.known_stream(stream_of(login))
        if stream is None or stream.committed < 0:
            return None
        metadata = self._metadata.of(stream)
        known = self._known.get(login)
        if known is None or known.committed != stream.committed or known.metadata is not metadata:
            entry = self._visibility.event(stream, -1)
            account = None if entry is None else account_from_json(login, entry.data, entry.ticks)
            known = self._known[login] = _Known(stream.committed, metadata, account)
        return known.account

    def logins(self) -> list[str]:
        """Everybody who was ever created, in that order."""
        stream = self._store.stream(USERS_STREAM)
        found: dict[str, None] = {}
        for _, position, count in self._store.places(stream, 0, stream.committed):
            start, records = self._store.segment(position)
            for entry in entries_of(records, position - start, count):
                found[entry.data.decode(errors="replace")] = None
        return list(found)


def stream_of(login: str) -> str:
    return f"$user-{login}"


def write_account(group: Group, account: Account) -> None:
    """Write a user, who may be new. Nobody may have written to the stream in the same group."""
    name = stream_of(account.login)
    stream = group.store.stream(name)
    is_new = stream.committed < 0 or group.metadata.of(stream).soft_deleted
    if is_new:
        metadata: dict[str, object] = {"$acl": _ONLY_ADMINS}
        if stream.committed >= 0:
            # Deleted before: what was known then stays invisible.
            metadata["$tb"] = stream.last + 1
        _append(group, metastream_of(name), "$metadata", orjson.dumps(metadata))
        group.on_committed(partial(group.metadata.forget, name))
    _append(group, name, "$UserCreated" if is_new else "$UserUpdated", account.to_json())
    if is_new:
        _append(group, USERS_STREAM, "$User", account.login.encode(), is_json=False)
    group.is_full = True


def delete_account(group: Group, login: str) -> None:
    """Delete a user who is stored. Nobody may have written to the stream in the same group."""
    soft_delete(group, group.store.stream(stream_of(login)))


def _append(
    group: Group, stream: str, event_type: str, data: bytes, *, is_json: bool = True
) -> None:
    event = encode_fields(uuid4().bytes_le, event_type, is_json, 0, data, b"")
    request = decode_write_events(encode_fields(stream, ANY, [event], True))
    group.append(group.store.stream(stream), request)
