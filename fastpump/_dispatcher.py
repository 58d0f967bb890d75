"""Which operation a frame belongs to.

The dispatcher owns the table from correlation id to operation and nothing else: it knows neither
sockets (it is handed a function that sends) nor what an operation does with a frame.

Compiled, as `_operation` is; `_dispatcher.pxd` says what of it lies in a C structure.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID

from fastpump._commands import Command, name_of
from fastpump._framing import Frame
from fastpump._ids import CorrelationIds
from fastpump._operation import Operation
from fastpump._outlet import Outlet
from fastpump._settings import ConnectionSettings
from fastpump.exceptions import (
    BadRequest,
    ConversationException,
    FastpumpError,
    NotMaster,
    OperationExpired,
    RetriesLimitReached,
    UsageError,
)

LOG = logging.getLogger("fastpump.dispatcher")

RETRY_DELAY = 0.1
"""Seconds, times the attempts made, before a request is repeated that a node was not ready for."""

LONGEST_RETRY_DELAY = 1.0
"""Seconds, the most of that."""

NOT_LOOKED_AT = 0.0
"""The deadline of an operation that was sent since the deadlines were last looked at.

Its time begins when they are looked at: most operations have ended by then, and reading the clock
for each takes longer than finding out which operation a reply belongs to.
"""

_NO_ID = bytes(16)
_HEARTBEATS = (Command.HeartbeatRequest, Command.HeartbeatResponse)

Send = Callable[[bytes], None]

Follow = Callable[[NotMaster], bool]


class Dispatcher(Outlet):
    """The operations that wait for a reply.

    An operation that was sent may wait for its reply for its own `timeout`. One that was not, since
    there is no connection, may wait for the settings' `queue_timeout`, as may callers in `room()`.

    Attributes:
        follow: tells whether the connection is left for one to the leader that a NotMaster names.

    Args:
        settings: their `max_in_flight` (from this many operations on it `is_full`), `max_attempts`,
            `max_queue`, `queue_timeout` and `fail_on_no_response`.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(CorrelationIds())
        self.unknown_frames = 0
        self.follow: Follow = lambda _: False
        self._full = False
        self._clock = asyncio.get_running_loop().time
        self._max_in_flight = settings.max_in_flight
        self._max_attempts = math.inf if settings.max_attempts == -1 else settings.max_attempts
        self._max_queue = settings.max_queue
        self._queue_timeout = math.inf if settings.queue_timeout is None else settings.queue_timeout
        self._fail_on_no_response = settings.fail_on_no_response
        self._operations: dict[bytes, Operation] = {}
        # Those that are never sent again, and have no deadline: the handshake, and what has been
        # answered already and whose replies go on. They take no place of one that is under way.
        self._standing: dict[bytes, Operation] = {}
        self._send: Send | None = None
        self._closed_by: FastpumpError | None = None
        self._paused = False
        # Callers that wait for a place, with the time until which; at the door those for whom
        # there is no room in the queue. In the order in which they came, and any may leave.
        self._queue: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        self._door: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        # Callers that were given a place and have not run since.
        self._admitted = 0
        self._known_unknowns: set[int] = set()

    @property
    def in_flight(self) -> int:
        """Operations sent, or waiting for a connection."""
        return len(self._operations)

    @property
    def waiting(self) -> int:
        """Callers in `room()`."""
        return len(self._queue) + len(self._door)

    @property
    def subscriptions(self) -> int:
        """Operations whose replies go on."""
        return len(self._standing) if self._send is not None else 0

    def is_full(self) -> bool:
        return self._full

    def start(self, operation: Operation) -> None:
        """Enter the operation and send it now, or once there is a connection.

        Raises:
            FastpumpError: what the dispatcher was closed with.
            UsageError: the correlation id, chosen by the user, is in use.
        """
        if self._closed_by is not None:
            raise self._closed_by.with_traceback(None)
        correlation_id = operation.correlation_id
        if (
            correlation_id in self._standing
            or self._operations.setdefault(correlation_id, operation) is not operation
        ):
            raise UsageError("correlation_id", "belongs to an operation that is under way")
        if self._send is None:
            operation.deadline = self._clock() + self._queue_timeout
        else:
            operation.deadline = NOT_LOOKED_AT
            operation.attempts += 1
            self._send(operation.frame)
        if len(self._operations) + self._admitted >= self._max_in_flight:
            self._full = True

    def send_now(self, frame: bytes) -> None:
        if self._send is not None:
            self._send(frame)

    def enter(self, operation: Operation) -> None:
        """Enter an operation that its caller sends and times: the handshake of a new connection."""
        self._standing[operation.correlation_id] = operation

    def forget(self, operation: Operation) -> None:
        """The caller of `enter` waits no more."""
        self._standing.pop(operation.correlation_id, None)

    def dispatch(self, frames: list[Frame]) -> None:
        """Hand each frame to its operation; count those that have none.

        Raises:
            ProtocolError: a frame's body could not be decoded. The operation it was for has failed;
                the frames behind it are lost with the connection.
            BadRequest: the server refuses the connection itself.
        """
        operations, retry = self._operations, self.retry
        for frame in frames:
            correlation_id = frame.correlation_id
            operation = operations.pop(correlation_id, None)
            if operation is None:
                self._dispatch_standing(frame)
            elif not operation.on_frame(frame, retry):
                self._standing[correlation_id] = operation
        if self._full:
            self._admit()

    def connected(self, send: Send) -> None:
        """There is a usable connection: send everything that waits, with new correlation ids."""
        self._send = send
        waiting = list(self._operations.values())
        self._operations.clear()
        for operation in waiting:
            if not operation.is_abandoned:
                self._renew(operation)
                self._send_again(operation, operation.correlation_id)
        self._admit()

    def disconnected(self, error: FastpumpError) -> None:
        """The connection is gone.

        Operations that may not be sent again, and those whose replies go on, fail with `error`.
        """
        self._send = None
        self._paused = False
        self._fail_standing(error)
        deadline = self._clock() + self._queue_timeout
        for correlation_id, operation in list(self._operations.items()):
            if operation.is_abandoned or self._stays_unanswered(operation, error):
                del self._operations[correlation_id]
            operation.deadline = deadline
        self._admit()

    def retry(self, operation: Operation, error: ConversationException) -> None:
        """Send an operation again that a node did not handle now, unless that was often enough.

        That is done in a moment, or on the next connection if this one is left for the leader's.
        """
        if operation.is_abandoned or self._was_sent_often_enough(operation, error):
            return
        self._renew(operation)
        if isinstance(error, NotMaster) and self.follow(error):
            return
        delay = min(operation.attempts * RETRY_DELAY, LONGEST_RETRY_DELAY)
        asyncio.get_running_loop().call_later(
            delay, self._send_again, operation, operation.correlation_id
        )

    def close(self, error: FastpumpError) -> None:
        """Fail everything that waits, and whatever is started from now on.

        An operation may send its last word while it fails.
        """
        self._closed_by = error
        operations = list(self._operations.values())
        self._operations.clear()
        for operation in operations:
            operation.fail(error)
        self._fail_standing(error)
        self._send = None
        self._full = False
        for waiter in (*self._queue, *self._door):
            if not waiter.done():
                waiter.set_exception(error.with_traceback(None))
        self._queue.clear()
        self._door.clear()

    def check_deadlines(self, now: float) -> None:
        """See to operations and callers whose time is over; `now` is the event loop's clock.

        One that nobody waits for any more stays as long as a reply to it may come, so that this is
        not taken for an unknown one.
        """
        for operation in list(self._operations.values()):
            if operation.deadline == NOT_LOOKED_AT:
                operation.deadline = now + operation.timeout
            elif operation.deadline <= now:
                del self._operations[operation.correlation_id]
                if not operation.is_abandoned:
                    self._on_deadline(operation)
            elif operation.is_abandoned and self._is_unsent(operation):
                del self._operations[operation.correlation_id]
        while self._queue and next(iter(self._queue.values())) <= now:
            waiter = self._next_in_queue()
            if not waiter.done():
                waiter.set_exception(OperationExpired(None, self._queue_timeout))
        if self._full:  # somebody may not have used a place
            self._admit()

    def _is_unsent(self, operation: Operation) -> bool:
        return self._send is None or operation.deadline == math.inf

    def _on_deadline(self, operation: Operation) -> None:
        if self._send is None:
            conversation_id = UUID(bytes_le=operation.correlation_id)
            operation.fail(OperationExpired(conversation_id, self._queue_timeout))
            return
        error = operation.no_reply()
        if (frame := operation.take_back()) is not None:
            self._send(frame)
        if self._fail_on_no_response:
            operation.fail(error)
        elif not self._stays_unanswered(operation, error):
            self._renew(operation)
            self._send_again(operation, operation.correlation_id)

    def pause(self) -> None:
        """The connection cannot take more bytes for now."""
        if self._closed_by is None:
            self._paused = True
            self._full = True

    def resume(self) -> None:
        self._paused = False
        self._admit()

    async def room(self) -> None:
        """Wait until another operation may be started, which has to be done at once then.

        Callers get their places in the order in which they came.

        Raises:
            OperationExpired: there was none within the settings' `queue_timeout`. The time before
                the caller is one of the first `max_queue` that wait does not count.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._queue) < self._max_queue:
            self._queue[waiter] = self._clock() + self._queue_timeout
        else:
            self._door[waiter] = None
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._leave(waiter)
            elif waiter.exception() is None:
                # One that was let in but will not use its place passes it on.
                self._admitted -= 1
                self._admit()
            raise
        self._admitted -= 1

    def _admit(self) -> None:
        if self._closed_by is not None:
            return
        places = self._max_in_flight - len(self._operations) - self._admitted
        while places > 0 and self._queue and not self._paused:
            waiter = self._next_in_queue()
            if not waiter.done():
                waiter.set_result(None)
                self._admitted += 1  # who comes before it runs must not take its place
                places -= 1
        self._full = self._paused or places <= 0

    def _next_in_queue(self) -> asyncio.Future[None]:
        """Take out the one who came first."""
        waiter, _ = self._queue.popitem(last=False)
        self._open_door()
        return waiter

    def _leave(self, waiter: asyncio.Future[None]) -> None:
        self._door.pop(waiter, None)
        self._queue.pop(waiter, None)
        self._open_door()

    def _open_door(self) -> None:
        while self._door and len(self._queue) < self._max_queue:
            waiter, _ = self._door.popitem(last=False)
            self._queue[waiter] = self._clock() + self._queue_timeout

    def _dispatch_standing(self, frame: Frame) -> None:
        operation = self._standing.get(frame.correlation_id)
        if operation is None:
            self._count_unknown(frame)
            return
        ended = True
        try:
            ended = operation.on_frame(frame, _give_up)
        finally:
            if ended:
                del self._standing[frame.correlation_id]

    def _fail_standing(self, error: FastpumpError) -> None:
        operations = list(self._standing.values())
        self._standing.clear()
        for operation in operations:
            operation.fail(error)

    def _stays_unanswered(self, operation: Operation, error: FastpumpError) -> bool:
        """Whether it ends here, because `error` came instead of a reply to the last attempt."""
        # What a node has answered that it does not handle now has no deadline: it is to be sent.
        was_sent = operation.attempts > 0 and operation.deadline < math.inf
        if was_sent and not operation.is_repeatable:
            operation.fail(error)
            return True
        return self._was_sent_often_enough(operation, error)

    def _was_sent_often_enough(self, operation: Operation, error: FastpumpError) -> bool:
        """Whether it ends here, because the last attempt failed with `error`."""
        if operation.attempts < self._max_attempts:
            return False
        conversation_id = UUID(bytes_le=operation.correlation_id)
        operation.fail(RetriesLimitReached(conversation_id, operation.attempts, error))
        return True

    def _renew(self, operation: Operation) -> None:
        """Enter the operation under a new correlation id, so that no late reply can meet it."""
        operation.deadline = math.inf  # until it is sent
        operation.correlation_id = self.correlation_ids.next()
        # Command and flags stand before the correlation id, auth block and payload behind it.
        operation.frame = operation.frame[:6] + operation.correlation_id + operation.frame[22:]
        self._operations[operation.correlation_id] = operation

    def _send_again(self, operation: Operation, correlation_id: bytes) -> None:
        """Send it unless a reconnect has done so, it has ended, or there is no connection."""
        waits = self._operations.get(correlation_id) is operation
        if waits and self._send is not None and not operation.is_abandoned:
            operation.attempts += 1
            operation.deadline = NOT_LOOKED_AT
            self._send(operation.frame)

    def _count_unknown(self, frame: Frame) -> None:
        if frame.command in _HEARTBEATS:
            return  # the protocol has seen to it
        if frame.command == Command.BadRequest and frame.correlation_id == _NO_ID:
            # Not about one request: the server closes now (protocol document, section 1.3).
            raise BadRequest(None, bytes(frame.body).decode(errors="replace"))
        self.unknown_frames += 1
        if frame.command not in self._known_unknowns:
            self._known_unknowns.add(frame.command)
            LOG.info(
                "%s for an operation that is not known, or no more; ignored", name_of(frame.command)
            )


def _give_up(operation: Operation, error: ConversationException) -> None:
    """In place of a retry."""
    operation.fail(error)
