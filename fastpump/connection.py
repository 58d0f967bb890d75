"""`connect()` and `Client`: arguments in, operations out. No bytes are touched here."""

from __future__ import annotations

import asyncio
import os
import ssl
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any
from uuid import uuid4

from fastpump._acting import ActingClient
from fastpump._arguments import credential_of
from fastpump._connection_string import parse
from fastpump._connector import Connector, ConnectorState
from fastpump._discoverers import Discoverer, discoverer_for
from fastpump._dispatcher import Dispatcher
from fastpump._futures import Futures
from fastpump._operating import Operating
from fastpump._settings import ConnectionSettings, context_for
from fastpump._statistics import ClientStats
from fastpump._write_events import SingleWrites
from fastpump.connection_events import ConnectionEvent, Listeners
from fastpump.discovery import RetryPolicy, Selector, prefer_read_only_replica, select_random
from fastpump.exceptions import ClientClosed, UsageError
from fastpump.messages import Credential, Token, utf8_of
from fastpump.telemetry import Telemetry

__all__ = [
    "ActingClient",
    "Client",
    "ClientStats",
    "ConnectionSettings",
    "connect",
    "connect_to",
]


class Client(Operating):
    """A connection to Event Store and the operations on it; `connect()` makes one.

    Use it as an asynchronous context manager, or call `connect` and `close`. It belongs to the
    event loop it was connected on. Any number of operations may be under way at once. When the
    connection is lost it is made again, and what was waiting for a reply is sent again; writes are
    not doubled by that, since their event ids stay the same (protocol document, section 5.4).

    Every operation may raise, besides what it names: `UsageError` before anything is sent,
    `RetriesLimitReached`, `OperationExpired`, `OperationTimedOut`, `ConnectFailed` when the
    connection could not be restored, `ClientClosed`, `NotAuthenticated`, `AccessDenied`,
    `BadRequest`.

    An operation is at any time either sent or waits to be sent. One that was sent may wait for its
    reply for `operation_timeout` seconds; then it is sent again, up to `max_attempts` times in all,
    or fails at once with `fail_on_no_response`. One that waits, for a place or for a connection,
    may do so for `queue_timeout` seconds, or as long as it takes. Use `asyncio.timeout` for a limit
    to all that together.
    """

    def __init__(
        self,
        discoverer: Discoverer,
        credential: Credential | Token | None,
        name: str,
        settings: ConnectionSettings,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._discoverer = discoverer
        self._listeners = Listeners()
        self._credential = credential
        self._name = name
        self._settings = settings
        self._telemetry = telemetry
        self._timeout = settings.operation_timeout
        self._require_master = settings.require_master
        self._connector: Connector | None = None
        self._outlet = None

    def __repr__(self) -> str:
        state = ConnectorState.Begin if self._connector is None else self._connector.state
        return f"<Client {self._name} of {self._discoverer}, {state.value}>"

    @property
    def name(self) -> str:
        """What the server's statistics call the connection."""
        return self._name

    @property
    def settings(self) -> ConnectionSettings:
        """The time limits, counts and the like that `connect` was given."""
        return self._settings

    async def connect(self) -> None:
        """Connect; returns once the node has identified the client.

        Raises:
            ConnectFailed: there was no connection within bounded time; says what was tried. It is a
                DiscoveryFailed if no node of a cluster could be found.
            NotAuthenticated: the node does not accept the credentials.
        """
        if self._connector is not None:
            raise ClientClosed("A client can be connected once; make another one with connect()")
        self._loop = asyncio.get_running_loop()
        self._futures = Futures(self._loop)
        dispatcher = Dispatcher(self._settings)
        self._writes = SingleWrites(self._futures, self._timeout, self._require_master)
        self._connector = Connector(
            self._discoverer,
            dispatcher,
            self._credential,
            self._name,
            self._settings,
            self._listeners.tell,
        )
        self._outlet = dispatcher
        if self._telemetry is not None:
            self._outlet = self._telemetry.observe(dispatcher, self._connector.address)
        await self._connector.start()

    async def close(self) -> None:
        """Close the connection. Operations that still wait fail with ClientClosed."""
        if self._connector is not None:
            await self._connector.stop()

    def listen(self, callback: Callable[[ConnectionEvent], object]) -> Callable[[], None]:
        """Be told when the connection is made, lost, made again, or given up.

        Args:
            callback: a plain function that is called with a `ConnectionEvent` (see
                `fastpump.connection_events`) in the event loop's thread, and should return soon.
                What it raises is logged and disturbs nothing.

        Returns:
            A function that ends it.

        >>> client.listen(lambda event: print(event))
        """
        return self._listeners.add(callback)

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

    def stats(self) -> ClientStats:
        """The client in numbers: what is under way, what waits, what went over the wire.

        All are 0 before it is connected. They are there anyhow: asking is what costs, a little.
        """
        return ClientStats() if self._connector is None else self._connector.stats()

    def acting_as(self, credential: Credential | Token | tuple[str, str]) -> ActingClient:
        """The same operations with other credentials than the connection's, for better and worse.

        Everything asked of what is returned carries them, subscriptions and reading ahead included.
        It costs next to nothing to make and need not be closed. The client must be connected.

        Args:
            credential: a Credential, a Token, or (username, password).

        Raises:
            UsageError: the credential is none, or does not fit the protocol.

        >>> await client.acting_as(("ops", "secret")).get("$stats-127.0.0.1:2113")
        """
        outlet = self._outlet or self._not_connected()
        return ActingClient(self, outlet, credential_of("credential", credential))


def connect(
    host: str | None = "localhost",
    port: int = 1113,
    discovery_host: str | None = None,
    discovery_port: int = 2113,
    username: str | None = None,
    password: str | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    name: str | None = None,
    selector: Selector | None = select_random,
    retry_policy: RetryPolicy | None = None,
    *,
    gossip_seeds: Iterable[Any] | None = None,
    gossip_timeout: float = ConnectionSettings.gossip_timeout,
    max_discover_attempts: int = ConnectionSettings.max_discover_attempts,
    connect_timeout: float = ConnectionSettings.connect_timeout,
    operation_timeout: float = ConnectionSettings.operation_timeout,
    heartbeat_interval: float = ConnectionSettings.heartbeat_interval,
    heartbeat_timeout: float = ConnectionSettings.heartbeat_timeout,
    busy_poll: float = ConnectionSettings.busy_poll,
    reconnect_delay: float = ConnectionSettings.reconnect_delay,
    max_reconnects: int = ConnectionSettings.max_reconnects,
    max_attempts: int = ConnectionSettings.max_attempts,
    max_in_flight: int = ConnectionSettings.max_in_flight,
    max_queue: int = ConnectionSettings.max_queue,
    queue_timeout: float | None = ConnectionSettings.queue_timeout,
    fail_on_no_response: bool = ConnectionSettings.fail_on_no_response,
    max_frame_size: int = ConnectionSettings.max_frame_size,
    tls: bool | ssl.SSLContext = False,
    ca_file: str | os.PathLike[str] | None = None,
    target_host: str | None = None,
    validate_server: bool = True,
    credential: Credential | Token | None = None,
    require_master: bool = ConnectionSettings.require_master,
    telemetry: Telemetry | None = None,
) -> Client:
    """Make a client. Nothing is sent before it is entered, or its `connect()` is awaited.

    Args:
        host, port: the node's TCP address, if there is one node only. A host of None is localhost.
        discovery_host, discovery_port: whom to ask for the members of a cluster: a host name, which
            stands for all its addresses, or an address, and the HTTP port. Then `host` and `port`
            have no effect. Needs aiohttp: `pip install 'fastpump[cluster]'`.
        username, password: the connection's credentials; both or none. They hold for every
            operation but those of `Client.acting_as`.
        loop: deprecated and without effect.
        name: the connection's name for the server's statistics; a random one by default.
        selector: chooses among the members of a cluster, see `fastpump.discovery`; None stands for
            `prefer_master`.
        retry_policy: may refuse or delay trying a node, see `fastpump.discovery`. The other limits
            hold besides it.
        gossip_seeds: whom to ask instead of a discovery_host: (host, port) or "host:port", asked by
            https if `tls` is on and else by http, or "http://host:port" and "https://host:port".
        gossip_timeout: seconds until a node that is asked for the members has to have answered.
        max_discover_attempts: rounds of asking all of them before there is a `DiscoveryFailed`;
            -1 for no limit. Between two rounds there are 0.5 s.
        connect_timeout: seconds for one attempt to connect, and for each step of its handshake.
        operation_timeout: seconds an operation that was sent may wait for its reply.
        fail_on_no_response: what then: fail with OperationTimedOut, or (by default) be sent again.
        heartbeat_interval: seconds of silence until a heartbeat is sent.
        heartbeat_timeout: further seconds of silence until the connection is given up.
        busy_poll: seconds for which the event loop does not sleep after something was received, but
            keeps looking for more. Answers are noticed sooner then, at the price of a core.
        reconnect_delay: seconds before the second attempt; grows up to 5 s, with some chance.
        max_reconnects: attempts to reconnect before the client gives up; -1 for no limit.
        max_attempts: how often one operation is sent in all, because there was no reply, the
            connection was lost or the node was not ready; then it fails with RetriesLimitReached.
            -1 for no limit.
        max_in_flight: operations under way from which on callers wait for a place. They get it in
            the order in which they came.
        max_queue: how many of the waiting callers are in the queue, where `queue_timeout` counts.
            Those behind wait too, at its door, for as long as it takes; nobody is turned away.
        queue_timeout: seconds a caller may wait in the queue, and an operation for a connection;
            then it fails with OperationExpired. None for no limit.
        max_frame_size: longest message accepted, in bytes; 64 MiB is the protocol's own limit.
        tls: speak TLS, and verify the node's certificate; or a context of your own that says how.
        ca_file: certificates (PEM) to verify it with instead of the system's; needs `tls=True`.
        target_host: the name certificates must be for, if not that of the node; needs `tls`.
        validate_server: False to accept whatever certificate the node has, of a cluster's gossip
            too. Then nobody knows who is on the other end.
        credential: a Credential or Token instead of username and password.
        require_master: only the leader of a cluster may answer, where a call does not say.
        telemetry: where OpenTelemetry's spans and metrics go; none by default.

    Raises:
        UsageError: an argument is not acceptable; it names which.

    >>> async with fastpump.connect(username="admin", password="changeit") as client:
    ...     await client.ping()
    """
    if loop is not None:
        warnings.warn("loop has no effect", DeprecationWarning, stacklevel=2)
    if name is not None:
        utf8_of("name", name)
    if telemetry is not None and not isinstance(telemetry, Telemetry):
        raise UsageError("telemetry", f"must be a Telemetry, not {telemetry!r:.80}")
    settings = ConnectionSettings(
        connect_timeout=connect_timeout,
        operation_timeout=operation_timeout,
        heartbeat_interval=heartbeat_interval,
        heartbeat_timeout=heartbeat_timeout,
        busy_poll=busy_poll,
        reconnect_delay=reconnect_delay,
        max_reconnects=max_reconnects,
        max_attempts=max_attempts,
        max_in_flight=max_in_flight,
        max_queue=max_queue,
        queue_timeout=queue_timeout,
        fail_on_no_response=fail_on_no_response,
        max_frame_size=max_frame_size,
        gossip_timeout=gossip_timeout,
        max_discover_attempts=max_discover_attempts,
        ssl_context=context_for(tls, ca_file, target_host, validate_server),
        target_host=target_host,
        require_master=require_master,
    )
    if require_master and selector is prefer_read_only_replica:
        raise UsageError("selector", "a read-only replica is never the leader of require_master")
    discoverer = discoverer_for(
        host,
        port,
        discovery_host,
        discovery_port,
        gossip_seeds,
        selector,
        retry_policy,
        settings,
    )
    credential = _credential_of_connection(username, password, credential)
    return Client(discoverer, credential, name or f"fastpump-{uuid4()}", settings, telemetry)


def connect_to(connection_string: str, **overrides: Any) -> Client:
    """Make a client from a connection string; what it does not say is as in `connect`.

    Args:
        connection_string: in the spelling of the reference client, with its keys and its
            milliseconds, or a URL whose options are arguments of `connect`. See docs/settings.md.
            `%` in the user or password of an address stands before the number of a byte.
        overrides: arguments of `connect` that win over what the string says.

    Raises:
        UsageError: the string, or what it asks for, is not acceptable. It says why, but shows
            nothing of the string, which may hold a password.

    >>> fastpump.connect_to("ConnectTo=tcp://admin:changeit@localhost:1113; HeartBeatTimeout=1500")
    >>> fastpump.connect_to("esdb+tcp://admin:changeit@localhost?tls=true&operation_timeout=7")
    """
    arguments = parse(connection_string)
    if "username" in overrides:
        arguments.pop("credential", None)
    return connect(**{**arguments, **overrides})


def _credential_of_connection(
    username: str | None, password: str | None, credential: Credential | Token | None
) -> Credential | Token | None:
    if username is None and password is None:
        return None if credential is None else credential_of("credential", credential)
    if username is None or password is None:
        raise UsageError("password" if password is None else "username", "is missing")
    if credential is not None:
        raise UsageError("credential", "and username are one too many")
    return Credential(username, password)
