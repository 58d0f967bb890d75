"""`connect()` and `Client`: arguments in, operations out. No bytes are touched here."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import warnings
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

from fastpump._administering import Administering
from fastpump._commands import Command
from fastpump._connector import Connector, ConnectorState
from fastpump._dispatcher import Dispatcher
from fastpump._following import Following
from fastpump._framing import encode_frame
from fastpump._operations import Ping
from fastpump._settings import ConnectionSettings, context_for
from fastpump._transacting import Transacting
from fastpump.exceptions import ClientClosed, UsageError
from fastpump.messages import Credential

__all__ = ["Client", "connect"]


class Client(Following, Administering, Transacting):
    """A connection to Event Store and the operations on it; `connect()` makes one.

    Use it as an asynchronous context manager, or call `connect` and `close`. It belongs to the
    event loop it was connected on. Any number of operations may be under way at once. When the
    connection is lost it is made again, and what was waiting for a reply is sent again; writes are
    not doubled by that, since their event ids stay the same (protocol document, section 5.4).

    Every operation may raise, besides what it names: `UsageError` before anything is sent,
    `OperationTimedOut`, `ConnectionLost` or `ConnectFailed` when the connection could not be
    restored, `ClientClosed`, `NotAuthenticated`, `AccessDenied`, `BadRequest`, `NotReady`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        credential: Credential | None,
        name: str,
        settings: ConnectionSettings,
    ) -> None:
        self._host = host
        self._port = port
        self._credential = credential
        self._name = name
        self._settings = settings
        self._timeout = settings.operation_timeout
        self._connector: Connector | None = None
        self._dispatcher = None

    def __repr__(self) -> str:
        state = ConnectorState.Begin if self._connector is None else self._connector.state
        return f"<Client {self._name} of {self._host}:{self._port}, {state.value}>"

    async def connect(self) -> None:
        """Connect; returns once the node has identified the client.

        Raises:
            ConnectFailed: there was no connection within bounded time; says what was tried.
            NotAuthenticated: the node does not accept the credentials.
        """
        if self._connector is not None:
            raise ClientClosed("A client can be connected once; make another one with connect()")
        self._loop = asyncio.get_running_loop()
        self._dispatcher = Dispatcher(
            max_in_flight=self._settings.max_in_flight, max_attempts=self._settings.max_attempts
        )
        self._connector = Connector(
            self._host, self._port, self._dispatcher, self._credential, self._name, self._settings
        )
        await self._connector.start()

    async def close(self) -> None:
        """Close the connection. Operations that still wait fail with ClientClosed."""
        if self._connector is not None:
            await self._connector.stop()

    async def __aenter__(self) -> Client:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def ping(self, conversation_id: UUID | None = None) -> float:
        """Send a Ping; returns the seconds until its Pong came."""
        correlation_id = self._new_id(conversation_id, "conversation_id")
        frame = encode_frame(Command.Ping, correlation_id)
        begin = time.perf_counter()
        await self._perform(Ping, correlation_id, frame)
        return time.perf_counter() - begin


def connect(
    host: str = "localhost",
    port: int = 1113,
    discovery_host: str | None = None,
    discovery_port: int = 2113,
    username: str | None = None,
    password: str | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    name: str | None = None,
    selector: Any = None,
    retry_policy: Any = None,
    *,
    connect_timeout: float = ConnectionSettings.connect_timeout,
    operation_timeout: float = ConnectionSettings.operation_timeout,
    heartbeat_interval: float = ConnectionSettings.heartbeat_interval,
    heartbeat_timeout: float = ConnectionSettings.heartbeat_timeout,
    reconnect_delay: float = ConnectionSettings.reconnect_delay,
    max_reconnects: int = ConnectionSettings.max_reconnects,
    max_attempts: int = ConnectionSettings.max_attempts,
    max_in_flight: int = ConnectionSettings.max_in_flight,
    max_frame_size: int = ConnectionSettings.max_frame_size,
    tls: bool | ssl.SSLContext = False,
    ca_file: str | os.PathLike[str] | None = None,
    target_host: str | None = None,
) -> Client:
    """Make a client. Nothing is sent before it is entered, or its `connect()` is awaited.

    Args:
        host, port: the node's TCP address.
        discovery_host, discovery_port, selector, retry_policy: finding a node of a cluster is not
            in this version; naming a discovery_host is refused.
        username, password: the connection's credentials; both or none.
        loop: deprecated and without effect.
        name: the connection's name for the server's statistics; a random one by default.
        connect_timeout: seconds for one attempt to connect, and for each step of its handshake.
        operation_timeout: seconds until an operation without a reply fails.
        heartbeat_interval: seconds of silence until a heartbeat is sent.
        heartbeat_timeout: further seconds of silence until the connection is given up.
        reconnect_delay: seconds before the second attempt; grows up to 5 s, with some chance.
        max_reconnects: attempts to reconnect before the client gives up; -1 for no limit.
        max_attempts: how often one operation is sent in all, over reconnects.
        max_in_flight: operations under way from which on callers wait for a place.
        max_frame_size: longest message accepted, in bytes; 64 MiB is the protocol's own limit.
        tls: speak TLS, and verify the node's certificate; or a context of your own that says how.
        ca_file: certificates (PEM) to verify it with instead of the system's; needs `tls=True`.
        target_host: the name the certificate must be for, if not `host`; needs `tls`.

    Raises:
        UsageError: an argument is not acceptable; it names which.

    >>> async with fastpump.connect(username="admin", password="changeit") as client:
    ...     await client.ping()
    """
    if loop is not None:
        warnings.warn("loop has no effect", DeprecationWarning, stacklevel=2)
    if discovery_host is not None:
        raise UsageError(
            "discovery_host", "finding nodes is not in this version; give host and port"
        )
    if not isinstance(host, str) or not host:
        raise UsageError("host", f"must be a name or an address, not {host!r}")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise UsageError("port", f"must be 1 to 65535, not {port!r}")
    if name is not None and not isinstance(name, str):
        raise UsageError("name", f"must be a str, not {name!r:.80}")
    if (username is None) != (password is None):
        raise UsageError("password" if password is None else "username", "is missing")
    credential = None
    if username is not None and password is not None:
        credential = Credential(username, password)
    settings = ConnectionSettings(
        connect_timeout=connect_timeout,
        operation_timeout=operation_timeout,
        heartbeat_interval=heartbeat_interval,
        heartbeat_timeout=heartbeat_timeout,
        reconnect_delay=reconnect_delay,
        max_reconnects=max_reconnects,
        max_attempts=max_attempts,
        max_in_flight=max_in_flight,
        max_frame_size=max_frame_size,
        ssl_context=context_for(tls, ca_file, target_host),
        target_host=target_host,
    )
    return Client(host, port, credential, name or f"fastpump-{uuid4()}", settings)
