"""The life of a group without sockets, database and clock."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from fastpump.server.groups.buffers import StreamBuffer
from fastpump.server.groups.consumers import Consumer
from fastpump.server.groups.machine import ConsumerGroup, NakAction, Page
from fastpump.server.groups.messages import Message
from fastpump.server.groups.progress import Progress
from fastpump.server.groups.settings import GroupSettings, strategy_for
from fastpump.server.groups.strategies import Problem, make_strategy


def message(number: int, retry_count: int = 0, *, source: str = "stream") -> Message:
    return Message(b"%d" % number, number, source, None, retry_count)


def messages(numbers: Iterable[int]) -> list[Message]:
    return [message(number) for number in numbers]


def ids(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


class Recorder:
    """A consumer's connection that keeps what it gets."""

    def __init__(self) -> None:
        self.got: list[tuple[int, int]] = []
        self.is_dropped = False

    def push(self, message: Message) -> None:
        self.got.append((message.number, message.retry_count))

    def drop(self) -> None:
        self.is_dropped = True

    def take(self) -> list[tuple[int, int]]:
        """(number, retry count) of what it got since the last time."""
        got, self.got = self.got, []
        return got

    def numbers(self) -> list[int]:
        return [number for number, _ in self.take()]


class World:
    """A group with everything around it: a stream of `size` events, and a clock."""

    def __init__(self, size: int = 0, *, checkpoint: int | None = None, **settings: object) -> None:
        self.now = 1000.0
        self.size = size
        self.requests: list[tuple[int, int]] = []
        self.checkpoints: list[int] = []
        self.parked: list[tuple[Message, str]] = []
        defaults = {"start_from": 0, "message_timeout": 0}
        self.group = ConsumerGroup(
            GroupSettings(**{**defaults, **settings}),  # type: ignore[arg-type]
            self,
            lambda: self.now,
        )
        self.group.start(checkpoint)

    # --- what the group asks for ---

    def request_page(self, first: int, count: int) -> None:
        self.requests.append((first, count))

    def write_checkpoint(self, number: int) -> None:
        self.checkpoints.append(number)

    def park(self, message: Message, reason: str) -> None:
        self.parked.append((message, reason))

    # --- what happens ---

    def join(self, slots: int = 10, key: bytes = b"key") -> Recorder:
        recorder = Recorder()
        self.group.join(Consumer(key, recorder, slots))
        return recorder

    def leave(self, *keys: bytes) -> None:
        found = [self.group.consumer(key) for key in keys]
        self.group.leave([consumer for consumer in found if consumer is not None])

    def ack(self, *numbers: int, key: bytes = b"key") -> None:
        self.group.acknowledge(key, ids(*numbers))

    def nak(self, *numbers: int, action: NakAction = NakAction.RETRY, key: bytes = b"key") -> None:
        self.group.refuse(key, ids(*numbers), action, "why")

    def read(self, pages: int | None = None) -> None:
        """Answer the requests for pages: all that come, or so many."""
        while self.requests and pages != 0:
            first, count = self.requests.pop(0)
            end = min(first + count, self.size)
            page = Page(messages(range(first, end)), max(first, end), end >= self.size)
            self.group.page_read(page)
            pages = None if pages is None else pages - 1

    def write(self, count: int = 1) -> None:
        first, self.size = self.size, self.size + count
        self.group.committed(messages(range(first, self.size)))

    def tick(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.group.tick()


# --- reading ---


def test_reads_from_the_start() -> None:
    world = World(30)
    assert world.requests == [(0, 20)]
    world.read()
    assert world.join(slots=100).numbers() == list(range(30))


@pytest.mark.parametrize(
    ("start_from", "checkpoint", "first"), [(7, None, 7), (0, 4, 5), (-1, 4, 5), (9, 4, 5)]
)
def test_where_it_begins(start_from: int, checkpoint: int | None, first: int) -> None:
    world = World(10, checkpoint=checkpoint, start_from=start_from)
    assert world.requests == [(first, 20)]


@pytest.mark.parametrize("start_from", [-1, -2])
def test_from_now_on_reads_nothing(start_from: int) -> None:
    world = World(10, start_from=start_from)
    consumer = world.join()
    world.write()
    assert world.requests == []
    assert consumer.numbers() == [10]


@pytest.mark.parametrize(("asked", "read"), [(0, 20), (-5, 20), (7, 7), (500, 500), (501, 500)])
def test_page_sizes(asked: int, read: int) -> None:
    assert World(read_batch_size=asked, buffer_size=1000).requests == [(0, read)]


def test_reads_as_much_as_the_buffer_holds() -> None:
    world = World(1000, buffer_size=50)
    world.read()
    assert world.join(slots=1000).numbers() == list(range(40))


def test_a_free_slot_alone_makes_it_read_nothing() -> None:
    """PS-19 of the recordings."""
    world = World(15, read_batch_size=5, buffer_size=10)
    world.read()
    consumer = world.join()
    assert consumer.numbers() == [0, 1, 2, 3, 4]
    world.tick()
    assert world.requests == []
    world.ack(0)
    world.read()
    assert consumer.numbers() == [5, 6, 7, 8, 9]


def test_asks_for_one_page_at_a_time() -> None:
    world = World(100)
    world.join()
    world.ack(1)
    assert world.requests == [(0, 20)]


def test_events_before_the_start_are_not_delivered() -> None:
    world = World(5, start_from=7)
    world.read()
    consumer = world.join()
    world.write(3)
    assert consumer.numbers() == [7]


def test_written_while_it_reads() -> None:
    world = World(30)
    world.read(pages=1)
    world.write(5)
    world.read()
    world.write(5)
    assert world.join(slots=100).numbers() == list(range(40))


def test_more_written_while_it_reads_than_it_remembers() -> None:
    world = World(30, live_buffer_size=3)
    world.read(pages=1)
    world.write(20)
    world.read()
    world.write(1)
    assert world.join(slots=100).numbers() == list(range(51))


def test_nothing_is_remembered() -> None:
    world = World(1, live_buffer_size=0)
    world.write(1)
    world.read()
    world.write(1)
    assert world.join().numbers() == [0, 1, 2]


@pytest.mark.parametrize("remembered", [0, 1, 2, 7, 100])
def test_a_live_group_that_cannot_keep_up_reads_again(remembered: int) -> None:
    world = World(live_buffer_size=remembered, buffer_size=6, read_batch_size=3)
    world.read()
    world.write(50)
    consumer = world.join(slots=1)
    numbers = []
    for number in range(50):
        numbers += consumer.numbers()
        world.ack(number)
        world.read()
    assert numbers == list(range(50))


def test_what_was_remembered_comes_even_if_it_cannot_be_read() -> None:
    world = World(3)
    world.write(2)
    world.group.page_read(Page((), 0, is_end=True))
    assert world.join().numbers() == [3, 4]


def test_a_gap_at_the_switch() -> None:
    world = World(3)
    world.write(2)
    world.group.page_read(Page(messages([0, 4]), 5, is_end=True))
    assert world.join().numbers() == [0, 4]


# --- slots and answers ---


def test_slots() -> None:
    world = World(10)
    world.read()
    consumer = world.join(slots=2)
    assert consumer.numbers() == [0, 1]
    world.ack(1)
    assert consumer.numbers() == [2]
    world.ack(1, 7)
    assert consumer.numbers() == []
    world.ack(0, 2)
    assert consumer.numbers() == [3, 4]


def test_no_slots() -> None:
    world = World(1)
    world.read()
    assert world.join(slots=0).take() == []


def test_another_consumers_ack_frees_no_slot() -> None:
    """PS-24 of the recordings."""
    world = World(3)
    world.read()
    consumer = world.join(slots=1)
    world.ack(0, key=b"other")
    assert consumer.numbers() == [0]
    world.ack(0)
    assert consumer.numbers() == [1]
    world.leave(b"key")
    assert world.join().take() == [(1, 1), (2, 0)]


@pytest.mark.parametrize("action", [NakAction.RETRY, NakAction.UNKNOWN])
def test_retries_come_first_and_in_order(action: NakAction) -> None:
    world = World(5)
    world.read()
    consumer = world.join(slots=3)
    assert consumer.numbers() == [0, 1, 2]
    world.nak(2, 0, action=action)
    assert consumer.take() == [(0, 1), (2, 1)]
    world.nak(0)
    world.ack(1, 2)
    assert consumer.take() == [(0, 2), (3, 0), (4, 0)]


@pytest.mark.parametrize("most", [0, 2])
def test_too_many_retries(most: int) -> None:
    world = World(1, max_retry_count=most)
    world.read()
    consumer = world.join()
    for _ in range(most + 1):
        world.nak(0)
    assert consumer.take() == [(0, count) for count in range(most + 1)]
    assert [reason for _, reason in world.parked] == [f"Reached retry count of {most}"]


def test_park() -> None:
    world = World(2)
    world.read()
    consumer = world.join(slots=1)
    world.nak(0, action=NakAction.PARK)
    assert consumer.numbers() == [0, 1]
    assert [(parked.number, reason) for parked, reason in world.parked] == [
        (0, "Client explicitly NAK'ed message.\nwhy")
    ]


@pytest.mark.parametrize("action", [NakAction.SKIP, NakAction.STOP])
def test_skip(action: NakAction) -> None:
    world = World(2)
    world.read()
    consumer = world.join(slots=1)
    world.nak(0, action=action)
    assert consumer.numbers() == [0, 1]
    assert world.parked == []


def test_timeouts() -> None:
    world = World(3, message_timeout=3000, max_retry_count=1)
    world.read()
    consumer = world.join(slots=2)
    assert consumer.take() == [(0, 0), (1, 0)]
    world.ack(1)
    assert consumer.take() == [(2, 0)]
    world.tick(2.9)
    assert consumer.take() == []
    world.tick(0.1)
    assert consumer.take() == [(0, 1), (2, 1)]
    world.ack(2)
    world.tick(3)
    assert consumer.take() == []
    assert [parked.number for parked, _ in world.parked] == [0]
    world.ack(0)


def test_no_timeout() -> None:
    world = World(1, message_timeout=0)
    world.read()
    consumer = world.join()
    world.tick(10**9)
    assert consumer.take() == [(0, 0)]


def test_a_late_ack_counts() -> None:
    world = World(2, message_timeout=1000)
    world.read()
    consumer = world.join(slots=1)
    world.tick()
    assert consumer.take() == [(0, 0), (0, 1)]
    world.ack(0)
    assert consumer.take() == [(1, 0)]
    world.ack(0)
    assert consumer.take() == []


def test_one_id_twice() -> None:
    world = World()
    world.read()
    consumer = world.join(slots=2)
    twins = [Message(b"id", number, "stream", None) for number in range(3)]
    world.group.committed(twins)
    assert consumer.numbers() == [0, 1]
    world.group.acknowledge(b"key", [b"id"])
    assert consumer.numbers() == [2]
    world.group.acknowledge(b"key", [b"id", b"id"])
    world.write(2)
    assert consumer.numbers() == [0, 1]


# --- consumers come and go ---


def test_subscriber_limit() -> None:
    world = World(max_subscribers=2)
    is_full = []
    for key in (b"a", b"b"):
        world.join(key=key)
        is_full.append(world.group.is_full)
    world.leave(b"a")
    is_full.append(world.group.is_full)
    assert is_full == [False, True, False]


def test_no_subscriber_limit() -> None:
    world = World(max_subscribers=0)
    for number in range(50):
        world.join(key=b"%d" % number)
    assert not world.group.is_full


def test_who_leaves_leaves_events_to_the_others() -> None:
    world = World(6)
    world.read()
    first = world.join(slots=3, key=b"a")
    world.nak(0, key=b"a")
    world.nak(0, key=b"a")
    assert first.take() == [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)]
    second = world.join(slots=2, key=b"b")
    assert second.take() == [(3, 0), (4, 0)]
    world.ack(1, key=b"a")
    world.leave(b"a")
    # Version 4 begins to count anew.
    world.ack(3, 4, key=b"b")
    assert second.take() == [(0, 1), (2, 1)]


