"""All of a client at work while connections, nodes and callers fail at random."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Protocol

import pytest
from client.embedded import AS_ADMIN
from client.finding import short_pauses  # noqa: F401  # a fixture
from client.peer import outcome, soon
from client.proxy import CuttingProxy
from client.storm import Program
from nodelib import NodeThread

import fastpump
from fastpump import Client, _dispatcher
from fastpump.exceptions import ClientClosed
from fastpump.server import Cluster, ClusterNode, Node, run_cluster

LULL = 0.03
"""Seconds, the most between two blows."""


@pytest.fixture(autouse=True)
def _short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatcher, "RETRY_DELAY", 0.01)


class Sea(Protocol):
    """Servers, and what may happen to them."""

    def connect(self, **options: Any) -> Client:
        """A client whom it happens to."""

    def witness(self, **options: Any) -> Client:
        """One who is spared."""

    async def strike(self, chance: Random) -> None: ...

    def calm(self) -> None: ...


class OneNode:
    """A node behind a proxy."""

    def __init__(self, node: NodeThread, proxy: CuttingProxy) -> None:
        self._node = node
        self._proxy = proxy

    def connect(self, **options: Any) -> Client:
        return fastpump.connect(self._proxy.host, self._proxy.port, **options)

    def witness(self, **options: Any) -> Client:
        return fastpump.connect(*self._node.address, **options)

    async def strike(self, chance: Random) -> None:
        proxy = self._proxy
        proxy.delay = chance.choice([0.0, 0.0, chance.random() * LULL])
        blow = chance.randrange(6)
        if blow == 0:
            proxy.cut()
        elif blow <= 2:
            proxy.bytes_left = chance.randint(1, 10_000)
        elif blow == 3:
            proxy.cut_replies = 1
        elif blow == 4:
            await asyncio.to_thread(self._node.run, lambda node: death(node, chance))

    def calm(self) -> None:
        self._proxy.delay = self._proxy.cut_replies = 0
        self._proxy.bytes_left = math.inf


class ThreeNodes:
    """A cluster, found by gossip."""

    def __init__(self, cluster: ClusterThread) -> None:
        self._cluster = cluster

    def connect(self, **options: Any) -> Client:
        seeds = self._cluster.run(lambda cluster: cluster.gossip_seeds)
        return fastpump.connect(gossip_seeds=seeds, max_discover_attempts=-1, **options)

    witness = connect

    async def strike(self, chance: Random) -> None:
        await asyncio.to_thread(self._cluster.run, lambda cluster: self._strike(cluster, chance))

    async def _strike(self, cluster: Cluster, chance: Random) -> None:
        node = chance.choice(cluster.nodes)
        blow = chance.randrange(6)
        if blow == 0:
            node.faults.disconnect()
        elif blow == 1:
            node.faults.cut(after=chance.randint(1, 10_000), times=1)
        elif blow == 2:
            node.faults.delay(chance.random() * LULL, times=20)
        elif blow == 3:
            await cluster.move_leader()
        elif blow == 4:
            await death(node, chance)

    def calm(self) -> None:
        self._cluster.run(lambda cluster: [node.faults.clear() for node in cluster.nodes])


class ClusterThread(NodeThread):
    """A cluster that lives in a thread of its own."""

    @staticmethod
    def make(path: Any, **options: Any) -> Cluster:
        return run_cluster(path=path, election_seconds=0.01)


async def death(node: Node | ClusterNode, chance: Random) -> None:
    await node.kill()
    await lull(chance)
    await node.restart()


Setting = Callable[[], AbstractAsyncContextManager[Sea]]


@asynccontextmanager
async def one_node() -> AsyncIterator[Sea]:
    with NodeThread() as node:
        async with CuttingProxy(*node.address) as proxy:
            yield OneNode(node, proxy)


@asynccontextmanager
async def three_nodes() -> AsyncIterator[Sea]:
    with ClusterThread() as cluster:
        yield ThreeNodes(cluster)


def options_of(chance: Random) -> dict[str, Any]:
    """How a client connects that does not give up."""
    return {
        "reconnect_delay": 0.005,
        "max_reconnects": -1,
        "max_attempts": chance.choice([-1, 3]),
        "max_in_flight": chance.choice([1, 2, 10, 5000]),
        "max_queue": chance.choice([1, 5, 5000]),
        "operation_timeout": chance.choice([0.3, 5.0]),
        "queue_timeout": chance.choice([None, 0.5]),
        "heartbeat_interval": chance.choice([0.1, 60.0]),
        **AS_ADMIN,
    }


async def lull(chance: Random) -> None:
    await asyncio.sleep(chance.random() * LULL)


async def storm(setting: Setting, seed: int, rounds: int) -> None:
    chance = Random(f"{seed} storm")
    options = options_of(chance)
    async with setting() as sea, sea.connect(**options) as client:
        program = Program(client, lambda: sea.connect(**options), seed)
        program.watch()
        working = soon(program.work(rounds))
        while not working.done():
            await sea.strike(chance)
            await lull(chance)
        sea.calm()
        await working
        async with sea.witness(**AS_ADMIN) as witness:
            await program.check(witness)


async def closed_in_a_storm(setting: Setting, seed: int) -> None:
    chance = Random(f"{seed} closed")
    options = options_of(chance)
    async with setting() as sea:
        client = sea.connect(**options)
        await client.connect()
        program = Program(client, lambda: sea.connect(**options), seed)
        program.watch()
        working = soon(program.work(10_000))
        for _ in range(chance.randint(1, 20)):
            await sea.strike(chance)
            await lull(chance)
        await client.close()
        sea.calm()
        assert isinstance(await outcome(working), ClientClosed)
        await program.check_closed()


@pytest.mark.parametrize("seed", range(2))
async def test_a_node_in_a_storm(seed: int) -> None:
    await storm(one_node, seed, rounds=15)


async def test_a_cluster_in_a_storm() -> None:
    pytest.importorskip("aiohttp")
    await storm(three_nodes, 0, rounds=6)


@pytest.mark.parametrize("seed", range(3))
async def test_closed_in_a_storm(seed: int) -> None:
    await closed_in_a_storm(one_node, seed)
