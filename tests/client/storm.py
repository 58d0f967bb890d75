"""A program that uses all of a client, in many tasks whose callers lose patience at random.

It notes whatever a client must never do. Each task has a random source of its own, so a seed tells
what a task does, though not what happens to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from client.embedded import ADMIN
from client.peer import eventually, soon

import fastpump
from fastpump import (
    Beginning,
    Client,
    Event,
    Filter,
    NewEvent,
    PersistentSubscriptionSettings,
    Position,
    StreamDirection,
    StreamMetadata,
)
from fastpump._operating import Operating
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    OperationExpired,
    OperationTimedOut,
    PersistentSubscriptionAlreadyExists,
    PersistentSubscriptionNotFound,
    ReplayFailed,
    RetriesLimitReached,
    StreamNotFound,
    WrongExpectedVersion,
)
from fastpump.messages import ConditionalWriteStatus, NakAction, NewEventData
from fastpump.publisher import PublishFailure

T = TypeVar("T")

STREAMS = ["s0", "s1", "s2"]
BULK = ["b0", "b1", "b2"]
PATIENCE = 0.02
"""Seconds, the most after which a caller who loses patience does so."""


NAKS = [NakAction.Park, NakAction.Retry, NakAction.Skip]


Subscribe = Callable[[Any], Awaitable[Any]]
"""Subscribes behind a place; None is the place to begin at."""


class GaveUp(Exception):
    """The caller lost patience."""


WEATHER = (ConnectionLost, OperationExpired, OperationTimedOut, RetriesLimitReached, GaveUp)
"""How a call may end because of the storm."""


async def patiently(call: Coroutine[Any, Any, T], chance: Random) -> T:
    """What the call ends with, unless its caller loses patience, as happens now and then."""
    patience = chance.choice([0, chance.random() * PATIENCE]) if chance.random() < 0.15 else None
    task = soon(call)
    try:
        await asyncio.wait({task}, timeout=patience)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        raise GaveUp
    return task.result()


class Written:
    """What was given to a stream, and what is known of it, in the order of writing."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.given: list[UUID] = []
        self.acknowledged: list[UUID] = []
        self.refused: set[UUID] = set()
        self.numbers: dict[UUID, int] = {}

    def new(self, count: int) -> list[NewEventData]:
        events = [NewEvent("t", data={"n": len(self.given) + n}) for n in range(count)]
        self.given += [event.id for event in events]
        return events

    def check(self, stored: Sequence[Event]) -> None:
        ids = [event.id for event in stored]
        assert len(set(ids)) == len(ids), "written twice"
        assert set(ids) <= set(self.given)
        assert not self.refused & set(ids), "refused, and there"
        acknowledged = set(self.acknowledged)
        assert [each for each in ids if each in acknowledged] == self.acknowledged, "lost, or moved"
        numbers = {event.id: event.event_number for event in stored}
        assert self.numbers.items() <= numbers.items()


class Watch:
    """The events that a subscription is for, as they were given out behind `begin`."""

    def __init__(self, is_wanted: Callable[[Event], bool], *, once: bool) -> None:
        self.begin: Any = None
        self.ids: list[UUID] = []
        self._is_wanted = is_wanted
        self._once = once

    def has_all(self, stored: Sequence[Event]) -> bool:
        return set(self._wanted(stored)) <= set(self.ids)

    def check(self, stored: Sequence[Event]) -> None:
        if self._once:
            wanted = self._wanted(stored)
            assert self.ids[: len(wanted)] == wanted, "skipped, or moved"
            assert len(set(self.ids)) == len(self.ids), "given out twice"

    def _wanted(self, stored: Sequence[Event]) -> list[UUID]:
        return [event.id for event in stored if self._is_wanted(event) and self._is_behind(event)]

    def _is_behind(self, event: Event) -> bool:
        return not isinstance(self.begin, int) or event.event_number > self.begin


