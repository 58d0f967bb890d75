"""HTTP beside TCP: gossip and the like, and what becomes of bad requests."""

from __future__ import annotations

import http.client
import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from grouplib import Group
from nodelib import ADMIN, OPS, PATIENCE, WRONG, Auth, NodeThread
from weblib import ask, basic, http_address
from wire.scrambling import damaged

from fastpump.exceptions import UsageError
from fastpump.server import PortInUse, run
from fastpump.server import http as node_http
from fastpump.server.groups.machine import NakAction


@pytest.fixture(scope="module")
def web() -> Iterator[NodeThread]:
    with NodeThread(http_port=0) as running:
        yield running


def get(node: NodeThread, target: str, method: str = "GET", auth: Auth = None) -> tuple[int, Any]:
    return ask(node, method, target, auth)


def exchange(node: NodeThread, *parts: bytes) -> bytes:
    """Send the parts one by one; everything that comes back until the end."""
    with socket.create_connection(http_address(node), PATIENCE) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.01)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


V20_KEYS = """instanceId timeStamp state isAlive internalTcpIp internalTcpPort internalSecureTcpPort
externalTcpIp externalTcpPort externalSecureTcpPort httpEndPointIp httpEndPointPort
lastCommitPosition writerCheckpoint chaserCheckpoint epochPosition epochNumber epochId nodePriority
isReadOnlyReplica esVersion"""
V5_KEYS = """instanceId timeStamp state isAlive internalTcpIp internalTcpPort internalSecureTcpPort
externalTcpIp externalTcpPort externalSecureTcpPort internalHttpIp internalHttpPort externalHttpIp
externalHttpPort lastCommitPosition writerCheckpoint chaserCheckpoint epochPosition epochNumber
epochId nodePriority"""


def test_gossip(web: NodeThread) -> None:
    status, content = get(web, "/gossip?format=json")
    host, port = http_address(web)
    assert (status, content["serverIp"], content["serverPort"]) == (200, host, port)
    (member,) = content["members"]
    assert list(member) == V20_KEYS.split()
    assert (member["state"], member["isAlive"]) == ("Leader", True)
    assert (member["externalTcpIp"], member["externalTcpPort"]) == web.address
    assert (member["httpEndPointIp"], member["httpEndPointPort"]) == (host, port)
    assert member["externalSecureTcpPort"] == 0
    assert 0 < member["lastCommitPosition"] < member["writerCheckpoint"]


def test_gossip_in_the_old_shape() -> None:
    with NodeThread(http_port=0, gossip_shape="v5") as node:
        (member,) = get(node, "/gossip")[1]["members"]
        assert list(member) == V5_KEYS.split()
        assert member["state"] == "Master"
        assert (member["externalHttpIp"], member["externalHttpPort"]) == http_address(node)
        assert get(node, "/info")[1]["state"] == "master"
        assert node.run(lambda n: n.state) == "Master"


def test_a_port_that_is_taken(web: NodeThread) -> None:
    with pytest.raises(PortInUse), NodeThread(http_port=http_address(web)[1]):
        pass


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="gossip_shape"):
        run(gossip_shape="v6")  # type: ignore[arg-type]


def test_ping_info_and_stats(web: NodeThread) -> None:
    assert get(web, "/ping") == (200, {"text": "Ping request successfully handled"})
    info = {"esVersion": "4.1.4.0", "state": "leader", "projectionsMode": "None"}
    assert get(web, "/info") == (200, info)
    with web.client():
        stats = get(web, "/stats")[1]
        assert stats["proc"]["id"] == os.getpid()
        assert stats["proc"]["tcp"]["connections"] == 1
        assert stats["es"]["checksum"] > 0


def test_replay_of_parked_events(web: NodeThread) -> None:
    group = Group(web, "parked/1")
    group.create()
    path = "/subscriptions/parked%2F1/group/replayParked"
    with web.client() as client, group.connect() as consumer:
        client.write_some(group.stream, 2)
        consumer.nak(consumer.take(2), NakAction.PARK)
        while len(group.parked()) < 2:
            time.sleep(0.01)
        for auth in (None, OPS, WRONG):
            assert get(web, path, "POST", auth)[0] == 401
        done = {"result": "Success", "reason": ""}
        assert get(web, path + "?stopAt=1", "POST", ADMIN) == (200, done)
        assert consumer.numbers(1) == [0]
        assert get(web, path, "POST", ADMIN) == (200, done)
        assert consumer.numbers(1) == [1]
    assert get(web, path.replace("1/group", "2/group"), "POST", ADMIN)[0] == 404
    assert get(web, path, "GET", ADMIN)[0] == 405
    for nonsense in ("-1", "x", "1" * 9000, "%C2%B2"):
        assert get(web, f"{path}?stopAt={nonsense}", "POST", ADMIN)[0] == 400


