"""What events cost in memory while they are held: `python bench/memory.py`, see README.md."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

import tools

sys.path.append(str(tools.ROOT))

import fastpump

from report import line, machine
from rows import STREAM

LOG = 100_000
PAGE = 500
MILLION = 1_000_000

Held = Callable[[AsyncIterator[Any]], Awaitable[list[Any]]]


async def pages(slices: AsyncIterator[Any]) -> list[Any]:
    return [page async for page in slices]


async def events(slices: AsyncIterator[Any]) -> list[Any]:
    return [event async for page in slices for event in page]


async def touched(slices: AsyncIterator[Any]) -> list[Any]:
    held = await events(slices)
    for event in held:
        event.event_number  # noqa: B018
        event.type  # noqa: B018
        event.json()
    return held


async def detached(slices: AsyncIterator[Any]) -> list[Any]:
    return [event.detach() async for page in slices for event in page]


async def one_of_each_page(slices: AsyncIterator[Any]) -> list[Any]:
    return [page[0] async for page in slices]


HELD: dict[str, tuple[str, Held]] = {
    "pages": ("pages, nothing taken out of them", pages),
    "events": ("all events", events),
    "touched": ("all events, after number, type and `json()`", touched),
    "detached": ("all events, detached", detached),
    "one": ("one event of each page", one_of_each_page),
}


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


async def hold(port: int, what: str) -> dict[str, float]:
    """Bytes that this process has grown by, per event it holds."""
    async with fastpump.connect("127.0.0.1", port) as client:
        for _ in range(3):
            async for _ in client.iter_slices(STREAM, batch_size=PAGE):
                pass
        gc.collect()
        before = resident()
        held = await HELD[what][1](client.iter_slices(STREAM, batch_size=PAGE))
        gc.collect()
        count = sum(map(len, held)) if what == "pages" else len(held)
        return {"bytes": (resident() - before) / count}


async def replay(port: int, millions: int) -> dict[str, float]:
    """Resident memory while millions of events are read: after the first million, and the most."""
    samples = []
    async with fastpump.connect("127.0.0.1", port) as client:
        for _ in range(millions):
            for _ in range(MILLION // LOG):
                async for event in client.iter(STREAM, batch_size=PAGE):
                    event.event_number  # noqa: B018
                    event.type  # noqa: B018
            samples.append(resident())
    return {"first": samples[0], "most": max(samples), "last": samples[-1]}


def in_a_process(port: int, *arguments: str) -> dict[str, float]:
    """A run of this program by itself, so that each begins with the same memory."""
    command = [sys.executable, __file__, "--port", str(port), *arguments]
    result: dict[str, float] = json.loads(tools.call(command, " ".join(arguments)))
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10, help="of events to replay (default 10)")
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hold", choices=HELD, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    millions = 1 if chosen.quick else chosen.millions
    if chosen.port:
        work = hold(chosen.port, chosen.hold) if chosen.hold else replay(chosen.port, millions)
        print(json.dumps(uvloop.run(work)))
        return
    with tools.answering_server(LOG) as port:
        print(f"{machine()}; {LOG:,} events, pages of {PAGE}.\n")
        print(line(["Held", "bytes per event held"]))
        print(line(["---", "---:"]))
        for what, (title, _) in HELD.items():
            print(line([title, f"{in_a_process(port, '--hold', what)['bytes']:,.0f}"]))
        flat = in_a_process(port, "--millions", str(millions))
        first, most, last = (f"{flat[key] / 2**20:.1f}" for key in ("first", "most", "last"))
        print(
            f"\nReplay of {millions} million events: {first} MiB after the first million, ", end=""
        )
        print(f"{most} at most, {last} at the end.")


if __name__ == "__main__":
    try:
        main()
    except (tools.ToolError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
