"""Faults on demand: what a node is to do wrong, so that its clients can be tested.

`node.faults` has a method for each kind. They take effect at once, on open connections too, and end
when the fault is removed, when it struck as often as it was allowed to, or with the `with` block it
opened. A node without faults does not pay for them: its connections are then not even made to know
of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from fastpump._commands import Command
from fastpump.exceptions import UsageError
from fastpump.messages import NotHandledReason
from fastpump.server._gate import SWALLOWED, not_handled
from fastpump.server.http import Response
from fastpump.server.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import TracebackType

    from fastpump._framing import Frame
    from fastpump.server._gate import Check
    from fastpump.server.session import Services, Sessions

HEARTBEATS = (Command.HeartbeatRequest, Command.HeartbeatResponse)

NOT_REFUSED = frozenset(
    (
        Command.Ping,
        Command.UnsubscribeFromStream,
        Command.PersistentSubscriptionAckEvents,
        Command.PersistentSubscriptionNakEvents,
    )
)
"""Requests to which a server has no NotHandled."""

_COMMAND = 4
"""Index of the command in a frame, behind its length."""


class Fault:
    """One fault, from the call that made it until `remove`, or until the `with` block ends.

    Attributes:
        count: how often it struck.
    """

    def __init__(self, commands: Collection[int] | None, times: int | None) -> None:
        if times is not None and times < 1:
            raise UsageError("times", f"not at least 1 but {times}")
        self.count = 0
        self._commands = None if commands is None else frozenset(commands)
        self._times = times
        self._removers: list[Callable[[], None]] = []

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Behave again. Does nothing the second time."""
        for remover in self._removers:
            remover()
        self._removers.clear()

    def concerns(self, command: int) -> bool:
        return self._commands is None or command in self._commands

    def strike(self) -> None:
        """Count; and that was the last time if it may happen no more often."""
        self.count += 1
        if self.count == self._times:
            self.remove()

    # --- for `Faults` ---

    def join(self, active: list[Any], member: object) -> None:
        """Be among the active faults of some kind until removed."""
        active.append(member)
        self._removers.append(lambda: active.remove(member))


class _Refusal(Fault):
    """Requests are answered with NotHandled, not at all, or with the connection's end."""

    def __init__(
        self,
        answer: Callable[[Session, Frame], bytes],
        requests: Collection[int] | None,
        times: int | None,
    ) -> None:
        super().__init__(requests, times)
        self._answer = answer

    def check(self, session: Session, frame: Frame, offset: int) -> bytes | None:
        if not self.concerns(frame.command):
            return None
        self.strike()
        return self._answer(session, frame)


class _Sending(Fault):
    """A fault in what the node sends. `apply` gets each whole frame on its way out."""

    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        """What to send instead of the frame."""
        raise NotImplementedError


class _Drop(_Sending):
    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        self.strike()
        return []


class _Repeat(_Sending):
    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        self.strike()
        return [frame, frame]


class _Delay(_Sending):
    def __init__(self, seconds: float, replies: Collection[int] | None, times: int | None) -> None:
        super().__init__(replies, times)
        self._seconds = seconds

    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        self.strike()
        link.hold(self._seconds)
        return [frame]


class _Cut(_Sending):
    """Cuts in place of certain frames."""

    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        self.strike()
        link.cut()
        return []


class _CutAfter(_Sending):
    """Cuts each connection when it has sent so many bytes since the fault began."""

    def __init__(self, after: int, times: int | None) -> None:
        super().__init__(None, times)
        self._after = after
        self._left: WeakKeyDictionary[FaultyTransport, int] = WeakKeyDictionary()

    def apply(self, link: FaultyTransport, frame: bytes) -> list[bytes]:
        left = self._left.get(link, self._after) - len(frame)
        self._left[link] = left
        if left > 0:
            return [frame]
        self.strike()
        link.cut(frame[: len(frame) + left])
        return []


class _HttpFault(Fault):
    def __init__(self, response: Response | None, delay: float, times: int | None) -> None:
        super().__init__(None, times)
        self.response = response
        self.delay = delay


