"""Who of a cluster may be chosen, who is, and how often a node is tried: without any network."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from client.gossip import member

import fastpump
from fastpump import _gossip, discovery, exceptions
from fastpump._gossip import GossipFailed, members_of
from fastpump.discovery import (
    KEEP_RETRYING,
    DiscoveredNode,
    DiscoveryRetryPolicy,
    DiscoveryStats,
    NodeService,
    NodeState,
    Selector,
    Stats,
    prefer_master,
    prefer_read_only_replica,
    prefer_replica,
    select,
    select_random,
)

NODE = NodeService("10.0.0.1", 1113)
SELECTORS = [prefer_master, prefer_replica, prefer_read_only_replica, select_random]

every_selector = pytest.mark.parametrize("selector", SELECTORS)


def node(state: NodeState | str, *, alive: bool = True, port: int = 1113) -> DiscoveredNode:
    service = NodeService("10.0.0.1", port)
    state = NodeState[state] if isinstance(state, str) else state
    return DiscoveredNode(state, alive, service, service, service, service)


def chosen(selector: Selector, *states: str) -> set[str]:
    """The names of all states that turn out to be chosen."""
    nodes = [node(state) for state in states]
    found = {selector(random.sample(nodes, len(nodes))) for _ in range(200)}
    return {each.state.name for each in found if each is not None}


def read(*members: dict[str, Any]) -> list[DiscoveredNode]:
    return members_of(json.dumps({"members": members}).encode())


# --- photon-pump's names ---


def test_disc_04_names() -> None:
    for name in [
        "DiscoveredNode",
        "DiscoveryFailed",
        "DiscoveryRetryPolicy",
        "DiscoveryStats",
        "NodeService",
        "NodeState",
        "Stats",
        "KEEP_RETRYING",
        "prefer_master",
        "prefer_replica",
        "select_random",
    ]:
        assert name in discovery.__all__
    assert discovery.DiscoveryFailed is exceptions.DiscoveryFailed
    assert KEEP_RETRYING == -1
    assert fastpump.discovery is discovery


def test_disc_02_photon_pumps_states_have_its_numbers() -> None:
    names = "Initializing Unknown PreReplica CatchingUp Clone Slave PreMaster Master Manager "
    for number, name in enumerate((names + "ShuttingDown Shutdown").split()):
        assert NodeState[name] == number


# --- who may be chosen ---

NEVER = [
    "Manager",
    "Initializing",
    "Unknown",
    "DiscoverLeader",
    "CatchingUp",
    "Clone",
    "PreLeader",
    "PreMaster",
    "PreReplica",
    "PreReadOnlyReplica",
    "ResigningLeader",
    "ShuttingDown",
    "Shutdown",
]


@every_selector
@pytest.mark.parametrize("state", NEVER)
def test_disc_02_states_never_chosen(selector: Selector, state: str) -> None:
    assert select([node(state)], selector) is None
    good = node("Follower")
    assert select([node(state), good], selector) == good


@every_selector
@pytest.mark.parametrize(
    "state", ["Master", "Leader", "Slave", "Follower", "ReadOnlyReplica", "ReadOnlyLeaderless"]
)
def test_disc_02_states_that_may_be(selector: Selector, state: str) -> None:
    good = node(state)
    assert select([good], selector) == good
    assert select([node(state, alive=False)], selector) is None


@every_selector
def test_disc_04_nobody(selector: Selector) -> None:
    assert selector([]) is None
    assert select([], selector) is None
    assert select([node("Master", alive=False), node("Clone")], selector) is None


ALL = ("Master", "Slave", "ReadOnlyReplica")


@pytest.mark.parametrize(
    ("selector", "states", "expected"),
    [
        (prefer_master, ALL, {"Master"}),
        (prefer_master, ("Slave", "ReadOnlyReplica"), {"Slave"}),
        (prefer_replica, ALL, {"Slave"}),
        (prefer_replica, ("Master", "ReadOnlyReplica"), {"Master"}),
        (prefer_replica, ("ReadOnlyReplica",), {"ReadOnlyReplica"}),
        (prefer_read_only_replica, ALL, {"ReadOnlyReplica"}),
        (prefer_read_only_replica, ("Master", "Slave"), {"Slave"}),
        (select_random, ALL, set(ALL)),
    ],
)
def test_disc_03_disc_04_preferences(
    selector: Selector, states: tuple[str, ...], expected: set[str]
) -> None:
    assert chosen(selector, *states) == expected


@pytest.mark.parametrize("selector", [prefer_replica, select_random])
def test_disc_03_ties_at_random(selector: Selector) -> None:
    nodes = [node("Follower", port=port) for port in range(1, 4)]
    assert {selector(nodes) for _ in range(200)} == set(nodes)


def test_disc_03_a_selector_of_photon_pump_programs() -> None:
    nodes = [node("ReadOnlyReplica"), node("Leader"), node("Follower")]
    best = select(nodes, lambda those: max(those, key=lambda each: each.state))
    assert best is not None
    assert best.state == NodeState.Master


# --- gossip ---


@pytest.mark.parametrize(("old", "new"), [("Master", "Leader"), ("Slave", "Follower")])
def test_disc_03_both_vocabularies(old: str, new: str) -> None:
    assert NodeState[old] is NodeState[new]
    by_old, by_new = read(member(old, old_names=True), member(new))
    assert by_old.state is by_new.state


def test_disc_01_both_shapes_of_members() -> None:
    old, new = read(
        member("Master", 1113, host="10.0.0.1", secure=1115, old_names=True),
        member("Leader", 0, host="fe80::1", secure=1115, http=2114),
    )
    assert old == DiscoveredNode(
        NodeState.Master,
        True,
        NodeService("10.9.9.9", 1112),
        NodeService("10.0.0.1", 1113, 1115),
        NodeService("10.9.9.9", 2112),
        NodeService("10.0.0.1", 2113),
    )
    assert new.external_tcp == NodeService("fe80::1", 0, 1115)
    assert new.external_http == new.internal_http == NodeService("fe80::1", 2114)
    assert str(new.external_http) == "[fe80::1]:2114"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "Dancing"},
        {"state": None},
        {"state": ["Leader"]},
        {"isAlive": "true"},
        {"isAlive": None},
    ],
)
def test_disc_02_what_is_not_understood_is_not_chosen(change: dict[str, Any]) -> None:
    assert select(read({**member("Leader"), **change})) is None


@pytest.mark.parametrize("port", [-1, 65536, "1113", None, 1.5, 2**70])
def test_a_port_that_is_none(port: Any) -> None:
    (found,) = read({**member("Leader"), "externalTcpPort": port, "httpEndPointIp": 7})
    assert found.external_tcp.port == 0
    assert found.external_http.address == ""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"members": null}',
        b'{"members": {}}',
        b'{"members": [3]}',
        b'{"members": [{}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"members": [{}] * 65}).encode(),
    ],
)
def test_disc_05_what_is_not_gossip(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        members_of(body)


def test_disc_05_gossip_of_nobody() -> None:
    with pytest.raises(GossipFailed, match="no member"):
        members_of(b'{"members": []}')


@pytest.mark.parametrize(
    ("given", "secure", "expected"),
    [
        (("a", 2113), False, "http://a:2113"),
        (["a", 2114], True, "https://a:2114"),
        (NodeService("a", 2113), False, "http://a:2113"),
        ("a:2114", False, "http://a:2114"),
        ("a", True, "https://a:2113"),
        ("http://a:2114/", True, "http://a:2114"),
        ("https://a", False, "https://a:2113"),
        ("[::1]:2114", False, "http://[::1]:2114"),
        (("::1", 2114), False, "http://[::1]:2114"),
    ],
)
def test_disc_01_how_seeds_are_written(given: Any, secure: bool, expected: str) -> None:
    assert str(_gossip.seed_from("gossip_seeds", given, secure)) == expected


@pytest.mark.parametrize(
    "address",
    [
        {"host": "tcp://ada:secret@node"},
        {"discovery_host": "http://ada:secret@node"},
        {"gossip_seeds": "http://ada:secret@node:2113"},
        {"gossip_seeds": ["http://ada:secret@node:2113"]},
        {"gossip_seeds": [("http://ada:secret@node", 2113)]},
    ],
)
def test_a_password_in_an_address_is_not_repeated(address: dict[str, Any]) -> None:
    with pytest.raises(exceptions.UsageError) as caught:
        fastpump.connect(**address)
    assert "secret" not in str(caught.value)


# --- how often, and when ---


def test_disc_09_stats() -> None:
    stats = Stats()
    assert stats[NODE] == DiscoveryStats(NODE, 0, 0, 0, 0)
    for record in (
        stats.record_failure,
        stats.record_success,
        stats.record_failure,
        stats.record_failure,
    ):
        record(NODE)
    assert stats[NODE] == DiscoveryStats(
        node=NODE, attempts=4, successes=1, failures=3, consecutive_failures=2
    )
    stats.record_success(NODE)
    assert stats[NODE].consecutive_failures == 0


def test_disc_09_three_tries_per_node() -> None:
    policy = DiscoveryRetryPolicy()
    for _ in range(3):
        assert policy.should_retry(NODE)
        policy.record_failure(NODE)
    assert not policy.should_retry(NODE)
    assert policy.should_retry(NODE._replace(port=1114))
    policy.record_success(NODE)
    assert policy.should_retry(NODE)
    assert policy.stats[NODE].failures == 3


def test_disc_09_keep_retrying() -> None:
    policy = DiscoveryRetryPolicy(retries_per_node=KEEP_RETRYING)
    for _ in range(1000):
        policy.record_failure(NODE)
    assert policy.should_retry(NODE)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, and it took no time."""
    noted: list[float] = []

    async def sleep(seconds: float) -> None:
        noted.append(seconds)

    monkeypatch.setattr(discovery.asyncio, "sleep", sleep)
    return noted


