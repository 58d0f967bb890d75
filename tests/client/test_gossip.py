"""Finding a node by gossip, from scripted endpoints that answer as they should, or don't."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from client.gossip import GossipPeer, gossip_of, http_answer, member
from client.peer import Link, Peer, outcome, soon

import fastpump
import fastpump.server
from fastpump import _discoverers, _gossip
from fastpump.discovery import (
    KEEP_RETRYING,
    DiscoveredNode,
    DiscoveryRetryPolicy,
    NodeService,
    prefer_master,
)
from fastpump.exceptions import ClientClosed, ConnectFailed, DiscoveryFailed, UsageError

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_discoverers, "PAUSE", 0.01)


def client_of(*seeds: Any, **options: Any) -> fastpump.Client:
    """A client that loses no time."""
    options = {"reconnect_delay": 0.01, "heartbeat_interval": 60.0, **options}
    addresses = [getattr(seed, "address", seed) for seed in seeds]
    return fastpump.connect(gossip_seeds=addresses, **options)


async def connect(client: fastpump.Client, peer: Peer) -> Link:
    """Connect it; the peer is where it has to arrive."""
    link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
    return link


async def failure_of(*seeds: Any, **options: Any) -> DiscoveryFailed:
    """How connecting fails if there is no node to be found."""
    options = {"max_discover_attempts": 1, **options}
    error = await outcome(client_of(*seeds, **options).connect())
    assert isinstance(error, DiscoveryFailed)
    return error


async def nobody() -> tuple[str, int]:
    """An address where nobody listens."""
    async with Peer() as gone:
        return gone.host, gone.port


# --- as it should be ---


@pytest.mark.parametrize("old_names", [False, True])
async def test_disc_01_a_seed_leads_to_a_node(old_names: bool) -> None:
    state = "Master" if old_names else "Leader"
    async with Peer() as peer:
        told = gossip_of(
            member("Unknown", 1), member(state, peer.port, old_names=old_names), member("Clone", 2)
        )
        async with GossipPeer(told) as seed:
            client = client_of(seed)
            link = await connect(client, peer)
            assert seed.requests[0].startswith("GET /gossip?format=json HTTP/1.1\r\n")
            assert f"Host: 127.0.0.1:{seed.port}\r\n" in seed.requests[0]
            ping = soon(client.ping())
            link.reply(await link.expect("Ping"))
            await ping
            assert str(seed.port) in repr(client)
            await client.close()
            assert len(seed.requests) == 1


async def test_disc_01_discovery_host_is_an_address() -> None:
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        client = fastpump.connect(discovery_host=seed.host, discovery_port=seed.port)
        await connect(client, peer)
        await client.close()


async def test_disc_01_known_members_are_asked_before_the_seeds() -> None:
    async with Peer() as peer, GossipPeer(None) as known:
        known.answer = gossip_of(member("Leader", peer.port, http=known.port))
        async with GossipPeer(known.answer) as seed:
            client = client_of(seed)
            link = await connect(client, peer)
            await link.cut()
            await peer.accept_and_greet()
            assert (len(seed.requests), len(known.requests)) == (1, 1)
            await client.close()


async def test_disc_01_seeds_are_asked_if_no_known_member_answers() -> None:
    async with Peer() as peer:
        _, port = await nobody()
        async with GossipPeer(gossip_of(member("Leader", peer.port, http=port))) as seed:
            client = client_of(seed, max_discover_attempts=1)
            link = await connect(client, peer)
            await link.cut()
            await peer.accept_and_greet()
            assert len(seed.requests) == 2
            await client.close()


async def test_disc_05_the_node_that_failed_is_asked_last() -> None:
    for _ in range(10):  # the others are shuffled
        async with Peer() as peer, GossipPeer(None) as failed, GossipPeer(None) as other:
            failed.answer = other.answer = gossip_of(
                member("Leader", peer.port, http=failed.port), member("Manager", 1, http=other.port)
            )
            async with GossipPeer(failed.answer) as seed:
                client = client_of(seed)
                link = await connect(client, peer)
                await link.cut()
                await peer.accept_and_greet()
                assert (len(failed.requests), len(other.requests)) == (0, 1)
                await client.close()


async def test_disc_05_the_next_one_if_one_does_not_answer() -> None:
    async with Peer() as peer:
        told = gossip_of(member("Leader", peer.port))
        async with GossipPeer(http_answer(b"no", "503 Busy")) as broken, GossipPeer(told) as good:
            for _ in range(5):  # in whichever order
                client = client_of(broken, await nobody(), good, max_discover_attempts=1)
                await connect(client, peer)
                await client.close()


async def test_disc_05_managers_are_asked_last() -> None:
    for _ in range(10):  # the others are shuffled
        async with Peer() as peer, GossipPeer(None) as manager, GossipPeer(None) as other:
            manager.answer = other.answer = gossip_of(
                member("Manager", 1, http=manager.port),
                member("Leader", peer.port, http=0),
                member("Follower", 0, http=other.port),
            )
            async with GossipPeer(other.answer) as seed:
                client = client_of(seed)
                link = await connect(client, peer)
                await link.cut()
                await peer.accept_and_greet()
                assert (len(manager.requests), len(other.requests)) == (0, 1)
                await client.close()


async def test_disc_05_everybody_is_asked_once_in_a_round() -> None:
    async with GossipPeer(http_answer(b"no", "500 Internal Server Error")) as seed:
        host, port = seed.address
        await failure_of(seed, seed, f"{host}:{port}", f"http://{host}:{port}")
        assert len(seed.requests) == 1


async def test_disc_05_pauses_and_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async with GossipPeer(http_answer(b"no", "500 Internal Server Error")) as seed:
        error = await failure_of(seed, max_discover_attempts=10)
        assert len(seed.requests) == 10
        assert "10 rounds" in str(error)
        assert f"http://127.0.0.1:{seed.port}: status 500" in str(error)


def test_disc_05_how_long_and_how_often_by_default() -> None:
    assert fastpump.connection.ConnectionSettings.max_discover_attempts == 10
    assert fastpump.connection.ConnectionSettings.gossip_timeout == 1.0


async def test_disc_05_waits_for_a_cluster_that_has_no_leader_yet() -> None:
    async with Peer() as peer, GossipPeer(gossip_of(member("Unknown", peer.port))) as seed:
        client = client_of(seed)
        connecting = soon(client.connect())
        while len(seed.requests) < 3:
            await asyncio.sleep(0.01)
        seed.answer = gossip_of(member("Leader", peer.port))
        await peer.accept_and_greet()
        await connecting
        await client.close()


async def test_disc_04_disc_06_nobody_to_connect_to() -> None:
    told = gossip_of(member("Clone", 1), member("Leader", 2, alive=False), member("Leader", 0))
    async with GossipPeer(told) as seed:
        error = await failure_of(seed)
        assert "127.0.0.1:1 is Clone" in str(error)
        assert "127.0.0.1:2 is dead" in str(error)
        assert "has no port without TLS" in str(error)


async def test_disc_06_calls_fail_with_what_discovery_failed_with() -> None:
    client = client_of(await nobody(), max_discover_attempts=2)
    connecting = soon(client.connect())
    await asyncio.sleep(0)
    calls = [soon(client.ping()), soon(client.publish_event("s", "t"))]
    assert isinstance(await outcome(connecting), DiscoveryFailed)
    for error in await asyncio.gather(*map(outcome, calls)):
        assert isinstance(error, DiscoveryFailed)
    assert isinstance(await outcome(client.ping()), DiscoveryFailed)


async def test_disc_07_discovery_fails_while_reconnecting() -> None:
    told: list[object] = []
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        client = client_of(seed, max_discover_attempts=2)
        client.listen(told.append)
        link = await connect(client, peer)
        subscribing = soon(client.subscribe_to("s"))
        link.reply(await link.expect("SubscribeToStream"), last_commit_position=1)
        following = soon(anext(aiter((await subscribing).events)))
        call = soon(client.ping())
        await link.expect("Ping")
        seed.answer = http_answer(b"", "404 Not Found")
        await link.cut()
        assert isinstance(await outcome(call), DiscoveryFailed)
        assert isinstance(await outcome(following), DiscoveryFailed)
        assert [type(each).__name__ for each in told][-2:] == ["ErrorOccurred", "Closed"]
        assert peer.connections == 1
        await client.close()


async def test_disc_08_a_single_node_stays_the_same() -> None:
    async with Peer() as peer:
        client, link = await peer.connect()
        for _ in range(5):
            await link.cut()
            link = await peer.accept_and_greet()
        await client.close()


# --- selectors and policies ---


async def test_disc_10_a_selector_of_ones_own() -> None:
    seen: list[list[DiscoveredNode]] = []

    def last(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
        seen.append(nodes)
        return nodes[-1]

    async with Peer() as peer:
        told = gossip_of(member("Leader", 1), member("Clone", 2), member("Follower", peer.port))
        async with GossipPeer(told) as seed:
            client = client_of(seed, selector=last)
            await connect(client, peer)
            assert [[node.state.name for node in nodes] for nodes in seen] == [["Master", "Slave"]]
            await client.close()


async def test_disc_10_a_selector_that_wants_nobody() -> None:
    async with GossipPeer(gossip_of(member("Leader", 1))) as seed:
        error = await failure_of(seed, selector=lambda nodes: None)
        assert "127.0.0.1:1 is Master" in str(error)


@pytest.mark.parametrize("selector", [lambda nodes: 1 / 0, lambda nodes: "the first"])
async def test_disc_10_a_selector_that_is_wrong(selector: Any) -> None:
    async with GossipPeer(gossip_of(member("Leader", 1))) as seed:
        await failure_of(seed, selector=selector)


async def test_disc_10_a_selector_that_is_wrong_later() -> None:
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        answers = [prefer_master, lambda nodes: 1 / 0]
        client = client_of(seed, selector=lambda nodes: answers.pop(0)(nodes))
        link = await connect(client, peer)
        await link.cut()
        assert isinstance(await outcome(client.ping()), DiscoveryFailed)
        await client.close()


async def test_disc_09_the_policy_refuses() -> None:
    policy = DiscoveryRetryPolicy(retries_per_node=2, retry_interval=0, jitter=0)
    async with GossipPeer(http_answer(b"no", "500 Oh")) as seed:
        error = await failure_of(seed, retry_policy=policy, max_discover_attempts=-1)
        assert "retry policy" in str(error)
        assert "status 500" in str(error), "what came before"
        assert policy.stats[NodeService(*seed.address)].consecutive_failures == 2
        assert len(seed.requests) == 2


async def test_disc_10_a_policy_is_told_of_everything() -> None:
    policy = DiscoveryRetryPolicy(KEEP_RETRYING, retry_interval=0, jitter=0)
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        client = client_of(seed, retry_policy=policy)
        link = await connect(client, peer)
        await link.cut()
        await peer.accept_and_greet()
        assert policy.stats[NodeService(*seed.address)][1:] == (2, 2, 0, 0)
        node = policy.stats[NodeService(peer.host, peer.port)]
        assert (node.failures, node.successes) in ((1, 1), (1, 2))  # greeted, or about to know it
        await client.close()


async def test_disc_10_a_policy_that_cannot_count(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(DiscoveryRetryPolicy):
        def record_success(self, node: NodeService) -> None:
            raise RuntimeError("success")

        def record_failure(self, node: NodeService) -> None:
            raise RuntimeError("failure")

    async with Peer() as peer:
        client, link = await peer.connect(retry_policy=Broken())
        await link.cut()
        link = await peer.accept_and_greet()
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping
        await client.close()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "success",
        "failure",
        "success",
    ]


async def test_disc_10_a_policy_that_cannot_decide() -> None:
    class Broken(DiscoveryRetryPolicy):
        async def wait(self, node: NodeService) -> None:
            raise RuntimeError("never")

    error = await outcome(fastpump.connect(retry_policy=Broken()).connect())
    assert isinstance(error, DiscoveryFailed)
    assert "RuntimeError: never" in str(error)


async def test_disc_10_a_policy_for_a_single_node() -> None:
    policy = DiscoveryRetryPolicy(retries_per_node=2, retry_interval=0, jitter=0)
    host, port = await nobody()
    client = fastpump.connect(host, port, retry_policy=policy, reconnect_delay=0)
    error = await outcome(client.connect())
    assert isinstance(error, DiscoveryFailed)
    assert f"{host}:{port}" in str(error)
    assert policy.stats[NodeService(host, port)].failures == 2


async def test_a_member_that_cannot_be_reached_is_passed_over() -> None:
    _, dead = await nobody()
    async with Peer() as peer:
        told = gossip_of(member("Leader", dead), member("Follower", peer.port))
        async with GossipPeer(told) as seed:
            client = client_of(seed, selector=prefer_master)
            await connect(client, peer)
            await client.close()


async def test_a_member_that_cannot_be_reached_is_tried_again_if_there_is_no_other() -> None:
    _, dead = await nobody()
    async with GossipPeer(gossip_of(member("Leader", dead))) as seed:
        error = await outcome(client_of(seed).connect())
        assert isinstance(error, ConnectFailed)
        assert not isinstance(error, DiscoveryFailed)
        assert f"the last one to 127.0.0.1:{dead}" in str(error)
        assert len(seed.requests) == 3


@pytest.mark.parametrize("host", ["a..b", "é" * 200])
async def test_a_single_node_at_an_address_that_is_none(host: str) -> None:
    error = await outcome(fastpump.connect(host, reconnect_delay=0).connect())
    assert isinstance(error, ConnectFailed)


# --- what a gossip endpoint may do wrong ---

GOOD = gossip_of(member("Leader", 1))


ANSWERS: dict[str, tuple[bytes, str]] = {
    "not JSON": (http_answer(b"<html>hello</html>"), "unexpected character"),
    "empty": (http_answer(b""), "empty"),
    "not gossip": (http_answer(b"{}"), "not gossip"),
    "no members": (gossip_of(), "no member"),
    "unavailable": (http_answer(b"x", "503 Service Unavailable"), "status 503"),
    "no content": (http_answer(b"", "204 No Content"), "status 204"),
    "elsewhere": (http_answer(b"", "302 Found", "Location: http://127.0.0.1:1/"), "status 302"),
    "huge": (http_answer(b" " * (1024 * 1024 + 1)), "more than 1048576 bytes"),
    "huge in pieces": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"400\r\n" + b" " * 1024 + b"\r\n") * 1100,
        "more than 1048576 bytes",
    ),
    "compressed": (
        http_answer(
            gzip.compress(GOOD.partition(b"\r\n\r\n")[2]), "200 OK", "Content-Encoding: gzip"
        ),
        ".",
    ),
    "too short": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "."),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000, "."),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000, "."),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "."),
    "nothing": (b"", "."),
    "zeros": (b"\x00" * 1000, "."),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_disc_05_an_answer_that_is_none(kind: str) -> None:
    answer, why = ANSWERS[kind]
    async with GossipPeer(answer) as seed:
        error = await failure_of(seed, gossip_timeout=20)
        assert f"http://127.0.0.1:{seed.port}: " in str(error)
        assert why in str(error)
        assert len(str(error)) < 400
        assert str(error).isprintable()


async def test_disc_05_no_answer_in_time() -> None:
    async with GossipPeer(None) as seed:
        error = await failure_of(seed, gossip_timeout=0.1)
        assert "no answer within 0.1 s" in str(error)


async def test_disc_05_an_answer_that_never_ends() -> None:
    beginning = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"
    async with GossipPeer(beginning, stays_open=True) as seed:
        error = await failure_of(seed, gossip_timeout=0.1)
        assert "no answer within 0.1 s" in str(error)


@pytest.mark.parametrize(
    "host", ["a/b", "a@b", "a b", "ä" * 70, "a..b", "", "%00", "x" * 300, "a\nb"]
)
async def test_disc_05_members_at_addresses_that_are_none(host: str) -> None:
    async with Peer() as peer:
        told = gossip_of(
            member("Leader", peer.port, http=0), member("Manager", 1, host=host, http=5)
        )
        async with GossipPeer(told) as seed:
            client = client_of(seed)
            link = await connect(client, peer)
            await link.cut()
            await peer.accept_and_greet()
            assert len(seed.requests) == 2
            await client.close()


async def test_closed_while_it_looks_for_a_node() -> None:
    async with GossipPeer(None) as seed:
        client = client_of(seed, gossip_timeout=60)
        connecting = soon(client.connect())
        while not seed.requests:
            await asyncio.sleep(0.01)
        await client.close()
        assert isinstance(await outcome(connecting), ClientClosed)


async def test_cancelled_while_it_looks_for_a_node() -> None:
    async with GossipPeer(None) as seed:
        client = client_of(seed, gossip_timeout=60)
        connecting = soon(client.connect())
        while not seed.requests:
            await asyncio.sleep(0.01)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()
        await client.close()


async def test_closed_while_it_looks_for_another_node() -> None:
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        client = client_of(seed, gossip_timeout=60)
        link = await connect(client, peer)
        seed.answer = None
        await link.cut()
        call = soon(client.ping())
        while len(seed.requests) < 2:
            await asyncio.sleep(0.01)
        await client.close()
        assert isinstance(await outcome(call), ClientClosed)


# --- names ---


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[str] | None]:
    """Names and the addresses they have now; None: unknown."""
    known: dict[str, Sequence[str] | None] = {}

    async def look_up(seed: _gossip.Seed, timeout: float) -> list[str]:
        addresses = known.get(seed.host)
        if addresses is None:
            raise _gossip.GossipFailed(f"{seed.host} is not known")
        return list(addresses)

    monkeypatch.setattr(_gossip, "_look_up", look_up)
    return known


Names = dict[str, "Sequence[str] | None"]


async def test_disc_01_all_addresses_of_a_name_are_asked(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.1"]
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        for _ in range(5):
            client = fastpump.connect(
                discovery_host="cluster.test", discovery_port=seed.port, max_discover_attempts=1
            )
            await connect(client, peer)
            assert f"Host: cluster.test:{seed.port}\r\n" in seed.requests[-1]
            await client.close()


async def test_disc_05_a_name_that_disappears(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.1"]
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port, http=0))) as seed:
        client = fastpump.connect(
            discovery_host="cluster.test",
            discovery_port=seed.port,
            max_discover_attempts=2,
            reconnect_delay=0.01,
        )
        link = await connect(client, peer)
        names["cluster.test"] = None
        await link.cut()
        error = await outcome(client.ping())
        assert isinstance(error, DiscoveryFailed)
        assert "cluster.test is not known" in str(error)
        await client.close()


async def test_disc_05_a_name_that_disappears_while_members_are_known(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.1"]
    async with Peer() as peer, GossipPeer(None) as seed:
        seed.answer = gossip_of(member("Leader", peer.port, http=seed.port))
        client = fastpump.connect(
            discovery_host="cluster.test", discovery_port=seed.port, reconnect_delay=0.01
        )
        link = await connect(client, peer)
        names["cluster.test"] = None
        await link.cut()
        await peer.accept_and_greet()
        await client.close()


async def test_disc_01_names_are_really_looked_up() -> None:
    (source, *_) = await _gossip.resolve(_gossip.Seed(False, "localhost", 2113), 5)
    assert source.name == "localhost"
    assert source.node.address in ("127.0.0.1", "::1")
    assert source.node.port == 2113


@pytest.mark.parametrize("name", ["a..b", "x" * 100])
async def test_disc_05_a_name_that_cannot_be_one(name: str) -> None:
    error = await failure_of((name, 2113))
    assert "cannot be resolved" in str(error)


async def test_disc_05_a_name_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    class Loop:
        getaddrinfo = staticmethod(never)
        create_task = asyncio.get_running_loop().create_task

    monkeypatch.setattr(_gossip.asyncio, "get_running_loop", Loop)
    with pytest.raises(_gossip.GossipFailed, match=r"be resolved: no answer within 0.01 s"):
        await _gossip.resolve(_gossip.Seed(False, "cluster.test", 2113), 0.01)
    monkeypatch.undo()


# --- https ---


class Authority:
    """A certificate authority, and the context of a server it vouches for."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("cryptography")
        from fastpump.server import _development_certificate as certificates

        folder.mkdir(exist_ok=True)
        files = certificates.write_files(folder, "127.0.0.1")
        self.file = files.ca_file
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(files.certificate, files.private_key)

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.file)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_disc_01_gossip_over_https(authority: Authority) -> None:
    pytest.importorskip("cryptography")
    async with (
        fastpump.server.run(tls="development", http_port=0) as node,
        fastpump.connect(
            gossip_seeds=[(node.host, node.http_port)], tls=True, ca_file=node.ca_file
        ) as client,
    ):
        await client.publish_event("s", "t")


