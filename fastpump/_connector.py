"""Which connection is current: connect, authenticate, identify; reconnect when it is lost.

    Begin ──start()──▶ Connecting ──▶ Connected ──lost──▶ Reconnecting ──▶ Connected …
                            └─────────────┴──────────────────┴──▶ Closed

Operations wait in the dispatcher meanwhile; it is told when it may send.
"""

from __future__ import annotations

import asyncio
import logging
import random
from enum import Enum

from fastpump._commands import Command
from fastpump._dispatcher import Dispatcher
from fastpump._framing import encode_frame
from fastpump._operations import Authenticate, IdentifyClient, Operation
from fastpump._protocol import ConnectionProtocol
from fastpump._settings import ConnectionSettings
from fastpump.exceptions import (
    BadRequest,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    FastpumpError,
    NotAuthenticated,
)
from fastpump.messages import Credential, Token

LOG = logging.getLogger("fastpump.connector")

CHECK_INTERVAL = 0.1
"""Seconds between two looks at the deadlines of operations."""

FIRST_ATTEMPTS = 3
"""Attempts of the first connect; it should tell soon that there is no server."""

LONGEST_DELAY = 5.0
"""Seconds, the most that lie between two attempts to reconnect."""


class ConnectorState(Enum):
    Begin = "not connected yet"
    Connecting = "connecting"
    Connected = "connected"
    Reconnecting = "reconnecting"
    Closed = "closed"


class Connector:
    """Keeps one connection to a node alive.

    Args:
        host, port: the node.
        dispatcher: gets the frames, and is told of connections made and lost.
        credential: authenticates the connection, if given.
        name: the connection's name for the server's statistics.
        settings: time limits and the like.
    """

    def __init__(
        self,
        host: str,
        port: int,
        dispatcher: Dispatcher,
        credential: Credential | Token | None,
        name: str,
        settings: ConnectionSettings,
    ) -> None:
        self.state = ConnectorState.Begin
        self.reconnects = 0
        self._host = host
        self._port = port
        self._dispatcher = dispatcher
        self._credential = credential
        self._name = name
        self._settings = settings
        self._protocol: ConnectionProtocol | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._check_due = 0.0

    async def start(self) -> None:
        """Connect. Returns once the node has identified the client.

        Raises:
            ConnectFailed: no connection could be made in time; says what was tried.
            NotAuthenticated: the node does not accept the credentials.
        """
        self.state = ConnectorState.Connecting
        try:
            await self._connect(FIRST_ATTEMPTS)
        except BaseException as error:
            self._end(error if isinstance(error, FastpumpError) else ClientClosed("Not connected"))
            raise
        self._check_due = asyncio.get_running_loop().time()
        self._check_deadlines()

    async def stop(self) -> None:
        """Close the connection; operations that wait fail with ClientClosed."""
        self._end(ClientClosed("The client was closed"))
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
        if self._protocol is not None:
            self._protocol.close()
            await self._wait_for_close(self._protocol)

    def _end(self, error: FastpumpError) -> None:
        self.state = ConnectorState.Closed
        if self._timer is not None:
            self._timer.cancel()
        self._dispatcher.close(error)

    async def _wait_for_close(self, protocol: ConnectionProtocol) -> None:
        done, _ = await asyncio.wait({protocol.closed}, timeout=1.0)
        if not done:
            protocol.abort(TimeoutError("the server did not take what was left to send"))
            await protocol.closed

    async def _connect(self, attempts: int) -> None:
        """Try `attempts` times (-1: for ever) with growing delays."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        attempt = 0
        while True:
            attempt += 1
            try:
                await self._attempt()
                return
            # A UnicodeError is what a host name causes that cannot be one.
            except (OSError, UnicodeError, FastpumpError) as error:
                LOG.info("Connecting to %s failed: %r", self._address, error)
                if self.state is ConnectorState.Closed:
                    raise ClientClosed("The client was closed while it connected") from error
                if attempt == attempts:
                    if isinstance(error, NotAuthenticated):
                        raise
                    raise ConnectFailed(
                        f"Could not connect to {self._address}: {attempt} "
                        f"{'attempt' if attempt == 1 else 'attempts'} in "
                        f"{loop.time() - begin:.1f} s, the last one failed with {_describe(error)}"
                    ) from error
            delay = min(self._settings.reconnect_delay * 2 ** min(attempt, 16), LONGEST_DELAY)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    async def _attempt(self) -> None:
        protocol = ConnectionProtocol(
            on_frames=self._dispatcher.dispatch,
            on_lost=self._on_lost,
            on_paused=self._dispatcher.pause,
            on_resumed=self._dispatcher.resume,
            heartbeat_interval=self._settings.heartbeat_interval,
            heartbeat_timeout=self._settings.heartbeat_timeout,
            max_frame_size=self._settings.max_frame_size,
        )
        loop = asyncio.get_running_loop()
        timeout = self._settings.connect_timeout
        connecting = loop.create_task(
            loop.create_connection(
                lambda: protocol,
                self._host,
                self._port,
                ssl=self._settings.ssl_context,
                server_hostname=self._settings.target_host,
            )
        )
        try:
            # Not wait_for: before Python 3.12 that loses a cancellation that comes just as the
            # connection does.
            await asyncio.wait({connecting}, timeout=timeout)
            if not connecting.done():
                raise ConnectFailed(f"no answer within {timeout:g} s")
            await connecting
            await self._introduce(protocol)
            if protocol.closed.done():
                raise protocol.closed.result()
            if self.state is ConnectorState.Closed:
                raise ClientClosed("The client was closed while it connected")
        except BaseException:
            connecting.cancel()
            protocol.close()
            raise
        self._protocol = protocol
        self.state = ConnectorState.Connected
        LOG.info("Connected to %s as %s", self._address, self._name)
        self._dispatcher.connected(protocol.send)

    async def _introduce(self, protocol: ConnectionProtocol) -> None:
        """Authenticate and identify (protocol document, section 4.1)."""
        new_id = self._dispatcher.new_correlation_id
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
                operation.time_out()
                waiter.result()
        finally:
            waiter.cancel()

    def _on_lost(self, protocol: ConnectionProtocol, error: ConnectionLost) -> None:
        if protocol is not self._protocol:
            return  # lost during its handshake, which has noticed
        self._protocol = None
        if self.state is ConnectorState.Closed:
            return
        if isinstance(error.__cause__, BadRequest):
            # What we sent is no good, and would not be better on another connection.
            self._end(error.__cause__)
            return
        LOG.warning("%s; reconnecting to %s", error, self._address)
        self.state = ConnectorState.Reconnecting
        self._dispatcher.disconnected(error)
        self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        attempts = self._settings.max_reconnects
        try:
            if attempts == 0:
                raise ConnectFailed(f"The connection to {self._address} was lost")
            await self._connect(attempts)
            self.reconnects += 1
        except FastpumpError as error:
            LOG.error("Giving up: %s", error)
            self._end(error)

    def _check_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        # Where the program kept the loop busy, replies may lie unread in the socket.
        if now - self._check_due < 1.0:
            self._dispatcher.check_deadlines(now)
        self._check_due = now + CHECK_INTERVAL
        self._timer = loop.call_at(self._check_due, self._check_deadlines)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
