"""How fast `fastpump replay` is over several connections and in several processes.

`python bench/replays.py`, see README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

import tools
from node_process import FASTPUMP, HOST, SETTING
from report import amount, line, machine, ratio

ROUND_TRIP = 0.01
"""Seconds to the server that is far away, and back."""


class Work(NamedTuple):
    """Reading the log of a server, or streams of it, each of which has the events of the log."""

    events: int
    """In the log."""
    streams: int = 0
    """How many of them are read; none: the log."""
    writes: bool = True
    """Lines of NDJSON into a file; otherwise events are only counted."""
    is_far: bool = False

    @property
    def title(self) -> str:
        what = f"{self.streams:,} streams of" if self.streams else "the log of"
        how = "as NDJSON" if self.writes else "counted"
        return f"{what} {self.events:,} events, {how}{', far away' if self.is_far else ''}"

    @property
    def total(self) -> int:
        """The events that are read."""
        return self.events * (self.streams or 1)

    def options(self, folder: Path) -> list[str]:
        """What says this to the command; `folder` is for its files."""
        options = ["-o", str(folder / "output")] if self.writes else ["--format", "none"]
        if not self.streams:
            return [*options, "--chunk-size", "1"]
        names = folder / "names"
        names.write_text("".join(f"bench-{number}\n" for number in range(self.streams)))
        return [*options, "--streams-from", str(names)]


WORK = (
    Work(20_000, streams=50, writes=False),
    Work(20_000, streams=50),
    Work(20, streams=10_000),
    Work(500_000, writes=False),
    Work(500_000),
    Work(100_000, writes=False, is_far=True),
)
QUICK = tuple(
    work._replace(events=min(work.events, 1_000), streams=min(work.streams, 20)) for work in WORK
)

WIDTHS = {
    "1 connection": ["--connections", "1"],
    "2 connections": ["--connections", "2"],
    "4 connections": ["--connections", "4"],
    "2 processes, 2 connections": ["--processes", "2"],
    "2 processes, 4 connections": ["--processes", "2", "--connections", "4"],
}

Rates = defaultdict[tuple[Work, str], list[float]]


# --- a server that is far away ---


@contextmanager
def far_away(port: int) -> Iterator[int]:
    """A port at which a server takes `ROUND_TRIP` longer to answer."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        listening = asyncio.start_server(partial(connect_slowly, port), HOST, 0)
        server = asyncio.run_coroutine_threadsafe(listening, loop).result()
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def connect_slowly(
    port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    from_server, to_server = await asyncio.open_connection(HOST, port)
    await asyncio.gather(hand_on(reader, to_server), hand_on(from_server, writer))


async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that is read, each piece after half of a round trip."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def receive() -> None:
        data = None
        while data != b"":
            data = await reader.read(1 << 20)
            under_way.put_nowait((loop.time() + ROUND_TRIP / 2, data))

    receiving = asyncio.ensure_future(receive())
    while True:
        due, data = await under_way.get()
        await asyncio.sleep(due - loop.time())
        if not data:
            break
        writer.write(data)
    writer.close()
    await receiving


# --- measuring ---


def measure(work: Work, options: list[str], port: int, place: Path | None) -> float:
    """Events per second of one replay, the start of further processes included."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name).absolute()
        summary = folder / "summary.json"
        command = [*FASTPUMP, "replay", "--host", HOST, "--port", str(port), *options]
        command += [*work.options(folder), "--summary", str(summary)]
        tools.call(command, "a replay", **SETTING)
        figures = json.loads(summary.read_bytes())
    if figures["events"] != work.total:
        raise tools.ToolError(f"{figures['events']} of {work.total} events were read")
    return float(figures["events"] / figures["seconds"])


def measure_all(works: tuple[Work, ...], rounds: int, place: Path | None) -> Rates:
    rates: Rates = defaultdict(list)
    with ExitStack() as stack:
        sizes = {work.events for work in works}
        ports = {size: stack.enter_context(tools.answering_server(size)) for size in sizes}
        far = {size: stack.enter_context(far_away(port)) for size, port in ports.items()}
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
            for work in works:
                for width, options in WIDTHS.items():
                    port = (far if work.is_far else ports)[work.events]
                    rates[work, width].append(measure(work, options, port, place))
    return rates


def report(works: tuple[Work, ...], rates: Rates, rounds: int) -> list[str]:
    first, *others = WIDTHS
    headings = ["Work", f"{first}, events/s", *(f"× {width}" for width in others), "spread"]
    return [
        "# Replays",
        "",
        f"{machine()}; medians of {rounds} interleaved rounds. Far away: {1000 * ROUND_TRIP:g} ms "
        "there and back.",
        "",
        line(headings),
        line(["---"] + ["---:"] * (len(headings) - 1)),
        *(line(cells(work, rates)) for work in works),
        "",
        "Each ratio is to the first column. The last column: distance of the fastest and the "
        "slowest round in the least steady of them.",
    ]


def cells(work: Work, rates: Rates) -> list[str]:
    first, *others = (median(rates[work, width]) for width in WIDTHS)
    measured = [rates[work, width] for width in WIDTHS]
    spread = max((max(row) - min(row)) / median(row) for row in measured)
    return [work.title, amount(first), *(ratio(rate, first) for rate in others), f"{spread:.0%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=tools.positive, help="rounds, interleaved (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the numbers mean nothing"
    )
    parser.add_argument("--folder", type=Path, help="where files are written (default: temporary)")
    chosen = parser.parse_args()
    works = QUICK if chosen.quick else WORK
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    rates = measure_all(works, rounds, chosen.folder)
    print("\n".join(report(works, rates, rounds)))


if __name__ == "__main__":
    try:
        main()
    except tools.ToolError as error:
        sys.exit(f"bench: {error}")
