"""Explicit transactions on a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastpump import _cold
from fastpump._arguments import check_expected_version, check_name, check_number, collect
from fastpump._commands import Command
from fastpump._framing import encode_frame
from fastpump._operations import TransactionCommit, TransactionStart, TransactionWrite
from fastpump._requesting import Requesting
from fastpump._requests import encode_transaction_write
from fastpump.exceptions import UsageError
from fastpump.messages import ExpectedVersion, WriteResult
from fastpump.transactions import Transaction


class Transacting(Requesting):
    """Write in several steps what shall appear at once."""

    def transaction(
        self,
        stream: str,
        expected_version: int = ExpectedVersion.Any,
        transaction_id: int | None = None,
        require_master: bool | None = None,
    ) -> Transaction:
        """A transaction on a stream, started when it is entered.

        Args:
            stream: the stream.
            expected_version: as in `publish_event`, but for `StreamMustExist`, which a server does
                not take here. It is looked at when the transaction is committed.
            transaction_id: go on with a transaction that was started before, on whatever
                connection; its stream and expected version are what they were.
            require_master: as in `publish_event`.

        >>> async with client.transaction("account-7", expected_version=4) as transaction:
        ...     await transaction.write([NewEvent("paid", data={"sum": 7})])
        ...     await transaction.write([NewEvent("booked")])
        >>> transaction.result.last_event_number
        """
        check_name("stream", stream)
        check_expected_version(expected_version)
        if expected_version == ExpectedVersion.StreamMustExist:
            raise UsageError("expected_version", "StreamMustExist is not possible here")
        if transaction_id is not None:
            check_number("transaction_id", transaction_id, 0)
        leader_only = self._leader_only(require_master)
        steps = _Steps(self._new_id, self._perform, stream, expected_version, leader_only)
        return Transaction(steps, transaction_id)


class _Steps:
    """The requests of one transaction."""

    def __init__(
        self,
        new_id: Callable[[None], bytes],
        perform: Callable[..., Awaitable[Any]],
        stream: str,
        expected_version: int,
        require_master: bool,
    ) -> None:
        self._new_id = new_id
        self._perform = perform
        self._stream = stream
        self._expected_version = expected_version
        self._require_master = require_master

    async def start(self) -> int:
        body = _cold.encode(
            "TransactionStart",
            event_stream_id=self._stream,
            expected_version=self._expected_version,
            require_leader=self._require_master,
        )
        transaction_id: int = await self._send(TransactionStart, body)
        return transaction_id

    async def write(self, transaction_id: int, events: Any) -> None:
        batch = await collect(events)
        correlation_id = self._new_id(None)
        frame = encode_transaction_write(
            correlation_id, transaction_id, batch, self._require_master
        )
        await self._perform(TransactionWrite, correlation_id, frame, self._stream)

    async def commit(self, transaction_id: int) -> WriteResult:
        body = _cold.encode(
            "TransactionCommit",
            transaction_id=transaction_id,
            require_leader=self._require_master,
        )
        result: WriteResult = await self._send(TransactionCommit, body)
        return result

    async def _send(self, kind: type[TransactionStart | TransactionCommit], body: bytes) -> Any:
        correlation_id = self._new_id(None)
        frame = encode_frame(Command[kind.__name__], correlation_id, body)
        return await self._perform(
            kind, correlation_id, frame, self._stream, self._expected_version
        )
