"""Which stream names are not in the database: known without asking it.

Whoever writes to a stream needs its last number and its metadata. For a new stream both answers
are "nothing", and finding that in the database would take longer than the rest of the write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._ids import BloomFilter, name_key

if TYPE_CHECKING:
    from fastpump.server._database import Database

NAMES_PER_FILTER = 1 << 20
FILTER_BITS = 1 << 24
"""2 MiB for a million names: 16 bits per name."""


class NameIndex:
    """The table `streams`, and Bloom filters of the names in it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        stored = database.reader.execute("SELECT bits FROM name_filters ORDER BY partition")
        self._filters = [BloomFilter(FILTER_BITS, bits) for (bits,) in stored]

    def may_have(self, name: str) -> bool:
        """Whether the database may have this name; False is certain."""
        if not self._filters:
            return False
        key = name_key(name)
        for known in self._filters:  # noqa: SIM110 - a generator would take as long as the search
            if key in known:
                return True
        return False

    def write(self, streams: list[tuple[int, str]]) -> None:
        """Store numbers and names of new streams, inside the writer's open transaction.

        Should that be rolled back, the filters know too many names, which does no harm.
        """
        writer = self._database.writer
        writer.executemany("INSERT INTO streams VALUES (?, ?)", streams)
        changed = set()
        for stream_id, name in streams:
            partition = stream_id // NAMES_PER_FILTER
            while partition >= len(self._filters):
                self._filters.append(BloomFilter(FILTER_BITS))
            self._filters[partition].add(name_key(name))
            changed.add(partition)
        writer.executemany(
            "REPLACE INTO name_filters VALUES (?, ?)",
            ((partition, self._filters[partition].to_bytes()) for partition in changed),
        )
