"""The event id index as a whole: the newest ids in memory, the others in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._ids import CHUNKS, IdTable, chunk_of, find_in_chunk
from fastpump.server._membership import Membership

if TYPE_CHECKING:
    from fastpump.server._database import Database

RUNS_PER_FILTER = 16
"""A million ids: a run has `store.INDEX_EVERY`."""


class IdIndex:
    """Event id -> (stream number, event number) of the first event that had it.

    `recent` is filled by whoever encodes events; `write_run` and `forget_recent` move it to the
    database.
    """

    def __init__(self, database: Database, runs: int) -> None:
        self._database = database
        self._runs = runs
        self.recent = IdTable()
        self._known = Membership(database, "id", RUNS_PER_FILTER, runs)

    @property
    def runs(self) -> int:
        """Runs in the database."""
        return self._runs

    def find(self, event_id: bytes) -> tuple[int, int] | None:
        """(stream number, event number) of the first event with this id, or None."""
        for number in self._known.filters_with(event_id):
            found = self._find_stored(number * RUNS_PER_FILTER, event_id)
            if found is not None:
                return found
        return self.recent.find(event_id)

    def _find_stored(self, first: int, event_id: bytes) -> tuple[int, int] | None:
        """Search the runs of one filter, `first` and those after it."""
        for run in range(first, min(first + RUNS_PER_FILTER, self._runs)):
            slot = run * CHUNKS + chunk_of(event_id)
            row = self._database.reader.execute("SELECT entries FROM ids WHERE slot = ?", (slot,))
            found = find_in_chunk(row.fetchone()[0], event_id)
            if found is not None:
                return found
        return None

    def write_run(self) -> None:
        """Write `recent` as the next run, inside the writer's open transaction."""
        rows = enumerate(self.recent.to_run(), self._runs * CHUNKS)
        self._database.writer.executemany("INSERT INTO ids VALUES (?, ?)", rows)
        self._known.filter_at(self._runs).add_table(self.recent)
        self._known.write(self._runs + 1)

    def forget_recent(self) -> None:
        """The run is durable: `recent` starts anew."""
        self._runs += 1
        self._known.written(self._runs)
        self.recent.clear()
