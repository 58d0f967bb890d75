"""Which connection is current: connect, authenticate, identify; reconnect when it is lost.

    Begin ──start()──▶ Connecting ──▶ Connected ──lost──▶ Reconnecting ──▶ Connected …
                            └─────────────┴──────────────────┴──▶ Closed

Operations wait in the dispatcher meanwhile; it is told when it may send.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Collection
from enum import Enum

from fastpump._commands import Command
from fastpump._discoverers import Discoverer
from fastpump._dispatcher import Dispatcher
from fastpump._framing import encode_frame
from fastpump._operation import Operation
from fastpump._operations import Authenticate, IdentifyClient
from fastpump._patience import within
from fastpump._protocol import ConnectionProtocol
from fastpump._settings import ConnectionSettings
from fastpump._statistics import ClientStats, Traffic
from fastpump.connection_events import (
    AuthenticationFailed,
    Closed,
    Connected,
    ConnectionEvent,
    Disconnected,
    ErrorOccurred,
    Reconnecting,
)
from fastpump.discovery import NodeService
from fastpump.exceptions import (
    BadRequest,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DiscoveryFailed,
    FastpumpError,
    NotAuthenticated,
    NotMaster,
    describe,
)
from fastpump.messages import Credential, Token

LOG = logging.getLogger("fastpump.connector")

CHECK_INTERVAL = 0.1
"""Seconds between two looks at the deadlines of operations."""

CLOSE_TIMEOUT = 1.0
"""Seconds in which the server has to take what is left to send when the client is closed."""

FIRST_ATTEMPTS = 3
"""Attempts of the first connect; it should tell soon that there is no server."""

LONGEST_DELAY = 5.0
"""Seconds, the most that lie between two attempts to reconnect."""

MAX_UNREACHABLE = 16
"""Nodes, the most that are passed over because they could not be connected to just now."""

SETTLING_TIME = 1.0
"""Seconds after which a connection counts as one that lasts."""


class ConnectorState(Enum):
    Begin = "not connected yet"
    Connecting = "connecting"
    Connected = "connected"
    Reconnecting = "reconnecting"
    Closed = "closed"


class Connector:
    """Keeps one connection to a node alive.

    Args:
        discoverer: finds the node.
        dispatcher: gets the frames, and is told of connections made and lost.
        credential: authenticates the connection, if given.
        name: the connection's name for the server's statistics.
        settings: time limits and the like.
        tell: is called with what happens to the connection.
    """

    def __init__(
        self,
        discoverer: Discoverer,
        dispatcher: Dispatcher,
        credential: Credential | Token | None,
        name: str,
        settings: ConnectionSettings,
        tell: Callable[[ConnectionEvent], None],
    ) -> None:
        self.state = ConnectorState.Begin
        self.reconnects = 0
        self._discoverer = discoverer
        self._dispatcher = dispatcher
        self._dispatcher.follow = self._follow
        self._credential = credential
        self._name = name
        self._settings = settings
        self._tell = tell
        self._node: NodeService | None = None
        self._leader: NodeService | None = None
        self._settled_at = 0.0
        self._traffic = Traffic()
        self._connected_at = 0.0
        self._protocol: ConnectionProtocol | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._check_due = 0.0

    def address(self) -> tuple[str, int]:
        """Host and port of the node connected to, now or last; ("", 0) before the first one."""
        return ("", 0) if self._node is None else self._node[:2]

    async def start(self) -> None:
        """Connect. Returns once the node has identified the client.

        Raises:
            ConnectFailed: no connection could be made in time; says what was tried.
            NotAuthenticated: the node does not accept the credentials.
            ClientClosed: it was stopped meanwhile.
        """
        self.state = ConnectorState.Connecting
        self._connecting = asyncio.get_running_loop().create_task(self._connect(FIRST_ATTEMPTS))
        try:
            await self._connecting
        except BaseException as error:
            if self.state is ConnectorState.Closed:
                raise ClientClosed("The client was closed while it connected") from error
            self._end(error if isinstance(error, FastpumpError) else ClientClosed("Not connected"))
            raise
        self._check_due = asyncio.get_running_loop().time()
        self._check_deadlines()

    def stats(self) -> ClientStats:
        return ClientStats(
            in_flight=self._dispatcher.in_flight,
            waiting=self._dispatcher.waiting,
            subscriptions=self._dispatcher.subscriptions,
            queued_bytes=0 if self._protocol is None else self._protocol.queued_bytes,
            bytes_in=self._traffic.received,
            bytes_out=self._traffic.sent,
            reconnects=self.reconnects,
            unknown_frames=self._dispatcher.unknown_frames,
        )

    async def stop(self) -> None:
        """Close the connection; operations that wait fail with ClientClosed."""
        self._end(ClientClosed("The client was closed"))
        protocol = self._protocol
        try:
            if self._connecting is not None:
                self._connecting.cancel()
                await asyncio.wait({self._connecting})
            if protocol is not None:
                await asyncio.wait({protocol.closed}, timeout=CLOSE_TIMEOUT)
        finally:  # the caller may not wait so long
            if protocol is not None and not protocol.closed.done():
                protocol.abort(TimeoutError("the server had not taken what was left to send"))
        if protocol is not None:
            await protocol.closed

    def _end(self, error: FastpumpError) -> None:
        before, self.state = self.state, ConnectorState.Closed
        if self._timer is not None:
            self._timer.cancel()
        self._dispatcher.close(error)
        if self._protocol is not None:
            self._protocol.close()
        if before is ConnectorState.Closed:
            return
        is_wanted = isinstance(error, ClientClosed)
        # The first connect has somebody who waits and gets the error itself.
        is_known = is_wanted or before is ConnectorState.Connecting
        LOG.log(logging.INFO if is_known else logging.ERROR, "%s: closed: %s", self._name, error)
        if not is_wanted:
            self._tell(ErrorOccurred(error))
        self._tell(Closed(str(error)))

    async def _connect(self, attempts: int) -> None:
        """Try `attempts` times (-1: for ever) with growing delays."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        attempt = 0
        unreachable: deque[NodeService] = deque(maxlen=MAX_UNREACHABLE)
        while True:
            attempt += 1
            if self.state is ConnectorState.Reconnecting:
                self._tell(Reconnecting(attempt))
            node = await self._next_node(unreachable)
            try:
                await self._attempt(node)
                return
            # A ValueError is what a host name causes that cannot be one.
            except (OSError, ValueError, FastpumpError) as error:
                self._note_failure(node, error)
                if attempt == attempts:
                    if isinstance(error, NotAuthenticated):
                        raise
                    raise ConnectFailed(
                        f"Could not connect to {self._discoverer}: {attempt} "
                        f"{'attempt' if attempt == 1 else 'attempts'} in {loop.time() - begin:.1f} "
                        f"s, the last one to {node} failed with {describe(error)}"
                    ) from error
            unreachable.append(node)
            await self._pause(attempt)

    async def _next_node(self, unreachable: Collection[NodeService]) -> NodeService:
        """The leader that a node pointed to, once; else what the discoverer finds."""
        leader, self._leader = self._leader, None
        if leader is not None:
            return leader
        try:
            return await self._discoverer.next_node(unreachable)
        except FastpumpError:
            raise
        except Exception as error:  # out of a selector or a retry policy
            raise DiscoveryFailed(f"Looking for a node failed: {describe(error)}") from error

    def _note_failure(self, node: NodeService, error: Exception) -> None:
        LOG.info("%s: connecting to %s failed: %r", self._name, node, error)
        self._discoverer.record_failure(node)
        if isinstance(error, NotAuthenticated):
            self._tell(AuthenticationFailed(str(error)))
        self._tell(ErrorOccurred(error))

    async def _attempt(self, node: NodeService) -> None:
        protocol = ConnectionProtocol(
            on_frames=self._dispatcher.dispatch,
            on_lost=self._on_lost,
            on_paused=self._dispatcher.pause,
            on_resumed=self._dispatcher.resume,
            heartbeat_interval=self._settings.heartbeat_interval,
            heartbeat_timeout=self._settings.heartbeat_timeout,
            busy_poll=self._settings.busy_poll,
            max_frame_size=self._settings.max_frame_size,
            traffic=self._traffic,
        )
        connecting = asyncio.get_running_loop().create_connection(
            lambda: protocol,
            node.address,
            node.port,
            ssl=self._settings.ssl_context,
            server_hostname=self._settings.target_host,
        )
        try:
            await within(self._settings.connect_timeout, connecting)
            await self._introduce(protocol)
            if protocol.closed.done():
                raise protocol.closed.result()
        except BaseException:
            protocol.close()
            raise
        self._on_connected(node, protocol)

    def _on_connected(self, node: NodeService, protocol: ConnectionProtocol) -> None:
        LOG.info("%s: connected to %s", self._name, node)
        if self.state is ConnectorState.Reconnecting:
            self.reconnects += 1
        self.state = ConnectorState.Connected
        self._node, self._protocol = node, protocol
        self._connected_at = asyncio.get_running_loop().time()
        self._discoverer.record_success(node)
        self._dispatcher.connected(protocol.send)
        self._tell(Connected(node.address, node.port))

    async def _introduce(self, protocol: ConnectionProtocol) -> None:
        """Authenticate and identify (protocol document, section 4.1)."""
        new_id = self._dispatcher.correlation_ids.next
        if self._credential is not None:
            correlation_id = new_id()
            frame = encode_frame(
                Command.Authenticate, correlation_id, auth=self._credential.auth_block
            )
            await self._exchange(protocol, Authenticate, correlation_id, frame)
        correlation_id = new_id()
        frame = IdentifyClient.encode(correlation_id, self._name)
        await self._exchange(protocol, IdentifyClient, correlation_id, frame)

    async def _exchange(
        self,
        protocol: ConnectionProtocol,
        kind: type[Operation],
        correlation_id: bytes,
        frame: bytes,
    ) -> None:
        """Send one request of the handshake on this connection and wait for its reply."""
        waiter = asyncio.get_running_loop().create_future()
        timeout = self._settings.connect_timeout
        operation = kind(correlation_id, frame, waiter, timeout)
        self._dispatcher.enter(operation)
        protocol.send(frame)
        try:
            await asyncio.wait(
                {waiter, protocol.closed}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if waiter.done():
                waiter.result()
            elif protocol.closed.done():
                raise ConnectionLost(f"{kind.__name__}: {protocol.closed.result()}")
            else:
                raise operation.no_reply()
        finally:
            self._dispatcher.forget(operation)
            waiter.cancel()

    def _on_lost(self, protocol: ConnectionProtocol, error: ConnectionLost) -> None:
        node = self._node
        if protocol is not self._protocol or node is None:
            return  # lost during its handshake, which has noticed
        self._protocol = None
        if self.state is ConnectorState.Closed:
            return
        if isinstance(error.__cause__, BadRequest):
            # What we sent is no good, and would not be better on another connection.
            self._end(error.__cause__)
            return
        LOG.warning(
            "%s: %s; reconnecting to %s", self._name, error, self._leader or self._discoverer
        )
        self.state = ConnectorState.Reconnecting
        if self._leader is None:
            self._discoverer.record_failure(node)
        self._dispatcher.disconnected(error)
        self._connecting = asyncio.get_running_loop().create_task(self._reconnect())
        self._tell(Disconnected(node.address, node.port, str(error)))

    async def _reconnect(self) -> None:
        attempts = self._settings.max_reconnects
        try:
            if self._leader is not None:
                attempts = attempts or 1  # the connection was not lost but left
            elif attempts == 0:
                raise ConnectFailed(f"The connection to {self._node} was lost")
            elif asyncio.get_running_loop().time() < self._connected_at + SETTLING_TIME:
                await self._pause(0)  # a node may accept connections and drop them at once
            await self._connect(attempts)
        except FastpumpError as error:
            self._end(error)
        except Exception as error:  # out of the loop, or of the program's SSL context
            LOG.exception("%s: reconnecting failed", self._name)
            self._end(ConnectFailed(f"Could not connect again: {describe(error)}"))

    async def _pause(self, attempt: int) -> None:
        delay = min(self._settings.reconnect_delay * 2 ** min(attempt, 16), LONGEST_DELAY)
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    def _follow(self, error: NotMaster) -> bool:
        """Leave for the leader that a node pointed to; False if it has to be asked again instead.

        So it is if it names no leader or itself. And a connection that was made to follow is not
        left at once: two nodes that name each other would have us run to and fro.
        """
        if self._leader is not None:
            return True  # about to leave
        named = error.leader if self._settings.ssl_context is None else error.secure_leader
        now = asyncio.get_running_loop().time()
        if named is None or self._protocol is None or now < self._settled_at:
            return False
        if named == self._protocol.peer or NodeService(*named) == self._node:
            return False
        self._leader = NodeService(*named)
        self._settled_at = now + SETTLING_TIME
        self._protocol.abort(error)
        return True

    def _check_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = now - self._check_due
        self._check_due = now + CHECK_INTERVAL
        self._timer = loop.call_at(self._check_due, self._check_deadlines)
        # Where the program kept the loop busy, replies may lie unread in the socket.
        if late < 1.0:
            self._dispatcher.check_deadlines(now)
