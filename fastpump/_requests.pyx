# cython: nonecheck=True
"""The hot requests as whole frames, ready to be sent.

Every field the reference client writes is written, zeros included; fields in ascending order
(protocol document, sections 3.2, 3.3 and 3.5):

    WriteEvents      1 stream · 2 expected_version · 3 events NewEvent* · 4 require_master
    TransactionWrite 1 transaction_id · 2 events NewEvent* · 3 require_master
    ReadEvent        1 stream · 2 number · 3 resolve_link_tos · 4 require_master
    ReadStreamEvents 1 stream · 2 from · 3 max_count · 4 resolve_link_tos · 5 require_master
    ReadAllEvents    1 commit · 2 prepare · 3 max_count · 4 resolve_link_tos · 5 require_master
    …AckEvents       1 subscription id · 2 event ids*
    …NakEvents       1 subscription id · 2 event ids* · 3 message · 4 action
"""

from uuid import UUID

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fastpump._events cimport Event, received_id_to_wire
from fastpump._framing cimport new_frame
from fastpump._ids cimport uuid_to_wire
from fastpump._new_events cimport (
    ARGUMENTS, Part, body_of, fill, id_to_wire, new_event_of, prepare, utf8_of, write_part,
)
from fastpump._packing cimport Batch
from fastpump._varint cimport (
    size_of_bytes_field, size_of_number_field, write_bytes_field, write_number_field,
)

from fastpump._framing import MAX_FRAME_SIZE
from fastpump.exceptions import UsageError

cdef enum:
    WRITE_EVENTS = 0x82
    TRANSACTION_WRITE = 0x86
    READ_EVENT = 0xB0
    READ_STREAM_FORWARD = 0xB2
    READ_STREAM_BACKWARD = 0xB4
    READ_ALL_FORWARD = 0xB6
    READ_ALL_BACKWARD = 0xB8
    ACK_EVENTS = 0xCC
    NAK_EVENTS = 0xCD

    HEADER = 18
    SIZE_OF_ID_FIELD = 18
    SIZE_OF_FLAG_FIELD = 2
    MAX_IDS = 2000                         # ids in one ack or nak, as the reference client has it

cdef Py_ssize_t max_frame_size = MAX_FRAME_SIZE


cdef class _Batch:
    """The events of one message, ready to be written, and what keeps their bytes alive."""

    cdef Part* parts
    cdef Py_ssize_t count
    cdef list alive

    def __cinit__(self, list events not None):
        cdef Py_ssize_t i
        self.count = len(events)
        self.alive = events[:]             # what encoding one calls may change the list itself
        self.parts = <Part*>calloc(self.count if self.count else 1, sizeof(Part))
        if self.parts == NULL:
            raise MemoryError
        for i in range(self.count):
            event = new_event_of(self.alive[i], i)
            if event is not self.alive[i]:
                self.alive.append(event)
            self.alive.append(prepare(&self.parts[i], event, i))

    def __dealloc__(self):
        free(self.parts)


