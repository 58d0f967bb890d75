"""Ctrl-C as a request to stop, not as an exception in the middle of something."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType, TracebackType
from typing import Any

EXIT_CODE = 130
"""What a shell expects of a program that was stopped by SIGINT."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, the first SIGINT (or SIGTERM) sets `requested`; a second one kills as usual.

    Use it inside a running event loop, in the main thread::

        with Interrupt() as interrupt:
            while not interrupt.requested: ...
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once a stop has been asked for."""
        await self._event.wait()

    def request(self) -> None:
        """Ask for the stop, as the signal does."""
        self._event.set()

    def __enter__(self) -> Interrupt:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        # The loop may be asleep in the selector; only this call wakes it.
        self._loop.call_soon_threadsafe(self._event.set)

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
