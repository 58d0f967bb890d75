"""Who may do what (protocol document, sections 6.9 and 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastpump.server._streams import is_metastream, is_system, original_of

if TYPE_CHECKING:
    from fastpump.server._metadata import MetadataReader
    from fastpump.server.store import Store

READ = "$r"
WRITE = "$w"
DELETE = "$d"
META_READ = "$mr"
META_WRITE = "$mw"

ALL = "$all"
"""The name of the whole log, and the role that everybody has."""
ADMINS = "$admins"
OPS = "$ops"

_METASTREAM_RIGHTS = {READ: META_READ, WRITE: META_WRITE}
_ADMINS_ONLY = frozenset((ADMINS,))


@dataclass(frozen=True)
class User:
    """Somebody who gave the right password. Their roles are their groups and their own name."""

    login: str
    groups: frozenset[str]

    def has_any(self, roles: frozenset[str]) -> bool:
        return self.login in roles or not roles.isdisjoint(self.groups)

    @property
    def is_admin(self) -> bool:
        return ADMINS in self.groups


class Access:
    """Decides by the stream's `$acl`, else by `$settings`, else by the built-in defaults."""

    def __init__(self, store: Store, metadata: MetadataReader) -> None:
        self._store = store
        self._metadata = metadata

    def allows(self, user: User | None, stream: str, right: str) -> bool:
        """Whether the user (None: anonymous) has this right on the stream, or on "$all"."""
        if stream.startswith("$"):
            if is_metastream(stream):
                right = _METASTREAM_RIGHTS.get(right, "")
                stream = original_of(stream)
                if not right or is_metastream(stream):
                    return False
            elif stream == ALL and right in (WRITE, DELETE):
                return False
        roles = self._roles(stream, right)
        if roles is None or ALL in roles:
            return True
        return user is not None and (user.is_admin or user.has_any(roles))

    def _roles(self, stream: str, right: str) -> frozenset[str] | None:
        """The roles that have the right; None means everybody."""
        roles = self._metadata.of(self._store.stream(stream)).acl.get(right)
        if roles is not None:
            return roles
        settings = self._metadata.settings()
        if is_system(stream):
            return settings.system_streams.get(right, _ADMINS_ONLY)
        return settings.user_streams.get(right)
