"""The event id index as a whole: the newest ids in memory, the others in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._ids import CHUNKS, BloomFilter, IdTable, chunk_of, find_in_chunk

if TYPE_CHECKING:
    from fastpump.server._database import Database

RUNS_PER_FILTER = 16
FILTER_BITS = 1 << 24
"""2 MiB for a million ids (RUNS_PER_FILTER runs of `store.INDEX_EVERY`): 16 bits per id."""


class IdIndex:
    """Event id -> (stream number, event number) of the first event that had it.

    `recent` is filled by whoever encodes events; `run_rows` and `forget_recent` move it to the
    database.
    """

    def __init__(self, database: Database, runs: int) -> None:
        self._database = database
        self._runs = runs
        self.recent = IdTable()
        stored = database.reader.execute("SELECT bits FROM filters ORDER BY partition")
        self._filters = [BloomFilter(FILTER_BITS, bits) for (bits,) in stored]

    @property
    def runs(self) -> int:
        """Runs in the database."""
        return self._runs

    def find(self, event_id: bytes) -> tuple[int, int] | None:
        """(stream number, event number) of the first event with this id, or None."""
        for partition, known in enumerate(self._filters):
            if event_id in known:
                found = self._find_stored(partition, event_id)
                if found is not None:
                    return found
        return self.recent.find(event_id)

    def _find_stored(self, partition: int, event_id: bytes) -> tuple[int, int] | None:
        first = partition * RUNS_PER_FILTER
        for run in range(first, min(first + RUNS_PER_FILTER, self._runs)):
            slot = run * CHUNKS + chunk_of(event_id)
            row = self._database.reader.execute("SELECT entries FROM ids WHERE slot = ?", (slot,))
            found = find_in_chunk(row.fetchone()[0], event_id)
            if found is not None:
                return found
        return None

    def write_run(self) -> None:
        """Write `recent` as the next run, inside the writer's open transaction."""
        partition = self._runs // RUNS_PER_FILTER
        if partition == len(self._filters):
            self._filters.append(BloomFilter(FILTER_BITS))
        known = self._filters[partition]
        known.add_table(self.recent)
        first = self._runs * CHUNKS
        writer = self._database.writer
        rows = enumerate(self.recent.to_run(), first)
        writer.executemany("INSERT INTO ids VALUES (?, ?)", rows)
        writer.execute("REPLACE INTO filters VALUES (?, ?)", (partition, known.to_bytes()))

    def forget_recent(self) -> None:
        """The run is durable: `recent` starts anew."""
        self._runs += 1
        self.recent.clear()
