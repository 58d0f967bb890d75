"""The operations that read: one event, one page, and everything page by page."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any
from uuid import UUID

from fastpump._arguments import (
    check_count,
    check_number,
    first_event_number,
    first_position,
    search_window,
)
from fastpump._event_feed import EventFeed
from fastpump._operations import ReadEvent
from fastpump._outlet import perform
from fastpump._read_ahead import ReadAhead, Slot
from fastpump._reads import FilteredRead, LogRead, Read, StreamRead
from fastpump._requesting import Requesting
from fastpump._requests import encode_read_event
from fastpump.filters import Filter
from fastpump.messages import (
    AllStreamSlice,
    Event,
    Position,
    PositionSentinel,
    StreamDirection,
    StreamSlice,
)

Forward = StreamDirection.Forward


class Reading(Requesting):
    """Read streams and the log of all events, in both directions."""

    async def get_event(
        self,
        stream: str,
        event_number: int,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> Event | None:
        """Read one event.

        Args:
            stream: the stream.
            event_number: its number in the stream, from 0; -1 for the last one.
            resolve_links: if it is a link, read what it points to as well.
            require_master: only the leader of a cluster may answer; None for what `connect` says.
            correlation_id: of the request; a new one by default.

        Returns:
            The event, or None if the stream exists and has no such event.

        Raises:
            StreamNotFound, StreamDeleted, ReadError
        """
        check_number("event_number", event_number, -1)
        wire_id = self._new_id(correlation_id)
        frame = encode_read_event(
            wire_id, stream, event_number, resolve_links, self._leader_only(require_master)
        )
        event: Event | None = await self._perform(ReadEvent, wire_id, frame, stream)
        return event

    async def get(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        max_count: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> StreamSlice:
        """Read one page of a stream.

        Args:
            stream: the stream.
            direction: Forward (old to new) or Backward.
            from_event: number of the first event wanted; by default the start of the stream, or
                its end when reading backward. -1 is the end.
            max_count: the most events wanted, 1 to 4096.
            resolve_links, require_master, correlation_id: as in `get_event`.

        Returns:
            The events, a sequence; `next_event_number` and `is_end_of_stream` tell how to go on.

        Raises:
            StreamNotFound, StreamDeleted, ReadError
        """
        start = first_event_number(direction, from_event)
        check_count("max_count", max_count)
        read = StreamRead(
            direction, max_count, resolve_links, self._leader_only(require_master), stream
        )
        page: StreamSlice = await self._page(read, start, correlation_id)
        return page

    async def get_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        max_count: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
        *,
        filter: Filter | None = None,
        max_search_window: int | None = None,
    ) -> AllStreamSlice:
        """Read one page of the log of all events. By default only administrators may.

        Args:
            direction: Forward (old to new) or Backward.
            from_position: where to start: `Beginning`, `End`, or a Position; by default the
                beginning, or the end when reading backward. Forward includes the event at the
                position, backward does not.
            max_count: the most events wanted, 1 to 4096.
            resolve_links, require_master, correlation_id: as in `get_event`.
            filter: only events that it fits. Needs a server of version 20 or later.
            max_search_window: the most events the server looks at for a page, whether or not they
                fit; from `max_count`, which is the default, to 2**31 - 1. The fewer events fit,
                the more a larger one saves.

        Returns:
            The events, a sequence; its `next_position` tells how to go on and `is_end_of_stream`
            whether there is anything to go on to. With a filter an empty page is nothing special.

        Raises:
            ReadError
            BadRequest: the server does not know filters, or the filter's pattern is none.
        """
        start = first_position(direction, from_position)
        check_count("max_count", max_count)
        read = self._log_read(
            direction, max_count, resolve_links, require_master, filter, max_search_window
        )
        page: AllStreamSlice = await self._page(read, start, correlation_id)
        return page

    def iter(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> EventFeed:
        """The events of a stream, one by one, up to its end.

        Pages of `batch_size` are asked for ahead of the consumer. See `iter_slices` for whole
        pages, which cost less, and `get` for the arguments.

        >>> async for event in client.iter("account-7", batch_size=500):
        ...     print(event.event_number, event.type, event.json())
        """
        start = first_event_number(direction, from_event)
        check_count("batch_size", batch_size)
        read = StreamRead(
            direction, batch_size, resolve_links, self._leader_only(require_master), stream
        )
        pages = self._ahead(read, start, correlation_id)
        return EventFeed(pages, pages.stop)

    def iter_slices(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> ReadAhead[StreamSlice]:
        """The pages of a stream up to its end, for work on many events at a time.

        Arguments and errors are those of `get`; `batch_size` is the most events in one page, 1 to
        4096. `correlation_id` is that of the first page's request. Leaving the loop early ends it.
        """
        start = first_event_number(direction, from_event)
        check_count("batch_size", batch_size)
        read = StreamRead(
            direction, batch_size, resolve_links, self._leader_only(require_master), stream
        )
        return self._ahead(read, start, correlation_id)

    def iter_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
        *,
        filter: Filter | None = None,
        max_search_window: int | None = None,
    ) -> EventFeed:
        """The events of the log of all events, one by one, up to its end.

        See `iter_all_slices` for whole pages, and `get_all` for the arguments.
        """
        start = first_position(direction, from_position)
        check_count("batch_size", batch_size)
        read = self._log_read(
            direction, batch_size, resolve_links, require_master, filter, max_search_window
        )
        pages = self._ahead(read, start, correlation_id)
        return EventFeed(pages, pages.stop)

    def iter_all_slices(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
        *,
        filter: Filter | None = None,
        max_search_window: int | None = None,
    ) -> ReadAhead[AllStreamSlice]:
        """The pages of the log of all events up to its end.

        Arguments and errors are those of `get_all`; `batch_size` is the most events in one page.
        The next page is asked for when one arrives, while the consumer works. With a filter empty
        pages are given out too: the `next_position` of the last one is where to resume.
        """
        start = first_position(direction, from_position)
        check_count("batch_size", batch_size)
        read = self._log_read(
            direction, batch_size, resolve_links, require_master, filter, max_search_window
        )
        return self._ahead(read, start, correlation_id)

    def _page(self, read: Read, start: Any, correlation_id: UUID | None) -> Awaitable[Any]:
        """The page of a read that starts there."""
        outlet = self._outlet or self._not_connected()
        wire_id = self._new_id(correlation_id)
        operation = read.page(start, wire_id, self._futures.new(), self._timeout)
        return perform(outlet, operation)

    def _ahead(self, read: Read, start: Any, correlation_id: UUID | None = None) -> ReadAhead[Any]:
        """The pages of a read from there on; the id is that of the first one's request."""
        outlet = self._outlet or self._not_connected()
        first_id = correlation_id

        def ask(start: Any, slot: Slot) -> None:
            nonlocal first_id
            wire_id = self._new_id(first_id)
            first_id = None
            outlet.start(read.page(start, wire_id, slot, self._timeout))

        return ReadAhead(read.course(start), ask, outlet.is_full)

    def _log_read(
        self,
        direction: StreamDirection,
        count: int,
        resolve_links: bool,
        require_master: bool | None,
        filter: Filter | None,
        max_search_window: int | None,
    ) -> Read:
        leader_only = self._leader_only(require_master)
        window = search_window(filter, max_search_window, count)
        if filter is None:
            return LogRead(direction, count, resolve_links, leader_only)
        return FilteredRead(direction, count, resolve_links, leader_only, filter, window)
