"""Explicit transactions: start, write, commit (protocol document, sections 10 and 16).

Nothing binds one to a connection or to the life of the process. What is written waits in the
database as the requests came; the commit makes events of it, checked like a single WriteEvents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.server._access import WRITE
from fastpump.server._messages import (
    WriteRequest,
    decode_message,
    decode_transaction_write,
    encode_fields,
    encode_reply,
)
from fastpump.server._records import entries_of, offset_from
from fastpump.server._replies import INVALID_NUMBER, WriteResult, bad_request
from fastpump.server._transaction_table import Transaction, closed, committed, started, written
from fastpump.server._versions import ANY, Decision, check
from fastpump.server._writes import REFUSALS, History, take_effect
from fastpump.server.errors import InvalidRequest, StoreDamaged

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._access import User
    from fastpump.server._records import Entry
    from fastpump.server._streams import Stream
    from fastpump.server._writer import Client, Group
    from fastpump.server.store import Store

MAX_SIZE = 256 * 1024 * 1024
"""Bytes of requests that one commit takes: later servers have that limit for a batch (5.6)."""


class StartTransaction:
    """One TransactionStart. Raises InvalidRequest where section 5.6 says so.

    The expected version is not looked at before the commit.
    """

    __slots__ = ("client", "correlation_id", "expected", "size", "stream", "user")

    def __init__(self, client: Client, user: User | None, frame: Frame, offset: int) -> None:
        self.client = client
        self.user = user
        self.correlation_id = frame.correlation_id
        self.size = len(frame)
        self.stream, self.expected, _ = decode_message(frame, offset, "sqb")
        if not self.stream:
            raise InvalidRequest("no stream name")
        if self.expected < ANY:
            raise InvalidRequest(f"no expected version: {self.expected}")

    def execute(self, group: Group) -> bool:
        if not group.access.allows(self.user, self.stream, WRITE):
            result = WriteResult.ACCESS_DENIED
            group.reply(self.client, self._reply(-1, result, result.message))
            return True
        transaction_id = group.log.skip(1)
        group.rows.append(started(transaction_id, self.stream, self.expected))
        group.reply(self.client, self._reply(transaction_id, WriteResult.SUCCESS, None))
        return True

    def fail(self, problem: str) -> bytes:
        return bad_request(self.correlation_id, f"The transaction was not started: {problem}")

    def _reply(self, transaction_id: int, result: WriteResult, message: str | None) -> bytes:
        payload = encode_fields(transaction_id, result, message)
        return encode_reply(Command.TransactionStartCompleted, self.correlation_id, payload)


class WriteTransaction:
    """One TransactionWrite. Raises InvalidRequest.

    It always succeeds: what nobody can ever commit is not even kept, as in the original.
    """

    __slots__ = ("client", "content", "correlation_id", "request", "size")

    def __init__(self, client: Client, user: User | None, frame: Frame, offset: int) -> None:
        self.client = client
        self.correlation_id = frame.correlation_id
        self.content = bytes(frame.body[offset:])
        self.size = len(frame)
        self.request = decode_transaction_write(self.content)

    def execute(self, group: Group) -> bool:
        transaction_id = self.request.transaction_id
        transaction = group.store.transactions.find(transaction_id)
        if transaction is not None and not transaction.is_closed and self.request.count:
            # The events get their prepare positions here, one byte each.
            prepare = group.log.skip(self.request.count)
            row = written(transaction_id, prepare, self.request.count, self.content)
            group.rows.append(row)
            group.transactions.add(transaction_id)
        payload = encode_fields(transaction_id, WriteResult.SUCCESS)
        reply = encode_reply(Command.TransactionWriteCompleted, self.correlation_id, payload)
        group.reply(self.client, reply)
        return True

    def fail(self, problem: str) -> bytes:
        return bad_request(self.correlation_id, f"The events were not stored: {problem}")


class CommitTransaction:
    """One TransactionCommit. Raises InvalidRequest."""

    __slots__ = ("client", "correlation_id", "id", "size", "user")

    def __init__(self, client: Client, user: User | None, frame: Frame, offset: int) -> None:
        self.client = client
        self.user = user
        self.correlation_id = frame.correlation_id
        self.size = len(frame)
        self.id, _ = decode_message(frame, offset, "qb")
        if self.id < 0:
            raise InvalidRequest(f"transaction id {self.id}")

    def execute(self, group: Group) -> bool:
        if self.id in group.transactions:
            return False
        transaction = group.store.transactions.find(self.id)
        if transaction is None:
            return self._commit_nothing(group)
        if not group.access.allows(self.user, transaction.stream, WRITE):
            return self._refuse(group, WriteResult.ACCESS_DENIED)
        return self._commit(group, transaction)

    def fail(self, problem: str) -> bytes:
        return bad_request(self.correlation_id, f"The transaction was not committed: {problem}")

    def _commit(self, group: Group, transaction: Transaction) -> bool:
        stream = group.store.stream(transaction.stream)
        history = History(group.store, group.metadata)
        if group.store.transactions.size(self.id) > MAX_SIZE:
            return self._refuse(group, WriteResult.INVALID_TRANSACTION)
        writes = group.store.transactions.writes(self.id)
        requests = [decode_transaction_write(content) for _, content in writes]
        if transaction.first is None:
            ids = [event_id for request in requests for event_id in request.event_ids()]
        else:
            ids = history.stored_ids(stream, transaction.first, transaction.events)
        verdict = check(stream, transaction.expected_version, ids, history)
        if verdict.decision is Decision.UNDECIDED:
            return False
        group.is_full = True
        if verdict.decision is Decision.WRITE:
            prepares = [prepare for prepare, _ in writes]
            self._write(group, stream, requests, prepares)
            return True
        group.rows.append(closed(self.id))
        if verdict.decision is Decision.IDEMPOTENT:
            return self._succeed(group, verdict.first, verdict.last, -1)
        return self._refuse(group, REFUSALS[verdict.decision])

    def _write(
        self, group: Group, stream: Stream, requests: list[WriteRequest], prepares: list[int]
    ) -> None:
        first = stream.last + 1
        was_deleted = group.metadata.of(stream).soft_deleted
        # Room for the end of the last event, where reading of `$all` goes on before the commit.
        group.log.skip(1)
        position = group.append_transaction(stream, requests, prepares)
        group.rows += committed(self.id, first, stream.last + 1 - first)
        self._succeed(group, first, stream.last, position)
        take_effect(group, stream, first, requests[-1] if requests else None, was_deleted)

    def _commit_nothing(self, group: Group) -> bool:
        """There is no such transaction; an ordinary event's position counts as one (TX-16)."""
        # In the original no event lies at position 0.
        entry = ordinary_event(group.store, self.id) if self.id > 0 else None
        if entry is None or not group.access.allows(self.user, entry.stream, WRITE):
            return self._refuse(group, WriteResult.ACCESS_DENIED)
        return self._succeed(group, entry.number, entry.number, -1)

    def _succeed(self, group: Group, first: int, last: int, position: int) -> bool:
        return self._reply(group, WriteResult.SUCCESS, first, last, position)

    def _refuse(self, group: Group, result: WriteResult) -> bool:
        return self._reply(group, result, INVALID_NUMBER, INVALID_NUMBER, 0)

    def _reply(
        self, group: Group, result: WriteResult, first: int, last: int, position: int
    ) -> bool:
        payload = encode_fields(self.id, result, result.message, first, last, position, position)
        reply = encode_reply(Command.TransactionCommitCompleted, self.correlation_id, payload)
        group.reply(self.client, reply)
        return True


def ordinary_event(store: Store, position: int) -> Entry | None:
    """The event outside of any transaction that lies at exactly this position, if there is one."""
    try:
        start, records = store.segment(position)
    except StoreDamaged:
        return None
    offset = offset_from(records, position, position)
    if start + offset != position:
        return None
    entry = entries_of(records, offset, 1)[0]
    return entry if entry.commit_position == entry.prepare_position else None
