"""What is set on a stream rather than written to it: how long events stay, and who may do what.

A stream's metadata is a JSON object in the newest event of its metastream `$$<stream>` (protocol
document, section 7.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from fastpump.exceptions import UsageError

Roles = str | Sequence[str] | None
"""Users and groups, one or several; `$all` is everyone, `$admins` the administrators."""

ACL_KEYS = {
    "read": "$r",
    "write": "$w",
    "delete": "$d",
    "meta_read": "$mr",
    "meta_write": "$mw",
}
LIMIT_KEYS = {
    "max_age": "$maxAge",
    "max_count": "$maxCount",
    "truncate_before": "$tb",
    "cache_control": "$cacheControl",
}
LOWEST = {"max_age": 1, "max_count": 1, "truncate_before": 0, "cache_control": 1}


@dataclass(frozen=True)
class Acl:
    """Who may do what. None leaves a right to the system's settings; an empty list to nobody.

    Raises:
        UsageError: roles are neither a str nor a sequence of them.
    """

    read: Roles = None
    write: Roles = None
    delete: Roles = None
    meta_read: Roles = None
    meta_write: Roles = None

    def __post_init__(self) -> None:
        for name in ACL_KEYS:
            roles = getattr(self, name)
            is_sequence = isinstance(roles, Sequence) and not isinstance(roles, bytes)
            if roles is not None and not (is_sequence and all(isinstance(r, str) for r in roles)):
                raise UsageError(name, f"must be a str or a sequence of them, not {roles!r:.80}")

    def to_json(self) -> dict[str, Any]:
        rights = {key: getattr(self, name) for name, key in ACL_KEYS.items()}
        return {
            key: roles if isinstance(roles, str) else list(roles)
            for key, roles in rights.items()
            if roles is not None
        }

    @classmethod
    def from_json(cls, rights: Mapping[str, Any]) -> Acl:
        """Raises ValueError if `rights` is not such an object."""
        found = {name: rights.get(key) for name, key in ACL_KEYS.items()}
        return cls(
            **{n: [roles] if isinstance(roles, str) else roles for n, roles in found.items()}
        )


@dataclass(frozen=True)
class StreamMetadata:
    """A stream's metadata.

    Attributes:
        max_age: seconds after which events are no longer to be seen.
        max_count: how many of the newest events are to be seen.
        truncate_before: number of the first event that is to be seen.
        cache_control: seconds that HTTP caches may keep the stream's head.
        acl: who may do what.
        custom: whatever else the JSON object shall hold.

    Raises:
        UsageError: a limit is not a whole number, or too small.
    """

    max_age: int | None = None
    max_count: int | None = None
    truncate_before: int | None = None
    cache_control: int | None = None
    acl: Acl | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, lowest in LOWEST.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < lowest):
                raise UsageError(name, f"must be a whole number from {lowest} on, not {value!r}")

    def to_json(self) -> bytes:
        limits = {key: getattr(self, name) for name, key in LIMIT_KEYS.items()}
        content = {key: value for key, value in limits.items() if value is not None}
        if self.acl is not None:
            content["$acl"] = self.acl.to_json()
        try:
            return orjson.dumps({**content, **self.custom})
        except TypeError as error:
            raise UsageError("custom", f"cannot be made JSON: {error}") from error

    @classmethod
    def from_json(cls, data: bytes) -> StreamMetadata:
        """The metadata in `data`; empty data is empty metadata.

        Raises:
            ValueError: it is not JSON, or not a JSON object with values of these types.
        """
        content = orjson.loads(data) if data else {}
        if not isinstance(content, dict):
            raise ValueError("the metadata is not a JSON object")
        limits = {name: content.pop(key, None) for name, key in LIMIT_KEYS.items()}
        acl = content.pop("$acl", None)
        if acl is not None and not isinstance(acl, dict):
            raise ValueError("$acl is not a JSON object")
        return cls(**limits, acl=None if acl is None else Acl.from_json(acl), custom=content)


@dataclass(frozen=True)
class StreamMetadataResult:
    """What `Client.get_stream_metadata` found.

    Attributes:
        stream: the stream it was asked for.
        version: number of the metadata event, to be given as the expected version of the next
            change; -1 if there is none.
        raw: the event's data as it is, empty if there is none.
        is_stream_deleted: the stream is gone for good.
        updated: when it was set; None if there is none.
    """

    stream: str
    version: int
    raw: bytes
    is_stream_deleted: bool = False
    updated: datetime | None = None

    @property
    def metadata(self) -> StreamMetadata:
        """The data as StreamMetadata. Raises ValueError if it is not that."""
        return StreamMetadata.from_json(self.raw)
