"""Which consumer gets the next event (section 9.2)."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from fastpump.server.groups.settings import DISPATCH_TO_SINGLE, PINNED, ROUND_ROBIN

if TYPE_CHECKING:
    from fastpump.server.groups.consumers import Consumer
    from fastpump.server.groups.messages import Message

BUCKETS = 1024


class Problem(Enum):
    """Why an event has no consumer."""

    NOBODY_FREE = auto()
    NOT_NOW = auto()
    """Its consumer has no slot. That need not be so for the events behind it."""


class Strategy(Protocol):
    def add(self, consumer: Consumer) -> None: ...

    def remove(self, consumer: Consumer) -> None: ...

    def choose(self, message: Message) -> Consumer | Problem:
        """The consumer that gets this event."""


class RoundRobin:
    """Consumers take turns; who has no slot is passed over."""

    def __init__(self) -> None:
        self._turns: deque[Consumer] = deque()

    def add(self, consumer: Consumer) -> None:
        self._turns.append(consumer)

    def remove(self, consumer: Consumer) -> None:
        self._turns.remove(consumer)

    def choose(self, message: Message) -> Consumer | Problem:
        for _ in range(len(self._turns)):
            consumer = self._turns.popleft()
            self._turns.append(consumer)
            if consumer.has_slot:
                return consumer
        return Problem.NOBODY_FREE


class DispatchToSingle:
    """One consumer gets everything until it is full; then it is another one's turn."""

    def __init__(self) -> None:
        self._turns: deque[Consumer] = deque()

    def add(self, consumer: Consumer) -> None:
        self._turns.append(consumer)

    def remove(self, consumer: Consumer) -> None:
        self._turns.remove(consumer)

    def choose(self, message: Message) -> Consumer | Problem:
        for _ in range(len(self._turns)):
            if self._turns[0].has_slot:
                return self._turns[0]
            self._turns.rotate(-1)
        return Problem.NOBODY_FREE


class Pinned:
    """The events of one source stream always go to the same consumer while it is there.

    Streams share buckets, and buckets are given to whoever has the fewest. Which stream is in
    which bucket is the node's own choice; clients cannot rely on it with any server.
    """

    def __init__(self) -> None:
        self._consumers: list[Consumer] = []
        self._owners: dict[int, Consumer] = {}

    def add(self, consumer: Consumer) -> None:
        """Take it in, with a fair share of the buckets that others have now."""
        self._consumers.append(consumer)
        share = -(-len(self._owners) // len(self._consumers))
        kept: Counter[Consumer] = Counter()
        for bucket, owner in list(self._owners.items()):
            kept[owner] += 1
            if kept[owner] > share:
                self._owners[bucket] = consumer

    def remove(self, consumer: Consumer) -> None:
        self._consumers.remove(consumer)
        self._owners = {
            bucket: owner for bucket, owner in self._owners.items() if owner is not consumer
        }

    def choose(self, message: Message) -> Consumer | Problem:
        if not any(consumer.has_slot for consumer in self._consumers):
            return Problem.NOBODY_FREE
        bucket = zlib.crc32(message.source.encode()) % BUCKETS
        owner = self._owners.get(bucket)
        if owner is None:
            owner = self._owners[bucket] = self._least_busy()
        return owner if owner.has_slot else Problem.NOT_NOW

    def _least_busy(self) -> Consumer:
        counts = Counter(self._owners.values())
        return min(self._consumers, key=lambda consumer: counts[consumer])


_STRATEGIES: dict[str, type[Strategy]] = {
    ROUND_ROBIN: RoundRobin,
    DISPATCH_TO_SINGLE: DispatchToSingle,
    PINNED: Pinned,
}


def make_strategy(name: str) -> Strategy:
    """The strategy of that name, one of `settings.STRATEGIES`."""
    return _STRATEGIES[name]()
