"""Looking for the next bytes again and again instead of sleeping until they come."""

from __future__ import annotations

import asyncio
import time


class BusyPoll:
    """Keeps the event loop turning for a while after something was received.

    A loop with nothing to do sleeps, and waking a core takes longer than the way to a server nearby
    and back. One that turns notices at once what has come, and leaves nothing of its core to
    others.

    Args:
        loop: the event loop.
        seconds: for how long.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._until = 0.0
        self._turns = False

    def on_received(self) -> None:
        """The time begins anew."""
        self._until = time.perf_counter() + self._seconds
        if not self._turns:
            self._turns = True
            self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._until = 0.0

    def _turn(self) -> None:
        # Whoever has a callback ready does not sleep.
        if time.perf_counter() < self._until:
            self._loop.call_soon(self._turn)
        else:
            self._turns = False
