"""A group for tests with what it needs around it, without sockets, database and clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server.groups.consumers import Consumer
from fastpump.server.groups.machine import ConsumerGroup, NakAction, Page
from fastpump.server.groups.messages import Message
from fastpump.server.groups.settings import GroupSettings

if TYPE_CHECKING:
    from collections.abc import Iterable


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
