"""The cold messages of the protocol: those that are not written, read or pushed by the thousand.

They are ordinary protobuf messages, and the ``protobuf`` package encodes and decodes them. There is
no generated code: generated modules are bound to the protobuf that made them, whereas a descriptor
built here at run time works with every protobuf from 4.25 on. protobuf itself is imported when the
first cold message is needed, which keeps it out of ``import fastpump``.

Both kinds of servers are understood (protocol document §0): every field has presence, so a zero
that was set is written (servers up to 21.10 expect that) and a field that is absent (from 22.6 on:
the zero) reads as its zero. Enums are declared as plain numbers: one that is new to us is then
still a number. Their names live in ``fastpump.messages``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from fastpump.exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

__all__ = ["decode", "encode", "message"]

_PACKAGE = "fastpump.cold"

_GROUP_SETTINGS = """
    string subscription_group_name, string event_stream_id, bool resolve_link_tos, int64 start_from,
    int32 message_timeout_milliseconds, bool record_statistics, int32 live_buffer_size,
    int32 read_batch_size, int32 buffer_size, int32 max_retry_count, bool prefer_round_robin,
    int32 checkpoint_after_time, int32 checkpoint_max_count, int32 checkpoint_min_count,
    int32 subscriber_max_count, string named_consumer_strategy
