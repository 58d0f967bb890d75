"""One connection: bytes to frames, frames to answers, answers to bytes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast
from uuid import uuid4

from fastpump._commands import FLAG_AUTHENTICATED, FLAG_TRUSTED_WRITE, Command
from fastpump._framing import Framer
from fastpump.server import _replies as replies
from fastpump.server._all_reads import read_all
from fastpump.server._asking import Asker, Sources
from fastpump.server._event_reads import read_event
from fastpump.server._filtered_reads import read_filtered
from fastpump.server._heartbeat import Heartbeat
from fastpump.server._messages import decode_message, encode_reply
from fastpump.server._scavenge import scavenge
from fastpump.server._stream_reads import read_stream
from fastpump.server._transactions import CommitTransaction, StartTransaction, WriteTransaction
from fastpump.server._unsent import UnsentPushes
from fastpump.server._writes import DeleteStream, WriteEvents
from fastpump.server.errors import InvalidRequest, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastpump._framing import Frame
    from fastpump.server._access import User
    from fastpump.server._gate import Check
    from fastpump.server._subscriptions import Subscriptions
    from fastpump.server._users import Users
    from fastpump.server._writer import Client, Group, Operation, Writer
    from fastpump.server.groups.service import Groups

log = logging.getLogger("fastpump.server")

NO_ID = bytes(16)
"""The empty correlation id: a message about the connection, not about a request."""

FLUSH_BYTES = 256 * 1024
"""Replies gathered before they are handed to the transport."""
PENDING_BYTES = 8 * 1024 * 1024
"""Unanswered writes of one client, in bytes, at which we stop reading from it."""

PUSH_LIMIT = 10 * 1024 * 1024
"""Pushes waiting for a client, in bytes, at which it is cut off (section 1.3)."""
PUSH_COUNT_LIMIT = 50_000
"""The same in packages."""
LAST_WORDS_SECONDS = 5.0
"""How long a client has to take what is on its way when its connection is closed."""

BAD_VERSION = "Index was outside the bounds of the array."
"""What the original says to every request of a client whose protocol version it does not know."""


class BadPackage(Exception):
    """A frame whose auth block does not fit it: the connection ends."""


class Credentials(NamedTuple):
    login: str
    password: str

    def __repr__(self) -> str:
        return f"<Credentials of {self.login!r}>"


class Limits(NamedTuple):
    """Times in seconds, sizes in bytes; see `run`."""

    heartbeat_interval: float
    heartbeat_timeout: float
    push_limit: int
    push_count_limit: int = PUSH_COUNT_LIMIT


class Sessions:
    """The open sessions of a node.

    Attributes:
        empty: set while there are none.
        are_wanted: new ones may come. A connection may be under way still when a node has stopped
            listening; it is cut off then.
    """

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self.are_wanted = True
        self.empty = asyncio.Event()
        self.empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        """Those open at this moment; they may close meanwhile."""
        return iter(list(self._open))

    def add(self, session: Session) -> None:
        self._open.add(session)
        self.empty.clear()
        if not self.are_wanted:
            session.abort()

    def discard(self, session: Session) -> None:
        self._open.discard(session)
        if not self._open:
            self.empty.set()


class Services(NamedTuple):
    """What all sessions of a node share."""

    loop: asyncio.AbstractEventLoop
    sources: Sources
    writer: Writer
    subscriptions: Subscriptions
    groups: Groups
    users: Users
    limits: Limits
    sessions: Sessions
    gate: list[Check]


def read_auth_block(body: memoryview) -> tuple[Credentials, int]:
    """The credentials at the start of a body, and where the payload begins (section 1.2).

    As in the original, an empty password must be followed by a payload.

    Raises:
        BadPackage: a length does not fit.
    """
    size = len(body)
    if size == 0:
        raise BadPackage("No auth block.")
    end_of_login = 1 + body[0]
    if end_of_login + 1 >= size:
        raise BadPackage("Login length is too big, it does not fit into TcpPackage.")
    end = end_of_login + 1 + body[end_of_login]
    if end > size:
        raise BadPackage("Password length is too big, it does not fit into TcpPackage.")
    login = str(body[1:end_of_login], "utf-8", "replace")
    return Credentials(login, str(body[end_of_login + 1 : end], "utf-8", "replace")), end


class _AfterWrites:
    """Something that waits for the writes its client sent before it."""

    __slots__ = ("_action", "client", "size")

    def __init__(self, client: Client, action: Callable[[], None]) -> None:
        self.client = client
        self.size = 0
        self._action = action

    def execute(self, group: Group) -> bool:
        group.reply(self.client, self._action)
        return True

    def fail(self, problem: str) -> bytes:
        # That the writes failed is no reason not to do this.
        self._action()
        return b""


class Session(asyncio.BufferedProtocol):
    """The node's end of one connection.

    Replies are gathered and leave in one write. While the client does not take them, or has too
    much waiting to be written, nothing more is read from it; frames that are here already wait in
    `_backlog`.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._replies: list[bytes] = []
        self._replies_size = 0
        self._backlog: deque[Frame] = deque()
        self._failure: bytes | None = None
        self._unsent = UnsentPushes()
        self._is_choked = False
        self._is_reading = True
        self._is_stopped = False
        self._pending = 0
        self._pending_size = 0
        self._version = 0
        self._default: Credentials | None = None

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=4 * FLUSH_BYTES)
        limits = self._services.limits
        self._heartbeat = Heartbeat(
            self._services.loop,
            interval=limits.heartbeat_interval,
            timeout=limits.heartbeat_timeout,
            is_excused=lambda: not self._is_reading,
            send=self._send_heartbeat,
            give_up=self.close,
        )
        self._services.sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            # Nothing is left to close, but TLS transports of Python 3.10 want it said.
            self._transport.close()
            self._transport = None
        self._heartbeat.stop()
        # It knows us: together we would stay, with all our memory, until cycles are looked for.
        del self._heartbeat
        self.stop()
        self._replies.clear()
        self._services.subscriptions.forget(self)
        self._services.groups.forget(self)
        self._services.sessions.discard(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._framer.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._heartbeat.heard = True
        if self._is_stopped:
            return
        frames = self._framer.commit(nbytes)
        if self._framer.error is not None:
            text = f"Invalid TCP frame received. Error: {self._framer.error}"
            self._failure = replies.bad_request(NO_ID, text)
        self._backlog.extend(frames)
        self._work_off()

    def pause_writing(self) -> None:
        self._is_choked = True

    def resume_writing(self) -> None:
        self._is_choked = False
        self._work_off()

    # --- what the writer calls ---

    def deliver(self, reply: bytes) -> None:
        self._replies.append(reply)
        self._replies_size += len(reply)
        if self._replies_size >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        replies_, self._replies = self._replies, []
        self._replies_size = 0
        if self._transport is not None and replies_:
            self._transport.write(replies_[0] if len(replies_) == 1 else b"".join(replies_))

    def push(self, frames: bytes, packages: int = 1) -> None:
        """Queue pushes. They cannot be held back, so who does not read them is cut off.

        What counts are earlier pushes: nobody is cut off for a single large one.
        """
        if self._transport is None or self._is_stopped:
            return
        waiting = self._transport.get_write_buffer_size() + self._replies_size
        self._unsent.settle(waiting)
        limits = self._services.limits
        if waiting > limits.push_limit:
            self._cut_off(f"Connection pending send bytes is too large: {waiting}.")
        elif self._unsent.packages > limits.push_count_limit:
            self._cut_off(f"Connection queue size is too large: {self._unsent.packages}.")
        else:
            self._unsent.add(len(frames), packages)
            self.deliver(frames)

    def _cut_off(self, text: str) -> None:
        self._services.subscriptions.forget(self)
        self._end(replies.bad_request(NO_ID, text))

    def operation_done(self, size: int) -> None:
        self._pending -= 1
        self._pending_size -= size
        if self._backlog or not self._is_reading:
            self._work_off()

    # --- the flow of frames ---

    def stop(self) -> None:
        """Handle no more requests; replies to earlier ones are still delivered."""
        self._is_stopped = True
        self._backlog.clear()

    def close(self) -> None:
        """Send what is waiting to be sent, then close; who does not take it is not waited for."""
        self.stop()
        if self._transport is not None:
            self.flush()
            self._transport.close()
            self._services.loop.call_later(LAST_WORDS_SECONDS, self.abort)

    def interpose(self, wrap: Callable[[asyncio.Transport], asyncio.Transport]) -> None:
        """Send through another transport from now on (see `faults`)."""
        if self._transport is not None:
            self._transport = wrap(self._transport)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether the connection is there; replies to one that is not are lost."""
        return self._transport is not None

    @property
    def peer(self) -> str:
        """Address and port of the client."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        return "" if peer is None else f"{peer[0]}:{peer[1]}"

    @property
    def _is_full(self) -> bool:
        return self._is_choked or self._pending_size > PENDING_BYTES

    def _work_off(self) -> None:
        """Handle frames until the client has to wait."""
        backlog = self._backlog
        while backlog and not self._is_full:
            self._handle(backlog.popleft())
        if self._failure is not None and not backlog and not self._is_stopped:
            self._end(self._failure)
        self.flush()
        self._read_if(not self._is_full and not backlog and self._failure is None)

    def _read_if(self, wanted: bool) -> None:
        if self._transport is None or wanted == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _end(self, message: bytes) -> None:
        """Say why, and close: the client broke the protocol."""
        self.deliver(message)
        self.close()

    def _handle(self, frame: Frame) -> None:
        try:
            self._dispatch(frame)
        except InvalidRequest as error:
            reply = replies.not_understood(frame.correlation_id, frame.command, str(error))
            self.deliver(reply)
        except BadPackage as error:
            text = f"Received bad network package. Error: {error}"
            self._end(replies.bad_request(NO_ID, text))
        except Exception as error:
            log.exception("A %s request failed", frame.command)
            self._end(replies.bad_request(frame.correlation_id, f"Error: {error}"))

    def _dispatch(self, frame: Frame) -> None:
        if frame.flags & FLAG_TRUSTED_WRITE:
            text = "Trusted writes aren't accepted over the external TCP interface"
            self._end(replies.bad_request(frame.correlation_id, text))
            return
        credentials, offset = self._default, 0
        if frame.flags & FLAG_AUTHENTICATED:
            credentials, offset = read_auth_block(frame.body)
        open_handler = self._open_handlers.get(frame.command)
        if open_handler is not None:
            open_handler(self, frame, offset)
            return
        if not 0 <= self._version <= 1:
            raise InvalidRequest(BAD_VERSION)
        user = None
        if credentials is not None:
            user = self._services.users.authenticate(*credentials)
            if user is None:
                reply = replies.not_authenticated(frame.correlation_id, "Not Authenticated")
                self.deliver(reply)
                return
        handler = self._handlers.get(frame.command)
        if handler is None:
            raise InvalidRequest("")
        if not (self._services.gate and self._is_refused(frame, offset)):
            handler(self, frame, user, offset)

    def _is_refused(self, frame: Frame, offset: int) -> bool:
        for check in self._services.gate:
            refusal = check(self, frame, offset)
            if refusal is not None:
                if refusal:
                    self.deliver(refusal)
                return True
        return False

    # --- frames that need no authentication ---

    def _send_heartbeat(self) -> None:
        self.deliver(encode_reply(Command.HeartbeatRequest, uuid4().bytes))
        self.flush()

    def _on_heartbeat(self, frame: Frame, offset: int) -> None:
        self.deliver(encode_reply(Command.HeartbeatResponse, frame.correlation_id))

    def _on_nothing(self, frame: Frame, offset: int) -> None:
        """Taken note of by having arrived."""

    def _on_identify(self, frame: Frame, offset: int) -> None:
        try:
            self._version, _ = decode_message(frame, offset, "is")
        except InvalidRequest:
            return
        self.deliver(encode_reply(Command.ClientIdentified, frame.correlation_id))

    def _on_authenticate(self, frame: Frame, offset: int) -> None:
        correlation_id = frame.correlation_id
        if not frame.flags & FLAG_AUTHENTICATED:
            text = "No user credentials provided."
            self.deliver(replies.not_authenticated(correlation_id, text))
            return
        # Wrong ones stay too: from then on every request without its own is refused (section 4.2).
        self._default, _ = read_auth_block(frame.body)
        if self._services.users.authenticate(*self._default) is None:
            self.deliver(replies.not_authenticated(correlation_id, "Unauthorized"))
        else:
            self.deliver(encode_reply(Command.Authenticated, correlation_id))

    # --- requests ---

    def _on_ping(self, frame: Frame, user: User | None, offset: int) -> None:
        reply = encode_reply(Command.Pong, frame.correlation_id, frame.body[offset:])
        self.deliver(reply)

    def _on_write(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._submit(WriteEvents(self, user, frame, offset))

    def _on_delete(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._submit(DeleteStream(self, user, frame, offset))

    def _on_transaction(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._submit(self._transaction_steps[frame.command](self, user, frame, offset))

    def _submit(self, operation: Operation) -> None:
        self._pending += 1
        self._pending_size += operation.size
        self._services.writer.submit(operation)

    def _on_scavenge(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self.deliver(scavenge(user, frame, offset))

    def _on_subscribe(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        asker = Asker(user, self._version == 0)
        self._services.subscriptions.subscribe(self, asker, frame, offset)

    def _on_unsubscribe(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._services.subscriptions.unsubscribe(frame.correlation_id)
        self._after_writes(partial(self._services.groups.unsubscribe, frame.correlation_id))

    def _on_group_change(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._submit(self._services.groups.change(self, user, frame, offset))

    def _on_group_connect(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        asker = Asker(user, self._version == 0)
        self._after_writes(self._services.groups.connect(self, asker, frame, offset))

    def _on_group_answer(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        self._services.groups.answer(frame, offset)

    def _on_read(self, frame: Frame, user: User | None, offset: int) -> None:
        require_id(frame)
        read = self._readers[frame.command]
        asker = Asker(user, self._version == 0)

        def answer() -> None:
            try:
                reply = read(self._services.sources, asker, frame, offset)
            except InvalidRequest as error:
                reply = replies.not_understood(frame.correlation_id, frame.command, str(error))
            except StoreError as error:
                reply = replies.bad_request(frame.correlation_id, str(error))
            self.deliver(reply)

        self._after_writes(answer)

    def _after_writes(self, action: Callable[[], None]) -> None:
        """Do this when the client's earlier writes are done: it may depend on them."""
        if self._pending:
            self._submit(_AfterWrites(self, action))
        else:
            action()

    _open_handlers: ClassVar[dict[int, Callable[[Session, Frame, int], None]]] = {
        Command.HeartbeatRequest: _on_heartbeat,
        Command.HeartbeatResponse: _on_nothing,
        Command.BadRequest: _on_nothing,
        Command.IdentifyClient: _on_identify,
        Command.Authenticate: _on_authenticate,
        # The original takes this one for an answer of another node.
        Command.WriteEventsCompleted: _on_nothing,
    }

    _handlers: ClassVar[dict[int, Callable[[Session, Frame, User | None, int], None]]] = {
        Command.Ping: _on_ping,
        Command.WriteEvents: _on_write,
        Command.DeleteStream: _on_delete,
        Command.TransactionStart: _on_transaction,
        Command.TransactionWrite: _on_transaction,
        Command.TransactionCommit: _on_transaction,
        Command.SubscribeToStream: _on_subscribe,
        Command.FilteredSubscribeToStream: _on_subscribe,
        Command.ScavengeDatabase: _on_scavenge,
        Command.UnsubscribeFromStream: _on_unsubscribe,
        Command.CreatePersistentSubscription: _on_group_change,
        Command.UpdatePersistentSubscription: _on_group_change,
        Command.DeletePersistentSubscription: _on_group_change,
        Command.ConnectToPersistentSubscription: _on_group_connect,
        Command.PersistentSubscriptionAckEvents: _on_group_answer,
        Command.PersistentSubscriptionNakEvents: _on_group_answer,
        Command.ReadEvent: _on_read,
        Command.ReadStreamEventsForward: _on_read,
        Command.ReadStreamEventsBackward: _on_read,
        Command.ReadAllEventsForward: _on_read,
        Command.ReadAllEventsBackward: _on_read,
        Command.FilteredReadAllEventsForward: _on_read,
        Command.FilteredReadAllEventsBackward: _on_read,
    }

    _transaction_steps: ClassVar[
        dict[int, Callable[[Client, User | None, Frame, int], Operation]]
    ] = {
        Command.TransactionStart: StartTransaction,
        Command.TransactionWrite: WriteTransaction,
        Command.TransactionCommit: CommitTransaction,
    }

    _readers: ClassVar[dict[int, Callable[[Sources, Asker, Frame, int], bytes]]] = {
        Command.ReadEvent: read_event,
        Command.ReadStreamEventsForward: read_stream,
        Command.ReadStreamEventsBackward: read_stream,
        Command.ReadAllEventsForward: read_all,
        Command.ReadAllEventsBackward: read_all,
        Command.FilteredReadAllEventsForward: read_filtered,
        Command.FilteredReadAllEventsBackward: read_filtered,
    }


def require_id(frame: Frame) -> None:
    """Requests need a correlation id (section 5.6)."""
    if frame.correlation_id == NO_ID:
        raise InvalidRequest("no correlation id")
