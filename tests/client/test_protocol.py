"""The asyncio side of a connection against a clock and a transport that the test moves itself."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from client.peer import frame

from fastpump._protocol import ConnectionProtocol
from fastpump._statistics import Traffic
from fastpump.exceptions import ConnectionLost, ProtocolError

ID = bytes(range(16))
INTERVAL = 1.0
TIMEOUT = 2.0


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualLoop:
    """As much of an event loop as the protocol needs; time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: list[Callable[[], Any]] = []
        self._timers: list[tuple[float, int, Handle, Callable[[], Any]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        self.ready.append(lambda: callback(*args))
        return Handle()

    def call_at(self, when: float, callback: Callable[[], Any]) -> Handle:
        handle = Handle()
        heapq.heappush(self._timers, (when, next(self._order), handle, callback))
        return handle

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()

    def advance(self, seconds: float) -> None:
        """Let time pass with the loop at work."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, handle, callback = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                callback()
            self.turn()
        self.now = end

    def block(self, seconds: float) -> None:
        """Let time pass with the loop kept busy: what is due runs late."""
        self.now += seconds
        self.advance(0)


class Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True


class World:
    """A connected protocol and everything around it."""

    def __init__(self, loop: ManualLoop) -> None:
        self.loop = loop
        self.transport = Transport()
        self.log: list[Any] = []
        self.lost: list[ConnectionLost] = []
        self.traffic = Traffic()
        self.protocol = ConnectionProtocol(
            on_frames=self.log.append,
            on_lost=lambda _, error: self.lost.append(error),
            on_paused=lambda: self.log.append("paused"),
            on_resumed=lambda: self.log.append("resumed"),
            heartbeat_interval=INTERVAL,
            heartbeat_timeout=TIMEOUT,
            max_frame_size=1000,
            traffic=self.traffic,
        )
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    def receive(self, data: bytes) -> None:
        window = self.protocol.get_buffer(-1)
        window[: len(data)] = data
        self.protocol.buffer_updated(len(data))

    @property
    def commands(self) -> list[int]:
        """The first command of each write."""
        return [data[4] for data in self.transport.written]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    loop = ManualLoop()
    monkeypatch.setattr("fastpump._protocol.asyncio.get_running_loop", lambda: loop)
    return World(loop)


def test_conn_12_heartbeat_after_silence_then_the_end(world: World) -> None:
    world.loop.advance(INTERVAL * 0.9)
    assert world.commands == []
    world.loop.advance(INTERVAL * 0.5)
    assert world.commands == [0x01]
    world.loop.advance(TIMEOUT * 0.7)
    assert world.commands == [0x01], "one heartbeat for each silence"
    assert not world.transport.aborted
    world.loop.advance(TIMEOUT * 0.5)
    assert world.transport.aborted


def test_heartbeats_have_ids_of_their_own(world: World) -> None:
    for _ in range(2):
        world.loop.advance(INTERVAL * 1.5)
        world.receive(b"\x12")
        world.receive(frame(0x02, ID)[1:])
    first, second = world.transport.written
    assert first[4] == second[4] == 0x01
    assert first[6:22] != second[6:22]


def test_conn_12_any_byte_counts_as_a_sign_of_life(world: World) -> None:
    data = frame(0x83, ID, bytes(900))
    for number in range(len(data) - 1):
        world.receive(data[number : number + 1])
        world.loop.advance(INTERVAL * 0.9)
    assert world.commands == []
    assert not world.transport.aborted


def test_pp_17_a_byte_after_the_heartbeat_starts_over(world: World) -> None:
    for _ in range(5):
        world.loop.advance(INTERVAL + TIMEOUT * 0.8)
        world.receive(frame(0x02, ID))
    assert world.commands == [0x01] * 5
    assert not world.transport.aborted


def test_a_loop_kept_busy_is_not_the_servers_silence(world: World) -> None:
    world.loop.block(INTERVAL + TIMEOUT * 10)
    assert not world.transport.aborted, "its bytes may lie unread in the socket"
    world.receive(frame(0x02, ID))
    world.loop.advance(INTERVAL * 0.9)
    assert not world.transport.aborted


def test_conn_11_heartbeat_is_answered_before_anybody_else_runs(world: World) -> None:
    answered: list[bool] = []

    def consumer() -> None:
        answered.append(bool(world.transport.written))

    world.protocol._on_frames = lambda _: world.loop.call_soon(consumer)
    world.receive(frame(0x83, ID, b"\x08\x00") + frame(0x01, ID[::-1]))
    world.loop.turn()
    assert world.transport.written == [frame(0x02, ID[::-1])]
    assert answered == [True]


def test_frames_of_one_turn_are_written_together(world: World) -> None:
    frames = [frame(0x03, ID, bytes([n])) for n in range(10)]
    for data in frames:
        world.protocol.send(data)
    assert world.transport.written == []
    world.loop.turn()
    assert world.transport.written == [b"".join(frames)]
    world.loop.turn()
    assert len(world.transport.written) == 1


def test_closing_writes_what_is_waiting(world: World) -> None:
    world.protocol.send(frame(0x03, ID))
    world.protocol.close()
    assert world.transport.written == [frame(0x03, ID)]
    assert world.transport.closed


def test_transport_tells_when_it_is_full(world: World) -> None:
    world.protocol.pause_writing()
    world.protocol.resume_writing()
    assert world.log == ["paused", "resumed"]


@pytest.mark.parametrize("length", [0, 17, -1, 1001])
def test_frame_length_out_of_bounds(world: World, length: int) -> None:
    good = frame(0x04, ID)
    world.receive(good + length.to_bytes(4, "little", signed=True) + bytes(40))
    assert [[f.command for f in frames] for frames in world.log] == [[0x04]]
    assert world.transport.aborted

    world.protocol.connection_lost(None)
    (lost,) = world.lost
    assert f"frame length {length}" in str(lost)
    assert isinstance(lost.__cause__, ProtocolError)
    assert lost.__cause__.offset == len(good)


def test_lost_once_and_then_quiet(world: World) -> None:
    world.protocol.send(frame(0x03, ID))
    world.protocol.connection_lost(None)
    world.loop.advance(100)
    world.protocol.send(frame(0x03, ID))
    world.protocol.close()
    world.protocol.abort(TimeoutError())
    world.loop.turn()
    assert len(world.lost) == 1
    assert world.transport.written == []
    assert not world.transport.aborted
