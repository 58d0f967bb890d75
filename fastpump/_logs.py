"""What can be subscribed to: a stream, the log of all events, or what a filter lets through of it.

A *place* is an event's number in the stream, or its Position in the log of all events. Places grow
along the log; None is before the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fastpump._events import AllStreamSlice, Event
from fastpump._outlet import Outlet
from fastpump._read_ahead import ReadAhead
from fastpump._reads import FilteredRead, Read, StreamRead
from fastpump._subscribing import (
    Confirmation,
    FilteredSubscriber,
    SubscribeToFiltered,
    SubscribeToStream,
    Wire,
)
from fastpump.exceptions import ProtocolError, StreamDeleted
from fastpump.messages import Beginning, Position

LAST_NUMBER = 2**63 - 1
"""The number of the event that stands for the end of a deleted stream (section 7)."""

Ahead = Callable[[Any, Any], ReadAhead[Any]]
"""The pages of a read from a start on."""


class Log(Wire, ABC):
    """What is subscribed to.

    Args:
        read: what there is of it already; the pushes are to be the same of what comes.
        ahead: reads it.

    Attributes:
        tells_checkpoints: pages and pushes tell how far the log was looked through.
    """

    tells_checkpoints = False

    def __init__(self, outlet: Outlet, timeout: float, read: Read, ahead: Ahead) -> None:
        super().__init__(outlet, timeout)
        self._read = read
        self._ahead = ahead

    @property
    @abstractmethod
    def name(self) -> str:
        """The stream's name, or "$all"."""

    @abstractmethod
    def place_of(self, event: Event) -> Any:
        """Where the event lies.

        Raises:
            ProtocolError: the server does not say so.
        """

    @abstractmethod
    def history_behind(self, place: Any) -> ReadAhead[Any]:
        """The pages from `place` on to the end; events at or before it may be among them."""

    @abstractmethod
    def end_of(self, confirmation: Confirmation) -> Any:
        """The place behind which everything will be pushed.

        Raises:
            StreamDeleted: nothing ever will.
        """

    def last_number(self, confirmation: Confirmation) -> int | None:
        """The number of the last event there was; -1: none. None: this log's have no numbers."""
        return None

    def end_of_page(self, page: Any) -> Any:
        """The place up to which the log was looked through for a page; None: it does not tell."""
        return None

    def subscribe(self, subscriber: FilteredSubscriber) -> SubscribeToStream:
        """Ask the server for pushes."""
        correlation_id = self._outlet.correlation_ids.next()
        operation = self._operation(correlation_id, subscriber)
        self._outlet.start(operation)
        return operation

    @abstractmethod
    def _operation(
        self, correlation_id: bytes, subscriber: FilteredSubscriber
    ) -> SubscribeToStream:
        """The request to subscribe."""


class StreamLog(Log):
    """A stream; places in it are event numbers."""

    _read: StreamRead

    @property
    def name(self) -> str:
        return self._read.stream

    def place_of(self, event: Event) -> int:
        return event.event_number

    def history_behind(self, place: int | None) -> ReadAhead[Any]:
        # Behind the end of a deleted stream there is no number; its last one will tell as much.
        start = 0 if place is None else min(place + 1, LAST_NUMBER)
        return self._ahead(self._read, start)

    def end_of(self, confirmation: Confirmation) -> int:
        if confirmation.last_event_number == LAST_NUMBER:
            raise StreamDeleted(None, self.name)
        return confirmation.last_event_number

    def last_number(self, confirmation: Confirmation) -> int | None:
        return confirmation.last_event_number

    def _operation(
        self, correlation_id: bytes, subscriber: FilteredSubscriber
    ) -> SubscribeToStream:
        frame = SubscribeToStream.encode(correlation_id, self.name, self._read.resolve_links)
        return SubscribeToStream(correlation_id, frame, subscriber, self._timeout, self.name)


class AllLog(Log):
    """The log of all events; places in it are Positions."""

    name = "$all"

    def place_of(self, event: Event) -> Position:
        position = event.position
        if position is None:
            raise ProtocolError("event: the server does not tell its position in the log")
        return position

    def history_behind(self, place: Position | None) -> ReadAhead[Any]:
        return self._ahead(self._read, Beginning.position if place is None else place)

    def end_of(self, confirmation: Confirmation) -> Position:
        return Position(confirmation.last_commit_position, confirmation.last_commit_position)

    def _operation(
        self, correlation_id: bytes, subscriber: FilteredSubscriber
    ) -> SubscribeToStream:
        frame = SubscribeToStream.encode(correlation_id, "", self._read.resolve_links)
        return SubscribeToStream(correlation_id, frame, subscriber, self._timeout, self.name)


class FilteredLog(AllLog):
    """What a filter lets through of the log of all events.

    Args:
        interval: how many events the server looks at from one checkpoint to the next; -1: it sends
            none.
    """

    tells_checkpoints = True
    _read: FilteredRead

    def __init__(
        self, outlet: Outlet, timeout: float, read: FilteredRead, ahead: Ahead, interval: int
    ) -> None:
        super().__init__(outlet, timeout, read, ahead)
        self._interval = interval

    def end_of_page(self, page: AllStreamSlice) -> Position | None:
        return place_before(page.next_position)

    def _operation(
        self, correlation_id: bytes, subscriber: FilteredSubscriber
    ) -> SubscribeToStream:
        frame = SubscribeToFiltered.encode_filtered(
            correlation_id, self._read.resolve_links, self._read.filter, self._interval
        )
        return SubscribeToFiltered(correlation_id, frame, subscriber, self._timeout, self.name)


def place_before(position: Position) -> Position | None:
    """The last place before a position that a page goes on at.

    A page goes on *at* its next position, a subscription *behind* a place, and an event may lie
    just at the position: of a transaction's events, each can lie where the one before it ended.
    Places are compared by their commit offset and then by the other one, so this is the greatest
    place below. None can lie at an offset 0 of a transaction, since other things begin the log.
    """
    commit, prepare = position
    if prepare > 0:
        return Position(commit, prepare - 1)
    return Position(commit, 0) if commit > 0 else None
