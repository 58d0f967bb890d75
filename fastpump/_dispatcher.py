"""Which operation a frame belongs to.

The dispatcher owns the table from correlation id to operation and nothing else: it knows neither
sockets (it is handed a function that sends) nor what an operation does with a frame.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from fastpump._commands import Command, name_of
from fastpump._framing import Frame
from fastpump._ids import CorrelationIds
from fastpump.exceptions import (
    BadRequest,
    ConversationException,
    FastpumpError,
    NotMaster,
    ProtocolError,
    UsageError,
)

LOG = logging.getLogger("fastpump.dispatcher")

RETRY_DELAY = 0.1
"""Seconds, times the attempts made, before a request is repeated that a node was not ready for."""

LONGEST_RETRY_DELAY = 1.0
"""Seconds, the most of that."""

_NO_ID = bytes(16)
_HEARTBEATS = (Command.HeartbeatRequest, Command.HeartbeatResponse)

Send = Callable[[bytes], None]

Retry = Callable[[Any, ConversationException], None]

Follow = Callable[[NotMaster], bool]


class Operation(Protocol):
    """What the dispatcher needs of an operation; `_operations` has them."""

    frame: bytes
    correlation_id: bytes
    timeout: float
    deadline: float
    attempts: int

    def on_frame(self, frame: Frame, retry: Retry) -> bool:
        """Take a reply. False: more replies will follow on this id, until one that returns True.

        `retry` is for a request that the node did not handle now and may handle later.
        """

    def fail(self, error: BaseException) -> None:
        """End with an error, unless it has ended already."""

    def time_out(self) -> None:
        """End because no reply came in time."""

    @property
    def is_abandoned(self) -> bool:
        """Nobody waits for the result any more."""


class Outlet(Protocol):
    """Where operations are started: a dispatcher, or what adds credentials on the way to one."""

    new_correlation_id: Callable[[], bytes]

    @property
    def is_full(self) -> bool:
        """Callers should wait in `room()` before they start another operation."""

    def start(self, operation: Operation) -> None: ...

    def send_now(self, frame: bytes) -> None: ...

    def has_been_connected_for(self, seconds: float) -> bool: ...

    async def room(self) -> None: ...


class Dispatcher:
    """The operations that wait for a reply.

    Attributes:
        follow: tells whether the connection is left for one to the leader that a NotMaster names.

    Args:
        max_in_flight: from this many operations on `is_full` is set and callers should wait in
            `room()` before they start another one.
        max_attempts: how often one operation is sent in all, reconnects included.
    """

    def __init__(self, *, max_in_flight: int, max_attempts: int) -> None:
        self.is_full = False
        self.unknown_frames = 0
        self.new_correlation_id = CorrelationIds().next
        self.follow: Follow = lambda _: False
        self._clock = asyncio.get_running_loop().time
        self._max_in_flight = max_in_flight
        self._max_attempts = max_attempts
        self._operations: dict[bytes, Operation] = {}
        # Those whose replies go on: they take no place of an operation that is under way, have no
        # deadline, and end with the connection.
        self._standing: dict[bytes, Operation] = {}
        self._connected_at = math.inf
        self._send: Send | None = None
        self._closed_by: FastpumpError | None = None
        self._paused = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._known_unknowns: set[int] = set()

    def start(self, operation: Operation) -> None:
        """Enter the operation and send it now, or once there is a connection.

        Raises:
            FastpumpError: what the dispatcher was closed with.
            UsageError: the correlation id, chosen by the user, is in use.
        """
        if self._closed_by is not None:
            raise self._closed_by.with_traceback(None)
        operation.deadline = self._clock() + operation.timeout
        if self._operations.setdefault(operation.correlation_id, operation) is not operation:
            raise UsageError("correlation_id", "belongs to an operation that is under way")
        if self._send is not None:
            operation.attempts += 1
            self._send(operation.frame)
        if len(self._operations) >= self._max_in_flight:
            self.is_full = True

    def send_now(self, frame: bytes) -> None:
        """Send a frame that has no reply of its own, if there is a connection."""
        if self._send is not None:
            self._send(frame)

    def enter(self, operation: Operation) -> None:
        """Enter an operation that its caller sends itself: the handshake of a new connection."""
        operation.deadline = self._clock() + operation.timeout
        self._operations[operation.correlation_id] = operation
        operation.attempts = self._max_attempts

    def dispatch(self, frames: list[Frame]) -> None:
        """Hand each frame to its operation; count those that have none.

        Raises:
            ProtocolError: a frame's body could not be decoded. The operation it was for has failed;
                the frames behind it are lost with the connection.
            BadRequest: the server refuses the connection itself.
        """
        operations, retry = self._operations, self.retry
        for frame in frames:
            operation = operations.get(frame.correlation_id)
            if operation is None:
                self._dispatch_standing(frame)
                continue
            try:
                ended = operation.on_frame(frame, retry)
            except ProtocolError:
                del operations[frame.correlation_id]
                raise
            del operations[frame.correlation_id]
            if not ended:
                self._standing[frame.correlation_id] = operation
        if self.is_full:
            self._admit()

    def connected(self, send: Send) -> None:
        """There is a usable connection: send everything that waits, with new correlation ids."""
        self._send = send
        self._connected_at = self._clock()
        waiting = list(self._operations.values())
        self._operations.clear()
        for operation in waiting:
            if not operation.is_abandoned:
                self._renew(operation)
                self._send_again(operation, operation.correlation_id)
        self._admit()

    def disconnected(self, error: FastpumpError) -> None:
        """The connection is gone.

        Operations that were sent often enough, and those whose replies go on, fail with `error`.
        """
        self._send = None
        self._connected_at = math.inf
        self._paused = False
        self._fail_standing(error)
        for correlation_id, operation in list(self._operations.items()):
            if operation.is_abandoned or operation.attempts >= self._max_attempts:
                del self._operations[correlation_id]
                operation.fail(error)
        self._admit()

    def retry(self, operation: Operation, error: ConversationException) -> None:
        """Send an operation again that a node did not handle; `error` if that was often enough.

        That is done in a moment, or on the next connection if this one is left for the leader's.
        """
        if operation.is_abandoned:
            return
        if operation.attempts >= self._max_attempts:
            if operation.attempts > 1:
                error.message += f" (sent {operation.attempts} times)"
            operation.fail(error)
            return
        self._renew(operation)
        if isinstance(error, NotMaster) and self.follow(error):
            return
        delay = min(operation.attempts * RETRY_DELAY, LONGEST_RETRY_DELAY)
        asyncio.get_running_loop().call_later(
            delay, self._send_again, operation, operation.correlation_id
        )

    def close(self, error: FastpumpError) -> None:
        """Fail everything that waits, and whatever is started from now on."""
        self._closed_by = error
        self._send = None
        operations = list(self._operations.values())
        self._operations.clear()
        for operation in operations:
            operation.fail(error)
        self._fail_standing(error)
        self.is_full = False
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def has_been_connected_for(self, seconds: float) -> bool:
        """Whether the present connection is at least that old."""
        return self._clock() - self._connected_at >= seconds

    def check_deadlines(self, now: float) -> None:
        """End operations whose time is over; forget those nobody waits for that were never sent.

        One that was sent stays until its reply or its time is up, so that the reply is not taken
        for an unknown one. `now` is the event loop's clock.
        """
        for operation in list(self._operations.values()):
            if operation.deadline <= now:
                del self._operations[operation.correlation_id]
                operation.time_out()
            elif operation.attempts == 0 and operation.is_abandoned:
                del self._operations[operation.correlation_id]
        if self.is_full:
            self._admit()

    def pause(self) -> None:
        """The connection cannot take more bytes for now."""
        if self._closed_by is None:
            self._paused = True
            self.is_full = True

    def resume(self) -> None:
        self._paused = False
        self._admit()

    async def room(self) -> None:
        """Wait until another operation may be started."""
        while self.is_full:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # A waiter that was let in but will not use its place passes it on.
                if waiter.done() and not waiter.cancelled():
                    self._admit()
                raise

    def _admit(self) -> None:
        places = self._max_in_flight - len(self._operations)
        self.is_full = self._paused or places <= 0
        while not self._paused and places > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                places -= 1

    def _dispatch_standing(self, frame: Frame) -> None:
        operation = self._standing.get(frame.correlation_id)
        if operation is None:
            self._count_unknown(frame)
            return
        ended = True
        try:
            ended = operation.on_frame(frame, self.retry)
        finally:
            if ended:
                del self._standing[frame.correlation_id]

    def _fail_standing(self, error: FastpumpError) -> None:
        operations = list(self._standing.values())
        self._standing.clear()
        for operation in operations:
            operation.fail(error)

    def _renew(self, operation: Operation) -> None:
        """Enter the operation under a new correlation id, so that no late reply can meet it."""
        operation.correlation_id = self.new_correlation_id()
        # Command and flags stand before the correlation id, auth block and payload behind it.
        operation.frame = operation.frame[:6] + operation.correlation_id + operation.frame[22:]
        self._operations[operation.correlation_id] = operation

    def _send_again(self, operation: Operation, correlation_id: bytes) -> None:
        """Send it unless a reconnect has done so, it has ended, or there is no connection."""
        waits = self._operations.get(correlation_id) is operation
        if waits and self._send is not None and not operation.is_abandoned:
            operation.attempts += 1
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
