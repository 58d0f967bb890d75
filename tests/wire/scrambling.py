"""Messages as no sane encoder writes them, but as every decoder has to read them.

``messages(name)`` draws the fields of a message, ``scrambled(name, fields, rng)`` writes them in
any order, with fields nobody knows in between, with varints longer than necessary, and with
scalars written twice, the last one being the one that counts. ``damaged(payload, rng)`` is what
no decoder has to read, and ``some_fields(name, rng)`` says what makes no sense.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from wire import reference

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

Fields = dict[str, Any]

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)

_INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 127, 128, -(2**31), 2**31 - 1, 2**32, -(2**63), 2**63 - 1]),
)
_INT32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-1, 9)
_KINDS_OF_DATETIME = st.sampled_from([0, 1 << 62, 2 << 62])
_TICKS = st.integers(0, 3_155_378_975_999_999_999)

# Fields whose values the protocol restricts more than their types do (sections 3.1 and 5.3).
_RESTRICTED: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.binary(min_size=16, max_size=16),
    "data_content_type": st.integers(0, 2) | _INT32,
    "created": st.builds(lambda ticks, kind: _signed(ticks | kind), _TICKS, _KINDS_OF_DATETIME),
    "created_epoch": st.integers(-62_135_596_800_000, 253_402_300_799_999),
}


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def descriptor_of(name: str) -> Any:
    """protobuf's descriptor of a message."""
    return reference.PROTO2.message(name).DESCRIPTOR


def is_repeated(field: Any) -> bool:
    """Whether a field is repeated; newer protobufs deprecate what older versions have for it."""
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else field.label == 3


def messages(name: str) -> st.SearchStrategy[Fields]:
    """Any fields of a message, each present or not; its events are always events or links."""
    fields = descriptor_of(name).fields
    strategy = st.fixed_dictionaries({}, optional={f.name: _values(f) for f in fields})
    if name in ("ResolvedEvent", "ResolvedIndexedEvent"):
        return strategy.filter(lambda resolved: "event" in resolved or "link" in resolved)
    if name in ("StreamEventAppeared", "PersistentSubscriptionStreamEventAppeared"):
        return strategy.filter(lambda push: "event" in push)
    return strategy


def _values(field: Any) -> st.SearchStrategy[Any]:
    if is_repeated(field):
        return st.lists(_single_values(field), min_size=1, max_size=3)
    return _single_values(field)


def _single_values(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type.name)
    if field.name in _RESTRICTED:
        return _RESTRICTED[field.name]
    kinds: dict[int, st.SearchStrategy[Any]] = {
        field.TYPE_STRING: st.text(max_size=12),
        field.TYPE_BYTES: st.binary(max_size=30),
        field.TYPE_BOOL: st.booleans(),
        field.TYPE_INT32: _INT32,
        field.TYPE_INT64: _INT64,
    }
    return kinds[field.type]


def varint(number: int, padding: int = 0) -> bytes:
    """A varint, with as many superfluous bytes as `padding` says."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    if padding:
        encoded[-1] |= 0x80
        encoded += b"\x80" * (padding - 1) + b"\x00"
    return bytes(encoded)


def tag(number: int, wire_type: int) -> bytes:
    """The tag in front of a value."""
    return varint(number << 3 | wire_type)


def length_delimited(number: int, value: bytes) -> bytes:
    """A string, bytes or message field."""
    return tag(number, LENGTH) + varint(len(value)) + value


def scrambled(name: str, fields: Mapping[str, Any], rng: random.Random) -> bytes:
    """A message with these fields, written in an unusual but valid way."""
    return _scrambled(descriptor_of(name), fields, rng)


def _scrambled(descriptor: Any, fields: Mapping[str, Any], rng: random.Random) -> bytes:
    sequences = [_sequence(descriptor.fields_by_name[n], v, rng) for n, v in fields.items()]
    sequences += [[unknown_field(rng)] for _ in range(rng.choice([0, 0, 1, 3]))]
    # Any order, but the occurrences of one field stay in theirs.
    order = [index for index, sequence in enumerate(sequences) for _ in sequence]
    rng.shuffle(order)
    remaining = [iter(sequence) for sequence in sequences]
    return b"".join(next(remaining[index]) for index in order)


def _sequence(field: Any, value: Any, rng: random.Random) -> list[bytes]:
    values = value if is_repeated(field) else [value]
    if field.message_type is None and not is_repeated(field) and rng.random() < 0.2:
        values = [_EARLIER[field.type], value]
    return [_field(field, item, rng) for item in values]


_EARLIER = {9: "earlier", 12: bytes(16), 8: True, 5: 1, 3: 1}
"""A valid value for each type of field: string, bytes, bool, int32, int64."""


def _field(field: Any, value: Any, rng: random.Random) -> bytes:
    padding = rng.choice([0, 0, 0, 1])
    if field.message_type is not None:
        value = _scrambled(field.message_type, value, rng)
    elif field.type == field.TYPE_STRING:
        value = value.encode()
    if isinstance(value, bytes):
        return tag(field.number, LENGTH) + varint(len(value), padding) + value
    return tag(field.number, VARINT) + varint(value, padding if value >= 0 else 0)


def unknown_field(rng: random.Random, depth: int = 0) -> bytes:
    """A field that no message of the protocol has, of any wire type."""
    number = rng.choice([17, 100, 2047, 2048, 2**29 - 1])
    wire_type = rng.choice([VARINT, FIXED64, LENGTH, FIXED32] + [GROUP] * (depth < 3))
    if wire_type == GROUP:
        inside = b"".join(unknown_field(rng, depth + 1) for _ in range(rng.randrange(3)))
        return tag(number, GROUP) + inside + tag(number, END_GROUP)
    values = {
        VARINT: varint(rng.getrandbits(64)),
        FIXED64: struct.pack("<Q", rng.getrandbits(64)),
        LENGTH: varint(5) + b"\xff\x00\x08\x96\x01",
        FIXED32: struct.pack("<I", rng.getrandbits(32)),
    }
    return tag(number, wire_type) + values[wire_type]


def damaged(payload: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, inserted, removed or repeated."""
    changed = bytearray(payload)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(changed) + 1)
        end = place + rng.randrange(4)
        changed[place:end] = rng.choice(
            [b"", rng.randbytes(1), b"\xff" * 11, changed[place : end + 3] * 2, varint(2**63)]
        )
    return bytes(changed)


def some_fields(name: str, rng: random.Random) -> Fields:
    """Fields of a message as a server may send them that follows the encoding and nothing else."""
    return {
        field.name: _some_values(field, rng)
        for field in descriptor_of(name).fields
        if rng.random() < 0.8
    }


def _some_values(field: Any, rng: random.Random) -> Any:
    if is_repeated(field):
        return [_some_value(field, rng) for _ in range(rng.choice([0, 1, 1, 3]))]
    return _some_value(field, rng)


def _some_value(field: Any, rng: random.Random) -> Any:
    if field.message_type is not None:
        return some_fields(field.message_type.name, rng)
    if field.type == field.TYPE_STRING:
        return rng.choice(["", "s", "größe", "x" * 300])
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(16) if field.name == "event_id" else rng.choice([b"", b"{}", b"[1]"])
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    bits = 31 if field.type == field.TYPE_INT32 else 63
    if field.name.startswith("created"):
        bits = 40
    return rng.choice([0, 0, 0, 1, 2, -1, 7, 2**bits - 1, -(2**bits)])
