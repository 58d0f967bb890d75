"""Bulk publishing: events in, batches out, many streams side by side, each in order.

    send ─▶ Packer: batches by stream ─▶ one WriteEvents per stream at a time ─▶ answer ─▶ settled

Never more than one batch of a stream is on its way: servers may swap two that follow one another
(protocol document, section 5.5). The packer owns what waits, the dispatcher what was sent; what a
batch was answered with is settled in the publisher's own task, never in the connection's reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from fastpump._arguments import check_expected_version, check_name
from fastpump._outlet import Outlet
from fastpump._packing import Batch, Lane, Packer
from fastpump._requests import encode_batch
from fastpump._write_events import WriteEvents
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    FastpumpError,
    PublishFailed,
    PublishFailure,
    ServerError,
    UsageError,
)
from fastpump.guard import Guard
from fastpump.messages import NewEventData, WriteResult

__all__ = ["PublishFailure", "Publisher", "PublisherStats"]

LOG = logging.getLogger("fastpump.publisher")

OnResult = Callable[[str, Sequence[int]], None]
OnFailure = Callable[[PublishFailure], None]
OnAnswer = Callable[[Lane, Batch, "WriteResult | BaseException"], None]


@dataclass(frozen=True)
class PublisherStats:
    """Events of a publisher: `sent` is the sum of the other four."""

    sent: int
    """Given to the publisher."""
    acknowledged: int
    """The server has them, written now or known to be there."""
    failed: int
    """Came back with a reason."""
    discarded: int
    waiting: int
    """Not sent yet, or not answered."""
    acknowledged_bytes: int
    """Data and metadata of those acknowledged."""
    waiting_bytes: int
    """Those waiting as they are on the wire."""


class _Write:
    """A batch on its way: what its operation ends with."""

    __slots__ = ("_batch", "_lane", "_on_answer")

    def __init__(self, lane: Lane, batch: Batch, on_answer: OnAnswer) -> None:
        self._lane = lane
        self._batch = batch
        self._on_answer = on_answer

    def done(self) -> bool:
        return self._lane.sending is not self._batch

    def set_result(self, result: WriteResult) -> None:
        self._on_answer(self._lane, self._batch, result)

    def set_exception(self, error: BaseException) -> None:
        self._on_answer(self._lane, self._batch, error)


class _Failures:
    """Failed events that nobody was told of yet."""

    def __init__(self) -> None:
        self._events: dict[tuple[str, FastpumpError], list[NewEventData]] = {}
        self.count = 0
        self.size = 0

    def add(self, failure: PublishFailure) -> None:
        stream, events, reason = failure
        self._events.setdefault((stream, reason), []).extend(events)
        self.count += len(events)
        self.size += sum(map(size_of, events))

    def take(self) -> PublishFailed | None:
        """All of them as one error; None if there are none."""
        events, self._events = self._events, {}
        self.count = self.size = 0
        if not events:
            return None
        return PublishFailed([PublishFailure(s, e, reason) for (s, reason), e in events.items()])


def numbers_of(batch: Batch, result: WriteResult) -> Sequence[int]:
    """The event numbers of a batch that is written."""
    first, last = result.first_event_number, result.last_event_number
    numbers = range(first, first + batch.count)
    if numbers[-1] == last:
        return numbers
    # Sent again, with one id for several of its events.
    return [min(number, last) for number in numbers]


def size_of(event: NewEventData) -> int:
    """Bytes of an event's data and metadata, once it was encoded."""
    return len(event.data) + len(event.metadata or b"")


