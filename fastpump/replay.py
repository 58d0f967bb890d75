"""Many streams, or the log in ranges, read side by side over several connections.

A worker is a task with one connection. It takes the next stream, or range, when it has read the one
before to its end, so the pages of one stream have one reader and come in their order. All pages
meet in one queue, which holds a few of them: who takes none stops the reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from fastpump._arguments import check_count, check_number, first_position, search_window
from fastpump._read_ahead import ReadAhead
from fastpump.connection import Client
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    FastpumpError,
    NotAuthenticated,
    ReadError,
    ReplayFailed,
    UsageError,
)
from fastpump.filters import Filter
from fastpump.messages import (
    End,
    Event,
    Position,
    PositionSentinel,
    StreamDirection,
    StreamSlice,
)

__all__ = ["LogPage", "LogRange", "Replay"]

CHUNK_SIZE = 256 * 1024 * 1024
"""How many bytes of its log a server keeps in one file, unless told otherwise."""

MAX_CONNECTIONS = 64
MAX_AT_ONCE = 1024

ABOUT_ALL = (ClientClosed, ConnectFailed, NotAuthenticated)
"""Errors after which no other stream can be read either."""

Forward, Backward = StreamDirection.Forward, StreamDirection.Backward

JobT = TypeVar("JobT")
PageT = TypeVar("PageT")
Item = TypeVar("Item", covariant=True)


class Reader(Protocol[Item]):
    """The pages of one read, in order."""

    def __aiter__(self) -> AsyncIterator[Item]: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class LogRange:
    """A part of the log of all events: from `start` on and before `end` (None: to the log's end).

    Raises:
        UsageError: the end is not behind the start.
    """

    start: Position
    end: Position | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise UsageError("end", f"must be behind the start: {self.start} to {self.end}")


class LogPage(NamedTuple):
    """Events of one range, in the order of the log; the last page of a range may have none."""

    range: LogRange
    events: Sequence[Event]
    next_position: Position
    """Where the range goes on; behind its last page, where it ended."""
    is_last: bool
    """Whether it is the last page of its range."""


class Pages(AsyncIterator[PageT], Generic[PageT]):
    """Pages of many reads as they arrive, for one `async for`; those of one read in order.

    Attributes:
        finished: how many of the reads have ended, those that failed included.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        running: set[Pages[Any]],
        jobs: Iterable[JobT],
        read: Callable[[Client, JobT], Reader[PageT]],
        *,
        at_once: int,
        name_of: Callable[[JobT], str] | None = None,
    ) -> None:
        """As long as it reads it is one of `running`. Without `name_of` no read may fail."""
        self._running = running
        self._clients = [client for client in clients for _ in range(at_once)]
        self._jobs = iter(jobs)
        self._read = read
        self._name_of = name_of
        self._failures: dict[str, FastpumpError] = {}
        self._reading: asyncio.Task[None] | None = None
        self._is_closed = False
        # What it ends with; None once everything was read.
        self._error: Exception | None = ClientClosed("The replay was closed before its end")
        self._room = asyncio.Semaphore(2 * len(clients))
        self._arrived: asyncio.Queue[PageT | None] = asyncio.Queue()  # None: there are no more
        self.finished = 0

    async def __anext__(self) -> PageT:
        """The next page of any read.

        Raises:
            ReplayFailed: everything else was read; the reads that failed are named in it.
            FastpumpError: nothing more can be read.
        """
        if self._reading is None and not self._is_closed:
            self._begin()
        page = await self._arrived.get()
        if page is not None:
            self._room.release()
            return page
        self._arrived.put_nowait(None)
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._failures:
            failures, self._failures = self._failures, {}
            raise ReplayFailed(failures)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it; what is under way is let go."""
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._arrived.put_nowait(None)

    def _begin(self) -> None:
        self._reading = asyncio.get_running_loop().create_task(self._read_all())
        self._running.add(self)
        self._reading.add_done_callback(lambda _: self._running.discard(self))

    async def _read_all(self) -> None:
        workers = [asyncio.ensure_future(self._work(client)) for client in self._clients]
        try:
            await asyncio.gather(*workers)
            self._error = None
        except Exception as error:
            self._error = error
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._arrived.put_nowait(None)

    async def _work(self, client: Client) -> None:
        for job in self._jobs:
            try:
                async with aclosing(self._read(client, job)) as pages:
                    async for page in pages:
                        await self._room.acquire()
                        self._arrived.put_nowait(page)
            except ABOUT_ALL:
                raise
            except FastpumpError as error:
                if self._name_of is None:
                    raise
                # Its traceback would keep the last page that was read.
                self._failures[self._name_of(job)] = error.with_traceback(None)
            self.finished += 1


class Replay:
    """Reads a lot over several connections; use it as an asynchronous context manager.

    What one connection carries is often enough: several help where the round trip is long, where
    streams are many and short, or where the server has cores to spare. Python itself works on one
    core here; a process for each part of the work is what uses more (docs/replaying.md).

    Args:
        connect: makes a client that is not connected, such as `partial(fastpump.connect, "db1")`.
        connections: how often it is called, 1 to 64.

    Raises:
        UsageError: an argument is not acceptable, or `connect` says so of its own.

    >>> async with fastpump.Replay(fastpump.connect, connections=4) as replay:
    ...     async for page in replay.streams(names):
    ...         print(page.stream, len(page))
    """

    def __init__(self, connect: Callable[[], Client], connections: int = 1) -> None:
        check_number("connections", connections, 1, MAX_CONNECTIONS)
        self._clients = [connect() for _ in range(connections)]
        self._running: set[Pages[Any]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Replay:
        async with AsyncExitStack() as stack:
            for client in self._clients:
                await stack.enter_async_context(client)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for pages in tuple(self._running):
                await pages.aclose()
        finally:
            await self._stack.aclose()

    def streams(
        self,
        streams: Iterable[str] | Mapping[str, int],
        *,
        at_once: int = 8,
        batch_size: int = 500,
        resolve_links: bool = True,
        require_master: bool | None = None,
    ) -> Pages[StreamSlice]:
        """The pages of many streams from their start to their end.

        The pages of one stream come in its order, those of different streams as they arrive; a
        page's `stream` says whose it is. A stream that cannot be read holds up no other: all such
        are in the `ReplayFailed` that is raised at the end. A lost connection is made again, and
        what it carried goes on where it was.

        Memory is bounded by the streams that are read at once, each of them up to 8 MiB or one
        page ahead of the consumer. When the loop is left early, `aclose()`, or leaving the
        `Replay`, lets go of what is under way.

        Args:
            streams: their names, each once; they are taken from it one by one. A mapping has the
                number of the first event wanted for each.
            at_once: how many streams are read at once by each connection.
            batch_size: the most events in a page, 1 to 4096.
            resolve_links, require_master: as in `Client.get_event`.

        Raises:
            UsageError: an argument is not acceptable.
        """
        if isinstance(streams, str) or not isinstance(streams, Iterable):
            raise UsageError("streams", f"must be an iterable of names, not {streams!r:.80}")
        check_number("at_once", at_once, 1, MAX_AT_ONCE)
        check_count("batch_size", batch_size)
        starts = streams if isinstance(streams, Mapping) else {}

        def read(client: Client, stream: str) -> ReadAhead[StreamSlice]:
            return client.iter_slices(
                stream,
                from_event=starts.get(stream, 0),
                batch_size=batch_size,
                resolve_links=resolve_links,
                require_master=require_master,
            )

        return Pages(self._clients, self._running, streams, read, at_once=at_once, name_of=str)

    def log(
        self,
        ranges: Iterable[LogRange],
        *,
        batch_size: int = 500,
        resolve_links: bool = True,
        require_master: bool | None = None,
        filter: Filter | None = None,
        max_search_window: int | None = None,
    ) -> Pages[LogPage]:
        """The pages of ranges of the log of all events, each connection with one range at a time.

        The pages of one range come in the order of the log, those of different ranges as they
        arrive. The events of one stream may lie in several ranges: they are in order within each,
        and all of them once the ranges are put one behind the other. What needs a stream's events
        in order as they come reads `streams`, or one range.

        Every error ends it. Memory is bounded as in `streams`; so is leaving it early.

        Args:
            ranges: which, from `ranges()` or made of positions where events are.
            batch_size: the most events in a page, 1 to 4096.
            resolve_links, require_master, filter, max_search_window: as in `Client.get_all`.

        Raises:
            UsageError: an argument is not acceptable.
        """
        check_count("batch_size", batch_size)
        search_window(filter, max_search_window, batch_size)

        async def read(client: Client, part: LogRange) -> AsyncGenerator[LogPage, None]:
            following = part.start
            async for page in client.iter_all_slices(
                from_position=part.start,
                batch_size=batch_size,
                resolve_links=resolve_links,
                require_master=require_master,
                filter=filter,
                max_search_window=max_search_window,
            ):
                if part.end is not None and page.next_position >= part.end:
                    yield LogPage(part, before(part.end, page), part.end, True)
                    return
                following = page.next_position
                yield LogPage(part, page, following, False)
            yield LogPage(part, (), following, True)

        return Pages(self._clients, self._running, ranges, read, at_once=1)

    async def ranges(
        self,
        count: int,
        *,
        from_position: Position | PositionSentinel | None = None,
        chunk_size: int = CHUNK_SIZE,
    ) -> list[LogRange]:
        """Divide the log of all events into ranges of about the same size in bytes.

        A server refuses to read from a position where no event begins, and there is no list of
        those. But a record begins where one of the files does that the server keeps its log in:
        so each border is the first event of a file, found by a read of one event. A border that
        the server does not let be read is left out.

        Args:
            count: how many are wanted, from 1. There are fewer where the log has fewer files, and
                where the server refuses; one is always possible.
            from_position: where the first one starts; by default at the beginning.
            chunk_size: bytes in one file: the server's setting `ChunkSize`, or a multiple of it.
                1 for the embedded node, which can be read from anywhere.

        Returns:
            The ranges in their order. The last one has no end, so nothing is left out.

        Raises:
            UsageError: an argument is not acceptable.
            AccessDenied: the log may be read by administrators only, by default.
        """
        check_number("count", count, 1)
        check_number("chunk_size", chunk_size, 1)
        start = first_position(Forward, from_position)
        client = self._clients[0]
        newest = await client.get_all(Backward, End, max_count=1, resolve_links=False)
        length = newest.start_position.commit - start.commit
        borders = [start]
        for part in range(1, count):
            wanted = start.commit + length * part // count
            border = Position((wanted + chunk_size // 2) // chunk_size * chunk_size, 0)
            if border > borders[-1]:
                found = await _first_event(client, border)
                if found is not None and found > borders[-1]:
                    borders.append(found)
        return [LogRange(*pair) for pair in zip(borders, [*borders[1:], None], strict=True)]


def before(end: Position, events: Sequence[Event]) -> list[Event]:
    """The events before a position."""
    return [event for event in events if event.position is not None and event.position < end]


async def _first_event(client: Client, position: Position) -> Position | None:
    """Where the first event from a position on lies, if the server reads from there."""
    try:
        page = await client.get_all(from_position=position, max_count=1, resolve_links=False)
    except ReadError:
        return None
    return page[0].position if page else None
