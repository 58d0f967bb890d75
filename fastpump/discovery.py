"""Which node of a cluster to talk to: its members, selectors that choose one, and retry policies.

The names are photon-pump's. A *selector* is any callable that is given the members a client may
connect to (alive, and in a state in which they answer) and returns one of them, or None if none
will do. A *retry policy* is any object with the methods of `DiscoveryRetryPolicy`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple, Protocol

from fastpump.exceptions import DiscoveryFailed

__all__ = [
    "KEEP_RETRYING",
    "DiscoveredNode",
    "DiscoveryFailed",
    "DiscoveryRetryPolicy",
    "DiscoveryStats",
    "NodeService",
    "NodeState",
    "RetryPolicy",
    "Selector",
    "Stats",
    "prefer_master",
    "prefer_read_only_replica",
    "prefer_replica",
    "select",
    "select_random",
]

KEEP_RETRYING = -1
"""As `retries_per_node`: no limit."""


class NodeState(IntEnum):
    """What a member does in its cluster (protocol document, section 11.3).

    The later name of a state is an alias of the former: `Leader` is `Master`, `Follower` is
    `Slave`. The numbers of states that photon-pump did not know are negative, so that among those a
    client may connect to the greatest stays the best.
    """

    Initializing = 0
    Unknown = 1
    PreReplica = 2
    CatchingUp = 3
    Clone = 4
    Slave = 5
    Follower = 5
    PreMaster = 6
    PreLeader = 6
    Master = 7
    Leader = 7
    Manager = 8
    ShuttingDown = 9
    Shutdown = 10
    ReadOnlyReplica = -1
    ReadOnlyLeaderless = -2
    PreReadOnlyReplica = -3
    DiscoverLeader = -4
    ResigningLeader = -5


ELIGIBLE_STATES = frozenset(
    {
        NodeState.Master,
        NodeState.Slave,
        NodeState.ReadOnlyReplica,
        NodeState.ReadOnlyLeaderless,
    }
)
"""Those in which a member answers. As in the reference client, a clone is not one of them."""


class NodeService(NamedTuple):
    """Where a node offers something: a host name or address, and a port.

    `secure_port` is the one where TLS is spoken, None if there is none or if `port` is it.
    """

    address: str
    port: int
    secure_port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class DiscoveredNode(NamedTuple):
    """A member of the cluster as gossip describes it; a port of 0 is one it does not have.

    Servers from version 20 on have one HTTP address; it stands in both fields.
    """

    state: NodeState
    is_alive: bool
    internal_tcp: NodeService
    external_tcp: NodeService
    internal_http: NodeService
    external_http: NodeService


Selector = Callable[[list[DiscoveredNode]], "DiscoveredNode | None"]


def prefer_master(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
    """The leader, else a follower, else any; None of an empty list."""
    return _prefer(nodes, NodeState.Master, NodeState.Slave)


def prefer_replica(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
    """A follower, else the leader, else any; None of an empty list."""
    return _prefer(nodes, NodeState.Slave, NodeState.Master)


def prefer_read_only_replica(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
    """A read-only replica (servers from version 20 on), else a follower, else the leader.

    Such a replica refuses writes: they raise `OperationNotSupported`.
    """
    return _prefer(nodes, NodeState.ReadOnlyReplica, NodeState.ReadOnlyLeaderless, NodeState.Slave)


def select_random(nodes: list[DiscoveredNode]) -> DiscoveredNode | None:
    """Any; None of an empty list."""
    return _prefer(nodes)


def _prefer(nodes: list[DiscoveredNode], *states: NodeState) -> DiscoveredNode | None:
    """One in the first of these states that occurs, else any one; ties at random."""
    for state in states:
        if those := [node for node in nodes if node.state == state]:
            return random.choice(those)
    return random.choice(nodes) if nodes else None


def select(
    gossip: Iterable[DiscoveredNode], selector: Selector | None = None
) -> DiscoveredNode | None:
    """What `selector` (`prefer_master` if None) chooses from the members that may be chosen."""
    eligible = [node for node in gossip if node.is_alive and node.state in ELIGIBLE_STATES]
    return (selector or prefer_master)(eligible) if eligible else None


class DiscoveryStats(NamedTuple):
    """How often a node was tried; `consecutive_failures` are those since its last success."""

    node: NodeService
    attempts: int
    successes: int
    failures: int
    consecutive_failures: int


class Stats(dict[NodeService, DiscoveryStats]):
    """By node; of one that was never tried everything is 0."""

    def __missing__(self, node: NodeService) -> DiscoveryStats:
        stats = self[node] = DiscoveryStats(node, 0, 0, 0, 0)
        return stats

    def record_success(self, node: NodeService) -> None:
        stats = self[node]
        self[node] = stats._replace(
            attempts=stats.attempts + 1, successes=stats.successes + 1, consecutive_failures=0
        )

    def record_failure(self, node: NodeService) -> None:
        stats = self[node]
        self[node] = stats._replace(
            attempts=stats.attempts + 1,
            failures=stats.failures + 1,
            consecutive_failures=stats.consecutive_failures + 1,
        )


class RetryPolicy(Protocol):
    """Is asked before a node is asked for gossip, or a single node is connected to.

    It is told what became of that, and of the connections to members of a cluster too.
    """

    def should_retry(self, node: NodeService) -> bool:
        """Whether it may be tried (again)."""

    async def wait(self, node: NodeService) -> None:
        """Called before it is tried; returns when it may be."""

    def record_success(self, node: NodeService) -> None:
        """It answered, or accepted the connection."""

    def record_failure(self, node: NodeService) -> None:
        """It did not, or the connection to it was lost."""


class DiscoveryRetryPolicy:
    """Tries a node again some times, with growing delays.

    Args:
        retries_per_node: failures in a row after which a node is not tried any more;
            `KEEP_RETRYING` for no limit.
        retry_interval, multiplier: after n failures in a row there is a delay of
            `retry_interval * multiplier * n` seconds.
        jitter: seconds that it may at random be shorter or longer.
        max_interval: seconds, the most of it, jitter not counted.

    Attributes:
        stats: a `DiscoveryStats` per node.
    """

    def __init__(
        self,
        retries_per_node: int = 3,
        retry_interval: float = 0.5,
        jitter: float = 0.5,
        multiplier: float = 1.5,
        max_interval: float = 60,
    ) -> None:
        self.stats = Stats()
        self.retries_per_node = retries_per_node
        self.retry_interval = retry_interval
        self.jitter = jitter
        self.multiplier = multiplier
        self.max_interval = max_interval

    def should_retry(self, node: NodeService) -> bool:
        if self.retries_per_node == KEEP_RETRYING:
            return True
        return self.stats[node].consecutive_failures < self.retries_per_node

    async def wait(self, node: NodeService) -> None:
        failures = self.stats[node].consecutive_failures
        if failures:
            delay = min(self.retry_interval * self.multiplier * failures, self.max_interval)
            await asyncio.sleep(max(0.0, delay + random.uniform(-self.jitter, self.jitter)))

    def record_success(self, node: NodeService) -> None:
        self.stats.record_success(node)

    def record_failure(self, node: NodeService) -> None:
        self.stats.record_failure(node)
