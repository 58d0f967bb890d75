"""One connection's share of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fastpump.server.groups.messages import Message


class Receiver(Protocol):
    """Where a consumer's events go."""

    def push(self, message: Message) -> None: ...

    def drop(self) -> None:
        """Tell that the group lets go of this consumer."""

    def describe(self) -> dict[str, Any]:
        """What the group tells of it to who asks."""


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

    @property
    def free_slots(self) -> int:
        return self._free

    @property
    def in_flight(self) -> int:
        """How many events it has not answered."""
        return sum(self._taken.values())

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
