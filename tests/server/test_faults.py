"""Faults on demand: each does what it says, as often as it says, and is gone afterwards."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import goldenlib
import pytest
from nodelib import PATIENCE, NodeThread, RawClient, event, frame, new_id

from fastpump import server
from fastpump.exceptions import UsageError
from fastpump.messages import NotHandledReason, TcpCommand
from fastpump.server.session import Session

Ping, Pong = TcpCommand.Ping, TcpCommand.Pong
NOW = 0.05
"""Seconds in which an answer comes if it comes at once."""


@pytest.fixture
def client(node: NodeThread) -> Iterator[RawClient]:
    with node.client() as connected:
        yield connected
    node.run(lambda n: n.faults.clear())


def ping(client: RawClient, payload: bytes = b"") -> bytes:
    return client.send(Ping, payload)


def fault(node: NodeThread, name: str, *args: Any, **options: Any) -> Any:
    return node.run(lambda n: getattr(n.faults, name)(*args, **options))


def remove(node: NodeThread, active: Any) -> None:
    node.run(lambda _: active.remove())


def test_delay(node: NodeThread, client: RawClient) -> None:
    late = fault(node, "delay", 0.2, replies=[Pong], times=1)
    started = time.monotonic()
    ids = [ping(client), client.send(TcpCommand.HeartbeatRequest, b""), ping(client)]
    assert [client.receive()[1] for _ in ids] == ids
    assert 0.18 < time.monotonic() - started < 1
    assert late.count == 1
    started = time.monotonic()
    client.ask(Ping)
    assert time.monotonic() - started < 0.15


def test_what_is_delayed_comes_before_the_end(node: NodeThread, client: RawClient) -> None:
    fault(node, "delay", 0.1)
    sent = ping(client)
    client.send_bytes(bytes(20))
    assert client.receive()[1] == sent
    assert client.receive()[0] == TcpCommand.BadRequest
    assert client.is_closed()


async def test_what_is_delayed_is_not_sent_to_who_has_left() -> None:
    async with server.run() as node:
        _, writer = await asyncio.open_connection(node.host, node.port)
        delay = node.faults.delay(NOW)
        writer.write(frame(Ping, b"", None, new_id()))
        while not delay.count:
            await asyncio.sleep(0)
        writer.transport.abort()
        while node.connection_count:
            await asyncio.sleep(0)
        await asyncio.sleep(2 * NOW)  # an exception in a callback fails the test


def test_a_lost_reply_was_executed(node: NodeThread, client: RawClient, stream: str) -> None:
    fault(node, "drop", replies=[TcpCommand.WriteEventsCompleted], times=1)
    with pytest.raises(TimeoutError):
        write_and_wait(client, stream, NOW)
    assert client.forward(stream).numbers == [0]
    client.write_some(stream, 1)


def write_and_wait(client: RawClient, stream: str, seconds: float) -> None:
    fields = {"event_stream_id": stream, "expected_version": -2, "events": [event()]}
    client.send(TcpCommand.WriteEvents, goldenlib.encode_fields(TcpCommand.WriteEvents, fields))
    client.receive(seconds)


def test_a_node_that_hangs(node: NodeThread, client: RawClient) -> None:
    hanging = fault(node, "drop")
    ping(client)
    with pytest.raises(TimeoutError):
        client.receive(NOW)
    remove(node, hanging)
    assert client.ask(Ping)[0] == Pong
    assert hanging.count == 1


def test_repeat(node: NodeThread, client: RawClient) -> None:
    fault(node, "repeat", replies=[Pong], times=2)
    ids = [ping(client), ping(client), ping(client)]
    received = [client.receive()[1] for _ in range(5)]
    assert received == [ids[0], ids[0], ids[1], ids[1], ids[2]]


def test_conn_11_heartbeats_can_be_ignored(node: NodeThread, client: RawClient) -> None:
    silent = fault(node, "ignore_heartbeats")
    client.send(TcpCommand.HeartbeatRequest, b"")
    assert client.ask(Ping)[0] == Pong
    remove(node, silent)
    sent = client.send(TcpCommand.HeartbeatRequest, b"")
    assert client.receive()[1] == sent


@pytest.mark.parametrize("after", [1, 4, 5, 21, 22, 23, 50, 66, 67])
def test_cut_after_so_many_bytes(node: NodeThread, client: RawClient, after: int) -> None:
    size = len(frame(Pong, b"", None, new_id()))
    fault(node, "cut", after=after, times=1)
    client._socket.settimeout(PATIENCE)
    client.send_bytes(frame(Ping, b"", None, new_id()) * (after // size + 2))
    received = b""
    while data := client._socket.recv(1000):
        received += data
    assert len(received) == after
    with node.client() as other:
        assert other.ask(Ping)[0] == Pong


def test_cut_counts_new_connections_from_their_beginning(node: NodeThread) -> None:
    cut = fault(node, "cut", after=30)
    for _ in range(2):
        with node.client(version=None) as client:
            assert client.ask(Ping)[0] == Pong
            ping(client)
            assert client.is_closed()
    assert cut.count == 2
    remove(node, cut)


def test_cut_instead_of_a_reply(node: NodeThread, client: RawClient, stream: str) -> None:
    fault(node, "cut_instead_of", [TcpCommand.WriteEventsCompleted], times=1)
    assert client.ask(Ping)[0] == Pong
    with pytest.raises(ConnectionError):
        client.write(stream, [event()])
    with node.client() as other:
        assert other.forward(stream).numbers == [0]
        other.write_some(stream, 1)


def test_cut_at_a_request(node: NodeThread, client: RawClient, stream: str) -> None:
    fault(node, "cut_at", [TcpCommand.WriteEvents], times=1)
    assert client.ask(Ping)[0] == Pong
    with pytest.raises(ConnectionError):
        client.write(stream, [event()])
    with node.client() as other:
        assert other.forward(stream).numbers == []
        other.write_some(stream, 1)


def test_swallow(node: NodeThread, client: RawClient) -> None:
    fault(node, "swallow", requests=[Ping], times=1)
    ping(client, b"lost")
    ping(client, b"kept")
    assert client.receive()[2] == b"kept"


@pytest.mark.parametrize(
    "reason", [NotHandledReason.NotReady, NotHandledReason.TooBusy, NotHandledReason.IsReadOnly]
)
def test_refuse(node: NodeThread, client: RawClient, stream: str, reason: NotHandledReason) -> None:
    refused = fault(node, "refuse", reason, times=2)
    for _ in range(2):
        reply, content = client.ask(
            TcpCommand.ReadEvent, event_stream_id=stream, event_number=0, resolve_link_tos=False
        )
        assert (reply, content["reason"]) == (TcpCommand.NotHandled, reason)
        assert client.ask(Ping)[0] == Pong
    client.write_some(stream, 1)
    assert refused.count == 2


def test_refuse_some_requests(node: NodeThread, client: RawClient, stream: str) -> None:
    refused = fault(node, "refuse", requests=[TcpCommand.WriteEvents])
    with pytest.raises(AssertionError, match="0xf1"):
        client.write(stream, [event()])
    assert client.forward(stream).numbers == []
    remove(node, refused)
    remove(node, refused)
    client.write_some(stream, 1)


def test_disconnect(node: NodeThread, client: RawClient) -> None:
    with node.client() as other:
        assert fault(node, "disconnect") == 2
        assert client.is_closed()
        assert other.is_closed()
    with node.client() as another:
        assert another.ask(Ping)[0] == Pong


def test_refuse_connections(node: NodeThread, client: RawClient) -> None:
    refused = fault(node, "refuse_connections")
    with node.client(version=None) as other:
        assert other.is_closed()
    assert client.ask(Ping)[0] == Pong
    remove(node, refused)
    node.client().close()


@pytest.fixture(scope="module")
def web() -> Iterator[NodeThread]:
    with NodeThread(http_port=0) as running:
        yield running


def get(node: NodeThread) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.run(lambda n: n.http_port))
    try:
        connection.request("GET", "/gossip")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_http_that_lies(web: NodeThread) -> None:
    for status, body in ((200, b""), (200, b"no JSON"), (500, b"{}"), (200, bytes(2_000_000))):
        fault(web, "http", body, status=status, times=1)
        assert get(web) == (status, body)
    assert "members" in json.loads(get(web)[1])


def test_http_that_is_slow(web: NodeThread) -> None:
    started = time.monotonic()
    fault(web, "http", delay=0.2, times=1)
    assert "members" in json.loads(get(web)[1])
    assert 0.18 < time.monotonic() - started < 1


def test_faults_end_with_their_block(node: NodeThread, client: RawClient) -> None:
    def inside(n: Any) -> tuple[bool, bool]:
        with n.faults.drop(), n.faults.refuse():
            return bool(n.faults), bool(n._gate)

    assert node.run(inside) == (True, True)
    assert node.run(lambda n: (bool(n.faults), bool(n._gate))) == (False, False)
    assert client.ask(Ping)[0] == Pong


def test_clear(node: NodeThread, client: RawClient) -> None:
    for name in ("drop", "refuse", "swallow", "ignore_heartbeats", "refuse_connections", "http"):
        fault(node, name)
    node.run(lambda n: n.faults.clear())
    assert client.ask(Ping)[0] == Pong
    with node.client() as other:
        assert other.ask(Ping)[0] == Pong


def test_without_faults_sessions_know_of_none(node: NodeThread) -> None:
    with node.client():
        (session,) = node.run(lambda n: list(n._sessions))
        assert type(session) is Session
        assert "Faulty" not in type(session._transport).__name__


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("delay", (-1,), {}),
        ("drop", (), {"times": 0}),
        ("cut", (), {"after": 0}),
        ("refuse", (NotHandledReason.NotMaster,), {}),
        ("http", (), {"delay": float("nan")}),
    ],
)
def test_what_makes_no_sense(
    node: NodeThread, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        fault(node, name, *args, **options)
