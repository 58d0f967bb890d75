"""Several nodes on one machine, for testing how clients find, lose and follow the leader.

**It is no replication.** All nodes work on one database, in one process. There are no copies that
could differ or lag, nothing is voted on, and a node that dies takes nothing with it. What is real
is what a client sees: addresses, gossip, who answers what, and the time without a leader.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fastpump.exceptions import UsageError
from fastpump.server import _heartbeat
from fastpump.server._engine import Engine
from fastpump.server._gossip import Role
from fastpump.server._node import BaseNode, Options
from fastpump.server._roles import RoleCheck
from fastpump.server._tls import TlsSource
from fastpump.server._users import Users
from fastpump.server.errors import NoLeader
from fastpump.server.session import PUSH_COUNT_LIMIT, PUSH_LIMIT, Limits

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from fastpump.server._gossip import GossipShape
    from fastpump.server._users import Configured

ELECTION_SECONDS = 0.2
"""How long an election takes, if `run_cluster` is not told otherwise."""


class ClusterNode(BaseNode):
    """One node of a cluster; made by `run_cluster`.

    `kill` and `restart` make the cluster elect a leader where they have to.
    """

    def __init__(self, options: Options, engine: Engine, cluster: Cluster) -> None:
        super().__init__(options, engine)
        self._cluster = cluster
        self._role_in_life = Role.UNKNOWN
        self._gate.append(RoleCheck(self, lambda: cluster.leader))

    @property
    def role(self) -> Role:
        """Leader, follower, or unknown while there is no leader; of a dead node its last one."""
        return self._current_role() if self.is_alive else self._role_in_life

    def members(self) -> Sequence[BaseNode]:
        return self._cluster.nodes

    async def kill(self) -> None:
        self._role_in_life = self.role
        try:
            await super().kill()
        finally:
            self._cluster.membership_changed()

    async def restart(self) -> None:
        await super().restart()
        self._cluster.membership_changed()

    def _current_role(self) -> Role:
        leader = self._cluster.leader
        if leader is None:
            return Role.UNKNOWN
        return Role.LEADER if leader is self else Role.FOLLOWER


class Cluster(AbstractAsyncContextManager["Cluster"]):
    """The nodes and who leads them; made by `run_cluster`, alive inside `async with`.

    Attributes:
        nodes: all of them, dead ones too, in the order of their ports if these were given.
        leader: the one that leads, or None.
        ca_file: the certificate (PEM) to verify the nodes with, or None without TLS.
        election_seconds: how long an election takes; may be changed at any time.
    """

    def __init__(
        self, options: Sequence[Options], engine: Engine, tls: TlsSource, election_seconds: float
    ) -> None:
        self.nodes = tuple(ClusterNode(each, engine, self) for each in options)
        self.leader: ClusterNode | None = None
        self.ca_file: Path | None = None
        self.election_seconds = election_seconds
        self._engine = engine
        self._tls = tls
        self._turn = 0
        self._election: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Cluster:
        self._elected = asyncio.Event()
        async with AsyncExitStack() as stack:
            tls = stack.enter_context(self._tls.open(self.nodes[0].host))
            self.ca_file = None if tls is None else tls.ca_file
            self._engine.open(asyncio.get_running_loop())
            stack.callback(self._engine.close)
            stack.push_async_callback(self._shut_down)
            for node in self.nodes:
                await node.open(tls)
            self._become_leader(self.nodes[0])
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no more connections, answer the writes that are here, close."""
        await self._closing.aclose()

    @property
    def followers(self) -> tuple[ClusterNode, ...]:
        """The nodes that are alive and do not lead."""
        return tuple(node for node in self.nodes if node.is_alive and node is not self.leader)

    @property
    def gossip_seeds(self) -> tuple[tuple[str, int], ...]:
        """Host and HTTP port of every node, dead ones too."""
        return tuple((node.host, node.http_port or 0) for node in self.nodes)

    @property
    def users(self) -> Users:
        """Who may log in, at any of the nodes."""
        return self._engine.users

    async def wait_for_leader(self) -> ClusterNode:
        """The leader; waits for the election that is under way.

        Raises:
            NoLeader: none is: too few nodes are alive.
        """
        while self.leader is None:
            if not self._is_electing:
                alive = f"{self._alive} of {len(self.nodes)} nodes are alive"
                raise NoLeader(f"no election is under way: {alive}")
            await self._elected.wait()
        return self.leader

    async def move_leader(self, to: ClusterNode | None = None) -> ClusterNode:
        """Have the leader resign and another node elected; connections stay.

        Args:
            to: the node to elect; None takes the next one that is alive.

        Returns:
            The new leader.

        Raises:
            UsageError: that node is dead or not one of this cluster.
            NoLeader: too few nodes are alive to elect one.
        """
        if to is not None and (to not in self.nodes or not to.is_alive):
            raise UsageError("to", "not a living node of this cluster")
        self._resign()
        self._start_election(to)
        return await self.wait_for_leader()

    # --- for nodes ---

    def membership_changed(self) -> None:
        """A node died or came back."""
        if self.leader is not None and not (self.leader.is_alive and self._is_majority_alive):
            self._resign()
        if self.leader is None and not (self._is_electing and self._is_majority_alive):
            self._start_election(None)

    # --- elections ---

    @property
    def _alive(self) -> int:
        return sum(node.is_alive for node in self.nodes)

    @property
    def _is_majority_alive(self) -> bool:
        return 2 * self._alive > len(self.nodes)

    @property
    def _is_electing(self) -> bool:
        return self._election is not None

    def _resign(self) -> None:
        self.leader = None
        self._elected.clear()
        self._engine.groups.drop_all()

    def _start_election(self, favourite: ClusterNode | None) -> None:
        if self._election is not None:
            self._election.cancel()
            self._election = None
        if self._is_majority_alive:
            loop = asyncio.get_running_loop()
            self._election = loop.call_later(self.election_seconds, self._elect, favourite)
        else:
            self._give_up()

    def _elect(self, favourite: ClusterNode | None) -> None:
        self._election = None
        if not self._is_majority_alive:
            self._give_up()
            return
        if favourite is not None and favourite.is_alive:
            self._become_leader(favourite)
            return
        following = (*self.nodes[self._turn + 1 :], *self.nodes[: self._turn + 1])
        self._become_leader(next(node for node in following if node.is_alive))

    def _give_up(self) -> None:
        """Let those who wait for a leader look again: there will be none."""
        self._elected.set()
        self._elected.clear()

    def _become_leader(self, node: ClusterNode) -> None:
        self.leader = node
        self._turn = self.nodes.index(node)
        self._elected.set()

    async def _shut_down(self) -> None:
        if self._election is not None:
            self._election.cancel()
            self._election = None
            self._give_up()
        for node in self.nodes:
            node.stop()
        await self._engine.drain()
        await asyncio.gather(*(node.close() for node in self.nodes))


