"""What is read: an object per read makes the request for any of its pages and knows where they lie.

It is shared by all that reads: one page, pages ahead of a consumer, the history of a subscription.

Compiled, since one is made for every page that `get` reads; `_reads.pxd` says what of it lies in a
C structure.
"""

from __future__ import annotations

from typing import Any

from fastpump import _cold
from fastpump._arguments import FORWARD
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


class Read:
    """What to read; where a page starts is said when it is asked for. It is never changed.

    Args:
        direction: Forward (old to new) or Backward.
        count: the most events in a page.
        resolve_links: whether what links point to is read as well.
        require_master: whether only the leader may answer.
        stream: the stream; the log of all events is "$all".
    """

    def __init__(
        self,
        direction: StreamDirection,
        count: int,
        resolve_links: bool,
        require_master: bool,
        stream: str = "$all",
    ) -> None:
        self.is_forward = direction == FORWARD
        self.count = count
        self.resolve_links = resolve_links
        self.require_master = require_master
        self.stream = stream

    def page(self, start: Any, correlation_id: bytes, waiter: Waiter, timeout: float) -> Operation:
        """The operation that reads the page at a start."""
        raise NotImplementedError

    def course(self, start: Any) -> Course:
        """Where the pages from a start on lie."""
        raise NotImplementedError


class StreamRead(Read):
    """A stream, `count` events at a time."""

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
        return kind(correlation_id, frame, waiter, timeout, self.stream)

    def course(self, start: Position) -> Course:
        return AllPages(start, self.is_forward)


class FilteredRead(Read):
    """What a filter lets through of the log: `count` events at a time, out of `window` at most."""

    def __init__(
        self,
        direction: StreamDirection,
        count: int,
        resolve_links: bool,
        require_master: bool,
        filter: Filter,
        window: int,
    ) -> None:
        Read.__init__(self, direction, count, resolve_links, require_master)
        self.filter = filter
        self.window = window

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
            return ReadFilteredForward(correlation_id, frame, waiter, timeout, self.stream)
        frame = encode_frame(Command.FilteredReadAllEventsBackward, correlation_id, body)
        return ReadFilteredBackward(correlation_id, frame, waiter, timeout, self.stream)

    def course(self, start: Position) -> Course:
        return FilteredPages(start, self.is_forward)
