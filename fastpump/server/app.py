"""The embedded node as a whole: `run`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from fastpump.server import _heartbeat
from fastpump.server._engine import Engine
from fastpump.server._node import BaseNode, Options
from fastpump.server._tls import TlsSource
from fastpump.server._users import Users
from fastpump.server.session import PUSH_COUNT_LIMIT, PUSH_LIMIT, Limits

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from types import TracebackType

    from fastpump.server._gossip import GossipShape
    from fastpump.server._users import Configured


class Node(BaseNode, AbstractAsyncContextManager["Node"]):
    """A single Event Store node in this process; made by `run`, alive inside `async with`."""

    def __init__(self, options: Options, engine: Engine, tls: TlsSource) -> None:
        super().__init__(options, engine)
        self._tls = tls

    async def __aenter__(self) -> Node:
        async with AsyncExitStack() as stack:
            tls = stack.enter_context(self._tls.open(self.host))
            self._engine.open(asyncio.get_running_loop())
            stack.callback(self._engine.close)
            stack.push_async_callback(self._shut_down)
            await self.open(tls)
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

    async def _shut_down(self) -> None:
        self.stop()
        await self._engine.drain()
        await self.close()


def run(
    port: int = 0,
    path: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    *,
    http_port: int | None = None,
    users: Mapping[str, Configured] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    private_key: str | os.PathLike[str] | None = None,
    tls: str | None = None,
    gossip_shape: GossipShape = "v20",
    heartbeat_interval: float = _heartbeat.INTERVAL,
    heartbeat_timeout: float = _heartbeat.TIMEOUT,
    push_limit: int = PUSH_LIMIT,
    push_count_limit: int = PUSH_COUNT_LIMIT,
) -> Node:
    """An Event Store node for development and tests, in this process and on the running event loop.

    >>> async with fastpump.server.run(port=0, path="events.db") as node:
    ...     async with fastpump.connect(node.host, node.port) as client:
    ...         await client.publish_event("stream", "type", body={"answer": 42})

    It behaves as Event Store 4.1.4 does where clients can see it; its users are `admin` and `ops`,
    both with the password "changeit", and those given. If there is a file, what it acknowledged
    survives the end of the process at any moment.

    Args:
        port: 0 takes a free one.
        path: the database file, made if missing; None keeps everything in memory.
        host: the address to listen on.
        http_port: where to answer `/gossip`, `/info`, `/ping` and `/stats` over HTTP. 0 takes a
            free one, None does without.
        users: login -> password, or (password, groups); "$admins" is the group that may everything.
        certificate: a PEM file with the certificates to speak TLS with, on both ports.
        private_key: a PEM file with its key, if that is not in the same file.
        tls: "development" speaks TLS with a certificate made for the occasion; `Node.ca_file` is
            what to verify it with. Needs the extra "tls".
        gossip_shape: the names that gossip uses, "v20" (Leader, `httpEndPointIp`) or "v5" (Master,
            `externalHttpIp`).
        heartbeat_interval: seconds of silence after which a client is asked for a sign of life.
        heartbeat_timeout: seconds it has to give one.
        push_limit: bytes of pushed events that may wait for a subscriber; one that reads so slowly
            that they become more is told so and cut off.
        push_count_limit: the same in packages.

    Raises:
        UsageError: arguments that contradict each other, or a login that cannot be sent.

    Raises (on entering):
        PortInUse: one of the ports cannot be listened on.
        CertificateUnusable, MissingExtra: why there can be no TLS.
        NotOurDatabase, DatabaseTooNew, DatabaseInUse, StoreDamaged, StoreFailed: what is wrong with
            the file.
    """
    limits = Limits(heartbeat_interval, heartbeat_timeout, push_limit, push_count_limit)
    options = Options.checked(host, port, http_port, limits, gossip_shape)
    engine = Engine(None if path is None else Path(path), Users(users))
    return Node(options, engine, TlsSource(certificate, private_key, tls))