class Faults:
    """The faults of one node, as `node.faults`.

    Where a method takes `replies` or `requests`, these are `TcpCommand`s, and None stands for all
    of them; `times` says how often the fault strikes before it removes itself, None: as often as it
    can until `Fault.remove`. Times are in seconds.

    Raises:
        UsageError: `times` or a number of bytes below 1, a time below 0.
    """

    def __init__(self, sessions: Sessions, gate: list[Check]) -> None:
        self._sessions = sessions
        self._gate = gate
        self._refusals: list[Fault] = []
        self._sending: list[_Sending] = []
        self._accepting: list[Fault] = []
        self._http: list[_HttpFault] = []

    def __bool__(self) -> bool:
        """Whether a new connection has to know of them."""
        return bool(self._sending or self._accepting)

    # --- what the node sends ---

    def delay(
        self,
        seconds: float,
        *,
        replies: Collection[int] | None = None,
        times: int | None = None,
    ) -> Fault:
        """Send frames later. What follows them on the same connection waits behind them."""
        _require("seconds", seconds, at_least=0)
        return self._add_sending(_Delay(seconds, replies, times))

    def drop(self, *, replies: Collection[int] | None = None, times: int | None = None) -> Fault:
        """Lose frames. Without `replies` the node seems to hang, with its connections open."""
        return self._add_sending(_Drop(replies, times))

    def repeat(self, *, replies: Collection[int] | None = None, times: int | None = None) -> Fault:
        """Send frames twice."""
        return self._add_sending(_Repeat(replies, times))

    def ignore_heartbeats(self) -> Fault:
        """Neither answer heartbeats nor ask for any; everything else goes on."""
        return self._add_sending(_Drop(HEARTBEATS, None))

    def cut(self, *, after: int, times: int | None = None) -> Fault:
        """End each connection when it was sent exactly so many bytes more.

        Connections that are open count from now on, later ones from their beginning. `times` is the
        number of connections.
        """
        _require("after", after, at_least=1)
        return self._add_sending(_CutAfter(after, times))

    def cut_instead_of(self, replies: Collection[int], *, times: int | None = None) -> Fault:
        """End the connection in the place of a reply: the request was executed, nobody knows."""
        return self._add_sending(_Cut(replies, times))

    # --- what the node receives ---

    def refuse(
        self,
        reason: NotHandledReason = NotHandledReason.NotReady,
        *,
        requests: Collection[int] | None = None,
        times: int | None = None,
    ) -> Fault:
        """Answer requests with NotHandled: NotReady, TooBusy or IsReadOnly.

        Raises:
            UsageError: the reason is NotMaster; that takes a cluster, see `run_cluster`.
        """
        if reason == NotHandledReason.NotMaster:
            raise UsageError("reason", "NotMaster needs a leader: see run_cluster")
        wanted = set(Command) - NOT_REFUSED if requests is None else requests
        fault = _Refusal(lambda _, frame: not_handled(frame.correlation_id, reason), wanted, times)
        return self._add_refusal(fault)

    def swallow(
        self, *, requests: Collection[int] | None = None, times: int | None = None
    ) -> Fault:
        """Lose requests: they are neither executed nor answered."""
        return self._add_refusal(_Refusal(lambda *_: SWALLOWED, requests, times))

    def cut_at(self, requests: Collection[int], *, times: int | None = None) -> Fault:
        """End the connection when a request comes, without executing it."""

        def cut(session: Session, frame: Frame) -> bytes:
            session.stop()
            session.abort()
            return SWALLOWED

        return self._add_refusal(_Refusal(cut, requests, times))

    # --- connections ---

    def disconnect(self) -> int:
        """End all open connections, now. Returns how many there were."""
        sessions = list(self._sessions)
        for session in sessions:
            session.abort()
        return len(sessions)

    def refuse_connections(self) -> Fault:
        """Accept connections, and end them at once."""
        fault = Fault(None, None)
        fault.join(self._accepting, fault)
        return fault

    # --- HTTP ---

    def http(
        self,
        body: bytes | None = None,
        *,
        status: int = 200,
        delay: float = 0.0,
        times: int | None = None,
    ) -> Fault:
        """Answer HTTP requests wrongly or late.

        Args:
            body: what to send in place of what was asked for; None changes nothing.
            status: the status that goes with `body`.
            delay: to wait before the answer.
        """
        _require("delay", delay, at_least=0)
        response = None if body is None else Response(status, body)
        fault = _HttpFault(response, delay, times)
        fault.join(self._http, fault)
        return fault

    # --- all ---

    def clear(self) -> None:
        """Remove all faults."""
        for fault in (*self._refusals, *self._sending, *self._accepting, *self._http):
            fault.remove()

    # --- for the node ---

    @property
    def refuses_connections(self) -> bool:
        return bool(self._accepting)

    def wrap(self, transport: asyncio.Transport) -> asyncio.Transport:
        """The transport with these faults; unchanged if it has them."""
        if isinstance(transport, FaultyTransport):
            return transport
        return FaultyTransport(transport, self._sending)

    def disturb_http(self, response: Response) -> tuple[Response, float]:
        """The answer to send instead, and how long to wait before."""
        for fault in self._http:
            fault.strike()
            return fault.response or response, fault.delay
        return response, 0.0

    def _add_sending(self, fault: _Sending) -> Fault:
        fault.join(self._sending, fault)
        for session in self._sessions:
            session.interpose(self.wrap)
        return fault

    def _add_refusal(self, fault: _Refusal) -> Fault:
        fault.join(self._refusals, fault)
        fault.join(self._gate, fault.check)
        return fault


