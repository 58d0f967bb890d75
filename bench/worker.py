"""Measures rows with one client in this process: `worker.py CLIENT PORT LOAD ROW...`.

`run.py` starts it; LOAD is a `rows.Load` as JSON. Prints one JSON object: the versions, the rates
in events per second, and for rows that failed the reason. Always on uvloop.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import uvloop

from rows import ROWS, Load, Row

MODULES = {"fastpump": "with_fastpump", "photon-pump": "with_photonpump"}
PATIENCE = 60.0
"""Seconds a row may take besides the time it is measured for."""

Unit = Callable[[], Awaitable[int]]


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

    async with module.api.connect("127.0.0.1", port) as client:

        async def unit() -> int:
            events: int = await function(module.api, client, load)
            if row.reads_all and events != load.events:
                raise RuntimeError(f"{events} of {load.events} events arrived")
            return events

        return await asyncio.wait_for(rate(unit, load.seconds), load.seconds + PATIENCE)


def main(client: str, port: str, load_json: str, *names: str) -> None:
    module = importlib.import_module(MODULES[client])
    load = Load(**json.loads(load_json))
    rates: dict[str, float] = {}
    errors: dict[str, str] = {}
    for row in ROWS:
        if row.name in names and hasattr(module, row.name):
            try:
                rates[row.name] = uvloop.run(measure(module, row, int(port), load))
            except Exception as error:
                errors[row.name] = f"{type(error).__name__}: {error}"
    versions = {"uvloop": version("uvloop"), **module.versions()}
    print(json.dumps({"versions": versions, "rates": rates, "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
