"""Records of a source in chunks, handed to a coroutine without holding up its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

from fastpump.cli._sources import BadLine, Record, Source

CHUNK = 512
CHUNK_BYTES = 1 << 20
"""Parsed between two turns of the event loop, roughly: a few milliseconds' work."""
AHEAD = 8 * CHUNK
AHEAD_BYTES = 8 * CHUNK_BYTES
"""What a thread may have read and nobody taken yet."""

Records = Iterator[Record | BadLine]
Chunk = list[Record | BadLine]


def size_of(item: Record | BadLine) -> int:
    """Bytes of data in a record."""
    return len(item.body) if isinstance(item, Record) else 0


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
        # Grows to CHUNK unless the records turn out large.
        self._count = 8

    async def take(self, on_idle: Callable[[], None]) -> Chunk:
        await asyncio.sleep(0)
        chunk = list(islice(self._records, self._count))
        if sum(map(size_of, chunk)) < CHUNK_BYTES:
            self._count = min(2 * self._count, CHUNK)
        else:
            self._count = max(self._count // 2, 1)
        return chunk

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
        # Each written on one side only: what the thread has read, what the loop has taken.
        self._bytes_read = 0
        self._bytes_taken = 0
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
        self._bytes_taken += sum(map(size_of, chunk))
        self._room.set()
        return chunk

    def stop(self) -> None:
        self._taken.clear()
        self._finished = True
        self._news.set()
        self._room.set()

    def _read(self) -> None:
        try:
            for record in self._records:
                self._bytes_read += size_of(record)
                self._taken.append(record)
                # Looked at after appending: the loop may just have found nothing and gone to sleep.
                if len(self._taken) == 1:
                    self._tell()
                self._wait_for_room()
                if self._finished:
                    return
        except BaseException as error:
            self._error = error
        self._finished = True
        self._tell()

    def _wait_for_room(self) -> None:
        while self._is_full():
            self._room.clear()
            # Looked at again: room may have been made between the two lines.
            if self._is_full():
                self._room.wait()

    def _is_full(self) -> bool:
        return bool(self._taken) and (
            len(self._taken) >= AHEAD or self._bytes_read - self._bytes_taken >= AHEAD_BYTES
        )

    def _tell(self) -> None:
        # The loop may be closed by now, and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)
