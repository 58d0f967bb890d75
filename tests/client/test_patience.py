"""Waiting only so long: nothing is left over, whatever comes at the same moment."""

from __future__ import annotations

import asyncio

import pytest
from client.peer import outcome, soon

from fastpump._patience import within


async def test_what_it_ends_with() -> None:
    async def work(result: int | Exception) -> int:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await within(30, work(7)) == 7
    with pytest.raises(ZeroDivisionError):
        await within(30, work(ZeroDivisionError()))


async def test_too_long() -> None:
    over = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    with pytest.raises(TimeoutError, match=r"no answer within 0.01 s"):
        await within(0.01, work())
    await over.wait()


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("error", [None, OSError()])
async def test_cancelled_just_when_it_ends(turns: int, error: Exception | None) -> None:
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await end

    waiting = soon(within(30, work()))
    for _ in range(3):
        await asyncio.sleep(0)
    if error is None:
        end.set_result(None)
    else:
        end.set_exception(error)
    for _ in range(turns):
        await asyncio.sleep(0)
    is_over = waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() is not is_over
    if is_over:
        assert await outcome(waiting) is error
