"""`fastpump ingest`: events out of files into streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click

import fastpump
from fastpump.cli._ingest import Ingest, Plan, Problem
from fastpump.cli._interrupt import EXIT_CODE
from fastpump.cli._job import run_until_interrupted
from fastpump.cli._options import Server, errors_reported, server_options
from fastpump.cli._progress import Display, Figures, Sample
from fastpump.cli._sources import FORMATS, Source, UnknownFormat
from fastpump.cli._template import Namer, compile_template


class Template(click.ParamType[Namer]):
    """A stream's or a type's name with fields in braces."""

    name = "template"

    def convert(
        self, value: str | Namer, param: click.Parameter | None, context: click.Context | None
    ) -> Namer:
        if not isinstance(value, str):
            return value
        try:
            return compile_template(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, context)


@click.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@server_options
@click.option(
    "--stream",
    type=Template(),
    required=True,
    help="The stream of an event: a name, with {field} or {field:default} for its fields.",
)
@click.option("--type", "type_", type=Template(), required=True, help="Its type, likewise.")
@click.option(
    "--id-from",
    metavar="FIELD[,FIELD...]",
    help="Make event ids of these fields; one that holds a UUID is the id itself. Default: of the "
    "file's name, the line number and the content.",
)
@click.option(
    "--source-name",
    metavar="NAME",
    help="Make ids with this name instead of the file's: for one that was renamed, or standard "
    "input.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    help="What is in the files. Default: what their names end in; ndjson for standard input.",
)
@click.option("--null", metavar="TEXT", help="What stands for a missing value in CSV, e.g. NA.")
@click.option(
    "--batch-size", type=click.IntRange(1, 10_000), default=Plan.batch_size, show_default=True
)
@click.option(
    "--in-flight",
    type=click.IntRange(1),
    default=Plan.in_flight,
    show_default=True,
    help="Events that may be waiting or on their way at once.",
)
@click.option(
    "--on-error",
    type=click.Choice(("stop", "skip")),
    default="stop",
    show_default=True,
    help="What to do about a line that cannot be published.",
)
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the figures of the run into this file, as JSON.",
)
def ingest(
    server: Server,
    files: tuple[str, ...],
    stream: Namer,
    type_: Namer,
    id_from: str | None,
    source_name: str | None,
    format_: str | None,
    null: str | None,
    batch_size: int,
    in_flight: int,
    on_error: str,
    summary: Path | None,
) -> None:
    """Publish the lines of NDJSON or CSV files (also .gz or .zip; - is standard input).

    Every line becomes an event, with its fields as JSON data. Ids come out the same each time, so
    that running the command again adds nothing, and finishes what was interrupted.

    \b
    Exit code: 0 all published, 1 something was not, 2 wrong usage, 130 stopped by Ctrl-C.
    Example: fastpump ingest flights.csv --stream 'aircraft-{tailnum:unknown}' --type flight
    """
    plan = Plan(
        stream=stream,
        type=type_,
        id_fields=tuple(id_from.split(",")) if id_from else (),
        source_name=source_name,
        batch_size=batch_size,
        in_flight=in_flight,
        stop_on_error=on_error == "stop",
    )
    sources = _open_sources(files, format_, null)
    if len(sources) > 1 and source_name is not None:
        raise click.UsageError("--source-name is for one file only: lines would share their ids")
    run = _Run(server.with_password(), sources, plan)
    with errors_reported():
        interrupted = fastpump.run(run.main())
    if summary is not None:
        run.figures().write_to(summary)
    raise SystemExit(run.report(interrupted))


def _open_sources(files: tuple[str, ...], format_: str | None, null: str | None) -> list[Source]:
    try:
        sources = [Source(path, format_, null) for path in files]
    except UnknownFormat as error:
        raise click.UsageError(str(error)) from error
    by_name: dict[str, Source] = {}
    for source in sources:
        other = by_name.setdefault(source.name, source)
        if other is not source:
            raise click.UsageError(
                f"{other.path} and {source.path} have the same name, so equal lines would get "
                "equal ids: ingest them one by one with --source-name"
            )
    return sources


@dataclass
class _Run:
    """One ingest: the engine, what is shown of it, and how it ended."""

    server: Server
    sources: list[Source]
    plan: Plan
    display: Display = field(default_factory=lambda: Display("ingest"))
    engine: Ingest | None = None
    started: float = 0.0
    seconds: float = 0.0

    async def main(self) -> bool:
        """Do the work; True if it was interrupted."""
        with self.display.log():
            return await run_until_interrupted(self._work(), self._stop)

    async def _work(self) -> None:
        async with self.server.connect() as client:
            self.engine = Ingest(client, self.sources, self.plan, self._show_problem)
            self.started = time.perf_counter()
            async with self.display.live(self._look(self.engine)):
                try:
                    await self.engine.run()
                finally:
                    self.seconds = time.perf_counter() - self.started

    def _look(self, engine: Ingest) -> Callable[[], Sample]:
        sizes = [source.size for source in self.sources]
        total = 0 if None in sizes else sum(size or 0 for size in sizes)
        return lambda: Sample(
            engine.acknowledged, engine.acknowledged_bytes, engine.position, total
        )

    def _show_problem(self, problem: Problem) -> None:
        self.display.message(str(problem))

    def _stop(self) -> bool:
        if self.engine is None:
            return False
        self.display.message("Stopping: waiting for what is on its way ...")
        self.engine.stop()
        return True

    def figures(self) -> Figures:
        """What was acknowledged, and how long that took."""
        if self.engine is None:
            return Figures(0, 0, 0.0)
        return Figures(self.engine.acknowledged, self.engine.acknowledged_bytes, self.seconds)

    def report(self, interrupted: bool) -> int:
        """Say how it ended; the exit code."""
        engine, say = self.engine, self.display.message
        if engine is None:
            say("Stopped before anything was sent.")
            return EXIT_CODE
        if engine.fatal is not None:
            say(f"Ended: {engine.fatal}")
        elif engine.problems:
            say(f"{engine.problems:,} could not be published, see above.")
        if interrupted or engine.fatal is not None or (engine.problems and self.plan.stop_on_error):
            say(_where_it_stopped(engine))
        say(f"Acknowledged: {self.figures()}")
        if interrupted:
            return EXIT_CODE
        return 1 if engine.problems or engine.fatal is not None else 0


def _where_it_stopped(engine: Ingest) -> str:
    reached, last_read = engine.reached(), engine.last_read()
    if last_read is None:
        return "Stopped before the first line."
    before = "nothing before it is" if reached is None else f"everything up to {reached} is"
    return (
        f"Stopped at {last_read}; {before} published or reported. The same command again "
        "goes on from there and adds nothing twice."
    )
