"""Playing the client's part of a recorded scenario against a server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .compare import compare
from .payloads import (
    HEARTBEAT_REQUEST,
    HEARTBEAT_RESPONSE,
    MAX_FRAME,
    build_frame,
    decode_fields,
    encode_fields,
    split_frames,
)
from .recordings import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from .recordings import Request, Scenario, Step

# The ids of frames that were recorded as plain bytes ("raw1" is 01 02 .. 10, "raw2" 02 03 .. 11).
_RAW_LABELS = {bytes(range(1, 17)): "raw1", bytes(range(2, 18)): "raw2"}
_EMPTY_ID = bytes(16)


async def replay(
    scenario: Scenario,
    host: str,
    port: int,
    *,
    salt: str | None = None,
    timeout: float = 5.0,
    longest_quiet: float | None = None,
) -> list[str]:
    """Send the requests of a scenario to a server and compare its replies with the recorded ones.

    Args:
        scenario: the scenario. Those tagged ``global`` change settings that others depend on and
            need a server of their own; those tagged ``timing``, ``heartbeats``, ``slow`` or
            ``large`` take time.
        host: the server's address.
        port: the server's port.
        salt: if given, stream names and event ids are replaced by others that follow from it, so
            that a scenario can be replayed again on a server that has seen it.
        timeout: how long to wait for the recorded number of replies of a step, in seconds.
        longest_quiet: upper limit, in seconds, of each recorded time in which nothing may arrive
            and of each recorded pause behind a step; ``None`` keeps the recorded times.

    Returns:
        The differences, in readable form: one line each, empty if there is none.

    Raises:
        OSError: the server cannot be connected to.
    """
    player = _Player(scenario, host, port, Renaming.of(scenario, salt), timeout, longest_quiet)
    try:
        for step in scenario.steps:
            await player.play(step)
    finally:
        await player.close()
    return player.troubles + compare(scenario, player.replies, player.closed)


@dataclass(frozen=True)
class Renaming:
    """Other stream names and event ids, of the same length: payloads change without encoding."""

    pairs: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def of(cls, scenario: Scenario, salt: str | None) -> Renaming:
        if salt is None:
            return cls(())
        names = {name[-12:] for name in scenario.streams}
        ids = {i for i in scenario.event_ids if len(i) == 16 and i != _EMPTY_ID}
        pairs = [(name.encode(), cls._other_name(name, salt)) for name in names]
        pairs += [(i, hashlib.sha256(salt.encode() + i).digest()[:16]) for i in ids]
        return cls(tuple(pairs))

    @staticmethod
    def _other_name(name: str, salt: str) -> bytes:
        other = hashlib.sha256((salt + name).encode()).hexdigest()[:12]
        return (other.upper() if name.isupper() else other).encode()

    def apply(self, payload: bytes) -> bytes:
        for old, new in self.pairs:
            payload = payload.replace(old, new)
        return payload

    def revert(self, payload: bytes) -> bytes:
        for old, new in self.pairs:
            payload = payload.replace(new, old)
        return payload


class _Player:
    """Plays the client's part of one scenario on as many connections as it has."""

    def __init__(
        self,
        scenario: Scenario,
        host: str,
        port: int,
        renaming: Renaming,
        timeout: float,
        longest_quiet: float | None,
    ) -> None:
        self.replies: list[list[Reply]] = []
        self.closed: list[frozenset[str]] = []
        self.troubles: list[str] = []
        self._scenario = scenario
        self._address = (host, port)
        self._renaming = renaming
        self._timeout = timeout
        self._longest_quiet = longest_quiet
        self._answers_heartbeats = "heartbeats" not in scenario.tags
        self._connections: dict[str, _Connection] = {}
        self._labels = _labels(scenario)
        self._ids = {label: identifier for identifier, label in self._labels.items()}
        self._changed = asyncio.Event()

    async def play(self, step: Step) -> None:
        self.replies.append([])
        connection = await self._connection(step.conn)
        if step.disconnect:
            await self._connections.pop(step.conn).close()
        else:
            await connection.send(self._bytes_of(step), end=step.shutdown_write)
        await asyncio.sleep(step.wait)
        await self._wait_for(step)
        limit = self._longest_quiet
        for pause in (step.quiet, step.settle):
            await asyncio.sleep(pause if limit is None else min(pause, limit))
        self.closed.append(frozenset(n for n, c in self._connections.items() if c.closed))

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def _connection(self, name: str) -> _Connection:
        if name not in self._connections:
            connection = _Connection(lambda *frame: self._received(name, *frame), self._changed.set)
            await connection.open(*self._address)
            self._connections[name] = connection
        return self._connections[name]

    def _bytes_of(self, step: Step) -> bytes:
        return step.raw or b"".join(map(self._frame, step.requests))

    def _frame(self, request: Request) -> bytes:
        payload = request.payload
        if request.refs:
            values = {name: self._look_up(*ref) for name, ref in request.refs.items()}
            payload = encode_fields(request.command, {**request.fields, **values})
        # A heartbeat that did not come has no id to be answered with: the recorded one will do.
        identifier = self._ids.get(request.correlation, request.correlation_id)
        return request.frame(self._renaming.apply(payload), identifier)

    def _look_up(self, path: str, addend: int = 0) -> int:
        """The value of this run at ``steps.<i>.recv.<k>.fields.<name>`` of the recording."""
        _, step, _, index, _, *names = path.split(".")
        recorded = self._scenario.steps[int(step)].replies
        wanted = recorded[int(index)]
        # Replies may arrive in another order: find the same one by label, command and occurrence.
        alike = [reply for reply in recorded if _same_kind(reply, wanted)]
        arrived = [reply for reply in self.replies[int(step)] if _same_kind(reply, wanted)]
        place = next(i for i, reply in enumerate(alike) if reply is wanted)
        if place >= len(arrived):
            self.troubles.append(f"{path} is needed by a later request, but did not arrive")
            return addend
        value: Any = arrived[place].fields
        for name in names:
            value = value[int(name)] if isinstance(value, list) else value.get(name, 0)
        return int(value) + addend

    async def _wait_for(self, step: Step) -> None:
        expected = Counter(reply.stream for reply in step.replies)

        def complete() -> bool:
            if any(not self._connections[name].closed for name in step.closed):
                return False
            if step.close_race:
                return True
            missing = expected - Counter(reply.stream for reply in self.replies[-1])
            return not any(self._is_open(conn) for conn, _ in missing)

        deadline = asyncio.get_running_loop().time() + self._timeout
        while not complete():
            self._changed.clear()
            rest = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._changed.wait(), rest)
            except asyncio.TimeoutError:
                return

    def _is_open(self, name: str) -> bool:
        return name in self._connections and not self._connections[name].closed

    def _received(
        self, conn: str, command: int, flags: int, identifier: bytes, body: bytes
    ) -> None:
        if command == HEARTBEAT_REQUEST and identifier not in self._labels:
            if self._answers_heartbeats:
                self._connections[conn].write(build_frame(HEARTBEAT_RESPONSE, 0, identifier, b""))
                return
            self._name_heartbeat(identifier)
        label = self._labels.get(identifier, f"unknown id {identifier.hex()}")
        payload = self._renaming.revert(body)
        fields = decode_fields(command, payload)
        self.replies[-1].append(Reply(conn, command, flags, label, payload, fields))
        self._changed.set()

    def _name_heartbeat(self, identifier: bytes) -> None:
        """The server chose this id: it gets the recording's next label for such ids."""
        label = f"hb{1 + sum(name.startswith('hb') for name in self._labels.values())}"
        self._labels[identifier] = label
        self._ids[label] = identifier


