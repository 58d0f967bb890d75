"""Several nodes on one database: who answers what, and what happens to the leader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import goldenlib
import pytest
from grouplib import Group
from nodelib import ANY, PATIENCE, SUCCESS, NodeThread, RawClient, event

from fastpump import server
from fastpump._cold import decode
from fastpump._commands import Command
from fastpump.exceptions import UsageError
from fastpump.messages import NotHandledReason
from fastpump.server.http import HttpConnection
from fastpump.server.session import Session

NOT_READY, NOT_MASTER = NotHandledReason.NotReady, NotHandledReason.NotMaster


class ClusterThread(NodeThread):
    """A cluster that lives in a thread of its own."""

    @staticmethod
    def make(path: Any, **options: Any) -> server.Cluster:
        return server.run_cluster(path=path, **{"election_seconds": 0.1, **options})

    def __enter__(self) -> ClusterThread:
        super().__enter__()
        return self

    @property
    def address(self) -> tuple[str, int]:
        return self.leader.host, self.leader.port

    @property
    def cluster(self) -> Any:
        return self._node

    @property
    def leader(self) -> Any:
        return self.run(lambda cluster: cluster.wait_for_leader())

    def restart(self, node: Any) -> None:
        self.run(lambda _: node.restart())

    def move_leader(self, to: Any = None) -> Any:
        return self.run(lambda cluster: cluster.move_leader(to))

    def connect(self, node: Any) -> RawClient:
        return RawClient((node.host, node.port))

    def gossip(self, node: Any) -> list[dict[str, Any]]:
        url = f"http://{node.host}:{node.http_port}/gossip?format=json"
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            members: list[dict[str, Any]] = json.load(response)["members"]
        return members

    def states(self, node: Any) -> list[tuple[str, bool]]:
        return [(member["state"], member["isAlive"]) for member in self.gossip(node)]


@pytest.fixture
def three() -> Iterator[ClusterThread]:
    with ClusterThread() as running:
        yield running


WRITE: dict[str, Any] = {"event_stream_id": "s", "expected_version": ANY}
PAGE = {"event_stream_id": "s", "from_event_number": 0, "max_count": 10, "resolve_link_tos": False}
ALL = {"commit_position": 0, "prepare_position": 0, "max_count": 10, "resolve_link_tos": False}
GROUP: dict[str, Any] = {"subscription_group_name": "g", "event_stream_id": "s"}

REQUIRING: list[tuple[int, dict[str, Any]]] = [
    (Command.WriteEvents, {**WRITE, "events": [event()]}),
    (Command.DeleteStream, WRITE),
    (Command.ReadEvent, {"event_stream_id": "s", "event_number": 0, "resolve_link_tos": False}),
    (Command.ReadStreamEventsForward, PAGE),
    (Command.ReadStreamEventsBackward, PAGE),
    (Command.ReadAllEventsForward, ALL),
    (Command.ReadAllEventsBackward, ALL),
]


def not_handled(content: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """The reason, and the leader's address if there is one."""
    info = content.get("additional_info")
    if not info:
        return content["reason"], None
    leader = decode("LeaderInfo", info)
    return content["reason"], {
        field.name: value for field, value in leader.ListFields() if value not in (0, "")
    }


def refusal_of(client: RawClient, command: int, fields: dict[str, Any]) -> Any:
    """What NotHandled says, or None if the request is answered."""
    reply, content = client.ask(command, **fields)
    return not_handled(content) if reply == Command.NotHandled else None


def address(node: Any) -> dict[str, Any]:
    return {
        "external_tcp_address": node.host,
        "external_tcp_port": node.port,
        "http_address": node.host,
        "http_port": node.http_port,
    }


def test_the_leader_answers_everything(three: ClusterThread) -> None:
    with three.connect(three.leader) as client:
        for command, fields in REQUIRING:
            assert refusal_of(client, command, {**fields, "require_leader": True}) is None


def test_disc_12_a_follower_sends_those_who_require_it_to_the_leader(three: ClusterThread) -> None:
    leader = three.leader
    for follower in three.cluster.followers:
        with three.connect(follower) as client:
            for command, fields in REQUIRING:
                found = refusal_of(client, command, {**fields, "require_leader": True})
                assert found == (NOT_MASTER, address(leader))
            assert client.ask(Command.Ping)[0] == Command.Pong


def test_disc_12_a_follower_serves_reads_and_forwards_writes(three: ClusterThread) -> None:
    follower, other = three.cluster.followers
    with three.connect(follower) as client, three.connect(other) as reader:
        for command, fields in REQUIRING:
            assert refusal_of(client, command, {**fields, "require_leader": False}) is None
        reply, content = client.ask(Command.WriteEvents, **WRITE, events=[event()])
        assert (reply, content["result"]) == (Command.WriteEventsCompleted, SUCCESS)
        assert reader.forward("s").numbers == [1]


