"""photon-pump's side of the comparison, as `rows` describes it."""

from __future__ import annotations

import sys
from typing import Any

import google.protobuf
from google.protobuf.internal import api_implementation

import tools
from rows import (
    LIVE,
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

sys.path.insert(0, str(tools.PHOTONPUMP))

from photonpump_shim import import_photonpump

__all__ = [
    "api",
    "catch_up",
    "connect",
    "get",
    "iter_all",
    "iter_events",
    "iter_json",
    "live",
    "publish_batches",
    "publish_concurrent",
    "publish_polling",
    "publish_sequential",
    "slices",
    "versions",
]

api = import_photonpump()

# photon-pump has neither slices nor reading ahead: get() is the nearest, and as fast with several
# pages in flight as with one.
slices = get


def versions() -> dict[str, str]:
    return {
        "photon-pump": api.__version__,
        "its protobuf": f"{google.protobuf.__version__} ({api_implementation.Type()})",
    }


def connect(port: int, row: Row) -> Any:
    return api.connect("127.0.0.1", port)


async def live(api: Any, client: Any, load: Load) -> int:
    async with await client.subscribe_to(LIVE) as subscription:
        return await follow(subscription, load)