async def test_disc_01_https_for_gossip_only(authority: Authority) -> None:
    async with (
        Peer() as peer,
        GossipPeer(gossip_of(member("Leader", peer.port)), authority.server) as seed,
    ):
        # The system's certificates do not vouch for it, and nothing else was said.
        error = await failure_of(f"https://127.0.0.1:{seed.port}")
        assert "certificate verify failed" in str(error)


async def test_disc_01_http_for_gossip_only() -> None:
    pytest.importorskip("cryptography")
    async with fastpump.server.run(tls="development") as node:
        told = gossip_of(member("Master", 0, secure=node.port, old_names=True))
        async with (
            GossipPeer(told) as seed,
            fastpump.connect(
                gossip_seeds=[f"http://127.0.0.1:{seed.port}"], tls=True, ca_file=node.ca_file
            ) as client,
        ):
            await client.ping()


async def test_disc_05_no_secure_port(authority: Authority) -> None:
    async with GossipPeer(gossip_of(member("Leader", 1113)), authority.server) as seed:
        error = await failure_of(seed, tls=authority.client)
        assert "127.0.0.1 is Master and has no port with TLS" in str(error)


async def test_disc_05_a_foreign_certificate(authority: Authority, tmp_path: Path) -> None:
    foreign = Authority(tmp_path / "foreign")
    async with GossipPeer(GOOD, foreign.server) as seed:
        error = await failure_of(seed, tls=authority.client)
        assert "certificate verify failed" in str(error)
        assert not seed.requests


