"""Stream metadata and system settings: JSON in events (protocol document, section 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from fastpump.server._streams import DELETED_NUMBER, Stream, metastream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastpump.server._records import Entry
    from fastpump.server.store import Store

SETTINGS_STREAM = "$settings"

Acl = dict[str, frozenset[str]]
"""Right (`$r`, `$w`, `$d`, `$mr`, `$mw`) -> the roles that have it."""

RIGHTS = ("$r", "$w", "$d", "$mr", "$mw")
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class StreamMetadata:
    """What metadata makes of a stream when it is read. None: no such limit.

    Attributes:
        max_count: only that many last numbers are visible.
        max_age: events older than this many seconds are not.
        truncate_before: numbers below are not; `DELETED_NUMBER` means soft-deleted.
    """

    max_count: int | None = None
    max_age: int | None = None
    truncate_before: int | None = None
    acl: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def soft_deleted(self) -> bool:
        return self.truncate_before == DELETED_NUMBER

    def first_visible(self, last: int) -> int:
        """The lowest visible number of a stream whose last number is `last` (section 6)."""
        lowest = self.truncate_before or 0
        if self.max_count is not None:
            lowest = max(lowest, last - self.max_count + 1)
        return lowest


@dataclass(frozen=True)
class Settings:
    """The default access lists (section 7.6)."""

    user_streams: Mapping[str, frozenset[str]] = field(default_factory=dict)
    system_streams: Mapping[str, frozenset[str]] = field(default_factory=dict)


NO_METADATA = StreamMetadata()
NO_SETTINGS = Settings()

_SETTINGS_KEYS = {"user_streams": "$userStreamAcl", "system_streams": "$systemStreamAcl"}


def parse_metadata(data: bytes) -> StreamMetadata:
    """Metadata from JSON. A value of the wrong type makes the whole count as none (section 7.3)."""
    try:
        values = orjson.loads(data)
        return StreamMetadata(
            max_count=_integer(values.get("$maxCount"), 1),
            max_age=_integer(values.get("$maxAge"), 1),
            truncate_before=_integer(values.get("$tb"), 0),
            acl=_acl(values.get("$acl")),
        )
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return NO_METADATA


def parse_settings(data: bytes) -> Settings:
    """System settings from JSON; what is not usable counts as not given."""
    try:
        values = orjson.loads(data)
        return Settings(**{name: _acl(values.get(key)) for name, key in _SETTINGS_KEYS.items()})
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return NO_SETTINGS


def with_truncate_before(data: bytes, number: int) -> bytes | None:
    """The same JSON object with `$tb` set, or None if it is not one."""
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(values, dict):
        return None
    values["$tb"] = number
    return orjson.dumps(values)


def _integer(value: Any, lowest: int) -> int | None:
    """A number, or None where it is absent or too small to mean anything."""
    if value is None:
        return None
    if type(value) is not int or abs(value) > MAX_INT64:
        raise TypeError(value)
    return value if value >= lowest else None


def _acl(value: Any) -> Acl:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(value)
    return {right: _roles(value[right]) for right in RIGHTS if value.get(right) is not None}


def _roles(value: Any) -> frozenset[str]:
    roles = [value] if isinstance(value, str) else value
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise TypeError(value)
    return frozenset(roles)


class MetadataReader:
    """The metadata and settings in force, read from the store and remembered until they change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._settings: Settings | None = None

    def of(self, stream: Stream) -> StreamMetadata:
        """The stream's metadata as of the last commit."""
        if stream.metadata is None:
            entry = self.last_event(metastream_of(stream.name))
            is_usable = entry is not None and entry.is_json
            stream.metadata = parse_metadata(entry.data) if entry and is_usable else NO_METADATA
        return stream.metadata

    def settings(self) -> Settings:
        """The system settings as of the last commit."""
        if self._settings is None:
            entry = self.last_event(SETTINGS_STREAM)
            self._settings = NO_SETTINGS if entry is None else parse_settings(entry.data)
        return self._settings

    def last_event(self, name: str) -> Entry | None:
        """The last committed event of a stream, visible or not."""
        stream = self._store.known_stream(name)
        if stream is None or stream.committed < 0:
            return None
        return self._store.entry(stream, stream.committed)

    def forget(self, name: str) -> None:
        """The metadata of the stream with this name was written to."""
        self._store.stream(name).metadata = None

    def forget_settings(self) -> None:
        """`$settings` was written to."""
        self._settings = None
