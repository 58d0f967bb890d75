"""The reference codec: all messages of the protocol, encoded and decoded by protobuf itself.

Written from the protocol document §2 and §3 alone and sharing no table with the package, so that a
wrong field number in one of them shows as a difference. Three codecs come out of the one schema:

``PROTO2``  every field optional with presence: what was set is written, zeros included
            (servers up to 21.10, and every client that wants to be understood by them);
``PROTO3``  implicit presence: zeros and empty values are not written (servers from 22.6 on);
``WIDE``    like PROTO2, but without fields of 32 bits, so that no number is cut when reading.

Enums are declared ``int32``; on the wire that is the same, and unknown numbers survive.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

_EVENT_RECORD = """
    string event_stream_id = 1; int64 event_number = 2; bytes event_id = 3; string event_type = 4;
    int32 data_content_type = 5; int32 metadata_content_type = 6; bytes data = 7;
    bytes metadata = 8; int64 created = 9; int64 created_epoch = 10;
"""

_GROUP = """
    string subscription_group_name = 1; string event_stream_id = 2; bool resolve_link_tos = 3;
    int64 start_from = 4; int32 message_timeout_milliseconds = 5; bool record_statistics = 6;
    int32 live_buffer_size = 7; int32 read_batch_size = 8; int32 buffer_size = 9;
    int32 max_retry_count = 10; bool prefer_round_robin = 11; int32 checkpoint_after_time = 12;
    int32 checkpoint_max_count = 13; int32 checkpoint_min_count = 14;
    int32 subscriber_max_count = 15; string named_consumer_strategy = 16;
"""

_SCHEMA = f"""
message NewEvent {{
    bytes event_id = 1; string event_type = 2; int32 data_content_type = 3;
    int32 metadata_content_type = 4; bytes data = 5; bytes metadata = 6;
}}
message EventRecord {{ {_EVENT_RECORD} }}
message ResolvedIndexedEvent {{ EventRecord event = 1; EventRecord link = 2; }}
message ResolvedEvent {{
    EventRecord event = 1; EventRecord link = 2; int64 commit_position = 3;
    int64 prepare_position = 4;
}}

message WriteEvents {{
    string event_stream_id = 1; int64 expected_version = 2; repeated NewEvent events = 3;
    bool require_leader = 4;
}}
message WriteEventsCompleted {{
    int32 result = 1; string message = 2; int64 first_event_number = 3; int64 last_event_number = 4;
    int64 prepare_position = 5; int64 commit_position = 6; int64 current_version = 7;
}}
message DeleteStream {{
    string event_stream_id = 1; int64 expected_version = 2; bool require_leader = 3;
    bool hard_delete = 4;
}}
message DeleteStreamCompleted {{
    int32 result = 1; string message = 2; int64 prepare_position = 3; int64 commit_position = 4;
    int64 current_version = 5;
}}
message TransactionStart {{
    string event_stream_id = 1; int64 expected_version = 2; bool require_leader = 3;
}}
message TransactionStartCompleted {{
    int64 transaction_id = 1; int32 result = 2; string message = 3;
}}
message TransactionWrite {{
    int64 transaction_id = 1; repeated NewEvent events = 2; bool require_leader = 3;
}}
message TransactionWriteCompleted {{
    int64 transaction_id = 1; int32 result = 2; string message = 3;
}}
message TransactionCommit {{ int64 transaction_id = 1; bool require_leader = 2; }}
message TransactionCommitCompleted {{
    int64 transaction_id = 1; int32 result = 2; string message = 3; int64 first_event_number = 4;
    int64 last_event_number = 5; int64 prepare_position = 6; int64 commit_position = 7;
}}

