"""Framing, handshake, heartbeats and back-pressure. Names are rows of the acceptance list."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import weakref
from collections.abc import Iterator

import goldenlib
import pytest
from nodelib import ADMIN, MAX, PATIENCE, NodeThread, RawClient, event, frame, new_id, original

from fastpump._commands import Command

NO_ID = bytes(16)


def test_proto_03_cut_at_every_byte(client: RawClient) -> None:
    data = b"".join(frame(Command.Ping, b"%d" % n, None, new_id()) for n in range(2))
    for cut in range(1, len(data)):
        client.send_bytes(data[:cut])
        time.sleep(0.0005)
        client.send_bytes(data[cut:])
        assert [client.receive()[2] for _ in range(2)] == [b"0", b"1"]


def test_proto_03_many_frames_in_one_chunk(client: RawClient) -> None:
    client.send_bytes(b"".join(frame(Command.Ping, b"%d" % n, None, new_id()) for n in range(5000)))
    assert [int(client.receive()[2]) for _ in range(5000)] == list(range(5000))


@pytest.mark.parametrize("length", [0, -1, 17, 64 * 1024 * 1024 + 1, 2**31 - 1])
def test_proto_03_bad_lengths_end_the_connection(node: NodeThread, length: int) -> None:
    with node.client() as client:
        client.send_bytes(length.to_bytes(4, "little", signed=True) + bytes(17))
        command, correlation_id, text = client.receive()
        assert (command, correlation_id) == (Command.BadRequest, NO_ID)
        assert b"\n" not in text
        assert client.is_closed()


def test_proto_04_ping(client: RawClient) -> None:
    correlation_id = client.send(Command.Ping, b"hello \0\xff")
    assert client.receive() == (Command.Pong, correlation_id, b"hello \0\xff")


@pytest.mark.parametrize("command", [0x50, 0xEE, 0xFF, 0x00, 0x84, 0xC5, Command.Pong])
def test_proto_05_unknown_commands(client: RawClient, command: int) -> None:
    reply, content = client.exchange(command, b"")
    assert reply == Command.BadRequest
    assert content["text"].startswith("Could not unwrap network package for command")
    assert client.ask(Command.Ping)[0] == Command.Pong


def test_proto_05_trusted_writes(node: NodeThread) -> None:
    with node.client() as client:
        correlation_id = new_id()
        client.send_bytes(goldenlib.build_frame(Command.Ping, 2, correlation_id, b""))
        assert client.receive()[:2] == (Command.BadRequest, correlation_id)
        assert client.is_closed()


@pytest.mark.parametrize("block", [b"", b"\x05", b"\x20adm", b"\x05admin\x40abc", b"\x05admin\x00"])
def test_bad_auth_blocks_end_the_connection(node: NodeThread, block: bytes) -> None:
    with node.client() as client:
        client.send_bytes(goldenlib.build_frame(Command.Ping, 1, new_id(), block))
        assert client.receive()[:2] == (Command.BadRequest, NO_ID)
        assert client.is_closed()


@pytest.mark.parametrize("command", [0x82, 0x8A, 0xB0, 0xB2, 0xB4, 0xB6, 0xB8, 0xC0, 0xC3])
def test_requests_need_a_correlation_id(client: RawClient, command: int) -> None:
    reply, _ = client.exchange(command, b"", None, NO_ID)
    assert reply == Command.BadRequest
    assert client.exchange(Command.Ping, b"", None, NO_ID)[0] == Command.Pong


@pytest.mark.parametrize("version", [None, 0])
def test_proto_08_protocol_version_0(
    node: NodeThread, client: RawClient, stream: str, version: int | None
) -> None:
    client.write(stream, [event()])
    client.delete(stream, hard=True)
    with node.client(version=version) as old:
        assert old.forward(stream).last == 2**31 - 1
        tombstone = original(old.all_backward(count=1).items[0])
        assert tombstone["event_number"] == 2**31 - 1
    tombstone_as_it_is = original(client.all_backward(count=1).items[0])
    assert tombstone_as_it_is == {**tombstone, "event_number": MAX}


@pytest.mark.parametrize("version", [2, -1])
def test_unknown_protocol_versions(node: NodeThread, version: int) -> None:
    with node.client(version=version) as client:
        assert client.ask(Command.Ping)[0] == Command.BadRequest


def test_conn_11_heartbeats_are_answered(client: RawClient) -> None:
    correlation_id = client.send(Command.HeartbeatRequest, b"ignored")
    assert client.receive() == (Command.HeartbeatResponse, correlation_id, b"")


def test_a_half_closed_connection_is_closed(node: NodeThread) -> None:
    with node.client() as client:
        client.send_bytes(b"\x15\0\0\0\x03")
        client.shutdown_write()
        assert client.is_closed()


@pytest.fixture(scope="module")
def impatient() -> Iterator[NodeThread]:
    with NodeThread(heartbeat_interval=0.2, heartbeat_timeout=0.2) as running:
        yield running


def test_silence_is_asked_about_then_ended(impatient: NodeThread) -> None:
    start = time.monotonic()
    with socket.create_connection(impatient.address) as silent:
        asked = silent.recv(1000)
        assert asked[4] == Command.HeartbeatRequest
        assert 0.1 < time.monotonic() - start < 0.4
        assert silent.recv(1000) == b""
        assert 0.3 < time.monotonic() - start < 1.0


def test_any_traffic_is_a_sign_of_life(impatient: NodeThread) -> None:
    with impatient.client() as client:
        for _ in range(4):
            time.sleep(0.15)
            assert client.ask(Command.Ping)[0] == Command.Pong
        assert not client.is_closed(0.7), "heartbeats are answered meanwhile"


# --- back-pressure ---


def test_a_steady_reader_of_many_pipelined_pages_is_served(client: RawClient, stream: str) -> None:
    """200 pages of 1 MiB, asked for at once: more than any queue limit of the original."""
    client.write(stream, [event(data=bytes(64 * 1024)) for _ in range(16)])
    request = goldenlib.encode_fields(
        Command.ReadStreamEventsForward,
        {"event_stream_id": stream, "from_event_number": 0, "max_count": 16},
    )
    ids = [new_id() for _ in range(200)]
    client.send_bytes(
        b"".join(frame(Command.ReadStreamEventsForward, request, None, i) for i in ids)
    )
    for correlation_id in ids:
        command, reply_id, page = client.receive()
        assert (command, reply_id) == (Command.ReadStreamEventsForwardCompleted, correlation_id)
        assert len(page) > 16 * 64 * 1024


def test_size_04_ten_large_reads(client: RawClient, stream: str) -> None:
    client.write(stream, [event(data=bytes(6_000_000))])
    for _ in range(10):
        assert len(original(client.forward(stream).items[0])["data"]) == 6_000_000


def test_a_client_that_does_not_read_is_not_read_from(node: NodeThread, stream: str) -> None:
    with node.client() as client:
        client.write(stream, [event(data=bytes(1024 * 1024))])
        request = goldenlib.encode_fields(
            Command.ReadEvent, {"event_stream_id": stream, "event_number": 0}
        )
        wave = frame(Command.ReadEvent, request, None, new_id()) * 1000
        for _ in range(20):
            client.send_bytes(wave[: len(wave) // 20])
        time.sleep(0.5)
        assert max(node.run(queued_bytes)) < 8 * 1024 * 1024
    with node.client() as other:
        assert other.ask(Command.Ping)[0] == Command.Pong


def queued_bytes(node: object) -> list[int]:
    sessions = node._sessions  # type: ignore[attr-defined]
    return [session._transport.get_write_buffer_size() for session in sessions]


def test_writes_faster_than_the_disk_are_held_back_not_lost(client: RawClient, stream: str) -> None:
    payload = goldenlib.encode_fields(
        Command.WriteEvents,
        {
            "event_stream_id": stream,
            "expected_version": -2,
            "events": [event(data=bytes(4 * 1024 * 1024))],
        },
    )
    ids = [new_id() for _ in range(10)]
    for number, correlation_id in enumerate(ids):
        # Only the event id has to differ; it stands once in each payload.
        old, new = b"\x0a\x10", b"\x0a\x10" + bytes([number + 1])
        start = payload.index(old)
        changed = payload[:start] + new + payload[start + len(new) :]
        client.send_bytes(frame(Command.WriteEvents, changed, None, correlation_id))
    assert [client.receive()[1] for _ in ids] == ids
    assert client.forward(stream).numbers == list(range(10))


def test_on_plain_asyncio(stream: str) -> None:
    with (
        NodeThread(loop_factory=asyncio.new_event_loop) as node,
        node.client() as client,
    ):
        client.write_some(stream, 3)
        assert client.forward(stream).numbers == [0, 1, 2]
        assert len(client.all_forward(auth=ADMIN).items) == 9


def test_closing_the_node_answers_what_is_written(tmp_path: object, stream: str) -> None:
    path = tmp_path / "events.db"  # type: ignore[operator]
    with NodeThread(path) as node:
        client = node.client()
        for _ in range(100):
            payload = goldenlib.encode_fields(
                Command.WriteEvents,
                {"event_stream_id": stream, "expected_version": -2, "events": [event()]},
            )
            client.send(Command.WriteEvents, payload)
        assert client.receive()[0] == Command.WriteEventsCompleted
    answered = 1
    with contextlib.suppress(ConnectionError):
        while client.receive()[0] == Command.WriteEventsCompleted:
            answered += 1
    client.close()
    with NodeThread(path) as node, node.client() as client:
        assert len(client.forward(stream).items) >= answered


def test_a_connection_that_ended_leaves_no_memory_behind(node: NodeThread) -> None:
    """It goes at once, and not when somebody looks for cycles: each one has megabytes."""
    gc.disable()
    try:
        with node.client() as client:
            client.write_some("ended", 1)
            (session,) = node.run(lambda n: [weakref.ref(each) for each in n._sessions])
            assert session() is not None
        deadline = time.monotonic() + PATIENCE
        while node.run(lambda n: n.connection_count):
            assert time.monotonic() < deadline
        node.run(lambda n: None)
        assert session() is None
    finally:
        gc.enable()