def test_without_a_port_there_is_no_http(node: NodeThread) -> None:
    assert node.run(lambda n: n.http_port) is None


def test_what_is_not_there(web: NodeThread) -> None:
    assert get(web, "/nothing") == (404, None)
    assert get(web, "/gossip", "DELETE") == (405, None)


def test_a_request_in_pieces(web: NodeThread) -> None:
    data = b"GET /ping HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc"
    pieces = [data[start : start + 9] for start in range(0, len(data), 9)]
    assert exchange(web, *pieces).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /ping\r\n\r\n", 400),
        (b"GET /ping HTTP/2.0\r\n\r\n", 505),
        (b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"GET /ping HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET /ping HTTP/1.1\r\nAuthorization: Basic ?\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nAuthorization: Basic \xe9\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nAuthorization: Basic /w==\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"a" * 20_000, 431),
        (bytes(range(256)) + b"\r\n\r\n", 400),
    ],
)
def test_bad_requests(web: NodeThread, request_bytes: bytes, status: int) -> None:
    answer = exchange(web, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert get(web, "/ping")[0] == 200


REQUESTS = [
    "GET /gossip?format=json HTTP/1.1",
    "GET /subscriptions HTTP/1.1",
    "GET /subscriptions/s/g/info HTTP/1.1",
    "POST /subscriptions/s/g/replayParked?stopAt=1 HTTP/1.1",
    "GET /users/ HTTP/1.1",
    "POST /users/ HTTP/1.1",
    "PUT /users/ada HTTP/1.1",
    "POST /users/ada/command/change-password HTTP/1.1",
    "DELETE /users/ada HTTP/1.0",
]
BODY = b'{"loginName":"ada","fullName":"Ada","groups":["a"],"password":"p","currentPassword":"p"}'


@pytest.mark.parametrize("seed", range(3))
def test_damaged_requests(web: NodeThread, seed: int) -> None:
    """They are refused or understood, and nothing in the node fails by them."""
    rng = random.Random(seed)
    statuses = set()
    for _ in range(150):
        head = f"{rng.choice(REQUESTS)}\r\nAuthorization: {basic(ADMIN)}\r\n"
        head += f"Content-Length: {len(BODY)}\r\n\r\n"
        request = head.encode() + rng.choice([BODY, damaged(BODY, rng)])
        with socket.create_connection(http_address(web), PATIENCE) as connection:
            connection.sendall(rng.choice([request, damaged(request, rng)]))
            connection.shutdown(socket.SHUT_WR)  # there may be less than it promises
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        if answer:
            statuses.add(int(answer.removeprefix(b"HTTP/1.1 ")[:3]))
    assert {200, 400, 404} <= statuses
    assert 500 not in statuses
    assert get(web, "/ping")[0] == 200


def test_a_request_that_does_not_come_is_not_waited_for(
    web: NodeThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_http, "SECONDS", 0.1)
    assert exchange(web, b"GET /ping HTTP/1.1\r\n") == b""


def test_connections_are_limited(web: NodeThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_http, "MAX_CONNECTIONS", 2)
    idle = [socket.create_connection(http_address(web)) for _ in range(2)]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        get(web, "/ping")
    for connection in idle:
        connection.close()


def test_credentials_are_read_and_stay_out_of_the_repr() -> None:
    request = node_http.read_request(
        b"POST /a%20b//c?x=1&y HTTP/1.0\r\nAuthorization: basic YWRtaW46czo6dA==\r\n\r\n"
    )
    assert request is not None
    assert request == ("POST", ("a b", "c"), {"x": "1", "y": ""}, ("admin", "s::t"), b"")
    assert "s::t" not in repr(request)
    other = node_http.read_request(b"GET / HTTP/1.1\r\nAuthorization: Bearer abc\r\n\r\n")
    assert other is not None
    assert other.credentials is None
