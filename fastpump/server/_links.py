"""Link events, which stand for an event of another stream (protocol document, section 6.6)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fastpump.server._access import READ, Access, User

if TYPE_CHECKING:
    from fastpump.server._records import Entry
    from fastpump.server._visibility import Visibility
    from fastpump.server.store import Store

LINK_TYPE = "$>"

_LINK_DATA = re.compile(r"\s*([+-]?[0-9]{1,19})\s*@(.*)", re.DOTALL)


class Resolved(NamedTuple):
    """An event as it is delivered: itself, or a link and what it stands for (None: nothing)."""

    event: Entry | None
    link: Entry | None = None


class LinkDenied(Exception):
    """The reader may not read what a link stands for; the whole reply becomes AccessDenied."""


def link_target(data: bytes) -> tuple[int, str] | None:
    """(event number, stream) of a link's data `<number>@<stream>`, or None if it is not that."""
    match = _LINK_DATA.fullmatch(data.decode("utf-8", "replace"))
    if match is None or not match[2]:
        return None
    return int(match[1]), match[2]


class LinkResolver:
    """Finds what links stand for, one level deep."""

    def __init__(self, store: Store, visibility: Visibility, access: Access) -> None:
        self._store = store
        self._visibility = visibility
        self._access = access

    def resolve(self, entry: Entry, user: User | None) -> Resolved:
        """The entry as a reader gets it who asked for links to be resolved.

        Raises:
            LinkDenied: it is a link to a stream this user may not read.
        """
        if entry.event_type == LINK_TYPE:
            target = link_target(entry.data)
            if target is not None and not self._access.allows(user, target[1], READ):
                raise LinkDenied(target[1])
        return self.resolve_for_push(entry)

    def resolve_for_push(self, entry: Entry) -> Resolved:
        """The entry as a subscriber gets it: what links stand for is not protected there."""
        if entry.event_type != LINK_TYPE:
            return Resolved(entry)
        target = link_target(entry.data)
        if target is None:
            return Resolved(None, entry)
        number, name = target
        return Resolved(self._visibility.event(self._store.stream(name), number), entry)
