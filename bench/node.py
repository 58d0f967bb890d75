"""How fast the embedded node is: `python bench/node.py`, see README.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import orjson
import uvloop

import tools

sys.path.append(str(tools.ROOT))

import fastpump
from fastpump import ExpectedVersion, Json, NewEvent
from fastpump._commands import Command
from fastpump._replies import decode_all_slice, decode_stream_slice, decode_write_completed
from fastpump._requests import (
    encode_read_all,
    encode_read_stream,
    encode_write_event,
    encode_write_events,
)

from node_process import HOST, NodeProcess
from pipeline import CORRELATION_ID, pipeline, pushes
from report import amount, line, machine
from rows import BODIES, EVENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fastpump._framing import Frame
    from fastpump._position import Position

DATA = [Json(orjson.dumps(body)) for body in BODIES]
ADMIN = b"\x05admin\x08changeit"
"""The auth block of who may read $all."""
START_UP_FLOOR = 0.5
"""Seconds."""
STARTS = 3
MILLION = 1_000_000


@dataclass(frozen=True)
class Load:
    """How much each row does; written events are spread evenly over its streams."""

    singles: int = 200_000
    streams: int = 4_000
    in_flight: int = 1_000
    batch: int = 100
    batches: int = 5_000
    batch_streams: int = 10
    batches_in_flight: int = 50
    page: int = 500
    pages: int = 4_000
    pages_ahead: int = 4


QUICK = Load(singles=4_000, streams=400, batches=100, pages=40)


class Row(NamedTuple):
    """`measure(port, load)` gives events per second; rows follow one another on one node."""

    title: str
    floor: int
    measure: Callable[[int, Load], Awaitable[float]]


# --- requests, and what replies must be ---


def single(stream: str, number: int) -> bytes:
    data = DATA[number % len(DATA)]
    return encode_write_event(
        CORRELATION_ID, stream, ExpectedVersion.Any, EVENT_TYPE, data, None, None
    )


def batches(streams: list[str], count: int, size: int) -> Iterator[bytes]:
    """Writes of `size` new events, to one stream after the other."""
    data = cycle(DATA)
    for stream in islice(cycle(streams), count):
        events = [NewEvent(EVENT_TYPE, data=body) for body in islice(data, size)]
        yield encode_write_events(CORRELATION_ID, stream, ExpectedVersion.Any, events)


def expect(frame: Frame, command: Command) -> None:
    if frame.command != command:
        raise tools.ToolError(f"command {frame.command:#x} instead of {command.name}")


def written(frame: Frame) -> int:
    """The events a write was acknowledged for."""
    expect(frame, Command.WriteEventsCompleted)
    result = decode_write_completed(frame)
    if result.result:
        raise tools.ToolError(f"a write was refused with result {result.result}")
    return result.last_event_number - result.first_event_number + 1


def stream_page(frame: Frame) -> int:
    expect(frame, Command.ReadStreamEventsForwardCompleted)
    return len(decode_stream_slice(frame, "", 0, None)[1])


def all_page(frame: Frame) -> int:
    expect(frame, Command.ReadAllEventsForwardCompleted)
    return len(decode_all_slice(frame, None)[1])


# --- rows ---


async def singles(port: int, load: Load) -> float:
    requests = [single(f"flight-{n % load.streams}", n) for n in range(load.singles)]
    return await pipeline(port, requests, load.in_flight, written)


async def singles_to_new_streams(port: int, load: Load) -> float:
    requests = [single(f"new-{n}", n) for n in range(load.singles)]
    return await pipeline(port, requests, load.in_flight, written)


async def in_batches(port: int, load: Load) -> float:
    streams = [f"batched-{n}" for n in range(load.batch_streams)]
    requests = list(batches(streams, load.batches, load.batch))
    return await pipeline(port, requests, load.batches_in_flight, written)


async def live(port: int, load: Load) -> float:
    requests = list(batches(["live"], load.batches, load.batch))
    events = load.batches * load.batch
    return await pushes(port, "live", requests, load.batches_in_flight, events, written)


async def pages_of_stream(port: int, load: Load) -> float:
    """Over and over the stream that `live` filled."""
    starts = range(0, load.batches * load.batch, load.page)
    requests = [
        encode_read_stream(CORRELATION_ID, False, "live", first, load.page, False)
        for first in islice(cycle(starts), load.pages)
    ]
    return await pipeline(port, requests, load.pages_ahead, stream_page)


async def pages_of_all(port: int, load: Load) -> float:
    """What the rows before wrote, from positions that are looked up first."""
    requests = [
        encode_read_all(CORRELATION_ID, False, *position, load.page, False, False, ADMIN)
        for position in await page_positions(port, load)
    ]
    requests = list(islice(cycle(requests), load.pages))
    return await pipeline(port, requests, load.pages_ahead, all_page)


async def page_positions(port: int, load: Load) -> list[Position]:
    """Where the full pages of $all begin."""
    positions: list[Position] = []
    async with fastpump.connect(HOST, port, username="admin", password="changeit") as client:
        async for page in client.iter_all_slices(batch_size=load.page):
            if len(page) == load.page:
                positions.append(page.start_position)
            if len(positions) == load.pages:
                break
    return positions


ROWS = (
    Row("single events, 1,000 in flight, 4,000 streams", 60_000, singles),
    Row("single events, 1,000 in flight, each to a new stream", 60_000, singles_to_new_streams),
    Row("batches of 100", 250_000, in_batches),
    Row("live pushes while batches of 100 are written", 150_000, live),
    Row("pages of 500 of a stream", 800_000, pages_of_stream),
    Row("pages of 500 of `$all`", 800_000, pages_of_all),
)


# --- a file with millions of events ---


class Filling(NamedTuple):
    """The node, each time another million events is in its file.

    Attributes:
        rate: events per second of the last million.
        memory: MiB.
    """

    events: int
    rate: float
    memory: float


async def fill(node: NodeProcess, millions: int, load: Load) -> list[Filling]:
    """Write millions of events in batches to `load.streams` streams."""
    streams = [f"flight-{n}" for n in range(load.streams)]
    filled = []
    for million in range(1, millions + 1):
        requests = batches(streams, MILLION // load.batch, load.batch)
        rate = await pipeline(node.port, requests, load.batches_in_flight, written)
        filled.append(Filling(million * MILLION, rate, node.memory))
        print(f"{million} of {millions} million", file=sys.stderr, flush=True)
    return filled


def million_report(folder: Path, millions: int, load: Load) -> list[str]:
    path = folder / "millions.db"
    with NodeProcess(path) as node:
        filled = uvloop.run(fill(node, millions, load))
    size = path.stat().st_size / (1 << 30)
    starts = []
    for _ in range(STARTS):
        with NodeProcess(path) as node:
            starts.append(node.start_up)
            opened = node.memory
    with NodeProcess(path) as node:
        uvloop.run(pages_of_all(node.port, load))
        read = node.memory
    return [
        line(["Events in the file", "written, events/s", "memory of the node, MiB"]),
        line(["---:", "---:", "---:"]),
        *(line([f"{n:,}", amount(rate), f"{memory:.0f}"]) for n, rate, memory in filled),
        "",
        f"{size:.1f} GiB. Opened again, the node answers after {median(starts):.2f} s (median of "
        f"{STARTS}; floor {START_UP_FLOOR}) and has {opened:.0f} MiB; {read:.0f} MiB after "
        f"{load.pages:,} pages of {load.page} were read.",
    ]


# --- the report ---


def measure(folder: Path, load: Load, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Events per second by row, and the peak memory; each round has a node and file of its own."""
    rates: dict[str, list[float]] = {row.title: [] for row in ROWS}
    peak = 0.0
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        with NodeProcess(folder / f"round-{number}.db") as node:
            for row in ROWS:
                rates[row.title].append(uvloop.run(row.measure(node.port, load)))
            peak = max(peak, node.peak_memory)
    return rates, peak


