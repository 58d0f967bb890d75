"""The ingest engine: records in, events out. Neither arguments nor display here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import fastpump
from fastpump.cli._delivery import Delivery
from fastpump.cli._feed import Chunk, Feed, open_feed
from fastpump.cli._ids import IdMaker, ids_from_fields, ids_from_place
from fastpump.cli._sources import UNREADABLE, BadLine, Source
from fastpump.cli._template import MissingField, Namer
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    ClientClosed,
    FastpumpError,
    PublishFailure,
    StreamDeleted,
    UsageError,
)

MAX_DELAY = 1.0
"""Seconds. A batch holds one stream's events only, so the longer they come together the better."""

ABOUT_LINES = (AccessDenied, BadRequest, StreamDeleted)
"""Reasons for which some lines cannot be published, and others can."""


@dataclass(frozen=True)
class Plan:
    """What becomes of a record, and how it is sent."""

    stream: Namer
    type: Namer
    id_fields: Sequence[str] = ()
    """The fields an id is made of; none: made of the record's place and content."""
    source_name: str | None = None
    """Takes the place of the file's name in ids."""
    batch_size: int = 500
    in_flight: int = 65_536
    """Events that may be waiting or on their way at once."""
    stop_on_error: bool = True


class Problem(NamedTuple):
    """Something that was not published. `line` is None where it is about the whole file."""

    source: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.reason}"


class Place(NamedTuple):
    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}"


class Ingest:
    """Publishes the records of some sources; its counters may be looked at while it runs.

    `on_problem` is called for each line, or file, that could not be published.
    """

    def __init__(
        self,
        client: fastpump.Client,
        sources: Sequence[Source],
        plan: Plan,
        on_problem: Callable[[Problem], None],
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._on_problem = on_problem
        self._stopped = False
        # Places of rows are line numbers counted through all files, so that they order the input.
        self._bases: list[int] = []
        self._base = 0
        self._last_place = 0
        self._make_id: IdMaker = ids_from_place("")
        self._feed: Feed | None = None
        # Of the events not answered yet, by stream: the publisher answers them in this order.
        self._places: dict[str, list[int]] = {}
        self._publisher = client.publisher(
            max_batch_events=plan.batch_size,
            max_delay=MAX_DELAY,
            max_in_flight_events=plan.in_flight,
            on_result=self._on_result,
            on_failure=self._on_failure,
            guard=Delivery(client),
        )
        self.problems = 0
        self.fatal: Exception | None = None
        """The error that ended everything, if one did: the connection's, mostly."""

    @property
    def acknowledged(self) -> int:
        """Events that the server has, written now or known to be there."""
        return self._publisher.stats.acknowledged

    @property
    def acknowledged_bytes(self) -> int:
        """Their data, in bytes."""
        return self._publisher.stats.acknowledged_bytes

    @property
    def position(self) -> int:
        """Bytes of the files, as they lie on disk, that have been read."""
        opened = len(self._bases)
        done = sum(source.size or 0 for source in self._sources[: max(opened - 1, 0)])
        return done + (self._sources[opened - 1].position if opened else 0)

    def stop(self) -> None:
        """Read and send no more; `run` returns when what is on its way has been answered."""
        self._halt()
        self._publisher.discard()

    def reached(self) -> Place | None:
        """Everything up to this line is published or reported as a problem."""
        first = min((places[0] for places in self._places.values()), default=None)
        return self._place(self._last_place if first is None else first - 1)

    def last_read(self) -> Place | None:
        """The last line that was read."""
        return self._place(self._last_place)

    async def run(self) -> None:
        """Publish everything, or as much as there is until `stop` or an error ends it."""
        async with self._publisher:
            try:
                for source in self._sources:
                    if not self._stopped:
                        await self._run_source(source)
            except FastpumpError as error:
                self._end(error)

    async def _run_source(self, source: Source) -> None:
        self._base = self._last_place
        self._bases.append(self._base)
        name = source.name if self._plan.source_name is None else self._plan.source_name
        fields = self._plan.id_fields
        self._make_id = ids_from_fields(fields) if fields else ids_from_place(name)
        self._feed = open_feed(source)
        try:
            while chunk := await self._feed.take(self._publisher.release):
                await self._take(chunk)
        except UNREADABLE as error:
            self._problem(Problem(source.path, None, f"cannot be read any further: {error}"))

    async def _take(self, chunk: Chunk) -> None:
        """Make events of a chunk's records; the loop that runs once per event."""
        name_stream, name_type, make_id = self._plan.stream, self._plan.type, self._make_id
        base, send, all_places = self._base, self._publisher.send, self._places
        new, json, id_of = fastpump.NewEventData, fastpump.Json, UUID
        for item in chunk:
            self._last_place = place = base + item.line
            if isinstance(item, BadLine):
                self._row_failed(place, item.reason)
            else:
                line, fields, body = item
                try:
                    stream = name_stream(fields)
                    id_ = id_of(int=make_id(line, fields, body))
                    room = send(stream, new(id_, name_type(fields), json(body), None))
                except (MissingField, UsageError) as error:
                    self._row_failed(place, str(error))
                else:
                    all_places.setdefault(stream, []).append(place)
                    await room
            if self._stopped:
                return

    def _on_result(self, stream: str, numbers: Sequence[int]) -> None:
        self._take_places(stream, len(numbers))

    def _on_failure(self, failure: PublishFailure) -> None:
        if isinstance(failure.reason, ABOUT_LINES):
            for place in self._take_places(failure.stream, len(failure.events)):
                self._row_failed(place, str(failure.reason))
            if self._stopped:
                self._publisher.discard()
        elif not isinstance(failure.reason, ClientClosed):  # or else it is us who ended
            self._end(failure.reason)

    def _take_places(self, stream: str, count: int) -> list[int]:
        """Where the first of a stream's events that were not answered stand; they are now."""
        places = self._places[stream]
        taken = places[:count]
        del places[:count]
        if not places:
            del self._places[stream]
        return taken

    def _end(self, error: Exception) -> None:
        """Nothing more can be published."""
        if self.fatal is None:
            self.fatal = error
            self.stop()

    def _row_failed(self, place: int, reason: str) -> None:
        where = self._place(place)
        if where is not None:
            self._problem(Problem(*where, reason))

    def _halt(self) -> None:
        self._stopped = True
        if self._feed is not None:
            self._feed.stop()

    def _problem(self, problem: Problem) -> None:
        self.problems += 1
        self._on_problem(problem)
        if self._plan.stop_on_error:
            self._halt()

    def _place(self, place: int) -> Place | None:
        if place == 0:
            return None
        index = max(i for i, base in enumerate(self._bases) if base < place)
        return Place(self._sources[index].path, place - self._bases[index])
