"""A node for all tests of a module, in memory and on a file; a connection and a stream per test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from nodelib import NodeThread, RawClient


@pytest.fixture(scope="module", params=["memory", "file"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeThread]:
    path = tmp_path_factory.mktemp("node") / "events.db" if request.param == "file" else None
    with NodeThread(path) as running:
        yield running


@pytest.fixture
def client(node: NodeThread) -> Iterator[RawClient]:
    with node.client() as connected:
        yield connected


@pytest.fixture
def stream() -> str:
    return f"s-{uuid.uuid4().hex}"
