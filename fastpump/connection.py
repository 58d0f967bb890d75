"""`connect()` and `Client`: arguments in, operations out. No bytes are touched here."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, NoReturn
from uuid import UUID, uuid4

from fastpump._arguments import (
    check_count,
    check_expected_version,
    check_name,
    check_number,
    collect,
    first_event_number,
    first_position,
)
from fastpump._commands import Command
from fastpump._connector import ConnectionSettings, Connector, ConnectorState
from fastpump._dispatcher import Dispatcher
from fastpump._framing import encode_frame
from fastpump._operations import (
    Operation,
    Ping,
    ReadAllBackward,
    ReadAllForward,
    ReadEvent,
    ReadStreamBackward,
    ReadStreamForward,
    WriteEvents,
)
from fastpump._read_ahead import AllPages, ReadAhead, Slot, StreamBackward, StreamForward
from fastpump._requests import (
    encode_read_all,
    encode_read_event,
    encode_read_stream,
    encode_write_event,
    encode_write_events,
)
from fastpump.exceptions import ClientClosed, UsageError
from fastpump.messages import (
    AllStreamSlice,
    Beginning,
    Credential,
    End,
    Event,
    ExpectedVersion,
    NewEventData,
    Position,
    PositionSentinel,
    StreamDirection,
    StreamSlice,
    WriteResult,
)
from fastpump.subscriptions import (
    BUFFER_BYTES,
    BUFFER_EVENTS,
    AllLog,
    StreamLog,
    Subscription,
)

__all__ = ["Client", "connect"]

Forward = StreamDirection.Forward


class Client:
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
        self._dispatcher: Dispatcher | None = None
        self._loop: asyncio.AbstractEventLoop

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

    async def publish_event(
        self,
        stream: str,
        type: str,
        body: Any = None,
        id: UUID | None = None,
        metadata: Any = None,
        expected_version: int = ExpectedVersion.Any,
        require_master: bool = False,
    ) -> WriteResult:
        """Write one event.

        Args:
            stream: the stream, made by its first event.
            type: the event's type.
            body: bytes, bytearray or memoryview are sent as binary; None as empty binary; str and
                `Json` (bytes) as JSON text as they are; anything else is made JSON by orjson.
            id: the event's UUID; a new random one by default.
            metadata: like `body`; None for none.
            expected_version: number of the event that must be the stream's last one, or one of
                `ExpectedVersion`.
            require_master: only the leader of a cluster may answer.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.

        >>> await client.publish_event("account-7", "opened", {"owner": "Ada"})
        """
        dispatcher = self._dispatcher or self._not_connected()
        if expected_version != -2:
            check_expected_version(expected_version)
        correlation_id = dispatcher.new_correlation_id()
        frame = encode_write_event(
            correlation_id, stream, expected_version, type, body, metadata, id, require_master
        )
        # What `_perform` does, without a coroutine of its own: this is the call that ingest
        # workers make hundreds of thousands of times a second.
        if dispatcher.is_full:
            await dispatcher.room()
        waiter = self._loop.create_future()
        dispatcher.start(
            WriteEvents(correlation_id, frame, waiter, self._timeout, stream, expected_version)
        )
        result: WriteResult = await waiter
        return result

    async def publish(
        self,
        stream: str,
        events: Iterable[NewEventData] | AsyncIterable[NewEventData],
        expected_version: int = ExpectedVersion.Any,
        require_master: bool = False,
    ) -> WriteResult:
        """Write events to a stream, all or none of them.

        A write repeated with the same event ids is recognised and not made twice.

        Args:
            stream: the stream, made by its first event.
            events: what `NewEvent` makes, from any iterable or asynchronous iterable.
            expected_version, require_master: as in `publish_event`.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.
        """
        correlation_id = self._new_id(None)
        check_expected_version(expected_version)
        batch = await collect(events)
        frame = encode_write_events(correlation_id, stream, expected_version, batch, require_master)
        result: WriteResult = await self._perform(
            WriteEvents, correlation_id, frame, stream, expected_version
        )
        return result

    async def get_event(
        self,
        stream: str,
        event_number: int,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> Event | None:
        """Read one event.

        Args:
            stream: the stream.
            event_number: its number in the stream, from 0; -1 for the last one.
            resolve_links: if it is a link, read what it points to as well.
            require_master: only the leader of a cluster may answer.
            correlation_id: of the request; a new one by default.

        Returns:
            The event, or None if the stream exists and has no such event.

        Raises:
            StreamNotFound, StreamDeleted, ReadError
        """
        check_number("event_number", event_number, -1)
        wire_id = self._new_id(correlation_id)
        frame = encode_read_event(wire_id, stream, event_number, resolve_links, require_master)
        event: Event | None = await self._perform(ReadEvent, wire_id, frame, stream)
        return event

    async def get(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        max_count: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> StreamSlice:
        """Read one page of a stream.

        Args:
            stream: the stream.
            direction: Forward (old to new) or Backward.
            from_event: number of the first event wanted; by default the start of the stream, or
                its end when reading backward. -1 is the end.
            max_count: the most events wanted, 1 to 4096.
            resolve_links, require_master, correlation_id: as in `get_event`.

        Returns:
            The events, a sequence; `next_event_number` and `is_end_of_stream` tell how to go on.

        Raises:
            StreamNotFound, StreamDeleted, ReadError
        """
        start = first_event_number(direction, from_event)
        check_count("max_count", max_count)
        wire_id = self._new_id(correlation_id)
        frame = encode_read_stream(
            wire_id,
            direction != Forward,
            stream,
            start,
            max_count,
            resolve_links,
            require_master,
        )
        kind = ReadStreamForward if direction == Forward else ReadStreamBackward
        page: StreamSlice = await self._perform(kind, wire_id, frame, stream, start)
        return page

    async def get_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        max_count: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> AllStreamSlice:
        """Read one page of the log of all events. By default only administrators may.

        Args:
            direction: Forward (old to new) or Backward.
            from_position: where to start: `Beginning`, `End`, or a Position; by default the
                beginning, or the end when reading backward. Forward includes the event at the
                position, backward does not.
            max_count: the most events wanted, 1 to 4096.
            resolve_links, require_master, correlation_id: as in `get_event`.

        Returns:
            The events, a sequence; its `next_position` tells how to go on.

        Raises:
            ReadError
        """
        commit, prepare = first_position(direction, from_position)
        check_count("max_count", max_count)
        wire_id = self._new_id(correlation_id)
        frame = encode_read_all(
            wire_id,
            direction != Forward,
            commit,
            prepare,
            max_count,
            resolve_links,
            require_master,
        )
        kind = ReadAllForward if direction == Forward else ReadAllBackward
        page: AllStreamSlice = await self._perform(kind, wire_id, frame, "$all")
        return page

    async def iter(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of a stream, one by one, up to its end.

        Pages of `batch_size` are asked for ahead of the consumer. See `iter_slices` for whole
        pages, which cost less, and `get` for the arguments.

        >>> async for event in client.iter("account-7", batch_size=500):
        ...     print(event.event_number, event.type, event.json())
        """
        pages = self.iter_slices(
            stream,
            direction,
            from_event,
            batch_size,
            resolve_links,
            require_master,
            correlation_id,
        )
        async with aclosing(pages):
            async for page in pages:
                for event in page:
                    yield event

    def iter_slices(
        self,
        stream: str,
        direction: StreamDirection = Forward,
        from_event: int | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[StreamSlice, None]:
        """The pages of a stream up to its end, for work on many events at a time.

        Arguments and errors are those of `get`; `batch_size` is the most events in one page, 1 to
        4096. `correlation_id` is that of the first page's request. Leaving the loop early ends it.
        """
        dispatcher = self._dispatcher or self._not_connected()
        start = first_event_number(direction, from_event)
        check_count("batch_size", batch_size)
        forward = direction == Forward
        kind = ReadStreamForward if forward else ReadStreamBackward
        course = (StreamForward if forward else StreamBackward)(start, batch_size)
        first_id = correlation_id

        def ask(number: int, slot: Slot) -> None:
            nonlocal first_id
            wire_id = self._new_id(first_id)
            first_id = None
            frame = encode_read_stream(
                wire_id, not forward, stream, number, batch_size, resolve_links, require_master
            )
            dispatcher.start(kind(wire_id, frame, slot, self._timeout, stream, number))

        reader: ReadAhead[StreamSlice] = ReadAhead(course, ask, lambda: dispatcher.is_full)
        return reader.pages()

    async def iter_all(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of the log of all events, one by one, up to its end.

        See `iter_all_slices` for whole pages, and `get_all` for the arguments.
        """
        pages = self.iter_all_slices(
            direction, from_position, batch_size, resolve_links, require_master, correlation_id
        )
        async with aclosing(pages):
            async for page in pages:
                for event in page:
                    yield event

    def iter_all_slices(
        self,
        direction: StreamDirection = Forward,
        from_position: Position | PositionSentinel | None = None,
        batch_size: int = 100,
        resolve_links: bool = True,
        require_master: bool = False,
        correlation_id: UUID | None = None,
    ) -> AsyncGenerator[AllStreamSlice, None]:
        """The pages of the log of all events up to its end.

        Arguments and errors are those of `get_all`; `batch_size` is the most events in one page.
        The next page is asked for when one arrives, while the consumer works.
        """
        dispatcher = self._dispatcher or self._not_connected()
        start = first_position(direction, from_position)
        check_count("batch_size", batch_size)
        forward = direction == Forward
        kind = ReadAllForward if forward else ReadAllBackward
        first_id = correlation_id

        def ask(position: tuple[int, int], slot: Slot) -> None:
            nonlocal first_id
            wire_id = self._new_id(first_id)
            first_id = None
            commit, prepare = position
            frame = encode_read_all(
                wire_id, not forward, commit, prepare, batch_size, resolve_links, require_master
            )
            dispatcher.start(kind(wire_id, frame, slot, self._timeout, "$all"))

        course = AllPages(start, forward)
        reader: ReadAhead[AllStreamSlice] = ReadAhead(course, ask, lambda: dispatcher.is_full)
        return reader.pages()

    async def subscribe_to(
        self,
        stream: str,
        start_from: int = -1,
        resolve_link_tos: bool = True,
        batch_size: int = 100,
        *,
        buffer_events: int = BUFFER_EVENTS,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> Subscription:
        """Follow a stream.

        Args:
            stream: the stream; it need not exist yet.
            start_from: number of the first event wanted, everything behind it follows; -1 for what
                is written from now on. To resume, give the checkpoint plus one.
            resolve_link_tos: give out what links point to as well.
            batch_size: the most events in one page of history, 1 to 4096.
            buffer_events, buffer_bytes: pushed events that may wait for the consumer. Beyond that
                the subscription goes on from history, at the consumer's pace.

        Raises:
            AccessDenied, NotAuthenticated, OperationTimedOut: the server does not confirm it (only
                with -1; otherwise the loop over the events raises it).

        >>> async with await client.subscribe_to("account-7", start_from=0) as subscription:
        ...     async for event in subscription.events:
        ...         print(event.event_number)
        """
        dispatcher = self._dispatcher or self._not_connected()
        check_name("stream", stream)
        check_number("start_from", start_from, -1)
        check_count("batch_size", batch_size)

        def read(number: int) -> AsyncGenerator[StreamSlice, None]:
            return self.iter_slices(stream, Forward, number, batch_size, resolve_link_tos)

        log = StreamLog(dispatcher, self._timeout, resolve_link_tos, stream, read)
        subscription = Subscription(log, start_from - 1, buffer_events, buffer_bytes)
        if start_from == -1:
            await subscription.start_now()
        return subscription

    async def subscribe_to_all(
        self,
        from_position: Position | PositionSentinel = End,
        resolve_link_tos: bool = True,
        batch_size: int = 100,
        *,
        buffer_events: int = BUFFER_EVENTS,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> Subscription:
        """Follow the log of all events. By default only administrators may.

        Args:
            from_position: `Beginning` for everything, `End` for what is written from now on, or the
                Position of an event, for instance a checkpoint, to go on behind it.
            resolve_link_tos, batch_size, buffer_events, buffer_bytes: as in `subscribe_to`.

        Raises:
            AccessDenied, NotAuthenticated, OperationTimedOut: as in `subscribe_to`.
        """
        dispatcher = self._dispatcher or self._not_connected()
        start = first_position(Forward, from_position)
        check_count("batch_size", batch_size)

        def read(position: Position | None) -> AsyncGenerator[AllStreamSlice, None]:
            return self.iter_all_slices(Forward, position, batch_size, resolve_link_tos)

        log = AllLog(dispatcher, self._timeout, resolve_link_tos, read)
        checkpoint = None if start == Beginning.position else start
        subscription = Subscription(log, checkpoint, buffer_events, buffer_bytes)
        if start == End.position:
            await subscription.start_now()
        return subscription

    async def _perform(
        self,
        kind: type[Operation],
        correlation_id: bytes,
        frame: bytes,
        stream: str = "",
        number: int = 0,
    ) -> Any:
        """Start an operation when there is room for it, and wait for its end.

        If the caller is cancelled its future is too, and the dispatcher lets the operation go.
        """
        dispatcher = self._dispatcher or self._not_connected()
        if dispatcher.is_full:
            await dispatcher.room()
        waiter = self._loop.create_future()
        dispatcher.start(kind(correlation_id, frame, waiter, self._timeout, stream, number))
        return await waiter

    def _new_id(self, wanted: UUID | None, argument: str = "correlation_id") -> bytes:
        dispatcher = self._dispatcher or self._not_connected()
        if wanted is None:
            return dispatcher.new_correlation_id()
        if not isinstance(wanted, UUID) or wanted.int == 0:
            raise UsageError(argument, f"must be a UUID that is not all zero, not {wanted!r}")
        return wanted.bytes_le

    def _not_connected(self) -> NoReturn:
        raise ClientClosed("The client is not connected: use `async with`, or await connect()")


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
    )
    return Client(host, port, credential, name or f"fastpump-{uuid4()}", settings)
