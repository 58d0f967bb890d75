"""The asyncio side of one TCP connection.

It owns the transport, its outbox, and when something was last heard. Frames go to the `on_frames`
it is given; what they mean it does not know, heartbeats excepted: those are answered here, before
anything else, so that a busy program does not lose its connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import cast

from fastpump._busy_poll import BusyPoll
from fastpump._commands import Command
from fastpump._framing import Frame, Framer, encode_frame
from fastpump._outbox import Outbox
from fastpump._statistics import Traffic
from fastpump.exceptions import ConnectionLost, FastpumpError

LOG = logging.getLogger("fastpump.protocol")

HIGH_WATER = 1024 * 1024
"""Bytes waiting in the transport from which on producers are held back."""


class ConnectionProtocol(asyncio.BufferedProtocol):
    """One connection, from `connection_made` to `connection_lost`.

    Args:
        on_frames: gets the frames of each read; a FastpumpError from it closes the connection.
        on_lost: called once when the connection is gone, with the reason.
        on_paused, on_resumed: the transport is full, or has room again.
        heartbeat_interval: seconds of silence after which a heartbeat is sent.
        heartbeat_timeout: further seconds of silence after which the connection is given up.
        busy_poll: seconds of not sleeping after something was received.
        max_frame_size: longest frame accepted, in bytes.
        traffic: is told how many bytes go to and fro.
    """

    def __init__(
        self,
        *,
        on_frames: Callable[[list[Frame]], None],
        on_lost: Callable[[ConnectionProtocol, ConnectionLost], None],
        on_paused: Callable[[], None],
        on_resumed: Callable[[], None],
        heartbeat_interval: float,
        heartbeat_timeout: float,
        max_frame_size: int,
        traffic: Traffic,
        busy_poll: float = 0.0,
    ) -> None:
        self._on_frames = on_frames
        self._on_lost = on_lost
        self.pause_writing = on_paused  # type: ignore[method-assign]  # called by the transport
        self.resume_writing = on_resumed  # type: ignore[method-assign]
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_timeout = heartbeat_timeout
        self._loop = asyncio.get_running_loop()
        self._framer = Framer(max_frame_size=max_frame_size, merge_pushes=True)
        self.get_buffer = self._framer.get_buffer  # type: ignore[method-assign]
        self._transport: asyncio.Transport | None = None
        self._outbox = Outbox(self._loop, traffic)
        self.send = self._outbox.send
        self._traffic = traffic
        self._busy_poll = BusyPoll(self._loop, busy_poll) if busy_poll else None
        self._heard = False
        self._silent_since = 0.0
        self._watch_due = 0.0
        self._heartbeat_sent = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._reason: Exception | None = None
        self.closed: asyncio.Future[ConnectionLost] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._outbox.transport = cast(asyncio.Transport, transport)
        if self._is_closed:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        self._silent_since = self._watch_due = self._loop.time()
        self._watch()

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        self._traffic.received += nbytes
        self._outbox.on_received()
        if self._busy_poll is not None:
            self._busy_poll.on_received()
        framer = self._framer
        try:
            frames = framer.commit(nbytes)
            if framer.heartbeat_requests:
                self._answer_heartbeats(frames)
            self._on_frames(frames)
            if framer.error is not None:
                raise framer.error
        except FastpumpError as error:
            self.abort(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_watching()
        if self._transport is not None:
            # Nothing is left to close, but TLS transports of Python 3.10 want it said.
            self._transport.close()
            self._transport = self._outbox.transport = None
        self._outbox.flush()
        reason = self._reason or error
        lost = ConnectionLost(f"The connection was lost: {reason or 'closed by the server'}")
        lost.__cause__ = reason
        if not self.closed.done():
            self.closed.set_result(lost)
        self._on_lost(self, lost)

    @property
    def peer(self) -> tuple[str, int] | None:
        """The address at the other end, while there is a connection."""
        address = self._transport and self._transport.get_extra_info("peername")
        return tuple(address[:2]) if address else None

    @property
    def queued_bytes(self) -> int:
        """Bytes that are not with the operating system yet."""
        if self._transport is None:
            return 0
        return self._outbox.size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Write what is waiting, then close; also if the connection is still being made.

        uvloop does not tell of the end of one that was made while its making was cancelled.
        """
        self._is_closed = True
        self._stop_watching()
        self._outbox.flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: Exception) -> None:
        """Close at once because of `reason`."""
        if self._transport is not None:
            LOG.warning("Closing the connection: %s", reason)
            self._reason = reason
            self._transport.abort()

    def _answer_heartbeats(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.command == Command.HeartbeatRequest:
                self.send(encode_frame(Command.HeartbeatResponse, frame.correlation_id))

    def _watch(self) -> None:
        """Look for silence, several times per interval; any byte received ends it."""
        now = self._loop.time()
        late = now - self._watch_due
        self._watch_due = now + self._heartbeat_interval / 4
        self._timer = self._loop.call_at(self._watch_due, self._watch)
        if self._heard:
            self._heard = False
            self._heartbeat_sent = False
            self._silent_since = now
        elif late < self._heartbeat_interval:
            self._on_silence(now - self._silent_since)
        # else: the program kept the loop busy, and bytes may lie unread in the socket.

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._busy_poll is not None:
            self._busy_poll.stop()

    def _on_silence(self, seconds: float) -> None:
        if seconds >= self._heartbeat_interval + self._heartbeat_timeout:
            self.abort(TimeoutError(f"nothing was received for {seconds:.1f} s"))
        elif seconds >= self._heartbeat_interval and not self._heartbeat_sent:
            self._heartbeat_sent = True
            self.send(encode_frame(Command.HeartbeatRequest, os.urandom(16)))
