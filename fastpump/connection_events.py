"""What a client tells of its connection to whoever listens (`Client.listen`).

In the order of a life: Connected, then for every loss Disconnected, Reconnecting (once per attempt)
and Connected, at last Closed. A close that the program asked for has no Disconnected.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass

from fastpump.exceptions import UsageError

__all__ = [
    "AuthenticationFailed",
    "Closed",
    "Connected",
    "ConnectionEvent",
    "Disconnected",
    "ErrorOccurred",
    "Reconnecting",
]

LOG = logging.getLogger("fastpump.connection_events")


@dataclass(frozen=True)
class ConnectionEvent:
    """The base of them all."""


@dataclass(frozen=True)
class Connected(ConnectionEvent):
    """The node at this address has identified the client; operations are sent."""

    host: str
    port: int


@dataclass(frozen=True)
class Disconnected(ConnectionEvent):
    """That connection is gone; `reason` says why, in words."""

    host: str
    port: int
    reason: str


@dataclass(frozen=True)
class Reconnecting(ConnectionEvent):
    """An attempt to connect again begins; `attempt` counts from 1 for every loss."""

    attempt: int


@dataclass(frozen=True)
class AuthenticationFailed(ConnectionEvent):
    """The node refused the connection's credentials; `reason` is its text."""

    reason: str


@dataclass(frozen=True)
class ErrorOccurred(ConnectionEvent):
    """An attempt to connect failed, or the client gives up, which `Closed` then says."""

    error: BaseException


@dataclass(frozen=True)
class Closed(ConnectionEvent):
    """The client will not connect any more; `reason` says why, in words."""

    reason: str


Listener = Callable[[ConnectionEvent], object]


class Listeners:
    """The callbacks of one client."""

    def __init__(self) -> None:
        # Keyed by something of its own, since one callback may be added twice.
        self._callbacks: dict[object, Listener] = {}

    def add(self, callback: Listener) -> Callable[[], None]:
        """Have `callback` called with every event; the function returned ends that.

        Raises:
            UsageError: it cannot be called, or is a coroutine function.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            raise UsageError("callback", f"must be a plain function, not {callback!r:.80}")
        key = object()
        self._callbacks[key] = callback

        def remove() -> None:
            self._callbacks.pop(key, None)

        return remove

    def tell(self, event: ConnectionEvent) -> None:
        """Call them all, in the order they were added; what they raise is logged."""
        for callback in list(self._callbacks.values()):
            try:
                callback(event)
            except Exception:
                LOG.exception("The listener %r failed at %r", callback, event)