def speed_report(folder: Path, load: Load, rounds: int) -> list[str]:
    rates, peak = measure(folder, load, rounds)
    return [
        f"Events per second, median of {rounds} rounds; a sync of the disk takes "
        f"{1000 * sync_time(folder):.1f} ms.",
        "",
        line(["Work", "floor", "median", "slowest", "fastest", ""]),
        line(["---", "---:", "---:", "---:", "---:", "---"]),
        *(line(cells(row, rates[row.title])) for row in ROWS),
        "",
        f"Peak memory of the node: {peak:.0f} MiB.",
    ]


def cells(row: Row, rates: list[float]) -> list[str]:
    middle = median(rates)
    values = [amount(float(value)) for value in (row.floor, middle, min(rates), max(rates))]
    return [row.title, *values, "" if middle >= row.floor else "missed"]


def sync_time(folder: Path, times: int = 50) -> float:
    """Seconds that 4 KiB need to the disk: what every commit waits for."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        started = time.perf_counter()
        for _ in range(times):
            file.write(bytes(4096))
            os.fsync(file.fileno())
        return (time.perf_counter() - started) / times


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=tools.positive, help="rounds (default 3)")
    parser.add_argument(
        "--million", type=tools.positive, metavar="N", help="instead, a file of N million events"
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the numbers mean nothing"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the files are made, on a real disk (default: temporary)"
    )
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    load = QUICK if chosen.quick else Load()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        if chosen.million:
            report = million_report(Path(folder), chosen.million, load)
        else:
            report = speed_report(Path(folder), load, chosen.rounds or (1 if chosen.quick else 3))
    print("\n".join(["# The node", "", f"{machine()}.", *report]))


if __name__ == "__main__":
    try:
        main()
    except tools.ToolError as error:
        sys.exit(f"bench: {error}")
