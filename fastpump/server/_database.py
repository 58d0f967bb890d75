"""The SQLite file: opening, recognising, locking, and SQLite's errors as ours.

    log      segments of encoded events; `position` is the log offset of the segment's first byte
    streams  the number of every stream name
    runs     where a stream's events lie: triples (number, position, count) of 64-bit integers
    ids      runs of the event id index, `slot` = run * 256 + blob (see `_ids.pyx`)
    id_filters, id_blocks
             which ids these may have (see `_membership.py`)
    name_filters, name_blocks
             the same of the names in `streams`
    state    how much of the log the other tables cover
    transactions, transaction_writes
             explicit transactions and what they will write (see `_transaction_table.py`)

Of these only `log` and the transactions are written when something is committed. The rest is an
index over the log that is brought up to date every now and then; what it lacks is read from the end
of the log when the file is opened.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fastpump.server.errors import (
    DatabaseInUse,
    DatabaseTooNew,
    NotOurDatabase,
    StoreDamaged,
    StoreError,
    StoreFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION_ID = 0x46504442
"""Bytes 68 to 71 of the file, "FPDB": what tells our files from other SQLite databases."""

FORMAT_VERSION = 2
"""Files of format 1 have another index, which is made anew from their log."""

TABLES = {
    "log",
    "streams",
    "runs",
    "ids",
    "id_filters",
    "id_blocks",
    "name_filters",
    "name_blocks",
    "transactions",
    "transaction_writes",
    "state",
}

LOG_SCHEMA = """
CREATE TABLE log (position INTEGER PRIMARY KEY, records BLOB NOT NULL);
CREATE TABLE transactions (
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, expected INTEGER NOT NULL,
    closed INTEGER NOT NULL, first INTEGER, events INTEGER NOT NULL
);
CREATE TABLE transaction_writes (
    prepare INTEGER PRIMARY KEY, id INTEGER NOT NULL, events INTEGER NOT NULL, request BLOB NOT NULL
);
CREATE INDEX writes_of_transaction ON transaction_writes (id);
"""
INDEX_SCHEMA = """
CREATE TABLE streams (name TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    stream INTEGER NOT NULL, number INTEGER NOT NULL, places BLOB NOT NULL,
    PRIMARY KEY (stream, number)
) WITHOUT ROWID;
CREATE TABLE ids (slot INTEGER PRIMARY KEY, entries BLOB NOT NULL);
CREATE TABLE id_filters (filter INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE id_blocks (place INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE name_filters (filter INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE name_blocks (place INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
INDEX_OF_FORMAT_1 = ("streams", "runs", "ids", "filters", "name_filters", "state")

# A checkpoint every 16 MiB of write-ahead log instead of every 4: fewer pages are copied twice.
WAL_PAGES = 4096


class Database:
    """An open database. `writer` and `reader` are connections in autocommit mode.

    In a file they are two, so that reads go on while a commit waits for the disk; in memory they
    are one and the same.

    Args:
        path: the file, created if there is none; None for a database in memory.

    Raises:
        StoreError: one of its kinds, with a text of one line.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None
        if path is None:
            self.writer = self.reader = _connect(":memory:")
            _create(self.writer)
            return
        try:
            self._lock = _lock_beside(path)
            self.writer = _open_file(path)
            self.reader = _connect(str(path))
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """Close both connections; the file may be opened by another node from then on."""
        self.reader.close()
        self.writer.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def in_memory(self) -> bool:
        return self.path is None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One transaction for all that is read meanwhile: each look of its own would lock the file,
        which takes longer than the look. Nothing may be written.
        """
        self.reader.execute("BEGIN")
        try:
            yield
        finally:
            self.reader.execute("COMMIT")


@contextlib.contextmanager
def sqlite_errors(path: Path | None) -> Iterator[None]:
    """Turn what SQLite raises into StoreFailed with one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        where = "The database in memory" if path is None else str(path)
        raise StoreFailed(f"{where}: {error}") from error


def _connect(target: str) -> sqlite3.Connection:
    # Our own BEGIN and COMMIT; used from the loop's thread and the committing one, never at a time.
    return sqlite3.connect(target, isolation_level=None, check_same_thread=False)


def _open_file(path: Path) -> sqlite3.Connection:
    is_new = not path.exists() or path.stat().st_size == 0
    try:
        connection = _connect(str(path))
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    try:
        if not is_new:
            _recognise(path, connection)
        with sqlite_errors(path):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            if is_new:
                _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _recognise(path: Path, connection: sqlite3.Connection) -> None:
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError as error:
        raise NotOurDatabase(f"{path} is not a database of fastpump ({error})") from error
    if application_id == 0 and not tables:
        # Killed while creating it: nothing was ever stored.
        with sqlite_errors(path):
            _create(connection)
        return
    if application_id != APPLICATION_ID:
        raise NotOurDatabase(f"{path} is an SQLite database, but not one of fastpump")
    if version > FORMAT_VERSION:
        raise DatabaseTooNew(
            f"{path} has format {version}; this fastpump knows formats up to {FORMAT_VERSION}"
        )
    if version < FORMAT_VERSION and tables.issuperset(INDEX_OF_FORMAT_1):
        with sqlite_errors(path):
            _give_new_index(connection)
        return
    missing = TABLES.difference(tables)
    if missing:
        raise StoreDamaged(
            f"{path} has no table {', '.join(sorted(missing))}, which belongs to format {version};"
            " was it made by a fastpump before its first release?"
        )


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(
        f"BEGIN; {LOG_SCHEMA} {INDEX_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = {FORMAT_VERSION}; COMMIT"
    )


def _give_new_index(connection: sqlite3.Connection) -> None:
    """Replace the index of an older file by an empty one; opening fills it from the log."""
    old = " ".join(f"DROP TABLE {table};" for table in INDEX_OF_FORMAT_1)
    connection.executescript(
        f"BEGIN; {old} {INDEX_SCHEMA} PRAGMA user_version = {FORMAT_VERSION}; COMMIT"
    )


def _lock_beside(path: Path) -> IO[bytes]:
    """Hold the file `<path>-lock` locked: two nodes on one database would overwrite each other."""
    try:
        file = path.with_name(path.name + "-lock").open("ab")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    try:
        _lock(file)
    except OSError as error:
        file.close()
        raise DatabaseInUse(f"{path} is in use by another node") from error
    return file


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
