"""Filtered pages of `$all`, as servers from version 20 on give them (section 6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastpump._commands import Command
from fastpump.server._all_reads import (
    END,
    LogPosition,
    Refused,
    end_behind,
    position_before,
    position_behind,
    start_of_read,
)
from fastpump.server._asking import Asker, PageItems, Sources, repeated
from fastpump.server._filters import decode_filter
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server._records import entries_of, has_links, offset_from, offsets_before, span_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpump._framing import Frame


MAX_WINDOW = 50_000
"""Events that one request looks at, however many it asks for: the node does nothing else meanwhile.
The reply says where to go on."""


class Page(NamedTuple):
    items: Sequence[bytes]
    next_position: LogPosition
    is_end: bool


class FilteredRead:
    """One FilteredReadAllEvents request.

    Links are filtered by themselves, not by what they stand for, and as in those versions nobody
    asks whether their targets may be read.

    Raises:
        InvalidRequest: the request is not one.
    """

    def __init__(self, sources: Sources, asker: Asker, frame: Frame, offset: int) -> None:
        self._sources = sources
        self._asker = asker
        self._is_forward = frame.command == Command.FilteredReadAllEventsForward
        self._correlation_id = frame.correlation_id
        commit, prepare, self._count, window, self._resolve, _, wanted = decode_message(
            frame, offset, "qqiibby"
        )
        self._asked: LogPosition = (commit, prepare)
        self._window = min(window if window > 0 else self._count, MAX_WINDOW)
        self._filter = decode_filter(wanted)

    def reply(self) -> bytes:
        """The whole reply frame; a refusal comes as an unfiltered read's."""
        try:
            asked = start_of_read(
                self._sources, self._asker, self._asked, self._count, is_forward=self._is_forward
            )
        except Refused as refused:
            payload = encode_fields(*refused.position, None, *END, refused.result, refused.error)
            return encode_reply(self._command(filtered=False), self._correlation_id, payload)
        if self._count <= 0:
            page = Page((), asked, is_end=False)
        else:
            page = self._forward(asked) if self._is_forward else self._backward(asked)
        head = encode_fields(*asked)
        tail = encode_fields(None, None, None, *page.next_position, page.is_end)
        return encode_reply(
            self._command(filtered=True), self._correlation_id, head, *page.items, tail
        )

    def _command(self, *, filtered: bool) -> Command:
        if self._is_forward:
            return (
                Command.FilteredReadAllEventsForwardCompleted
                if filtered
                else Command.ReadAllEventsForwardCompleted
            )
        return (
            Command.FilteredReadAllEventsBackwardCompleted
            if filtered
            else Command.ReadAllEventsBackwardCompleted
        )

    def _forward(self, asked: LogPosition) -> Page:
        items = PageItems()
        next_position = asked
        window = self._window
        for start, records in self._sources.store.segments_from(asked[0]):
            offset = offset_from(records, *asked) if start <= asked[0] else 0
            considered = self._filter.consider(records, offset, window)
            taken = self._take(records, considered, items)
            if taken:
                end, _ = span_of(records, offset, taken)
                next_position = position_behind(start, records, offset, end, taken)
                window -= taken
            if not window or len(items) == self._count:
                return Page(items, next_position, is_end=False)
        is_new = next_position != asked
        return Page(items, next_position if is_new else end_behind(self._sources, asked), True)

    def _backward(self, asked: LogPosition) -> Page:
        items = PageItems()
        next_position = asked
        window = self._window
        for start, records in self._sources.store.segments_before(asked[0]):
            offsets = offsets_before(records, start, *asked)
            found = self._filter.consider(records, 0, len(offsets))[-window:][::-1]
            taken = self._take(records, found, items)
            if taken:
                next_position = position_before(start, records, found[taken - 1][0])
                window -= taken
            if not window or len(items) == self._count:
                return Page(items, next_position, is_end=False)
        return Page(items, next_position, is_end=True)

    def _take(
        self, records: bytes, considered: Sequence[tuple[int, bool]], items: PageItems
    ) -> int:
        """Add what is wanted of these entries until the page is full; how many were looked at."""
        for index, (offset, is_wanted) in enumerate(considered):
            if is_wanted:
                items.take((self._item(records, offset),))
                if len(items) == self._count:
                    return index + 1
        return len(considered)

    def _item(self, records: bytes, offset: int) -> bytes:
        end, _ = span_of(records, offset, 1)
        if not self._asker.is_narrow and not (self._resolve and has_links(records, offset, end)):
            return records[offset:end]
        (entry,) = entries_of(records, offset, 1)
        return repeated(self._sources.deliver_unchecked(entry, self._asker, self._resolve), 3)


def read_filtered(sources: Sources, asker: Asker, frame: Frame, offset: int) -> bytes:
    """The reply to a FilteredReadAllEvents, forward or backward, whose payload is at `offset`.

    Raises:
        InvalidRequest: the request is not one.
    """
    return FilteredRead(sources, asker, frame, offset).reply()
