"""How far a group has come: its checkpoints, and that it loses no event, whatever happens."""

from __future__ import annotations

import random

import pytest
from machinelib import Recorder, World

from fastpump.server.groups.machine import NakAction
from fastpump.server.groups.messages import Message
from fastpump.server.groups.progress import Progress
from fastpump.server.groups.settings import GroupSettings

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
