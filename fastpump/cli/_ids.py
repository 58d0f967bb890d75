"""Event ids that come out the same every time the same input is read.

They are hashes (BLAKE2b, 16 bytes) in the form RFC 9562 sets aside for ids of one's own making,
version 8. The same id tells a server that it has the event already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from uuid import UUID

import orjson

from fastpump.cli._template import Fields, MissingField

ID_BYTES = 16
# RFC 9562: the version is the high half of byte 6, the variant the top two bits of byte 8.
VERSION_AND_VARIANT = 0x8 << 76 | 0x2 << 62
OTHER_BITS = ~(0xF << 76 | 0x3 << 62)

IdMaker = Callable[[int, Fields, bytes], int]
"""From an event's line number, fields and content to its id: the number that a UUID is."""


def _as_uuid(digest: bytes) -> int:
    return int.from_bytes(digest, "big") & OTHER_BITS | VERSION_AND_VARIANT


def ids_from_place(source: str) -> IdMaker:
    """Ids made of where an event stands and of what it says: source name, line, content."""
    start = blake2b(source.encode("utf-8", "surrogateescape") + b"\0", digest_size=ID_BYTES)

    def make(line: int, fields: Fields, body: bytes) -> int:
        digest = start.copy()
        digest.update(b"%d\0%b" % (line, body))
        return _as_uuid(digest.digest())

    return make


def ids_from_fields(names: Sequence[str]) -> IdMaker:
    """Ids made of some fields' values, wherever the event stands.

    A single field that holds a UUID is the id itself. An event without one of the fields makes
    the function raise `MissingField`.
    """

    def make(line: int, fields: Fields, body: bytes) -> int:
        values = [fields.get(name) for name in names]
        for name, value in zip(names, values, strict=True):
            if value is None or value == "":
                raise MissingField(f"the field {name!r} is missing or empty")
        if len(values) == 1 and isinstance(values[0], str):
            try:
                return UUID(values[0]).int
            except ValueError:
                pass
        return _as_uuid(blake2b(orjson.dumps([names, values]), digest_size=ID_BYTES).digest())

    return make
