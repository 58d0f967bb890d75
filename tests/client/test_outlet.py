"""Where operations are started: what stands before the dispatcher is heard, also from C."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client.peer import eventually, soon

from fastpump._dispatcher import Dispatcher
from fastpump._futures import Futures
from fastpump._ids import CorrelationIds
from fastpump._operation import Operation
from fastpump._outlet import Detour, Outlet, perform
from fastpump._settings import ConnectionSettings
from fastpump._write_events import SingleWrites


class Gate(Detour):
    """Full until it is opened; notes what goes through."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__(outlet)
        self.opened = asyncio.Event()
        self.started: list[Operation] = []

    def is_full(self) -> bool:
        return not self.opened.is_set() or super().is_full()

    async def room(self) -> None:
        await self.opened.wait()
        await super().room()

    def start(self, operation: Operation) -> None:
        self.started.append(operation)
        super().start(operation)


def an_operation() -> Operation:
    return Operation(bytes(16), b"", asyncio.get_running_loop().create_future(), 7.0)


def write(outlet: Outlet) -> Any:
    writes = SingleWrites(Futures(asyncio.get_running_loop()), 7.0, False)
    return writes.write(outlet, "account-7", -2, "opened", b"", None, None, None)


async def test_a_write_goes_through_all_that_stands_before_the_dispatcher() -> None:
    dispatcher = Dispatcher(ConnectionSettings(max_in_flight=2))
    inner = Gate(Detour(dispatcher))
    outer = Gate(inner)
    outer.opened.set()
    first, second = soon(write(outer)), soon(write(outer))
    await asyncio.sleep(0)
    assert (inner.started, outer.started) == ([], [])
    second.cancel()
    await asyncio.wait([second])
    inner.opened.set()
    await eventually(lambda: dispatcher.waiting == 1)
    dispatcher.resume()  # whoever waits gets a place
    await eventually(lambda: len(inner.started) == 1)
    assert inner.started == outer.started
    assert dispatcher.in_flight == 1
    inner.started[0].waiter.set_result("written")
    assert await first == "written"


async def test_the_ids_are_those_of_the_dispatcher() -> None:
    dispatcher = Dispatcher(ConnectionSettings())
    assert Gate(Detour(dispatcher)).correlation_ids is dispatcher.correlation_ids


async def test_frames_without_a_reply() -> None:
    dispatcher = Dispatcher(ConnectionSettings())
    sent: list[bytes] = []
    dispatcher.connected(sent.append)
    Gate(Detour(dispatcher)).send_now(b"frame")
    assert sent == [b"frame"]


async def test_an_outlet_that_leads_nowhere() -> None:
    outlet, operation = Outlet(CorrelationIds()), an_operation()
    for call in (
        outlet.is_full,
        lambda: outlet.start(operation),
        lambda: outlet.send_now(b""),
        lambda: perform(outlet, operation),
        lambda: write(outlet),
    ):
        with pytest.raises(NotImplementedError):
            call()
    with pytest.raises(NotImplementedError):
        await outlet.room()


@pytest.mark.parametrize("outlet", [None, object()])
async def test_what_is_no_outlet(outlet: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        write(outlet)
    with pytest.raises((TypeError, AttributeError)):
        perform(outlet, an_operation())
