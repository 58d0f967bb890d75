"""The operations that read: one event, one page, and everything page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from fastpump._arguments import check_count, check_number, first_event_number, first_position
from fastpump._operations import (
    ReadAllBackward,
    ReadAllForward,
    ReadEvent,
    ReadStreamBackward,
    ReadStreamForward,
)
from fastpump._read_ahead import AllPages, ReadAhead, Slot, StreamBackward, StreamForward
from fastpump._requesting import Requesting
from fastpump._requests import encode_read_all, encode_read_event, encode_read_stream
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
        wire_id = self._new_id(correlation_id)
        frame = encode_read_stream(
            wire_id,
            direction != Forward,
            stream,
            start,
            max_count,
            resolve_links,
            self._leader_only(require_master),
        )
        kind = ReadStreamForward if direction == Forward else ReadStreamBackward
        page: StreamSlice = await self._perform(kind, wire_id, frame, stream, start)
        return page

    async def get_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        max_count: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> AllStreamSlice:
        """Read one page of the log of all events. By default only administrators may.

        Args:
            direction: Forward (old to new) or Backward.
            from_position: where to start: `Beginning`, `End`, or a Position; by default the
                beginning, or the end when reading backward. Forward includes the event at the
                position, backward does not.
            max_count: the most events wanted, 1 to 4096.
            resolve_links, require_master, correlation_id: as in `get_event`.

        Returns:
            The events, a sequence; its `next_position` tells how to go on.

        Raises:
            ReadError
        """
        commit, prepare = first_position(direction, from_position)
        check_count("max_count", max_count)
        wire_id = self._new_id(correlation_id)
        frame = encode_read_all(
            wire_id,
            direction != Forward,
            commit,
            prepare,
            max_count,
            resolve_links,
            self._leader_only(require_master),
        )
        kind = ReadAllForward if direction == Forward else ReadAllBackward
        page: AllStreamSlice = await self._perform(kind, wire_id, frame, "$all")
        return page

    async def iter(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of a stream, one by one, up to its end.

        Pages of `batch_size` are asked for ahead of the consumer. See `iter_slices` for whole
        pages, which cost less, and `get` for the arguments.

        >>> async for event in client.iter("account-7", batch_size=500):
        ...     print(event.event_number, event.type, event.json())
        """
        pages = self.iter_slices(
            stream,
            direction,
            from_event,
            batch_size,
            resolve_links,
            require_master,
            correlation_id,
        )
        async with aclosing(pages):
            async for page in pages:
                for event in page:
                    yield event

    def iter_slices(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[StreamSlice, None]:
        """The pages of a stream up to its end, for work on many events at a time.

        Arguments and errors are those of `get`; `batch_size` is the most events in one page, 1 to
        4096. `correlation_id` is that of the first page's request. Leaving the loop early ends it.
        """
        return self._read_ahead(
            stream,
            direction,
            from_event,
            batch_size,
            resolve_links,
            require_master,
            correlation_id,
        ).pages()

    def _read_ahead(
        self,
        stream: str,
        direction: StreamDirection,
        from_event: int | None,
        batch_size: int,
        resolve_links: bool,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> ReadAhead[StreamSlice]:
        dispatcher = self._dispatcher or self._not_connected()
        start = first_event_number(direction, from_event)
        check_count("batch_size", batch_size)
        forward = direction == Forward
        kind = ReadStreamForward if forward else ReadStreamBackward
        course = (StreamForward if forward else StreamBackward)(start, batch_size)
        leader_only = self._leader_only(require_master)
        first_id = correlation_id

        def ask(number: int, slot: Slot) -> None:
            nonlocal first_id
            wire_id = self._new_id(first_id)
            first_id = None
            frame = encode_read_stream(
                wire_id, not forward, stream, number, batch_size, resolve_links, leader_only
            )
            dispatcher.start(kind(wire_id, frame, slot, self._timeout, stream, number))

        return ReadAhead(course, ask, lambda: dispatcher.is_full)

    async def iter_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of the log of all events, one by one, up to its end.

        See `iter_all_slices` for whole pages, and `get_all` for the arguments.
        """
        pages = self.iter_all_slices(
            direction, from_position, batch_size, resolve_links, require_master, correlation_id
        )
        async with aclosing(pages):
            async for page in pages:
                for event in page:
                    yield event

    def iter_all_slices(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[AllStreamSlice, None]:
        """The pages of the log of all events up to its end.

        Arguments and errors are those of `get_all`; `batch_size` is the most events in one page.
        The next page is asked for when one arrives, while the consumer works.
        """
        return self._read_all_ahead(
            direction, from_position, batch_size, resolve_links, require_master, correlation_id
        ).pages()

    def _read_all_ahead(
        self,
        direction: StreamDirection,
        from_position: Position | PositionSentinel | None,
        batch_size: int,
        resolve_links: bool,
        require_master: bool | None = None,
        correlation_id: UUID | None = None,
    ) -> ReadAhead[AllStreamSlice]:
        dispatcher = self._dispatcher or self._not_connected()
        start = first_position(direction, from_position)
        check_count("batch_size", batch_size)
        forward = direction == Forward
        kind = ReadAllForward if forward else ReadAllBackward
        leader_only = self._leader_only(require_master)
        first_id = correlation_id

        def ask(position: tuple[int, int], slot: Slot) -> None:
            nonlocal first_id
            wire_id = self._new_id(first_id)
            first_id = None
            commit, prepare = position
            frame = encode_read_all(
                wire_id, not forward, commit, prepare, batch_size, resolve_links, leader_only
            )
            dispatcher.start(kind(wire_id, frame, slot, self._timeout, "$all"))

        course = AllPages(start, forward)
        return ReadAhead(course, ask, lambda: dispatcher.is_full)
