"""A client that looks for its node by gossip, and how it fails if there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client.peer import Link, Peer, outcome

import fastpump
from fastpump import _discoverers
from fastpump.exceptions import DiscoveryFailed


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
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