class Publisher:
    """Publishes events in bulk; `Client.publisher` makes one. Use it with `async with`.

    Leaving the block, in whatever way, waits until everything is answered. Events that were not
    written are raised then as `PublishFailed`, or logged if the block is left by a cancellation;
    a second cancellation ends the waiting.

    A stream of which a batch has failed takes nothing more, so that its events keep their order:
    all that follow come back with the same reason, until `expect` says where the stream stands.
    Other streams go on.
    """

    def __init__(
        self,
        outlet: Outlet,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        *,
        max_batch_events: int,
        max_batch_bytes: int,
        max_delay: float,
        max_in_flight_events: int,
        max_in_flight_bytes: int,
        on_result: OnResult | None,
        on_failure: OnFailure | None,
        guard: Guard | None,
        require_master: bool,
    ) -> None:
        self._outlet = outlet
        self._timeout = timeout
        self._max_delay = max_delay
        self._on_result = on_result
        self._on_failure = on_failure
        self._guard = Guard() if guard is None else guard
        self._require_master = require_master
        self._packer = Packer(
            max_batch_events,
            max_batch_bytes,
            max_in_flight_events,
            max_in_flight_bytes,
            self._hold,
            self._on_gathering,
            self._wake,
        )
        self._packer.error = ClientClosed("The publisher is not open: use `async with`")
        # The method of this name without its call: it is made millions of times.
        self.send = self._packer.send  # type: ignore[method-assign]
        self._was_entered = False
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()
        self._roomy = asyncio.Event()
        self._steps: deque[tuple[Lane, Batch, Callable[[], None]]] = deque()
        self._failures = _Failures()
        self._broken: BaseException | None = None
        self._most_failures = (max_in_flight_events // 2, max_in_flight_bytes // 2)
        self._tasks: set[asyncio.Task[None]] = set()
        self._acknowledged = self._acknowledged_bytes = self._failed = self._discarded = 0

    def __repr__(self) -> str:
        return f"<Publisher, {self.stats}>"

    async def __aenter__(self) -> Publisher:
        if self._was_entered:
            raise UsageError("publisher", "can be entered once; make another one")
        self._was_entered = True
        self._packer.error = None
        self._spawn(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._until_answered()
            if kind is None or issubclass(kind, Exception):
                self._raise_failures()
        finally:
            await self._end()

    def send(self, stream: str, event: NewEventData) -> Awaitable[None]:
        """Have an event published; awaited, it returns as soon as there is room for another one.

        The event is taken, and encoded, by the call itself: cancelling what is awaited does not
        take it back. A producer that awaits nothing else gives the event loop a turn every 1,024
        events. What is returned need not be a coroutine.

        Raises:
            UsageError: stream or event cannot be sent; it was not taken.
            PublishFailed: more than half of what may be held are events that failed; these.
            ClientClosed, ConnectFailed: nothing can be sent any more.

        >>> await publisher.send("account-7", fastpump.NewEvent("opened", data={"n": 1}))
        """
        return self._packer.send(stream, event)

    async def send_many(
        self, stream: str, events: Iterable[NewEventData] | AsyncIterable[NewEventData]
    ) -> None:
        """Have events published, as by `send` one by one.

        Raises:
            UsageError: an event cannot be sent; it says which. Those before it were taken.
            PublishFailed, ClientClosed, ConnectFailed: as `send`.
        """
        if isinstance(events, AsyncIterable):
            async for event in events:
                await self.send(stream, event)
            return
        if not isinstance(events, Iterable):
            raise UsageError("events", f"must be an iterable of events, not {events!r:.80}")
        iterator, index = iter(events), 0
        while (index := self._packer.send_some(stream, iterator, index)) >= 0:
            await self._hold()

    async def send_tracked(self, stream: str, event: NewEventData) -> asyncio.Future[int]:
        """Have an event published and be told of it.

        Returns:
            A future, when there is room for another event. It ends with the event's number, or
            the reason why it was not written, which is raised at the end all the same.

        Raises:
            UsageError, PublishFailed, ClientClosed, ConnectFailed: as `send`.
        """
        room = self.send(stream, event)
        batch = self._packer.lanes[stream].last
        assert batch is not None
        future: asyncio.Future[int] = self._loop.create_future()
        batch.attach(future)
        await room
        return future

    def release(self) -> None:
        """Have everything taken so far sent without waiting for `max_delay`."""
        self._packer.release()

    async def flush(self) -> None:
        """Wait until everything taken so far is answered.

        Raises:
            PublishFailed: events that were not written, and have not been raised before.
        """
        await self._until_answered()
        self._raise_failures()

    def expect(self, stream: str, version: int) -> None:
        """Say where a stream stands. Its batches are then written only if they follow on that.

        So each one is written at the version that follows from the one before, and is recognised
        when it is repeated, also by a server that was restarted. It also makes a stream that has
        failed take events again.

        Args:
            stream: one that has no events waiting.
            version: number of the stream's last event, or one of `ExpectedVersion`: with `Any`
                whatever stands there is accepted, as at the beginning.

        Raises:
            UsageError: the version cannot be, or events of the stream are not answered yet.
        """
        check_name("stream", stream)
        check_expected_version(version)
        lane = self._packer.lanes.get(stream)
        if lane is not None:
            if lane.last is not None:
                raise UsageError("stream", f"{stream!r} has events that are not answered yet")
            lane.error = None
            self._packer.finish(lane)
        self._guard.expect(stream, version)

    def discard(self) -> int:
        """Forget the events that were not sent yet; how many there were.

        Those on their way are still waited for. Futures of the others are cancelled.
        """
        before = self._discarded
        for lane in list(self._packer.lanes.values()):
            for batch in self._packer.discard(lane):
                self._discarded += batch.count
                for _, future in batch.futures or ():
                    future.cancel()
                self._forget(batch)
            if not lane.busy:
                self._packer.finish(lane)
        return self._discarded - before

    @property
    def stats(self) -> PublisherStats:
        """How many events are where."""
        done = self._acknowledged + self._failed + self._discarded
        return PublisherStats(
            sent=self._packer.given,
            acknowledged=self._acknowledged,
            failed=self._failed,
            discarded=self._discarded,
            waiting=self._packer.given - done,
            acknowledged_bytes=self._acknowledged_bytes,
            waiting_bytes=self._packer.held_bytes,
        )

    def _hold(self) -> Awaitable[None]:
        return self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Give the loop its turn; if too much is held, wait until half of it is answered."""
        packer = self._packer
        if packer.is_full:
            packer.release()
            while packer.error is None and not packer.has_room:
                self._roomy.clear()
                await self._roomy.wait()
        else:
            await asyncio.sleep(0)
        if packer.error is not None:
            raise packer.error.with_traceback(None)
        packer.begin_turn()
        count, size = self._most_failures
        if self._failures.count > count or self._failures.size > size:
            self._raise_failures()

    def _raise_failures(self) -> None:
        failed = self._failures.take()
        if self._broken is not None:
            raise self._broken from failed
        if failed is not None:
            raise failed

    async def _until_answered(self) -> None:
        """Wait for the last batch that each stream has now."""
        self._packer.release()
        batches = [lane.last for lane in self._packer.lanes.values()]
        left = len(batches) - batches.count(None)
        answered: asyncio.Future[None] = self._loop.create_future()

        def on_answered() -> None:
            nonlocal left
            left -= 1
            if left == 0 and not answered.done():
                answered.set_result(None)

        for batch in batches:
            if batch is not None:
                batch.on_answered = [*(batch.on_answered or ()), on_answered]
        if left:
            await answered

    async def _end(self) -> None:
        """Take nothing more, and give up what is not answered."""
        if self._packer.error is None:
            self._packer.error = ClientClosed("The publisher was closed")
        if self._timer is not None:
            self._timer.cancel()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        try:
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    LOG.error("The publisher's work failed while it ended: %r", outcome)
        finally:
            self._fail_all(ClientClosed("The publisher was closed before the server answered"))
            failed = self._failures.take()
            if failed is not None:
                LOG.error("%s", failed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else; an error in it ends the publisher."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if task not in self._tasks:
            return  # ended by `_end`
        self._tasks.remove(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._break_down(error)

    def _break_down(self, error: BaseException) -> None:
        """A callback or the guard has raised. What was sent may be written; nobody was told."""
        LOG.error("The publisher has to end: %r", error)
        self._packer.error = self._broken = error
        self._on_result = self._on_failure = None
        reason = ClientClosed(f"The publisher ended because of {error!r}")
        reason.__cause__ = error
        self._fail_all(reason)

    def _on_gathering(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._max_delay, self._on_delay)

    def _on_delay(self) -> None:
        self._timer = None
        self._packer.release()

    def _wake(self) -> None:
        self._woken.set()

    async def _work(self) -> None:
        """Settle answers and send batches, for as long as the publisher is open."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._settle_answers()
            await self._start_ready()

    async def _start_ready(self) -> None:
        outlet, ready = self._outlet, self._packer.ready
        while ready:
            self._settle_answers()
            if outlet.is_full():
                try:
                    await outlet.room()
                except FastpumpError:
                    continue  # nothing was asked for that could expire; who is closed is not full
            self._start(ready.popleft())

    def _start(self, lane: Lane) -> None:
        """Send the lane's next batch, if there is one and nothing speaks against it."""
        batch = lane.sending = lane.take()
        if batch is None:
            self._packer.finish(lane)
            return
        if lane.error is not None:
            self._fail(lane, batch, lane.error)
            return
        version = self._guard.expected(lane.stream)
        if version is None:
            self._ask_guard(lane, batch, None)
            return
        correlation_id = self._outlet.correlation_ids.next()
        try:
            frame = encode_batch(correlation_id, batch, version, self._require_master)
            write = _Write(lane, batch, self._on_answer)
            self._outlet.start(
                WriteEvents(correlation_id, frame, write, self._timeout, lane.stream, version)
            )
        except FastpumpError as error:
            self._on_answer(lane, batch, error)

    def _on_answer(self, lane: Lane, batch: Batch, answer: WriteResult | BaseException) -> None:
        if isinstance(answer, WriteResult):
            self._plan(lane, batch, partial(self._acknowledge, lane, batch, answer))
        elif isinstance(answer, ServerError):
            self._plan(lane, batch, partial(self._ask_guard, lane, batch, answer))
        elif isinstance(answer, FastpumpError):
            self._plan(lane, batch, partial(self._fail, lane, batch, answer))

    def _ask_guard(self, lane: Lane, batch: Batch, error: ServerError | None) -> None:
        self._spawn(self._resolve(lane, batch, error))

    async def _resolve(self, lane: Lane, batch: Batch, error: ServerError | None) -> None:
        """Have the guard decide about a batch."""
        events = batch.events()
        try:
            outcomes = await self._guard.refused(lane.stream, events, error)
        except FastpumpError as reason:
            self._plan(lane, batch, partial(self._fail, lane, batch, reason))
        else:
            self._plan(lane, batch, partial(self._settle, lane, batch, events, outcomes))

    def _plan(self, lane: Lane, batch: Batch, step: Callable[[], None]) -> None:
        """What to do with the batch in the publisher's own task."""
        self._steps.append((lane, batch, step))
        self._woken.set()

    def _settle_answers(self) -> None:
        steps = self._steps
        while steps:
            lane, batch, step = steps.popleft()
            if lane.sending is batch:  # not given up meanwhile
                step()

    def _acknowledge(self, lane: Lane, batch: Batch, result: WriteResult) -> None:
        """The whole batch is written."""
        self._guard.written(lane.stream, result.last_event_number)
        self._acknowledged += batch.count
        self._acknowledged_bytes += batch.data_size
        lane.sending = None
        self._forget(batch)
        if self._on_result is not None or batch.futures is not None:
            numbers = numbers_of(batch, result)
            self._tell(batch, numbers)
            if self._on_result is not None:
                self._call(self._on_result, batch.stream, numbers)
        self._packer.finish(lane)

    def _fail(self, lane: Lane, batch: Batch, reason: FastpumpError) -> None:
        """The whole batch is not written, and neither will be what follows in its stream."""
        lane.error = reason
        if isinstance(reason, (ClientClosed, ConnectFailed)):
            self._packer.error = self._packer.error or reason
            self._roomy.set()
        self._failed += batch.count
        lane.sending = None
        self._forget(batch)
        self._tell(batch, [reason] * batch.count)
        self._report(PublishFailure(batch.stream, batch.events(), reason))
        self._packer.finish(lane)

    def _settle(
        self,
        lane: Lane,
        batch: Batch,
        events: list[NewEventData],
        outcomes: Sequence[int | FastpumpError],
    ) -> None:
        """Each event of the batch has an outcome of its own. Tells of them in their order."""
        pairs = list(zip(events, outcomes, strict=True))
        written = [size_of(event) for event, outcome in pairs if isinstance(outcome, int)]
        self._acknowledged += len(written)
        self._acknowledged_bytes += sum(written)
        self._failed += batch.count - len(written)
        lane.sending = None
        self._forget(batch)
        self._tell(batch, outcomes)
        for event, outcome in pairs:
            if isinstance(outcome, FastpumpError):
                self._report(PublishFailure(batch.stream, [event], outcome))
            elif self._on_result is not None:
                self._call(self._on_result, batch.stream, [outcome])
        self._packer.finish(lane)

    def _tell(self, batch: Batch, outcomes: Sequence[int | FastpumpError]) -> None:
        for place, future in batch.futures or ():
            outcome = outcomes[place]
            if future.done():
                continue
            if isinstance(outcome, FastpumpError):
                future.set_exception(outcome)
                future.exception()  # raised at the end in any case: no warning if nobody looks
            else:
                future.set_result(outcome)

    def _report(self, failure: PublishFailure) -> None:
        if self._on_failure is None:
            self._failures.add(failure)
        else:
            self._call(self._on_failure, failure)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        """What it raises ends the publisher, before whoever waits for the last answer goes on."""
        try:
            callback(*arguments)
        except Exception as error:
            self._break_down(error)

    def _forget(self, batch: Batch) -> None:
        """The batch has ended, in whatever way."""
        self._packer.let_go(batch)
        for on_answered in batch.on_answered or ():
            on_answered()
        if self._packer.has_room:
            self._roomy.set()

    def _fail_all(self, reason: FastpumpError) -> None:
        """Give up everything that is not answered."""
        for lane in list(self._packer.lanes.values()):
            batches = self._packer.discard(lane)
            if lane.sending is not None:
                batches.insert(0, lane.sending)
            for batch in batches:
                self._fail(lane, batch, reason)
        self._roomy.set()
