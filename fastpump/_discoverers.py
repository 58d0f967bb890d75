"""Which node to connect to next: always the same one, or one that a cluster's gossip tells of."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastpump._arguments import MAX_PORT, check_host, check_number
from fastpump._gossip import Gossip, GossipFailed, Seed, Source, resolve, seed_from
from fastpump._settings import ConnectionSettings
from fastpump.discovery import (
    DiscoveredNode,
    NodeService,
    NodeState,
    RetryPolicy,
    Selector,
    select,
)
from fastpump.exceptions import DiscoveryFailed, UsageError

LOG = logging.getLogger("fastpump.discovery")

SINGLE_NODE = ("localhost", 1113)
"""Where a node is if nothing is said."""

PAUSE = 0.5
"""Seconds between two rounds of asking everybody for gossip."""

RESOLVE_TIMEOUT = 5.0
"""Seconds until a host name has to have been resolved."""


class Discoverer(Protocol):
    """Finds the nodes for a connector. Its `str()` says where it looks."""

    async def next_node(self, unreachable: Collection[NodeService]) -> NodeService:
        """The node to connect to; `port` is the right one, with TLS or without.

        Args:
            unreachable: nodes that were connected to just now, in vain.

        Raises:
            DiscoveryFailed: there is none, and looking further is not wanted.
        """

    def record_success(self, node: NodeService) -> None:
        """It was connected to."""

    def record_failure(self, node: NodeService) -> None:
        """It was not, or the connection to it was lost."""


class _AnyTime:
    """The policy where none is given: every node may be tried, and nobody wants to know."""

    def should_retry(self, node: NodeService) -> bool:
        return True

    async def wait(self, node: NodeService) -> None:
        return

    def record_success(self, node: NodeService) -> None:
        return

    def record_failure(self, node: NodeService) -> None:
        return


class _Discoverer:
    """Hands what is recorded on to the policy."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy

    def record_success(self, node: NodeService) -> None:
        self._record(self._policy.record_success, node)

    def record_failure(self, node: NodeService) -> None:
        self._record(self._policy.record_failure, node)

    @staticmethod
    def _record(record: Callable[[NodeService], object], node: NodeService) -> None:
        """What it raises must not stop whoever has something better to do than to count."""
        try:
            record(node)
        except Exception:
            LOG.exception("The retry policy failed to record what became of %s", node)


class SingleNode(_Discoverer):
    """One node, whatever happens, unless the policy refuses it."""

    def __init__(self, node: NodeService, policy: RetryPolicy) -> None:
        super().__init__(policy)
        self._node = node

    def __str__(self) -> str:
        return str(self._node)

    async def next_node(self, unreachable: Collection[NodeService]) -> NodeService:
        if not self._policy.should_retry(self._node):
            raise DiscoveryFailed(f"The retry policy does not allow to try {self._node} again")
        await self._policy.wait(self._node)
        return self._node


