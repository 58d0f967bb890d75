"""A server whose answers over HTTP are damaged, or JSON of another shape than they should be."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import orjson
import pytest
from client.gossip import GossipPeer, gossip_of, http_answer, member
from client.peer import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.scrambling import damaged

from fastpump import _gossip, persistent_manager, users
from fastpump._arguments import is_host
from fastpump.discovery import DiscoveredNode, NodeService
from fastpump.exceptions import FastpumpError, ProtocolError
from fastpump.persistent_manager import PersistentSubscriptions, SubscriptionStatus
from fastpump.users import User, Users

pytest.importorskip("aiohttp")

ANSWERS = 60

GROUP: dict[str, Any] = {
    "groupName": "g",
    "eventStreamId": "s",
    "status": "Live",
    "averageItemsPerSecond": 1.5,
    "lastProcessedEventNumber": 7,
    "connections": [{"from": "127.0.0.1:1", "username": "admin", "availableSlots": 10}],
}
USER = {"loginName": "ada", "fullName": "Ada", "groups": ["a"], "disabled": False}
USER = {**USER, "dateLastUpdated": "2020-01-02T03:04:05.678Z"}

KEYS = st.sampled_from([*member("Leader"), *GROUP, *GROUP["connections"][0], *USER, "members"])
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "Leader", "127.0.0.1", "a/b", "2020-01-02T03:04:05Z", "9999-99-99"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=12),
    max_leaves=30,
)


def damaged_answers(content: object, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    body = orjson.dumps(content)
    answers = [http_answer(damaged(body, rng)) for _ in range(ANSWERS)]
    return answers + [damaged(http_answer(body), rng) for _ in range(ANSWERS)]


def check_members(members: list[DiscoveredNode]) -> None:
    assert members
    for node in members:
        for service in (node.external_tcp, node.internal_tcp, node.external_http):
            assert service.address == "" or is_host(service.address)
            assert 0 <= service.port <= 65535


# --- damaged ---


@pytest.mark.parametrize("seed", range(2))
async def test_damaged_gossip(seed: int) -> None:
    gossip, told = _gossip.Gossip(10.0, None, None), 0
    content = orjson.loads(gossip_of(member("Leader"), member("Clone")).partition(b"\r\n\r\n")[2])
    async with GossipPeer(None) as peer:
        source = _gossip.Source("http", peer.host, NodeService(peer.host, peer.port))
        for peer.answer in damaged_answers(content, seed):
            try:
                check_members(await gossip.ask(source))
                told += 1
            except _gossip.GossipFailed:
                pass
    assert 0 < told < 2 * ANSWERS


@pytest.mark.parametrize("seed", range(2))
async def test_damaged_answers_about_groups(seed: int) -> None:
    async with GossipPeer(None) as peer, PersistentSubscriptions(peer.host, peer.port) as groups:
        for peer.answer in damaged_answers([GROUP], seed):
            error = await outcome(groups.list())
            assert error is None or isinstance(error, FastpumpError)
            error = await outcome(groups.describe("g", "s"))
            assert isinstance(error, FastpumpError)


@pytest.mark.parametrize("seed", range(2))
async def test_damaged_answers_about_users(seed: int) -> None:
    async with GossipPeer(None) as peer, Users(peer.host, peer.port) as accounts:
        for peer.answer in damaged_answers({"data": USER}, seed):
            error = await outcome(accounts.get("ada"))
            assert error is None or isinstance(error, FastpumpError)
            assert isinstance(await outcome(accounts.list()), FastpumpError)


# --- of another shape ---


@given(ANY_JSON | st.fixed_dictionaries({"members": st.lists(ANY_JSON, max_size=3)}))
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_gossip_of_any_shape(content: Any) -> None:
    with suppress(_gossip.GossipFailed, ValueError):
        check_members(_gossip.members_of(orjson.dumps(content)))


@given(ANY_JSON | st.lists(ANY_JSON, max_size=2))
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_groups_of_any_shape(content: Any) -> None:
    check_group(orjson.dumps(content))


@given(ANY_JSON)
@settings(max_examples=300, derandomize=True, database=None, deadline=None)
def test_users_of_any_shape(content: Any) -> None:
    check_user(orjson.dumps({"data": content}))


@pytest.mark.parametrize("key", GROUP)
def test_groups_of_great_depth(key: str) -> None:
    check_group(deep([{**GROUP, key: "deep"}]))


@pytest.mark.parametrize("key", USER)
def test_users_of_great_depth(key: str) -> None:
    check_user(deep({"data": {**USER, key: "deep"}}))


def deep(content: object) -> bytes:
    """As deep as the parser follows, which is deeper than what shows an object as a text does."""
    return orjson.dumps(content).replace(b'"deep"', b"[" * 1000 + b"]" * 1000)


def check_group(answer: bytes) -> None:
    try:
        statuses = persistent_manager._read(answer, persistent_manager._statuses)
    except ProtocolError:
        return
    for status in statuses:
        assert isinstance(status, SubscriptionStatus)
        assert all(isinstance(text, str) for text in (status.name, status.stream, status.status))
        assert all(isinstance(consumer.username, str) for consumer in status.consumers)


def check_user(answer: bytes) -> None:
    try:
        user = users._user(users._data(answer))
    except ProtocolError:
        return
    assert isinstance(user, User)
    assert all(isinstance(text, str) for text in (user.login, user.full_name, *user.groups))