message ReadEvent {{
    string event_stream_id = 1; int64 event_number = 2; bool resolve_link_tos = 3;
    bool require_leader = 4;
}}
message ReadEventCompleted {{ int32 result = 1; ResolvedIndexedEvent event = 2; string error = 3; }}
message ReadStreamEvents {{
    string event_stream_id = 1; int64 from_event_number = 2; int32 max_count = 3;
    bool resolve_link_tos = 4; bool require_leader = 5;
}}
message ReadStreamEventsCompleted {{
    repeated ResolvedIndexedEvent events = 1; int32 result = 2; int64 next_event_number = 3;
    int64 last_event_number = 4; bool is_end_of_stream = 5; int64 last_commit_position = 6;
    string error = 7;
}}
message ReadAllEvents {{
    int64 commit_position = 1; int64 prepare_position = 2; int32 max_count = 3;
    bool resolve_link_tos = 4; bool require_leader = 5;
}}
message ReadAllEventsCompleted {{
    int64 commit_position = 1; int64 prepare_position = 2; repeated ResolvedEvent events = 3;
    int64 next_commit_position = 4; int64 next_prepare_position = 5; int32 result = 6;
    string error = 7;
}}
message Filter {{ int32 context = 1; int32 type = 2; repeated string data = 3; }}
message FilteredReadAllEvents {{
    int64 commit_position = 1; int64 prepare_position = 2; int32 max_count = 3;
    int32 max_search_window = 4; bool resolve_link_tos = 5; bool require_leader = 6;
    Filter filter = 7;
}}
message FilteredReadAllEventsCompleted {{
    int64 commit_position = 1; int64 prepare_position = 2; repeated ResolvedEvent events = 3;
    int64 next_commit_position = 4; int64 next_prepare_position = 5; bool is_end_of_stream = 6;
    int32 result = 7; string error = 8;
}}

message SubscribeToStream {{ string event_stream_id = 1; bool resolve_link_tos = 2; }}
message FilteredSubscribeToStream {{
    string event_stream_id = 1; bool resolve_link_tos = 2; Filter filter = 3;
    int32 checkpoint_interval = 4;
}}
message SubscriptionConfirmation {{ int64 last_commit_position = 1; int64 last_event_number = 2; }}
message StreamEventAppeared {{ ResolvedEvent event = 1; }}
message CheckpointReached {{ int64 commit_position = 1; int64 prepare_position = 2; }}
message UnsubscribeFromStream {{ }}
message SubscriptionDropped {{ int32 reason = 1; }}

message CreatePersistentSubscription {{ {_GROUP} }}
message UpdatePersistentSubscription {{ {_GROUP} }}
message DeletePersistentSubscription {{
    string subscription_group_name = 1; string event_stream_id = 2;
}}
message CreatePersistentSubscriptionCompleted {{ int32 result = 1; string reason = 2; }}
message UpdatePersistentSubscriptionCompleted {{ int32 result = 1; string reason = 2; }}
message DeletePersistentSubscriptionCompleted {{ int32 result = 1; string reason = 2; }}
message ConnectToPersistentSubscription {{
    string subscription_id = 1; string event_stream_id = 2; int32 allowed_in_flight_messages = 3;
}}
message PersistentSubscriptionConfirmation {{
    int64 last_commit_position = 1; string subscription_id = 2; int64 last_event_number = 3;
}}
message PersistentSubscriptionAckEvents {{
    string subscription_id = 1; repeated bytes processed_event_ids = 2;
}}
message PersistentSubscriptionNakEvents {{
    string subscription_id = 1; repeated bytes processed_event_ids = 2; string message = 3;
    int32 action = 4;
}}
message PersistentSubscriptionStreamEventAppeared {{
    ResolvedIndexedEvent event = 1; int32 retryCount = 2;
}}

