"""Subscribers that do not read what they are pushed (protocol document, section 1.3)."""

from __future__ import annotations

import time

import pytest
from nodelib import PATIENCE, NodeThread, RawClient, event

from fastpump._commands import Command
from fastpump.server import session
from fastpump.server._unsent import UnsentPushes

EVENTS = 500
BATCHES = 40
"""Of a megabyte each: more than two sockets hold."""


def subscribe(node: NodeThread, stream: str) -> RawClient:
    client = node.client()
    assert client.ask(Command.SubscribeToStream, event_stream_id=stream)[0] == (
        Command.SubscriptionConfirmation
    )
    return client


def take_all(client: RawClient) -> tuple[int, tuple[int, bytes, bytes]]:
    """How many events come, and the first frame that is something else."""
    count = 0
    while (received := client.receive())[0] == Command.StreamEventAppeared:
        count += 1
    return count, received


def fill(node: NodeThread, stream: str, batches: int) -> None:
    with node.client() as writer:
        for _ in range(batches):
            writer.write(stream, [event(data=bytes(2000)) for _ in range(EVENTS)])


def test_too_many_packages(stream: str) -> None:
    with NodeThread(push_count_limit=2000) as node, subscribe(node, stream) as slow:
        fill(node, stream, BATCHES)
        count, (command, correlation_id, text) = take_all(slow)
        assert (command, correlation_id) == (Command.BadRequest, bytes(16))
        assert text.startswith(b"Connection queue size is too large: ")
        assert 2000 < count < BATCHES * EVENTS
        assert slow.is_closed()


def test_too_many_bytes(stream: str) -> None:
    with NodeThread(push_limit=2_000_000) as node, subscribe(node, stream) as slow:
        fill(node, stream, BATCHES)
        count, (command, correlation_id, text) = take_all(slow)
        assert (command, correlation_id) == (Command.BadRequest, bytes(16))
        assert text.startswith(b"Connection pending send bytes is too large: ")
        assert 2000 < count < BATCHES * EVENTS
        assert slow.is_closed()


def test_nobody_is_cut_off_for_one_large_batch(stream: str) -> None:
    with (
        NodeThread(push_limit=1000, push_count_limit=10) as node,
        subscribe(node, stream) as slow,
    ):
        fill(node, stream, 1)
        for _ in range(EVENTS):
            assert slow.receive()[0] == Command.StreamEventAppeared
        fill(node, stream, 1)
        assert slow.receive()[0] == Command.StreamEventAppeared


def test_who_is_silent_and_takes_nothing_is_forgotten(
    stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up for dead, and what it was sent is not kept until it is really gone."""
    monkeypatch.setattr(session, "LAST_WORDS_SECONDS", 0.1)
    limits = {"push_limit": 1 << 30, "push_count_limit": 1 << 30, "heartbeat_interval": 0.3}
    with NodeThread(**limits) as node, subscribe(node, stream):
        fill(node, stream, BATCHES)
        deadline = time.monotonic() + PATIENCE
        while node.run(lambda n: n.connection_count):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_others_are_not_affected(stream: str) -> None:
    with NodeThread(push_limit=1_000_000) as node, subscribe(node, stream) as slow:
        with subscribe(node, f"{stream}-b") as other:
            fill(node, stream, BATCHES)
            fill(node, f"{stream}-b", 1)
            assert other.receive()[0] == Command.StreamEventAppeared
            assert other.receive()[0] == Command.StreamEventAppeared
        assert slow.is_closed()
        with node.client() as client:
            assert len(client.forward(stream, count=4096).items) == 4096


def test_counting_by_bytes() -> None:
    unsent = UnsentPushes()
    unsent.add(100, 10)
    unsent.add(50, 5)
    unsent.settle(150)
    assert unsent.packages == 15
    unsent.settle(51)
    assert unsent.packages == 15
    unsent.settle(50)
    assert unsent.packages == 5
    unsent.settle(0)
    assert unsent.packages == 0
    unsent.add(10, 1)
    # Replies wait too: then it only seems that no push has been sent.
    unsent.settle(1000)
    assert unsent.packages == 1