def test_several_leave_at_once() -> None:
    world = World(4)
    world.read()
    world.join(slots=1, key=b"a")
    world.join(slots=1, key=b"b")
    world.leave(b"b", b"a")
    assert world.join(key=b"c").take() == [(0, 1), (1, 1), (2, 0), (3, 0)]


def test_stop_drops_consumers() -> None:
    world = World()
    consumers = [world.join(key=key) for key in (b"a", b"b")]
    world.group.stop()
    assert all(consumer.is_dropped for consumer in consumers)
    assert not world.group.consumers
    world.read()
    world.write()
    assert not any(consumer.got for consumer in consumers)


# --- checkpoints ---


def test_a_checkpoint_is_written_at_once_when_enough_is_done() -> None:
    world = World(10, checkpoint_max=3)
    world.read()
    world.join()
    world.ack(0, 1)
    assert world.checkpoints == []
    world.ack(2)
    assert world.checkpoints == [2]
    world.ack(4, 5, 6)
    assert world.checkpoints == [2]
    world.ack(3)
    assert world.checkpoints == [2, 6]


def test_the_clock_writes_checkpoints() -> None:
    world = World(10, checkpoint_min=2, checkpoint_after=2000)
    world.read()
    world.join()
    world.ack(0)
    world.tick()
    assert world.checkpoints == []
    world.ack(1)
    world.tick()
    assert world.checkpoints == [1]
    world.ack(2, 3)
    world.tick(1)
    assert world.checkpoints == [1]
    world.tick(1)
    assert world.checkpoints == [1, 3]
    world.tick(10)
    assert world.checkpoints == [1, 3]


