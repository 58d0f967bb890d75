"""Finding a node by gossip: whom the client asks, and which node it connects to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from client.finding import client_of, connect, failure_of, short_pauses  # noqa: F401  # a fixture
from client.gossip import GossipPeer, gossip_of, http_answer, member
from client.peer import Peer, outcome, soon

import fastpump
from fastpump import _discoverers
from fastpump.discovery import (
    KEEP_RETRYING,
    DiscoveredNode,
    DiscoveryRetryPolicy,
    NodeService,
    prefer_master,
)
from fastpump.exceptions import ConnectFailed, DiscoveryFailed

pytest.importorskip("aiohttp")

DEFAULT_PAUSE = _discoverers.PAUSE  # a fixture makes it short in every test


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
    pauses: list[tuple[float, int]] = []

    async def pause(seconds: float) -> None:
        pauses.append((seconds, len(seed.requests)))

    async with GossipPeer(http_answer(b"no", "500 Internal Server Error")) as seed:
        # For this module only: everybody else sleeps as before.
        monkeypatch.setattr(_discoverers, "asyncio", SimpleNamespace(sleep=pause))
        monkeypatch.setattr(_discoverers, "PAUSE", DEFAULT_PAUSE)
        error = await failure_of(seed, max_discover_attempts=10)
        assert pauses == [(0.5, rounds) for rounds in range(1, 10)], "none after the last round"
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
