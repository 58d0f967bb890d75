"""What was recorded: scenarios of steps of frames, and raw byte streams."""

from __future__ import annotations

import gzip
import json
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .payloads import PING, Fields, build_frame, encode_fields, parse_fields

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

FOLDER = Path(__file__).parent.parent / "golden"

AREAS = (
    "handshake",
    "write",
    "read_event",
    "read_stream",
    "read_all",
    "delete",
    "metadata",
    "links",
    "subscribe",
    "transaction",
    "auth",
    "errors",
    "persistent",
    "idempotency",
)
"""The areas in the order in which they were recorded."""


@dataclass(frozen=True)
class Request:
    """One frame that was sent.

    ``refs`` names the fields whose values come from an earlier reply of the same run: field ->
    ``[path]`` or ``[path, number to add]``. ``noncanonical`` marks payloads that are malformed,
    or hold reordered or unknown fields.
    """

    command: int
    name: str
    flags: int
    auth: tuple[str, str] | None
    correlation: str
    correlation_id: bytes
    fields: Fields
    payload_hex: str | None
    refs: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    noncanonical: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Request:
        """The request that a recording describes by these keys."""
        command = record["command"]
        return cls(
            command,
            record["name"],
            record["flags"],
            tuple(record["auth"]) if record["auth"] else None,
            record["correlation"],
            uuid.UUID(record["correlation_id"]).bytes_le,
            parse_fields(command, record["fields"]),
            record.get("payload_hex"),
            record.get("refs", {}),
            record.get("noncanonical", False),
        )

    @property
    def payload(self) -> bytes:
        """The payload as it was sent (very large ones are encoded from their fields)."""
        if self.payload_hex is None:
            return encode_fields(self.command, self.fields)
        return bytes.fromhex(self.payload_hex)

    @property
    def auth_block(self) -> bytes:
        """Login and password, each behind its length in one byte; empty without credentials."""
        if self.auth is None:
            return b""
        values = [value.encode() for value in self.auth]
        return b"".join(bytes([len(value)]) + value for value in values)

    def frame(self, payload: bytes | None = None, correlation_id: bytes | None = None) -> bytes:
        """The complete frame: with the recorded payload and correlation id, or with others."""
        body = self.auth_block + (self.payload if payload is None else payload)
        correlation_id = self.correlation_id if correlation_id is None else correlation_id
        return build_frame(self.command, self.flags, correlation_id, body)


@dataclass(frozen=True)
class Reply:
    """One frame that arrived on connection ``conn``."""

    conn: str
    command: int
    flags: int
    correlation: str
    payload: bytes
    fields: Fields

    @property
    def stream(self) -> tuple[str, str]:
        """Replies keep their order only on one connection and under one correlation label."""
        return self.conn, self.correlation


@dataclass(frozen=True)
class Step:
    """What was done, on connection ``conn``, and all that arrived before the next step.

    At most one of ``requests`` (several were sent in one write), ``raw`` bytes, a pause of ``wait``
    seconds and ``disconnect`` is given. Then nothing may arrive for ``quiet`` seconds, and another
    ``settle`` seconds pass. ``closed`` lists the connections that the server closed. In a
    ``close_race`` the server's BadRequest and its closing of the connection compete.
    """

    conn: str
    requests: tuple[Request, ...]
    raw: bytes | None
    wait: float
    disconnect: bool
    shutdown_write: bool
    replies: tuple[Reply, ...]
    closed: frozenset[str]
    close_race: bool
    quiet: float
    settle: float