class ClusterNodes(_Discoverer):
    """A node of a cluster, by what its members say of each other.

    In one round everybody is asked until one answers: the members known from the last answer first,
    and of those the one whose connection failed last; then the seeds. Whoever answers is believed.
    If there is no answer, or nobody in it to connect to, there is another round after a pause.

    Args:
        seeds: whom to ask as long as no members are known; at least one.
        gossip: how to ask.
        selector: chooses among the members that may be connected to.
        policy: may refuse or delay asking a node.
        secure: whether to connect to the members' TLS ports.
        max_rounds: after so many rounds in vain discovery fails; -1 for no limit.
    """

    def __init__(
        self,
        seeds: Iterable[Seed],
        gossip: Gossip,
        selector: Selector | None,
        policy: RetryPolicy,
        secure: bool,
        max_rounds: int,
    ) -> None:
        super().__init__(policy)
        self._seeds = list(seeds)
        self._gossip = gossip
        self._selector = selector
        self._secure = secure
        self._max_rounds = max_rounds
        self._known: list[DiscoveredNode] = []
        self._is_known_by_https = False
        self._failed: NodeService | None = None

    def __str__(self) -> str:
        return f"the cluster at {', '.join(map(str, self._seeds))}"

    def record_failure(self, node: NodeService) -> None:
        super().record_failure(node)
        self._failed = node

    async def next_node(self, unreachable: Collection[NodeService]) -> NodeService:
        rounds = 0
        notes: list[str] = []
        while True:
            rounds += 1
            before, notes = notes, []
            node = await self._look(unreachable, notes, before)
            if node is not None:
                return node
            LOG.info("No node of %s found: %s", self, "; ".join(notes))
            if rounds == self._max_rounds:
                raise DiscoveryFailed(
                    f"No node of {self} found in {rounds} "
                    f"{'round' if rounds == 1 else 'rounds'}; the last one: {'; '.join(notes)}"
                )
            await asyncio.sleep(PAUSE)

    async def _look(
        self, unreachable: Collection[NodeService], notes: list[str], before: list[str]
    ) -> NodeService | None:
        """One round; what goes wrong is noted. `before`: what did in the round before."""
        was_asked = was_refused = False
        async with aclosing(self._sources(notes)) as sources:
            async for source in sources:
                if not self._policy.should_retry(source.node):
                    was_refused = True
                    notes.append(f"{source}: the retry policy does not allow to ask again")
                    continue
                was_asked = True
                members = await self._ask(source, notes)
                if members:
                    self._known, self._is_known_by_https = members, source.scheme == "https"
                    return self._choose(source, members, unreachable, notes)
        if was_refused and not was_asked:
            raise DiscoveryFailed(f"No node of {self} may be asked: {'; '.join(before + notes)}")
        return None

    async def _sources(self, notes: list[str]) -> AsyncGenerator[Source, None]:
        """Everybody who can be asked, once, in the order of asking."""
        seen = set()
        for seed in (*self._known_seeds(), *_shuffled(self._seeds)):
            try:
                sources = await resolve(seed, RESOLVE_TIMEOUT)
            except GossipFailed as error:
                notes.append(f"{seed}: {error}")
                continue
            for source in _shuffled(sources):
                if source.node not in seen:
                    seen.add(source.node)
                    yield source

    def _known_seeds(self) -> list[Seed]:
        """Members that were alive, managers and the one whose connection failed at the end."""
        known = [node for node in _shuffled(self._known) if node.is_alive]
        known.sort(
            key=lambda node: (
                self._address_of(node) == self._failed,
                node.state is NodeState.Manager,
            )
        )
        addresses = [node.external_http[:2] for node in known]
        return [Seed(self._is_known_by_https, *each) for each in addresses if all(each)]

    async def _ask(self, source: Source, notes: list[str]) -> list[DiscoveredNode]:
        """The members that it tells of; none if it does not answer as it should."""
        await self._policy.wait(source.node)
        try:
            members = await self._gossip.ask(source)
        except GossipFailed as error:
            super().record_failure(source.node)
            notes.append(f"{source}: {error}")
            return []
        super().record_success(source.node)
        return members

    def _choose(
        self,
        source: Source,
        members: list[DiscoveredNode],
        unreachable: Collection[NodeService],
        notes: list[str],
    ) -> NodeService | None:
        usable = [node for node in members if all(self._address_of(node)[:2])]
        reachable = [node for node in usable if self._address_of(node) not in unreachable]
        chosen = select(reachable, self._selector) or select(usable, self._selector)
        if chosen is None:
            descriptions = ", ".join(map(self._describe, members))
            notes.append(f"{source} knows of no member to connect to: {descriptions}")
            return None
        address = self._address_of(chosen)
        LOG.info("%s told of %s, which is %s", source, address, chosen.state.name)
        return address

    def _address_of(self, node: DiscoveredNode) -> NodeService:
        host, port, secure_port = node.external_tcp
        return NodeService(host, (secure_port or 0) if self._secure else port)

    def _describe(self, node: DiscoveredNode) -> str:
        address = self._address_of(node)
        state = node.state.name if node.is_alive else "dead"
        if address.port:
            return f"{address} is {state}"
        wanted = "with TLS" if self._secure else "without TLS"
        return f"{node.external_tcp.address} is {state} and has no port {wanted}"


T = TypeVar("T")


def _shuffled(items: Sequence[T]) -> list[T]:
    return random.sample(items, len(items))


def discoverer_for(
    host: str | None,
    port: int,
    discovery_host: str | None,
    discovery_port: int,
    gossip_seeds: Iterable[Any] | None,
    selector: Selector | None,
    retry_policy: RetryPolicy | None,
    settings: ConnectionSettings,
) -> Discoverer:
    """The one that these arguments of `connect` ask for.

    Raises:
        UsageError: one of them is not acceptable; it names which.
    """
    if selector is not None and not callable(selector):
        raise UsageError("selector", f"must be a function, not {selector!r:.80}")
    policy = _checked(retry_policy)
    host = SINGLE_NODE[0] if host is None else host
    if discovery_host is None and gossip_seeds is None:
        check_host("host", host)
        check_number("port", port, 1, MAX_PORT)
        return SingleNode(NodeService(host, port), policy)
    secure = settings.ssl_context is not None
    if gossip_seeds is None:
        check_number("discovery_port", discovery_port, 1, MAX_PORT)
        seeds = [seed_from("discovery_host", (discovery_host, discovery_port), secure)]
    elif discovery_host is not None:
        raise UsageError("gossip_seeds", "cannot be given together with discovery_host")
    elif (host, port) != SINGLE_NODE:
        raise UsageError("gossip_seeds", "cannot be given together with a host and port")
    else:
        seeds = _seeds_from(gossip_seeds, secure)
    gossip = Gossip(settings.gossip_timeout, settings.ssl_context, settings.target_host)
    return ClusterNodes(seeds, gossip, selector, policy, secure, settings.max_discover_attempts)


def _checked(policy: RetryPolicy | None) -> RetryPolicy:
    if policy is None:
        return _AnyTime()
    for method in ("should_retry", "wait", "record_success", "record_failure"):
        if not callable(getattr(policy, method, None)):
            raise UsageError("retry_policy", f"has no method {method}: {policy!r:.80}")
    return policy


def _seeds_from(gossip_seeds: Iterable[Any], secure: bool) -> list[Seed]:
    if isinstance(gossip_seeds, str) or not isinstance(gossip_seeds, Iterable):
        raise UsageError(
            "gossip_seeds", f"must be a list of them, not {type(gossip_seeds).__name__}"
        )
    seeds = [seed_from("gossip_seeds", given, secure) for given in gossip_seeds]
    if not seeds:
        raise UsageError("gossip_seeds", "must name at least one")
    return seeds
