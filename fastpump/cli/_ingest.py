"""The ingest engine: records in, events out. Neither arguments nor display here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import fastpump
from fastpump.cli._delivery import Delivery
from fastpump.cli._feed import Chunk, Feed, open_feed
from fastpump.cli._ids import IdMaker, ids_from_fields, ids_from_place
from fastpump.cli._sources import UNREADABLE, BadLine, Source
from fastpump.cli._template import MissingField, Namer
from fastpump.cli._writer import StreamWriter


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
    in_flight: int = 16_384
    """Events that may be on their way at once."""
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
        self._delivery = Delivery(client, self._row_refused)
        self._writer = StreamWriter(
            self._delivery, batch_size=plan.batch_size, in_flight=plan.in_flight
        )
        self.problems = 0

    @property
    def acknowledged(self) -> int:
        """Events that the server has, written now or known to be there."""
        return self._delivery.acknowledged

    @property
    def acknowledged_bytes(self) -> int:
        """Their data, in bytes."""
        return self._delivery.acknowledged_bytes

    @property
    def position(self) -> int:
        """Bytes of the files, as they lie on disk, that have been read."""
        opened = len(self._bases)
        done = sum(source.size or 0 for source in self._sources[: max(opened - 1, 0)])
        return done + (self._sources[opened - 1].position if opened else 0)

    @property
    def fatal(self) -> Exception | None:
        """The error that ended everything, if one did: the connection's, mostly."""
        return self._writer.fatal

    def stop(self) -> None:
        """Read and send no more; `run` returns when what is on its way has been answered."""
        self._halt()
        self._writer.give_up()

    def reached(self) -> Place | None:
        """Everything up to this line is published or reported as a problem."""
        first = self._writer.first_unanswered()
        place = self._last_place if first is None else first - 1
        return self._place(place)

    def last_read(self) -> Place | None:
        """The last line that was read."""
        return self._place(self._last_place)

    async def run(self) -> None:
        """Publish everything, or as much as there is until `stop` or an error ends it."""
        for source in self._sources:
            if not self._stopped:
                await self._run_source(source)
        await self._writer.drain()

    async def _run_source(self, source: Source) -> None:
        self._base = self._last_place
        self._bases.append(self._base)
        name = source.name if self._plan.source_name is None else self._plan.source_name
        fields = self._plan.id_fields
        self._make_id = ids_from_fields(fields) if fields else ids_from_place(name)
        self._feed = open_feed(source)
        try:
            while chunk := await self._feed.take(self._writer.flush):
                self._take(chunk)
                self._writer.pump()
                await self._writer.room()
                if self.fatal is not None:
                    self._halt()
        except UNREADABLE as error:
            self._problem(Problem(source.path, None, f"cannot be read any further: {error}"))

    def _take(self, chunk: Chunk) -> None:
        """Make events of a chunk's records; the loop that runs once per event."""
        name_stream, name_type, make_id = self._plan.stream, self._plan.type, self._make_id
        base, add = self._base, self._writer.add
        for item in chunk:
            self._last_place = place = base + item.line
            if isinstance(item, BadLine):
                self._row_failed(place, item.reason)
            else:
                line, fields, body = item
                try:
                    row = (place, name_type(fields), make_id(line, fields, body), body)
                    add(name_stream(fields), row)
                except MissingField as error:
                    self._row_failed(place, str(error))
            if self._stopped:
                return

    def _row_failed(self, place: int, reason: str) -> None:
        where = self._place(place)
        if where is not None:
            self._problem(Problem(*where, reason))

    def _row_refused(self, place: int, reason: str) -> None:
        self._row_failed(place, reason)
        if self._stopped:
            self._writer.give_up()

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
