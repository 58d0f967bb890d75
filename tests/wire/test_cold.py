"""The cold messages: protobuf behind a table, compared with a schema written independently."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import goldenlib
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from wire import reference
from wire.scrambling import is_repeated, messages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from goldenlib import Reply, Request

from fastpump import _cold
from fastpump.exceptions import ProtocolError

HOT = {
    "EventRecord",
    "ReadAllEvents",
    "ReadAllEventsCompleted",
    "ReadEvent",
    "ReadEventCompleted",
    "ReadStreamEvents",
    "ReadStreamEventsCompleted",
    "PersistentSubscriptionStreamEventAppeared",
    "ResolvedEvent",
    "ResolvedIndexedEvent",
    "StreamEventAppeared",
    "WriteEvents",
    "WriteEventsCompleted",
}
COLD = sorted(set(reference.PROTO2.names) - HOT)
COMMANDS = {command for command, name in reference.PAYLOADS.items() if name in COLD}


def cold_fields(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as `_cold` names them: scavengeId is the only name that is not in snake case."""
    renamed = {"scavengeId": "scavenge_id"} if name == "ScavengeDatabaseResponse" else {}
    return {renamed.get(key, key): value for key, value in fields.items()}


@pytest.mark.parametrize("name", COLD)
def test_same_fields_as_the_reference(name: str) -> None:
    ours, theirs = _cold.message(name).DESCRIPTOR, reference.PROTO2.message(name).DESCRIPTOR
    assert [f.number for f in ours.fields] == [f.number for f in theirs.fields]
    pairs: Iterable[tuple[Any, Any]] = zip(ours.fields, theirs.fields, strict=True)
    for our, their in pairs:
        assert our.name == cold_fields(name, {their.name: None}).popitem()[0]
        assert is_repeated(our) == is_repeated(their)
        # The events of a filtered page are left encoded: bytes on the wire are bytes on the wire.
        if name != "FilteredReadAllEventsCompleted" or their.name != "events":
            assert our.type == their.type


def test_hot_messages_are_not_among_them() -> None:
    for name in HOT:
        with pytest.raises(KeyError, match=name):
            _cold.message(name)


@pytest.mark.parametrize("area", goldenlib.AREAS)
def test_recorded_messages_keep_their_bytes(area: str) -> None:
    for scenario in goldenlib.scenarios(area):
        frames: list[Request | Reply] = [r for r in scenario.requests if not r.noncanonical]
        for frame in [*frames, *scenario.replies]:
            if frame.command in COMMANDS:
                name = reference.PAYLOADS[frame.command]
                fields = cold_fields(name, frame.fields)
                assert _cold.encode(name, **fields) == frame.payload, scenario
                decoded = _cold.decode(name, frame.payload)
                assert {f.name for f, _ in decoded.ListFields()} == set(fields)
                assert decoded.SerializeToString() == frame.payload


def test_every_cold_message_of_version_4_was_recorded() -> None:
    recorded = {reply.command for s in goldenlib.scenarios() for reply in s.replies}
    # Commands that version 4 does not know were sent too, without content: they have no name.
    requests = (request for s in goldenlib.scenarios() for request in s.requests)
    recorded |= {request.command for request in requests if not request.name.startswith("0x")}
    # NotHandled needs a cluster; the others are of later versions.
    missing = {"NotHandled", "FilteredReadAllEvents", "FilteredReadAllEventsCompleted"}
    missing |= {"FilteredSubscribeToStream", "CheckpointReached"}
    assert {reference.PAYLOADS[command] for command in COMMANDS - recorded} == missing


PLAIN = [name for name in COLD if name != "FilteredReadAllEventsCompleted"]


@given(st.sampled_from(PLAIN).flatmap(lambda name: st.tuples(st.just(name), messages(name))))
def test_any_message(message: tuple[str, dict[str, Any]]) -> None:
    name, fields = message
    data = reference.PROTO2.encode(name, fields)
    assert _cold.encode(name, **cold_fields(name, fields)) == data
    assert _cold.decode(name, data).SerializeToString() == data
    from_proto3 = _cold.decode(name, reference.PROTO3.encode(name, fields))
    for field, value in cold_fields(name, fields).items():
        if isinstance(value, (int, str, bytes)):
            assert getattr(from_proto3, field) == value


@given(st.sampled_from(COLD), st.binary(max_size=60))
def test_garbage_is_a_protocol_error_or_a_message(name: str, data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(_cold.decode(name, data), Message)


@pytest.mark.parametrize("data", [b"\x0a\x02\xff\xff", b"\x0a\x05s", b"\xff" * 11, b"\x0f"])
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="DeleteStream"):
        _cold.decode("DeleteStream", memoryview(data))


def test_names_of_version_4() -> None:
    assert _cold.message("MasterInfo") is _cold.message("LeaderInfo")
    assert _cold.encode("DeleteStream", require_master=True) == _cold.encode(
        "DeleteStream", require_leader=True
    )


def test_none_leaves_a_field_out() -> None:
    assert _cold.encode("IdentifyClient", version=0, connection_name=None) == b"\x08\x00"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"version": 2**31}, ValueError),
        ({"version": "1"}, TypeError),
        ({"connection_name": 1}, TypeError),
        ({"surname": "x"}, ValueError),
    ],
)
def test_values_that_do_not_fit(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        _cold.encode("IdentifyClient", **fields)


def test_a_new_enum_number_is_still_a_number() -> None:
    data = reference.PROTO2.encode("SubscriptionDropped", {"reason": 99})
    assert _cold.decode("SubscriptionDropped", data).reason == 99


def test_importing_the_package_does_not_import_protobuf() -> None:
    code = "import sys, fastpump._cold; sys.exit('google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
