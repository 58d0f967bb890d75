"""Where operations are started, and how one is performed.

Compiled, as `_operation` is; `_outlet.pxd` says what of it lies in a C structure.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from fastpump._ids import CorrelationIds
from fastpump._operation import Operation


class Outlet:
    """Where operations are started: a dispatcher, or a detour to one.

    Attributes:
        correlation_ids: makes the ids of the operations.
    """

    def __init__(self, correlation_ids: CorrelationIds) -> None:
        self.correlation_ids = correlation_ids

    def is_full(self) -> bool:
        """Callers should wait in `room()` before they start another operation."""
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until another operation may be started, which has to be done at once then."""
        raise NotImplementedError

    def start(self, operation: Operation) -> None:
        """Send the operation now, or once there is a connection."""
        raise NotImplementedError

    def send_now(self, frame: bytes) -> None:
        """Send a frame that has no reply of its own, if there is a connection."""
        raise NotImplementedError


class Detour(Outlet):
    """Hands everything on to another outlet; what is to happen on the way is in its subclasses."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet.correlation_ids)
        self._outlet = outlet

    def is_full(self) -> bool:
        return self._outlet.is_full()

    async def room(self) -> None:
        await self._outlet.room()

    def start(self, operation: Operation) -> None:
        self._outlet.start(operation)

    def send_now(self, frame: bytes) -> None:
        self._outlet.send_now(frame)


def perform(outlet: Outlet, operation: Operation) -> Awaitable[Any]:
    """Start an operation, when there is room for it; await what it ends with.

    There is room nearly always, and then there is no coroutine for it. Who is cancelled while it is
    under way cancels its future, and the dispatcher lets it go.
    """
    if outlet.is_full():
        return _when_there_is_room(outlet, operation)
    waiter = operation.waiter  # a detour may put something before it
    outlet.start(operation)
    return waiter  # type: ignore[return-value]  # a future


async def _when_there_is_room(outlet: Outlet, operation: Operation) -> Any:
    waiter = operation.waiter
    await outlet.room()
    outlet.start(operation)
    return await waiter  # type: ignore[misc]  # a future