class Program:
    """The tasks: `work`, which ends, and `watch`, which goes on until it has seen everything."""

    def __init__(self, client: Client, connect: Callable[[], Client], seed: int) -> None:
        self._client = client
        self._connect = connect
        self._seed = seed
        self._written = {name: Written(name) for name in STREAMS + BULK}
        self._watches: list[Watch] = []
        self._watching: list[asyncio.Task[None]] = []

    async def work(self, rounds: int) -> None:
        """Everything that ends by itself, this many times each."""
        kinds = [self._write(self._written[name]) for name in STREAMS]
        kinds += [self._read, self._read, self._read, self._publish, self._replay, self._change]
        repeating = (self._repeat(n, kind, rounds) for n, kind in enumerate(kinds))
        for outcome in await asyncio.gather(*repeating, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def watch(self) -> None:
        """Begin to follow streams, the log, and persistent subscriptions."""
        for stream in STREAMS + BULK:
            self._begin(self._follow, _is_in(stream), self._behind(stream))
        for room in (5, 65536):
            self._begin(self._follow, lambda _: True, self._all_behind(room))
        self._begin(self._follow, _is_in(*BULK), self._some_behind())
        for stream in STREAMS[:2]:
            self._begin(self._consume, _is_in(stream), stream, once=False)

    async def check(self, witness: Client) -> None:
        """What is stored is what was acknowledged; what is stored is seen; nothing is left."""
        stored = [event async for event in witness.iter_all(resolve_links=False)]
        for written in self._written.values():
            written.check([event for event in stored if event.stream == written.stream])
        await eventually(
            lambda: self._has_stopped() or all(w.has_all(stored) for w in self._watches)
        )
        assert not self._has_stopped(), self._watching
        for watch in self._watches:
            watch.check(stored)
        for task in self._watching:
            task.cancel()
        await asyncio.wait(self._watching)
        await eventually(self._is_idle)

    async def check_closed(self) -> None:
        """What was watched has ended with the client; nothing is left."""
        outcomes = await asyncio.gather(*self._watching, return_exceptions=True)
        assert all(isinstance(outcome, ClientClosed) for outcome in outcomes), outcomes
        assert self._is_idle()

    def _has_stopped(self) -> bool:
        return any(task.done() for task in self._watching)

    def _is_idle(self) -> bool:
        stats = self._client.stats()
        busy = (stats.in_flight, stats.waiting, stats.subscriptions, stats.queued_bytes)
        return busy == (0, 0, 0, 0)

    def _begin(
        self,
        watching: Callable[[Watch, Random, Any], Coroutine[Any, Any, None]],
        is_wanted: Callable[[Event], bool],
        what: Any,
        *,
        once: bool = True,
    ) -> None:
        watch = Watch(is_wanted, once=once)
        self._watches.append(watch)
        chance = self._chance(f"watch {len(self._watches)}")
        self._watching.append(soon(watching(watch, chance, what)))

    def _chance(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")

    async def _repeat(
        self, n: int, kind: Callable[[Operating, Random], Awaitable[None]], rounds: int
    ) -> None:
        chance = self._chance(f"work {n}")
        for _ in range(rounds):
            client = chance.choice([self._client, self._client.acting_as(ADMIN)])
            with suppress(*WEATHER):
                await kind(client, chance)
            await asyncio.sleep(chance.choice([0, chance.random() * PATIENCE]))

    # --- what is written ---

    def _write(self, written: Written) -> Callable[[Operating, Random], Awaitable[None]]:
        async def write(client: Operating, chance: Random) -> None:
            events = written.new(chance.randint(1, 5))
            ids = [event.id for event in events]
            way = chance.choice([_publish, _publish, _publish_conditional, _write_in_transaction])
            if await patiently(way(client, written.stream, events), chance):
                written.acknowledged += ids
            else:
                written.refused.update(ids)

        return write

    async def _publish(self, client: Operating, chance: Random) -> None:
        tracked: list[tuple[Written, UUID, asyncio.Future[int]]] = []
        failures: list[PublishFailure] = []
        publisher = client.publisher(
            max_batch_events=chance.choice([1, 5, 500]),
            max_delay=chance.choice([0, 0.005]),
            max_in_flight_events=chance.choice([5, 1000]),
            on_failure=failures.append,
        )

        is_guarded = chance.random() < 0.3

        async def publish() -> None:
            async with publisher:
                for stream in BULK if is_guarded else ():
                    publisher.expect(stream, await _version_of(client, stream))
                for _ in range(chance.randint(1, 60)):
                    written = self._written[chance.choice(BULK)]
                    [event] = written.new(1)
                    future = await publisher.send_tracked(written.stream, event)
                    tracked.append((written, event.id, future))
                    if chance.random() < 0.05:
                        await publisher.flush()

        try:
            await patiently(publish(), chance)
        finally:
            # Also if it was cancelled while it waited for the last answers.
            kinds = (*WEATHER, ClientClosed, WrongExpectedVersion)
            assert all(isinstance(failure.reason, kinds) for failure in failures), failures
            stats = publisher.stats
            assert (stats.waiting, stats.waiting_bytes) == (0, 0)
            for written, event_id, future in tracked:
                assert future.done()
                if isinstance(future.exception(), WrongExpectedVersion):
                    written.refused.add(event_id)
                elif future.exception() is None:
                    written.acknowledged.append(event_id)
                    written.numbers[event_id] = future.result()

    async def _change(self, client: Operating, chance: Random) -> None:
        """What is changed besides events of streams that are looked at."""
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            client.ping,
            lambda: client.set_stream_metadata("m", StreamMetadata(max_count=chance.randint(1, 9))),
            lambda: client.get_stream_metadata("m"),
            lambda: client.publish_event("m", "t"),
            lambda: client.delete_stream("m"),
            lambda: client.get_all(max_count=7),
            lambda: client.get_event("m", -1),
            lambda: client.create_subscription("g", "m"),
            lambda: client.update_subscription("g", "m", PersistentSubscriptionSettings()),
            lambda: client.delete_subscription("g", "m"),
        ]
        with suppress(
            StreamNotFound, PersistentSubscriptionAlreadyExists, PersistentSubscriptionNotFound
        ):
            await patiently(chance.choice(calls)(), chance)

    # --- what is read ---

    async def _read(self, client: Operating, chance: Random) -> None:
        stream, size = chance.choice(STREAMS + BULK), chance.randint(1, 20)
        way = chance.choice([_read_up, _read_down, _read_pages, _read_log, _read_filtered])
        with suppress(StreamNotFound):
            await patiently(way(client, stream, size), chance)

    async def _replay(self, client: Operating, chance: Random) -> None:
        async def replay() -> None:
            await client.ping()  # not without it, though over connections of its own
            numbers = dict.fromkeys(STREAMS, 0)
            async with fastpump.Replay(self._connect, connections=2) as running:
                async for page in running.streams(STREAMS, at_once=2, batch_size=5):
                    for event in page:
                        assert event.event_number == numbers[page.stream]
                        numbers[page.stream] += 1

        reasons: Iterable[Exception] = ()
        try:
            await patiently(replay(), chance)
        except ConnectFailed:
            pass  # it tries three times
        except ReplayFailed as error:
            reasons = error.failures.values()
        assert all(isinstance(reason, (*WEATHER, StreamNotFound)) for reason in reasons), reasons

    # --- what is watched ---

    async def _follow(self, watch: Watch, chance: Random, subscribe: Subscribe) -> None:
        """See all events once, whatever becomes of the subscriptions."""
        place = None
        while True:
            with suppress(*WEATHER):
                subscription = await patiently(_begun(subscribe(place)), chance)
                if place is None:
                    watch.begin = subscription.checkpoint
                try:
                    async with subscription:
                        async for event in _events_of(subscription, chance):
                            watch.ids.append(event.id)
                finally:
                    place = subscription.checkpoint

    def _behind(self, stream: str) -> Subscribe:
        chance = self._chance(f"behind {stream}")
        begin = chance.choice([-1, 0, 0, 3])
        size, room = chance.randint(1, 20), chance.choice([3, 50, 65536])

        def subscribe(place: int | None) -> Awaitable[Any]:
            start = begin if place is None else place + 1
            return self._client.subscribe_to(stream, start, batch_size=size, buffer_events=room)

        return subscribe

    def _all_behind(self, room: int) -> Subscribe:
        size = self._chance(f"behind {room}").randint(1, 50)
        client = self._client.acting_as(ADMIN)

        def subscribe(place: Any) -> Awaitable[Any]:
            start = Beginning if place is None else place
            return client.subscribe_to_all(start, False, batch_size=size, buffer_events=room)

        return subscribe

    def _some_behind(self) -> Subscribe:
        chosen, interval = Filter.stream_prefix("b"), self._chance("behind some").choice([1, 10])
        checkpoints: list[Position] = []

        def note(checkpoint: Position) -> None:
            checkpoints.append(checkpoint)
            assert checkpoints[-2:] == sorted(checkpoints[-2:]), "it went back"

        def subscribe(place: Position | None) -> Awaitable[Any]:
            return self._client.subscribe_to_all(
                Beginning if place is None else place,
                filter=chosen,
                checkpoint_interval=interval,
                on_checkpoint=note,
            )

        return subscribe

    async def _consume(self, watch: Watch, chance: Random, stream: str) -> None:
        """Have all events handed out at least once."""
        client = self._client.acting_as(ADMIN)
        settings = PersistentSubscriptionSettings(start_from=0, message_timeout=0.5)
        is_made = False
        while not is_made:
            with suppress(*WEATHER):
                with suppress(PersistentSubscriptionAlreadyExists):
                    call = client.create_subscription("g", stream, settings=settings)
                    await patiently(call, chance)
                is_made = True
        while True:
            automatic = chance.random() < 0.5
            with suppress(*WEATHER):
                call = client.connect_subscription("g", stream, auto_ack=automatic)
                async with await patiently(call, chance) as subscription:
                    async for event in _events_of(subscription, chance):
                        watch.ids.append(event.id)
                        if chance.random() < 0.1:
                            await subscription.nak(event, chance.choice(NAKS))
                        elif not automatic and chance.random() < 0.97:
                            await subscription.ack(event)


def _is_in(*streams: str) -> Callable[[Event], bool]:
    return lambda event: event.stream in streams


async def _begun(subscribing: Awaitable[T]) -> T:
    return await subscribing


async def _events_of(subscription: Any, chance: Random) -> AsyncIterator[Event]:
    """Its events to its end, one by one or in slices; a wait may be cancelled and begun again."""
    by_slice = chance.random() < 0.3
    items = subscription.slices() if by_slice else subscription.events

    async def following() -> Any:
        return await anext(items, None)

    while True:
        with suppress(GaveUp):
            item = await patiently(following(), chance)
            if item is None:
                return
            for event in item if by_slice else (item,):
                yield event
        if chance.random() < 0.05:
            await asyncio.sleep(chance.random() * PATIENCE)


async def _publish(client: Operating, stream: str, events: list[NewEventData]) -> bool:
    await client.publish(stream, events)
    return True


async def _version_of(client: Operating, stream: str) -> int:
    try:
        return (await client.get(stream, max_count=1)).last_event_number
    except StreamNotFound:
        return -1


async def _publish_conditional(client: Operating, stream: str, events: list[NewEventData]) -> bool:
    version = await _version_of(client, stream)
    written = await client.publish_conditional(stream, events, version)
    return written.status == ConditionalWriteStatus.Succeeded


async def _write_in_transaction(client: Operating, stream: str, events: list[NewEventData]) -> bool:
    async with client.transaction(stream) as running:
        await running.write(events[:1])
        if events[1:]:
            await running.write(events[1:])
    return True


async def _read_up(client: Operating, stream: str, size: int) -> None:
    number = 0
    async for event in client.iter(stream, batch_size=size):
        assert event.event_number == number
        number += 1
        if number == 7 * size:
            break  # pages are under way


async def _read_down(client: Operating, stream: str, size: int) -> None:
    number = None
    async for event in client.iter(stream, StreamDirection.Backward, batch_size=size):
        assert number in (None, event.event_number)
        number = event.event_number - 1
    assert number == -1


async def _read_pages(client: Operating, stream: str, size: int) -> None:
    number = 0
    async for page in client.iter_slices(stream, batch_size=size):
        assert page[0].event_number == number
        number += len(page)


async def _read_log(client: Operating, _: str, size: int) -> None:
    last = None
    async for event in client.iter_all(batch_size=size):
        assert event.position is not None
        assert last is None or event.position > last
        last = event.position


async def _read_filtered(client: Operating, stream: str, size: int) -> None:
    number = 0
    chosen = Filter.stream_prefix(stream)
    async for event in client.iter_all(batch_size=size, filter=chosen, max_search_window=100):
        assert (event.stream, event.event_number) == (stream, number)
        number += 1