def waited(policy: DiscoveryRetryPolicy, failures: int, sleeps: list[float]) -> list[float]:
    for _ in range(failures):
        policy.record_failure(NODE)

    async def wait() -> None:
        for _ in range(200):
            await policy.wait(NODE)

    asyncio.run(wait())
    return sleeps


def test_disc_09_no_wait_without_a_failure(sleeps: list[float]) -> None:
    assert waited(DiscoveryRetryPolicy(), 0, sleeps) == []


@pytest.mark.parametrize(
    ("policy", "failures", "delay", "jitter"),
    [
        (DiscoveryRetryPolicy, 1, 0.75, 0.5),
        (DiscoveryRetryPolicy, 2, 1.5, 0.5),
        (lambda: DiscoveryRetryPolicy(9, 2, 0.25, 3), 2, 12, 0.25),
        (lambda: DiscoveryRetryPolicy(KEEP_RETRYING, max_interval=4), 100, 4, 0.5),
    ],
)
def test_disc_09_wait_after_failures(
    policy: Callable[[], DiscoveryRetryPolicy],
    failures: int,
    delay: float,
    jitter: float,
    sleeps: list[float],
) -> None:
    found = waited(policy(), failures, sleeps)
    assert all(delay - jitter <= each <= delay + jitter for each in found)
    assert max(found) - min(found) > jitter / 2


def test_disc_09_never_less_than_no_wait(sleeps: list[float]) -> None:
    assert min(waited(DiscoveryRetryPolicy(jitter=10), 1, sleeps)) == 0
