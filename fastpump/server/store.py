"""Events in SQLite: the log, and where in it a stream's events and an event id lie.

The store knows no rules of the protocol: it appends what it is told, and finds it again. All of it
runs in the event loop's thread but `commit`, which waits for the disk and may run in another one.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_right, insort
from collections import OrderedDict
from typing import TYPE_CHECKING

from fastpump.server._database import Database, sqlite_errors
from fastpump.server._idindex import IdIndex
from fastpump.server._log_writer import LogWriter
from fastpump.server._nameindex import NameIndex
from fastpump.server._records import Entry, entries_of, learn_ids, runs_of, span_of
from fastpump.server._streams import Stream
from fastpump.server._transaction_table import TransactionTable
from fastpump.server.errors import StoreDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fastpump.server._transaction_table import Statement

INDEX_EVERY = 65536
"""Events after which the index tables are brought up to date; opening may re-read so many."""
NEW_STREAMS_EVERY = 16384
"""New streams after which all of these but the ids are: the loop has to wait for that."""

PLACES_PER_ROW = 128
CACHED_STREAMS = 65536
CACHED_BYTES = 8 * 1024 * 1024

Segment = tuple[int, bytes]
"""Position of its first byte, and the entries in it."""


class SegmentCache:
    """The segments used last, bounded in bytes, found by any position in them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._segments: OrderedDict[int, bytes] = OrderedDict()
        self._starts: list[int] = []

    def find(self, position: int) -> Segment | None:
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return None
        start = self._starts[index]
        records = self._segments[start]
        if position >= start + len(records):
            return None
        self._segments.move_to_end(start)
        return start, records

    def add(self, start: int, records: bytes) -> None:
        if start in self._segments:
            return
        self._segments[start] = records
        insort(self._starts, start)
        self._size += len(records)
        while self._size > self._limit and len(self._segments) > 1:
            oldest, dropped = self._segments.popitem(last=False)
            del self._starts[bisect_right(self._starts, oldest) - 1]
            self._size -= len(dropped)

    def clear(self) -> None:
        self._segments.clear()
        self._starts.clear()
        self._size = 0


