"""Fixtures for calls that wait: a node per module; a client, a stream, a group of it per test.

Their functions have names of their own, since tests' arguments would hide what is imported.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fastpump
import fastpump.server
from fastpump import NewEvent, PersistentSubscriptionSettings, sync
from fastpump._background import BackgroundLoop


@pytest.fixture(scope="module", name="node")
def node_of_module() -> Iterator[fastpump.server.Node]:
    node = fastpump.server.run()
    loop = BackgroundLoop()
    loop.run(node.__aenter__)
    yield node
    loop.run(node.__aexit__, None, None, None)
    loop.stop()


@pytest.fixture(name="client")
def client_of_node(node: fastpump.server.Node) -> Iterator[sync.Client]:
    with sync.connect(node.host, node.port) as client:
        yield client


@pytest.fixture(name="stream")
def stream_of_test(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture(name="group")
def group_of_stream(node: fastpump.server.Node, client: sync.Client, stream: str) -> str:
    """A persistent subscription to the test's stream, which has three events."""
    fill(client, stream, 3)
    settings = PersistentSubscriptionSettings(start_from=0)
    with sync.connect(node.host, node.port, username="admin", password="changeit") as admin:
        admin.create_subscription("group", stream, settings=settings)
        admin.update_subscription("group", stream, settings)
        admin.create_subscription("other", stream)
        admin.delete_subscription("other", stream)
    return "group"


def fill(client: sync.Client, stream: str, count: int) -> None:
    client.publish(stream, [NewEvent("t", data={"n": n}) for n in range(count)])
