"""The embedded node, clients of it that may do everything, and events for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import fastpump
import fastpump.server
from fastpump import Client, NewEvent
from fastpump.server import Node

ADMIN = ("admin", "changeit")
AS_ADMIN: dict[str, Any] = {"username": ADMIN[0], "password": ADMIN[1]}
"""The same as options of `fastpump.connect`."""


def client_of(node: Node, **options: Any) -> Client:
    """A client that loses no time when it has to connect again."""
    options = {"reconnect_delay": 0.01, **AS_ADMIN, **options}
    return fastpump.connect(node.host, node.port, **options)


@asynccontextmanager
async def node_and_client(
    users: Mapping[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Node, Client]]:
    """A node that knows these users, and a client with these options."""
    async with fastpump.server.run(users=users) as node, client_of(node, **options) as client:
        yield node, client


async def write(client: Client, stream: str, count: int, size: int = 0) -> None:
    """Write this many events of this many bytes."""
    await client.publish(stream, [NewEvent("t", data=bytes(size)) for _ in range(count)])
