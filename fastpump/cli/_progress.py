"""What a running command shows on standard error: a live bar, and the figures at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

INTERVAL = 0.25
"""Seconds between two looks at the counters."""
RATE_SAMPLES = 9
"""The rates shown are those of the last two seconds."""
MEGABYTE = 1_000_000

LOG = logging.getLogger("fastpump")


class Sample(NamedTuple):
    """How far a command is: `done` of `total` in whatever unit measures it (0: not known)."""

    events: int
    bytes: int
    done: float = 0
    total: int = 0


class Figures(NamedTuple):
    """What a command did, and how long its work took."""

    events: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        pace = self.seconds or 1e-9
        return (
            f"{self.events:,} events, {self.bytes / MEGABYTE:,.1f} MB in {self.seconds:.2f} s: "
            f"{self.events / pace:,.0f} events/s, {self.bytes / MEGABYTE / pace:,.1f} MB/s"
        )

    def write_to(self, path: Path) -> None:
        """Leave the figures in a file, as one JSON object."""
        path.write_bytes(orjson.dumps(self._asdict()) + b"\n")


class _MessageHandler(logging.Handler):
    """Turns log records into messages above the bar, the same in a row only once.

    Several connections, or processes, often have the same to say.
    """

    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text != self._last:
            self._last = text
            self._display.message(text)


class Display:
    """The bar, and messages above it; shows no bar where standard error is no terminal."""

    def __init__(self, title: str) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            # Drawn by `live` below: a thread would take turns with the event loop.
            auto_refresh=False,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(title, total=None, text="")
        self._samples: deque[tuple[float, Sample]] = deque(maxlen=RATE_SAMPLES)

    def message(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def log(self) -> Iterator[None]:
        """As long as this is entered, what the package logs becomes a message.

        That a connection was lost, for instance.
        """
        handler = _MessageHandler(self)
        LOG.addHandler(handler)
        try:
            yield
        finally:
            LOG.removeHandler(handler)

    @asynccontextmanager
    async def live(self, look: Callable[[], Sample]) -> AsyncIterator[None]:
        """Show what `look` returns, several times a second, as long as this is entered."""
        with self._progress:
            drawing = asyncio.create_task(self._draw_repeatedly(look))
            try:
                yield
            finally:
                drawing.cancel()
                self._draw(look())

    async def _draw_repeatedly(self, look: Callable[[], Sample]) -> None:
        while True:
            self._draw(look())
            await asyncio.sleep(INTERVAL)

    def _draw(self, sample: Sample) -> None:
        if self._progress.disable:
            return
        now = time.monotonic()
        self._samples.append((now, sample))
        then, earlier = self._samples[0]
        seconds = (now - then) or 1e-9
        events = (sample.events - earlier.events) / seconds
        megabytes = (sample.bytes - earlier.bytes) / MEGABYTE / seconds
        self._progress.update(
            self._task,
            completed=sample.done,
            total=sample.total or None,
            text=f"{sample.events:,} events  {events:,.0f} events/s  {megabytes:,.1f} MB/s",
            refresh=True,
        )