@pytest.mark.parametrize("command", [0xC5, 0xC8, 0xCA, 0xCE])
def test_groups_need_the_leader(three: ClusterThread, command: int) -> None:
    follower = three.cluster.followers[0]
    with three.connect(follower) as client:
        fields = {"subscription_id": "g"} if command == 0xC5 else {"subscription_group_name": "g"}
        payload = goldenlib.encode_fields(command, {**fields, "event_stream_id": "s"})
        reply, content = client.exchange(command, payload)
        assert reply == Command.NotHandled
        assert not_handled(content) == (NOT_MASTER, address(three.leader))


def test_subscriptions_of_followers_see_what_the_leader_writes(three: ClusterThread) -> None:
    with three.connect(three.cluster.followers[0]) as client, three.connect(three.leader) as writer:
        fields: dict[str, Any] = {"event_stream_id": "s", "resolve_link_tos": False}
        assert client.ask(Command.SubscribeToStream, **fields)[0] == 0xC1
        writer.write("s", [event()])
        assert client.receive()[0] == Command.StreamEventAppeared


def test_disc_11_another_node_leads_when_the_leader_dies(three: ClusterThread) -> None:
    old = three.leader
    with three.connect(old) as client:
        client.write_some("s", 3)
        three.run(lambda _: old.kill())
        assert client.is_closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((old.host, old.port), 1)
    new = three.leader
    assert new is not old
    with three.connect(new) as client:
        assert client.forward("s").numbers == [0, 1, 2]
        client.write_some("s", 1)


def test_gossip_follows_deaths_and_elections(three: ClusterThread) -> None:
    first, second, third = three.cluster.nodes
    seen = [three.states(node) for node in (first, second, third)]
    assert seen == [[("Leader", True), ("Follower", True), ("Follower", True)]] * 3
    before = three.gossip(second)[0]["instanceId"]
    three.cluster.election_seconds = 0.5
    three.run(lambda _: first.kill())
    assert three.states(second) == [("Leader", False), ("Unknown", True), ("Unknown", True)]
    assert three.leader is second
    assert three.states(third) == [("Leader", False), ("Leader", True), ("Follower", True)]
    three.restart(first)
    assert three.states(first) == [("Follower", True), ("Leader", True), ("Follower", True)]
    assert three.gossip(second)[0]["instanceId"] != before


def test_without_a_leader_reads_go_on_and_the_rest_is_put_off(three: ClusterThread) -> None:
    first, second, _ = three.cluster.nodes
    three.cluster.election_seconds = 60
    with three.connect(first) as client:
        client.write_some("s", 1)
    with three.connect(second) as client:
        three.run(lambda _: first.kill())
        for command, fields in REQUIRING:
            found = refusal_of(client, command, {**fields, "require_leader": True})
            assert found == (NOT_READY, None)
        _, content = client.ask(Command.WriteEvents, **WRITE, events=[event()])
        assert not_handled(content) == (NOT_READY, None)
        _, content = client.ask(Command.CreatePersistentSubscription, **GROUP)
        assert not_handled(content) == (NOT_READY, None)
        assert client.forward("s").numbers == [0]


def test_a_minority_elects_nobody(three: ClusterThread) -> None:
    first, second, third = three.cluster.nodes
    three.run(lambda _: second.kill())
    assert three.leader is first
    three.run(lambda _: third.kill())
    assert three.states(first)[0] == ("Unknown", True)
    with pytest.raises(server.NoLeader, match="1 of 3"):
        assert three.leader
    with pytest.raises(server.NoLeader):
        three.move_leader()
    three.restart(third)
    assert three.leader in (first, third)


def test_all_may_die_and_come_back(three: ClusterThread) -> None:
    nodes = three.cluster.nodes
    with three.connect(three.leader) as client:
        client.write_some("s", 1)
    three.run(lambda _: asyncio.gather(*(node.kill() for node in nodes)))
    assert [node.is_alive for node in nodes] == [False] * 3
    for node in nodes:
        three.restart(node)
    with three.connect(three.leader) as client:
        assert client.forward("s").numbers == [0]


def test_the_leader_can_be_moved(three: ClusterThread) -> None:
    first, second, third = three.cluster.nodes
    with three.connect(first) as client:
        assert three.move_leader() is second
        assert three.move_leader(third) is third
        found = refusal_of(client, Command.DeleteStream, {**WRITE, "require_leader": True})
        assert found == (NOT_MASTER, address(third))
    three.run(lambda _: first.kill())
    for node in (first, object()):
        with pytest.raises(UsageError, match="to"):
            three.move_leader(node)


