"""What is read: an object per read makes the request for any of its pages and knows where they lie.

It is shared by all that reads: one page, pages ahead of a consumer, the history of a subscription.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastpump import _cold
from fastpump._commands import Command
from fastpump._framing import encode_frame
from fastpump._operation import Operation, Waiter
from fastpump._operations import (
    ReadAllBackward,
    ReadAllForward,
    ReadFilteredBackward,
    ReadFilteredForward,
    ReadStreamBackward,
    ReadStreamForward,
)
from fastpump._read_ahead import AllPages, Course, FilteredPages, StreamBackward, StreamForward
from fastpump._requests import encode_read_all, encode_read_stream
from fastpump.filters import Filter
from fastpump.messages import Position, StreamDirection


@dataclass
class Read:
    """What to read; where a page starts is said when it is asked for.

    It is never changed, though not frozen: `get` makes one for every page, and frozen that takes
    five times as long.
    """

    direction: StreamDirection
    count: int
    resolve_links: bool
    require_master: bool

    @property
    def is_forward(self) -> bool:
        return self.direction == StreamDirection.Forward

    def page(self, start: Any, correlation_id: bytes, waiter: Waiter, timeout: float) -> Operation:
        """The operation that reads the page at a start."""
        raise NotImplementedError

    def course(self, start: Any) -> Course:
        """Where the pages from a start on lie."""
        raise NotImplementedError


@dataclass
class StreamRead(Read):
    """A stream, `count` events at a time."""

    stream: str

    def page(self, start: int, correlation_id: bytes, waiter: Waiter, timeout: float) -> Operation:
        frame = encode_read_stream(
            correlation_id,
            not self.is_forward,
            self.stream,
            start,
            self.count,
            self.resolve_links,
            self.require_master,
        )
        kind = ReadStreamForward if self.is_forward else ReadStreamBackward
        return kind(correlation_id, frame, waiter, timeout, self.stream, start)

    def course(self, start: int) -> Course:
        return (StreamForward if self.is_forward else StreamBackward)(start, self.count)


@dataclass
class LogRead(Read):
    """The log of all events, `count` events at a time."""

    def page(
        self, start: Position, correlation_id: bytes, waiter: Waiter, timeout: float
    ) -> Operation:
        frame = encode_read_all(
            correlation_id,
            not self.is_forward,
            start.commit,
            start.prepare,
            self.count,
            self.resolve_links,
            self.require_master,
        )
        kind = ReadAllForward if self.is_forward else ReadAllBackward
        return kind(correlation_id, frame, waiter, timeout, "$all")

    def course(self, start: Position) -> Course:
        return AllPages(start, self.is_forward)


@dataclass
class FilteredRead(Read):
    """What a filter lets through of the log: `count` events at a time, out of `window` at most."""

    filter: Filter
    window: int

    def page(
        self, start: Position, correlation_id: bytes, waiter: Waiter, timeout: float
    ) -> Operation:
        body = _cold.encode(
            "FilteredReadAllEvents",
            commit_position=start.commit,
            prepare_position=start.prepare,
            max_count=self.count,
            max_search_window=self.window,
            resolve_link_tos=self.resolve_links,
            require_leader=self.require_master,
            filter=self.filter.message,
        )
        if self.is_forward:
            frame = encode_frame(Command.FilteredReadAllEventsForward, correlation_id, body)
            return ReadFilteredForward(correlation_id, frame, waiter, timeout, "$all")
        frame = encode_frame(Command.FilteredReadAllEventsBackward, correlation_id, body)
        return ReadFilteredBackward(correlation_id, frame, waiter, timeout, "$all")

    def course(self, start: Position) -> Course:
        return FilteredPages(start, self.is_forward)