@dataclass(frozen=True)
class Scenario:
    """A conversation that was recorded from its first byte to its last."""

    id: str
    area: str
    title: str
    streams: tuple[str, ...]
    tags: frozenset[str]
    steps: tuple[Step, ...]
    closed: bool

    @property
    def requests(self) -> Iterator[Request]:
        """All requests in the order of their sending."""
        return (request for step in self.steps for request in step.requests)

    @property
    def replies(self) -> Iterator[Reply]:
        """All replies in the order of their arrival."""
        return (reply for step in self.steps for reply in step.replies)

    @property
    def commands(self) -> frozenset[int]:
        """The commands that the client sends; plain bytes (``Step.raw``) count as Ping."""
        commands = {request.command for request in self.requests}
        return frozenset(commands | {PING for step in self.steps if step.raw is not None})

    @property
    def event_ids(self) -> frozenset[bytes]:
        """The ids of all events that the client writes, as on the wire."""
        events = (event for request in self.requests for event in request.fields.get("events", ()))
        return frozenset(event["event_id"] for event in events if "event_id" in event)

    @property
    def needs_original_server(self) -> bool:
        """Whether a position points into the middle of a record of the original server's log."""
        offsets = any(len(ref) > 1 for request in self.requests for ref in request.refs.values())
        return offsets or "original-server-only" in self.tags

    def __str__(self) -> str:
        return f"{self.id} {self.title}"


@cache
def scenarios(*areas: str) -> tuple[Scenario, ...]:
    """The recorded scenarios of the given areas (of all of them by default), in recorded order."""
    lines = (
        (area, line) for area in areas or AREAS for line in _read(f"{area}.jsonl").splitlines()
    )
    return tuple(_scenario(area, json.loads(line)) for area, line in lines)


def scenarios_using_only(commands: Collection[int], *areas: str) -> list[Scenario]:
    """The scenarios that send no other command than these, and that any server can replay.

    Left out are also those that depend on byte offsets in the original server's log.
    """
    return [
        scenario
        for scenario in scenarios(*areas)
        if scenario.commands <= set(commands) and not scenario.needs_original_server
    ]


@dataclass(frozen=True)
class Capture:
    """All bytes a server sent on one connection, and what they decode to (``tests/golden/raw``)."""

    name: str
    data: bytes
    description: Mapping[str, Any]
    requests: bytes = b""


CAPTURES = ("page500", "links100", "all_page", "subscribe2000_cut", "mixed50")


@cache
def capture(name: str) -> Capture:
    """One recorded byte stream."""
    description = json.loads(_read(f"raw/{name}.json"))
    requests = description.get("requests_hex_file")
    return Capture(
        name,
        bytes.fromhex(_read(f"raw/{name}.hex")),
        description,
        bytes.fromhex(_read(f"raw/{requests}")) if requests else b"",
    )


def _read(name: str) -> str:
    path = FOLDER / name
    if path.exists():
        return path.read_text(encoding="utf-8")
    with gzip.open(path.with_name(path.name + ".gz"), "rt", encoding="utf-8") as file:
        return file.read()


def _scenario(area: str, record: Mapping[str, Any]) -> Scenario:
    return Scenario(
        record["id"],
        area,
        record["title"],
        tuple(record["streams"]),
        frozenset(record.get("tags", ())),
        tuple(map(_step, record["steps"])),
        record["closed"],
    )


def _step(record: Mapping[str, Any]) -> Step:
    sent = record.get("send", {})
    frames = sent.get("pipelined", [sent] if "command" in sent else [])
    return Step(
        conn=record.get("conn", "A"),
        requests=tuple(map(Request.from_record, frames)),
        raw=bytes.fromhex(sent["raw_hex"]) if "raw_hex" in sent else None,
        wait=record.get("wait_ms", 0) / 1000,
        disconnect=record.get("disconnect", False),
        shutdown_write=record.get("then_shutdown_write", False),
        replies=tuple(map(_reply, record["recv"])),
        closed=frozenset(record.get("closed", ())),
        close_race=record.get("close_race", False),
        quiet=record.get("quiet_ms", 0) / 1000,
        settle=record.get("settle_ms", 0) / 1000,
    )


def _reply(record: Mapping[str, Any]) -> Reply:
    return Reply(
        record.get("conn", "A"),
        record["command"],
        record["flags"],
        record["correlation"],
        bytes.fromhex(record["payload_hex"]),
        parse_fields(record["command"], record["fields"]),
    )
