# cython: nonecheck=True
"""Walks messages that hold events and keeps where everything in them is.

The walk checks every tag, length, id, name and time stamp and fills a table with numbers and
offsets. Whatever is wrong with the bytes is found here, when they arrive, as a ProtocolError, and
not by the user later.

Layout (protocol document, section 3; fields in any order, unknown ones skipped, absent = zero):

    ResolvedEvent   1 event EventRecord, absent for a link without target · 2 link EventRecord
                    3 commit_position · 4 prepare_position   (3 and 4 only in $all and pushes)
    EventRecord     1 stream · 2 number · 3 id · 4 type · 5 data_content_type (1 = JSON)
                    6 metadata_content_type · 7 data · 8 metadata · 9 created · 10 created_epoch
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from fastpump._varint cimport (
    TYPE_BYTES, TYPE_VARINT, WIRE_BAD_ID, WIRE_BAD_TAG, WIRE_BAD_TIME, WIRE_BAD_TYPE,
    WIRE_BAD_UTF8, WIRE_DEEP_GROUP, WIRE_LONG_VARINT, WIRE_OK, WIRE_PAST_END, WIRE_TRUNCATED,
    WIRE_TWICE, Cursor, enter, read_int64, read_length, read_tag, skip_unknown,
)

from fastpump.exceptions import ProtocolError

cdef enum:
    # A read asks for 4096 events at most; an arena holds far fewer pushes than this.
    MAX_EVENTS = 65536
    FIRST_ROOM = 64

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
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, p, 8)
        if word & <uint64_t>0x8080808080808080:
            return False
        p += 8
        size -= 8
    while size > 0:
        if p[0] & 0x80:
            return False
        p += 1
        size -= 1
    return True


cdef bint is_utf8(const unsigned char* p, Py_ssize_t size) noexcept:
    if is_ascii(p, size):
        return True
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
    if fault == WIRE_OK and not is_utf8(base + offset[0], size[0]):
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


cdef int parse_record(const unsigned char* base, Cursor* c, Record* r) noexcept:
    cdef uint32_t tag = 0
    cdef int64_t number = 0
    cdef int fault
    memset(r, 0, sizeof(Record))
    r.begin = <uint32_t>(c.pos - base)
    r.size = <uint32_t>(c.end - c.pos)
    while c.pos < c.end:
        fault = read_tag(c, &tag)
        if fault != WIRE_OK:
            return fault
        if tag == (1 << 3 | TYPE_BYTES):
            fault = read_name(c, base, &r.stream, &r.stream_size)
        elif tag == (2 << 3 | TYPE_VARINT):
            fault = read_int64(c, &r.number)
        elif tag == (3 << 3 | TYPE_BYTES):
            fault = read_id(c, base, &r.id)
        elif tag == (4 << 3 | TYPE_BYTES):
            fault = read_name(c, base, &r.type, &r.type_size)
        elif tag == (5 << 3 | TYPE_VARINT):
            fault = read_int64(c, &number)
            r.is_json = number == 1
        elif tag == (6 << 3 | TYPE_VARINT):
            fault = read_int64(c, &number)
        elif tag == (7 << 3 | TYPE_BYTES):
            fault = read_span(c, base, &r.data, &r.data_size)
        elif tag == (8 << 3 | TYPE_BYTES):
            fault = read_span(c, base, &r.metadata, &r.metadata_size)
        elif tag == (9 << 3 | TYPE_VARINT):
            fault = read_ticks(c, &r.created)
        elif tag == (10 << 3 | TYPE_VARINT):
            fault = read_epoch(c, &r.created_epoch)
        else:
            fault = skip_unknown(c, tag, 10)
        if fault != WIRE_OK:
            return fault
    return WIRE_OK


cdef class EventTable:
    """What a message holds, in the order it came; the base of all sequences of events."""

    def __dealloc__(self):
        free(self.items)
        free(self.links)

    cdef int adopt(self, bytes memory, const unsigned char* base) except -1:
        """Let `memory` be the one that offsets count in, from `base` (its start if NULL)."""
        self.memory = memory
        self.base = <const unsigned char*>PyBytes_AS_STRING(memory) if base == NULL else base
        return 0

    cdef Item* add_item(self) except NULL:
        cdef Py_ssize_t room
        cdef Item* items
        if self.length == self.room:
            room = self.room * 2 if self.room else FIRST_ROOM
            if room > MAX_EVENTS:
                raise ProtocolError(f"more than {MAX_EVENTS} events in one message")
            items = <Item*>realloc(self.items, room * sizeof(Item))
            if items == NULL:
                raise MemoryError
            self.items = items
            self.room = room
        cdef Item* item = &self.items[self.length]
        memset(item, 0, sizeof(Item))
        self.length += 1
        return item

    cdef int add_link(self, Item* item, Record* link) except -1:
        cdef uint32_t room
        cdef Record* links
        if self.link_count == self.link_room:
            room = self.link_room * 2 if self.link_room else FIRST_ROOM
            links = <Record*>realloc(self.links, room * sizeof(Record))
            if links == NULL:
                raise MemoryError
            self.links = links
            self.link_room = room
        self.links[self.link_count] = link[0]
        self.link_count += 1
        item.link = self.link_count
        return 0

    cdef int parse_item(self, Cursor c) except -1:
        """Add the ResolvedEvent that the cursor spans."""
        cdef Item* item = self.add_item()
        item.begin = <uint32_t>(c.pos - self.base)
        item.size = <uint32_t>(c.end - c.pos)
        return self.parse_resolved(&c, item)

    cdef int parse_resolved(self, Cursor* c, Item* item) except -1:
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
                    fault = parse_record(self.base, &inner, &item.event)
                    if fault != WIRE_OK:
                        return self.fail(fault, inner.pos, "event record")
                item.has_event = True
            elif tag == (2 << 3 | TYPE_BYTES):
                fault = WIRE_TWICE if item.link else enter(c, &inner)
                if fault == WIRE_OK:
                    fault = parse_record(self.base, &inner, &link)
                    if fault != WIRE_OK:
                        return self.fail(fault, inner.pos, "link record")
                    self.add_link(item, &link)
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
        return 0

    cdef const Record* record_of(self, Py_ssize_t index) noexcept:
        """The event; for a link without target the link itself. NULL if there is neither."""
        if self.items[index].has_event:
            return &self.items[index].event
        return self.link_of(index)

    cdef const Record* link_of(self, Py_ssize_t index) noexcept:
        cdef uint32_t link = self.items[index].link
        return NULL if link == 0 else &self.links[link - 1]

    cdef str stream_of(self, const Record* r):
        cdef const Record* last = self.stream_source
        if (
            last == NULL or last.stream_size != r.stream_size
            or memcmp(self.base + last.stream, self.base + r.stream, r.stream_size) != 0
        ):
            self.stream_name = PyUnicode_DecodeUTF8(
                <const char*>self.base + r.stream, r.stream_size, NULL
            )
            self.stream_source = r
        return self.stream_name

    cdef str type_of(self, const Record* r):
        cdef const Record* last = self.type_source
        if (
            last == NULL or last.type_size != r.type_size
            or memcmp(self.base + last.type, self.base + r.type, r.type_size) != 0
        ):
            self.type_name = PyUnicode_DecodeUTF8(
                <const char*>self.base + r.type, r.type_size, NULL
            )
            self.type_source = r
        return self.type_name

    cdef bytes bytes_at(self, uint32_t offset, uint32_t size):
        return PyBytes_FromStringAndSize(<const char*>self.base + offset, size)

    cdef int fail(self, int fault, const unsigned char* where, str what) except -1:
        raise ProtocolError(f"{what}: {FAULTS[fault]}", where - self.base)

    cdef str read_text(self, Cursor* c):
        """The string value that follows, for instance an error text."""
        cdef uint32_t offset = 0
        cdef uint32_t size = 0
        self.check(read_name(c, self.base, &offset, &size), c, "text")
        return PyUnicode_DecodeUTF8(<const char*>self.base + offset, size, NULL)

    cdef int check(self, int fault, Cursor* c, str what) except -1:
        return 0 if fault == WIRE_OK else self.fail(fault, c.pos, what)

    cdef int check_items(self) except -1:
        """Every item has an event or a link; the views rely on it."""
        cdef Py_ssize_t i
        for i in range(self.length):
            if self.record_of(i) == NULL:
                raise ProtocolError("event: neither an event nor a link", self.items[i].begin)
        return 0
