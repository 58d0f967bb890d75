"""A scripted server: the other end of the client's connection, with the test as its brain.

It shares no code with the package: frames are put together here, payloads by protobuf itself.

    async with connected() as (client, link, peer):
        call = soon(client.publish_event("s", "t"))
        request = await link.expect("WriteEvents")
        link.reply(request, last_event_number=7)
        assert (await call).last_event_number == 7
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from wire.reference import PAYLOADS, PROTO2

import fastpump

T = TypeVar("T")

HEARTBEAT_REQUEST = 0x01
HEARTBEAT_RESPONSE = 0x02
AUTHENTICATED = 0x01

COMMANDS = {
    "HeartbeatRequest": 0x01,
    "HeartbeatResponse": 0x02,
    "Ping": 0x03,
    "Pong": 0x04,
    "WriteEvents": 0x82,
    "WriteEventsCompleted": 0x83,
    "TransactionStart": 0x84,
    "TransactionStartCompleted": 0x85,
    "TransactionWrite": 0x86,
    "TransactionWriteCompleted": 0x87,
    "TransactionCommit": 0x88,
    "TransactionCommitCompleted": 0x89,
    "DeleteStream": 0x8A,
    "DeleteStreamCompleted": 0x8B,
    "ReadEvent": 0xB0,
    "ReadEventCompleted": 0xB1,
    "ReadStreamEventsForward": 0xB2,
    "ReadStreamEventsForwardCompleted": 0xB3,
    "ReadStreamEventsBackward": 0xB4,
    "ReadStreamEventsBackwardCompleted": 0xB5,
    "ReadAllEventsForward": 0xB6,
    "ReadAllEventsForwardCompleted": 0xB7,
    "ReadAllEventsBackward": 0xB8,
    "ReadAllEventsBackwardCompleted": 0xB9,
    "FilteredReadAllEventsForward": 0xBA,
    "FilteredReadAllEventsForwardCompleted": 0xBB,
    "FilteredReadAllEventsBackward": 0xBC,
    "FilteredReadAllEventsBackwardCompleted": 0xBE,
    "SubscribeToStream": 0xC0,
    "SubscriptionConfirmation": 0xC1,
    "StreamEventAppeared": 0xC2,
    "UnsubscribeFromStream": 0xC3,
    "SubscriptionDropped": 0xC4,
    "ConnectToPersistentSubscription": 0xC5,
    "PersistentSubscriptionConfirmation": 0xC6,
    "PersistentSubscriptionStreamEventAppeared": 0xC7,
    "CreatePersistentSubscription": 0xC8,
    "CreatePersistentSubscriptionCompleted": 0xC9,
    "DeletePersistentSubscription": 0xCA,
    "DeletePersistentSubscriptionCompleted": 0xCB,
    "PersistentSubscriptionAckEvents": 0xCC,
    "PersistentSubscriptionNakEvents": 0xCD,
    "UpdatePersistentSubscription": 0xCE,
    "UpdatePersistentSubscriptionCompleted": 0xCF,
    "FilteredSubscribeToStream": 0xD2,
    "CheckpointReached": 0xD3,
    "BadRequest": 0xF0,
    "NotHandled": 0xF1,
    "Authenticate": 0xF2,
    "Authenticated": 0xF3,
    "NotAuthenticated": 0xF4,
    "IdentifyClient": 0xF5,
    "ClientIdentified": 0xF6,
}
NAMES = {number: name for name, number in COMMANDS.items()}

REPLIES = {
    "Ping": "Pong",
    "WriteEvents": "WriteEventsCompleted",
    "TransactionStart": "TransactionStartCompleted",
    "TransactionWrite": "TransactionWriteCompleted",
    "TransactionCommit": "TransactionCommitCompleted",
    "DeleteStream": "DeleteStreamCompleted",
    "ReadEvent": "ReadEventCompleted",
    "ReadStreamEventsForward": "ReadStreamEventsForwardCompleted",
    "ReadStreamEventsBackward": "ReadStreamEventsBackwardCompleted",
    "ReadAllEventsForward": "ReadAllEventsForwardCompleted",
    "ReadAllEventsBackward": "ReadAllEventsBackwardCompleted",
    "FilteredReadAllEventsForward": "FilteredReadAllEventsForwardCompleted",
    "FilteredReadAllEventsBackward": "FilteredReadAllEventsBackwardCompleted",
    "SubscribeToStream": "SubscriptionConfirmation",
    "FilteredSubscribeToStream": "SubscriptionConfirmation",
    "UnsubscribeFromStream": "SubscriptionDropped",
    "ConnectToPersistentSubscription": "PersistentSubscriptionConfirmation",
    "CreatePersistentSubscription": "CreatePersistentSubscriptionCompleted",
    "UpdatePersistentSubscription": "UpdatePersistentSubscriptionCompleted",
    "DeletePersistentSubscription": "DeletePersistentSubscriptionCompleted",
}


class Request(NamedTuple):
    """One frame the client sent."""

    command: str
    flags: int
    id: bytes
    payload: bytes
    login: str | None = None
    password: str | None = None
    token: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        return PROTO2.decode(PAYLOADS[COMMANDS[self.command]], self.payload)

    @property
    def event_ids(self) -> list[bytes]:
        return [event["event_id"] for event in self.fields["events"]]


def frame(command: str | int, id: bytes, payload: bytes = b"") -> bytes:
    number = COMMANDS[command] if isinstance(command, str) else command
    return struct.pack("<iBB16s", 18 + len(payload), number, 0, id) + payload


def parse(data: bytes) -> Request:
    """A frame without its length prefix."""
    command, flags, request_id = struct.unpack_from("<BB16s", data)
    name, rest = NAMES[command], data[18:]
    if not flags & AUTHENTICATED:
        return Request(name, flags, request_id, rest)
    (sign,) = struct.unpack_from("<h", rest)
    if sign < 0:
        token, rest = rest[2 : 2 - sign], rest[2 - sign :]
        return Request(name, flags, request_id, rest, token=token.decode("ascii"))
    login, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    password, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    return Request(name, flags, request_id, rest, login.decode(), password.decode())


class Link:
    """One connection of the client, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self, *, heartbeats: bool = False) -> Request:
        """The next frame. Heartbeats are answered and passed over unless asked for.

        Raises asyncio.IncompleteReadError when the client has closed.
        """
        while True:
            prefix = await self._reader.readexactly(4)
            request = parse(await self._reader.readexactly(int.from_bytes(prefix, "little")))
            if heartbeats or not request.command.startswith("Heartbeat"):
                return request
            if request.command == "HeartbeatRequest":
                self.send("HeartbeatResponse", request.id)

    async def expect(self, command: str) -> Request:
        request = await self.receive(heartbeats=command.startswith("Heartbeat"))
        assert request.command == command
        return request

    async def nothing_more(self) -> None:
        """Fails if the client has sent anything, or does so because of what we sent it.

        Its answers to two heartbeats show that it had the chance: it answers the first one before
        it looks at anything else that arrived.
        """
        for _ in range(2):
            self.send("HeartbeatRequest", MARKER)
            request = await self.receive(heartbeats=True)
            assert (request.command, request.id) == ("HeartbeatResponse", MARKER)

    async def closed(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def send(self, command: str | int, id: bytes, payload: bytes = b"") -> None:
        self._writer.write(frame(command, id, payload))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def reply(self, request: Request, command: str | None = None, **fields: Any) -> None:
        """Answer with the command that belongs to the request, or another one."""
        self.send_raw(reply_to(request, command, **fields))

    def refuse(self, request: Request, command: str, text: str = "") -> None:
        self.send(command, request.id, text.encode())

    async def handshake(self) -> list[Request]:
        """Accept whatever the client says of itself."""
        requests = []
        while True:
            request = await self.receive()
            requests.append(request)
            if request.command == "IdentifyClient":
                self.send("ClientIdentified", request.id)
                return requests
            assert request.command == "Authenticate"
            self.send("Authenticated", request.id)

    async def cut(self) -> None:
        """Close the connection once what was sent is with the client."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()


MARKER = b"is anything here"


def reply_to(request: Request, command: str | None = None, **fields: Any) -> bytes:
    name = command or REPLIES[request.command]
    payload = PROTO2.encode(PAYLOADS[COMMANDS[name]], fields) if fields else b""
    return frame(name, request.id, payload)


def leader_info(port: int, host: str = "127.0.0.1", secure_port: int = 0) -> bytes:
    """Where the leader is, as a NotHandled of the reason NotMaster carries it."""
    fields: dict[str, Any] = {"external_tcp_address": host, "external_tcp_port": port}
    fields |= {"http_address": host, "http_port": 2113}
    if secure_port:
        fields["external_secure_tcp_address"] = host
        fields["external_secure_tcp_port"] = secure_port
    return PROTO2.encode("LeaderInfo", fields)


class Peer:
    """Listens on a port of this machine, a free one by default."""

    host = "127.0.0.1"

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._arrived: asyncio.Queue[Link] = asyncio.Queue()
        self._links: list[Link] = []
        self.connections = 0

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._on_connection, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for link in self._links:
            link.abort()
        for link in self._links:
            await link.cut()
        await self._server.wait_closed()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._links.append(Link(reader, writer))
        self._arrived.put_nowait(self._links[-1])

    async def accept(self) -> Link:
        """The next connection, before its handshake."""
        return await self._arrived.get()

    async def accept_and_greet(self) -> Link:
        link = await self.accept()
        await link.handshake()
        return link

    def client(self, **options: Any) -> fastpump.Client:
        """A client of this server that loses no time when it has to connect again.

        It does not take the server's silence for its end, unless asked to: a test that waits for
        the end of a connection waits for the one it means.
        """
        options = {"reconnect_delay": 0.01, "heartbeat_interval": 60.0, **options}
        return fastpump.connect(self.host, self.port, **options)

    async def connect(self, **options: Any) -> tuple[fastpump.Client, Link]:
        """A connected client and the server's end of its connection."""
        client = self.client(**options)
        link, _ = await asyncio.gather(self.accept_and_greet(), client.connect())
        return client, link


@contextlib.asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[fastpump.Client, Link, Peer]]:
    async with Peer() as peer:
        client, link = await peer.connect(**options)
        try:
            yield client, link, peer
        finally:
            await client.close()


def soon(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start it now and let it run as far as it gets in this turn of the loop."""
    return asyncio.get_running_loop().create_task(work)


Answer = Callable[[Request], "bytes | None"]


@contextlib.asynccontextmanager
async def serving(link: Link, answer: Answer) -> AsyncIterator[list[Request]]:
    """Answer every request by a function, whose None means no answer. Gives the requests so far."""
    requests: list[Request] = []

    async def serve() -> None:
        try:
            while True:
                request = await link.receive()
                requests.append(request)
                reply = answer(request)
                if reply is not None:
                    link.send_raw(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    task = soon(serve())
    try:
        yield requests
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait for something that nothing tells of; the runner's patience bounds it."""
    while not condition():  # an event nobody sets
        await asyncio.sleep(0.005)


async def outcome(work: Awaitable[Any]) -> BaseException | None:
    """The exception it ends with."""
    try:
        await work
    except Exception as error:
        return error
    return None
