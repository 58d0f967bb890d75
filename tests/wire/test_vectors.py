"""The golden vectors of the protocol document (section 14): complete frames in both encodings."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import goldenlib
import pytest
from wire import reference, views

if TYPE_CHECKING:
    from collections.abc import Callable

from fastpump import _cold, _replies, _requests
from fastpump._framing import Frame, Framer, encode_frame
from fastpump.messages import Json

CORRELATION_ID = UUID("00112233-4455-6677-8899-aabbccddeeff").bytes_le
EVENT_ID = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
CREATED = datetime(2020, 1, 1, tzinfo=timezone.utc)
AUTH = b"\x05admin\x08changeit"

VECTORS = {
    int(number): bytes.fromhex(frame)
    for number, frame in re.findall(
        r"^V(\d+) .*\n([0-9a-f]+)$",
        Path(__file__).with_name("vectors.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}


def frame_of(number: int) -> Frame:
    [frame] = Framer().feed(VECTORS[number])
    return frame


def payload_of(number: int) -> bytes:
    return bytes(frame_of(number).body)


def cold(command: int, name: str, **fields: Any) -> bytes:
    return encode_frame(command, CORRELATION_ID, _cold.encode(name, **fields))


def test_all_vectors_are_there() -> None:
    assert list(VECTORS) == list(range(1, 34))


@pytest.mark.parametrize("number", sorted(VECTORS))
def test_header(number: int) -> None:
    frame = frame_of(number)
    assert frame.correlation_id == (bytes(16) if number == 32 else CORRELATION_ID)
    assert frame.flags == (1 if number in (7, 10, 11, 33) else 0)


LEADER = {
    "external_tcp_address": "127.0.0.1",
    "external_tcp_port": 1113,
    "external_http_address": "127.0.0.1",
    "external_http_port": 2113,
}

ENCODED: dict[int, Callable[[], bytes]] = {
    1: lambda: encode_frame(0x01, CORRELATION_ID),
    2: lambda: encode_frame(0x02, CORRELATION_ID),
    3: lambda: encode_frame(0x03, CORRELATION_ID),
    4: lambda: encode_frame(0x04, CORRELATION_ID),
    5: lambda: cold(0xF5, "IdentifyClient", version=1, connection_name="c"),
    6: lambda: cold(0xF6, "ClientIdentified"),
    7: lambda: encode_frame(0xF2, CORRELATION_ID, auth=AUTH),
    8: lambda: encode_frame(0xF3, CORRELATION_ID),
    9: lambda: encode_frame(0xF4, CORRELATION_ID, b"Not Authenticated"),
    10: lambda: _requests.encode_write_event(
        CORRELATION_ID, "s-1", -2, "t", Json(b"{}"), b"", EVENT_ID, True, AUTH
    ),
    15: lambda: _requests.encode_read_stream(CORRELATION_ID, False, "s-1", 0, 100, False, True),
    21: lambda: cold(0xC0, "SubscribeToStream", event_stream_id="", resolve_link_tos=False),
    22: lambda: cold(0xC1, "SubscriptionConfirmation", last_commit_position=7),
    23: lambda: cold(0xC1, "SubscriptionConfirmation", last_commit_position=7, last_event_number=0),
    26: lambda: cold(0xC4, "SubscriptionDropped"),
    27: lambda: cold(0xF1, "NotHandled", reason=0),
    28: lambda: cold(0xF1, "NotHandled"),
    29: lambda: cold(
        0xF1, "NotHandled", reason=2, additional_info=_cold.encode("MasterInfo", **LEADER)
    ),
    30: lambda: _requests.encode_nak(CORRELATION_ID, "s::g", [EVENT_ID], 1, "m"),
    32: lambda: encode_frame(0xF0, bytes(16), b"Invalid TCP frame received."),
    33: lambda: encode_frame(0x03, CORRELATION_ID, auth=b"\xfd\xffabc"),
}


@pytest.mark.parametrize("number", ENCODED)
def test_encoding(number: int) -> None:
    assert ENCODED[number]().hex() == VECTORS[number].hex()


def test_write_events_in_both_encodings() -> None:
    """No encoder of ours drops zeros; the reference reads both requests as the same."""
    full, sparse = (payload_of(number)[len(AUTH) :] for number in (10, 11))
    fields = reference.PROTO2.decode("WriteEvents", sparse)
    [event] = fields["events"]
    assert reference.PROTO2.decode("WriteEvents", full) == {
        **fields,
        "events": [{**event, "metadata_content_type": 0, "metadata": b""}],
    }


EVENT = {
    "stream": "s-1",
    "number": 0,
    "id": EVENT_ID,
    "type": "t",
    "is_json": True,
    "data": b"{}",
    "metadata": b"",
    "created": CREATED,
}


@pytest.mark.parametrize("number", [12, 13])
def test_write_completed(number: int) -> None:
    result = _replies.decode_write_completed(frame_of(number))
    assert (result.result, result.message) == (0, "")
    assert (result.first_event_number, result.last_event_number) == (0, 0)
    assert result.position == (5, 5)
    assert result.current_version == (0 if number == 12 else None)


def test_wrong_expected_version() -> None:
    result = _replies.decode_write_completed(frame_of(14))
    assert (result.result, result.message) == (4, "Wrong expected version.")
    assert (result.first_event_number, result.last_event_number) == (-(2**31), -(2**31))
    assert result.position == (0, -(2**31))
    assert result.current_version == 3


@pytest.mark.parametrize("number", [16, 17])
def test_page(number: int) -> None:
    result, page, error = _replies.decode_stream_slice(frame_of(number), "s-1", 0, 0)
    assert (result, error) == (0, "")
    assert (page.next_event_number, page.last_event_number) == (1, 0)
    assert page.is_end_of_stream
    assert page.commit_position == 1234
    [event] = page
    assert EVENT.items() <= views.event_values(event).items()
    assert (event.link, event.position) == (None, None)


@pytest.mark.parametrize("number", [18, 19])
def test_page_of_a_stream_that_does_not_exist(number: int) -> None:
    result, page, error = _replies.decode_stream_slice(frame_of(number), "s-1", 0, 0)
    assert (result, len(page), error) == (1, 0, "")
    assert (page.next_event_number, page.last_event_number) == (-1, -1)
    assert page.is_end_of_stream
    assert page.commit_position == 100


def test_link_without_target() -> None:
    _, page, _ = _replies.decode_stream_slice(frame_of(20), "$ce-s", 4, 0)
    [event] = page
    assert not event.is_resolved
    assert event.link is not None
    assert (event.link.stream, event.link.type, event.link.data) == ("$ce-s", "$>", b"9@s-2")
    assert (event.event_number, event.stream) == (4, "$ce-s")


@pytest.mark.parametrize("number", [22, 24])
def test_confirmation_without_last_event_number(number: int) -> None:
    """The two look the same: the whole log, or (proto3) a stream whose last event is number 0."""
    confirmation = _cold.decode("SubscriptionConfirmation", payload_of(number))
    assert confirmation.last_commit_position == 7
    assert confirmation.last_event_number == 0
    assert not confirmation.HasField("last_event_number")


def test_confirmation_with_last_event_number() -> None:
    assert _cold.decode("SubscriptionConfirmation", payload_of(23)).HasField("last_event_number")


def test_pushed_event() -> None:
    [event] = _replies.decode_pushes(frame_of(25))
    assert EVENT.items() <= views.event_values(event).items()
    assert event.position == (1000, 1000)


def test_pushed_event_of_a_persistent_subscription() -> None:
    [event] = _replies.decode_pushes(frame_of(31))
    assert EVENT.items() <= views.event_values(event).items()
    assert (event.position, event.retry_count) == (None, 0)


@pytest.mark.parametrize("number", [27, 28])
def test_not_ready(number: int) -> None:
    assert _cold.decode("NotHandled", payload_of(number)).reason == 0


def test_dropped() -> None:
    assert _cold.decode("SubscriptionDropped", payload_of(26)).reason == 0


def test_not_master() -> None:
    refusal = _cold.decode("NotHandled", payload_of(29))
    leader = _cold.decode("LeaderInfo", refusal.additional_info)
    assert refusal.reason == 2
    assert (leader.external_tcp_address, leader.external_tcp_port) == ("127.0.0.1", 1113)
    assert (leader.http_address, leader.http_port) == ("127.0.0.1", 2113)
    assert leader.external_secure_tcp_port == 0


@pytest.mark.parametrize("number", sorted(set(VECTORS) - {7, 10, 11, 33}))
def test_reference_codec_and_decoders_agree(number: int) -> None:
    frame = frame_of(number)
    if frame.command in views.DECODED:
        fields = goldenlib.decode_fields(frame.command, bytes(frame.body))
        assert views.decoded(frame) == views.expected(frame.command, fields)
