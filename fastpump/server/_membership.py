"""Which keys the database may have: Bloom filters, of which only the newest are in memory.

Keys are counted in the order in which they come, and each filter covers so many of them. While the
newest filter fills up, the oldest one in memory is written to the database block by block. A key
has all its bits in one block, and a row of the database holds the same block of many filters: so
one look at the database tells about all of these. Memory does not grow with the number of keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._ids import BLOCK_BYTES, BloomFilter, block_of, blocks_with

if TYPE_CHECKING:
    from fastpump.server._database import Database

FILTER_BYTES = 1 << 21
"""2 MiB, for a million keys: 16 bits per key, one false "maybe" in some 1,400."""

FILTERS_IN_MEMORY = 3
"""Besides the one that is being filled."""

FILTERS_PER_ROW = 16
"""How many filters' blocks of one number are in a row, one after the other."""
ROWS_PER_BLOCK = 1 << 32
"""The row of filter f and block b has the key b * ROWS_PER_BLOCK + f // FILTERS_PER_ROW."""


class Membership:
    """A set of keys of 16 bytes that answers "maybe" or "certainly not".

    Args:
        name: its tables are `<name>_filters`, the filters in memory, and `<name>_blocks`, the older
            ones.
        per_filter: how many keys, or groups of keys, a filter is for.
        count: how many of these the database has.
    """

    def __init__(self, database: Database, name: str, per_filter: int, count: int) -> None:
        self._database = database
        self._read = database.reader.execute
        self._per_filter = per_filter
        self._blocks_per_filter = FILTER_BYTES // BLOCK_BYTES
        self._set_moved(count)
        self._replace_filter = f"REPLACE INTO {name}_filters VALUES (?, ?)"
        self._delete_filters = f"DELETE FROM {name}_filters WHERE filter < ?"
        self._append_block = (
            f"INSERT INTO {name}_blocks VALUES (?, ?)"
            " ON CONFLICT (place) DO UPDATE SET bits = CAST(bits || excluded.bits AS BLOB)"
        )
        self._select_blocks = f"SELECT bits FROM {name}_blocks WHERE place = ?"
        self._filters = {
            number: BloomFilter(FILTER_BYTES, bits)
            for number, bits in database.reader.execute(
                f"SELECT filter, bits FROM {name}_filters ORDER BY filter"
            )
        }
        self._spare: BloomFilter | None = None
        self._changed: set[int] = set()

    def filters_with(self, key: bytes) -> list[int]:
        """Numbers of the filters that may have the key, the oldest first."""
        found = self._in_database_with(key) if self._in_database else []
        for number, known in self._filters.items():
            if key in known:
                found.append(number)
        return found

    def _in_database_with(self, key: bytes) -> list[int]:
        found = []
        place = block_of(key, self._blocks_per_filter) * ROWS_PER_BLOCK
        for oldest in range(0, self._in_database, FILTERS_PER_ROW):
            (bits,) = self._read(self._select_blocks, (place,)).fetchone()
            found += [oldest + index for index in blocks_with(bits, key)]
            place += 1
        # The next one may be there already, but only some of its blocks are.
        if found and found[-1] == self._in_database:
            del found[-1]
        return found

    def filter_at(self, count: int) -> BloomFilter:
        """Where to add what comes after `count` others."""
        number = count // self._per_filter
        self._changed.add(number)
        if number not in self._filters:
            self._filters[number] = self._spare or BloomFilter(FILTER_BYTES)
            self._spare = None
        return self._filters[number]

    def write(self, count: int) -> None:
        """Store what was added, up to `count`, inside the writer's open transaction.

        Should that be rolled back, the filters know too many keys, which does no harm.
        """
        writer = self._database.writer
        due = self._blocks_due(count)
        writer.executemany(
            self._replace_filter,
            ((number, self._filters[number].to_bytes()) for number in sorted(self._changed)),
        )
        writer.executemany(self._append_block, map(self._block, range(self._moved, due)))
        writer.execute(self._delete_filters, (due // self._blocks_per_filter,))

    def written(self, count: int) -> None:
        """What `write` stored is durable: forget the filters that are wholly in the database."""
        self._set_moved(count)
        self._changed.clear()
        for number in range(min(self._filters, default=0), self._in_database):
            # Its memory is used again: blocks of this size would leave holes among all others.
            self._spare = self._filters.pop(number)
            self._spare.clear()

    def _set_moved(self, count: int) -> None:
        """Note how many blocks, and how many whole filters, are in the database."""
        self._moved = self._blocks_due(count)
        self._in_database = self._moved // self._blocks_per_filter

    def _blocks_due(self, count: int) -> int:
        """How many blocks, counted over all filters, are in the database at so many keys."""
        leaving = count - FILTERS_IN_MEMORY * self._per_filter
        return max(0, leaving) * self._blocks_per_filter // self._per_filter

    def _block(self, index: int) -> tuple[int, bytes]:
        """The row of a block, counted over all filters."""
        number, block = divmod(index, self._blocks_per_filter)
        row = block * ROWS_PER_BLOCK + number // FILTERS_PER_ROW
        return row, self._filters[number].block(block)
