"""Protobuf's wire format in C: varints, tags, lengths and the skipping of unknown fields.

Every reader takes a Cursor and never looks at or behind `end`. It answers WIRE_OK and has moved the
cursor, or answers what is wrong and leaves it at the fault. Nothing here touches Python objects.

    field    = tag value
    tag      = varint(field number << 3 | wire type)
    value    = varint (type 0) | 8 bytes (1) | length bytes (2) | group (3 … 4) | 4 bytes (5)
    varint   = 7 bits a byte, least significant first, top bit set on all but the last byte
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpump._invariant cimport invariant


cdef enum WireFault:
    WIRE_OK = 0
    WIRE_TRUNCATED = 1
    WIRE_LONG_VARINT = 2
    WIRE_PAST_END = 3
    WIRE_BAD_TAG = 4
    WIRE_BAD_TYPE = 5
    WIRE_BAD_ID = 6
    WIRE_BAD_UTF8 = 7
    WIRE_DEEP_GROUP = 8
    WIRE_TWICE = 9
    WIRE_BAD_TIME = 10


cdef enum:
    TYPE_VARINT = 0
    TYPE_FIXED64 = 1
    TYPE_BYTES = 2
    TYPE_GROUP = 3
    TYPE_END_GROUP = 4
    TYPE_FIXED32 = 5

    MAX_UINT32 = 5                         # bytes of a tag or length, leading zeros included
    MAX_GROUP_DEPTH = 32


cdef struct Cursor:
    const unsigned char* pos
    const unsigned char* end


cdef extern from *:
    """
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define fastpump_little_endian(word) __builtin_bswap64(word)
    #else
    #define fastpump_little_endian(word) (word)
    #endif
    """
    uint64_t little_endian "fastpump_little_endian"(uint64_t word) nogil


cdef inline uint64_t load_uint64(const unsigned char* p) noexcept nogil:
    """8 bytes, the first one least significant."""
    cdef uint64_t word
    memcpy(&word, p, 8)
    return little_endian(word)


cdef inline int read_varint_bytewise(Cursor* c, uint64_t* value) noexcept nogil:
    cdef const unsigned char* p = c.pos
    cdef uint64_t result = 0
    cdef unsigned int shift = 0
    cdef unsigned char byte
    while p < c.end:
        byte = p[0]
        p += 1
        if shift == 63 and byte > 1:
            return WIRE_LONG_VARINT
        result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            c.pos = p
            value[0] = result
            return WIRE_OK
        shift += 7
    return WIRE_TRUNCATED


cdef inline int read_long_varint(Cursor* c, uint64_t* value) noexcept nogil:
    """All bytes at once: time stamps and positions have 6 to 9 of them."""
    cdef uint64_t word, last, more
    if c.end - c.pos < 10:                 # near the end it must not look behind
        return read_varint_bytewise(c, value)
    word = load_uint64(c.pos)
    last = ~word & <uint64_t>0x8080808080808080
    last &= ~last + 1                      # the top bit of the byte that ends it, if in these 8
    word &= (last - 1) & <uint64_t>0x7F7F7F7F7F7F7F7F
    word = (word & <uint64_t>0x007F007F007F007F) | (word & <uint64_t>0x7F007F007F007F00) >> 1
    word = (word & <uint64_t>0x00003FFF00003FFF) | (word & <uint64_t>0x3FFF00003FFF0000) >> 2
    word = (word & 0x0FFFFFFF) | (word & <uint64_t>0x0FFFFFFF00000000) >> 4
    if last:
        c.pos += ((last >> 7) * <uint64_t>0x0102030405060708) >> 56
    elif c.pos[8] < 0x80:
        word |= <uint64_t>c.pos[8] << 56
        c.pos += 9
    elif c.pos[9] < 2:
        more = c.pos[8] & 0x7F
        word |= more << 56 | <uint64_t>c.pos[9] << 63
        c.pos += 10
    else:
        return WIRE_LONG_VARINT
    value[0] = word
    return WIRE_OK


cdef inline int read_varint(Cursor* c, uint64_t* value) noexcept nogil:
    invariant(c.pos <= c.end)
    if c.pos < c.end and c.pos[0] < 0x80:
        value[0] = c.pos[0]
        c.pos += 1
        return WIRE_OK
    if c.end - c.pos >= 2 and c.pos[1] < 0x80:
        value[0] = (c.pos[0] & 0x7F) | <uint64_t>c.pos[1] << 7
        c.pos += 2
        return WIRE_OK
    return read_long_varint(c, value)


cdef inline int read_int64(Cursor* c, int64_t* value) noexcept nogil:
    return read_varint(c, <uint64_t*>value)


cdef inline int read_length(Cursor* c, Py_ssize_t* length) noexcept nogil:
    """The length of a length-delimited value, which then lies wholly before `end`."""
    cdef const unsigned char* start = c.pos
    cdef uint64_t value = 0
    cdef int fault = read_varint(c, &value)
    if fault != WIRE_OK:
        return fault
    if value > <uint64_t>(c.end - c.pos) or c.pos - start > MAX_UINT32:
        return WIRE_PAST_END
    length[0] = <Py_ssize_t>value
    return WIRE_OK


cdef inline int read_tag(Cursor* c, uint32_t* tag) noexcept nogil:
    cdef const unsigned char* start = c.pos
    cdef uint64_t value = 0
    cdef int fault = read_varint(c, &value)
    if fault != WIRE_OK:
        return fault
    if value < 8 or value > 0xFFFFFFFFU or c.pos - start > MAX_UINT32:
        return WIRE_BAD_TAG
    tag[0] = <uint32_t>value
    return WIRE_OK


cdef inline int skip_scalar(Cursor* c, unsigned int wire_type) noexcept nogil:
    cdef uint64_t ignored = 0
    cdef Py_ssize_t length = 0
    cdef int fault
    if wire_type == TYPE_VARINT:
        return read_varint(c, &ignored)
    if wire_type == TYPE_BYTES:
        fault = read_length(c, &length)
        if fault != WIRE_OK:
            return fault
    elif wire_type == TYPE_FIXED64:
        length = 8
    elif wire_type == TYPE_FIXED32:
        length = 4
    else:
        return WIRE_BAD_TYPE
    if c.end - c.pos < length:
        return WIRE_TRUNCATED
    c.pos += length
    return WIRE_OK


cdef inline int skip_group(Cursor* c, uint32_t tag) noexcept nogil:
    """Skip a group and the groups inside it; `tag` is the start tag just read."""
    cdef uint32_t[MAX_GROUP_DEPTH] open_groups
    cdef int depth = 1
    cdef int fault
    open_groups[0] = tag >> 3
    while depth > 0:
        fault = read_tag(c, &tag)
        if fault != WIRE_OK:
            return fault
        if tag & 7 == TYPE_GROUP:
            if depth == MAX_GROUP_DEPTH:
                return WIRE_DEEP_GROUP
            open_groups[depth] = tag >> 3
            depth += 1
        elif tag & 7 == TYPE_END_GROUP:
            depth -= 1
            if open_groups[depth] != tag >> 3:
                return WIRE_BAD_TAG
        else:
            fault = skip_scalar(c, tag & 7)
            if fault != WIRE_OK:
                return fault
    return WIRE_OK


cdef inline int skip_field(Cursor* c, uint32_t tag) noexcept nogil:
    """Skip the value of a field that is not wanted; `tag` is its tag, just read."""
    if tag & 7 == TYPE_GROUP:
        return skip_group(c, tag)
    return skip_scalar(c, tag & 7)


cdef inline int skip_unknown(Cursor* c, uint32_t tag, uint32_t known_fields) noexcept nogil:
    """Skip a field whose tag none of the branches knew; a known number here has a wrong type."""
    if tag >> 3 <= known_fields:
        return WIRE_BAD_TYPE
    return skip_field(c, tag)


cdef inline int enter(Cursor* c, Cursor* inner) noexcept nogil:
    """Read a length and let `inner` be the cursor over that many bytes; `c` moves behind them."""
    cdef Py_ssize_t length = 0
    cdef int fault = read_length(c, &length)
    if fault == WIRE_OK:
        inner.pos = c.pos
        inner.end = c.pos + length
        c.pos += length
    return fault


cdef inline Py_ssize_t size_of_varint(uint64_t value) noexcept nogil:
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline unsigned char* write_varint(unsigned char* out, uint64_t value) noexcept nogil:
    while value >= 0x80:
        out[0] = <unsigned char>(value & 0x7F) | 0x80
        value >>= 7
        out += 1
    out[0] = <unsigned char>value
    return out + 1


cdef inline Py_ssize_t size_of_bytes_field(Py_ssize_t size) noexcept nogil:
    return 1 + size_of_varint(<uint64_t>size) + size


cdef inline Py_ssize_t size_of_number_field(int64_t value) noexcept nogil:
    return 1 + size_of_varint(<uint64_t>value)


cdef inline unsigned char* write_bytes_field(
    unsigned char* out, uint32_t field, const char* value, Py_ssize_t size
) noexcept nogil:
    out[0] = <unsigned char>(field << 3 | TYPE_BYTES)
    out = write_varint(out + 1, <uint64_t>size)
    if size > 0:
        memcpy(out, value, size)
    return out + size


cdef inline unsigned char* write_number_field(
    unsigned char* out, uint32_t field, int64_t value
) noexcept nogil:
    out[0] = <unsigned char>(field << 3 | TYPE_VARINT)
    return write_varint(out + 1, <uint64_t>value)
