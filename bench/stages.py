"""What an event costs at each stage of its way: `python bench/stages.py`, see README.md.

Each stage is a loop over one page of the answering server, in memory. What the loop costs without
the stage is measured too, and taken off. Receiving is what the C program takes that only walks the
frame headers, kernel included.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import tools

sys.path.append(str(tools.ROOT))

from fastpump._event_feed import EventFeed
from fastpump._framing import Framer
from fastpump._replies import decode_stream_slice

from receive import page_request
from report import line, machine
from rows import QUICK, STREAM, Load
from run import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.messages import Events

ATTRIBUTES = ("event_number", "stream", "created", "id")


class Page:
    """A page as the answering server sends it, and the stages of its way."""

    def __init__(self, received: bytes) -> None:
        self.received = received
        [self.frame] = Framer().feed(received)
        self.held = list(self.events())
        self.loop = asyncio.new_event_loop()

    def events(self) -> Events:
        events: Events = decode_stream_slice(self.frame, STREAM, 0, 0)[1]
        return events

    def framed(self, pages: int) -> None:
        feed = Framer().feed
        for _ in range(pages):
            feed(self.received)

    def decoded(self, pages: int) -> None:
        for _ in range(pages):
            self.events()

    def iterated(self, pages: int) -> None:
        events = self.events()
        for _ in range(pages):
            for _ in events:
                pass

    def awaited(self, pages: int) -> None:
        self.loop.run_until_complete(self._awaited(pages))

    async def _awaited(self, pages: int) -> None:
        async for _ in EventFeed(Pages(self.events(), pages), lambda: None):
            pass

    def walked(self, pages: int) -> None:
        for _ in range(pages):
            for _ in self.held:
                pass

    def parsed(self, pages: int) -> None:
        for _ in range(pages):
            for event in self.held:
                event.json()


class Pages:
    """One page again and again, here already."""

    def __init__(self, page: Events, times: int) -> None:
        self._page = page
        self._left = times

    async def __anext__(self) -> Events:
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._page


def reading(attribute: str) -> Callable[[Page, int], None]:
    """A loop over events that are held, compiled with the attribute's name in it."""
    scope: dict[str, Any] = {}
    code = f"""
def loop(page, pages):
    for _ in range(pages):
        for event in page.held:
            event.{attribute}
"""
    exec(code, scope)
    loop: Callable[[Page, int], None] = scope["loop"]
    return loop


# What is measured, and what is taken off it.
STAGES: dict[str, tuple[Callable[[Page, int], None], Callable[[Page, int], None] | None]] = {
    "frame: copying and splitting what was received": (Page.framed, None),
    "page: the envelope and where each event lies": (Page.decoded, None),
    "object: checking the event and making it, with number and type": (Page.iterated, None),
    "await: `async for` over `iter()`": (Page.awaited, Page.iterated),
    **{f"attribute: `{name}`": (reading(name), Page.walked) for name in ATTRIBUTES},
    "JSON: `event.json()`": (Page.parsed, Page.walked),
}


def page_of(port: int, count: int) -> bytes:
    """The bytes of one page."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(page_request(0, count))
        with connection.makefile("rb") as replies:
            length = replies.read(4)
            return length + replies.read(int.from_bytes(length, "little"))


def receiving(port: int, load: Load) -> float:
    """Nanoseconds an event in the C program."""
    return 1e9 / tools.limit("pages", port, load.seconds, load.events, load.page, WINDOW)


def spent(stage: Callable[[Page, int], None], page: Page, pages: int) -> float:
    """Nanoseconds an event of the processor's time."""
    started = time.process_time_ns()
    stage(page, pages)
    return (time.process_time_ns() - started) / (pages * len(page.held))


def measure(page: Page, pages: int) -> dict[str, float]:
    """One round: the cost of each stage but receiving."""
    costs = {}
    for title, (stage, less) in STAGES.items():
        costs[title] = spent(stage, page, pages) - (spent(less, page, pages) if less else 0.0)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=tools.positive, default=9)
    parser.add_argument("--quick", action="store_true", help="see that it runs")
    chosen = parser.parse_args()
    load, pages = (QUICK, 10) if chosen.quick else (Load(), 400)
    with tools.answering_server(load.events, on_its_core=True) as port:
        page = Page(page_of(port, load.page))
        received = [receiving(port, load) for _ in range(chosen.rounds)]
    rounds = [measure(page, pages) for _ in range(chosen.rounds)]
    page.loop.close()
    size = len(page.received) // load.page
    print(
        f"{machine()}; pages of {load.page} events, {size} bytes each, median of {len(rounds)}.\n"
    )
    print(line(["Stage", "ns an event"]))
    print(line(["---", "---:"]))
    print(line(["receive: what the C program takes, kernel included", f"{median(received):.1f}"]))
    for title in STAGES:
        print(line([title, f"{median(costs[title] for costs in rounds):.1f}"]))


if __name__ == "__main__":
    try:
        main()
    except tools.ToolError as error:
        sys.exit(f"bench: {error}")