class _Connection:
    """One TCP connection: cuts what arrives into frames, knows whether the server closed it."""

    def __init__(
        self, on_frame: Callable[[int, int, bytes, bytes], None], on_change: Callable[[], None]
    ) -> None:
        self.closed = False
        self._on_frame = on_frame
        self._on_change = on_change

    async def open(self, host: str, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._receiving = asyncio.ensure_future(self._receive())

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        # A server that has closed the connection shows in `closed`; that is what gets compared.
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()
            if end:
                self._writer.write_eof()

    async def close(self) -> None:
        self._receiving.cancel()
        self._writer.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiving
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _receive(self) -> None:
        try:
            while True:
                prefix = await self._reader.readexactly(4)
                (length,) = struct.unpack("<i", prefix)
                if not 18 <= length <= MAX_FRAME:
                    break  # nothing behind it can be understood: as good as closed
                frame = prefix + await self._reader.readexactly(length)
                self._on_frame(*split_frames(frame)[0][0])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        self.closed = True
        self._on_change()


def _labels(scenario: Scenario) -> dict[bytes, str]:
    labels = {request.correlation_id: request.correlation for request in scenario.requests}
    # The server's own heartbeat ids of the recorded run do not come again.
    labels = {key: label for key, label in labels.items() if not label.startswith("hb")}
    return {_EMPTY_ID: "empty", **_RAW_LABELS, **labels}


def _same_kind(one: Reply, other: Reply) -> bool:
    return (one.stream, one.command) == (other.stream, other.command)