message NotHandled {{ int32 reason = 1; bytes additional_info = 2; }}
message LeaderInfo {{
    string external_tcp_address = 1; int32 external_tcp_port = 2; string http_address = 3;
    int32 http_port = 4; string external_secure_tcp_address = 5; int32 external_secure_tcp_port = 6;
}}
message IdentifyClient {{ int32 version = 1; string connection_name = 2; }}
message ClientIdentified {{ }}
message ScavengeDatabase {{ }}
message ScavengeDatabaseCompleted {{
    int32 result = 1; string error = 2; int32 total_time_ms = 3; int64 total_space_saved = 4;
}}
message ScavengeDatabaseResponse {{ int32 result = 1; string scavengeId = 2; }}
"""

PAYLOADS: dict[int, str] = {
    0x82: "WriteEvents",
    0x83: "WriteEventsCompleted",
    0x84: "TransactionStart",
    0x85: "TransactionStartCompleted",
    0x86: "TransactionWrite",
    0x87: "TransactionWriteCompleted",
    0x88: "TransactionCommit",
    0x89: "TransactionCommitCompleted",
    0x8A: "DeleteStream",
    0x8B: "DeleteStreamCompleted",
    0xB0: "ReadEvent",
    0xB1: "ReadEventCompleted",
    0xB2: "ReadStreamEvents",
    0xB3: "ReadStreamEventsCompleted",
    0xB4: "ReadStreamEvents",
    0xB5: "ReadStreamEventsCompleted",
    0xB6: "ReadAllEvents",
    0xB7: "ReadAllEventsCompleted",
    0xB8: "ReadAllEvents",
    0xB9: "ReadAllEventsCompleted",
    0xBA: "FilteredReadAllEvents",
    0xBB: "FilteredReadAllEventsCompleted",
    0xBC: "FilteredReadAllEvents",
    0xBE: "FilteredReadAllEventsCompleted",
    0xC0: "SubscribeToStream",
    0xC1: "SubscriptionConfirmation",
    0xC2: "StreamEventAppeared",
    0xC3: "UnsubscribeFromStream",
    0xC4: "SubscriptionDropped",
    0xC5: "ConnectToPersistentSubscription",
    0xC6: "PersistentSubscriptionConfirmation",
    0xC7: "PersistentSubscriptionStreamEventAppeared",
    0xC8: "CreatePersistentSubscription",
    0xC9: "CreatePersistentSubscriptionCompleted",
    0xCA: "DeletePersistentSubscription",
    0xCB: "DeletePersistentSubscriptionCompleted",
    0xCC: "PersistentSubscriptionAckEvents",
    0xCD: "PersistentSubscriptionNakEvents",
    0xCE: "UpdatePersistentSubscription",
    0xCF: "UpdatePersistentSubscriptionCompleted",
    0xD0: "ScavengeDatabase",
    # Version 4; later servers answer ScavengeDatabaseResponse with the same command.
    0xD1: "ScavengeDatabaseCompleted",
    0xD2: "FilteredSubscribeToStream",
    0xD3: "CheckpointReached",
    0xF1: "NotHandled",
    0xF5: "IdentifyClient",
    0xF6: "ClientIdentified",
}
"""The protobuf message in the payload of each command that has one (protocol document §2.1)."""


class Codec:
    """All messages of the schema in one of the two encodings.

    Messages go in and out as plain dicts: a field of the dict is a field that is present, a
    submessage is a dict, bytes are bytes.
    """

    def __init__(self, syntax: Literal["proto2", "proto3"], *, wide: bool = False) -> None:
        self.syntax = syntax
        self._classes = _build(syntax, wide)

    @property
    def names(self) -> list[str]:
        """The names of all messages."""
        return list(self._classes)

    def message(self, name: str) -> type[Message]:
        """The protobuf class of a message."""
        return self._classes[name]

    def encode(self, name: str, fields: Mapping[str, Any]) -> bytes:
        """The canonical bytes of a message: ascending field numbers, shortest varints."""
        return self._classes[name](**fields).SerializeToString(deterministic=True)

    def decode(self, name: str, data: bytes) -> dict[str, Any]:
        """The present fields of a message; raises protobuf's DecodeError.

        Presence is proto2's or proto3's: in the latter a zero is never present.
        """
        return _as_dict(self._classes[name].FromString(data))


def _as_dict(message: Message) -> dict[str, Any]:
    return {field.name: _plain(value) for field, value in message.ListFields()}


def _plain(value: Any) -> Any:
    if hasattr(value, "ListFields"):
        return _as_dict(value)
    if isinstance(value, (str, bytes, bool, int)):
        return value
    return [_plain(item) for item in value]


def _build(syntax: str, wide: bool) -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"reference_{syntax}.proto", package=f"reference.{syntax}", syntax=syntax
    )
    schema = _SCHEMA.replace("int32 ", "int64 ") if wide else _SCHEMA
    bodies = re.findall(r"message (\w+) \{(.*?)\}", schema, re.DOTALL)
    for name, body in bodies:
        message = file.message_type.add(name=name)
        for repeated, kind, field_name, number in re.findall(
            r"(repeated )?(\w+) (\w+) = (\d+);", body
        ):
            message.field.append(
                _field(f".{file.package}.", bool(repeated), kind, field_name, int(number))
            )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name, _ in bodies
    }


def _field(
    scope: str, repeated: bool, kind: str, name: str, number: int
) -> descriptor_pb2.FieldDescriptorProto:
    types = descriptor_pb2.FieldDescriptorProto
    field = types(name=name, number=number)
    field.label = types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type = types.TYPE_MESSAGE
        field.type_name = scope + kind
    else:
        field.type = types.Type.Value(f"TYPE_{kind.upper()}")
    return field


PROTO2 = Codec("proto2")
PROTO3 = Codec("proto3")
WIDE = Codec("proto2", wide=True)
