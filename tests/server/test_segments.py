"""Segments of the log, and frames made of them: bytes that are not events, ids of other sizes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from fastpump._requests import encode_write_events
from fastpump.messages import NewEvent
from fastpump.server import _messages, _records
from fastpump.server._ids import IdTable
from fastpump.server._log_writer import LogWriter
from fastpump.server._messages import decode_write_events, encode_reply, encode_write_completed
from fastpump.server.errors import StoreDamaged

ID = bytes(range(16))
TOMBSTONE = 2**63 - 1
LAST = 2**62

READERS: dict[str, Callable[[bytes], Any]] = {
    "span_of": lambda segment: _records.span_of(segment, 0, 100),
    "offset_from": lambda segment: _records.offset_from(segment, LAST, LAST),
    "offsets_before": lambda segment: _records.offsets_before(segment, 0, LAST, LAST),
    "positions_of": lambda segment: _records.positions_of(segment, 0),
    "texts_of streams": lambda segment: _records.texts_of(segment, 0, 100, False),
    "texts_of types": lambda segment: _records.texts_of(segment, 0, 100, True),
    "stream_items": lambda segment: _records.stream_items(segment, 0, 4),
    "push_frames": lambda segment: _records.push_frames(segment, 0, 4, ID),
    "has_links": lambda segment: _records.has_links(segment, 0, len(segment)),
    "entries_of": lambda segment: _records.entries_of(segment, 0, 100),
    "runs_of": _records.runs_of,
    "learn_ids": lambda segment: _records.learn_ids(IdTable(), segment, 0, 4, 1),
}


def written() -> bytes:
    """Two events of a stream, the record of its deletion, an event of another one."""
    writer = LogWriter(0, None)
    events = [NewEvent("typ", None, {"a": 1}, b"m"), NewEvent("typ", None, b"\xff")]
    for stream, given in (("gelöscht", events), ("s", events[:1])):
        request = decode_write_events(encode_write_events(ID, stream, -2, given), 22)
        writer.append(request, stream, 1, 0, 638_000_000_000_000_000)
        if stream != "s":
            writer.append_tombstone(stream, 1, ID, 638_000_000_000_000_000)
    [(_, segment)] = writer.take_segments()
    return segment


def test_a_tombstone_is_a_run_of_its_own() -> None:
    runs = [(stream, first, count) for stream, first, _, count in _records.runs_of(written())]
    assert runs == [("gelöscht", 0, 2), ("gelöscht", TOMBSTONE, 1), ("s", 0, 1)]


@pytest.mark.parametrize("reader", READERS)
def test_damaged_bytes(reader: str) -> None:
    """They are an answer or the one error for it, and nothing outside of them is read."""
    read, segment, rng = READERS[reader], written(), random.Random(reader)
    read(segment)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(segment)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(damaged))
            damaged[place : place + rng.randrange(3)] = rng.choice(
                [b"", rng.randbytes(1), rng.randbytes(2), b"\xff" * 10, b"\xff" * 9 + b"\1"]
            )
        try:
            read(bytes(damaged))
        except StoreDamaged:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(("commit", "prepare"), [(2**63 - 1, 0), (5, 2**63 - 1), (-1, 5)])
def test_a_position_that_has_none_behind_it(commit: int, prepare: int) -> None:
    body = _messages.encode_fields(b"record", None, commit, prepare)
    segment = _messages.encode_fields(None, None, body)
    with pytest.raises(StoreDamaged):
        _records.positions_of(segment, 0)
    with pytest.raises(StoreDamaged):
        _records.offsets_before(segment, 0, LAST, LAST)


@pytest.mark.parametrize("size", [0, 15, 17])
@pytest.mark.parametrize(
    "write",
    [
        lambda value: encode_reply(0x04, value, b"payload"),
        lambda value: encode_write_completed(value, 0, 0, 0),
        lambda value: _records.push_frames(b"", 0, 0, value),
        lambda value: LogWriter(0, None).append_tombstone("s", 1, value, 0),
    ],
)
def test_an_id_of_another_size(write: Callable[[bytes], object], size: int) -> None:
    with pytest.raises(ValueError, match=f"id: {size} bytes instead of 16"):
        write(bytes(size))