def _require(argument: str, value: float, *, at_least: float) -> None:
    if not value >= at_least:
        raise UsageError(argument, f"not at least {at_least} but {value}")


class Refused(asyncio.Protocol):
    """A connection that is ended as soon as it is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class FaultySession(Session):
    """A session that begins while there are faults."""

    def __init__(self, services: Services, faults: Faults) -> None:
        super().__init__(services)
        self._faults = faults

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.interpose(self._faults.wrap)


class FaultyTransport(asyncio.Transport):
    """A transport with something between it and who writes to it: whole frames, always.

    Frames go through all faults, in the order in which these were added. Behind a frame that is
    held everything else waits, the end of the connection included.
    """

    def __init__(self, transport: asyncio.Transport, faults: list[_Sending]) -> None:
        super().__init__()
        self._transport = transport
        self._faults = faults
        self._is_cut = False
        self._release = 0.0
        self._held: deque[tuple[float, bytes | None]] = deque()
        self._held_size = 0
        self._loop = asyncio.get_running_loop()

    # --- for faults ---

    def hold(self, seconds: float) -> None:
        """Send the frame at hand, and what follows it, so much later."""
        self._release = self._loop.time() + seconds

    def cut(self, last: bytes = b"") -> None:
        """Send this and what waits before it, then end the connection."""
        self._pass_on(last)
        self.close()
        self._is_cut = True

    # --- what the session calls ---

    def write(self, data: Any) -> None:
        for frame in split_frames(bytes(data)):
            if self._is_cut:
                return
            for part in self._through_faults(frame):
                self._pass_on(part)

    def close(self) -> None:
        if self._held:
            self._held.append((self._release, None))
        else:
            self._transport.close()

    def abort(self) -> None:
        self._held.clear()
        self._held_size = 0
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + self._held_size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        return self._is_cut or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    # --- the way out ---

    def _through_faults(self, frame: bytes) -> list[bytes]:
        frames = [frame]
        for fault in list(self._faults):
            if fault.concerns(frame[_COMMAND]):
                frames = [part for whole in frames for part in fault.apply(self, whole)]
        return frames

    def _pass_on(self, data: bytes) -> None:
        if self._held or self._release > self._loop.time():
            if not self._held:
                self._loop.call_at(self._release, self._send_due)
            self._held.append((self._release, data))
            self._held_size += len(data)
        elif data:
            self._transport.write(data)

    def _send_due(self) -> None:
        if self._transport.is_closing():
            self._held.clear()  # nobody is there any more
            self._held_size = 0
        now = self._loop.time()
        while self._held and self._held[0][0] <= now:
            _, data = self._held.popleft()
            if data is None:
                self._transport.close()
                return
            self._held_size -= len(data)
            if data:
                self._transport.write(data)
        if self._held:
            self._loop.call_at(self._held[0][0], self._send_due)


def split_frames(data: bytes) -> Iterator[bytes]:
    """The frames in what a session writes, which never ends within one."""
    position = 0
    while position < len(data):
        end = position + 4 + int.from_bytes(data[position : position + 4], "little")
        yield data[position:end]
        position = end
