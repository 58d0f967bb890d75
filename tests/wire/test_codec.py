"""The hot codec against protobuf: any message, and anything that looks a little like one.

The rule: what fastpump decodes is what protobuf decodes, or a ProtocolError; where protobuf
refuses, fastpump refuses. It refuses more than protobuf does: known fields of a wrong wire type,
submessages that occur twice (protobuf merges them), names that are not UTF-8, ids that are not 16
bytes long and times that no datetime can hold. And it reads one thing otherwise: a number too large
for its field of 32 bits is not cut to them, so that no garbage reads as "Success".
"""

from __future__ import annotations

import pickle
import random
from typing import Any
from uuid import UUID

import goldenlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import reference, views
from wire.scrambling import (
    FIXED32,
    FIXED64,
    GROUP,
    LENGTH,
    VARINT,
    Fields,
    damaged,
    descriptor_of,
    length_delimited,
    messages,
    scrambled,
    tag,
    unknown_field,
    varint,
)

from fastpump import _replies, _requests
from fastpump.exceptions import ProtocolError
from fastpump.messages import Events, Json, NewEvent

ID = bytes(range(16))

# One command for each decoder; the two directions of a read share theirs.
COMMANDS = (0x83, 0xB1, 0xB3, 0xB7, 0xBB, 0xC2, 0xC7)

replies = st.sampled_from(COMMANDS).flatmap(
    lambda command: st.tuples(st.just(command), messages(reference.PAYLOADS[command]))
)
int64s = st.integers(-(2**63), 2**63 - 1)


def decode(command: int, payload: bytes) -> views.Values:
    return views.decoded(views.one_frame(command, payload))


def check_agreement(command: int, payload: bytes) -> None:
    """fastpump refuses these bytes, or protobuf reads the same from them."""
    try:
        values = decode(command, payload)
    except ProtocolError as error:
        assert error.offset is None or 0 <= error.offset <= len(payload)  # noqa: PT017
        return
    fields = reference.WIDE.decode(reference.PAYLOADS[command], payload)
    assert values == views.expected(command, fields)


class TestReplies:
    @given(replies)
    def test_as_servers_write_them(self, reply: tuple[int, Fields]) -> None:
        command, fields = reply
        name = reference.PAYLOADS[command]
        full = reference.PROTO2.encode(name, fields)
        assert decode(command, full) == views.expected(command, fields)
        sparse = reference.PROTO3.encode(name, fields)
        present = reference.PROTO2.decode(name, sparse)
        assert decode(command, sparse) == views.expected(command, present)

    @given(replies, st.randoms(use_true_random=False))
    def test_in_any_order_with_unknown_fields(
        self, reply: tuple[int, Fields], rng: random.Random
    ) -> None:
        command, fields = reply
        payload = scrambled(reference.PAYLOADS[command], fields, rng)
        assert reference.PROTO2.decode(reference.PAYLOADS[command], payload) == fields
        assert decode(command, payload) == views.expected(command, fields)

    @given(replies, st.randoms(use_true_random=False))
    def test_cut_at_every_byte(self, reply: tuple[int, Fields], rng: random.Random) -> None:
        command, fields = reply
        payload = scrambled(reference.PAYLOADS[command], fields, rng)
        for cut in range(len(payload)):
            check_agreement(command, payload[:cut])

    @given(replies, st.randoms(use_true_random=False))
    def test_damaged(self, reply: tuple[int, Fields], rng: random.Random) -> None:
        command, fields = reply
        payload = scrambled(reference.PAYLOADS[command], fields, rng)
        for _ in range(30):
            check_agreement(command, damaged(payload, rng))

    @given(st.sampled_from(COMMANDS), st.binary(max_size=100))
    def test_garbage(self, command: int, payload: bytes) -> None:
        check_agreement(command, payload)

    @given(st.sampled_from(COMMANDS), st.randoms(use_true_random=False))
    def test_garbage_that_starts_well(self, command: int, rng: random.Random) -> None:
        """Tags of known fields in front of anything."""
        parts = []
        for _ in range(rng.randrange(1, 6)):
            number, wire_type = rng.randrange(1, 9), rng.choice([VARINT, LENGTH, LENGTH])
            value = rng.randbytes(rng.randrange(12))
            parts.append(
                length_delimited(number, value)
                if wire_type == LENGTH
                else tag(number, VARINT) + varint(rng.getrandbits(rng.choice([3, 31, 64])))
            )
        check_agreement(command, b"".join(parts))

    @pytest.mark.parametrize(("command", "field"), [(0xB1, "event"), (0xB3, "events")])
    def test_events_of_streams_have_no_position(self, command: int, field: str) -> None:
        """ResolvedIndexedEvent has two fields: whatever else is in there means nothing known."""
        record = length_delimited(1, length_delimited(4, b"type"))
        for more in (tag(3, VARINT) + varint(7), length_delimited(4, b"more")):
            check_agreement(command, surround(command, (field,), record + more))
        frame = views.one_frame(
            0xB3, surround(0xB3, ("events",), record + tag(3, VARINT) + varint(7))
        )
        _, page, _ = _replies.decode_stream_slice(frame, "s", 0, 0)
        copies = [page[0].detach(), pickle.loads(pickle.dumps(page[0])), *Events(page)]
        assert [event.position for event in copies] == [None] * 3

    @pytest.mark.parametrize("name", ["links100", "mixed50", "all_page"])
    def test_damaged_captures(self, name: str) -> None:
        rng = random.Random(name)
        for command, _, _, body in goldenlib.split_frames(goldenlib.capture(name).data)[0]:
            if command in views.DECODED:
                for _ in range(20):
                    check_agreement(command, damaged(body, rng))


