"""The node's requests and replies as bytes: everything of the wire that is not stored events.

Decoding is as strict, and as lenient, as protobuf-net in the original server (protocol document,
sections 0, 1.3 and 5.6): a wrong wire type, a 32-bit number out of range or a bool of 2 is an
error; text that is not UTF-8, unknown fields and repeated single fields are not.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpump._framing cimport Frame
from fastpump._varint cimport (
    TYPE_BYTES,
    TYPE_VARINT,
    WIRE_OK,
    Cursor,
    read_int64,
    read_length,
    read_tag,
    skip_field,
    write_varint,
)

from fastpump.server.errors import InvalidRequest

cdef enum:
    MAX_EVENT_SIZE = 16767216              # section 5.6: 16 MiB - 10,000
    VARINT = 10                            # bytes of the longest one
    WRITE_EVENTS_COMPLETED = 0x83


# --- requests ----------------------------------------------------------------------------------


cdef class _Source:
    """The bytes of a request: those of a Frame behind its auth block, or any buffer."""

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef int open(self, object source, Py_ssize_t offset, Cursor* cursor) except -1:
        cdef Py_ssize_t size
        self.owner = source
        if isinstance(source, Frame):
            cursor.pos = (<Frame>source).data
            size = (<Frame>source).size
        else:
            PyObject_GetBuffer(source, &self.view, PyBUF_SIMPLE)
            self.has_view = True
            cursor.pos = <const unsigned char*>self.view.buf
            size = self.view.len
        if offset < 0 or offset > size:
            raise ValueError(f"offset: {offset} is not within {size} bytes")
        cursor.end = cursor.pos + size
        cursor.pos += offset
        return 0


cdef int malformed(str what) except -1:
    raise InvalidRequest(what)


cdef inline int must(int fault) except -1:
    if fault != WIRE_OK:
        malformed("the payload is cut short or not protobuf")
    return 0


cdef inline int must_be(uint32_t tag, uint32_t wire_type) except -1:
    if tag & 7 != wire_type:
        malformed(f"field {tag >> 3} has wire type {tag & 7}")
    return 0


cdef int take_int64(Cursor* c, uint32_t tag, int64_t* value) except -1:
    must_be(tag, TYPE_VARINT)
    return must(read_int64(c, value))


cdef int take_int32(Cursor* c, uint32_t tag, int32_t* value) except -1:
    """A 32-bit number as protobuf-net reads it: negative ones may be sign-extended or not."""
    cdef int64_t wide = 0
    take_int64(c, tag, &wide)
    if wide < -2147483648 or wide > 0xFFFFFFFF:
        malformed(f"field {tag >> 3} does not fit 32 bits")
    value[0] = <int32_t>wide
    return 0


cdef int take_bool(Cursor* c, uint32_t tag, bint* value) except -1:
    cdef int64_t wide = 0
    take_int64(c, tag, &wide)
    if wide != 0 and wide != 1:
        malformed(f"field {tag >> 3} is neither true nor false")
    value[0] = wide == 1
    return 0


cdef int take_bytes(
    Cursor* c, uint32_t tag, const unsigned char** start, Py_ssize_t* size
) except -1:
    must_be(tag, TYPE_BYTES)
    must(read_length(c, size))
    start[0] = c.pos
    c.pos += size[0]
    return 0


cdef inline str text_of(const unsigned char* start, Py_ssize_t size):
    """Text as .NET decodes it: bytes that are not UTF-8 become U+FFFD."""
    return PyUnicode_DecodeUTF8(<const char*>start, size, "replace")


def decode_message(source, Py_ssize_t offset, str schema not None):
    """The fields of a request, by number.

    Args:
        source: a Frame, or anything with a buffer.
        offset: where the payload starts in it (behind an auth block).
        schema: one letter per field number from 1 on: s string, y bytes, Y repeated bytes,
            q int64, i int32, b bool, - no such field.

    Returns:
        One value per letter; absent: None for s, y and -, [] for Y, 0 or False for the rest. Of a
        field given twice the last one counts, unknown fields are skipped.

    Raises:
        InvalidRequest: not protobuf, a wrong wire type, or a value out of its type's range.
    """
    cdef _Source memory = _Source()
    cdef Cursor c
    cdef uint32_t tag = 0
    cdef list values = [empty_value(kind) for kind in schema]
    memory.open(source, offset, &c)
    while c.pos < c.end:
        must(read_tag(&c, &tag))
        if tag >> 3 > <uint32_t>len(schema) or schema[(tag >> 3) - 1] == "-":
            must(skip_field(&c, tag))
        else:
            take_value(&c, tag, schema[(tag >> 3) - 1], values)
    return values


cdef object empty_value(str kind):
    if kind in "sy-":
        return None
    if kind == "Y":
        return []
    return False if kind == "b" else 0


cdef int take_value(Cursor* c, uint32_t tag, str kind, list values) except -1:
    cdef Py_ssize_t index = (tag >> 3) - 1
    cdef const unsigned char* start = NULL
    cdef Py_ssize_t size = 0
    cdef int64_t wide = 0
    cdef int32_t narrow = 0
    cdef bint flag = False
    if kind == "q":
        take_int64(c, tag, &wide)
        values[index] = wide
    elif kind == "i":
        take_int32(c, tag, &narrow)
        values[index] = narrow
    elif kind == "b":
        take_bool(c, tag, &flag)
        values[index] = bool(flag)
    else:
        take_bytes(c, tag, &start, &size)
        if kind == "s":
            values[index] = text_of(start, size)
        elif kind == "y":
            values[index] = start[:size]
        else:
            (<list>values[index]).append(start[:size])
    return 0


cdef class WriteRequest:
    """The events of a write, checked but still lying in the request's bytes."""

    def __cinit__(self):
        self.spans = &self.first
        self.capacity = 1

    def __dealloc__(self):
        if self.spans != &self.first:
            free(self.spans)

    def event_ids(self):
        """The ids in order, 16 bytes each as on the wire."""
        return [self.spans[i].event_id[:16] for i in range(self.count)]

    def event_id(self, Py_ssize_t index):
        return self.span(index).event_id[:16]

    def event_type(self, Py_ssize_t index):
        cdef EventSpan* span = self.span(index)
        return text_of(span.event_type, span.type_size)

    def data(self, Py_ssize_t index):
        cdef EventSpan* span = self.span(index)
        return span.data[:span.data_size]

    def is_json(self, Py_ssize_t index):
        return bool(self.span(index).is_json)

    cdef EventSpan* span(self, Py_ssize_t index) except NULL:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return &self.spans[index]

    cdef EventSpan* add_span(self) except NULL:
        cdef Py_ssize_t capacity = self.capacity * 8
        cdef EventSpan* spans
        if self.count == self.capacity:
            spans = <EventSpan*>malloc(capacity * sizeof(EventSpan))
            if spans == NULL:
                raise MemoryError
            memcpy(spans, self.spans, self.count * sizeof(EventSpan))
            if self.spans != &self.first:
                free(self.spans)
            self.spans = spans
            self.capacity = capacity
        self.count += 1
        memset(&self.spans[self.count - 1], 0, sizeof(EventSpan))
        return &self.spans[self.count - 1]

    cdef int take_event(self, Cursor* outer, uint32_t outer_tag) except -1:
        cdef EventSpan* span = self.add_span()
        cdef Cursor c
        cdef uint32_t tag = 0
        cdef Py_ssize_t size = 0
        cdef int32_t number = 0
        take_bytes(outer, outer_tag, &c.pos, &size)
        c.end = c.pos + size
        while c.pos < c.end:
            must(read_tag(&c, &tag))
            if tag >> 3 == 1:
                take_bytes(&c, tag, &span.event_id, &size)
                if size != 16:
                    malformed(f"an event id of {size} bytes")
            elif tag >> 3 == 2:
                take_bytes(&c, tag, &span.event_type, &span.type_size)
            elif tag >> 3 == 3:
                take_int32(&c, tag, &number)
                span.is_json = number == 1
            elif tag >> 3 == 4:
                take_int32(&c, tag, &number)
            elif tag >> 3 == 5:
                take_bytes(&c, tag, &span.data, &span.data_size)
            elif tag >> 3 == 6:
                take_bytes(&c, tag, &span.metadata, &span.metadata_size)
            else:
                must(skip_field(&c, tag))
        return self.check_event(span)

    cdef int check_event(self, EventSpan* span) except -1:
        """Section 5.6."""
        cdef Py_ssize_t i
        if span.event_id == NULL or is_zero(span.event_id):
            malformed("an event without id")
        if span.type_size == 0:
            malformed("an event without type")
        for i in range(span.type_size):
            if span.event_type[i] >= 0x80:
                self.replace_bad_text(span)
                break
        if span.data_size + span.metadata_size + 2 * span.type_size > MAX_EVENT_SIZE:
            malformed(f"an event larger than {MAX_EVENT_SIZE} bytes")
        return 0

    cdef int replace_bad_text(self, EventSpan* span) except -1:
        cdef bytes text = text_of(span.event_type, span.type_size).encode()
        if self.replaced is None:
            self.replaced = []
        self.replaced.append(text)
        span.event_type = <const unsigned char*>PyBytes_AS_STRING(text)
        span.type_size = len(text)
        return 0


