"""Which stream names are not in the database: known without asking it.

Whoever writes to a stream needs its last number and its metadata. For a new stream both answers
are "nothing", and finding that in the database would take longer than the rest of the write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._ids import name_key
from fastpump.server._membership import Membership

if TYPE_CHECKING:
    from fastpump.server._database import Database

NAMES_PER_FILTER = 1 << 20


class NameIndex:
    """The table `streams`, and which names are in it.

    Args:
        count: how many names the database has. Their numbers are 1 … count.

    Attributes:
        count: the same, at any time.
    """

    def __init__(self, database: Database, count: int) -> None:
        self._database = database
        self.count = count
        self._known = Membership(database, "name", NAMES_PER_FILTER, count)

    def may_have(self, name: str) -> bool:
        """Whether the database may have this name; False is certain."""
        return self.count > 0 and bool(self._known.filters_with(name_key(name)))

    def write(self, streams: list[tuple[int, str]]) -> None:
        """Store numbers and names of new streams, inside the writer's open transaction."""
        if not streams:
            return
        # In the order of the table, which takes them faster then.
        rows = sorted((name, number) for number, name in streams)
        self._database.writer.executemany("INSERT INTO streams VALUES (?, ?)", rows)
        for count, (_, name) in enumerate(streams, self.count):
            self._known.filter_at(count).add(name_key(name))
        self._known.write(self.count + len(streams))

    def written(self, streams: list[tuple[int, str]]) -> None:
        """These names are durable."""
        self.count += len(streams)
        self._known.written(self.count)
