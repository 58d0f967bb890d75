"""Explicit transactions in the database: what was written to them and is not an event yet.

A row of `transactions` stays for ever, as a commit may be asked for again at any time. The requests
in `transaction_writes` go when their events are in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastpump.server._database import Database

Statement = tuple[str, tuple[object, ...]]
"""SQL and its parameters, executed with the group of writes it belongs to."""


class Transaction(NamedTuple):
    """One transaction.

    Attributes:
        id: the log position reserved at its start.
        first: number of its first event, None as long as it is not committed.
        events: how many it became.
        is_closed: a commit was tried, so nothing written from then on belongs to it.
    """

    id: int
    stream: str
    expected_version: int
    first: int | None
    events: int
    is_closed: bool


class TransactionTable:
    """The transactions as of the last commit of the database."""

    def __init__(self, database: Database) -> None:
        self._reader = database.reader

    def find(self, transaction_id: int) -> Transaction | None:
        row = self._reader.execute(
            "SELECT id, stream, expected, first, events, closed FROM transactions WHERE id = ?",
            (transaction_id,),
        ).fetchone()
        if row is None:
            return None
        found, stream, expected, first, events, is_closed = row
        return Transaction(found, stream, expected, first, events, bool(is_closed))

    def size(self, transaction_id: int) -> int:
        """The bytes of its TransactionWrite requests."""
        (size,) = self._reader.execute(
            "SELECT coalesce(sum(length(request)), 0) FROM transaction_writes WHERE id = ?",
            (transaction_id,),
        ).fetchone()
        return int(size)

    def writes(self, transaction_id: int) -> list[tuple[int, bytes]]:
        """The TransactionWrite requests in order, each with the position of its first event."""
        return self._reader.execute(
            "SELECT prepare, request FROM transaction_writes WHERE id = ? ORDER BY prepare",
            (transaction_id,),
        ).fetchall()

    def reserved_end(self) -> int:
        """The lowest position behind all that transactions have reserved."""
        (end,) = self._reader.execute(
            "SELECT max(coalesce((SELECT max(id) + 1 FROM transactions), 0),"
            " coalesce((SELECT max(prepare + events) FROM transaction_writes), 0))"
        ).fetchone()
        return int(end)


def started(transaction_id: int, stream: str, expected_version: int) -> Statement:
    return (
        "INSERT INTO transactions VALUES (?, ?, ?, 0, NULL, 0)",
        (transaction_id, stream, expected_version),
    )


def written(transaction_id: int, prepare: int, events: int, request: bytes) -> Statement:
    return (
        "INSERT INTO transaction_writes VALUES (?, ?, ?, ?)",
        (prepare, transaction_id, events, request),
    )


def closed(transaction_id: int) -> Statement:
    return "UPDATE transactions SET closed = 1 WHERE id = ?", (transaction_id,)


def committed(transaction_id: int, first: int, events: int) -> list[Statement]:
    return [
        (
            "UPDATE transactions SET closed = 1, first = ?, events = ? WHERE id = ?",
            (first, events, transaction_id),
        ),
        ("DELETE FROM transaction_writes WHERE id = ?", (transaction_id,)),
    ]
