"""The life of one group: from the stream into buffers, to consumers, and back to a checkpoint.

The order of steps is that of server 4.1.4, which clients can see: an answer from a consumer makes
the group read on, a free slot alone does not (section 16).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from fastpump.server.groups.buffers import StreamBuffer
from fastpump.server.groups.progress import MILLISECONDS, Progress
from fastpump.server.groups.statistics import Statistics
from fastpump.server.groups.strategies import Problem, make_strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from fastpump.server.groups.consumers import Consumer
    from fastpump.server.groups.messages import Message
    from fastpump.server.groups.settings import GroupSettings


class NakAction(IntEnum):
    """What is to become of an event that a consumer refused (section 9.5)."""

    UNKNOWN = 0
    PARK = 1
    RETRY = 2
    SKIP = 3
    STOP = 4


class Page(NamedTuple):
    """Events that were read.

    Attributes:
        next_number: where the next page begins.
        is_end: whether there is none behind it at present.
    """

    messages: Sequence[Message]
    next_number: int
    is_end: bool


class Surroundings(Protocol):
    """What a group needs done. Nothing of it may call the group before it has returned."""

    def request_page(self, first: int, count: int) -> None:
        """Read the stream from number `first` on; answered with `Group.page_read`."""

    def write_checkpoint(self, number: int) -> None:
        """Store that everything up to this number is done."""

    def park(self, message: Message, reason: str) -> None:
        """Put the event aside, for good or until a replay; answered with `Group.parked`."""


class _Flight(NamedTuple):
    """An event at a consumer that has not answered yet."""

    message: Message
    consumer: Consumer
    expires: float


class ConsumerGroup:
    """A group that is running. It begins with `start`.

    Args:
        settings: how it works.
        surroundings: what it asks to be done.
        clock: seconds, of any origin.
    """

    def __init__(
        self, settings: GroupSettings, surroundings: Surroundings, clock: Callable[[], float]
    ) -> None:
        self.settings = settings
        self._surroundings = surroundings
        self._clock = clock
        self._strategy = make_strategy(settings.strategy)
        self._progress = Progress(settings)
        self._consumers: dict[bytes, Consumer] = {}
        self._in_flight: dict[bytes, deque[_Flight]] = {}
        self._buffer = self._new_buffer(is_live=True)
        self._next_number = 0
        self._is_reading = False

    # --- its beginning and end ---

    def start(self, checkpoint: int | None) -> None:
        """Begin behind the checkpoint, or where the settings say if there is none."""
        first = self.settings.start_from if checkpoint is None else checkpoint + 1
        self._buffer = self._new_buffer(is_live=first < 0)
        self._next_number = first
        self._read_on()

    def stop(self) -> None:
        """Let go of all consumers. What they have not answered is forgotten."""
        for consumer in self._consumers.values():
            self._strategy.remove(consumer)
            consumer.receiver.drop()
        self._consumers.clear()
        self._in_flight.clear()

    # --- consumers ---

    @property
    def consumers(self) -> Collection[Consumer]:
        return self._consumers.values()

    @property
    def is_full(self) -> bool:
        """Whether it takes no more consumers."""
        return 0 < self.settings.max_subscribers <= len(self._consumers)

    def consumer(self, key: bytes) -> Consumer | None:
        return self._consumers.get(key)

    def statistics(self) -> Statistics:
        """What is where at this moment."""
        buffer = self._buffer
        return Statistics(
            is_live=buffer.is_live,
            is_reading=self._is_reading,
            fresh=len(buffer.fresh),
            newest=buffer.newest_count,
            retries=len(buffer.retries),
            in_flight=sum(map(len, self._in_flight.values())),
            checkpoint=self._progress.written,
        )

    def join(self, consumer: Consumer) -> None:
        self._consumers[consumer.key] = consumer
        self._strategy.add(consumer)
        self._push()

    def leave(self, leaving: Collection[Consumer]) -> None:
        """These consumers are gone: what they have not answered goes to the others, in order."""
        for consumer in leaving:
            del self._consumers[consumer.key]
            self._strategy.remove(consumer)
        lost = [
            flight
            for flights in self._in_flight.values()
            for flight in flights
            if flight.consumer in leaving
        ]
        for flight in lost:
            self._land(flight)
            # Version 4 begins to count anew here, whatever the count was (section 9.5).
            self._buffer.add_retry(replace(flight.message, retry_count=1))
        self._push()

    # --- what consumers answer ---

    def acknowledge(self, key: bytes, event_ids: Iterable[bytes]) -> None:
        """The consumer of this key is done with these events.

        An event is done whoever acknowledges it; but a slot becomes free only at the consumer who
        does, as in version 4 (section 9.5). Ids that nobody holds are passed over.
        """
        for event_id in event_ids:
            self._finish(key, event_id)
        self._go_on()

    def refuse(
        self, key: bytes, event_ids: Iterable[bytes], action: NakAction, reason: str
    ) -> None:
        """The consumer of this key does not want these events; `reason` goes with parked ones."""
        for event_id in event_ids:
            if action in (NakAction.SKIP, NakAction.STOP):
                self._finish(key, event_id)
                continue
            flight = self._oldest(event_id)
            if flight is None:
                continue
            self._take_back(flight)
            if action is NakAction.PARK:
                reason_text = f"Client explicitly NAK'ed message.\n{reason}"
                self._surroundings.park(flight.message, reason_text)
            else:
                self._retry(flight.message)
        self._go_on()

    # --- what happens around it ---

    def page_read(self, page: Page) -> None:
        """The page that was asked for."""
        self._is_reading = False
        if self._buffer.is_live:
            return
        self._buffer.add_read(page.messages)
        if page.is_end and not self._buffer.is_live:
            self._buffer.go_live(self._next_number)
        self._next_number = page.next_number
        self._read_on()
        self._push()

    def committed(self, messages: Iterable[Message]) -> None:
        """Events were written to the stream."""
        for message in messages:
            if message.number < self.settings.start_from:
                continue
            was_live = self._buffer.is_live
            self._buffer.add_live(message)
            if was_live and not self._buffer.is_live:
                self._next_number = message.number
            self._push()

    def replay(self, messages: Iterable[Message]) -> None:
        """Deliver again what was parked."""
        for message in messages:
            self._buffer.add_retry(message)
        self._push()

    def parked(self, message: Message) -> None:
        """The event was put aside."""
        self._done(message)
        self._write_checkpoint(is_tick=False)

    def tick(self) -> None:
        """Once per second: give up waiting for answers, write a checkpoint."""
        now = self._clock()
        expired = [
            flight
            for flights in self._in_flight.values()
            for flight in flights
            if flight.expires <= now
        ]
        for flight in expired:
            self._take_back(flight)
            self._retry(flight.message)
        self._push()
        self._write_checkpoint(is_tick=True)

    # --- its parts ---

    def _new_buffer(self, *, is_live: bool) -> StreamBuffer:
        return StreamBuffer(
            self.settings.buffer_size, self.settings.live_buffer_size, is_live=is_live
        )

    def _go_on(self) -> None:
        self._write_checkpoint(is_tick=False)
        self._read_on()
        self._push()

    def _read_on(self) -> None:
        count = self.settings.page_size
        if self._is_reading or self._buffer.is_live or not self._buffer.accepts(count):
            return
        self._is_reading = True
        self._surroundings.request_page(self._next_number, count)

    def _push(self) -> None:
        """Hand out what can be, retries before anything new."""
        if self._push_from(self._buffer.retries):
            self._push_from(self._buffer.fresh)

    def _push_from(self, waiting: deque[Message]) -> bool:
        """False: nobody has a slot."""
        passed_over = []
        chosen: Consumer | Problem = Problem.NOT_NOW
        while waiting:
            chosen = self._strategy.choose(waiting[0])
            if chosen is Problem.NOBODY_FREE:
                break
            message = waiting.popleft()
            if isinstance(chosen, Problem):
                passed_over.append(message)
            else:
                self._launch(message, chosen)
        waiting.extendleft(reversed(passed_over))
        return chosen is not Problem.NOBODY_FREE

    def _launch(self, message: Message, consumer: Consumer) -> None:
        timeout = self.settings.message_timeout
        expires = self._clock() + timeout / MILLISECONDS if timeout > 0 else math.inf
        flight = _Flight(message, consumer, expires)
        # Events of one stream may share an id: answers then count for the oldest.
        self._in_flight.setdefault(message.event_id, deque()).append(flight)
        if not message.is_replayed and not message.retry_count:
            self._progress.begin(message.number)
        consumer.push(message)

    def _oldest(self, event_id: bytes) -> _Flight | None:
        flights = self._in_flight.get(event_id)
        return flights[0] if flights else None

    def _land(self, flight: _Flight) -> None:
        """The consumer's answer is not waited for any more."""
        event_id = flight.message.event_id
        flights = self._in_flight[event_id]
        flights.remove(flight)
        if not flights:
            del self._in_flight[event_id]

    def _take_back(self, flight: _Flight) -> None:
        self._land(flight)
        flight.consumer.release(flight.message.event_id)

    def _finish(self, key: bytes, event_id: bytes) -> None:
        flight = self._oldest(event_id)
        if flight is not None:
            self._land(flight)
            self._done(flight.message)
        consumer = self._consumers.get(key)
        if consumer is not None:
            consumer.release(event_id)

    def _retry(self, message: Message) -> None:
        most = self.settings.max_retry_count
        if message.retry_count >= most:
            self._surroundings.park(message, f"Reached retry count of {most}")
        else:
            self._buffer.add_retry(replace(message, retry_count=message.retry_count + 1))

    def _done(self, message: Message) -> None:
        if not message.is_replayed:
            self._progress.finish(message.number)

    def _write_checkpoint(self, *, is_tick: bool) -> None:
        number = self._progress.checkpoint(self._clock(), is_tick=is_tick)
        if number is not None:
            self._surroundings.write_checkpoint(number)
