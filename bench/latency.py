"""How long single things take: what `run.py` shows beside the rates, and how it is measured.

Every function gives the seconds of many single runs, for a client of either package:

    async def name(api, client, seconds) -> list[float]
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median, quantiles
from typing import Any, NamedTuple
from uuid import uuid4

from rows import BODIES, EVENT_TYPE, STREAM

PERCENTILES = (50.0, 99.0, 99.9)


class Latency(NamedTuple):
    """`server` is the one it is measured against: "answering", or the embedded "node"."""

    name: str
    title: str
    server: str
    measure: Callable[[Any, Any, float], Awaitable[list[float]]]


async def publish(api: Any, client: Any, seconds: float, *, in_flight: int) -> list[float]:
    """From the call of a single publish to its result, with so many of them under way."""
    clock = time.perf_counter
    taken: list[float] = []
    end = clock() + seconds

    async def publish_singly() -> None:
        while (begin := clock()) < end:
            await client.publish_event(STREAM, EVENT_TYPE, body=BODIES[len(taken) % len(BODIES)])
            taken.append(clock() - begin)

    await asyncio.gather(*(publish_singly() for _ in range(in_flight)))
    return taken


async def delivery(api: Any, client: Any, seconds: float) -> list[float]:
    """From the call of a single publish to the event in the subscriber's loop, one at a time."""
    clock = time.perf_counter
    stream = f"{STREAM}-{uuid4()}"
    taken: list[float] = []
    end = clock() + seconds
    async with await client.subscribe_to(stream) as subscription:
        events = aiter(subscription.events)
        while (begin := clock()) < end:
            published = asyncio.ensure_future(
                client.publish_event(stream, EVENT_TYPE, body=BODIES[0])
            )
            await anext(events)
            taken.append(clock() - begin)
            await published
    return taken


LATENCIES = (
    Latency("publish_1", "publish, 1 in flight", "answering", partial(publish, in_flight=1)),
    Latency("publish_100", "publish, 100 in flight", "answering", partial(publish, in_flight=100)),
    Latency(
        "publish_1000", "publish, 1,000 in flight", "answering", partial(publish, in_flight=1_000)
    ),
    Latency("delivery", "from publish to the subscriber's loop", "node", delivery),
)


def percentiles(taken: list[float]) -> list[float]:
    """The percentiles of `PERCENTILES`, in seconds."""
    cuts = quantiles(taken, n=1_000, method="inclusive")
    return [cuts[round(percentile * 10) - 1] for percentile in PERCENTILES]


def of_rounds(rounds: list[list[float]]) -> list[float]:
    """Each percentile's median over the rounds."""
    return [median(values) for values in zip(*rounds, strict=True)]
