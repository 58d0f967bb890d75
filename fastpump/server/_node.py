"""One node: its sockets, its connections, dying and coming back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID, uuid4

from fastpump.exceptions import UsageError
from fastpump.server._gossip import SHAPES, Role, state_name
from fastpump.server._http_routes import Routes
from fastpump.server.errors import PortInUse
from fastpump.server.faults import Faults, FaultySession, Refused
from fastpump.server.http import HttpConnections
from fastpump.server.session import Limits, Session, Sessions

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fastpump.server._engine import Engine
    from fastpump.server._gate import Check
    from fastpump.server._gossip import GossipShape
    from fastpump.server._tls import Tls
    from fastpump.server._users import Users

MAX_PORT = 65535

CLOSE_SECONDS = 1.0
"""How long a client has to take the replies that are on their way when the node is closed."""
HANDSHAKE_SECONDS = 5.0
"""How long a client has for the TLS handshake."""

_UNUSABLE_ADDRESS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


class Options(NamedTuple):
    """See `run`."""

    host: str
    port: int
    http_port: int | None
    limits: Limits
    gossip_shape: GossipShape

    @classmethod
    def checked(
        cls,
        host: str,
        port: int,
        http_port: int | None,
        limits: Limits,
        gossip_shape: GossipShape,
    ) -> Options:
        """Raises UsageError for what makes no sense."""
        if gossip_shape not in SHAPES:
            raise UsageError("gossip_shape", f"not one of {SHAPES} but {gossip_shape!r}")
        for name, number in (("port", port), ("http_port", http_port or 0)):
            if not 0 <= number <= MAX_PORT:
                raise UsageError(name, f"not 0 to {MAX_PORT} but {number}")
        for name, limit in limits._asdict().items():
            if not limit > 0:
                raise UsageError(name, f"not above 0 but {limit}")
        return cls(host, port, http_port, limits, gossip_shape)


class BaseNode:
    """A node as its clients see it.

    Attributes:
        host: the address it listens on.
        port: its port; the one found free if 0 was asked for.
        http_port: its port for HTTP, found in the same way; None if it has none.
        path: its database file, or None if it keeps everything in memory.
        ca_file: the certificate (PEM) to verify it with, or None if it does not speak TLS.
        faults: what it is to do wrong.
        users: who may log in; see its methods.
        instance_id: tells this life of the node from others.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self.host = options.host
        self.port = options.port
        self.http_port = options.http_port
        self.path: Path | None = engine.path
        self.ca_file: Path | None = None
        self.instance_id: UUID = uuid4()
        self._engine = engine
        self._options = options
        self._sessions = Sessions()
        self._gate: list[Check] = []
        self.faults = Faults(self._sessions, self._gate)
        self._http = HttpConnections(Routes(self, engine, options.gossip_shape), self.faults)
        self._servers: list[asyncio.Server] = []

    def __repr__(self) -> str:
        state = self.state if self.is_alive else "dead"
        return f"<{type(self).__name__} {self.host}:{self.port} {state}>"

    @property
    def users(self) -> Users:
        return self._engine.users

    @property
    def is_alive(self) -> bool:
        """Whether it is listening: false before it is entered, after `kill`, and at the end."""
        return bool(self._servers)

    @property
    def role(self) -> Role:
        return Role.LEADER

    @property
    def state(self) -> str:
        """Its role, by the name gossip has for it: "Leader", or "Master" in the shape "v5"."""
        return state_name(self.role, self._options.gossip_shape)

    @property
    def is_secure(self) -> bool:
        """Whether both its ports speak TLS."""
        return self.ca_file is not None

    @property
    def connection_count(self) -> int:
        """Open client connections, those of HTTP not counted."""
        return len(self._sessions)

    def members(self) -> Sequence[BaseNode]:
        """All nodes of its cluster, itself included."""
        return (self,)

    async def kill(self) -> None:
        """Die: cut all connections and stop listening, without a word.

        Requests that are being executed may still be stored, but nobody is told. What is stored
        stays, also where it is only in memory.
        """
        self._stop_listening()
        for session in self._sessions:
            session.abort()
        self._http.abort()
        await self._sessions.empty.wait()
        # uvloop closes the listening sockets only in the loop's next turns.
        for _ in range(3):
            await asyncio.sleep(0)

    async def restart(self) -> None:
        """Come back at the same ports; kill it first if it is alive.

        Raises:
            PortInUse: somebody else took one of the ports meanwhile.
        """
        if self.is_alive:
            await self.kill()
        self.instance_id = uuid4()
        await self._listen()

    # --- for who opens and closes nodes ---

    async def open(self, tls: Tls | None) -> None:
        """Start listening. Raises PortInUse."""
        self._context = None if tls is None else tls.context
        self.ca_file = None if tls is None else tls.ca_file
        await self._listen()

    def stop(self) -> None:
        """Take no more connections and no more requests."""
        self._stop_listening()
        for session in self._sessions:
            session.stop()

    async def close(self) -> None:
        """Close the connections, as soon as their clients have taken what is on its way."""
        self._http.abort()
        for session in self._sessions:
            session.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._sessions.empty.wait(), CLOSE_SECONDS)
        for session in self._sessions:
            session.abort()
        await self._sessions.empty.wait()

    async def _listen(self) -> None:
        faults = self.faults
        services = self._engine.services(self._options.limits, self._sessions, self._gate)

        def new_session() -> asyncio.BaseProtocol:
            if not faults:
                return Session(services)
            return Refused() if faults.refuses_connections else FaultySession(services, faults)

        self._sessions.are_wanted = self._http.are_wanted = True
        try:
            self.port = await self._serve(new_session, self.port)
            if self.http_port is not None:
                self.http_port = await self._serve(self._http.connection, self.http_port)
        except BaseException:
            self._stop_listening()
            raise

    async def _serve(self, factory: Callable[[], asyncio.BaseProtocol], port: int) -> int:
        """Listen at a port, or at a free one if it is 0. Returns the port."""
        server = await listen(factory, self.host, port, self._context)
        self._servers.append(server)
        actual: int = server.sockets[0].getsockname()[1]
        return actual

    def _stop_listening(self) -> None:
        self._sessions.are_wanted = self._http.are_wanted = False
        for server in self._servers:
            server.close()
        self._servers.clear()


async def listen(
    factory: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    context: ssl.SSLContext | None,
) -> asyncio.Server:
    """Listen at an address.

    Raises:
        PortInUse: the address cannot be listened on.
    """
    timeout = None if context is None else HANDSHAKE_SECONDS
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            factory, host, port, ssl=context, ssl_handshake_timeout=timeout
        )
    except OSError as error:
        if error.errno in _UNUSABLE_ADDRESS:
            reason = errno.errorcode[error.errno]
            raise PortInUse(f"Cannot listen on {host}:{port} ({reason})") from error
        raise
