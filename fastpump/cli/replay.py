"""`fastpump replay`: a stream, or everything, from start to end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import click

import fastpump
from fastpump.cli._interrupt import EXIT_CODE
from fastpump.cli._job import run_until_interrupted
from fastpump.cli._options import Server, errors_reported, server_options
from fastpump.cli._progress import Display
from fastpump.cli._replay import Plan
from fastpump.cli._replay_job import Job
from fastpump.exceptions import FastpumpError
from fastpump.replay import CHUNK_SIZE


@click.command()
@server_options
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME",
    help="The stream to read; may be given several times. Default: the log of all events.",
)
@click.option(
    "--streams-from",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="Read the streams whose names stand in this file, one on each line; - is standard input.",
)
@click.option(
    "--stream-prefix",
    multiple=True,
    metavar="TEXT",
    help="Of the log only events of streams whose names begin so; may be given several times. "
    "Needs a server of version 20 or later, and so does --type-prefix.",
)
@click.option(
    "--type-prefix",
    multiple=True,
    metavar="TEXT",
    help="Of the log only events whose types begin so; likewise.",
)
@click.option(
    "--from",
    "from_",
    metavar="WHERE",
    help="Start here: an event number of the stream, or a position COMMIT/PREPARE of the log.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(("ndjson", "none")),
    default="ndjson",
    show_default=True,
    help="What to write of each event: a line of JSON, or nothing (to measure).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write into this file. Default: standard output.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    default=500,
    show_default=True,
    help="Events per page.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Read over so many connections at once, the log in as many ranges. "
    "Default: one for each process.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 32),
    default=1,
    show_default=True,
    metavar="N",
    help="Make lines of the events in so many processes, to use as many cores.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(1),
    default=CHUNK_SIZE,
    show_default=True,
    metavar="BYTES",
    help="The server's setting ChunkSize: ranges of the log begin where its files do. "
    "1 for `fastpump serve`, where they may begin anywhere.",
)
@click.option("--system", is_flag=True, help="Also the server's own events, of types with a $.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the figures of the run into this file, as JSON.",
)
def replay(
    server: Server,
    streams: tuple[str, ...],
    streams_from: IO[str] | None,
    stream_prefix: tuple[str, ...],
    type_prefix: tuple[str, ...],
    from_: str | None,
    format_: str,
    output: Path | None,
    batch_size: int,
    connections: int | None,
    processes: int,
    chunk_size: int,
    system: bool,
    summary: Path | None,
) -> None:
    """Read streams, or the log of all events, and write them out as NDJSON.

    The events of a stream stand in its order, those of the log in the log's, whatever the number
    of connections and processes. Those of several streams stand mixed as they arrive. Streams that
    cannot be read are reported, and hold up no others.

    Reading the log takes a user who may, such as --username admin. After Ctrl-C what was written
    is complete up to the place from which to go on, which is shown for one stream and for the log.

    \b
    Exit code: 0 read to the end, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    Examples: fastpump replay --stream aircraft-N14228 -o aircraft.ndjson
              fastpump replay --username admin --processes 2 -o everything.ndjson
    """
    names = _names(streams, streams_from)
    connections = _connections(connections, processes)
    file = None if format_ == "none" else output
    if file is None and format_ != "none" and (processes > 1 or (connections > 1 and not names)):
        raise click.UsageError(
            "several processes, or connections that share the log, take an --output to write to"
        )
    start = _start(from_, names)
    plan = Plan(
        server.with_password(),
        streams=names,
        from_event=start if isinstance(start, int) else 0,
        ranges=() if isinstance(start, int) else (fastpump.LogRange(start),),
        filter=_filter(names, stream_prefix, type_prefix),
        batch_size=batch_size,
        system=system,
        connections=connections,
        pieces=() if format_ == "none" else (file,),
    )
    display = Display("replay")
    job = Job(plan, processes=processes, chunk_size=chunk_size, output=file, tell=display.message)
    with errors_reported(), _output_may_end():
        interrupted = fastpump.run(_run(job, display))
    for reason in job.failures.values():
        display.message(str(reason))
    display.message(f"Read: {job.figures()}")
    if interrupted:
        display.message(f"Stopped; {job.rest()}")
    if summary is not None:
        job.figures().write_to(summary)
    raise SystemExit(EXIT_CODE if interrupted else int(bool(job.failures)))


async def _run(job: Job, display: Display) -> bool:
    """Do the work; True if it was interrupted."""
    with display.log():
        async with display.live(lambda: job.report().sample):
            try:
                return await run_until_interrupted(job.run(), stop=lambda: False)
            except FastpumpError:
                if job.figures().events:
                    display.message(f"Failed; {job.rest()}")
                raise


@contextlib.contextmanager
def _output_may_end() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _names(streams: Sequence[str], file: Iterable[str] | None) -> list[str]:
    """The streams that were asked for, each once; none: the log."""
    names = list(streams)
    if file is not None:
        try:
            names += filter(None, (line.rstrip("\n") for line in file))
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8: {error}"
            raise click.BadParameter(problem, param_hint="--streams-from") from None
        if not names:
            raise click.BadParameter("has no name in it", param_hint="--streams-from")
    return list(dict.fromkeys(names))


def _connections(wanted: int | None, processes: int) -> int:
    if wanted is not None and wanted < processes:
        raise click.UsageError("--connections must be as many as --processes: each needs its own")
    return wanted or processes


def _start(text: str | None, streams: Sequence[str]) -> int | fastpump.Position:
    """The value of --from: an event number for a stream, a position for the log."""
    if text is None:
        return 0 if streams else fastpump.Position(0, 0)
    if len(streams) > 1:
        raise click.UsageError("--from is for the log, or for one stream")
    numbers = text.split("/")
    if len(numbers) != (1 if streams else 2) or not all(map(str.isdecimal, numbers)):
        form = "an event number" if streams else "a position COMMIT/PREPARE"
        raise click.BadParameter(f"{text!r} is not {form}", param_hint="--from")
    if streams:
        return int(text)
    commit, prepare = map(int, numbers)
    if commit < prepare:
        raise click.BadParameter(f"{text!r} is no position of an event", param_hint="--from")
    return fastpump.Position(commit, prepare)


def _filter(
    streams: Sequence[str], stream_prefix: tuple[str, ...], type_prefix: tuple[str, ...]
) -> fastpump.Filter | None:
    if not stream_prefix and not type_prefix:
        return None
    if streams:
        raise click.UsageError("streams are read as a whole: prefixes are for the log")
    if stream_prefix and type_prefix:
        raise click.UsageError("--stream-prefix and --type-prefix are one too many")
    with errors_reported():
        if stream_prefix:
            return fastpump.Filter.stream_prefix(*stream_prefix)
        return fastpump.Filter.event_type_prefix(*type_prefix)
