"""Random and mutated input: it harms nobody, and only the connection it came on may end."""

from __future__ import annotations

import random
from collections.abc import Iterator

import goldenlib
import pytest
from nodelib import ADMIN, NodeThread, RawClient, event, frame, new_id

from fastpump._commands import Command

KNOWN = [
    int(command)
    for command in (
        Command.WriteEvents,
        Command.DeleteStream,
        Command.TransactionStart,
        Command.TransactionWrite,
        Command.TransactionCommit,
        Command.ReadEvent,
        Command.ReadStreamEventsForward,
        Command.ReadStreamEventsBackward,
        Command.ReadAllEventsForward,
        Command.ReadAllEventsBackward,
        Command.FilteredReadAllEventsForward,
        Command.FilteredReadAllEventsBackward,
        Command.SubscribeToStream,
        Command.FilteredSubscribeToStream,
        Command.ScavengeDatabase,
        Command.UnsubscribeFromStream,
        Command.IdentifyClient,
        Command.Authenticate,
    )
]
FRAMES = 1700


@pytest.fixture(scope="module")
def node() -> Iterator[NodeThread]:
    with NodeThread() as running:
        yield running


def assert_is_well(node: NodeThread) -> None:
    """A new connection is served as ever."""
    with node.client() as client:
        stream = f"well-{new_id().hex()}"
        assert client.write(stream, [event()])["last_event_number"] == 0
        assert client.forward(stream).numbers == [0]
        assert client.all_backward(count=1).items


def send_until_closed(node: NodeThread, frames: list[bytes]) -> None:
    """Send all frames, on a new connection whenever one was closed."""
    client = node.client()
    for data in frames:
        try:
            client.send_bytes(data)
        except OSError:
            client.close()
            client = node.client()
    client.is_closed(0.05)
    client.close()


def requests(seed: int) -> list[tuple[int, bytes]]:
    """Valid requests to start from."""
    stream = f"mutated-{seed}"
    some_filter = {"context": 1, "type": 0, "data": ["^t(es)+.*$", "x"]}
    fields: dict[int, dict[str, object]] = {
        Command.WriteEvents: {"event_stream_id": stream, "events": [event(), event()]},
        Command.DeleteStream: {"event_stream_id": stream, "expected_version": -2},
        Command.ReadEvent: {"event_stream_id": stream, "event_number": -1},
        Command.ReadStreamEventsForward: {"event_stream_id": stream, "max_count": 10},
        Command.ReadStreamEventsBackward: {"event_stream_id": stream, "max_count": 10},
        Command.ReadAllEventsForward: {"commit_position": 0, "max_count": 10},
        Command.ReadAllEventsBackward: {"commit_position": -1, "max_count": 10},
        Command.TransactionStart: {"event_stream_id": stream, "expected_version": -2},
        Command.TransactionWrite: {"transaction_id": 1, "events": [event(), event()]},
        Command.TransactionCommit: {"transaction_id": 1},
        Command.FilteredReadAllEventsForward: {"max_count": 10, "filter": some_filter},
        Command.FilteredReadAllEventsBackward: {
            "commit_position": -1,
            "prepare_position": -1,
            "max_count": 10,
            "filter": some_filter,
        },
        Command.FilteredSubscribeToStream: {"filter": some_filter, "checkpoint_interval": 2},
        Command.SubscribeToStream: {"event_stream_id": stream, "resolve_link_tos": True},
        Command.IdentifyClient: {"version": 1, "connection_name": "x"},
    }
    return [(command, goldenlib.encode_fields(command, f)) for command, f in fields.items()]


def mutate(random_: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload)
    for _ in range(random_.randint(1, 4)):
        kind = random_.randrange(4)
        at = random_.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            del data[at : at + random_.randint(1, 8)]
        elif kind == 2:
            data[at:at] = random_.randbytes(random_.randint(1, 8))
        else:
            data[at:at] = b"\xff" * random_.randint(1, 11)
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_random_payloads(node: NodeThread, seed: int) -> None:
    random_ = random.Random(seed)
    frames = [
        frame(random_.choice(KNOWN), random_.randbytes(random_.randint(0, 60)), None, new_id())
        for _ in range(FRAMES)
    ]
    send_until_closed(node, frames)
    assert_is_well(node)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_payloads(node: NodeThread, seed: int) -> None:
    random_ = random.Random(seed)
    frames = []
    for _ in range(FRAMES):
        command, payload = random_.choice(requests(seed))
        auth = random_.choice([None, ADMIN])
        frames.append(frame(command, mutate(random_, payload), auth, new_id()))
    send_until_closed(node, frames)
    assert_is_well(node)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_frames(node: NodeThread, seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(60):
        whole = b"".join(
            frame(command, payload, random_.choice([None, ADMIN]), new_id())
            for command, payload in requests(seed)
        )
        send_until_closed_at_once(node, mutate(random_, whole))
    assert_is_well(node)


def send_until_closed_at_once(node: NodeThread, data: bytes) -> None:
    with RawClient(node.address, version=None) as client:
        client.send_bytes(data)
        client.is_closed(0.005)


@pytest.mark.parametrize("seed", range(2))
def test_proto_05_random_bytes(node: NodeThread, seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(60):
        send_until_closed_at_once(node, random_.randbytes(random_.randint(1, 3000)))
    assert_is_well(node)


def test_other_connections_are_not_affected(node: NodeThread) -> None:
    with node.client() as other:
        send_until_closed_at_once(node, b"\xff" * 100)
        assert other.ask(Command.Ping)[0] == Command.Pong
