"""Explicit transactions: events written in several steps that appear together, or not at all.

(Protocol document, section 10. They are gone from servers that speak gRPC only.)
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Protocol

from fastpump.exceptions import UsageError
from fastpump.messages import NewEventData, WriteResult


class Steps(Protocol):
    """What a transaction asks of the client."""

    async def start(self) -> int: ...

    async def write(self, transaction_id: int, events: Any) -> None: ...

    async def commit(self, transaction_id: int) -> WriteResult: ...


class Transaction:
    """A transaction on one stream; `Client.transaction` makes one.

    As an asynchronous context manager it commits at the end, or rolls back if an exception leaves
    the block. Rolling back sends nothing: what was written just never appears.

    Attributes:
        id: its id, to go on with it by `Client.transaction(…, transaction_id=id)`; None before it
            was started.
        result: the WriteResult of the commit, None before.
    """

    def __init__(self, steps: Steps, transaction_id: int | None) -> None:
        self.id = transaction_id
        self.result: WriteResult | None = None
        self._steps = steps
        self._is_over = False

    async def __aenter__(self) -> Transaction:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_over:
            return
        if error is None:
            await self.commit()
        else:
            self.rollback()

    async def start(self) -> None:
        """Start it, unless it is the continuation of one."""
        if self.id is None:
            self.id = await self._steps.start()

    async def write(self, events: Iterable[NewEventData] | AsyncIterable[NewEventData]) -> None:
        """Add events; nobody sees them before the commit.

        Raises:
            ConnectionLost, OperationTimedOut: there was no reply, so that nobody knows whether the
                server has them. It would take them twice, so they are not sent again: roll back,
                and write everything in another transaction.
        """
        await self._steps.write(self._running(), events)

    async def commit(self) -> WriteResult:
        """Make everything written visible.

        Raises:
            WrongExpectedVersion: the stream was not at the version the transaction expects.
            StreamDeleted, AccessDenied, WriteFailed: the server refused for another reason.
        """
        transaction_id = self._running()
        self._is_over = True
        self.result = await self._steps.commit(transaction_id)
        return self.result

    def rollback(self) -> None:
        """Forget what was written."""
        self._running()
        self._is_over = True

    def _running(self) -> int:
        if self._is_over:
            raise UsageError("transaction", "is committed or rolled back")
        if self.id is None:
            raise UsageError("transaction", "is not started: use `async with`, or await start()")
        return self.id
