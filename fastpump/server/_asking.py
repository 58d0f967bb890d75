"""What all reads have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastpump.server._access import Access, User
from fastpump.server._links import LinkResolver, Resolved
from fastpump.server._messages import encode_fields
from fastpump.server._visibility import Visibility
from fastpump.server.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpump.server._metadata import MetadataReader
    from fastpump.server._records import Entry
    from fastpump.server.store import Store

MAX_PAGE = 4096
MAX_INT32 = 2**31 - 1
MAX_REPLY = 64 * 1024 * 1024
"""Bytes of a reply's events: no package may be larger (section 1.1)."""
TOO_MANY = f"Read size too big, should be less than {MAX_PAGE} items"


class Asker(NamedTuple):
    """Who reads, and how they want it.

    Attributes:
        user: None for anonymous.
        is_narrow: a client of protocol version 0 gets 32-bit event numbers (section 4.2).
    """

    user: User | None
    is_narrow: bool


class PageItems(list[bytes]):
    """The elements of a page, which have to fit into one package."""

    def __init__(self) -> None:
        super().__init__()
        self._room = MAX_REPLY

    def take(self, items: Sequence[bytes]) -> None:
        """Add some, as they are sent.

        Raises:
            InvalidRequest: they are too much for one reply.
        """
        self._room -= sum(map(len, items))
        if self._room < 0:
            raise InvalidRequest(f"more than {MAX_REPLY} bytes of events; ask for fewer")
        self.extend(items)


class Sources:
    """Where reads get everything from."""

    def __init__(self, store: Store, metadata: MetadataReader, access: Access) -> None:
        self.store = store
        self.access = access
        self.visibility = Visibility(store, metadata)
        self.links = LinkResolver(store, self.visibility, access)

    def deliver(self, entry: Entry, asker: Asker, resolve: bool) -> list[bytes | None]:
        """The encoded records `event` and `link` of an entry as this reader gets it.

        Raises:
            LinkDenied: the whole reply is to be AccessDenied.
        """
        found = self.links.resolve(entry, asker.user) if resolve else Resolved(entry)
        return [encode_record(part, asker.is_narrow) for part in found]

    def deliver_unchecked(self, entry: Entry, asker: Asker, resolve: bool) -> bytes:
        """The entry as an encoded ResolvedEvent, whoever may read what a link stands for."""
        found = self.links.resolve_for_push(entry) if resolve else Resolved(entry)
        records = [encode_record(part, asker.is_narrow) for part in found]
        return encode_fields(*records, entry.commit_position, entry.prepare_position)


def encode_record(entry: Entry | None, is_narrow: bool) -> bytes | None:
    """The EventRecord of an entry as this reader gets it; None gives None."""
    if entry is None:
        return None
    if not is_narrow or entry.number <= MAX_INT32:
        return entry.record
    rest = len(encode_fields(entry.stream, entry.number))
    return encode_fields(entry.stream, MAX_INT32) + entry.record[rest:]


def require_name(stream: str | None) -> None:
    if not stream:
        raise InvalidRequest("no stream name")


def repeated(payload: bytes, number: int) -> bytes:
    """The payload as one element of the repeated field `number`."""
    return encode_fields(*[None] * (number - 1), payload)
