"""When frames are written: together at the end of the turn, or at once where they come singly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastpump._outbox import Outbox
from fastpump._statistics import Traffic


class Loop:
    def __init__(self) -> None:
        self._ready: list[Callable[[], Any]] = []

    def call_soon(self, callback: Callable[[], Any]) -> None:
        self._ready.append(callback)

    def end_turn(self) -> None:
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()


class Link:
    """An outbox, the writes it makes, and a peer that answers."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.traffic = Traffic()
        self.writes: list[bytes] = []
        self.outbox = Outbox(self.loop, self.traffic)  # type: ignore[arg-type]
        self.outbox.transport = self  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def turn(self, *frames: bytes) -> list[bytes]:
        """Send frames in one turn; what was written by its end."""
        self.writes.clear()
        for frame in frames:
            self.outbox.send(frame)
        self.loop.end_turn()
        return list(self.writes)

    def one_by_one(self) -> None:
        for _ in range(2):
            self.turn(b"single")
            self.outbox.on_received()


@pytest.fixture
def link() -> Link:
    return Link()


def test_frames_of_a_turn_leave_in_one_write(link: Link) -> None:
    for _ in range(3):
        assert link.turn(b"a", b"b", b"c") == [b"abc"]
        link.outbox.on_received()


def test_the_first_frame_waits_for_the_end_of_its_turn(link: Link) -> None:
    link.outbox.send(b"a")
    assert link.writes == []
    assert link.outbox.size == 1
    link.loop.end_turn()
    assert link.writes == [b"a"]
    assert link.outbox.size == 0


def test_frames_that_come_one_by_one_are_written_at_once(link: Link) -> None:
    link.one_by_one()
    link.writes.clear()
    link.outbox.send(b"a")
    assert link.writes == [b"a"]
    link.loop.end_turn()
    assert link.writes == [b"a"]


def test_a_burst_behind_single_frames_is_together_but_for_its_first(link: Link) -> None:
    link.one_by_one()
    assert link.turn(b"a", b"b", b"c") == [b"a", b"bc"]
    link.outbox.on_received()
    assert link.turn(b"a", b"b", b"c") == [b"abc"]


def test_an_answer_that_arrives_in_pieces_counts_once(link: Link) -> None:
    link.one_by_one()
    link.outbox.on_received()
    link.outbox.on_received()
    link.writes.clear()
    link.outbox.send(b"a")
    assert link.writes == [b"a"]


def test_no_frame_overtakes_another(link: Link) -> None:
    link.outbox.send(b"a")
    link.outbox.on_received()  # in the same turn
    link.outbox.send(b"b")
    link.loop.end_turn()
    assert b"".join(link.writes) == b"ab"


def test_large_frames_do_not_wait(link: Link) -> None:
    large = bytes(200 * 1024)
    link.outbox.send(large)
    assert link.writes == []
    link.outbox.send(large)
    assert link.writes == [large + large]


def test_without_a_connection_they_are_gone(link: Link) -> None:
    link.outbox.transport = None
    assert link.turn(b"a", b"b") == []
    assert link.outbox.size == 0
    assert link.traffic.sent == 0


def test_a_write_that_raises_holds_up_nothing_after_it(link: Link, monkeypatch: Any) -> None:
    def write(data: bytes) -> None:
        raise RuntimeError("closing")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(link, "write", write)
        link.turn(b"a")
    assert link.turn(b"b") == [b"b"]
    assert link.traffic.sent == 1


def test_what_is_written_is_counted(link: Link) -> None:
    link.turn(b"abc", b"de")
    assert link.traffic.sent == 5


def test_only_bytes_are_frames(link: Link) -> None:
    for wrong in (None, "text", bytearray(b"a")):
        with pytest.raises(TypeError):
            link.outbox.send(wrong)  # type: ignore[arg-type]
    assert link.outbox.size == 0
