# cython: nonecheck=True
"""Events to be written: what the caller gives, and what becomes of it on the wire.

    NewEvent   1 id · 2 type · 3 data_content_type (1 = JSON) · 4 metadata_content_type (0)
               5 data · 6 metadata, absent if none was given

(Protocol document, section 3.1. The server ignores field 4; the reference client sends 0.)
"""

from uuid import UUID

import orjson

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_GET_LENGTH
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from fastpump._ids cimport random_id_to_wire, uuid_from_wire, uuid_to_wire
from fastpump._varint cimport (
    TYPE_BYTES, size_of_bytes_field, write_bytes_field, write_number_field, write_varint,
)

from fastpump.exceptions import UsageError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    SIZE_OF_ID_FIELD = 18
    SIZE_OF_FLAG_FIELD = 2

MAX_EVENT_SIZE = 16 * 1024 * 1024 - 10_000
"""Largest event a server accepts: bytes of data and metadata, and two per character of the type."""

cdef Py_ssize_t max_event_size = MAX_EVENT_SIZE
cdef object dumps = orjson.dumps


class Json(bytes):
    """Bytes that are JSON already: sent as they are, with the JSON flag set."""

    __slots__ = ()


@cython.final
@cython.freelist(256)
cdef class NewEventData:
    """An event to be written; `NewEvent` makes one.

    It reads like the tuple (id, type, data, metadata).

    Args:
        id: the event's UUID; None for a new random one.
        type: the event's type.
        data, metadata: see `NewEvent`.

    Raises:
        UsageError: the id is not a UUID, or all zero.
    """

    def __init__(self, id, type, data, metadata):
        set_fields(self, id, type, data, metadata)

    @property
    def id(self):
        return uuid_from_wire(self.wire_id)

    def __iter__(self):
        return iter((self.id, self.type, self.data, self.metadata))

    def __getitem__(self, index):
        return tuple(self)[index]

    def __len__(self):
        return 4

    def __eq__(self, other):
        if not isinstance(other, (NewEventData, tuple)):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self):
        return hash(self.id)

    def __reduce__(self):
        return NewEventData, tuple(self)

    def __repr__(self):
        return f"<NewEventData {self.type!r}, {self.id}>"


cdef int id_to_wire(object id, unsigned char* wire) except -1:
    """Write the id of an event; None stands for a new random one."""
    if id is None:
        return random_id_to_wire(wire)
    if not isinstance(id, UUID):
        raise UsageError("id", f"must be a UUID, not {id.__class__.__name__}")
    if id.int == 0:
        raise UsageError("id", "must not be the all-zero UUID")
    return uuid_to_wire(id, wire)


cdef int set_fields(
    NewEventData event, object id, object type, object data, object metadata
) except -1:
    cdef unsigned char[16] wire_id
    id_to_wire(id, wire_id)
    if event.type is not None:             # since before, or since its id was asked for its bytes
        raise TypeError("an event does not change")
    memcpy(event.wire_id, wire_id, 16)
    event.type = type
    event.data = data
    event.metadata = metadata
    return 0


def NewEvent(type, id=None, data=None, metadata=None):
    """An event to be written.

    Args:
        type: the event's type, a str that is not empty.
        id: its UUID; a new random one by default. A write repeated with the same ids is written
            once, see `Client.publish`.
        data: bytes, bytearray or memoryview are sent as binary; None as empty binary; str and
            `Json` (bytes) as JSON text as they are; anything else is made JSON by orjson.
        metadata: the same; None for none.

    Raises:
        UsageError: the id is not a UUID, or all zero.
    """
    cdef NewEventData event = NewEventData.__new__(NewEventData)
    set_fields(event, id, type, data, metadata)
    return event


cdef NewEventData new_event_of(object event, Py_ssize_t index):
    """What was given as an event, which may be a tuple of its four values."""
    if isinstance(event, NewEventData):
        return event
    if not isinstance(event, tuple) or len(event) != 4:
        argument = "event" if index == ONE_EVENT else f"events[{index}]"
        raise UsageError(argument, f"is not a NewEvent: {event!r:.80}")
    return NewEventData(*event)


