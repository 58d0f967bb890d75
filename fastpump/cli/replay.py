"""`fastpump replay`: a stream, or everything, from start to end."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import click

import fastpump
from fastpump.cli._interrupt import EXIT_CODE
from fastpump.cli._job import run_until_interrupted
from fastpump.cli._options import Server, errors_reported, server_options
from fastpump.cli._progress import Display, Figures
from fastpump.cli._replay import Replay

Start = int | fastpump.Position


@click.command()
@server_options
@click.option(
    "--stream", metavar="NAME", help="The stream to read. Default: the log of all events."
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
@click.option("--system", is_flag=True, help="Also the server's own events, of types with a $.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the figures of the run into this file, as JSON.",
)
def replay(
    server: Server,
    stream: str | None,
    stream_prefix: tuple[str, ...],
    type_prefix: tuple[str, ...],
    from_: str | None,
    format_: str,
    output: Path | None,
    batch_size: int,
    system: bool,
    summary: Path | None,
) -> None:
    """Read a stream, or the log of all events, and write it out as NDJSON.

    Reading the log takes a user who may, such as --username admin. After Ctrl-C the position
    to go on from is shown.

    \b
    Exit code: 0 read to the end, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C.
    Example: fastpump replay --stream aircraft-N14228 -o aircraft.ndjson
    """
    start = _start(from_, stream)
    wanted = _filter(stream, stream_prefix, type_prefix)
    run = _Run(server.with_password(), stream, wanted, start, batch_size, system)
    with errors_reported():
        try:
            with _open_output(format_, output) as file:
                interrupted = fastpump.run(run.main(file))
        except BrokenPipeError:
            # Whoever read our output has seen enough; nothing may be flushed into it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
    if summary is not None:
        run.figures().write_to(summary)
    raise SystemExit(run.report(interrupted))


def _start(text: str | None, stream: str | None) -> Start:
    """The value of --from: an event number for a stream, a position for the log."""
    if text is None:
        return fastpump.Position(0, 0) if stream is None else 0
    numbers = text.split("/")
    if len(numbers) != (2 if stream is None else 1) or not all(map(str.isdecimal, numbers)):
        form = "a position COMMIT/PREPARE" if stream is None else "an event number"
        raise click.BadParameter(f"{text!r} is not {form}", param_hint="--from")
    if stream is not None:
        return int(text)
    commit, prepare = map(int, numbers)
    if commit < prepare:
        raise click.BadParameter(f"{text!r} is no position of an event", param_hint="--from")
    return fastpump.Position(commit, prepare)


def _filter(
    stream: str | None, stream_prefix: tuple[str, ...], type_prefix: tuple[str, ...]
) -> fastpump.Filter | None:
    if not stream_prefix and not type_prefix:
        return None
    if stream is not None:
        raise click.UsageError("--stream is read as a whole: prefixes are for the log")
    if stream_prefix and type_prefix:
        raise click.UsageError("--stream-prefix and --type-prefix are one too many")
    with errors_reported():
        if stream_prefix:
            return fastpump.Filter.stream_prefix(*stream_prefix)
        return fastpump.Filter.event_type_prefix(*type_prefix)


@contextlib.contextmanager
def _open_output(format_: str, output: Path | None) -> Iterator[IO[bytes] | None]:
    if format_ == "none":
        yield None
    elif output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with output.open("wb") as file:
            yield file


@dataclass
class _Run:
    """One replay: the engine, what is shown of it, and how it ended."""

    server: Server
    stream: str | None
    filter: fastpump.Filter | None
    start: Start
    batch_size: int
    system: bool
    display: Display = field(default_factory=lambda: Display("replay"))
    engine: Replay | None = None
    seconds: float = 0.0

    async def main(self, output: IO[bytes] | None) -> bool:
        """Do the work; True if it was interrupted."""
        with self.display.log():
            return await run_until_interrupted(self._work(output), self._stop)

    async def _work(self, output: IO[bytes] | None) -> None:
        async with self.server.connect() as client:
            self.engine = Replay(
                client,
                self.stream,
                filter=self.filter,
                start=self.start,
                batch_size=self.batch_size,
                output=output,
                system=self.system,
            )
            started = time.perf_counter()
            async with self.display.live(self.engine.look):
                try:
                    await self.engine.run()
                finally:
                    self.seconds = time.perf_counter() - started

    def _stop(self) -> bool:
        if self.engine is None:
            return False
        self.engine.stop()
        return True

    def figures(self) -> Figures:
        """What was read, and how long that took."""
        if self.engine is None:
            return Figures(0, 0, 0.0)
        return Figures(self.engine.events, self.engine.bytes, self.seconds)

    def report(self, interrupted: bool) -> int:
        """Say how it ended; the exit code."""
        self.display.message(f"Read: {self.figures()}")
        if not interrupted:
            return 0
        if self.engine is not None:
            where = self.engine.next
            text = where if isinstance(where, int) else f"{where.commit}/{where.prepare}"
            self.display.message(f"Stopped; go on with --from {text}")
        return EXIT_CODE