def test_the_same_checkpoint_is_not_written_again() -> None:
    world = World(2, checkpoint_min=0, checkpoint_max=0, checkpoint_after=0)
    world.read()
    world.join()
    world.ack(0)
    world.ack(0)
    world.tick()
    assert world.checkpoints == [0]


def test_no_checkpoint_before_anything_is_done() -> None:
    world = World(3, checkpoint_max=1, checkpoint_min=1, checkpoint_after=0)
    world.tick()
    world.read()
    world.join()
    world.tick()
    assert world.checkpoints == []


@pytest.mark.parametrize("action", [NakAction.RETRY, NakAction.PARK])
def test_what_is_tried_again_or_being_parked_is_not_done(action: NakAction) -> None:
    world = World(3, checkpoint_max=1)
    world.read()
    world.join(slots=3)
    world.nak(1, action=action)
    world.ack(2)
    world.ack(0)
    assert world.checkpoints == [0]


def test_what_waits_to_be_tried_again_is_not_done() -> None:
    world = World(3, checkpoint_max=1)
    world.read()
    world.join(slots=3, key=b"a")
    world.ack(0, key=b"a")
    world.leave(b"a")
    assert world.checkpoints == [0]
    world.join(slots=1, key=b"b")
    world.ack(1, key=b"b")
    assert world.checkpoints == [0, 1]


