"""The futures that operations wait with are those of the loop."""

from __future__ import annotations

import asyncio
from typing import Any

from fastpump._futures import Futures


class Own(asyncio.Future[Any]):
    pass


class LoopOfItsOwn(asyncio.SelectorEventLoop):
    def create_future(self) -> asyncio.Future[Any]:
        return Own(loop=self)


async def test_they_belong_to_the_loop() -> None:
    loop = asyncio.get_running_loop()
    future = Futures(loop).new()
    assert type(future) is type(loop.create_future())
    assert future.get_loop() is loop


def test_a_loop_may_have_its_own_kind() -> None:
    loop = LoopOfItsOwn()
    assert type(Futures(loop).new()) is Own
    loop.close()
