"""Records of a source in chunks, handed to a coroutine without holding up its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from fastpump.cli._sources import BadLine, Record, Source

CHUNK = 512
"""Records parsed between two turns of the event loop: a few milliseconds' work."""
AHEAD = 8 * CHUNK
"""Records a thread may have read and nobody taken yet."""

Records = Iterator[Record | BadLine]
Chunk = list[Record | BadLine]


class Feed(Protocol):
    """Gives out the records of one source, in order."""

    async def take(self, on_idle: Callable[[], None]) -> Chunk:
        """The next records, at least one; empty at the end. Raises what reading raises.

        `on_idle` is called when there is nothing just now, as with a pipe: what was taken before
        should not wait for more.
        """

    def stop(self) -> None:
        """Give out no more; a `take` that waits returns."""


def open_feed(source: Source) -> Feed:
    """A feed of this source's records."""
    records = source.records()
    return ThreadFeed(records) if source.may_block else DirectFeed(records)


class DirectFeed:
    """Reads when asked: a file on a disk doesn't keep anybody waiting."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def take(self, on_idle: Callable[[], None]) -> Chunk:
        await asyncio.sleep(0)
        return list(islice(self._records, CHUNK))

    def stop(self) -> None:
        self._records = iter(())


class ThreadFeed:
    """Reads in a thread of its own, so that the loop can wait for input and for Ctrl-C at once.

    The thread is a daemon: one that waits for input forever must not keep the program alive.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._taken: deque[Record | BadLine] = deque()
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._room = threading.Event()
        self._finished = False
        self._error: BaseException | None = None
        threading.Thread(target=self._read, name="fastpump-input", daemon=True).start()

    async def take(self, on_idle: Callable[[], None]) -> Chunk:
        while not self._taken:
            if self._finished:
                if self._error is not None:
                    raise self._error
                return []
            on_idle()
            await self._news.wait()
            self._news.clear()
        chunk = [self._taken.popleft() for _ in range(min(len(self._taken), CHUNK))]
        self._room.set()
        return chunk

    def stop(self) -> None:
        self._taken.clear()
        self._finished = True
        self._news.set()

    def _read(self) -> None:
        try:
            for record in self._records:
                was_empty = not self._taken
                self._taken.append(record)
                if was_empty:
                    self._tell()
                self._wait_for_room()
                if self._finished:
                    return
        except BaseException as error:
            self._error = error
        self._finished = True
        self._tell()

    def _wait_for_room(self) -> None:
        while len(self._taken) >= AHEAD:
            self._room.clear()
            # Looked at again: room may have been made between the two lines.
            if len(self._taken) >= AHEAD:
                self._room.wait()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)
