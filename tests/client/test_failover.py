"""A cluster whose nodes die, come back and change roles, under a client that works meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client.embedded import AS_ADMIN
from client.finding import short_pauses  # noqa: F401  # a fixture
from client.peer import eventually, outcome, soon

import fastpump
import fastpump.server
from fastpump.connection_events import Connected, ConnectionEvent
from fastpump.discovery import (
    DiscoveredNode,
    Selector,
    prefer_master,
    prefer_replica,
    select_random,
)
from fastpump.exceptions import DiscoveryFailed
from fastpump.messages import TcpCommand
from fastpump.server import Cluster, ClusterNode

pytest.importorskip("aiohttp")

WRITTEN = [TcpCommand.WriteEventsCompleted]


class Watched:
    """A client of a cluster, and the ports it has been connected to."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        defaults = {"selector": prefer_master, "reconnect_delay": 0.01, "max_discover_attempts": -1}
        options = {**defaults, **options}
        self.client = fastpump.connect(gossip_seeds=cluster.gossip_seeds, **options)
        self.client.listen(self._note)
        self.ports: list[int] = []

    async def __aenter__(self) -> Watched:
        await self.client.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    def _note(self, event: ConnectionEvent) -> None:
        if isinstance(event, Connected):
            self.ports.append(event.port)


async def numbers(subscription: fastpump.subscriptions.Subscription, count: int) -> list[Any]:
    """Number and body of the next events."""
    seen: list[Any] = []
    async for event in subscription.events:
        seen.append((event.event_number, event.json()["n"]))
        if len(seen) == count:
            break
    return seen


def leader_of(cluster: Cluster) -> ClusterNode:
    assert cluster.leader is not None
    return cluster.leader


@pytest.mark.parametrize("shape", ["v5", "v20"])
async def test_disc_01_finds_the_leader(shape: Any) -> None:
    async with fastpump.server.run_cluster(gossip_shape=shape) as cluster:
        leader = await cluster.move_leader(cluster.nodes[2])
        async with Watched(cluster) as watched:
            assert watched.ports == [leader.port]
            await watched.client.publish_event("s", "t", require_master=True)
            assert watched.ports == [leader.port]


async def test_disc_01_over_tls() -> None:
    pytest.importorskip("cryptography")
    async with fastpump.server.run_cluster(tls="development") as cluster:
        async with Watched(cluster, tls=True, ca_file=cluster.ca_file) as watched:
            await watched.client.publish_event("s", "t", {"n": 0})
            await leader_of(cluster).kill()
            await watched.client.publish_event("s", "t", {"n": 1})
            leader = await cluster.wait_for_leader()
            await watched.client.publish_event("s", "t", {"n": 2}, require_master=True)
            assert watched.ports[-1] == leader.port
            assert len(await watched.client.get("s")) == 3


async def test_disc_11_writes_and_a_subscription_go_on_when_the_leader_dies() -> None:
    count = 60
    async with fastpump.server.run_cluster(election_seconds=0.05) as cluster:
        async with Watched(cluster, max_reconnects=-1) as watched:
            client = watched.client
            subscription = await client.subscribe_to("s", start_from=0)
            following = soon(numbers(subscription, count))
            for n in range(count):
                if n % 20 == 10:
                    dead = leader_of(cluster)
                    await dead.kill()
                if n % 20 == 19:
                    await dead.restart()
                result = await client.publish_event("s", "t", {"n": n}, require_master=True)
                assert result.last_event_number == n
            assert await following == [(n, n) for n in range(count)]
            await subscription.unsubscribe()
            assert len(set(watched.ports)) >= 2
            assert len(await client.get("s", max_count=4096)) == count


async def test_disc_11_killed_between_request_and_reply() -> None:
    async with fastpump.server.run_cluster(election_seconds=0.05) as cluster:
        async with Watched(cluster) as watched:
            client = watched.client
            subscription = await client.subscribe_to("s", start_from=0)
            following = soon(numbers(subscription, 6))
            for n in range(6):
                leader = await cluster.wait_for_leader()
                lost = leader.faults.drop(replies=WRITTEN, times=1)
                writing = soon(client.publish_event("s", "t", {"n": n}, require_master=True))
                await eventually(lambda lost=lost: lost.count)
                await leader.kill()
                await writing
                await leader.restart()
            assert await following == [(n, n) for n in range(6)]
            await subscription.unsubscribe()
            assert [event.json()["n"] for event in await client.get("s")] == list(range(6))


async def test_disc_11_many_at_once_when_the_leader_dies() -> None:
    async with fastpump.server.run_cluster(election_seconds=0.05) as cluster:
        async with Watched(cluster) as watched:
            client = watched.client
            writing = [
                soon(client.publish_event(f"s-{n % 7}", "t", {"n": n}, require_master=True))
                for n in range(500)
            ]
            await asyncio.sleep(0)
            await leader_of(cluster).kill()
            await asyncio.gather(*writing)
            found = [
                event.json()["n"]
                for stream in range(7)
                for event in await client.get(f"s-{stream}", max_count=4096)
            ]
            assert sorted(found) == list(range(500))


async def test_disc_12_a_follower_serves_reads_and_leads_to_the_leader() -> None:
    async with fastpump.server.run_cluster() as cluster:
        async with Watched(cluster, selector=prefer_replica) as watched:
            client, leader = watched.client, leader_of(cluster)
            assert watched.ports[0] in [node.port for node in cluster.followers]
            await client.publish_event("s", "t", {"n": 0})  # the follower sees to it
            assert len(await client.get("s")) == 1
            assert len(watched.ports) == 1
            assert len(await client.get("s", require_master=True)) == 1
            assert watched.ports[1:] == [leader.port]
            await client.publish_event("s", "t", {"n": 1}, require_master=True)
            assert watched.ports[1:] == [leader.port]


