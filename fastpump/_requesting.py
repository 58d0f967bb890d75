"""What all operations of a client need: an outlet to give them to, and a place to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, NoReturn
from uuid import UUID

from fastpump._futures import Futures
from fastpump._operation import Operation
from fastpump._outlet import Outlet, perform
from fastpump.exceptions import ClientClosed, UsageError


class Requesting:
    """The base of what offers operations. It belongs to the event loop it is connected on."""

    _outlet: Outlet | None
    """None before the client is connected."""
    _loop: asyncio.AbstractEventLoop
    _futures: Futures
    _timeout: float
    """Seconds an operation may take."""
    _require_master: bool
    """What a call asks for that does not say itself whether only the leader may answer."""

    def _perform(
        self,
        kind: type[Operation],
        correlation_id: bytes,
        frame: bytes,
        stream: str = "",
        number: int = 0,
    ) -> Awaitable[Any]:
        """Start an operation of this kind; await what it ends with."""
        outlet = self._outlet or self._not_connected()
        waiter = self._futures.new()
        operation = kind(correlation_id, frame, waiter, self._timeout, stream, number)
        return perform(outlet, operation)

    def _new_id(self, wanted: UUID | None, argument: str = "correlation_id") -> bytes:
        outlet = self._outlet or self._not_connected()
        if wanted is None:
            return outlet.correlation_ids.next()
        if not isinstance(wanted, UUID) or wanted.int == 0:
            raise UsageError(argument, f"must be a UUID that is not all zero, not {wanted!r}")
        return wanted.bytes_le

    def _leader_only(self, wanted: bool | None) -> bool:
        return self._require_master if wanted is None else wanted

    def _not_connected(self) -> NoReturn:
        raise ClientClosed("The client is not connected: use `async with`, or await connect()")