def test_parked_is_done() -> None:
    world = World(2, checkpoint_max=1)
    world.read()
    world.join()
    world.nak(0, action=NakAction.PARK)
    world.ack(1)
    assert world.checkpoints == []
    world.group.parked(world.parked[0][0])
    assert world.checkpoints == [1]


def test_replayed_events_do_not_count() -> None:
    world = World(10, checkpoint_max=1)
    world.read()
    consumer = world.join(slots=3)
    world.ack(0, 1, 2)
    world.ack(3)
    assert world.checkpoints == [2, 3]
    consumer.take()
    replayed = [Message(b"link%d" % n, n, "x", None, is_replayed=True) for n in (1, 0)]
    world.group.replay(replayed)
    world.ack(4, 5, 6)
    assert consumer.take() == [(1, 0), (0, 0), (7, 0)]
    world.group.acknowledge(b"key", [b"link1", b"link0"])
    assert world.checkpoints == [2, 3, 6]
    assert consumer.take() == [(8, 0), (9, 0)]


def test_a_replayed_event_may_be_parked_again() -> None:
    world = World()
    world.read()
    world.join()
    world.group.replay([Message(b"link", 0, "x", None, is_replayed=True)])
    world.group.refuse(b"key", [b"link"], NakAction.PARK, "")
    world.group.parked(world.parked[0][0])
    assert world.checkpoints == []