async def test_disc_12_a_subscription_goes_on_when_the_leader_is_followed() -> None:
    async with fastpump.server.run_cluster() as cluster:
        async with Watched(cluster, selector=prefer_replica) as watched:
            subscription = await watched.client.subscribe_to("s", start_from=0)
            following = soon(numbers(subscription, 10))
            for n in range(10):
                await watched.client.publish_event("s", "t", {"n": n}, require_master=n % 2 == 1)
            assert await following == [(n, n) for n in range(10)]
            await subscription.unsubscribe()
            assert len(watched.ports) == 2


async def test_disc_12_the_leader_moves() -> None:
    async with fastpump.server.run_cluster(election_seconds=0.02) as cluster:
        async with Watched(cluster) as watched:
            for n in range(3):
                leader = await cluster.move_leader()
                await watched.client.publish_event("s", "t", {"n": n}, require_master=True)
                assert watched.ports[-1] == leader.port
                watched.client._connector._settled_at = 0  # type: ignore[union-attr]
            assert len(watched.ports) == 4


async def test_disc_12_persistent_subscriptions_lead_to_the_leader() -> None:
    async with fastpump.server.run_cluster(election_seconds=0.02) as cluster:
        async with Watched(cluster, selector=prefer_replica, **AS_ADMIN) as watched:
            client = watched.client
            await client.create_subscription("g", "s", start_from=0)
            assert watched.ports[1:] == [leader_of(cluster).port]
            async with await client.connect_subscription("g", "s") as subscription:
                for n in range(3):
                    await client.publish_event("s", "t", {"n": n})
                    async for event in subscription.events:
                        await subscription.ack(event)
                        if event.event_number == n:  # earlier ones may come again
                            break
                    leader = leader_of(cluster)
                    await leader.kill()
                    await leader.restart()
                    await cluster.wait_for_leader()


@pytest.mark.parametrize("selector", [prefer_master, prefer_replica, select_random])
async def test_disc_03_another_node_when_ones_own_dies(selector: Selector) -> None:
    async with fastpump.server.run_cluster(election_seconds=0.02) as cluster:
        async with Watched(cluster, selector=selector) as watched:
            (mine,) = (node for node in cluster.nodes if node.port == watched.ports[0])
            await mine.kill()
            await watched.client.publish_event("s", "t")
            assert watched.ports[-1] != mine.port


async def test_disc_10_a_selector_of_ones_own() -> None:
    async with fastpump.server.run_cluster() as cluster:
        wanted = cluster.nodes[1].port

        def by_port(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
            return next((node for node in nodes if node.external_tcp.port == wanted), None)

        async with Watched(cluster, selector=by_port) as watched:
            assert watched.ports == [wanted]


async def test_disc_05_one_node_tells_nonsense() -> None:
    async with fastpump.server.run_cluster() as cluster:
        cluster.nodes[0].faults.http(b"{}")
        cluster.nodes[1].faults.http(b"", status=500)
        for _ in range(3):
            async with Watched(cluster, max_discover_attempts=1) as watched:
                await watched.client.ping()


async def test_disc_07_all_nodes_die() -> None:
    async with fastpump.server.run_cluster() as cluster:
        async with Watched(cluster, max_discover_attempts=1) as watched:
            call = soon(watched.client.ping())
            for node in cluster.nodes:
                await node.kill()
            await outcome(call)
            error = await outcome(watched.client.ping())
            assert isinstance(error, DiscoveryFailed)
            for _, port in cluster.gossip_seeds:
                assert f"http://127.0.0.1:{port}" in str(error)


async def test_disc_11_all_nodes_die_and_come_back() -> None:
    async with fastpump.server.run_cluster(election_seconds=0.02) as cluster:
        async with Watched(cluster, max_discover_attempts=-1) as watched:
            await watched.client.publish_event("s", "t", {"n": 0})
            for node in cluster.nodes:
                await node.kill()
            writing = soon(watched.client.publish_event("s", "t", {"n": 1}))
            for node in cluster.nodes[1:]:
                await node.restart()
            assert (await writing).last_event_number == 1


async def test_the_synchronous_client_too() -> None:
    async with fastpump.server.run_cluster() as cluster:
        seeds = cluster.gossip_seeds

        def work() -> int:
            with fastpump.sync.connect(gossip_seeds=seeds) as client:
                told: list[ConnectionEvent] = []
                remove = client.listen(told.append)
                client.publish_event("s", "t", {"n": 0}, require_master=True)
                remove()
                return len(client.get("s"))

        assert await asyncio.to_thread(work) == 1


async def test_psub_31_a_persistent_subscription_goes_on_when_the_leader_dies() -> None:
    """The new leader knows nothing of deliveries; what has no checkpoint comes again."""
    settings = fastpump.PersistentSubscriptionSettings(start_from=0)
    async with (
        fastpump.server.run_cluster() as cluster,
        Watched(cluster, **AS_ADMIN) as watched,
    ):
        client = watched.client
        await client.create_subscription("g", "s", settings=settings)
        await client.publish_event("s", "t", {"n": 0})
        async with await client.connect_subscription("g", "s") as subscription:
            seen: set[int] = set()

            async def consume(last: int) -> None:
                async for event in subscription.events:
                    seen.add(event.event_number)
                    await subscription.ack(event)
                    if event.event_number == last:
                        break

            await consume(0)
            consuming = soon(consume(2))
            await leader_of(cluster).kill()
            await client.publish_event("s", "t", {"n": 1})
            await client.publish_event("s", "t", {"n": 2})
            await consuming
            assert seen == {0, 1, 2}
