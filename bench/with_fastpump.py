"""fastpump's side of the comparison, as `rows` describes it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tools
from rows import (
    STREAM,
    Load,
    get,
    iter_all,
    iter_events,
    iter_json,
    publish_batches,
    publish_concurrent,
    publish_sequential,
)

# An installed fastpump comes first; without one, the source folder built in place is measured.
sys.path.append(str(tools.ROOT))

import fastpump as api

__all__ = [
    "api",
    "get",
    "iter_all",
    "iter_events",
    "iter_json",
    "publish_batches",
    "publish_concurrent",
    "publish_sequential",
    "slices",
    "versions",
]


def versions() -> dict[str, str]:
    in_place = Path(api.__file__).is_relative_to(tools.ROOT / "fastpump")
    return {
        "fastpump": api.__version__ + (" (source folder)" if in_place else ""),
        "its orjson": version("orjson"),
    }


async def slices(api: Any, client: Any, load: Load) -> int:
    events = 0
    async for page in client.iter_slices(STREAM, batch_size=load.page):
        events += len(page)
    return events