def test_progress_of_many() -> None:
    progress = Progress(GroupSettings())
    assert progress.done == -1
    for number in range(100):
        progress.begin(number)
    for number in reversed(range(50, 100)):
        progress.finish(number)
    assert progress.done == -1
    for number in range(50):
        progress.finish(number)
        assert progress.done == (number if number < 49 else 99)


# --- whatever happens ---


class Chance:
    """Consumers that do what they like, in a group of small buffers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(
            self.random.randrange(30),
            start_from=0,
            strategy=self.random.choice(["RoundRobin", "DispatchToSingle", "Pinned"]),
            live_buffer_size=self.random.randrange(6),
            buffer_size=self.random.randrange(4, 20),
            read_batch_size=self.random.randrange(1, 4),
            max_retry_count=self.random.randrange(3),
            message_timeout=self.random.choice([0, 1500]),
            checkpoint_max=self.random.randrange(1, 5),
        )
        self.seen: set[int] = set()
        self.finished: set[int] = set()
        self.present: dict[bytes, Recorder] = {}

    def step(self) -> None:
        kinds = (self.join, self.leave, self.write, self.answer, self.answer, self.wait, self.read)
        self.random.choice(kinds)()
        self.settle()

    def join(self) -> None:
        key = b"%d" % self.random.randrange(4)
        if key not in self.present:
            self.present[key] = self.world.join(self.random.randrange(1, 5), key)

    def leave(self) -> None:
        if self.present:
            key = self.random.choice(list(self.present))
            self.seen.update(self.present.pop(key).numbers())
            self.world.leave(key)

    def write(self) -> None:
        self.world.write(self.random.randrange(1, 6))

    def wait(self) -> None:
        self.world.tick()

    def read(self) -> None:
        self.world.read(pages=1)

    def answer(self) -> None:
        for key, recorder in self.present.items():
            for number in recorder.numbers():
                self.seen.add(number)
                action = self.random.choice([None, None, *NakAction])
                if action is None:
                    self.finished.add(number)
                    self.world.ack(number, key=key)
                else:
                    if action in (NakAction.SKIP, NakAction.STOP):
                        self.finished.add(number)
                    self.world.nak(number, action=action, key=key)

    def settle(self) -> None:
        """What was parked is stored; no checkpoint is ahead of what is finished."""
        while self.world.parked:
            message, _ = self.world.parked.pop()
            self.seen.add(message.number)
            self.finished.add(message.number)
            self.world.group.parked(message)
        for number in self.world.checkpoints:
            assert set(range(number + 1)) <= self.finished

    def end(self) -> None:
        """Somebody comes who does everything that is left."""
        while self.present:
            self.leave()
        consumer = self.world.join(slots=3)
        self.world.ack()
        self.world.read()
        numbers = consumer.numbers()
        while numbers:
            self.seen.update(numbers)
            self.finished.update(numbers)
            self.world.ack(*numbers)
            self.world.read()
            numbers = consumer.numbers()


@pytest.mark.parametrize("seed", range(200))
def test_no_event_is_lost(seed: int) -> None:
    chance = Chance(seed)
    for _ in range(150):
        chance.step()
    chance.end()
    chance.settle()
    everything = set(range(chance.world.size))
    assert chance.seen == everything
    assert chance.finished == everything


# --- buffers ---


def test_retries_are_ordered_and_replayed_ones_come_last() -> None:
    buffer = StreamBuffer(10, 10, is_live=True)
    replayed = Message(b"r", 0, "x", None, is_replayed=True)
    for retry in (message(5), replayed, message(3), message(9), message(3)):
        buffer.add_retry(retry)
    assert [m.number for m in buffer.retries] == [3, 3, 5, 9, 0]


def test_room_in_a_buffer() -> None:
    buffer = StreamBuffer(10, 10, is_live=True)
    assert buffer.accepts(9)
    assert not buffer.accepts(10)
    buffer.add_live(message(0))
    buffer.add_retry(message(1))
    assert buffer.accepts(7)
    assert not buffer.accepts(8)


# --- strategies ---


def consumers(*slots: int) -> list[Consumer]:
    return [Consumer(b"%d" % index, Recorder(), count) for index, count in enumerate(slots)]


def assigned(name: str, members: list[Consumer], sources: Iterable[str]) -> list[object]:
    """The indexes of the consumers that get the events, or why nobody does."""
    strategy = make_strategy(name)
    for member in members:
        strategy.add(member)
    result: list[object] = []
    for number, source in enumerate(sources):
        chosen = strategy.choose(message(number, source=source))
        if isinstance(chosen, Consumer):
            chosen.push(message(number, source=source))
            result.append(members.index(chosen))
        else:
            result.append(chosen)
    return result


def test_round_robin() -> None:
    full = Problem.NOBODY_FREE
    assert assigned("RoundRobin", consumers(1, 3), "aaaaa") == [0, 1, 1, 1, full]


def test_dispatch_to_single() -> None:
    full = Problem.NOBODY_FREE
    assert assigned("DispatchToSingle", consumers(2, 3), "aaaaaa") == [0, 0, 1, 1, 1, full]


def test_dispatch_to_single_stays_with_the_second() -> None:
    """PS-46 of the recordings."""
    strategy = make_strategy("DispatchToSingle")
    first, second = consumers(1, 9)
    strategy.add(first)
    strategy.add(second)
    first.push(message(0))
    assert strategy.choose(message(1)) is second
    first.release(b"0")
    assert strategy.choose(message(2)) is second


def test_pinned() -> None:
    sources = [f"source-{number % 10}" for number in range(50)]
    result = assigned("Pinned", consumers(100, 100), sources)
    assert result == result[:10] * 5
    assert result.count(0) == result.count(1) == 25


def test_pinned_passes_over_who_is_full() -> None:
    result = assigned("Pinned", consumers(1, 5), ["a", "a", "b", "b"])
    assert result == [0, Problem.NOT_NOW, 1, 1]
    assert assigned("Pinned", consumers(1), ["a", "a"]) == [0, Problem.NOBODY_FREE]


def test_pinned_shares_when_somebody_comes_and_goes() -> None:
    strategy = make_strategy("Pinned")
    first, second = consumers(100, 100)
    strategy.add(first)
    sources = [f"source-{number}" for number in range(20)]
    events = [message(0, source=source) for source in sources]
    assert {strategy.choose(m) for m in events} == {first}
    strategy.add(second)
    owners = [strategy.choose(m) for m in events]
    assert owners.count(first) == owners.count(second) == 10
    assert [strategy.choose(m) for m in events] == owners
    strategy.remove(first)
    assert {strategy.choose(m) for m in events} == {second}


def test_pinned_in_a_group_lets_others_overtake() -> None:
    world = World(strategy="Pinned")
    world.read()
    first, second = world.join(slots=1, key=b"a"), world.join(slots=5, key=b"b")
    world.group.committed(
        Message(b"%d" % number, number, source, None) for number, source in enumerate("aaabb")
    )
    assert first.numbers() == [0]
    assert second.numbers() == [3, 4]
    world.ack(0, key=b"a")
    assert first.numbers() == [1]


def test_nobody_there() -> None:
    for name in ("RoundRobin", "DispatchToSingle", "Pinned"):
        assert make_strategy(name).choose(message(0)) is Problem.NOBODY_FREE


# --- settings ---


def test_stored_settings() -> None:
    settings = GroupSettings(resolve_links=True, start_from=0, max_subscribers=7)
    stored = settings.to_stored()
    assert "startFrom" not in stored
    assert stored["maxSubscriberCount"] == 7
    assert GroupSettings.from_stored(stored) == settings
    with pytest.raises(TypeError):
        GroupSettings.from_stored({**stored, "messageTimeout": "soon"})


def test_strategy_names() -> None:
    assert strategy_for("Any", prefer_round_robin=True) == "Any"
    for nothing in ("", None):
        assert strategy_for(nothing, prefer_round_robin=True) == "RoundRobin"
        assert strategy_for(nothing, prefer_round_robin=False) == "DispatchToSingle"


def test_one_event_that_nobody_answers_keeps_no_others() -> None:
    progress = Progress(GroupSettings())
    progress.begin(0)
    for number in range(1, 20_000):
        progress.begin(number)
        progress.finish(number)
        assert progress.done == -1
    assert len(progress._heap) < 2_000
    progress.finish(0)
    assert progress.done == 19_999