async def test_disc_05_an_expired_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = pytest.importorskip("fastpump.server._development_certificate")
    monkeypatch.setattr(certificates, "VALID_FOR", datetime.timedelta(minutes=-30))
    expired = Authority(tmp_path)
    async with GossipPeer(GOOD, expired.server) as seed:
        error = await failure_of(seed, tls=expired.client)
        assert "certificate verify failed" in str(error)
        assert not seed.requests


@pytest.mark.parametrize(("target", "is_right"), [("localhost", True), ("somebody.else", False)])
async def test_disc_05_the_name_in_the_certificate(
    authority: Authority, target: str, is_right: bool
) -> None:
    async with GossipPeer(GOOD, authority.server) as seed:
        error = await failure_of(seed, tls=authority.client, target_host=target)
        assert ("certificate verify failed" in str(error)) is not is_right


async def test_disc_01_the_certificate_has_to_be_for_the_name(
    authority: Authority, names: Names
) -> None:
    names.update({"localhost": ["127.0.0.1"], "cluster.test": ["127.0.0.1"]})
    async with GossipPeer(GOOD, authority.server) as seed:
        for name, is_right in (("localhost", True), ("cluster.test", False)):
            error = await failure_of((name, seed.port), tls=authority.client)
            assert ("certificate verify failed" in str(error)) is not is_right


async def test_disc_05_plain_http_where_tls_is_spoken(authority: Authority) -> None:
    async with GossipPeer(GOOD, authority.server) as seed:
        await failure_of(seed)


async def test_disc_05_tls_where_plain_http_is_spoken(authority: Authority) -> None:
    async with GossipPeer(GOOD) as seed:
        await failure_of(seed, tls=authority.client, gossip_timeout=0.2)


# --- without the extra ---


@pytest.mark.parametrize(
    "options", [{"discovery_host": "cluster"}, {"gossip_seeds": ["node"]}], ids=str
)
def test_the_extra_is_missing(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UsageError, match=r"fastpump\[cluster\]"):
        fastpump.connect(**options)
    fastpump.connect()


def test_it_is_loaded_for_clusters_only() -> None:
    code = "import fastpump, sys; fastpump.connect(); sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