cdef inline bint is_zero(const unsigned char* event_id) noexcept:
    cdef uint64_t[2] words
    memcpy(words, event_id, 16)
    return words[0] == 0 and words[1] == 0


def decode_write_events(source, Py_ssize_t offset=0):
    """A WriteEvents request (section 3.2), checked by the rules of section 5.6.

    Raises:
        InvalidRequest: what would be answered with BadRequest.
    """
    cdef WriteRequest request = WriteRequest()
    cdef Cursor c
    cdef uint32_t tag = 0
    cdef Py_ssize_t size = 0
    cdef const unsigned char* start = NULL
    request.source = _Source()
    request.source.open(source, offset, &c)
    request.size = c.end - c.pos
    while c.pos < c.end:
        must(read_tag(&c, &tag))
        if tag >> 3 == 1:
            take_bytes(&c, tag, &start, &size)
        elif tag >> 3 == 2:
            take_int64(&c, tag, &request.expected_version)
        elif tag >> 3 == 3:
            request.take_event(&c, tag)
        elif tag >> 3 == 4:
            take_bool(&c, tag, &request.require_master)
        else:
            must(skip_field(&c, tag))
    if size == 0:
        malformed("no stream name")
    if request.expected_version < -4 or request.expected_version == -3:
        malformed(f"no expected version: {request.expected_version}")
    request.stream = text_of(start, size)
    return request


