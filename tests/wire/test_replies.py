"""Replies of a real server, decoded: the scenarios' replies and the raw byte streams."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import goldenlib
import pytest
from wire import views

from fastpump import _replies
from fastpump._framing import Framer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastpump._events import Event
    from fastpump._framing import Frame


@pytest.mark.parametrize("area", goldenlib.AREAS)
def test_every_recorded_reply(area: str) -> None:
    for scenario in goldenlib.scenarios(area):
        for reply in scenario.replies:
            if reply.command in views.DECODED:
                frame = views.one_frame(reply.command, reply.payload)
                assert views.decoded(frame) == views.expected(reply.command, reply.fields), scenario


def test_every_kind_of_reply_was_recorded() -> None:
    recorded = {reply.command for s in goldenlib.scenarios() for reply in s.replies}
    # That server was of version 4; filters came with version 20.
    assert set(views.DECODED) - set(views.FILTERED_COMPLETED) <= recorded


_DESCRIBED = ("command", "flags", "length", "events")


@pytest.mark.parametrize("name", goldenlib.CAPTURES)
def test_raw_capture(name: str) -> None:
    capture = goldenlib.capture(name)
    framer = Framer()
    frames = framer.feed(capture.data)
    described = list(_described_frames(capture.description))
    assert len(frames) == capture.description["complete_frames"] == len(described)
    assert framer.pending == capture.description["trailing_bytes"]
    assert framer.error is None
    for frame, description in zip(frames, described, strict=True):
        shape = {key: description[key] for key in _DESCRIBED if key in description}
        assert _described(frame, shape) == shape
        _check_fields(frame, description)
    labels = {(f.correlation_id, d["correlation"]) for f, d in zip(frames, described, strict=True)}
    assert len(labels) == len({label for _, label in labels})


def test_trailing_bytes_are_the_start_of_the_declared_frame() -> None:
    capture = goldenlib.capture("subscribe2000_cut")
    framer = Framer()
    framer.feed(capture.data)
    declared = capture.description["trailing_declared_length"]
    [frame] = framer.feed(bytes(4 + declared - framer.pending))
    assert len(frame) == declared - 18


def test_json_of_a_page() -> None:
    """`json()` of every event that was written as JSON, against the standard library."""
    frames = Framer().feed(goldenlib.capture("page500").data)
    page = views.decoded(frames[1])["events"]
    events = _events(frames[1])
    bodies = [event.json() for event in events if event.is_json]
    assert bodies == [json.loads(event["data"]) for event in page if event["is_json"]]
    assert len(bodies) > 200


def _described_frames(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The frames of a capture's description, the table of pushes written out."""
    frames = list(description["frames"])
    for length, number, event_id, kind, data_len, metadata_len, position in description.get(
        "pushes", ()
    ):
        event = {
            "stream": description["pushes_stream"],
            "number": number,
            "id": event_id,
            "type": kind,
            "data_len": data_len,
            "metadata_len": metadata_len,
            "commit": position,
            "prepare": position,
        }
        frame = {"command": description["pushes_command"], "flags": 0, "length": length}
        frames.append({**frame, "correlation": "subscription", "events": [event]})
    return frames


def _described(frame: Frame, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The frame in the words of a description that has this shape."""
    found: dict[str, Any] = {"command": frame.command, "flags": frame.flags}
    found["length"] = 18 + len(frame)
    if "events" in shape:
        events = _events(frame)
        assert len(events) == len(shape["events"])
        found["events"] = [_short(e, s) for e, s in zip(events, shape["events"], strict=True)]
    return found


def _check_fields(frame: Frame, description: Mapping[str, Any]) -> None:
    decoded = goldenlib.decode_fields(frame.command, bytes(frame.body))
    fields = goldenlib.parse_fields(frame.command, description.get("fields", {}))
    assert fields.items() <= decoded.items()
    if frame.command in views.DECODED:
        assert views.decoded(frame) == views.expected(frame.command, decoded)


def _short(event: Event, shape: Mapping[str, Any]) -> dict[str, Any]:
    """An event in the short form of the descriptions."""
    short: dict[str, Any] = {
        "stream": event.stream,
        "number": event.event.event_number,
        "id": str(event.id),
        "type": event.type,
        "json": int(event.is_json),
        "data_len": len(event.data),
        "metadata_len": len(event.metadata),
    }
    if event.link is not None:
        if not event.is_resolved:
            short = {}
        short["link"] = {
            "stream": event.link.stream,
            "number": event.link.event_number,
            "id": str(event.link.id),
        }
    if event.position is not None:
        short["commit"], short["prepare"] = event.position
    if "json" not in shape:
        short.pop("json", None)
    return short


def _events(frame: Frame) -> list[Event]:
    if frame.command in views.STREAM_COMPLETED:
        return list(_replies.decode_stream_slice(frame, "", 0, 0)[1])
    if frame.command in views.ALL_COMPLETED:
        return list(_replies.decode_all_slice(frame, 0)[1])
    if frame.command == views.READ_EVENT_COMPLETED:
        event = _replies.decode_read_event(frame)[1]
        return [] if event is None else [event]
    return list(_replies.decode_pushes(frame))


def test_merged_pushes_hold_the_same_events() -> None:
    capture = goldenlib.capture("subscribe2000_cut")
    merged = Framer(merge_pushes=True).feed(capture.data)
    apart = Framer().feed(capture.data)
    assert len(merged) < 20 < len(apart)
    assert sum(frame.count for frame in merged) == len(apart)
    of_runs = [event for f in merged[2:] for event in _replies.decode_pushes(f)]
    of_frames = [event for f in apart[2:] for event in _replies.decode_pushes(f)]
    assert of_runs == of_frames
    assert [e.position for e in of_runs] == [e.position for e in of_frames]


def test_ids_are_those_that_were_written() -> None:
    """Event ids use .NET's byte order; the recording has them as text."""
    scenario = next(s for s in goldenlib.scenarios("write") if s.id == "WRITE-01")
    [event] = _events(views.one_frame(0xB3, scenario.steps[2].replies[0].payload))
    assert event.id == UUID("7408ae03-2e20-5b2e-b946-3506ba450567")
