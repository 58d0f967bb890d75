"""The rows of the comparison: what is measured, and the functions that do it.

A row is an entry in `ROWS` and one function of the same name per client, found in the client's
module (`with_fastpump`, `with_photonpump`). A row whose calls are the same in both clients is
written once, here, and imported there. A function does one unit of the work and returns how many
events went through it:

    async def name(api, client, load) -> int

`api` is the client's package, `client` a connected client, `load` the sizes to use.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NamedTuple

STREAM = "bench"
LIVE = "live"
"""The stream whose subscribers the answering server pushes the whole log to."""
EVENT_TYPE = "flight-departed"


class Floor(NamedTuple):
    """What fastpump is to reach at least: ratios, or a rate; None where nothing is asked."""

    photonpump: float | None = None
    """Times photon-pump's rate."""
    limit: float | None = None
    """Part of the limit."""
    rate: float | None = None
    """Events per second."""


class Row(NamedTuple):
    name: str
    title: str
    limit: str | None = None
    """Which of the limits in run.py bounds this row; None where there is none."""
    reads_all: bool = False
    """One unit reads the whole log: the count is checked."""
    busy_poll: float = 0.0
    """What fastpump connects with; photon-pump has nothing like it."""
    floor: Floor = Floor()


ROWS = (
    Row(
        "get",
        "`get()` page after page, length only",
        "page",
        reads_all=True,
        floor=Floor(photonpump=40, limit=0.9),
    ),
    Row(
        "slices",
        "whole slices, read ahead, length only",
        "pages",
        reads_all=True,
        floor=Floor(photonpump=40, limit=0.9),
    ),
    Row(
        "iter_events",
        "`iter()`, number and type touched",
        "pages",
        reads_all=True,
        floor=Floor(photonpump=20, limit=0.4),
    ),
    Row(
        "iter_json",
        "`iter()`, the same and `event.json()`",
        "pages",
        reads_all=True,
        floor=Floor(photonpump=10),
    ),
    Row("iter_all", "`iter_all()`, number and type touched", "pages", reads_all=True),
    Row(
        "live",
        "`subscribe_to()`, pushes, number and type touched",
        "live",
        reads_all=True,
        floor=Floor(photonpump=40),
    ),
    Row("live_slices", "the same in whole batches, length only", "live", reads_all=True),
    Row(
        "catch_up", "`subscribe_to(start_from=0)`, number and type touched", "pages", reads_all=True
    ),
    Row("publish_sequential", "publish, one after another", "writes", floor=Floor(photonpump=8)),
    Row("publish_polling", "the same with `busy_poll`", "polls", busy_poll=0.001),
    Row("publish_concurrent", "publish singly, 1,000 in flight", floor=Floor(photonpump=20)),
    Row("publish_batches", "publish in batches of 100", floor=Floor(photonpump=10)),
    Row("bulk_dicts", "`publisher()`, 1,000 streams, `dict` bodies"),
    Row("bulk_bytes", "the same, ready `bytes`"),
    Row("bulk_small_dicts", "the same, small `dict` bodies", floor=Floor(rate=1_200_000)),
    Row("bulk_small_bytes", "the same, small ready `bytes`", floor=Floor(rate=2_500_000)),
)


@dataclass(frozen=True)
class Load:
    """Sizes of one unit of work; `seconds` is how long units of a row are repeated."""

    events: int = 100_000
    page: int = 500
    seconds: float = 1.0
    sequential: int = 2_000
    in_flight: int = 1_000
    each: int = 20
    batch: int = 100
    batches: int = 500
    batches_in_flight: int = 10
    bulk: int = 200_000
    streams: int = 1_000


QUICK = Load(events=10_000, seconds=0.05, sequential=200, each=2, batches=50, bulk=5_000)


def body(number: int) -> dict[str, object]:
    """About 200 bytes as JSON, the same fields as the events of the answering server."""
    return {
        "flight": 1000 + number % 9000,
        "carrier": "UA",
        "tail_number": f"N{number * 7919 % 100_000:05}",
        "origin": "EWR",
        "destination": "IAH",
        "departed": "2020-01-01T05:17:00Z",
        "delay": number % 60 + 0.5,
        "distance": 500 + number % 3000,
        "air_time": 60 + number % 300,
        "cancelled": False,
        "remark": None,
    }


BODIES = [body(number) for number in range(1_000)]


async def get(api: Any, client: Any, load: Load) -> int:
    events = 0
    for first in range(0, load.events, load.page):
        events += len(await client.get(STREAM, from_event=first, max_count=load.page))
    return events


async def iter_events(api: Any, client: Any, load: Load) -> int:
    events = 0
    async for event in client.iter(STREAM, batch_size=load.page):
        event.event_number  # noqa: B018
        event.type  # noqa: B018
        events += 1
    return events


async def iter_json(api: Any, client: Any, load: Load) -> int:
    events = 0
    async for event in client.iter(STREAM, batch_size=load.page):
        event.event_number  # noqa: B018
        event.type  # noqa: B018
        event.json()
        events += 1
    return events


async def iter_all(api: Any, client: Any, load: Load) -> int:
    events = 0
    async for event in client.iter_all(batch_size=load.page):
        event.event_number  # noqa: B018
        event.type  # noqa: B018
        events += 1
    return events


async def catch_up(api: Any, client: Any, load: Load) -> int:
    subscribing = client.subscribe_to(STREAM, start_from=0, batch_size=load.page)
    async with await subscribing as subscription:
        return await follow(subscription, load)


async def follow(subscription: Any, load: Load) -> int:
    """Take events up to the one with the last number of the log."""
    events = 0
    async for event in subscription.events:
        event.type  # noqa: B018
        events += 1
        if event.event_number == load.events - 1:
            break
    return events


async def publish_sequential(api: Any, client: Any, load: Load) -> int:
    await publish_singly(client, load.sequential)
    return load.sequential


publish_polling = publish_sequential


async def publish_concurrent(api: Any, client: Any, load: Load) -> int:
    await asyncio.gather(*(publish_singly(client, load.each) for _ in range(load.in_flight)))
    return load.in_flight * load.each


async def publish_singly(client: Any, count: int) -> None:
    for number in range(count):
        await client.publish_event(STREAM, EVENT_TYPE, body=BODIES[number % len(BODIES)])


async def publish_batches(api: Any, client: Any, load: Load) -> int:
    bodies = BODIES[: load.batch]

    async def writer(count: int) -> None:
        for _ in range(count):
            await client.publish(STREAM, [api.NewEvent(EVENT_TYPE, data=data) for data in bodies])

    each = load.batches // load.batches_in_flight
    await asyncio.gather(*(writer(each) for _ in range(load.batches_in_flight)))
    return each * load.batches_in_flight * len(bodies)