def decode_transaction_write(source, Py_ssize_t offset=0):
    """A TransactionWrite request (section 3.2), its events checked as those of a WriteEvents.

    Raises:
        InvalidRequest: what would be answered with BadRequest.
    """
    cdef WriteRequest request = WriteRequest()
    cdef Cursor c
    cdef uint32_t tag = 0
    request.source = _Source()
    request.source.open(source, offset, &c)
    request.size = c.end - c.pos
    while c.pos < c.end:
        must(read_tag(&c, &tag))
        if tag >> 3 == 1:
            take_int64(&c, tag, &request.transaction_id)
        elif tag >> 3 == 2:
            request.take_event(&c, tag)
        elif tag >> 3 == 3:
            take_bool(&c, tag, &request.require_master)
        else:
            must(skip_field(&c, tag))
    if request.transaction_id < 0:
        malformed(f"transaction id {request.transaction_id}")
    return request


# --- replies -----------------------------------------------------------------------------------


def encode_fields(*fields):
    """A payload: the given values as fields 1, 2, 3 …; None leaves a field out.

    An int or bool becomes a varint (zero is written), str and bytes are length-delimited, a list
    gives a repeated field of bytes.
    """
    cdef Py_ssize_t number
    cdef list parts = []
    for number, value in enumerate(fields, 1):
        if value is None:
            continue
        if isinstance(value, int):
            parts.append(varint_field(number, value))
        elif isinstance(value, list):
            parts.extend([bytes_field(number, item) for item in value])
        else:
            parts.append(bytes_field(number, value.encode() if isinstance(value, str) else value))
    return b"".join(parts)


cdef bytes varint_field(int number, int64_t value):
    cdef unsigned char[2 * VARINT] memory
    cdef unsigned char* end = write_varint(memory, <uint64_t>number << 3)
    end = write_varint(end, <uint64_t>value)
    return memory[:end - memory]


cdef bytes bytes_field(int number, bytes value):
    cdef unsigned char[2 * VARINT] memory
    cdef unsigned char* end = write_varint(memory, <uint64_t>number << 3 | TYPE_BYTES)
    end = write_varint(end, <uint64_t>PyBytes_GET_SIZE(value))
    return memory[:end - memory] + value


def encode_reply(int command, bytes correlation_id not None, *parts):
    """A whole frame whose payload is the given buffers, one after the other."""
    cdef Py_ssize_t size = 0
    cdef bytes part
    cdef list blobs = [bytes(item) for item in parts]
    for part in blobs:
        size += PyBytes_GET_SIZE(part)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, PREFIX + HEADER + size)
    cdef unsigned char* out = <unsigned char*>PyBytes_AS_STRING(frame)
    write_header(out, size, command, bytes_of_id(correlation_id))
    out += PREFIX + HEADER
    for part in blobs:
        memcpy(out, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))
        out += PyBytes_GET_SIZE(part)
    return frame


def encode_write_completed(
    bytes correlation_id not None, int64_t first, int64_t last, int64_t position
):
    """The frame of a successful WriteEventsCompleted, with the fields server 4.1.4 sends."""
    cdef unsigned char[PREFIX + HEADER + 6 * (VARINT + 1)] memory
    cdef unsigned char* out = memory + PREFIX + HEADER
    out = write_int(out, 0x08, 0)
    out = write_int(out, 0x18, first)
    out = write_int(out, 0x20, last)
    out = write_int(out, 0x28, position)
    out = write_int(out, 0x30, position)
    out = write_int(out, 0x38, 0)
    write_header(
        memory,
        out - memory - PREFIX - HEADER,
        WRITE_EVENTS_COMPLETED,
        bytes_of_id(correlation_id),
    )
    return memory[:out - memory]