def each_field() -> list[Any]:
    """Every known field of every message that can stand in a hot reply, with what surrounds it."""
    return [
        pytest.param(command, path, field, id=f"{command:#x}-{'.'.join(path)}-{field.name}")
        for command in COMMANDS
        for path, descriptor in _messages_in(descriptor_of(reference.PAYLOADS[command]), ())
        for field in descriptor.fields
    ]


def _messages_in(descriptor: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    inner = [
        found
        for field in descriptor.fields
        if field.message_type is not None
        for found in _messages_in(field.message_type, (*path, field.name))
    ]
    return [(path, descriptor), *inner]


def surround(command: int, path: tuple[str, ...], content: bytes) -> bytes:
    """The payload in which this content stands in the submessage at `path`."""
    descriptor = descriptor_of(reference.PAYLOADS[command])
    numbers = []
    for name in path:
        numbers.append(descriptor.fields_by_name[name].number)
        descriptor = descriptor.fields_by_name[name].message_type
    for number in reversed(numbers):
        content = length_delimited(number, content)
    return content


class TestRefusals:
    """What is wrong with the bytes is said when they arrive, or when the event they are in is taken
    out of its page, for every field of every message."""

    @pytest.mark.parametrize(("command", "path", "field"), each_field())
    def test_wrong_wire_type(self, command: int, path: tuple[str, ...], field: Any) -> None:
        wire_types = {VARINT: b"\x01", FIXED64: bytes(8), LENGTH: b"\x00", FIXED32: bytes(4)}
        is_varint = field.type in (field.TYPE_INT32, field.TYPE_INT64, field.TYPE_BOOL)
        del wire_types[VARINT if is_varint else LENGTH]
        wire_types[GROUP] = tag(field.number, GROUP + 1)
        for wire_type, value in wire_types.items():
            payload = surround(command, path, tag(field.number, wire_type) + value)
            with pytest.raises(ProtocolError, match="wire type"):
                decode(command, payload)

    @pytest.mark.parametrize(("command", "path", "field"), each_field())
    def test_value_that_does_not_end(self, command: int, path: tuple[str, ...], field: Any) -> None:
        is_varint = field.type in (field.TYPE_INT32, field.TYPE_INT64, field.TYPE_BOOL)
        start = tag(field.number, VARINT if is_varint else LENGTH)
        for count in (1, 9, 10, 11, 5000):
            with pytest.raises(ProtocolError):
                decode(command, surround(command, path, start + b"\xff" * count))
        with pytest.raises(ProtocolError):
            decode(command, surround(command, path, start))

    @pytest.mark.parametrize(("command", "path", "field"), each_field())
    def test_length_past_the_end(self, command: int, path: tuple[str, ...], field: Any) -> None:
        for length in (1, 100, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
            payload = surround(command, path, tag(field.number, LENGTH) + varint(length))
            with pytest.raises(ProtocolError):
                decode(command, payload)

    @pytest.mark.parametrize(("command", "path", "field"), each_field())
    def test_submessage_twice(self, command: int, path: tuple[str, ...], field: Any) -> None:
        if field.message_type is None or field.name == "events":
            return
        once = length_delimited(field.number, length_delimited(1, b""))
        with pytest.raises(ProtocolError):
            decode(command, surround(command, path, once * 2))

    @pytest.mark.parametrize(("command", "path", "field"), each_field())
    @pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
    def test_invalid_utf8(
        self, command: int, path: tuple[str, ...], field: Any, text: bytes
    ) -> None:
        if field.type == field.TYPE_STRING:
            for before in (b"", b"plain ascii before the fault "):
                content = length_delimited(field.number, before + text)
                with pytest.raises(ProtocolError, match="UTF-8"):
                    decode(command, surround(command, path, content))

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"\x00", id="field 0"),
            pytest.param(b"\x07", id="field 0 of type 7"),
            pytest.param(b"\x04", id="end of no group"),
            pytest.param(b"\x80\x80\x80\x80\x80\x01", id="more than 32 bits"),
            pytest.param(b"\x80\x80\x80\x80\x81\x00", id="more than 5 bytes"),
        ],
    )
    @pytest.mark.parametrize("command", COMMANDS)
    def test_tags_that_are_none(self, command: int, content: bytes) -> None:
        with pytest.raises(ProtocolError):
            decode(command, content + bytes(8))

    @pytest.mark.parametrize("size", [0, 1, 15, 17, 32])
    def test_event_id_of_wrong_size(self, size: int) -> None:
        record = length_delimited(3, bytes(size))
        with pytest.raises(ProtocolError, match="16 bytes"):
            decode(0xB3, surround(0xB3, ("events", "event"), record))

    @pytest.mark.parametrize(
        ("number", "value"),
        [
            (9, 3_155_378_976_000_000_000),
            (9, (1 << 62) - 1),
            (10, 253_402_300_800_000),
            (10, -62_135_596_800_001),
            (10, 2**63 - 1),
        ],
    )
    def test_time_that_no_datetime_can_hold(self, number: int, value: int) -> None:
        record = tag(number, VARINT) + varint(value)
        with pytest.raises(ProtocolError, match="time"):
            decode(0xB3, surround(0xB3, ("events", "event"), record))

    @pytest.mark.parametrize("command", [0xB3, 0xB7, 0xC2, 0xC7])
    def test_neither_event_nor_link(self, command: int) -> None:
        [field] = [f for f in descriptor_of(reference.PAYLOADS[command]).fields if f.message_type]
        with pytest.raises(ProtocolError, match="neither"):
            decode(command, length_delimited(field.number, b""))

    @pytest.mark.parametrize("command", [0xC2, 0xC7])
    def test_push_of_nothing(self, command: int) -> None:
        with pytest.raises(ProtocolError):
            decode(command, b"")

    def test_groups_without_end(self) -> None:
        """Deeply nested groups must neither be followed into the depths nor take long."""
        for depth in (1, 40, 100_000):
            with pytest.raises(ProtocolError):
                decode(0x83, tag(100, GROUP) * depth)

    def test_more_events_than_any_page_has(self) -> None:
        with pytest.raises(ProtocolError, match="65536"):
            decode(0xB3, length_delimited(1, length_delimited(1, b"")) * 65_537)

    def test_group_within_unknown_fields_is_skipped(self) -> None:
        rng = random.Random(3)
        for _ in range(200):
            payload = unknown_field(rng) + tag(3, VARINT) + varint(7) + unknown_field(rng)
            assert decode(0x83, payload)["first"] == 7

    def test_offset_says_where(self) -> None:
        payload = tag(1, VARINT) + b"\x00" + tag(2, VARINT)
        with pytest.raises(ProtocolError) as caught:
            decode(0x83, payload)
        assert caught.value.offset == 3
        assert "WriteEventsCompleted" in str(caught.value)


