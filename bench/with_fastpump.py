"""fastpump's side of the comparison, as `rows` describes it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

import tools
from rows import (
    BODIES,
    EVENT_TYPE,
    LIVE,
    STREAM,
    Load,
    Row,
    catch_up,
    follow,
    get,
    iter_all,
    iter_events,
    iter_json,
    publish_batches,
    publish_concurrent,
    publish_polling,
    publish_sequential,
)

# An installed fastpump comes first; without one, the source folder built in place is measured.
sys.path.append(str(tools.ROOT))

import fastpump as api

__all__ = [
    "api",
    "bulk_bytes",
    "bulk_dicts",
    "bulk_small_bytes",
    "bulk_small_dicts",
    "catch_up",
    "connect",
    "get",
    "iter_all",
    "iter_events",
    "iter_json",
    "live",
    "live_slices",
    "publish_batches",
    "publish_concurrent",
    "publish_polling",
    "publish_sequential",
    "slices",
    "versions",
]

EVENT_ROOM = 1024
"""Bytes a pushed event takes at most, as fastpump counts them."""

SMALL_BODIES = [{"flight": body["flight"], "delay": body["delay"]} for body in BODIES]


def ready(bodies: list[dict[str, object]]) -> list[bytes]:
    return [api.Json(orjson.dumps(body)) for body in bodies]


READY, SMALL_READY = ready(BODIES), ready(SMALL_BODIES)


def versions() -> dict[str, str]:
    in_place = Path(api.__file__).is_relative_to(tools.ROOT / "fastpump")
    return {
        "fastpump": api.__version__ + (" (source folder)" if in_place else ""),
        "its orjson": version("orjson"),
    }


def connect(port: int, row: Row) -> Any:
    return api.connect("127.0.0.1", port, busy_poll=row.busy_poll)


async def slices(api: Any, client: Any, load: Load) -> int:
    events = 0
    async for page in client.iter_slices(STREAM, batch_size=load.page):
        events += len(page)
    return events


@asynccontextmanager
async def pushed(client: Any, load: Load) -> AsyncIterator[Any]:
    """A live subscription that never has to go back to history: see README.md."""
    async with await client.subscribe_to(
        LIVE, buffer_events=load.events, buffer_bytes=load.events * EVENT_ROOM
    ) as subscription:
        yield subscription
        if not subscription.is_live:
            raise RuntimeError("events came from history that should have been pushed")


async def live(api: Any, client: Any, load: Load) -> int:
    async with pushed(client, load) as subscription:
        return await follow(subscription, load)


async def live_slices(api: Any, client: Any, load: Load) -> int:
    events = 0
    async with pushed(client, load) as subscription:
        async for batch in subscription.slices():
            events += len(batch)
            if batch[-1].event_number == load.events - 1:
                break
    return events


async def bulk(client: Any, load: Load, bodies: list[Any]) -> int:
    """Events to many streams in turn, with a publisher of its own until all are acknowledged."""
    names = [f"{STREAM}-{number}" for number in range(load.streams)]
    new = api.NewEvent
    async with client.publisher() as publisher:
        for number in range(load.bulk // load.streams):
            body = bodies[number % len(bodies)]
            for name in names:
                await publisher.send(name, new(EVENT_TYPE, data=body))
    acknowledged: int = publisher.stats.acknowledged
    return acknowledged


async def bulk_dicts(api: Any, client: Any, load: Load) -> int:
    return await bulk(client, load, BODIES)


async def bulk_bytes(api: Any, client: Any, load: Load) -> int:
    return await bulk(client, load, READY)


async def bulk_small_dicts(api: Any, client: Any, load: Load) -> int:
    return await bulk(client, load, SMALL_BODIES)


async def bulk_small_bytes(api: Any, client: Any, load: Load) -> int:
    return await bulk(client, load, SMALL_READY)
