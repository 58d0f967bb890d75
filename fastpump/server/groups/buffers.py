"""Events of a group that wait for a consumer (section 9.6)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastpump.server.groups.messages import Message


class StreamBuffer:
    """What is to be delivered next: first what is tried again, then the stream's events in order.

    A buffer that is live takes events as they are committed. One that is not is filled by reading
    the stream, and remembers the newest events until the reading has caught up with them.

    Attributes:
        retries: by event number, replayed ones at the end.
        fresh: events that were never delivered.
        is_live: whether the stream need not be read.

    Args:
        size: how many events may wait before the stream is not read on.
        live_size: how many new events are remembered.
        is_live: whether to begin with what comes, not with what is stored.
    """

    def __init__(self, size: int, live_size: int, *, is_live: bool) -> None:
        self._size = size
        self._newest: deque[Message] = deque(maxlen=max(live_size, 0))
        self.retries: deque[Message] = deque()
        self.fresh: deque[Message] = deque()
        self.is_live = is_live

    @property
    def newest_count(self) -> int:
        """How many new events are remembered."""
        return len(self._newest)

    def accepts(self, count: int) -> bool:
        """Whether a page of so many events may be read."""
        return self._size - len(self.retries) - len(self.fresh) > count

    def add_live(self, message: Message) -> None:
        """Take an event that was just committed; a buffer that is full is live no more."""
        if self.is_live:
            if len(self.fresh) < self._size:
                self.fresh.append(message)
            else:
                self.is_live = False
        self._newest.append(message)

    def add_read(self, messages: Iterable[Message]) -> None:
        """Take events that were read, up to where the remembered ones begin: then it is live."""
        for message in messages:
            if self.is_live:
                return
            if not self._newest or message.number < self._newest[0].number:
                self.fresh.append(message)
            else:
                self.go_live(message.number)

    def go_live(self, number: int) -> None:
        """Everything before this number was read: what is remembered from there on comes next."""
        self.fresh.extend(message for message in self._newest if message.number >= number)
        self.is_live = True

    def add_retry(self, message: Message) -> None:
        """Take an event that was delivered and has to be delivered again."""
        retries = self.retries
        place = len(retries)
        if not message.is_replayed:
            while place and _comes_after(retries[place - 1], message):
                place -= 1
        retries.insert(place, message)


def _comes_after(waiting: Message, message: Message) -> bool:
    return waiting.is_replayed or waiting.number > message.number
