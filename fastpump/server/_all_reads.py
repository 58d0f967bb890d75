"""Pages of `$all`, forwards and backwards (protocol document, section 6.4).

The log stores events as they stand in such a page, so without links to resolve a page is a copy.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from fastpump._commands import Command
from fastpump.server._access import ALL, READ
from fastpump.server._asking import MAX_PAGE, TOO_MANY, Asker, PageItems, Sources, repeated
from fastpump.server._links import LinkDenied
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server._records import (
    Entry,
    entries_of,
    has_links,
    offset_from,
    offsets_before,
    positions_of,
    span_of,
)

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


class Refused(Exception):
    """The reply has no events but a result, and where it was to be read from."""

    def __init__(self, position: LogPosition, result: AllResult, error: str | None = None) -> None:
        super().__init__(position, result, error)
        self.position = position
        self.result = result
        self.error = error


def start_of_read(
    sources: Sources, asker: Asker, asked: LogPosition, count: int, *, is_forward: bool
) -> LogPosition:
    """The position to read from: the one asked for, or what it stands for.

    Raises:
        Refused: this may not be read.
    """
    if count > MAX_PAGE:
        raise Refused(asked, AllResult.ERROR, TOO_MANY)
    end = sources.store.end
    if asked == END:
        asked = (end, end)
    if min(asked) < 0:
        raise Refused(asked, AllResult.ERROR, INVALID_POSITION)
    if not sources.access.allows(asker.user, ALL, READ):
        raise Refused(asked, AllResult.ACCESS_DENIED)
    if not is_forward and asked[0] > end and count > 0:
        error = f"Requested position {asked[0]} is greater than the end of the log, {end}."
        raise Refused(asked, AllResult.ERROR, error)
    return asked


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
        try:
            asked = start_of_read(
                self._sources, self._asker, self._asked, self._count, is_forward=self._is_forward
            )
        except Refused as refused:
            return Page(refused.position, result=refused.result, error=refused.error)
        if self._count <= 0:
            return Page(asked, (), asked)
        try:
            return self._forward(asked) if self._is_forward else self._backward(asked)
        except LinkDenied:
            return Page(asked, result=AllResult.ACCESS_DENIED)

    def _forward(self, asked: LogPosition) -> Page:
        items = PageItems()
        left = self._count
        next_position = asked
        for start, records in self._sources.store.segments_from(asked[0]):
            offset = offset_from(records, *asked) if start <= asked[0] else 0
            end, count = span_of(records, offset, left)
            if count:
                items.take(self._copies(records, offset, end, count))
                next_position = position_behind(start, records, offset, end, count)
                left -= count
            if not left:
                break
        return Page(asked, items, next_position if items else end_behind(self._sources, asked))

    def _backward(self, asked: LogPosition) -> Page:
        items = PageItems()
        left = self._count
        next_position = asked
        for start, records in self._sources.store.segments_before(asked[0]):
            offsets = offsets_before(records, start, *asked)[-left:]
            if offsets:
                items.take(self._reversed_copies(records, offsets))
                next_position = position_before(start, records, offsets[0])
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


def position_behind(start: int, records: bytes, offset: int, end: int, count: int) -> LogPosition:
    """Where a forward read goes on behind `count` entries between two offsets of a segment."""
    commit, prepare = positions_of(records, offset)
    if commit == prepare:
        return start + end, 0
    last_offset, _ = span_of(records, offset, count - 1)
    return commit, positions_of(records, last_offset)[1] + 1


def end_behind(sources: Sources, asked: LogPosition) -> LogPosition:
    """Where a forward read goes on that found nothing: here, but never before the log's end.

    That is where it would be between a transaction's last event and the end of its commit; whoever
    waits for the position of a subscription's confirmation would wait for ever.
    """
    return max(asked, (sources.store.last_position + 1, 0))


def position_before(start: int, records: bytes, offset: int) -> LogPosition:
    """Where a backward read goes on before the entry at this offset."""
    commit, prepare = positions_of(records, offset)
    return (start + offset,) * 2 if commit == prepare else (commit + 1, prepare)


def read_all(sources: Sources, asker: Asker, frame: Frame, offset: int) -> bytes:
    """The reply to a ReadAllEvents, forward or backward, whose payload begins at `offset`.

    Raises:
        InvalidRequest: the request is not one.
    """
    return AllRead(sources, asker, frame, offset).reply()
