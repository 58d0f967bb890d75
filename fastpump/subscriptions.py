"""Events of a stream, or of all streams, as they come: from history, then live, without a seam.

    History ──end reached──▶ Subscribing ──confirmed──▶ Bridging ──caught up──▶ Live
       ▲                         │                         │                     │
       └─────────── connection lost, or the buffer of pushes overflowed ─────────┘

One rule makes every transition safe: an event is given out only if it lies behind the last one that
was. So history may be read again and pushes may repeat it; nothing is lost and nothing comes twice.
A subscription that starts "now" begins with Subscribing, and needs no History to be Live.

What is under way in a phase belongs to the subscription, not to who waits for it: a wait that is
cancelled changes nothing, and the next one goes on where it was.

Pushes wait in a buffer that is bounded in events and bytes. A consumer that is too slow for it is
not cut off: the server is told to stop pushing, what is buffered is given out, and the rest comes
from history, at the consumer's pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from inspect import isawaitable
from typing import Any, NamedTuple

from fastpump._bell import Bell
from fastpump._consuming import Batch, Consuming, Loop
from fastpump._event_feed import EventFeed
from fastpump._events import Event, Events
from fastpump._logs import Log
from fastpump._read_ahead import ReadAhead
from fastpump._subscribing import Confirmation, was_out_of_reach
from fastpump.exceptions import ConnectionLost, StreamNotFound
from fastpump.messages import Position

LOG = logging.getLogger("fastpump.subscriptions")

BUFFER_EVENTS = 65_536
BUFFER_BYTES = 16 * 1024 * 1024

OnCheckpoint = Callable[[Position], Awaitable[None] | None]


class Stretch(NamedTuple):
    """A piece of the log: what is to be given out of it, and the place it reaches to if it tells.

    Up to there nothing else is wanted.
    """

    events: Batch
    end: Any


Phase = Callable[[], Awaitable["Stretch | None"]]


class PushBuffer:
    """The pushes of one server-side subscription that were not taken yet.

    Attributes:
        is_open: more may come.
        was_dropped: the server ended it without having been asked to, and without an error.
        error: what it ended with.
    """

    def __init__(self, log: Log, max_events: int, max_bytes: int) -> None:
        self.is_open = True
        self.was_dropped = False
        self.error: BaseException | None = None
        self._log = log
        self._max_events = max_events
        self._max_bytes = max_bytes
        # With each batch the place it reaches to, where that is told.
        self._batches: deque[tuple[Events, Any]] = deque()
        self._events = 0
        self._bytes = 0
        self._confirmation: Confirmation | None = None
        self._bell = Bell()
        self._operation = log.subscribe(self)

    # --- for the operation ---

    def on_confirmed(self, confirmation: Confirmation) -> None:
        self._confirmation = confirmation
        self._bell.ring()

    def on_events(self, events: Events) -> None:
        if self._batches:  # the consumer is behind
            events = events.kept()
        self._batches.append((events, None))
        self._events += len(events)
        self._bytes += events.nbytes
        if self._events > self._max_events or self._bytes > self._max_bytes:
            LOG.info("The consumer of %s is slow: catching up from history again", self._log.name)
            self.close()
        self._bell.ring()

    def on_checkpoint(self, position: Position) -> None:
        # What waits already reaches further by that: checkpoints alone cannot fill the buffer.
        events = self._batches.pop()[0] if self._batches else Events()
        self._batches.append((events, position))
        self._bell.ring()

    def on_end(self, error: BaseException | None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self.was_dropped = error is None
        self.error = error
        self._bell.ring()

    # --- for the consumer ---

    async def confirmed(self) -> Confirmation | None:
        """What the server confirmed; None if it was closed before that.

        Raises:
            FastpumpError: the server does not confirm it.
        """
        while self._confirmation is None and self.is_open:
            await self._bell.wait()
        if self._confirmation is None and self.error is not None:
            raise self.error
        return self._confirmation

    async def take(self) -> tuple[Events, Any] | None:
        """The next pushes, and the place they reach to; None when there will be no more."""
        while not self._batches:
            if not self.is_open:
                return None
            await self._bell.wait()
        events, end = self._batches.popleft()
        self._events -= len(events)
        self._bytes -= events.nbytes
        return events, end

    def close(self) -> None:
        """Take no more pushes, and tell the server. What is here already can still be taken."""
        if self.is_open:
            self.is_open = False
            self._log.unsubscribe(self._operation)
            self._bell.ring()


class Subscription(Consuming):
    """A subscription to a stream or to all of them; `Client.subscribe_to` makes one.

    Take its events, or whole batches of them, in one loop; leaving `async with`, or `unsubscribe`,
    ends it. Each event is given out once, in order, over any number of reconnects. A loop that was
    left with `break`, or whose wait for the next event was cancelled, can be entered again and goes
    on with the next event. Two loops at a time, or one over events and one over batches, are
    refused with a UsageError: each needs a subscription of its own.

    The loop ends when the server ends the subscription in good order, as a node does that is shut
    down; subscribe again behind the checkpoint then.

    Attributes:
        name: the stream's name, or "$all".
        checkpoint: where the last event lies whose turn is over, which is when the next one is
            asked for: its number, or its Position in the log of all events. Resume behind it.
            Before the first event: the place behind which the subscription starts; None (of the
            log) or -1 (of a stream) is before the first event. With a filter it also moves on over
            what does not fit, while the loop waits.

    >>> async with await client.subscribe_to("account-7", start_from=0) as subscription:
    ...     async for event in subscription.events:
    ...         print(event.event_number, subscription.is_live)
    """

    def __init__(
        self,
        log: Log,
        checkpoint: Any,
        max_events: int,
        max_bytes: int,
        on_checkpoint: OnCheckpoint | None = None,
    ) -> None:
        super().__init__()
        self.name = log.name
        self._checkpoint = checkpoint
        self._log = log
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._on_checkpoint = on_checkpoint
        self._last = checkpoint
        self._phase: Phase = self._read_history
        self._pages: ReadAhead[Any] | None = None
        self._pushes: PushBuffer | None = None
        self._pushed_behind: Any = None
        self._confirmation: Confirmation | None = None
        self._over = False
        self._is_settled = asyncio.Event()  # caught up, or over

    def __repr__(self) -> str:
        state = "over" if self._over else "live" if self.is_live else "catching up"
        return f"<Subscription to {self.name}, {state}, at {self.checkpoint}>"

    @property
    def stream(self) -> str:
        """photon-pump's name for `name`."""
        return self.name

    @property
    def is_live(self) -> bool:
        """History was given out up to its end, and what is written now is pushed."""
        is_caught_up = self._phase == self._take_pushes
        return is_caught_up and self._pushes is not None and self._pushes.is_open

    @property
    def last_commit_position(self) -> int | None:
        """How far the log went when the server last confirmed the subscription; None before."""
        return None if self._confirmation is None else self._confirmation.last_commit_position

    @property
    def last_event_number(self) -> int | None:
        """The number of the stream's last event then; -1 if it had none. None of the log."""
        confirmation = self._confirmation
        return None if confirmation is None else self._log.last_number(confirmation)

    async def caught_up(self) -> bool:
        """Wait until history was given out up to its end, and what is written now is pushed.

        It is the loop over the events that gets there, at its consumer's pace, so wait in another
        task (or thread); without a loop this waits for ever. When the connection was lost or the
        consumer was too slow, the loop has to catch up again.

        Returns:
            True; or False if the subscription ended before.
        """
        while not (self.is_live or self._over):
            self._is_settled.clear()  # the connection may be lost, and the loop not know it yet
            await self._is_settled.wait()
        return not self._over

    @property
    def checkpoint(self) -> Any:
        event = self._feed.finished
        return self._checkpoint if event is None else self._log.place_of(event)

    @checkpoint.setter
    def checkpoint(self, place: Any) -> None:
        self._checkpoint = place

    def place_of(self, event: Event) -> Any:
        """Where an event of it lies: what `checkpoint` is when the event's turn is over."""
        return self._log.place_of(event)

    async def start_now(self) -> None:
        """Begin with what is written from now on.

        Raises:
            AccessDenied, NotAuthenticated, RetriesLimitReached, …: the server does not allow it.
            StreamDeleted: nothing will ever be written to it.
        """
        try:
            await self._confirmed()
        except BaseException:
            self._end()
            raise
        self._last = self._checkpoint = self._pushed_behind
        self._be_live()

    def _loop_over_events(self) -> EventFeed:
        self._feed = EventFeed(
            Loop(self._each_batch_for_events, self._on_entry, self._end), self._end
        )
        return self._feed

    def _each_batch_for_events(self) -> AsyncGenerator[Batch, None]:
        self._enter(self._events)
        return self._give_batches()

    async def _give_batches(self) -> AsyncGenerator[Batch, None]:
        while (stretch := await self._next_stretch()) is not None:
            events, end = stretch
            if events:
                yield events
                self._checkpoint = self._log.place_of(events[-1])
            if end is not None:
                await self._reach(end)

    async def _reach(self, place: Any) -> None:
        """Everything up to this place has had its turn."""
        self._checkpoint = place
        if self._on_checkpoint is None:
            return
        try:
            outcome = self._on_checkpoint(place)
            if isawaitable(outcome):
                await outcome
        except Exception:
            self._end()
            raise

    async def _next_stretch(self) -> Stretch | None:
        """What comes next of the log, and was not given out before; None when it is over."""
        while not self._over:
            try:
                stretch = await self._phase()
            except Exception as error:
                if not self._goes_on_after(error):
                    raise
            else:
                if stretch is not None and not self._over:
                    return stretch
        return None

    def _goes_on_after(self, error: Exception) -> bool:
        if self._over:
            return True  # unsubscribed meanwhile: nobody is interested any more
        if was_out_of_reach(error):
            self._fall_back()
            return True
        self._end()
        return False

    # --- the phases: each gives a piece of the log, or None once there is another phase ---

    async def _read_history(self) -> Stretch | None:
        stretch = await self._next_page()
        if stretch is None:
            self._phase = self._subscribe
        return stretch

    async def _subscribe(self) -> Stretch | None:
        await self._confirmed()
        if self._over:
            return None
        if is_behind(self._pushed_behind, self._last):
            self._phase = self._bridge
            return None
        return self._join()

    async def _bridge(self) -> Stretch | None:
        """Read what was written between the end of history and the first push."""
        stretch = await self._next_page()
        return self._join() if stretch is None else stretch

    async def _take_pushes(self) -> Stretch | None:
        pushes = self._pushes
        assert pushes is not None
        pushed = await pushes.take()
        if pushed is not None:
            events, end = pushed
            return self._stretch(self._news(events), end)
        if pushes.error is not None:
            raise pushes.error
        if pushes.was_dropped:
            self._end()
        else:
            self._fall_back()
        return None

    # --- what they are made of ---

    async def _next_page(self) -> Stretch | None:
        """The next page of history behind what was given out; None at its end."""
        if self._pages is None:
            self._pages = self._log.history_behind(self._last)
        try:
            page = await anext(self._pages)
        except (StopAsyncIteration, StreamNotFound):  # it may come to be; there is no history yet
            self._pages = None
            return None
        # A page is in order; only its first events can be old ones.
        in_order = not page or self._is_new(page[0])
        return self._stretch(page if in_order else self._news(page), self._log.end_of_page(page))

    async def _confirmed(self) -> None:
        """Ask for pushes, and wait until it is known behind which place they lie, or it is over."""
        if self._pushes is None:
            self._pushes = PushBuffer(self._log, self._max_events, self._max_bytes)
        confirmation = await self._pushes.confirmed()
        if confirmation is not None:
            self._confirmation = confirmation
            self._pushed_behind = self._log.end_of(confirmation)

    def _join(self) -> Stretch | None:
        """Go over from history to the pushes."""
        assert self._pushes is not None
        if isinstance(self._pushes.error, ConnectionLost):
            # Lost meanwhile: history may have come from another node that did not have all of it.
            self._fall_back()
            return None
        self._be_live()
        if not (self._log.tells_checkpoints and self.is_live):
            return None
        is_further = is_behind(self._pushed_behind, self._last)
        return self._stretch((), self._pushed_behind if is_further else self._last)

    def _be_live(self) -> None:
        self._phase = self._take_pushes
        self._is_settled.set()

    def _fall_back(self) -> None:
        """Begin again with history, behind the last event."""
        LOG.info("The subscription to %s goes on from history behind %s", self.name, self._last)
        self._let_go()
        self._pages = self._pushes = None
        self._phase = self._read_history

    def _stretch(self, news: Batch, end: Any) -> Stretch:
        """What is given out now, and from then on not again."""
        if news:
            self._last = self._log.place_of(news[-1])
        if end is not None and self._last is not None and end < self._last:
            end = None  # said twice, or late
        if end is not None:
            self._last = end
        return Stretch(news, end)

    def _is_new(self, event: Event) -> bool:
        return is_behind(self._log.place_of(event), self._last)

    def _news(self, events: Events) -> Batch:
        """Those behind the last one given out, and each behind the one before it."""
        if events and self._is_new(events[0]) and events.are_in_log_order():
            return events
        place_of, last = self._log.place_of, self._last
        news = []
        for event in events:
            place = place_of(event)
            if is_behind(place, last):
                news.append(event)
                last = place
        return events if len(news) == len(events) else news

    def _end(self) -> None:
        self._checkpoint = self.checkpoint  # the feed will be emptied
        self._over = True
        self._is_settled.set()
        self._let_go()

    def _let_go(self) -> None:
        if self._pages is not None:
            self._pages.stop()
        if self._pushes is not None:
            self._pushes.close()


def is_behind(place: Any, last: Any) -> bool:
    return last is None or place > last
