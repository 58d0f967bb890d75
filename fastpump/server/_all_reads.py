"""Pages of `$all`, forwards and backwards (protocol document, section 6.4).

The log stores events as they stand in such a page, so without links to resolve a page is a copy.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from fastpump._commands import Command
from fastpump.server._access import ALL, READ
from fastpump.server._asking import MAX_PAGE, TOO_MANY, Asker, Sources, repeated
from fastpump.server._links import LinkDenied
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server._records import Entry, entries_of, has_links, offset_from, offsets_of, span_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpump._framing import Frame

INVALID_POSITION = "Invalid position."

LogPosition = tuple[int, int]
"""(commit, prepare)."""

END: LogPosition = (-1, -1)


class AllResult(IntEnum):
    SUCCESS = 0
    NOT_MODIFIED = 1
    ERROR = 2
    ACCESS_DENIED = 3


class Page(NamedTuple):
    """The fields of a ReadAllEventsCompleted; the defaults are those of a refusal.

    On success the server leaves `result` and `error` out.
    """

    position: LogPosition
    items: Sequence[bytes] = ()
    next_position: LogPosition = END
    result: AllResult | None = None
    error: str | None = None


class AllRead:
    """One ReadAllEvents request.

    Raises:
        InvalidRequest: the request is not one.
    """

    def __init__(self, sources: Sources, asker: Asker, frame: Frame, offset: int) -> None:
        self._sources = sources
        self._asker = asker
        self._is_forward = frame.command == Command.ReadAllEventsForward
        self._correlation_id = frame.correlation_id
        commit, prepare, self._count, self._resolve, _ = decode_message(frame, offset, "qqibb")
        self._asked: LogPosition = (commit, prepare)

    def reply(self) -> bytes:
        """The whole reply frame."""
        page = self._page()
        command = (
            Command.ReadAllEventsForwardCompleted
            if self._is_forward
            else Command.ReadAllEventsBackwardCompleted
        )
        head = encode_fields(*page.position)
        tail = encode_fields(None, None, None, *page.next_position, page.result, page.error)
        return encode_reply(command, self._correlation_id, head, *page.items, tail)

    def _page(self) -> Page:
        asked = self._asked
        if self._count > MAX_PAGE:
            return Page(asked, result=AllResult.ERROR, error=TOO_MANY)
        end = self._sources.store.end
        if asked == END:
            asked = (end, end)
        if min(asked) < 0:
            return Page(asked, result=AllResult.ERROR, error=INVALID_POSITION)
        if not self._sources.access.allows(self._asker.user, ALL, READ):
            return Page(asked, result=AllResult.ACCESS_DENIED)
        if self._count <= 0:
            return Page(asked, (), asked)
        if not self._is_forward and asked[0] > end:
            error = f"Requested position {asked[0]} is greater than the end of the log, {end}."
            return Page(asked, result=AllResult.ERROR, error=error)
        try:
            return self._forward(asked) if self._is_forward else self._backward(asked)
        except LinkDenied:
            return Page(asked, result=AllResult.ACCESS_DENIED)

    def _forward(self, asked: LogPosition) -> Page:
        commit, prepare = asked
        lowest = commit + 1 if prepare > commit else commit
        items: list[bytes] = []
        left = self._count
        next_position = asked
        for start, records in self._sources.store.segments_from(lowest):
            offset = offset_from(records, lowest - start) if start < lowest else 0
            end, count = span_of(records, offset, left)
            if count:
                items += self._copies(records, offset, end, count)
                next_position = (start + end, 0)
                left -= count
            if not left:
                break
        return Page(asked, items, next_position)

    def _backward(self, asked: LogPosition) -> Page:
        commit, prepare = asked
        # An event is before the position if its end, as (end, end), is not behind it.
        highest = commit - 1 if prepare < commit else commit
        items: list[bytes] = []
        left = self._count
        next_position = asked
        for start, records in self._sources.store.segments_before(highest):
            offsets = offsets_of(records, highest - start)[-left:]
            if offsets:
                items += self._reversed_copies(records, offsets)
                next_position = (start + offsets[0], start + offsets[0])
                left -= len(offsets)
            if not left:
                break
        return Page(asked, items, next_position)

    def _copies(self, records: bytes, offset: int, end: int, count: int) -> list[bytes]:
        if self._is_plain(records, offset, end):
            return [records[offset:end]]
        return [self._item(entry) for entry in entries_of(records, offset, count)]

    def _reversed_copies(self, records: bytes, offsets: list[int]) -> list[bytes]:
        end, _ = span_of(records, offsets[-1], 1)
        if self._is_plain(records, offsets[0], end):
            ends = [*offsets[1:], end]
            return [records[a:b] for a, b in zip(reversed(offsets), reversed(ends), strict=True)]
        entries = entries_of(records, offsets[0], len(offsets))
        return [self._item(entry) for entry in reversed(entries)]

    def _is_plain(self, records: bytes, offset: int, end: int) -> bool:
        """Whether the stored bytes are what this reader is to get."""
        if self._asker.is_narrow:
            return False
        return not (self._resolve and has_links(records, offset, end))

    def _item(self, entry: Entry) -> bytes:
        records = self._sources.deliver(entry, self._asker, self._resolve)
        positions = (entry.commit_position, entry.prepare_position)
        return repeated(encode_fields(*records, *positions), 3)


def read_all(sources: Sources, asker: Asker, frame: Frame, offset: int) -> bytes:
    """The reply to a ReadAllEvents, forward or backward, whose payload begins at `offset`.

    Raises:
        InvalidRequest: the request is not one.
    """
    return AllRead(sources, asker, frame, offset).reply()
