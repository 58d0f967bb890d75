"""Events of a stream, or of all streams, as they come: from history, then live, without a seam.

    History ──end reached──▶ Subscribing ──confirmed──▶ Bridging ──caught up──▶ Live
       ▲                                                                         │
       └──────────── connection lost, or the buffer of pushes overflowed ────────┘

One rule makes every transition safe: an event is given out only if it lies behind the last one that
was. So history may be read again and pushes may repeat it; nothing is lost and nothing comes twice.
A subscription that starts "now" begins with Subscribing instead of History.

Pushes wait in a buffer that is bounded in events and bytes. A consumer that is too slow for it is
not cut off: the server is told to stop pushing, what is buffered is given out, and the rest comes
from history, at the consumer's pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol

from fastpump._dispatcher import Dispatcher
from fastpump._events import AllStreamSlice, Event, Events, StreamSlice
from fastpump._subscribing import Confirmation, SubscribeToStream, encode_unsubscribe
from fastpump.exceptions import ConnectionLost, StreamNotFound
from fastpump.messages import Position

LOG = logging.getLogger("fastpump.subscriptions")

BUFFER_EVENTS = 10_000
BUFFER_BYTES = 16 * 1024 * 1024

Batch = Sequence[Event]


class Log(Protocol):
    """What is subscribed to: a stream, or the log of all events.

    A *place* is an event's number in the stream, or its Position in the log of all events. Places
    grow along the log; None is before the first.
    """

    @property
    def name(self) -> str:
        """The stream's name, or "$all"."""

    def place_of(self, event: Event) -> Any:
        """Where the event lies."""

    def history_behind(self, place: Any) -> AsyncGenerator[Events, None]:
        """The pages from `place` on to the end; events at or before it may be among them."""

    def end_of(self, confirmation: Confirmation) -> Any:
        """The place behind which everything will be pushed."""

    def subscribe(self, subscriber: PushBuffer) -> bytes:
        """Ask the server for pushes; the correlation id of that."""

    def unsubscribe(self, correlation_id: bytes) -> None:
        """Ask the server to stop."""


