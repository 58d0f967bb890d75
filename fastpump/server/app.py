"""The embedded node: its socket and its life."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from fastpump.server import _heartbeat
from fastpump.server._access import DEFAULT_USERS, Access, Users
from fastpump.server._asking import Sources
from fastpump.server._bootstrap import write_first_events
from fastpump.server._metadata import MetadataReader
from fastpump.server._writer import Group, Writer
from fastpump.server.errors import PortInUse
from fastpump.server.session import Limits, Services, Session, Sessions
from fastpump.server.store import Store

if TYPE_CHECKING:
    import os
    from types import TracebackType

CLOSE_SECONDS = 1.0
"""How long a client has to take the replies that are on their way when the node is closed."""

_UNUSABLE_ADDRESS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


class Node(AbstractAsyncContextManager["Node"]):
    """A single Event Store node in this process; made by `run`, alive inside `async with`.

    Attributes:
        host: the address it listens on.
        port: its port; the one found free if 0 was asked for.
        path: its database file, or None if it keeps everything in memory.
    """

    def __init__(self, host: str, port: int, path: Path | None, limits: Limits) -> None:
        self.host = host
        self.port = port
        self.path = path
        self._limits = limits
        self._sessions = Sessions()

    async def __aenter__(self) -> Node:
        loop = asyncio.get_running_loop()
        self._store = Store(self.path)
        try:
            services = self._start(loop)
            self._server = await self._listen(loop, services)
        except BaseException:
            self._store.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take no more connections, answer the writes that are here, close."""
        self._server.close()
        for session in self._sessions:
            session.stop()
        try:
            await self._writer.close()
            await self._close_sessions()
        finally:
            self._store.close()

    async def _close_sessions(self) -> None:
        for session in list(self._sessions):
            session.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._sessions.empty.wait(), CLOSE_SECONDS)
        for session in list(self._sessions):
            session.abort()
        await self._sessions.empty.wait()

    def _start(self, loop: asyncio.AbstractEventLoop) -> Services:
        metadata = MetadataReader(self._store)
        access = Access(self._store, metadata)
        if self._store.end == 0:
            self._fill_new_database(metadata, access)
        self._writer = Writer(self._store, metadata, access, loop)
        sources = Sources(self._store, metadata, access)
        users = Users(DEFAULT_USERS)
        return Services(loop, sources, self._writer, users, self._limits, self._sessions)

    def _fill_new_database(self, metadata: MetadataReader, access: Access) -> None:
        group = Group(self._store, metadata, access)
        write_first_events(group, DEFAULT_USERS)
        segments = group.log.take_segments()
        self._store.write(segments)
        self._store.commit()
        self._store.publish(group.log, segments)
        group.published()

    async def _listen(self, loop: asyncio.AbstractEventLoop, services: Services) -> asyncio.Server:
        try:
            return await loop.create_server(lambda: Session(services), self.host, self.port)
        except OSError as error:
            if error.errno in _UNUSABLE_ADDRESS:
                reason = errno.errorcode[error.errno]
                text = f"Cannot listen on {self.host}:{self.port} ({reason})"
                raise PortInUse(text) from error
            raise


def run(
    port: int = 0,
    path: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    *,
    heartbeat_interval: float = _heartbeat.INTERVAL,
    heartbeat_timeout: float = _heartbeat.TIMEOUT,
) -> Node:
    """An Event Store node for development and tests, in this process and on the running event loop.

    >>> async with fastpump.server.run(port=0, path="events.db") as node:
    ...     async with fastpump.connect(node.host, node.port) as client:
    ...         await client.publish_event("stream", "type", body={"answer": 42})

    It behaves as Event Store 4.1.4 does where clients can see it; its users are `admin` and `ops`,
    both with the password "changeit". If there is a file, what it acknowledged survives the end of
    the process at any moment.

    Args:
        port: 0 takes a free one.
        path: the database file, made if missing; None keeps everything in memory.
        host: the address to listen on.
        heartbeat_interval: seconds of silence after which a client is asked for a sign of life.
        heartbeat_timeout: seconds it has to give one.

    Raises (on entering):
        PortInUse: the address cannot be listened on.
        NotOurDatabase, DatabaseTooNew, DatabaseInUse, StoreDamaged, StoreFailed: what is wrong with
            the file.
    """
    limits = Limits(heartbeat_interval, heartbeat_timeout)
    return Node(host, port, None if path is None else Path(path), limits)