"""

# Message -> its fields in the order of their numbers, which start at 1 and have no gaps in any
# message (protocol document §3). "*" marks a repeated field. The events of a filtered page stay
# encoded: they are ResolvedEvents, and those belong to the hot decoder.
_MESSAGES: dict[str, str] = {
    # connection
    "IdentifyClient": "int32 version, string connection_name",
    "ClientIdentified": "",
    "NotHandled": "enum reason, bytes additional_info",
    "LeaderInfo": """
        string external_tcp_address, int32 external_tcp_port, string http_address, int32 http_port,
        string external_secure_tcp_address, int32 external_secure_tcp_port
    """,
    # deletes
    "DeleteStream": """
        string event_stream_id, int64 expected_version, bool require_leader, bool hard_delete
    """,
    "DeleteStreamCompleted": """
        enum result, string message, int64 prepare_position, int64 commit_position,
        int64 current_version
    """,
    # transactions
    "NewEvent": """
        bytes event_id, string event_type, int32 data_content_type, int32 metadata_content_type,
        bytes data, bytes metadata
    """,
    "TransactionStart": "string event_stream_id, int64 expected_version, bool require_leader",
    "TransactionStartCompleted": "int64 transaction_id, enum result, string message",
    "TransactionWrite": "int64 transaction_id, NewEvent* events, bool require_leader",
    "TransactionWriteCompleted": "int64 transaction_id, enum result, string message",
    "TransactionCommit": "int64 transaction_id, bool require_leader",
    "TransactionCommitCompleted": """
        int64 transaction_id, enum result, string message, int64 first_event_number,
        int64 last_event_number, int64 prepare_position, int64 commit_position
    """,
    # filtered reads
    "Filter": "enum context, enum type, string* data",
    "FilteredReadAllEvents": """
        int64 commit_position, int64 prepare_position, int32 max_count, int32 max_search_window,
        bool resolve_link_tos, bool require_leader, Filter filter
    """,
    "FilteredReadAllEventsCompleted": """
        int64 commit_position, int64 prepare_position, bytes* events, int64 next_commit_position,
        int64 next_prepare_position, bool is_end_of_stream, enum result, string error
    """,
    # subscriptions
    "SubscribeToStream": "string event_stream_id, bool resolve_link_tos",
    "FilteredSubscribeToStream": """
        string event_stream_id, bool resolve_link_tos, Filter filter, int32 checkpoint_interval
    """,
    "SubscriptionConfirmation": "int64 last_commit_position, int64 last_event_number",
    "CheckpointReached": "int64 commit_position, int64 prepare_position",
    "UnsubscribeFromStream": "",
    "SubscriptionDropped": "enum reason",
    # persistent subscriptions
    "CreatePersistentSubscription": _GROUP_SETTINGS,
    "CreatePersistentSubscriptionCompleted": "enum result, string reason",
    "UpdatePersistentSubscription": _GROUP_SETTINGS,
    "UpdatePersistentSubscriptionCompleted": "enum result, string reason",
    "DeletePersistentSubscription": "string subscription_group_name, string event_stream_id",
    "DeletePersistentSubscriptionCompleted": "enum result, string reason",
    "ConnectToPersistentSubscription": """
        string subscription_id, string event_stream_id, int32 allowed_in_flight_messages
    """,
    "PersistentSubscriptionConfirmation": """
        int64 last_commit_position, string subscription_id, int64 last_event_number
    """,
    "PersistentSubscriptionAckEvents": "string subscription_id, bytes* processed_event_ids",
    "PersistentSubscriptionNakEvents": """
        string subscription_id, bytes* processed_event_ids, string message, enum action
    """,
    # scavenging
    "ScavengeDatabase": "",
    "ScavengeDatabaseCompleted": """
        enum result, string error, int32 total_time_ms, int64 total_space_saved
    """,
    "ScavengeDatabaseResponse": "enum result, string scavenge_id",
}

# What servers of version 4 and 5 call these messages and fields; the numbers never changed.
_OLD_MESSAGE_NAMES = {"MasterInfo": "LeaderInfo"}
_OLD_FIELD_NAMES = {
    "require_master": "require_leader",
    "external_http_address": "http_address",
    "external_http_port": "http_port",
}


@cache
def message(name: str) -> type[Message]:
    """The protobuf message class of a cold message, built at its first use.

    Args:
        name: the message's name as in the protocol document §3, ``MasterInfo`` included.

    Raises:
        KeyError: no cold message has that name.
    """
    from google.protobuf import message_factory

    name = _OLD_MESSAGE_NAMES.get(name, name)
    if name not in _MESSAGES:
        raise KeyError(f"no cold message is called {name!r}")
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def encode(name: str, /, **fields: object) -> bytes:
    """Encode a cold message: ascending field numbers, shortest varints.

    Args:
        name: the message's name, as for :func:`message`.
        **fields: the fields to write, a zero included; ``None`` leaves a field out. Named as in the
            protocol document or as in version 4 (``require_master``). A submessage is a ``dict``.

    Raises:
        KeyError: no cold message has that name.
        ValueError: the message has no such field, or a number does not fit into its field.
        TypeError: a value has another type than its field.
    """
    values: dict[str, Any] = {_OLD_FIELD_NAMES.get(key, key): fields[key] for key in fields}
    return message(name)(**values).SerializeToString()


def decode(name: str, data: bytes | bytearray | memoryview) -> Any:
    """Decode a cold message; its fields are attributes, unknown ones are skipped.

    Args:
        name: the message's name, as for :func:`message`.
        data: the payload, without header and auth block.

    Returns:
        The protobuf message. A field that was absent reads as its zero, and ``HasField`` tells.

    Raises:
        KeyError: no cold message has that name.
        ProtocolError: the bytes are not such a message.
    """
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(bytes(data))
    # protobuf's pure Python implementation lets the error of a string through as it is.
    except (DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{name} of {len(data)} bytes does not decode: {error}") from error


@cache
def _pool() -> DescriptorPool:
    """All cold messages in a pool of their own, out of the way of anybody else's descriptors.

    Declared as proto3 with explicit presence rather than as proto2: the bytes are the same, but
    only there every implementation of protobuf refuses strings that are not UTF-8.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

    file = FileDescriptorProto(name="fastpump/cold.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=name)
        for number, (kind, field_name) in enumerate(_fields(fields), start=1):
            _add_field(descriptor, number, kind, field_name)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _fields(row: str) -> Iterator[tuple[str, str]]:
    """Kind and name of each field of one row of the table."""
    for declaration in filter(None, map(str.strip, row.split(","))):
        kind, name = declaration.split()
        yield kind, name


def _add_field(descriptor: DescriptorProto, number: int, kind: str, name: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    field = descriptor.field.add(name=name, number=number)
    base = kind.rstrip("*")
    if base in _MESSAGES:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{base}"
    else:
        scalar = "int32" if base == "enum" else base
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{scalar.upper()}")
    if kind.endswith("*"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    else:
        field.label = FieldDescriptorProto.LABEL_OPTIONAL
        # Explicit presence in proto3: a oneof of that single field (protobuf calls it synthetic).
        field.proto3_optional = True
        field.oneof_index = len(descriptor.oneof_decl)
        descriptor.oneof_decl.add(name=f"_{name}")