class PushBuffer:
    """The pushes of one server-side subscription that were not taken yet."""

    def __init__(self, log: Log, max_events: int, max_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self.is_open = True
        self.was_dropped = False
        """The server ended it, without being asked to."""
        self.error: BaseException | None = None
        self.confirmation: asyncio.Future[Confirmation] = loop.create_future()
        self._log = log
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._batches: deque[Events] = deque()
        self._events = 0
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._correlation_id = log.subscribe(self)

    def on_confirmed(self, confirmation: Confirmation) -> None:
        if not self.confirmation.done():
            self.confirmation.set_result(confirmation)

    def on_events(self, events: Events) -> None:
        if not self.is_open:
            return
        self._batches.append(events)
        self._events += len(events)
        self._bytes += events.nbytes
        if self._events > self._max_events or self._bytes > self._max_bytes:
            LOG.info("The consumer of %s is slow: catching up from history again", self._log.name)
            self.close()
        self._wake()

    def on_end(self, error: BaseException | None) -> None:
        self.was_dropped = self.is_open
        self.is_open = False
        self.error = error
        if not self.confirmation.done():
            self.confirmation.set_exception(error or ConnectionLost("The subscription ended"))
        self._wake()

    def close(self) -> None:
        """Take no more pushes, and tell the server."""
        if self.is_open:
            self.is_open = False
            self._log.unsubscribe(self._correlation_id)
            self._wake()

    async def take(self) -> Events | None:
        """The next pushes; None when there will be no more."""
        while not self._batches:
            if not self.is_open:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events = self._batches.popleft()
        self._events -= len(events)
        self._bytes -= events.nbytes
        return events

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Subscription:
    """A subscription to a stream or to all of them; `Client.subscribe_to` makes one.

    Take its events, or whole batches of them, in one loop; leaving `async with`, or `unsubscribe`,
    ends it. Each event is given out once, in order, over any number of reconnects.

    Attributes:
        name: the stream's name, or "$all".
        checkpoint: where the last event lies whose turn is over: its number, or its Position in
            the log of all events. Resume behind it. Before the first event: what was asked for.
        is_live: everything written so far was given out, and what comes is pushed.

    >>> async with await client.subscribe_to("account-7", start_from=0) as subscription:
    ...     async for event in subscription.events:
    ...         print(event.event_number, subscription.is_live)
    """

    def __init__(self, log: Log, checkpoint: Any, max_events: int, max_bytes: int) -> None:
        self.name = log.name
        self.checkpoint = checkpoint
        self.is_live = False
        self._log = log
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._last = checkpoint
        self._pushes: PushBuffer | None = None
        self._over = False

    def __repr__(self) -> str:
        state = "over" if self._over else "live" if self.is_live else "catching up"
        return f"<Subscription to {self.name}, {state}, at {self.checkpoint}>"

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.unsubscribe()

    @property
    def events(self) -> AsyncGenerator[Event, None]:
        """The events, one by one."""
        return self._each()

    async def slices(self) -> AsyncGenerator[Batch, None]:
        """The events in the batches they come in: pages while catching up, then pushes.

        Raises:
            AccessDenied, StreamDeleted, SubscriptionFailed, ClientClosed: it cannot go on.
        """
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                yield batch
                self.checkpoint = self._log.place_of(batch[-1])

    async def unsubscribe(self) -> None:
        """End it. The loop over its events ends too, and what is waiting is not given out."""
        self._over = True
        if self._pushes is not None:
            self._pushes.close()

    async def start_now(self) -> None:
        """Begin with what is written from now on.

        Raises:
            AccessDenied, NotAuthenticated, OperationTimedOut, …: the server does not allow it.
        """
        self._pushes = self._new_pushes()
        confirmation = await self._pushes.confirmation
        self._last = self.checkpoint = self._log.end_of(confirmation)
        self.is_live = True

    async def _each(self) -> AsyncGenerator[Event, None]:
        place_of = self._log.place_of
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for event in batch:
                    yield event
                    self.checkpoint = place_of(event)

    async def _batches(self) -> AsyncGenerator[Batch, None]:
        """All batches, until it is over; what was given out before is not in them."""
        while not self._over:
            if self._pushes is None:
                async for batch in self._catch_up():
                    yield batch
            async for batch in self._live():
                yield batch

    async def _catch_up(self) -> AsyncGenerator[Batch, None]:
        """History to its end; then pushes are asked for, and what was written meanwhile is read."""
        self.is_live = False
        async for batch in self._history():
            yield batch
        self._pushes = self._new_pushes()
        confirmation = await self._pushes.confirmation
        if is_behind(self._log.end_of(confirmation), self._last):
            async for batch in self._history():
                yield batch

    async def _history(self) -> AsyncGenerator[Batch, None]:
        try:
            async with aclosing(self._log.history_behind(self._last)) as pages:
                async for page in pages:
                    if self._over:
                        return
                    for batch in self._news(page):
                        yield batch
        except StreamNotFound:
            return  # it may come to be; until then there is no history

    async def _live(self) -> AsyncGenerator[Batch, None]:
        """What is pushed; ends when there will be no more of that."""
        pushes = self._pushes
        assert pushes is not None
        self.is_live = pushes.is_open
        while (events := await pushes.take()) is not None:
            if self._over:
                return
            for batch in self._news(events):
                yield batch
        self._pushes = None
        if isinstance(pushes.error, ConnectionLost):
            LOG.info("The subscription to %s goes on from history at %s", self.name, self._last)
        elif pushes.error is not None:
            self._over = True
            raise pushes.error
        elif pushes.was_dropped:
            self._over = True

    def _news(self, events: Events) -> Iterator[Batch]:
        """The part of `events` behind the last one given out, if there is any."""
        place_of = self._log.place_of
        news: Batch = events
        if len(events) and not is_behind(place_of(events[0]), self._last):
            news = [event for event in events if is_behind(place_of(event), self._last)]
        if len(news):
            self._last = place_of(news[-1])
            yield news

    def _new_pushes(self) -> PushBuffer:
        return PushBuffer(self._log, self._max_events, self._max_bytes)


def is_behind(place: Any, last: Any) -> bool:
    return last is None or place > last


class _Wire:
    """What both kinds of log need to talk to the server."""

    def __init__(self, dispatcher: Dispatcher, timeout: float, resolve_links: bool) -> None:
        self._dispatcher = dispatcher
        self._timeout = timeout
        self._resolve_links = resolve_links

    def _subscribe(self, stream: str, name: str, subscriber: PushBuffer) -> bytes:
        correlation_id = self._dispatcher.new_correlation_id()
        frame = SubscribeToStream.encode(correlation_id, stream, self._resolve_links)
        operation = SubscribeToStream(correlation_id, frame, subscriber, self._timeout, name)
        self._dispatcher.start(operation)
        return correlation_id

    def unsubscribe(self, correlation_id: bytes) -> None:
        self._dispatcher.send_now(encode_unsubscribe(correlation_id))


class StreamLog(_Wire):
    """A stream; places in it are event numbers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        timeout: float,
        resolve_links: bool,
        stream: str,
        read: Callable[[int], AsyncGenerator[StreamSlice, None]],
    ) -> None:
        super().__init__(dispatcher, timeout, resolve_links)
        self.name = stream
        self._read = read

    def place_of(self, event: Event) -> int:
        return event.event_number

    def history_behind(self, place: int | None) -> AsyncGenerator[StreamSlice, None]:
        return self._read(0 if place is None else place + 1)

    def end_of(self, confirmation: Confirmation) -> int:
        return confirmation.last_event_number

    def subscribe(self, subscriber: PushBuffer) -> bytes:
        return self._subscribe(self.name, self.name, subscriber)


class AllLog(_Wire):
    """The log of all events; places in it are Positions."""

    name = "$all"

    def __init__(
        self,
        dispatcher: Dispatcher,
        timeout: float,
        resolve_links: bool,
        read: Callable[[Position | None], AsyncGenerator[AllStreamSlice, None]],
    ) -> None:
        super().__init__(dispatcher, timeout, resolve_links)
        self._read = read

    def place_of(self, event: Event) -> Position:
        position = event.position
        assert position is not None
        return position

    def history_behind(self, place: Position | None) -> AsyncGenerator[AllStreamSlice, None]:
        return self._read(place)

    def end_of(self, confirmation: Confirmation) -> Position:
        return Position(confirmation.last_commit_position, confirmation.last_commit_position)

    def subscribe(self, subscriber: PushBuffer) -> bytes:
        return self._subscribe("", self.name, subscriber)
