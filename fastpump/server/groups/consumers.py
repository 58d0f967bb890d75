"""One connection's share of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastpump.server.groups.messages import Message


class Receiver(Protocol):
    """Where a consumer's events go."""

    def push(self, message: Message) -> None: ...

    def drop(self) -> None:
        """Tell that the group lets go of this consumer."""


class Consumer:
    """Gets as many events as it has slots, and another one for each that is done.

    Attributes:
        key: its correlation id, by which its answers are known.
        receiver: where its events go.

    Args:
        slots: how many events may be unanswered at a time; with 0 it never gets any.
    """

    def __init__(self, key: bytes, receiver: Receiver, slots: int) -> None:
        self.key = key
        self.receiver = receiver
        self._free = slots
        self._taken: dict[bytes, int] = {}

    @property
    def has_slot(self) -> bool:
        return self._free > 0

    def push(self, message: Message) -> None:
        self._free -= 1
        self._taken[message.event_id] = self._taken.get(message.event_id, 0) + 1
        self.receiver.push(message)

    def release(self, event_id: bytes) -> None:
        """Give back a slot that this event took, if one did."""
        count = self._taken.pop(event_id, 0)
        if count > 1:
            # The stream holds several events of this id.
            self._taken[event_id] = count - 1
        if count:
            self._free += 1
