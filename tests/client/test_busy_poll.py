"""`busy_poll`: after something was received the event loop turns for a while, and never sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from client.peer import connected, eventually, soon

from fastpump._busy_poll import BusyPoll


class Loop:
    """A loop and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def turn(self, seconds: float) -> None:
        self.now += seconds
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()

    @property
    def sleeps(self) -> bool:
        return not self.ready


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr("fastpump._busy_poll.time.perf_counter", lambda: loop.now)
    return loop


@pytest.fixture
def poll(loop: Loop) -> BusyPoll:
    return BusyPoll(loop, 1.0)  # type: ignore[arg-type]


def test_it_turns_until_the_time_is_over(loop: Loop, poll: BusyPoll) -> None:
    assert loop.sleeps
    poll.on_received()
    for _ in range(9):
        loop.turn(0.1)
        assert not loop.sleeps
    loop.turn(0.2)
    assert loop.sleeps


def test_what_is_received_begins_the_time_anew(loop: Loop, poll: BusyPoll) -> None:
    for _ in range(5):
        poll.on_received()
        loop.turn(0.7)
        assert len(loop.ready) == 1, "one callback a turn, however much is received"
    loop.turn(1.1)
    assert loop.sleeps
    poll.on_received()
    loop.turn(0.5)
    assert not loop.sleeps


def test_stopped(loop: Loop, poll: BusyPoll) -> None:
    poll.on_received()
    poll.stop()
    loop.turn(0.0)
    assert loop.sleeps


class Turns:
    """How often a poll had the loops of this process turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        turn = BusyPoll._turn

        def counted(poll: BusyPoll) -> None:
            self.count += 1
            turn(poll)

        monkeypatch.setattr(BusyPoll, "_turn", counted)

    async def go_on(self) -> bool:
        """Whether they go on for some turns of the loop that this makes itself."""
        before = self.count
        for _ in range(10):
            await asyncio.sleep(0)
        return self.count >= before + 9


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    return Turns(monkeypatch)


async def test_of_a_client(turns: Turns) -> None:
    async with connected(busy_poll=60.0) as (client, link, _):
        await eventually(lambda: turns.count > 100)
        pinging = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await pinging
        assert await turns.go_on()
    await asyncio.sleep(0)
    assert not await turns.go_on(), "it ends with the connection"


async def test_it_is_off_unless_asked_for(turns: Turns) -> None:
    async with connected() as (client, link, _):
        pinging = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await pinging
        assert turns.count == 0
