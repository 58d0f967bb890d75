"""Run a program on the fastest event loop there is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The factory of the fastest loop installed: uvloop's (winloop's on Windows), or asyncio's."""
    try:
        if sys.platform == "win32":
            import winloop as uvloop
        else:
            import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run `main` to its end on the fastest loop and return its result, as `asyncio.run` does.

    No event loop policy is set, so nothing else in the process is affected.

    >>> async def main():
    ...     async with fastpump.connect() as client:
    ...         await client.ping()
    >>> fastpump.run(main())
    """
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=fastest_loop()) as runner:
            return runner.run(main)
    return _run_without_runner(main, debug)


def _run_without_runner(main: Coroutine[Any, Any, T], debug: bool | None) -> T:
    """`asyncio.Runner` came with Python 3.11; this is the part of it that `run` needs."""
    loop = fastest_loop()()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
