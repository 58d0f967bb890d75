"""Running a command's work so that Ctrl-C ends it in an orderly way and in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastpump.cli._interrupt import Interrupt

PATIENCE = 10.0
"""Seconds that outstanding answers are waited for after Ctrl-C."""


async def run_until_interrupted(work: Coroutine[Any, Any, None], stop: Callable[[], bool]) -> bool:
    """Run `work` to its end; True if Ctrl-C came before that.

    `stop` is called on Ctrl-C. It returns True if the work will now end by itself, for which it
    gets `PATIENCE` seconds; otherwise the work is cancelled. Errors of the work are raised.
    """
    job = asyncio.create_task(work)
    with Interrupt() as interrupt:
        waiting = asyncio.create_task(interrupt.wait())
        await asyncio.wait((job, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not interrupt.requested:
            await job
            return False
        if stop():
            await asyncio.wait((job,), timeout=PATIENCE)
    while not job.done():
        # More than once if need be: before Python 3.12 `wait_for` may swallow a cancellation.
        job.cancel()
        await asyncio.wait((job,), timeout=1.0)
    with contextlib.suppress(asyncio.CancelledError):
        await job
    return True
