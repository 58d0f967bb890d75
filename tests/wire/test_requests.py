"""Requests: encoded to the very bytes that were recorded, and refused where they must be."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import goldenlib
import pytest
from wire import reference, views

from fastpump import _cold, _replies, _requests
from fastpump._framing import encode_frame
from fastpump.exceptions import UsageError
from fastpump.messages import MAX_EVENT_SIZE, Event, EventRecord, Json, NewEvent, NewEventData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from goldenlib import Request, Scenario

ID = bytes(range(16))
SOME_UUID = UUID("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")

WRITE_EVENTS, READ_EVENT = 0x82, 0xB0
READ_STREAM = {0xB2: False, 0xB4: True}
READ_ALL = {0xB6: False, 0xB8: True}
ACK, NAK = 0xCC, 0xCD

LEFT_OUT = "a field is absent that the encoder always writes"
OTHER_CONTENT_TYPE = "a content type that the encoder never writes"
NOT_A_UUID = "an id that is not 16 bytes long"
ACK_WITH_LOGIN = "an ack with credentials; acks belong to a subscription, which has had them"
NO_MESSAGE = "a nak without message; the encoder writes an empty one"
REPLY = "a reply, sent by the client"
REFUSED = "the encoder refuses it: the server would answer BadRequest"

# What the encoders of hot requests do not make, and how often it was recorded. Everything else has
# to come out byte for byte.
NOT_ENCODED = {
    LEFT_OUT: 20,
    OTHER_CONTENT_TYPE: 2,
    NOT_A_UUID: 3,
    ACK_WITH_LOGIN: 1,
    NO_MESSAGE: 15,
    REPLY: 3,
    REFUSED: 12,
}

_STREAM_FIELDS = frozenset(
    {"event_stream_id", "from_event_number", "max_count", "resolve_link_tos", "require_leader"}
)
_ALL_FIELDS = frozenset(
    {"commit_position", "prepare_position", "max_count", "resolve_link_tos", "require_leader"}
)
_ALWAYS_WRITTEN = {
    WRITE_EVENTS: frozenset({"event_stream_id", "expected_version", "require_leader"}),
    READ_EVENT: frozenset(
        {"event_stream_id", "event_number", "resolve_link_tos", "require_leader"}
    ),
    **dict.fromkeys(READ_STREAM, _STREAM_FIELDS),
    **dict.fromkeys(READ_ALL, _ALL_FIELDS),
    ACK: frozenset({"subscription_id"}),
    NAK: frozenset({"subscription_id", "action"}),
}
_ALWAYS_WRITTEN_IN_EVENT = {
    "event_id",
    "event_type",
    "data_content_type",
    "metadata_content_type",
    "data",
}


def why_not(request: Request) -> str | None:
    """Why the encoders do not make this request; None if they have to."""
    if request.command not in _ALWAYS_WRITTEN:
        return REPLY if request.command in views.DECODED else None
    if not request.fields.keys() >= _ALWAYS_WRITTEN[request.command]:
        return LEFT_OUT
    if request.command in (ACK, NAK):
        return _why_not_ids(request)
    if request.fields.get("event_stream_id") == "":
        return REFUSED
    return next(filter(None, map(_why_not_event, request.fields.get("events", ()))), None)


def _why_not_ids(request: Request) -> str | None:
    ids = request.fields.get("processed_event_ids", ())
    if any(len(identifier) != 16 for identifier in ids):
        return NOT_A_UUID
    if request.auth:
        return ACK_WITH_LOGIN
    if request.command == NAK and "message" not in request.fields:
        return NO_MESSAGE
    return None if ids else REFUSED


def _why_not_event(event: Mapping[str, Any]) -> str | None:
    if not event.keys() >= _ALWAYS_WRITTEN_IN_EVENT:
        return LEFT_OUT
    if len(event["event_id"]) != 16:
        return NOT_A_UUID
    if event["data_content_type"] not in (0, 1) or event["metadata_content_type"] != 0:
        return OTHER_CONTENT_TYPE
    size = len(event["data"]) + len(event.get("metadata", b"")) + 2 * len(event["event_type"])
    if size > MAX_EVENT_SIZE or event["event_type"] == "" or not any(event["event_id"]):
        return REFUSED
    return None


def encoded(request: Request) -> bytes:
    """The frame fastpump makes for a recorded request."""
    auth = request.auth_block if request.auth else None
    encoder = _HOT_ENCODERS.get(request.command)
    if encoder is not None:
        return encoder(request, auth)
    return encode_frame(request.command, request.correlation_id, _cold_payload(request), auth)


def _cold_payload(request: Request) -> bytes:
    if request.command in reference.PAYLOADS:
        return _cold.encode(reference.PAYLOADS[request.command], **request.fields)
    return goldenlib.encode_fields(request.command, request.fields)


def _write(request: Request, auth: bytes | None) -> bytes:
    fields = request.fields
    return _requests.encode_write_events(
        request.correlation_id,
        fields["event_stream_id"],
        fields["expected_version"],
        [_new_event(event) for event in fields.get("events", ())],
        fields["require_leader"],
        auth,
    )


def _new_event(event: Mapping[str, Any]) -> NewEventData:
    data = Json(event["data"]) if event["data_content_type"] == 1 else event["data"]
    event_id = UUID(bytes_le=event["event_id"])
    return NewEventData(event_id, event["event_type"], data, event.get("metadata"))


def _read_event(request: Request, auth: bytes | None) -> bytes:
    fields = request.fields
    return _requests.encode_read_event(
        request.correlation_id,
        fields["event_stream_id"],
        fields["event_number"],
        fields["resolve_link_tos"],
        fields["require_leader"],
        auth,
    )


def _read_stream(request: Request, auth: bytes | None) -> bytes:
    fields = request.fields
    return _requests.encode_read_stream(
        request.correlation_id,
        READ_STREAM[request.command],
        fields["event_stream_id"],
        fields["from_event_number"],
        fields["max_count"],
        fields["resolve_link_tos"],
        fields["require_leader"],
        auth,
    )


def _read_all(request: Request, auth: bytes | None) -> bytes:
    fields = request.fields
    return _requests.encode_read_all(
        request.correlation_id,
        READ_ALL[request.command],
        fields["commit_position"],
        fields["prepare_position"],
        fields["max_count"],
        fields["resolve_link_tos"],
        fields["require_leader"],
        auth,
    )


def _ack(request: Request, auth: bytes | None) -> bytes:
    assert auth is None
    return _requests.encode_ack(
        request.correlation_id, request.fields["subscription_id"], _ids(request.fields)
    )


def _nak(request: Request, auth: bytes | None) -> bytes:
    assert auth is None
    fields = request.fields
    return _requests.encode_nak(
        request.correlation_id,
        fields["subscription_id"],
        _ids(fields),
        fields["action"],
        fields["message"],
    )


def _ids(fields: Mapping[str, Any]) -> list[UUID]:
    return [UUID(bytes_le=i) for i in fields.get("processed_event_ids", ())]


_HOT_ENCODERS: dict[int, Callable[[Request, bytes | None], bytes]] = {
    WRITE_EVENTS: _write,
    READ_EVENT: _read_event,
    **dict.fromkeys(READ_STREAM, _read_stream),
    **dict.fromkeys(READ_ALL, _read_all),
    ACK: _ack,
    NAK: _nak,
}


def canonical_requests(*areas: str) -> Iterator[tuple[Scenario, Request]]:
    for scenario in goldenlib.scenarios(*areas):
        for request in scenario.requests:
            if not request.noncanonical:
                yield scenario, request


@pytest.mark.parametrize("area", goldenlib.AREAS)
def test_every_recorded_request(area: str) -> None:
    for scenario, request in canonical_requests(area):
        if why_not(request) is None:
            assert encoded(request) == request.frame(), scenario


def test_what_is_not_encoded_is_known() -> None:
    reasons = Counter(why_not(request) for _, request in canonical_requests())
    del reasons[None]
    assert reasons == NOT_ENCODED


def test_what_a_server_would_refuse_is_not_sent() -> None:
    for scenario, request in canonical_requests():
        if why_not(request) == REFUSED:
            with pytest.raises(UsageError):
                pytest.fail(f"{scenario}: {encoded(request)!r:.80}")


def test_the_captured_requests() -> None:
    capture = goldenlib.capture("mixed50")
    made = []
    for description in capture.description["requests"]:
        record = {"flags": 1 if description["auth"] else 0, **description}
        request = goldenlib.Request.from_record(record)
        assert why_not(request) in (None, REFUSED)
        # What the encoder refuses was an empty stream name; the recording has it in.
        made.append(encoded(request) if why_not(request) is None else request.frame())
    assert capture.requests.endswith(b"".join(made))


class TestAnswers:
    """What an ack or a nak names events by."""

    TARGET = EventRecord("s", UUID(int=7), 3, "t")
    LINK = EventRecord("links", UUID(int=8), 0, "$>", b"3@s", is_json=False)

    @pytest.mark.parametrize(
        ("event", "named"),
        [
            (Event(TARGET), UUID(int=7)),
            (Event(TARGET, LINK), UUID(int=8)),
            (Event(LINK), UUID(int=8)),
        ],
    )
    def test_an_event_is_named_by_the_record_that_was_received(
        self, event: Event, named: UUID
    ) -> None:
        ids = [UUID(int=1), event]
        expected = [UUID(int=1), named]
        correlation_id = bytes(16)
        assert _requests.encode_ack(correlation_id, "s::g", ids) == (
            _requests.encode_ack(correlation_id, "s::g", expected)
        )
        assert _requests.encode_nak(correlation_id, "s::g", ids, 1, "m") == (
            _requests.encode_nak(correlation_id, "s::g", expected, 1, "m")
        )

    def test_an_event_without_id_is_named_by_zeros(self) -> None:
        fields = {"event": {"event": {"event_type": "t"}}}
        payload = reference.PROTO2.encode("PersistentSubscriptionStreamEventAppeared", fields)
        pushes = list(_replies.decode_pushes(views.one_frame(0xC7, payload)))
        assert _requests.encode_ack(bytes(16), "s::g", pushes) == (
            _requests.encode_ack(bytes(16), "s::g", [UUID(int=0)])
        )

    def test_a_list_that_its_ids_change(self) -> None:
        ids: list[Any] = []

        class Growing(UUID):
            @property
            def int(self) -> int:  # type: ignore[override]
                ids.extend([UUID(int=1)] * 1000)
                return 7

        ids.append(Growing.__new__(Growing))
        expected = _requests.encode_ack(bytes(16), "s::g", [UUID(int=7)])
        assert _requests.encode_ack(bytes(16), "s::g", ids) == expected
        assert len(ids) > 1000

    def test_an_id_of_another_size(self) -> None:
        class Number(int):
            def to_bytes(self, *_: Any) -> bytes:  # type: ignore[override]
                return b"\1"

        class Short(UUID):
            int = Number(7)  # type: ignore[assignment]

        with pytest.raises(ValueError, match="1 bytes instead of 16"):
            _requests.encode_ack(bytes(16), "s::g", [Short.__new__(Short)])

    @pytest.mark.parametrize("id", ["7", b"7" * 16, None, TARGET])
    def test_what_names_no_event(self, id: Any) -> None:
        with pytest.raises(UsageError, match="event_ids"):
            _requests.encode_ack(bytes(16), "s::g", [id])


class TestNewEvents:
    """What becomes of the bodies of events."""

    @pytest.mark.parametrize(
        ("data", "is_json", "written"),
        [
            (b"raw", False, b"raw"),
            (bytearray(b"raw"), False, b"raw"),
            (memoryview(b"raw"), False, b"raw"),
            (None, False, b""),
            (b"", False, b""),
            (Json(b'{"a": 1}'), True, b'{"a": 1}'),
            ('{"a": "ä"}', True, '{"a": "ä"}'.encode()),
            ({"a": [1, None]}, True, b'{"a":[1,null]}'),
            ([], True, b"[]"),
            (0, True, b"0"),
        ],
    )
    def test_body(self, data: Any, is_json: bool, written: bytes) -> None:
        for frame in (
            _requests.encode_write_event(ID, "s", -2, "t", data, data, SOME_UUID),
            _requests.encode_write_events(ID, "s", -2, [NewEvent("t", SOME_UUID, data, data)]),
        ):
            [event] = _events_in(frame)
            assert event["data"] == written
            assert event["data_content_type"] == is_json
            assert event["metadata_content_type"] == 0
            assert event.get("metadata") == (None if data is None else written)
            assert event["event_id"] == SOME_UUID.bytes_le

    def test_subclasses_of_str_are_their_text(self) -> None:
        class Odd(str):
            __slots__ = ()

            def encode(self, *_: Any) -> Any:
                return 7

            def __len__(self) -> int:
                return 0

        text = Odd("text")
        [event] = _events_in(_requests.encode_write_event(ID, text, -2, text, text, text, None))
        assert (event["event_type"], event["data"], event["metadata"]) == ("text", b"text", b"text")

    def test_a_list_that_its_events_change(self) -> None:
        class Clearing(bytearray):
            def __bytes__(self) -> bytes:
                events.clear()
                return b"given"

        events: list[Any] = [(SOME_UUID, "t", Clearing(), None), (SOME_UUID, "t", b"next", None)]
        written = _events_in(_requests.encode_write_events(ID, "s", -2, events))
        assert [event["data"] for event in written] == [b"given", b"next"]
        assert events == []

    def test_an_event_does_not_change(self) -> None:
        """Not even while it is encoded: what was read of it would lie in memory that is free."""

        class Changing(bytearray):
            def __bytes__(self) -> bytes:
                event.__init__(None, "other", b"", None)  # type: ignore[misc]
                return b""

        event = NewEvent("".join(["t"] * 1000), SOME_UUID, Changing(b"given"))
        with pytest.raises(TypeError, match="an event does not change"):
            _requests.encode_write_events(ID, "s", -2, [event])
        with pytest.raises(TypeError, match="an event does not change"):
            event.__init__(None, "other", b"", None)  # type: ignore[misc]
        assert tuple(event) == (SOME_UUID, "t" * 1000, b"given", None)

    def test_an_event_that_its_own_id_fills_in(self) -> None:
        class Filling(int):
            def to_bytes(self, *_: Any, **__: Any) -> bytes:
                event.__init__(SOME_UUID, "first", b"", None)  # type: ignore[misc]
                return bytes(16)

        event: Any = NewEventData.__new__(NewEventData)
        with pytest.raises(TypeError, match="an event does not change"):
            event.__init__(UUID(int=Filling(1)), "second", b"", None)
        assert tuple(event) == (SOME_UUID, "first", b"", None)

    def test_new_ids_are_distinct_version_4_uuids(self) -> None:
        events = [NewEvent("t") for _ in range(1000)]
        written = _events_in(_requests.encode_write_events(ID, "s", -2, events))
        ids = [UUID(bytes_le=event["event_id"]) for event in written]
        assert ids == [event.id for event in events]
        assert len(set(ids)) == 1000
        assert {identifier.version for identifier in ids} == {4}

    def test_an_event_reads_like_a_tuple(self) -> None:
        event = NewEvent("t", SOME_UUID, {"a": 1}, b"m")
        assert tuple(event) == (SOME_UUID, "t", {"a": 1}, b"m")
        assert event == NewEventData(*event)

    @pytest.mark.parametrize("identifier", [UUID(int=0), "not a uuid", bytes(16)])
    def test_refused_id(self, identifier: Any) -> None:
        with pytest.raises(UsageError, match="id"):
            NewEvent("t", identifier)
        with pytest.raises(UsageError, match="id"):
            _requests.encode_write_event(ID, "s", -2, "t", b"", None, identifier)

    @pytest.mark.parametrize(
        ("kind", "data", "metadata", "argument"),
        [
            ("", b"", None, "type"),
            (None, b"", None, "type"),
            ("\ud800", b"", None, "type"),
            ("t", object(), None, "data"),
            ("t", b"", {1: object()}, "metadata"),
            ("t", "\ud800", None, "data"),
            ("t", b"", "\ud800", "metadata"),
            ("t", bytes(MAX_EVENT_SIZE), None, "data"),
        ],
    )
    def test_refused_event(self, kind: Any, data: Any, metadata: Any, argument: str) -> None:
        events = [NewEvent("t"), NewEvent(kind, None, data, metadata)]
        with pytest.raises(UsageError, match=rf"events\[1\]\.{argument}"):
            _requests.encode_write_events(ID, "s", -2, events)
        with pytest.raises(UsageError) as caught:
            _requests.encode_write_event(ID, "s", -2, kind, data, metadata, SOME_UUID)
        assert caught.value.argument == ("body" if argument == "data" else argument)

    @pytest.mark.parametrize(
        "event", [None, (), (SOME_UUID, "t", b""), [SOME_UUID, "t", b"", None]]
    )
    def test_what_is_no_event(self, event: Any) -> None:
        with pytest.raises(UsageError, match=r"events\[0\]"):
            _requests.encode_write_events(ID, "s", -2, [event])

    def test_largest_event(self) -> None:
        size = MAX_EVENT_SIZE - 2 * len("t") - 3
        frame = _requests.encode_write_event(ID, "s", -2, "t", bytes(size), b"abc", SOME_UUID)
        assert len(_events_in(frame)[0]["data"]) == size

    def test_more_than_a_frame_holds(self) -> None:
        event = NewEvent("t", None, bytes(MAX_EVENT_SIZE - 2))
        with pytest.raises(UsageError, match="67108864"):
            _requests.encode_write_events(ID, "s", -2, [event] * 5)

    @pytest.mark.parametrize("stream", ["", None, b"s", "\udfff"])
    def test_refused_stream(self, stream: Any) -> None:
        with pytest.raises(UsageError, match="stream"):
            _requests.encode_write_events(ID, stream, -2, [])
        with pytest.raises(UsageError, match="stream"):
            _requests.encode_read_stream(ID, False, stream, 0, 1, True)
        with pytest.raises(UsageError, match="stream"):
            _requests.encode_read_event(ID, stream, 0, True)

    @pytest.mark.parametrize("identifier", [b"", bytes(15), bytes(17)])
    def test_correlation_id_of_wrong_size(self, identifier: bytes) -> None:
        with pytest.raises(ValueError, match="correlation_id"):
            _requests.encode_read_all(identifier, False, 0, 0, 1, True)


def _events_in(frame: bytes) -> list[dict[str, Any]]:
    [(command, flags, _, body)], _ = goldenlib.split_frames(frame)
    assert (command, flags) == (WRITE_EVENTS, 0)
    events: list[dict[str, Any]] = reference.PROTO2.decode("WriteEvents", body)["events"]
    return events
