"""Measures rows with one client in this process: `worker.py CLIENT PORT LOAD ROW...`.

`run.py` starts it; LOAD is a `rows.Load` as JSON, and a ROW may be the name of a latency. Prints
one JSON object: the versions, the rates in events per second, the percentiles of latencies in
seconds, and for what failed the reason. Always on uvloop.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import uvloop

from latency import LATENCIES, Latency, percentiles
from rows import ROWS, Load, Row

MODULES = {"fastpump": "with_fastpump", "photon-pump": "with_photonpump"}
PATIENCE = 60.0
"""Seconds a row may take besides the time it is measured for."""

Unit = Callable[[], Awaitable[int]]
Work = tuple[str, str, Callable[[], Coroutine[Any, Any, Any]]]


async def rate(unit: Unit, seconds: float) -> float:
    """Events per second of `unit`, repeated for `seconds` after one time that does not count."""
    await unit()
    events, started = 0, time.perf_counter()
    while True:
        events += await unit()
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return events / elapsed


async def measure(module: Any, row: Row, port: int, load: Load) -> float:
    function = getattr(module, row.name)

    async with module.connect(port, row) as client:

        async def unit() -> int:
            events: int = await function(module.api, client, load)
            if row.reads_all and events != load.events:
                raise RuntimeError(f"{events} of {load.events} events arrived")
            return events

        return await asyncio.wait_for(rate(unit, load.seconds), load.seconds + PATIENCE)


async def measure_latency(module: Any, latency: Latency, port: int, load: Load) -> list[float]:
    async with module.api.connect("127.0.0.1", port) as client:

        async def taken(seconds: float) -> list[float]:
            return await asyncio.wait_for(
                latency.measure(module.api, client, seconds), seconds + PATIENCE
            )

        await taken(load.seconds / 5)
        return percentiles(await taken(load.seconds))


def work(module: Any, names: tuple[str, ...], port: int, load: Load) -> Iterator[Work]:
    """What of `names` this client can do: in which part of the result it belongs, and how."""
    for row in ROWS:
        if row.name in names and hasattr(module, row.name):
            yield "rates", row.name, partial(measure, module, row, port, load)
    for latency in LATENCIES:
        if latency.name in names:
            yield "latencies", latency.name, partial(measure_latency, module, latency, port, load)


def main(client: str, port: str, load_json: str, *names: str) -> None:
    module = importlib.import_module(MODULES[client])
    load = Load(**json.loads(load_json))
    result: dict[str, dict[str, Any]] = {
        "versions": {"uvloop": version("uvloop"), **module.versions()},
        "rates": {},
        "latencies": {},
        "errors": {},
    }
    for part, name, measuring in work(module, names, int(port), load):
        try:
            result[part][name] = uvloop.run(measuring())
        except Exception as error:
            result["errors"][name] = f"{type(error).__name__}: {error}"
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
