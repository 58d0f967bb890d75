# cython: nonecheck=True
"""Messages that hold events: where each of them lies, and, once somebody asks, what lies in it.

When a message arrives, only its own fields are read. Of each event that gives an *extent*: where it
begins and how long it is. What lies inside is looked at when the event is taken out of its page;
then every tag, length, id, name and time stamp in it is checked, so that an event somebody holds is
whole. Whatever is wrong with the bytes is a ProtocolError, of the message or of taking the event.

Layout (protocol document, section 3; fields in any order, unknown ones skipped, absent = zero):

    ResolvedEvent   1 event EventRecord, absent for a link without target · 2 link EventRecord
                    3 commit_position · 4 prepare_position   (3 and 4 only in $all and pushes)
    EventRecord     1 stream · 2 number · 3 id · 4 type · 5 data_content_type (1 = JSON)
                    6 metadata_content_type · 7 data · 8 metadata · 9 created · 10 created_epoch
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from fastpump._invariant cimport invariant
from fastpump._varint cimport (
    TYPE_BYTES, TYPE_VARINT, WIRE_BAD_ID, WIRE_BAD_TAG, WIRE_BAD_TIME, WIRE_BAD_TYPE,
    WIRE_BAD_UTF8, WIRE_DEEP_GROUP, WIRE_LONG_VARINT, WIRE_OK, WIRE_PAST_END, WIRE_TRUNCATED,
    WIRE_TWICE, Cursor, enter, load_uint64, read_int64, read_length,
    read_tag, skip_unknown,
)

from fastpump.exceptions import ProtocolError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef enum:
    # A read asks for 4096 events at most; an arena holds far fewer pushes than this.
    MAX_EVENTS = 65536
    ROOM_FOR_MANY = 64

    NAME_BITS = 8
    LONGEST_NAME = 128                     # in bytes; longer ones are not kept

cdef int64_t KIND_BITS = <int64_t>0x3FFFFFFFFFFFFFFF       # above these .NET keeps a kind
cdef int64_t LAST_TICK = 3155378975999999999               # end of the year 9999
cdef int64_t FIRST_EPOCH = -62135596800000                 # 0001-01-01 in ms since 1970
cdef int64_t LAST_EPOCH = 253402300799999

cdef dict FAULTS = {
    WIRE_TRUNCATED: "the message ends inside a value",
    WIRE_LONG_VARINT: "a varint does not end within 64 bits",
    WIRE_PAST_END: "a length reaches past the end",
    WIRE_BAD_TAG: "no valid field tag",
    WIRE_BAD_TYPE: "a wrong wire type",
    WIRE_BAD_ID: "an id is not 16 bytes long",
    WIRE_BAD_UTF8: "a name is not valid UTF-8",
    WIRE_DEEP_GROUP: "groups are nested too deeply",
    WIRE_TWICE: "a message stands twice in the same field",
    WIRE_BAD_TIME: "a time stamp is out of range",
}


cdef inline bint is_ascii(const unsigned char* p, Py_ssize_t size) noexcept nogil:
    cdef uint64_t bits = 0
    cdef const unsigned char* end = p + size
    if size >= 8:
        while end - p > 8:
            bits |= load_uint64(p)
            p += 8
        bits |= load_uint64(end - 8)
    else:
        while p < end:
            bits |= p[0]
            p += 1
    return not bits & <uint64_t>0x8080808080808080


cdef bint is_other_utf8(const unsigned char* p, Py_ssize_t size) noexcept:
    try:
        PyUnicode_DecodeUTF8(<const char*>p, size, NULL)
        return True
    except UnicodeDecodeError:
        return False


cdef inline int read_span(
    Cursor* c, const unsigned char* base, uint32_t* offset, uint32_t* size
) noexcept nogil:
    cdef Py_ssize_t length = 0
    cdef int fault = read_length(c, &length)
    if fault == WIRE_OK:
        offset[0] = <uint32_t>(c.pos - base)
        size[0] = <uint32_t>length
        c.pos += length
    return fault


cdef inline int read_name(
    Cursor* c, const unsigned char* base, uint32_t* offset, uint32_t* size
) noexcept:
    cdef int fault = read_span(c, base, offset, size)
    if (
        fault == WIRE_OK
        and not is_ascii(base + offset[0], size[0])
        and not is_other_utf8(base + offset[0], size[0])
    ):
        return WIRE_BAD_UTF8
    return fault


cdef inline int read_id(Cursor* c, const unsigned char* base, uint32_t* offset) noexcept nogil:
    cdef uint32_t size = 0
    cdef int fault = read_span(c, base, offset, &size)
    if fault == WIRE_OK and size != 16:
        return WIRE_BAD_ID
    return fault


cdef inline int read_ticks(Cursor* c, int64_t* ticks) noexcept nogil:
    cdef int fault = read_int64(c, ticks)
    ticks[0] &= KIND_BITS
    if fault == WIRE_OK and ticks[0] > LAST_TICK:
        return WIRE_BAD_TIME
    return fault


cdef inline int read_epoch(Cursor* c, int64_t* milliseconds) noexcept nogil:
    cdef int fault = read_int64(c, milliseconds)
    if fault == WIRE_OK and not FIRST_EPOCH <= milliseconds[0] <= LAST_EPOCH:
        return WIRE_BAD_TIME
    return fault


cdef inline uint32_t next_if(Cursor* c, int fault, uint32_t tag) noexcept nogil:
    """Step over the tag if it is the next one; 0 if not, or after a fault."""
    if fault != WIRE_OK or c.pos == c.end or c.pos[0] != tag:
        return 0
    c.pos += 1
    return tag


cdef int read_record(const unsigned char* base, Cursor* message, Record* r) noexcept:
    """Read the EventRecord that `message` spans into `r`, which is all zeros; the cursor then
    stands at the end, or at the fault."""
    cdef Cursor c = message[0]             # a copy of its own, which can live in registers
    cdef uint32_t tag = 0
    cdef int64_t number = 0
    cdef int fault = WIRE_OK
    r.begin = <uint32_t>(c.pos - base)
    r.size = <uint32_t>(c.end - c.pos)
    while c.pos < c.end and fault == WIRE_OK:
        fault = read_tag(&c, &tag)
        if fault != WIRE_OK:
            break
        # Servers write the fields in order, which takes one turn of the loop.
        if tag == (1 << 3 | TYPE_BYTES):
            fault = read_name(&c, base, &r.stream, &r.stream_size)
            tag = next_if(&c, fault, 2 << 3 | TYPE_VARINT)
        if tag == (2 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &r.number)
            tag = next_if(&c, fault, 3 << 3 | TYPE_BYTES)
        if tag == (3 << 3 | TYPE_BYTES):
            fault = read_id(&c, base, &r.id)
            tag = next_if(&c, fault, 4 << 3 | TYPE_BYTES)
        if tag == (4 << 3 | TYPE_BYTES):
            fault = read_name(&c, base, &r.type, &r.type_size)
            tag = next_if(&c, fault, 5 << 3 | TYPE_VARINT)
        if tag == (5 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &number)
            r.is_json = number == 1
            tag = next_if(&c, fault, 6 << 3 | TYPE_VARINT)
        if tag == (6 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &number)
            tag = next_if(&c, fault, 7 << 3 | TYPE_BYTES)
        if tag == (7 << 3 | TYPE_BYTES):
            fault = read_span(&c, base, &r.data, &r.data_size)
            tag = next_if(&c, fault, 8 << 3 | TYPE_BYTES)
        if tag == (8 << 3 | TYPE_BYTES):
            fault = read_span(&c, base, &r.metadata, &r.metadata_size)
            tag = next_if(&c, fault, 9 << 3 | TYPE_VARINT)
        if tag == (9 << 3 | TYPE_VARINT):
            fault = read_ticks(&c, &r.created)
            tag = next_if(&c, fault, 10 << 3 | TYPE_VARINT)
        if tag == (10 << 3 | TYPE_VARINT):
            fault = read_epoch(&c, &r.created_epoch)
            tag = 0
        if tag != 0:
            fault = skip_unknown(&c, tag, 10)
    message[0] = c
    return fault


cdef list names = [None] * (1 << NAME_BITS)


cdef inline uint64_t hash_of(const char* name, Py_ssize_t size) noexcept nogil:
    """Of the length and the ends: names of a kind differ at their start or end."""
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    if size >= 8:
        memcpy(&first, name, 8)
        memcpy(&last, name + size - 8, 8)
    else:
        memcpy(&first, name, size)
    first = (first ^ <uint64_t>size) * <uint64_t>0x9E3779B97F4A7C15
    return (first ^ last) * <uint64_t>0xBF58476D1CE4E5B9 >> (64 - NAME_BITS)


cdef str name_of(const char* name, Py_ssize_t size):
    """The str of a name. Programs see few event types and streams, again and again: the last ones
    of each hash are kept, so that equal names of many events are one object."""
    cdef Py_ssize_t known_size = 0
    cdef const char* known_bytes
    cdef Py_ssize_t place
    if size > LONGEST_NAME:
        return PyUnicode_DecodeUTF8(name, size, NULL)
    place = <Py_ssize_t>hash_of(name, size)
    known = names[place]
    if known is not None:
        known_bytes = PyUnicode_AsUTF8AndSize(known, &known_size)
        if known_size == size and memcmp(known_bytes, name, size) == 0:
            return <str>known
    names[place] = PyUnicode_DecodeUTF8(name, size, NULL)
    return <str>names[place]


cdef int fail_at(Py_ssize_t offset, int fault, str what) except -1:
    """Raise what is wrong with a message, at this offset from its start."""
    raise ProtocolError(f"{what}: {FAULTS[fault]}", offset)


cdef str text_at(Cursor* c, const unsigned char* base):
    """The string value that follows in the message at `base`, for instance an error text."""
    cdef uint32_t offset = 0
    cdef uint32_t size = 0
    cdef int fault = read_name(c, base, &offset, &size)
    if fault != WIRE_OK:
        fail_at(c.pos - base, fault, "text")
    return PyUnicode_DecodeUTF8(<const char*>base + offset, size, NULL)


cdef inline int append(EventTable table, const Cursor* c) except -1:
    """Add an event; a method would be a call through a table for each event of a page."""
    if table.length == table.room:
        table.grow()
    cdef Extent* extent = &table.extents[table.length]
    extent.begin = <uint32_t>(c.pos - table.base)
    extent.size = <uint32_t>(c.end - c.pos)
    extent.retry_count = 0
    invariant(c.pos <= c.end)
    invariant(table.holds(extent.begin, extent.size))
    if extent.size == 0:
        table.fail_empty(extent)
    table.length += 1
    table.size += extent.size
    return 0


cdef class EventTable:
    """Where the events of a message lie, in the order they came; the base of all sequences of
    events."""

    def __dealloc__(self):
        free(self.extents)

    cdef int adopt(self, bytes memory, const unsigned char* base) except -1:
        """Let `memory` be the one that offsets count in, from `base` (its start if NULL)."""
        if PyBytes_GET_SIZE(memory) > UINT32_MAX:
            raise ValueError(f"events: {len(memory)} bytes are more than {UINT32_MAX}")
        self.memory = memory
        self.base = <const unsigned char*>PyBytes_AS_STRING(memory) if base == NULL else base
        return 0

    cdef int add(self, const Cursor* c) except -1:
        """Add the event that the cursor spans."""
        return append(self, c)

    cdef int add_run(self, Cursor* c, uint32_t tag) except -1:
        """Add the event that follows, and those behind it as long as they have the same `tag`,
        which takes one byte."""
        cdef Cursor inner
        cdef int fault
        while True:
            fault = enter(c, &inner)
            if fault != WIRE_OK:
                return self.fail(fault, c.pos, "events")
            append(self, &inner)
            if c.pos == c.end or c.pos[0] != tag:
                return 0
            c.pos += 1

    cdef int grow(self) except -1:
        # Many tables have one event: those of detached ones. Those that have two have many.
        cdef Py_ssize_t room = max(self.room * 2, ROOM_FOR_MANY) if self.room else 1
        cdef Extent* extents
        if room > MAX_EVENTS:
            raise ProtocolError(f"more than {MAX_EVENTS} events in one message")
        extents = <Extent*>realloc(self.extents, room * sizeof(Extent))
        if extents == NULL:
            raise MemoryError
        self.extents = extents
        self.room = room
        return 0

    cdef int look_into(self, Py_ssize_t index, Item* item) except -1:
        """Check the event at `index` and tell what is in it, if only nothing; `item` is all zeros
        before."""
        cdef Cursor c
        invariant(0 <= index)
        invariant(index < self.length)
        invariant(item.extent.size == 0)
        item.extent = self.extents[index]
        c.pos = self.base + item.extent.begin
        c.end = c.pos + item.extent.size
        return self.read_resolved(&c, item)

    cdef int read_resolved(self, Cursor* c, Item* item) except -1:
        cdef uint32_t tag = 0
        cdef Cursor inner
        cdef Record link
        cdef int fault
        while c.pos < c.end:
            fault = read_tag(c, &tag)
            if fault != WIRE_OK:
                return self.fail(fault, c.pos, "event")
            if tag == (1 << 3 | TYPE_BYTES):
                fault = WIRE_TWICE if item.has_event else enter(c, &inner)
                if fault == WIRE_OK:
                    fault = read_record(self.base, &inner, &item.event)
                    if fault != WIRE_OK:
                        return self.fail(fault, inner.pos, "event record")
                item.has_event = True
            elif tag == (2 << 3 | TYPE_BYTES):
                fault = WIRE_TWICE if item.has_link else enter(c, &inner)
                memset(&link, 0, sizeof(Record))
                if fault == WIRE_OK:
                    fault = read_record(self.base, &inner, &link)
                    if fault != WIRE_OK:
                        return self.fail(fault, inner.pos, "link record")
                item.has_link = True
            elif self.without_positions:
                fault = skip_unknown(c, tag, 2)
            elif tag == (3 << 3 | TYPE_VARINT):
                fault = read_int64(c, &item.commit)
                item.has_position = True
            elif tag == (4 << 3 | TYPE_VARINT):
                fault = read_int64(c, &item.prepare)
                item.has_position = True
            else:
                fault = skip_unknown(c, tag, 4)
            if fault != WIRE_OK:
                return self.fail(fault, c.pos, "event")
        if item.has_link:
            item.link = link.begin
            item.link_size = link.size
            if not item.has_event:
                item.event = link
        item.received_number = link.number if item.has_link else item.event.number
        return 0

    cdef bint positions_ascend(self) noexcept:
        """Whether each event has a position behind that of the one before it.

        For that nothing inside the events is looked at. What is wrong will be told by `look_into`.
        """
        cdef Py_ssize_t i
        cdef Cursor c, inner
        cdef uint32_t tag = 0
        cdef int64_t last_commit = -1
        cdef int64_t last_prepare = -1
        cdef int64_t commit, prepare
        if self.without_positions and self.length:
            return False
        for i in range(self.length):
            commit = prepare = -1
            c.pos = self.base + self.extents[i].begin
            c.end = c.pos + self.extents[i].size
            while c.pos < c.end:
                if read_tag(&c, &tag) != WIRE_OK:
                    return False
                if tag == (1 << 3 | TYPE_BYTES) or tag == (2 << 3 | TYPE_BYTES):
                    if enter(&c, &inner) != WIRE_OK:
                        return False
                elif tag == (3 << 3 | TYPE_VARINT):
                    if read_int64(&c, &commit) != WIRE_OK:
                        return False
                elif tag == (4 << 3 | TYPE_VARINT):
                    if read_int64(&c, &prepare) != WIRE_OK:
                        return False
                else:
                    return False
            if commit < last_commit or (commit == last_commit and prepare <= last_prepare):
                return False
            last_commit = commit
            last_prepare = prepare
        return True

    cdef int read_link(self, Item* item, Record* link) except -1:
        """The record of the item's link, which was checked together with the rest of it."""
        cdef Cursor c
        memset(link, 0, sizeof(Record))
        c.pos = self.base + item.link
        c.end = c.pos + item.link_size
        return self.check(read_record(self.base, &c, link), &c, "link record")

    cdef bint holds(self, uint32_t offset, uint32_t size) noexcept:
        """Whether these bytes lie in the memory."""
        cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(self.memory)
        return (self.base - start) + offset + <Py_ssize_t>size <= PyBytes_GET_SIZE(self.memory)

    cdef bytes bytes_at(self, uint32_t offset, uint32_t size):
        invariant(self.holds(offset, size))
        return PyBytes_FromStringAndSize(<const char*>self.base + offset, size)

    cdef str name_at(self, uint32_t offset, uint32_t size):
        invariant(self.holds(offset, size))
        return name_of(<const char*>self.base + offset, size)

    cdef int fail(self, int fault, const unsigned char* where, str what) except -1:
        return fail_at(where - self.base, fault, what)

    cdef int fail_empty(self, const Extent* extent) except -1:
        raise ProtocolError("event: neither an event nor a link", extent.begin)

    cdef str read_text(self, Cursor* c):
        return text_at(c, self.base)

    cdef int check(self, int fault, Cursor* c, str what) except -1:
        return 0 if fault == WIRE_OK else self.fail(fault, c.pos, what)
