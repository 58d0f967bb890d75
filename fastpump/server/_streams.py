"""What the node keeps in memory about a stream."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastpump.server._metadata import StreamMetadata

NO_EVENTS: Final = -1
DELETED_NUMBER: Final = 2**63 - 1
"""Event number of a tombstone, and the last number a hard-deleted stream reports (section 5.1)."""


class Stream:
    """One stream. Made by the store, which keeps one object per name while anything is unsaved.

    Attributes:
        id: its number in the database; None until its first event.
        last: number of its last event, committed or not; -1 if there is none. A tombstone does not
            count.
        committed: the same of what is durable; what reads go by.
        deleted: hard-deleted.
        recent: places of events that the `runs` table does not have yet, as triples
            (number, position, count).
        metadata: the content of its metastream's last event; None until somebody asked.
    """

    __slots__ = ("committed", "deleted", "id", "last", "metadata", "name", "recent")

    def __init__(self, name: str, stream_id: int | None = None) -> None:
        self.name = name
        self.id = stream_id
        self.last = NO_EVENTS
        self.committed = NO_EVENTS
        self.deleted = False
        self.recent = array("q")
        self.metadata: StreamMetadata | None = None

    def learn(self, places: list[int] | array[int]) -> None:
        """Take in the places of events that were appended, and what follows for `last`."""
        self.recent.extend(places)
        number, count = places[-3], places[-1]
        if number == DELETED_NUMBER:
            self.deleted = True
            number, count = (places[-6], places[-4]) if len(places) > 3 else (self.last, 1)
        self.last = number + count - 1


def is_system(name: str) -> bool:
    return name.startswith("$")


def is_metastream(name: str) -> bool:
    return name.startswith("$$")


def metastream_of(name: str) -> str:
    return "$$" + name


def original_of(metastream: str) -> str:
    """The stream whose metadata this metastream holds."""
    return metastream[2:]
