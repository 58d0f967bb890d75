"""WriteRequest, and the writing of protobuf fields, for `_records.pyx`."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpump._varint cimport Cursor, size_of_varint, write_varint


cdef struct EventSpan:
    # Where the parts of an event to be written lie in the request.
    const unsigned char* event_id          # 16 bytes
    const unsigned char* event_type
    const unsigned char* data
    const unsigned char* metadata
    Py_ssize_t type_size
    Py_ssize_t data_size
    Py_ssize_t metadata_size
    bint is_json


cdef class _Source:
    cdef object owner                      # keeps the bytes alive
    cdef Py_buffer view
    cdef bint has_view                     # `view` is held and has to be released

    cdef int open(self, object source, Py_ssize_t offset, Cursor* cursor) except -1


cdef class WriteRequest:
    cdef readonly str stream               # None for a TransactionWrite
    cdef readonly int64_t expected_version
    cdef readonly int64_t transaction_id
    cdef readonly bint require_master
    cdef readonly Py_ssize_t count         # events
    cdef readonly Py_ssize_t size          # bytes of the request
    cdef _Source source                    # keeps the bytes alive
    cdef list replaced                     # event types that were not UTF-8, as they are stored
    cdef EventSpan first                   # the usual case of one event needs no memory of its own
    cdef EventSpan* spans                  # &first, or malloc'ed
    cdef Py_ssize_t capacity

    cdef EventSpan* span(self, Py_ssize_t index) except NULL
    cdef EventSpan* add_span(self) except NULL
    cdef int take_event(self, Cursor* outer, uint32_t outer_tag) except -1
    cdef int check_event(self, EventSpan* span) except -1
    cdef int replace_bad_text(self, EventSpan* span) except -1


cdef enum:
    PREFIX = 4                             # bytes of a frame's length
    HEADER = 18                            # bytes of a frame that its length counts before the body


cdef inline const char* bytes_of_id(bytes id) except NULL:
    if PyBytes_GET_SIZE(id) != 16:
        raise ValueError(f"id: {len(id)} bytes instead of 16")
    return PyBytes_AS_STRING(id)


cdef inline void write_header(
    unsigned char* out, Py_ssize_t body, int command, const void* correlation_id
) noexcept:
    """The PREFIX + HEADER bytes of a frame with a body of this size."""
    cdef uint32_t length = <uint32_t>(HEADER + body)
    out[0] = length & 0xFF
    out[1] = length >> 8 & 0xFF
    out[2] = length >> 16 & 0xFF
    out[3] = length >> 24
    out[4] = <unsigned char>command
    out[5] = 0
    memcpy(out + 6, correlation_id, 16)


cdef inline Py_ssize_t size_of_blob(Py_ssize_t size) noexcept:
    """Of a length-delimited field with a number up to 15."""
    return 1 + size_of_varint(<uint64_t>size) + size


cdef inline Py_ssize_t size_of_int(int64_t value) noexcept:
    return 1 + size_of_varint(<uint64_t>value)


cdef inline unsigned char* write_int(unsigned char* out, unsigned char tag, int64_t value) noexcept:
    out[0] = tag
    return write_varint(out + 1, <uint64_t>value)


cdef inline unsigned char* write_blob(
    unsigned char* out, unsigned char tag, const void* data, Py_ssize_t size
) noexcept:
    out[0] = tag
    out = write_varint(out + 1, <uint64_t>size)
    if size > 0:
        memcpy(out, data, size)
    return out + size