def test_who_leads_no_more_lets_go_of_consumers(three: ClusterThread) -> None:
    group = Group(three, "s")
    group.create()
    with group.connect() as consumer:
        three.move_leader()
        consumer.expect_drop()
    with three.client() as client, group.connect() as consumer:
        client.write_some("s", 2)
        assert consumer.numbers(2) == [0, 1]


def test_a_cluster_with_tls_and_old_names() -> None:
    pytest.importorskip("cryptography")
    import ssl

    with ClusterThread(tls="development", gossip_shape="v5", nodes=2) as two:
        trust = ssl.create_default_context(cafile=two.cluster.ca_file)
        host, port = two.cluster.gossip_seeds[1]
        url = f"https://{host}:{port}/gossip"
        with urllib.request.urlopen(url, context=trust, timeout=PATIENCE) as response:
            members = json.load(response)["members"]
        assert [member["state"] for member in members] == ["Master", "Slave"]
        leader = two.leader
        info = decode("LeaderInfo", server._roles.leader_info(leader))
        assert (info.external_tcp_port, info.external_secure_tcp_port) == (0, leader.port)


def test_all_is_stored_in_one_file(tmp_path: Any) -> None:
    path = tmp_path / "events.db"
    with ClusterThread(path) as three, three.connect(three.cluster.followers[1]) as client:
        client.ask(Command.WriteEvents, **WRITE, events=[event()])
    with NodeThread(path) as node, node.client() as client:
        assert client.forward("s").numbers == [0]


def test_ports_in_a_row_and_bad_arguments() -> None:
    cluster = server.run_cluster(nodes=2, port=4000, http_port=5000)
    assert [(node.port, node.http_port) for node in cluster.nodes] == [(4000, 5000), (4001, 5001)]
    with pytest.raises(UsageError, match="nodes"):
        server.run_cluster(nodes=0)


def test_a_single_node_dies_and_comes_back() -> None:
    with NodeThread(http_port=0) as node:
        with node.client() as client:
            client.write_some("s", 2)
            port = node.address[1]
            node.run(lambda n: n.kill())
            assert client.is_closed()
        assert "dead" in node.run(repr)
        with pytest.raises(ConnectionRefusedError):
            node.client()
        node.run(lambda n: n.restart())
        node.run(lambda n: n.restart())
        assert node.address[1] == port
        with node.client() as client:
            assert client.forward("s").numbers == [0, 1]


async def test_on_the_clients_loop_nothing_is_left_behind() -> None:
    async with server.run_cluster(election_seconds=0.01) as cluster:
        leader = cluster.leader
        assert leader is not None
        await leader.kill()
        await cluster.wait_for_leader()
        await leader.restart()
    assert not any(node.is_alive for node in cluster.nodes)


async def test_a_favourite_is_elected_though_another_node_dies() -> None:
    async with server.run_cluster(election_seconds=0.1) as cluster:
        first, second, third = cluster.nodes
        moving = asyncio.ensure_future(cluster.move_leader(first))
        await asyncio.sleep(0)
        await third.kill()
        assert await moving is first
        assert cluster.followers == (second,)


async def test_waiting_for_a_leader_ends_with_the_cluster() -> None:
    async with server.run_cluster(election_seconds=60) as cluster:
        assert cluster.leader is not None
        await cluster.leader.kill()
        waiting = asyncio.ensure_future(cluster.wait_for_leader())
        await asyncio.sleep(0)
    with pytest.raises(server.NoLeader):
        await waiting


async def test_a_leader_whose_killing_is_cancelled_is_dead_all_the_same() -> None:
    async with server.run_cluster(election_seconds=0) as cluster:
        leader = cluster.leader
        assert leader is not None
        killing = asyncio.ensure_future(leader.kill())
        await asyncio.sleep(0)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        assert await cluster.wait_for_leader() is not leader


@pytest.mark.parametrize(("kind", "port"), [(Session, "port"), (HttpConnection, "http_port")])
async def test_a_connection_that_was_being_made_dies_with_its_node(
    kind: Any, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Any, asyncio.Transport]] = []
    connection_made = kind.connection_made
    monkeypatch.setattr(kind, "connection_made", lambda *what: made.append(what))
    async with server.run(http_port=0) as node:
        reader, writer = await asyncio.open_connection(node.host, getattr(node, port))
        while not made:
            await asyncio.sleep(0)
        await node.kill()
        connection_made(*made[0])
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        await node.restart()
        assert node.connection_count == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"nodes": 0}, "nodes"),
        ({"election_seconds": -1}, "election_seconds"),
        ({"port": 65534}, "port"),
        ({"http_port": 70000}, "http_port"),
        ({"heartbeat_interval": 0}, "heartbeat_interval"),
        ({"heartbeat_timeout": -1.0}, "heartbeat_timeout"),
        ({"push_limit": 0}, "push_limit"),
        ({"push_count_limit": 0}, "push_count_limit"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}:"):
        server.run_cluster(**options)