new_events = st.lists(
    st.tuples(
        st.uuids(),
        st.text(min_size=1, max_size=10).filter(lambda text: text.isprintable()),
        st.binary(max_size=40) | st.binary(max_size=40).map(Json),
        st.none() | st.binary(max_size=40) | st.binary(max_size=40).map(Json),
    ),
    max_size=4,
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
logins = st.none() | st.just(b"\x05admin\x08changeit")


class TestRequests:
    """What the encoders write is what protobuf writes, and what protobuf reads."""

    @staticmethod
    def check(frame: bytes, command: int, auth: bytes | None, fields: Fields) -> None:
        [(found, flags, identifier, body)], rest = goldenlib.split_frames(frame)
        login = auth or b""
        assert (found, flags, identifier, rest) == (command, 1 if auth else 0, ID, b"")
        assert body.startswith(login)
        name = reference.PAYLOADS[command]
        assert body[len(login) :] == reference.PROTO2.encode(name, fields)
        assert reference.PROTO2.decode(name, body[len(login) :]) == fields

    @given(names, int64s, new_events, st.booleans(), logins)
    def test_write_events(
        self,
        stream: str,
        version: int,
        events: list[tuple[UUID, str, bytes, bytes | None]],
        leader: bool,
        auth: bytes | None,
    ) -> None:
        fields: Fields = {
            "event_stream_id": stream,
            "expected_version": version,
            "events": [self.event_fields(*event) for event in events],
            "require_leader": leader,
        }
        if not events:
            del fields["events"]
        made = [NewEvent(kind, i, data, metadata) for i, kind, data, metadata in events]
        frame = _requests.encode_write_events(ID, stream, version, made, leader, auth)
        self.check(frame, 0x82, auth, fields)
        if len(events) == 1:
            [(identifier, kind, data, metadata)] = events
            assert frame == _requests.encode_write_event(
                ID, stream, version, kind, data, metadata, identifier, leader, auth
            )

    @staticmethod
    def event_fields(identifier: UUID, kind: str, data: bytes, metadata: bytes | None) -> Fields:
        fields: Fields = {
            "event_id": identifier.bytes_le,
            "event_type": kind,
            "data_content_type": int(isinstance(data, Json)),
            "metadata_content_type": 0,
            "data": data,
        }
        return fields if metadata is None else {**fields, "metadata": metadata}

    @given(names, int64s, st.booleans(), st.booleans(), logins)
    def test_read_event(
        self, stream: str, number: int, resolve: bool, leader: bool, auth: bytes | None
    ) -> None:
        fields = {
            "event_stream_id": stream,
            "event_number": number,
            "resolve_link_tos": resolve,
            "require_leader": leader,
        }
        frame = _requests.encode_read_event(ID, stream, number, resolve, leader, auth)
        self.check(frame, 0xB0, auth, fields)

    @given(
        names,
        int64s,
        st.integers(-(2**31), 2**31 - 1),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        logins,
    )
    def test_read_stream(
        self,
        stream: str,
        start: int,
        count: int,
        backward: bool,
        resolve: bool,
        leader: bool,
        auth: bytes | None,
    ) -> None:
        fields = {
            "event_stream_id": stream,
            "from_event_number": start,
            "max_count": count,
            "resolve_link_tos": resolve,
            "require_leader": leader,
        }
        frame = _requests.encode_read_stream(
            ID, backward, stream, start, count, resolve, leader, auth
        )
        self.check(frame, 0xB4 if backward else 0xB2, auth, fields)

    @given(
        int64s,
        int64s,
        st.integers(-(2**31), 2**31 - 1),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        logins,
    )
    def test_read_all(
        self,
        commit: int,
        prepare: int,
        count: int,
        backward: bool,
        resolve: bool,
        leader: bool,
        auth: bytes | None,
    ) -> None:
        fields = {
            "commit_position": commit,
            "prepare_position": prepare,
            "max_count": count,
            "resolve_link_tos": resolve,
            "require_leader": leader,
        }
        frame = _requests.encode_read_all(
            ID, backward, commit, prepare, count, resolve, leader, auth
        )
        self.check(frame, 0xB8 if backward else 0xB6, auth, fields)

    @given(names, st.lists(st.uuids(), min_size=1, max_size=5), st.integers(0, 4), names)
    def test_ack_and_nak(
        self, subscription: str, ids: list[UUID], action: int, message: str
    ) -> None:
        fields: Fields = {
            "subscription_id": subscription,
            "processed_event_ids": [identifier.bytes_le for identifier in ids],
        }
        self.check(_requests.encode_ack(ID, subscription, ids), 0xCC, None, fields)
        frame = _requests.encode_nak(ID, subscription, ids, action, message)
        self.check(frame, 0xCD, None, {**fields, "message": message, "action": action})
