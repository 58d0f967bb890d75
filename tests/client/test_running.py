"""The runner of the coroutine tests sees what it has to see."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from client.running import LOOPS, run_cleanly

Loop = Callable[[], asyncio.AbstractEventLoop]

on_every_loop = pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)


@on_every_loop
def test_runs_to_the_end(loop: Loop) -> None:
    seen = []

    async def main() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())

    run_cleanly(main(), loop)
    assert seen[0].is_closed()


@on_every_loop
def test_sees_what_hangs(loop: Loop) -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(asyncio.TimeoutError):
        run_cleanly(main(), loop, patience=0.01)


@on_every_loop
@pytest.mark.filterwarnings("ignore:coroutine")
def test_sees_tasks_left_over(loop: Loop) -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(60), name="forgotten")

    with pytest.raises(AssertionError, match="forgotten"):
        run_cleanly(main(), loop)


@on_every_loop
def test_sees_exceptions_nobody_took(loop: Loop) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_cleanly(main(), loop)


@on_every_loop
def test_sees_coroutines_nobody_awaited(loop: Loop) -> None:
    async def main() -> None:
        asyncio.sleep(0)  # type: ignore[unused-coroutine]

    with pytest.warns(RuntimeWarning, match="never awaited"):
        run_cleanly(main(), loop)


@on_every_loop
def test_sees_sockets_nobody_closed(loop: Loop) -> None:
    async def main() -> None:
        socket.socket()

    with pytest.warns(ResourceWarning, match="unclosed"):
        run_cleanly(main(), loop)
