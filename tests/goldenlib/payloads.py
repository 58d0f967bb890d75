"""Frames and payloads of the recordings: the notation of values, encoding and decoding."""

from __future__ import annotations

import re
import struct
import uuid
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from wire import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE, PING = 0x01, 0x02, 0x03
BAD_REQUEST, NOT_AUTHENTICATED = 0xF0, 0xF4
TEXT_COMMANDS = frozenset({BAD_REQUEST, NOT_AUTHENTICATED})
MAX_FRAME = 64 * 1024 * 1024
HEADER = struct.Struct("<iBB16s")
"""Length of what follows, command, flags, correlation id (protocol document §1.1)."""

Fields = dict[str, Any]
"""The fields present in a message; bytes are bytes, submessages dicts, repeated fields lists."""

# The recordings call fields as version 4 does, the reference codec as version 20 and later.
_V4_FIELD_NAMES = {"require_master": "require_leader"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_bytes(text: str) -> bytes:
    """The bytes that a recording writes as a uuid, ``utf8:…``, ``hex:…`` or ``repeat:61*65536``."""
    if _UUID.fullmatch(text):
        return uuid.UUID(text).bytes_le
    kind, _, rest = text.partition(":")
    if kind == "utf8":
        return rest.encode()
    if kind == "hex":
        return bytes.fromhex(rest)
    if kind == "repeat":
        unit, _, count = rest.partition("*")
        return bytes.fromhex(unit) * int(count)
    raise ValueError(f"not a notation for bytes: {text!r}")


def parse_fields(command: int, fields: Mapping[str, Any]) -> Fields:
    """The recorded ``fields`` of a frame as real values, under the reference codec's names."""
    if "undecodable" in fields or command not in reference.PAYLOADS:
        return {
            name: text if name == "text" else parse_bytes(text) for name, text in fields.items()
        }
    return _parse_message(_descriptor(reference.PAYLOADS[command]), fields)


def encode_fields(command: int, fields: Fields) -> bytes:
    """The payload that has these fields."""
    if command in TEXT_COMMANDS:
        return str(fields.get("text", "")).encode()
    if command not in reference.PAYLOADS:
        return bytes(fields.get("bytes", b""))
    return reference.PROTO2.encode(reference.PAYLOADS[command], fields)


def decode_fields(command: int, payload: bytes) -> Fields:
    """The fields present in a payload; ``undecodable`` if they cannot be read."""
    if command in TEXT_COMMANDS:
        return {"text": payload.decode(errors="replace")}
    if command not in reference.PAYLOADS:
        return {"bytes": payload} if payload else {}
    try:
        return reference.PROTO2.decode(reference.PAYLOADS[command], payload)
    except DecodeError:
        return {"undecodable": payload}


def _descriptor(name: str) -> Any:
    return reference.PROTO2.message(name).DESCRIPTOR


def _parse_message(descriptor: Any, fields: Mapping[str, Any]) -> Fields:
    parsed = {}
    for name, value in fields.items():
        name = _V4_FIELD_NAMES.get(name, name)
        kind = descriptor.fields_by_name[name]
        parse = _value_parser(kind)
        parsed[name] = list(map(parse, value)) if isinstance(value, list) else parse(value)
    return parsed


def _value_parser(kind: Any) -> Callable[[Any], Any]:
    if kind.message_type is not None:
        return lambda value: _parse_message(kind.message_type, value)
    if kind.type == kind.TYPE_BYTES:
        return parse_bytes
    return lambda value: value


def build_frame(command: int, flags: int, correlation_id: bytes, body: bytes) -> bytes:
    """A frame; ``body`` is everything behind the header, an auth block included."""
    return HEADER.pack(18 + len(body), command, flags, correlation_id) + body


def split_frames(data: bytes) -> tuple[list[tuple[int, int, bytes, bytes]], bytes]:
    """Cut bytes into (command, flags, correlation id, body) and the rest, an unfinished frame."""
    frames = []
    start = 0
    while len(data) - start >= HEADER.size:
        length, command, flags, correlation_id = HEADER.unpack_from(data, start)
        if len(data) - start - 4 < length:
            break
        frames.append(
            (command, flags, correlation_id, data[start + HEADER.size : start + 4 + length])
        )
        start += 4 + length
    return frames, data[start:]
