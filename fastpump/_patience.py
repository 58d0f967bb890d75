"""Waiting for something only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` ends with. It is cancelled if that takes longer, or if the wait is cancelled.

    Not `wait_for`: before Python 3.12 that loses a cancellation that comes just as the result does.

    Raises:
        TimeoutError: it takes longer.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()
    finally:
        task.cancel()
