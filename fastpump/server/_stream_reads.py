"""Pages of a stream, forwards and backwards (protocol document, sections 6.2 and 6.3).

A page that is read forwards, with no link to resolve and no age limit, is a copy of stored bytes.
All others go through `Entry` objects, event by event.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from fastpump._commands import Command
from fastpump.server._access import READ
from fastpump.server._asking import (
    MAX_INT32,
    MAX_PAGE,
    TOO_MANY,
    Asker,
    PageItems,
    Sources,
    repeated,
    require_name,
)
from fastpump.server._links import LinkDenied
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server._records import Entry, entries_of, has_links, span_of, stream_items
from fastpump.server._streams import DELETED_NUMBER, Stream
from fastpump.server.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastpump._framing import Frame

NOT_POSITIVE = "maxCount should be positive.\nParameter name: maxCount"
NEGATIVE_START = "fromEventNumber should be non negative.\nParameter name: fromEventNumber"

MAX_INT64 = 2**63 - 1


class StreamResult(IntEnum):
    SUCCESS = 0
    NO_STREAM = 1
    STREAM_DELETED = 2
    NOT_MODIFIED = 3
    ERROR = 4
    ACCESS_DENIED = 5


class Page(NamedTuple):
    """The fields of a ReadStreamEventsCompleted; the defaults are those of a refusal."""

    result: StreamResult
    items: Sequence[bytes] = ()
    next_number: int = -1
    last_number: int = -1
    is_end: bool = True
    error: str = ""


class StreamRead:
    """One ReadStreamEvents request.

    Raises:
        InvalidRequest: the request is not one.
    """

    def __init__(self, sources: Sources, asker: Asker, frame: Frame, offset: int) -> None:
        self._sources = sources
        self._asker = asker
        self._is_forward = frame.command == Command.ReadStreamEventsForward
        self._correlation_id = frame.correlation_id
        self._name, self._start, self._count, self._resolve, _ = decode_message(
            frame, offset, "sqibb"
        )
        require_name(self._name)
        if self._start < -1:
            raise InvalidRequest(f"from event number {self._start}")

    def reply(self) -> bytes:
        """The whole reply frame."""
        try:
            page = self._page()
        except LinkDenied:
            page = Page(StreamResult.ACCESS_DENIED)
        last = min(page.last_number, MAX_INT32) if self._asker.is_narrow else page.last_number
        tail = encode_fields(
            None,
            page.result,
            page.next_number,
            last,
            page.is_end,
            self._sources.store.last_position,
            page.error,
        )
        command = (
            Command.ReadStreamEventsForwardCompleted
            if self._is_forward
            else Command.ReadStreamEventsBackwardCompleted
        )
        return encode_reply(command, self._correlation_id, *page.items, tail)

    def _page(self) -> Page:
        if self._count > MAX_PAGE:
            return Page(StreamResult.ERROR, error=TOO_MANY)
        if not self._sources.access.allows(self._asker.user, self._name, READ):
            return Page(StreamResult.ACCESS_DENIED)
        if self._count <= 0:
            return Page(StreamResult.ERROR, error=NOT_POSITIVE)
        if self._is_forward and self._start < 0:
            return Page(StreamResult.ERROR, error=NEGATIVE_START)
        stream = self._sources.store.stream(self._name)
        visibility = self._sources.visibility
        if visibility.is_deleted(stream):
            return Page(StreamResult.STREAM_DELETED, last_number=DELETED_NUMBER)
        if visibility.is_missing(stream):
            return Page(StreamResult.NO_STREAM, last_number=stream.committed)
        return self._forward(stream) if self._is_forward else self._backward(stream)

    def _forward(self, stream: Stream) -> Page:
        last = stream.committed
        metadata = self._sources.visibility.metadata_of(stream)
        lowest = metadata.first_visible(last)
        # Saturates as version 5 does; version 4 overflows.
        end = min(self._start + self._count - 1, MAX_INT64)
        if end < lowest:
            return Page(StreamResult.SUCCESS, (), lowest, last, is_end=False)
        first, end_here = max(self._start, lowest), min(end, last)
        oldest = self._sources.visibility.oldest_ticks(metadata)
        if oldest is None and not self._asker.is_narrow:
            items = self._copies(stream, first, end_here)
            next_number = end_here + 1 if items else min(end + 1, last + 1)
        else:
            items, numbers = self._made(stream, first, end_here, oldest)
            next_number = numbers[-1] + 1 if numbers else min(end + 1, last + 1)
        return Page(StreamResult.SUCCESS, items, next_number, last, is_end=end >= last)

    def _backward(self, stream: Stream) -> Page:
        last = stream.committed
        metadata = self._sources.visibility.metadata_of(stream)
        lowest = metadata.first_visible(last)
        end = last if self._start < 0 else self._start
        first = max(0, end - self._count + 1)
        if end < lowest:
            return Page(StreamResult.SUCCESS, (), -1, last)
        oldest = self._sources.visibility.oldest_ticks(metadata)
        items, numbers = self._made(stream, max(first, lowest), min(end, last), oldest)
        items.reverse()
        reached_first = bool(numbers) and numbers[0] == first
        is_end = first <= lowest or first == 0 or (first <= last and not reached_first)
        next_number = -1 if is_end else min(first - 1, last)
        return Page(StreamResult.SUCCESS, items, next_number, last, is_end)

    def _made(
        self, stream: Stream, first: int, last: int, oldest: int | None
    ) -> tuple[PageItems, list[int]]:
        """The elements of a page, each made for this reader, and their numbers."""
        items, numbers = PageItems(), []
        for entry in self._entries(stream, first, last, oldest):
            items.take((self._item(entry),))
            numbers.append(entry.number)
        return items, numbers

    def _copies(self, stream: Stream, first: int, last: int) -> PageItems:
        """The elements of a page as copies of what is stored."""
        items = PageItems()
        store = self._sources.store
        for number, position, count in store.places(stream, first, last):
            start, records = store.segment(position)
            offset = position - start
            skipped = max(0, first - number)
            wanted = min(number + count - 1, last) - number - skipped + 1
            offset, _ = span_of(records, offset, skipped)
            end, _ = span_of(records, offset, wanted)
            if self._resolve and has_links(records, offset, end):
                items.take([self._item(e) for e in entries_of(records, offset, wanted)])
            else:
                items.take((stream_items(records[offset:end], 0, wanted),))
        return items

    def _entries(
        self, stream: Stream, first: int, last: int, oldest: int | None
    ) -> Iterator[Entry]:
        """The visible events with numbers first … last, in order."""
        store = self._sources.store
        for number, position, count in store.places(stream, first, last):
            start, records = store.segment(position)
            wanted = min(count, last - number + 1)
            for entry in entries_of(records, position - start, wanted):
                if entry.number >= first and (oldest is None or entry.ticks >= oldest):
                    yield entry

    def _item(self, entry: Entry) -> bytes:
        records = self._sources.deliver(entry, self._asker, self._resolve)
        return repeated(encode_fields(*records), 1)


def read_stream(sources: Sources, asker: Asker, frame: Frame, offset: int) -> bytes:
    """The reply to a ReadStreamEvents, forward or backward, whose payload begins at `offset`.

    Raises:
        InvalidRequest: the request is not one.
    """
    return StreamRead(sources, asker, frame, offset).reply()
