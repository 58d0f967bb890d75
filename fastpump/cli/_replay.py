"""The replay engine: pages in, lines out. Neither arguments nor display here."""

from __future__ import annotations

import contextlib
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

import fastpump
from fastpump.cli._options import Server
from fastpump.cli._progress import Sample

SYSTEM_PREFIX = "$"
"""How the types of the server's own events begin."""

BUFFER = 256 * 1024
"""Bytes of a file that are written at once, if a page has as many."""

SEARCH_WINDOW = 10_000
"""Events a server looks at for one page where a filter says which are wanted."""


def to_line(event: fastpump.Event) -> bytes:
    """An event as one line of NDJSON.

    JSON bodies are inserted as they are stored; others stand in Base64 under `data_base64` and
    `metadata_base64`. Empty metadata is left out.
    """
    fields: dict[str, Any] = {
        "stream": event.stream,
        "event_number": event.event_number,
        "type": event.type,
        "id": event.id,
        "created": event.created,
        "position": None if event.position is None else list(event.position),
    }
    _put_body(fields, "data", event.data, event.is_json)
    if event.metadata:
        _put_body(fields, "metadata", event.metadata, True)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def _put_body(fields: dict[str, Any], name: str, body: bytes, may_be_json: bool) -> None:
    if may_be_json:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            # Inserted unread, a number keeps all its digits; but a line must stay one line.
            fields[name] = value if b"\n" in body else orjson.Fragment(body)
            return
    fields[f"{name}_base64"] = b64encode(body).decode()


@dataclass(frozen=True)
class Plan:
    """What is read, and where it is written."""

    server: Server
    streams: Sequence[str] = ()
    from_event: int = 0
    """The number of the first event wanted of each stream."""
    ranges: Sequence[fastpump.LogRange] = ()
    """Of the log, if there are no streams."""
    end: int = 0
    """How far the log goes, as a commit position: where a replay of it will be complete."""
    filter: fastpump.Filter | None = None
    batch_size: int = 500
    system: bool = False
    """Whether the server's own events are wanted too."""
    connections: int = 1
    pieces: Sequence[Path | None] = ()
    """A file for each range, or one for all streams; None is standard output. Without any nothing
    is written."""


class Place(NamedTuple):
    """How far a range was read, or streams; what it tells of is in its piece."""

    next: int | fastpump.Position
    """Where a later replay goes on; means nothing for several streams."""
    size: int = 0
    """Bytes of the piece. What lies behind them is not finished."""
    is_complete: bool = False
    """Whether another piece may follow: after a range that was read to its end, and always after
    streams, each of which lies in one piece."""


class Report(NamedTuple):
    """How far a replay is."""

    sample: Sample
    """The bytes are data, without metadata. What is done is counted in bytes of the log or in
    streams."""
    places: Sequence[Place]
    """Of each piece."""
    streams: int
    """Which were read to their end."""

    @property
    def reached(self) -> int:
        """The first piece that no other may follow, or else the last one."""
        incomplete = (index for index, place in enumerate(self.places) if not place.is_complete)
        return next(incomplete, len(self.places) - 1)


class Reader:
    """Reads what a plan says, forwards to the end, and makes lines of it.

    It may be cancelled at any time, and its report looked at while it runs.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._files: Sequence[IO[bytes]] = ()
        self._events = self._bytes = 0
        self._streams = 0
        self._parts: dict[str, float] = {}  # how much was read of the streams under way
        if plan.streams:
            self._places = [Place(plan.from_event, is_complete=True)]
        else:
            self._places = [Place(part.start) for part in plan.ranges]

    def report(self) -> Report:
        """How far it is."""
        if self._plan.streams:
            done, total = self._streams + sum(self._parts.values()), len(self._plan.streams)
        else:
            done, total = self._way()
        sample = Sample(self._events, self._bytes, done, total)
        return Report(sample, tuple(self._places), self._streams)

    async def run(self) -> None:
        """Read to the end.

        Raises:
            ReplayFailed: some streams could not be read; the others were.
            FastpumpError: nothing more can be read.
            OSError: nothing more can be written.
        """
        plan = self._plan
        with opened(plan.pieces) as self._files:
            async with fastpump.Replay(plan.server.connect, plan.connections) as replay:
                await (self._read_streams(replay) if plan.streams else self._read_log(replay))

    async def _read_streams(self, replay: fastpump.Replay) -> None:
        async for page in replay.streams(
            dict.fromkeys(self._plan.streams, self._plan.from_event),
            batch_size=self._plan.batch_size,
            resolve_links=False,
        ):
            self._take(page, 0, page.next_event_number, True)
            if page.is_end_of_stream:
                self._parts.pop(page.stream, None)
                self._streams += 1
            else:
                self._parts[page.stream] = page.next_event_number / (page.last_event_number + 1)

    async def _read_log(self, replay: fastpump.Replay) -> None:
        plan = self._plan
        index_of = {part: index for index, part in enumerate(plan.ranges)}
        async for page in replay.log(
            plan.ranges,
            batch_size=plan.batch_size,
            resolve_links=False,
            filter=plan.filter,
            max_search_window=None if plan.filter is None else SEARCH_WINDOW,
        ):
            self._take(page.events, index_of[page.range], page.next_position, page.is_last)

    def _take(
        self,
        events: Iterable[fastpump.Event],
        index: int,
        following: int | fastpump.Position,
        is_complete: bool,
    ) -> None:
        """A page for the piece with this index."""
        if not self._plan.system:
            events = [event for event in events if not event.type.startswith(SYSTEM_PREFIX)]
        count = size = 0
        for event in events:
            count += 1
            size += len(event.data)
        written = self._places[index].size
        if self._files:
            written += write_lines(events, self._files[index])
        self._places[index] = Place(following, written, is_complete)
        self._events += count
        self._bytes += size

    def _way(self) -> tuple[int, int]:
        """How much of its ranges was read, and how much there is, in bytes of the log."""
        done = total = 0
        for part, place in zip(self._plan.ranges, self._places, strict=True):
            assert not isinstance(place.next, int)
            end = self._plan.end if part.end is None else part.end.commit
            done += min(place.next.commit, end) - min(part.start.commit, end)
            total += max(end - part.start.commit, 0)
        return done, total


def write_lines(events: Iterable[fastpump.Event], file: IO[bytes]) -> int:
    """Write events so that the system has them; how many bytes they took."""
    # Line by line: if they were put together first, the memory for that would come from the system
    # and go back to it with every page, which takes longer than writing.
    size = sum([file.write(to_line(event)) for event in events])
    file.flush()
    return size


@contextlib.contextmanager
def opened(pieces: Sequence[Path | None]) -> Iterator[list[IO[bytes]]]:
    """The files, open for writing; None stands for standard output."""
    with contextlib.ExitStack() as stack:
        yield [
            sys.stdout.buffer if path is None else stack.enter_context(path.open("wb", BUFFER))
            for path in pieces
        ]