def run_cluster(
    nodes: int = 3,
    path: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    *,
    port: int = 0,
    http_port: int = 0,
    election_seconds: float = ELECTION_SECONDS,
    users: Mapping[str, Configured] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    private_key: str | os.PathLike[str] | None = None,
    tls: str | None = None,
    gossip_shape: GossipShape = "v20",
    heartbeat_interval: float = _heartbeat.INTERVAL,
    heartbeat_timeout: float = _heartbeat.TIMEOUT,
    push_limit: int = PUSH_LIMIT,
    push_count_limit: int = PUSH_COUNT_LIMIT,
) -> Cluster:
    """A cluster of nodes on one database, in this process, for testing clients. No replication.

    >>> async with fastpump.server.run_cluster(nodes=3) as cluster:
    ...     await cluster.leader.kill()
    ...     leader = await cluster.wait_for_leader()

    The first node leads at first. Who does not lead serves reads and writes, but sends clients that
    require the leader, and all that concerns persistent subscriptions, to it. While there is no
    leader such requests and all writes are answered NotReady. A leader needs more than half of the
    nodes alive, itself included.

    Args:
        nodes: how many; at least 1.
        path: the database file they share, made if missing; None keeps everything in memory.
        host: the address they listen on.
        port: of the first node, the next one has the next; 0 takes free ones.
        http_port: of the first node, the next one has the next; 0 takes free ones.
        election_seconds: how long there is no leader after one died or resigned.

    The other arguments are those of `run`, and so are the errors.

    Raises:
        UsageError: also for less than one node.
    """
    if nodes < 1:
        raise UsageError("nodes", f"not at least 1 but {nodes}")
    if not election_seconds >= 0:
        raise UsageError("election_seconds", f"not at least 0 but {election_seconds}")
    limits = Limits(heartbeat_interval, heartbeat_timeout, push_limit, push_count_limit)
    options = [
        Options.checked(
            host, port and port + index, http_port and http_port + index, limits, gossip_shape
        )
        for index in range(nodes)
    ]
    engine = Engine(None if path is None else Path(path), Users(users))
    return Cluster(options, engine, TlsSource(certificate, private_key, tls), election_seconds)
