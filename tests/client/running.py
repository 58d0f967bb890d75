"""Runs one coroutine and looks at what it leaves behind."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any

try:
    import uvloop
except ImportError:  # Windows
    LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
else:
    LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}

PATIENCE = 30.0
"""Seconds after which a coroutine is taken to hang."""

TURNS = 20
"""Turns of the loop in which what was closed has to be gone."""


def run_cleanly(
    main: Coroutine[Any, Any, Any],
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    patience: float = PATIENCE,
) -> None:
    """Run `main` to its end.

    Fails, besides for its own exception: if it takes longer than `patience`, if an exception
    reached the loop's handler, or if a task is left over. What is collected as garbage afterwards
    warns of coroutines nobody awaited and of sockets nobody closed, and warnings are errors.
    """
    problems: list[str] = []
    loop = make_loop()
    loop.set_exception_handler(lambda _, context: problems.append(str(context)))
    try:
        problems += loop.run_until_complete(left_over_by(main, patience))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        collect_garbage()
    assert not problems, "\n".join(problems)


async def left_over_by(main: Coroutine[Any, Any, Any], patience: float) -> list[str]:
    await asyncio.wait_for(main, patience)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    return [f"left over: {task!r}" for task in asyncio.all_tasks() - {asyncio.current_task()}]


def collect_garbage() -> None:
    keep_what_is_loaded()
    gc.collect()


@functools.cache
def keep_what_is_loaded() -> None:
    """Take modules and the like out of the collector's sight; it would look at them every time."""
    gc.collect()
    gc.freeze()