cdef Py_ssize_t size_of_parts(const Part* parts, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t i
    for i in range(count):
        size += size_of_bytes_field(parts[i].size)
    return size


cdef int check_size(Py_ssize_t size, Py_ssize_t count, bytes auth) except -1:
    """A message of `count` events and `size` bytes must fit into a frame."""
    if size + HEADER + (0 if auth is None else len(auth)) > max_frame_size:
        raise UsageError(
            "events", f"{count} events make a message of {size} bytes, over {max_frame_size}"
        )
    return 0


cdef unsigned char* write_parts(
    unsigned char* out, uint32_t field, const Part* parts, Py_ssize_t count
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        out = write_part(out, field, &parts[i])
    return out


cdef bytes write_frame(
    bytes correlation_id, object stream, int64_t expected_version, const Part* parts,
    Py_ssize_t count, bint require_master, bytes auth,
):
    cdef unsigned char* out = NULL
    cdef Py_ssize_t size = size_of_parts(parts, count)
    cdef bytes frame = begin_write_events(
        correlation_id, stream, expected_version, count, size, auth, &out
    )
    out = write_parts(out, 3, parts, count)
    write_number_field(out, 4, require_master)
    return frame


cdef bytes begin_write_events(
    bytes correlation_id, object stream, int64_t expected_version, Py_ssize_t count,
    Py_ssize_t size, bytes auth, unsigned char** out,
):
    """A WriteEvents frame up to its events, which take `size` bytes and are written to `out`."""
    cdef Py_ssize_t stream_size = 0
    cdef const char* name = utf8_of(stream, "stream", ARGUMENTS, &stream_size)
    cdef Py_ssize_t payload_size = (
        size_of_bytes_field(stream_size) + size_of_number_field(expected_version) + size
        + SIZE_OF_FLAG_FIELD
    )
    check_size(payload_size, count, auth)
    cdef bytes frame = new_frame(WRITE_EVENTS, correlation_id, auth, payload_size, out)
    out[0] = write_bytes_field(out[0], 1, name, stream_size)
    out[0] = write_number_field(out[0], 2, expected_version)
    return frame


cpdef bytes encode_write_event(
    bytes correlation_id, object stream, int64_t expected_version, object type, object data,
    object metadata, object id, bint require_master=False, bytes auth=None,
):
    """WriteEvents with one event; the arguments are those of `NewEvent`."""
    cdef Part part
    cdef bint is_json = False
    cdef bint ignored = False
    cdef unsigned char[16] wire_id
    id_to_wire(id, wire_id)
    cdef object body = body_of(data, "data", ARGUMENTS, &is_json)
    if metadata is not None:
        metadata = body_of(metadata, "metadata", ARGUMENTS, &ignored)
    fill(&part, wire_id, type, body, is_json, metadata, ARGUMENTS)
    return write_frame(
        correlation_id, stream, expected_version, &part, 1, require_master, auth
    )


def encode_write_events(
    bytes correlation_id not None, stream, int64_t expected_version, list events not None,
    bint require_master=False, bytes auth=None,
):
    """WriteEvents with NewEventData, or tuples of the same four values.

    Raises:
        UsageError: the stream or an event cannot be sent; it names which.
    """
    cdef _Batch batch = _Batch(events)
    return write_frame(
        correlation_id, stream, expected_version, batch.parts, batch.count, require_master, auth
    )


def encode_batch(
    bytes correlation_id not None, Batch batch not None, int64_t expected_version,
    bint require_master=False, bytes auth=None,
):
    """WriteEvents with the events of a `Batch`; the batch's memory is the frame's from now on."""
    cdef unsigned char* out = NULL
    cdef bytes frame = begin_write_events(
        correlation_id, batch.stream, expected_version, batch.count, batch.size, auth, &out
    )
    memcpy(out, batch.events_start, batch.size)
    write_number_field(out + batch.size, 4, require_master)
    batch.move_to(frame, out)
    return frame


def encode_transaction_write(
    bytes correlation_id not None, int64_t transaction_id, list events not None,
    bint require_master=False, bytes auth=None,
):
    """TransactionWrite; the events are those of `encode_write_events`."""
    cdef _Batch batch = _Batch(events)
    cdef unsigned char* out = NULL
    cdef Py_ssize_t size = (
        size_of_number_field(transaction_id) + size_of_parts(batch.parts, batch.count)
        + SIZE_OF_FLAG_FIELD
    )
    check_size(size, batch.count, auth)
    cdef bytes frame = new_frame(TRANSACTION_WRITE, correlation_id, auth, size, &out)
    out = write_number_field(out, 1, transaction_id)
    out = write_parts(out, 2, batch.parts, batch.count)
    write_number_field(out, 3, require_master)
    return frame


def encode_read_event(
    bytes correlation_id not None, stream, int64_t event_number, bint resolve_links,
    bint require_master=False, bytes auth=None,
):
    """ReadEvent."""
    cdef Py_ssize_t stream_size = 0
    cdef const char* name = utf8_of(stream, "stream", ARGUMENTS, &stream_size)
    cdef unsigned char* out = NULL
    cdef bytes frame = new_frame(
        READ_EVENT, correlation_id, auth,
        size_of_bytes_field(stream_size) + size_of_number_field(event_number)
        + 2 * SIZE_OF_FLAG_FIELD,
        &out,
    )
    out = write_bytes_field(out, 1, name, stream_size)
    out = write_number_field(out, 2, event_number)
    out = write_number_field(out, 3, resolve_links)
    write_number_field(out, 4, require_master)
    return frame


def encode_read_stream(
    bytes correlation_id not None, bint backward, stream, int64_t from_event_number, int max_count,
    bint resolve_links, bint require_master=False, bytes auth=None,
):
    """ReadStreamEvents, in one direction or the other."""
    cdef Py_ssize_t stream_size = 0
    cdef const char* name = utf8_of(stream, "stream", ARGUMENTS, &stream_size)
    cdef unsigned char* out = NULL
    cdef bytes frame = new_frame(
        READ_STREAM_BACKWARD if backward else READ_STREAM_FORWARD, correlation_id, auth,
        size_of_bytes_field(stream_size) + size_of_number_field(from_event_number)
        + size_of_number_field(max_count) + 2 * SIZE_OF_FLAG_FIELD,
        &out,
    )
    out = write_bytes_field(out, 1, name, stream_size)
    out = write_number_field(out, 2, from_event_number)
    out = write_number_field(out, 3, max_count)
    out = write_number_field(out, 4, resolve_links)
    write_number_field(out, 5, require_master)
    return frame


def encode_read_all(
    bytes correlation_id not None, bint backward, int64_t commit_position,
    int64_t prepare_position, int max_count,
    bint resolve_links, bint require_master=False, bytes auth=None,
):
    """ReadAllEvents, in one direction or the other."""
    cdef unsigned char* out = NULL
    cdef bytes frame = new_frame(
        READ_ALL_BACKWARD if backward else READ_ALL_FORWARD, correlation_id, auth,
        size_of_number_field(commit_position) + size_of_number_field(prepare_position)
        + size_of_number_field(max_count) + 2 * SIZE_OF_FLAG_FIELD,
        &out,
    )
    out = write_number_field(out, 1, commit_position)
    out = write_number_field(out, 2, prepare_position)
    out = write_number_field(out, 3, max_count)
    out = write_number_field(out, 4, resolve_links)
    write_number_field(out, 5, require_master)
    return frame


cdef bytes id_fields(list event_ids):
    """Field 2 for each of these UUIDs and events."""
    cdef list ids = event_ids[:]           # a subclass of UUID may change the list itself
    cdef unsigned char[16] wire
    if not 0 < len(ids) <= MAX_IDS:
        raise UsageError("event_ids", f"{len(ids)} ids; 1 to {MAX_IDS} are possible")
    cdef bytes fields = PyBytes_FromStringAndSize(NULL, SIZE_OF_ID_FIELD * len(ids))
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(fields)
    for id in ids:
        if isinstance(id, Event):
            received_id_to_wire(<Event>id, wire)
        elif isinstance(id, UUID):
            uuid_to_wire(id, wire)
        else:
            raise UsageError("event_ids", f"must be UUIDs or events, not {type(id).__name__}")
        out = write_bytes_field(out, 2, <const char*>wire, 16)
    return fields


def encode_ack(bytes correlation_id not None, subscription_id, list event_ids not None):
    """PersistentSubscriptionAckEvents for 1 to 2000 UUIDs, or events by their received records."""
    cdef bytes ids = id_fields(event_ids)
    cdef Py_ssize_t name_size = 0
    cdef const char* name = utf8_of(subscription_id, "subscription_id", ARGUMENTS, &name_size)
    cdef unsigned char* out = NULL
    cdef bytes frame = new_frame(
        ACK_EVENTS, correlation_id, None, size_of_bytes_field(name_size) + len(ids), &out
    )
    out = write_bytes_field(out, 1, name, name_size)
    memcpy(out, PyBytes_AS_STRING(ids), len(ids))
    return frame


def encode_nak(
    bytes correlation_id not None, subscription_id, list event_ids not None, int action,
    str message not None,
):
    """PersistentSubscriptionNakEvents for the same; `action` as in section 3.5."""
    cdef bytes ids = id_fields(event_ids)
    cdef Py_ssize_t name_size = 0
    cdef const char* name = utf8_of(subscription_id, "subscription_id", ARGUMENTS, &name_size)
    cdef bytes text = message.encode()
    cdef unsigned char* out = NULL
    cdef bytes frame = new_frame(
        NAK_EVENTS, correlation_id, None,
        size_of_bytes_field(name_size) + len(ids) + size_of_bytes_field(len(text))
        + size_of_number_field(action),
        &out,
    )
    out = write_bytes_field(out, 1, name, name_size)
    memcpy(out, PyBytes_AS_STRING(ids), len(ids))
    out = write_bytes_field(out + len(ids), 3, PyBytes_AS_STRING(text), len(text))
    write_number_field(out, 4, action)
    return frame