class Store:
    """The log and its index.

    Attributes:
        end: the end of the durable log; every durable event's position is below it.
        last_position: commit position of the last durable event, -1 in an empty log.
        transactions: the explicit transactions.

    Args:
        path: the database file, created if missing; None keeps everything in memory.

    Raises:
        StoreError: one of its kinds.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path)
        try:
            self._load()
        except sqlite3.Error as error:
            self._database.close()
            raise StoreDamaged(f"{path}: {error}") from error
        except BaseException:
            self._database.close()
            raise

    # --- opening and closing ---

    @property
    def in_memory(self) -> bool:
        return self._database.in_memory

    def close(self) -> None:
        self._database.close()

    def recover(self) -> None:
        """Give up what was appended but not committed: everything as the database has it."""
        writer = self._database.writer
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        self._load()

    def _load(self) -> None:
        reader = self._database.reader
        state = dict(reader.execute("SELECT name, value FROM state"))
        self._ids = IdIndex(self._database, state.get("id_runs", 0))
        self._names = NameIndex(self._database, state.get("streams", 0))
        self._next_id: int = self._names.count + 1
        self._streams: dict[str, Stream] = {}
        self._unsaved: dict[str, Stream] = {}
        self._unnamed: list[tuple[int, str]] = []
        self._cache = SegmentCache(CACHED_BYTES)
        self.transactions = TransactionTable(self._database)
        self.end = 0
        self.last_position = -1
        self._replay_tail(state.get("indexed", 0), state.get("ids_indexed", 0))
        self._find_end()

    def _replay_tail(self, indexed: int, ids_indexed: int) -> None:
        """Index the part of the log that the index tables do not have, from these positions on."""
        for start, records in self._log_from(ids_indexed):
            for name, number, offset, count in runs_of(records):
                stream = self.stream(name)
                if start >= indexed:
                    self.adopt(stream)
                    stream.learn([number, start + offset, count])
                    stream.committed = stream.last
                if stream.id is None:
                    raise StoreDamaged(f"The index has lost the stream {name!r}")
                learn_ids(self._ids.recent, records, offset, count, stream.id)
            if len(self._ids.recent) >= INDEX_EVERY and start >= indexed:
                # So much only an older file has, which gets a new index.
                self.end = start + len(records)
                self._save_index(with_ids=True)

    def _log_from(self, position: int) -> Iterator[Segment]:
        """The segments from this position on. Each is a look of its own, so that what is stored
        meanwhile can be read.
        """
        while True:
            row = self._database.reader.execute(
                "SELECT position, records FROM log WHERE position >= ? ORDER BY position LIMIT 1",
                (position,),
            ).fetchone()
            if row is None:
                return
            yield row
            position = row[0] + 1

    def _find_end(self) -> None:
        row = self._database.reader.execute(
            "SELECT position, records FROM log ORDER BY position DESC LIMIT 1"
        ).fetchone()
        if row is not None:
            start, records = row
            self.last_position = last_entry(records).commit_position
            # A transaction's events lie before their commit position.
            self.end = max(start + len(records), self.last_position + 1)
        self.end = max(self.end, self.transactions.reserved_end())

    # --- streams ---

    def stream(self, name: str) -> Stream:
        """The stream of that name, which need not have events."""
        stream = self._streams.get(name)
        return self._load_stream(name) if stream is None else stream

    def known_stream(self, name: str) -> Stream | None:
        """The same, or None if it has no events; cheaper than `stream` for one that has none."""
        stream = self._streams.get(name)
        if stream is None and self._names.may_have(name):
            return self._load_stream(name)
        return stream

    def _load_stream(self, name: str) -> Stream:
        # The unsaved ones have to stay, so they do not count.
        if len(self._streams) - len(self._unsaved) >= CACHED_STREAMS:
            self._streams = dict(self._unsaved)
        stream = self._streams[name] = Stream(name)
        if self._names.may_have(name):
            self._read_newest(stream)
        return stream

    def _read_newest(self, stream: Stream) -> None:
        """What the index tables say of the stream's end."""
        newest = array("q")
        # Two rows, because the last one may hold nothing but a tombstone.
        for stream_id, places in self._database.reader.execute(
            "SELECT id, places FROM streams JOIN runs ON stream = id WHERE name = ?"
            " ORDER BY number DESC LIMIT 2",
            (stream.name,),
        ):
            stream.id = stream_id
            newest = array("q", places) + newest
        if newest:
            stream.learn(newest)
            stream.committed = stream.last
            del stream.recent[:]

    def adopt(self, stream: Stream) -> int:
        """The number of a stream that is about to get events; a new one if it has none."""
        if stream.id is None:
            stream.id = self._next_id
            self._next_id += 1
            self._unnamed.append((stream.id, stream.name))
        self._unsaved[stream.name] = stream
        return stream.id

    # --- appending ---

    def log_writer(self) -> LogWriter:
        """An encoder that continues the log; at most one is in use at a time."""
        return LogWriter(self.end, self._ids.recent)

    def write(self, segments: list[Segment], rows: Iterable[Statement] = ()) -> None:
        """Hand the segments to SQLite; they are durable and seen after `commit` and `publish`.

        Args:
            rows: what goes with them into other tables.

        Raises:
            StoreFailed: call `recover`.
        """
        writer = self._database.writer
        with sqlite_errors(self._database.path):
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany("INSERT INTO log VALUES (?, ?)", segments)
            for statement, values in rows:
                writer.execute(statement, values)

    def commit(self) -> None:
        """Wait until what was written is on disk.

        Raises:
            StoreFailed: call `recover`.
        """
        with sqlite_errors(self._database.path):
            self._database.writer.execute("COMMIT")

    def publish(self, log: LogWriter, segments: list[Segment]) -> None:
        """What `log` wrote is durable: reads may see it."""
        self.end = log.position
        if segments:
            self.last_position = log.last_position
        for start, records in segments:
            self._cache.add(start, records)
        if len(self._ids.recent) >= INDEX_EVERY:
            self._save_index(with_ids=True)
        elif len(self._unnamed) >= NEW_STREAMS_EVERY:
            self._save_index(with_ids=False)

    def _save_index(self, *, with_ids: bool) -> None:
        """Bring the index tables up to the end of the log."""
        writer = self._database.writer
        state = {"indexed": self.end, "streams": self._names.count + len(self._unnamed)}
        if with_ids:
            state |= {"ids_indexed": self.end, "id_runs": self._ids.runs + 1}
        try:
            writer.execute("BEGIN IMMEDIATE")
            self._names.write(self._unnamed)
            writer.executemany("INSERT INTO runs VALUES (?, ?, ?)", self._place_rows())
            if with_ids:
                self._ids.write_run()
            writer.executemany("REPLACE INTO state VALUES (?, ?)", state.items())
            writer.execute("COMMIT")
        except sqlite3.Error:
            # The log has everything, so nothing is lost: the next group of writes tries again.
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            return
        if with_ids:
            self._ids.forget_recent()
        self._names.written(self._unnamed)
        for stream in self._unsaved.values():
            del stream.recent[:]
        self._unsaved.clear()
        self._unnamed.clear()

    def _place_rows(self) -> Iterator[tuple[int | None, int, bytes]]:
        size = 3 * PLACES_PER_ROW
        for stream in self._unsaved.values():
            places = stream.recent
            for first in range(0, len(places), size):
                yield stream.id, places[first], places[first : first + size].tobytes()

    # --- finding ---

    def reading(self) -> AbstractContextManager[None]:
        """Make many finds cheaper. Nothing may be written meanwhile."""
        return self._database.reading()

    def find_id(self, event_id: bytes) -> tuple[int, int] | None:
        """(stream number, event number) of the first event that had this id."""
        return self._ids.find(event_id)

    def places(self, stream: Stream, first: int, last: int) -> list[tuple[int, int, int]]:
        """The stretches of the log that hold events `first` … `last`: (number, position, count).

        They come in order, each lies within one segment, and the outer ones may reach beyond the
        two numbers.
        """
        found: list[tuple[int, int, int]] = []
        recent = stream.recent
        if stream.id is not None and (not recent or first < recent[0]):
            for (row,) in self._database.reader.execute(
                "SELECT places FROM runs WHERE stream = :stream AND number <= :last"
                " AND number >= coalesce((SELECT max(number) FROM runs"
                " WHERE stream = :stream AND number <= :first), :first) ORDER BY number",
                {"stream": stream.id, "first": first, "last": last},
            ):
                _add_places(found, array("q", row), first, last)
        if recent and last >= recent[0]:
            _add_places(found, recent, first, last)
        return found

    def segment(self, position: int) -> Segment:
        """The segment in which the entry at this position lies.

        Raises:
            StoreDamaged: there is none.
        """
        found = self._cache.find(position)
        if found is not None:
            return found
        row = self._database.reader.execute(
            "SELECT position, records FROM log WHERE position <= ? ORDER BY position DESC LIMIT 1",
            (position,),
        ).fetchone()
        if row is None or position >= row[0] + len(row[1]):
            raise StoreDamaged(f"The log has nothing at position {position}")
        self._cache.add(*row)
        return row[0], row[1]

    def segments_from(self, position: int) -> Iterator[Segment]:
        """The durable segments from the one that may hold this position on, in order."""
        cursor = self._database.reader.execute(
            "SELECT position, records FROM log WHERE position < :end AND position >= coalesce("
            "(SELECT max(position) FROM log WHERE position <= :position), 0) ORDER BY position",
            {"position": position, "end": self.end},
        )
        try:
            yield from cursor
        finally:
            cursor.close()

    def segments_before(self, position: int) -> Iterator[Segment]:
        """The durable segments that begin before this position, the newest first."""
        cursor = self._database.reader.execute(
            "SELECT position, records FROM log WHERE position < ? ORDER BY position DESC",
            (min(position, self.end),),
        )
        try:
            yield from cursor
        finally:
            cursor.close()

    def entry(self, stream: Stream, number: int) -> Entry | None:
        """One event of a stream, committed or not, or None if it has no such number."""
        places = self.places(stream, number, number)
        if not places:
            return None
        first, position, _ = places[0]
        start, records = self.segment(position)
        return entries_of(records, position - start, number - first + 1)[-1]


def _add_places(
    found: list[tuple[int, int, int]], places: array[int], first: int, last: int
) -> None:
    """Append the part of `places` within first … last."""
    for index in range(_place_before(places, first), len(places), 3):
        number, position, count = places[index : index + 3]
        if number > last:
            return
        if number + count > first:
            found.append((number, position, count))


def _place_before(places: array[int], number: int) -> int:
    """Index of the last triple that begins at or before `number`, or 0."""
    low, high = 0, len(places) // 3
    while low < high:
        middle = (low + high) // 2
        if places[3 * middle] <= number:
            low = middle + 1
        else:
            high = middle
    return max(0, 3 * (low - 1))


def last_entry(records: bytes) -> Entry:
    """The last entry of a segment."""
    _, count = span_of(records, 0, len(records))
    return entries_of(records, 0, count)[-1]