cdef object refuse(str field, Py_ssize_t index, str problem):
    """The error for a field of an event: `events[3].data`, `event.data`, or the argument `body`."""
    if index >= 0:
        return UsageError(f"events[{index}].{field}", problem)
    if index == ONE_EVENT:
        return UsageError(f"event.{field}", problem)
    return UsageError("body" if field == "data" else field, problem)


cdef const char* utf8_of(object text, str argument, Py_ssize_t index, Py_ssize_t* size) except NULL:
    """The UTF-8 bytes of a name, which must not be empty; they live as long as `text`."""
    if not isinstance(text, str):
        raise refuse(argument, index, f"must be a str, not {type(text).__name__}")
    if PyUnicode_GET_LENGTH(text) == 0:
        raise refuse(argument, index, "must not be empty")
    try:
        return PyUnicode_AsUTF8AndSize(text, size)
    except UnicodeEncodeError as error:
        raise refuse(argument, index, f"cannot be encoded as UTF-8: {error.reason}") from error


cdef object body_of(object value, str field, Py_ssize_t index, bint* is_json):
    """The bytes object that `value` is on the wire; `is_json` becomes whether it is JSON."""
    is_json[0] = False
    if value is None:
        return b""
    if isinstance(value, bytes):
        is_json[0] = isinstance(value, Json)
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    is_json[0] = True
    try:
        return PyUnicode_AsUTF8String(value) if isinstance(value, str) else dumps(value)
    except UnicodeEncodeError as error:
        raise refuse(field, index, f"cannot be encoded as UTF-8: {error.reason}") from error
    except TypeError as error:
        raise refuse(field, index, f"cannot be made JSON: {error}") from error


cdef object prepare(Part* part, NewEventData event, Py_ssize_t index):
    """Fill `part`; what it points to lives in `event` and what is returned. `index` is as for
    `fill`."""
    cdef bint is_json = False
    cdef bint ignored = False
    cdef object data = body_of(event.data, "data", index, &is_json)
    cdef object metadata = None
    if event.metadata is not None:
        metadata = body_of(event.metadata, "metadata", index, &ignored)
    fill(part, event.wire_id, event.type, data, is_json, metadata, index)
    return data if metadata is None else (data, metadata)


cdef int fill(
    Part* part, const unsigned char* id, object type, object data, bint is_json, object metadata,
    Py_ssize_t index,
) except -1:
    """Let `part` be an event of this, the bodies being bytes; it points to all of it.

    `index` is the event's place in a list, or what stands for it: see the .pxd. Nothing is asked of
    subclasses of str: their answers may be anything, and `part` points to what they could change.
    """
    part.id = id
    part.type = utf8_of(type, "type", index, &part.type_size)
    part.is_json = is_json
    part.data = PyBytes_AS_STRING(data)
    part.data_size = PyBytes_GET_SIZE(data)
    part.has_metadata = metadata is not None
    part.metadata = PyBytes_AS_STRING(metadata) if part.has_metadata else NULL
    part.metadata_size = PyBytes_GET_SIZE(metadata) if part.has_metadata else 0
    if part.data_size + part.metadata_size + 2 * PyUnicode_GET_LENGTH(type) > max_event_size:
        raise refuse(
            "data", index, f"the event is over the server's limit of {max_event_size} bytes"
        )
    part.size = (
        SIZE_OF_ID_FIELD + size_of_bytes_field(part.type_size) + 2 * SIZE_OF_FLAG_FIELD
        + size_of_bytes_field(part.data_size)
    )
    if part.has_metadata:
        part.size += size_of_bytes_field(part.metadata_size)
    return 0


cdef unsigned char* write_part(
    unsigned char* out, uint32_t field, const Part* part
) noexcept nogil:
    """Write the NewEvent message as field number `field` of the message around it."""
    out[0] = <unsigned char>(field << 3 | TYPE_BYTES)
    out = write_varint(out + 1, <uint64_t>part.size)
    out = write_bytes_field(out, 1, <const char*>part.id, 16)
    out = write_bytes_field(out, 2, part.type, part.type_size)
    out = write_number_field(out, 3, part.is_json)
    out = write_number_field(out, 4, 0)
    out = write_bytes_field(out, 5, part.data, part.data_size)
    if part.has_metadata:
        out = write_bytes_field(out, 6, part.metadata, part.metadata_size)
    return out
