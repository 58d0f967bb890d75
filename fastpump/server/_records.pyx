"""Stored events: encoded once when they are written, copied into pages from then on.

An event is encoded as an element of a `ReadAllEventsCompleted` (protocol document, section 3.3), so
that a page of `$all` is a plain copy of a stretch of the log:

    entry    = 1A length { 0A length record  18 commit position  20 prepare position }
    record   = the EventRecord of section 3.1, all ten fields present as server 4.1.4 writes them

Entries lie one after the other in *segments*, the blobs of the store. An entry's position is the
offset of its first byte in the log, so a segment at position p holds the entry of position p + i at
its byte i.

The events of an explicit transaction are a segment of their own, however large. They lie where they
were committed, share a commit position at the end of their segment's room, and their prepare
positions are earlier: reserved when they were written (section 5.2).

Readers are given the end of their bytes and check it; what does not fit raises `StoreDamaged`.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.string cimport memcmp

from fastpump._varint cimport (
    TYPE_BYTES,
    TYPE_VARINT,
    WIRE_OK,
    Cursor,
    read_int64,
    read_length,
    read_tag,
    skip_field,
)
from fastpump.server._ids cimport IdTable
from fastpump.server._messages cimport (
    HEADER,
    PREFIX,
    bytes_of_id,
    size_of_blob,
    write_blob,
    write_header,
    write_int,
)

from fastpump.server.errors import StoreDamaged

cdef enum:
    TAG_EVENTS = 0x0A                      # field 1 of a page of a stream
    TAG_APPEARED = 0x0A                    # field 1 of a push

    STREAM_EVENT_APPEARED = 0xC2


cdef int damaged() except -1:
    raise StoreDamaged("the log holds bytes that are not events")


cdef str text_of(const unsigned char* start, Py_ssize_t size):
    try:
        return PyUnicode_DecodeUTF8(<const char*>start, size, NULL)
    except UnicodeDecodeError:
        damaged()


cdef int open_segment(bytes segment, Py_ssize_t offset, Cursor* c) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(segment)
    if offset < 0 or offset > size:
        raise ValueError(f"offset: {offset} is not within {size} bytes")
    c.pos = <const unsigned char*>PyBytes_AS_STRING(segment) + offset
    c.end = <const unsigned char*>PyBytes_AS_STRING(segment) + size
    return 0


cdef inline int next_entry(Cursor* c, Cursor* body) except -1:
    """Move `c` behind the entry it is at; `body` becomes what is in it."""
    cdef Py_ssize_t size = 0
    if c.pos == c.end or c.pos[0] != TAG_ALL_EVENTS:
        damaged()
    c.pos += 1
    if read_length(c, &size) != WIRE_OK:
        damaged()
    body.pos = c.pos
    c.pos += size
    body.end = c.pos
    return 0


cdef inline int open_record(Cursor* body, Cursor* record) except -1:
    """Move `body` behind the entry's record; `record` becomes that."""
    cdef Py_ssize_t size = 0
    if body.pos == body.end or body.pos[0] != TAG_RECORD:
        damaged()
    body.pos += 1
    if read_length(body, &size) != WIRE_OK:
        damaged()
    record.pos = body.pos
    body.pos += size
    record.end = body.pos
    return 0


def span_of(bytes segment not None, Py_ssize_t offset, Py_ssize_t limit):
    """(end, count) of the entries from `offset` on, `limit` of them at most; `end` is an offset."""
    cdef Cursor c, body
    cdef Py_ssize_t count = 0
    cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(segment)
    open_segment(segment, offset, &c)
    while count < limit and c.pos < c.end:
        next_entry(&c, &body)
        count += 1
    return c.pos - start, count


def offset_from(bytes segment not None, int64_t commit, int64_t prepare):
    """The offset of the first entry whose position is not before this one; if none is, the end."""
    cdef Cursor c, body
    cdef int64_t own_commit = 0, own_prepare = 0
    cdef Py_ssize_t offset
    cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(segment)
    open_segment(segment, 0, &c)
    while c.pos < c.end:
        offset = c.pos - start
        next_entry(&c, &body)
        take_positions(&body, &own_commit, &own_prepare)
        if own_commit > commit or (own_commit == commit and own_prepare >= prepare):
            return offset
    return c.pos - start


def offsets_before(
    bytes segment not None, int64_t segment_position, int64_t commit, int64_t prepare
):
    """The offsets of the entries that end at or before this position, in order (section 6.4)."""
    cdef Cursor c, body
    cdef int64_t end_commit = 0, end_prepare = 0
    cdef list offsets = []
    cdef Py_ssize_t offset
    cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(segment)
    open_segment(segment, 0, &c)
    while c.pos < c.end:
        offset = c.pos - start
        next_entry(&c, &body)
        take_positions(&body, &end_commit, &end_prepare)
        if end_commit == end_prepare:
            end_commit = end_prepare = segment_position + (c.pos - start)
        else:
            end_commit += 1
            end_prepare += 1
        if end_commit > commit or (end_commit == commit and end_prepare > prepare):
            break
        offsets.append(offset)
    return offsets


def positions_of(bytes segment not None, Py_ssize_t offset):
    """(commit, prepare) of the entry at `offset`; they differ for a transaction's event."""
    cdef Cursor c, body
    cdef int64_t commit = 0, prepare = 0
    open_segment(segment, offset, &c)
    next_entry(&c, &body)
    take_positions(&body, &commit, &prepare)
    return commit, prepare


cdef inline int take_positions(Cursor* body, int64_t* commit, int64_t* prepare) except -1:
    cdef Cursor record
    cdef uint32_t tag = 0
    open_record(body, &record)
    if read_tag(body, &tag) != WIRE_OK or tag != TAG_COMMIT:
        damaged()
    if read_int64(body, commit) != WIRE_OK:
        damaged()
    if read_tag(body, &tag) != WIRE_OK or tag != TAG_PREPARE:
        damaged()
    if read_int64(body, prepare) != WIRE_OK:
        damaged()
    if not (0 <= commit[0] < INT64_MAX and 0 <= prepare[0] < INT64_MAX):
        damaged()                          # the position behind it is one, too
    return 0


def texts_of(bytes segment not None, Py_ssize_t offset, Py_ssize_t count, bint of_type):
    """[(offset, text), …]: stream names or event types of `count` entries at most."""
    cdef Cursor c, body, record
    cdef list texts = []
    cdef Py_ssize_t size = 0
    cdef uint32_t tag = 0, wanted = 0x22 if of_type else 0x0A
    cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(segment)
    open_segment(segment, offset, &c)
    while c.pos < c.end and len(texts) < count:
        offset = c.pos - start
        next_entry(&c, &body)
        open_record(&body, &record)
        while read_tag(&record, &tag) == WIRE_OK and tag != wanted:
            if skip_field(&record, tag) != WIRE_OK:
                damaged()
        if tag != wanted or read_length(&record, &size) != WIRE_OK:
            damaged()
        texts.append((offset, text_of(record.pos, size)))
    return texts


def stream_items(bytes segment not None, Py_ssize_t offset, Py_ssize_t count):
    """`count` entries from `offset` on as the elements of a page of a stream."""
    cdef Cursor c, body, record
    cdef Py_ssize_t size
    cdef bytes page
    cdef unsigned char* out
    open_segment(segment, offset, &c)
    # An element is never longer than its entry: it has the same record and no positions.
    page = PyBytes_FromStringAndSize(NULL, c.end - c.pos)
    out = <unsigned char*>PyBytes_AS_STRING(page)
    for _ in range(count):
        next_entry(&c, &body)
        open_record(&body, &record)
        size = record.end - record.pos
        out = write_int(out, TAG_EVENTS, size_of_blob(size))
        out = write_blob(out, TAG_RECORD, record.pos, size)
    return page[:out - <unsigned char*>PyBytes_AS_STRING(page)]


def push_frames(
    bytes segment not None, Py_ssize_t offset, Py_ssize_t count, bytes correlation_id not None
):
    """`count` entries from `offset` on as StreamEventAppeared frames of one subscription."""
    cdef Cursor c, body
    cdef Py_ssize_t size
    cdef bytes frames
    cdef unsigned char* out
    cdef const char* used_id = bytes_of_id(correlation_id)
    open_segment(segment, offset, &c)
    # A frame is its entry, whose first byte becomes another tag, behind a header.
    frames = PyBytes_FromStringAndSize(NULL, c.end - c.pos + count * (PREFIX + HEADER))
    out = <unsigned char*>PyBytes_AS_STRING(frames)
    for _ in range(count):
        next_entry(&c, &body)
        size = body.end - body.pos
        write_header(out, size_of_blob(size), STREAM_EVENT_APPEARED, used_id)
        out = write_blob(out + PREFIX + HEADER, TAG_APPEARED, body.pos, size)
    return frames[:out - <unsigned char*>PyBytes_AS_STRING(frames)]


def has_links(bytes segment not None, Py_ssize_t offset, Py_ssize_t end):
    """Whether an entry between the offsets is a link event (type `$>`)."""
    cdef Cursor c, body, record
    open_segment(segment, offset, &c)
    cdef const unsigned char* stop = <const unsigned char*>PyBytes_AS_STRING(segment) + end
    while c.pos < c.end and c.pos < stop:
        next_entry(&c, &body)
        open_record(&body, &record)
        if is_link(&record):
            return True
    return False


cdef inline bint is_link(Cursor* record) except -1:
    """Looks at the event type, field 4, behind the stream name, the number and the id."""
    cdef Cursor c = record[0]
    cdef uint32_t tag = 0
    cdef Py_ssize_t size = 0
    while c.pos < c.end:
        if read_tag(&c, &tag) != WIRE_OK:
            damaged()
        if tag == 0x22:
            if read_length(&c, &size) != WIRE_OK:
                damaged()
            return size == 2 and c.pos[0] == c"$" and c.pos[1] == c">"
        if skip_field(&c, tag) != WIRE_OK:
            damaged()
    return False


def entries_of(bytes segment not None, Py_ssize_t offset, Py_ssize_t limit):
    """The `limit` first entries from `offset` on, as Entry objects."""
    cdef Cursor c, body
    cdef list entries = []
    open_segment(segment, offset, &c)
    while c.pos < c.end and len(entries) < limit:
        next_entry(&c, &body)
        entries.append(new_entry(&body))
    return entries


def runs_of(bytes segment not None):
    """Neighbouring events of one stream: [(stream, first number, offset, count), …]."""
    cdef Cursor c, body, record
    cdef list runs = []
    cdef const unsigned char* start = <const unsigned char*>PyBytes_AS_STRING(segment)
    cdef const unsigned char* name = NULL
    cdef const unsigned char* last_name = NULL
    cdef Py_ssize_t name_size = 0, last_size = 0, offset, first_offset = 0, count = 0
    cdef int64_t number = 0, first = 0
    open_segment(segment, 0, &c)
    while c.pos < c.end:
        offset = c.pos - start
        next_entry(&c, &body)
        open_record(&body, &record)
        take_name(&record, &name, &name_size, &number)
        if (
            count
            and number - count == first    # the sum might overflow: behind a tombstone it does
            and name_size == last_size
            and memcmp(name, last_name, name_size) == 0
        ):
            count += 1
            continue
        if count:
            runs.append((text_of(last_name, last_size), first, first_offset, count))
        last_name = name
        last_size = name_size
        first = number
        first_offset = offset
        count = 1
    if count:
        runs.append((text_of(last_name, last_size), first, first_offset, count))
    return runs


cdef int take_name(
    Cursor* record, const unsigned char** name, Py_ssize_t* size, int64_t* number
) except -1:
    """The first two fields of a record: stream name and event number."""
    cdef uint32_t tag = 0
    if read_tag(record, &tag) != WIRE_OK or tag != 0x0A or read_length(record, size) != WIRE_OK:
        damaged()
    name[0] = record.pos
    record.pos += size[0]
    if read_tag(record, &tag) != WIRE_OK or tag != 0x10 or read_int64(record, number) != WIRE_OK:
        damaged()
    if number[0] < 0:
        damaged()
    return 0


def learn_ids(
    IdTable ids not None,
    bytes segment not None,
    Py_ssize_t offset,
    Py_ssize_t count,
    int64_t stream_id,
):
    """Add the ids of `count` entries of one stream to the table, as writing them did."""
    cdef Cursor c, body, record
    cdef const unsigned char* name = NULL
    cdef Py_ssize_t size = 0
    cdef int64_t number = 0
    open_segment(segment, offset, &c)
    for _ in range(count):
        next_entry(&c, &body)
        open_record(&body, &record)
        take_name(&record, &name, &size, &number)
        if record.end - record.pos < 18 or record.pos[0] != 0x1A or record.pos[1] != 16:
            damaged()
        ids.add(record.pos + 2, stream_id, number)


@cython.freelist(64)
cdef class Entry:
    """One stored event. The attributes are the fields of its record and its positions."""

    cdef readonly bytes record             # the encoded EventRecord
    cdef readonly str stream
    cdef readonly int64_t number
    cdef readonly bytes event_id
    cdef readonly str event_type
    cdef readonly bint is_json
    cdef readonly bytes data
    cdef readonly int64_t ticks            # created
    cdef readonly int64_t commit_position
    cdef readonly int64_t prepare_position


cdef Entry new_entry(Cursor* body):
    cdef Entry entry = Entry.__new__(Entry)
    cdef Cursor record, whole = body[0]
    cdef uint32_t tag = 0
    open_record(body, &record)
    entry.record = record.pos[:record.end - record.pos]
    while record.pos < record.end:
        if read_tag(&record, &tag) != WIRE_OK:
            damaged()
        set_field(entry, &record, tag)
    take_positions(&whole, &entry.commit_position, &entry.prepare_position)
    return entry


cdef int set_field(Entry entry, Cursor* record, uint32_t tag) except -1:
    cdef int64_t number = 0
    cdef Py_ssize_t size = 0
    if tag & 7 == TYPE_VARINT:
        if read_int64(record, &number) != WIRE_OK:
            damaged()
        if tag == 0x10:
            entry.number = number
        elif tag == 0x28:
            entry.is_json = number == 1
        elif tag == 0x48:
            entry.ticks = number
        return 0
    if tag & 7 != TYPE_BYTES or read_length(record, &size) != WIRE_OK:
        damaged()
    if tag == 0x0A:
        entry.stream = text_of(record.pos, size)
    elif tag == 0x1A:
        entry.event_id = record.pos[:size]
    elif tag == 0x22:
        entry.event_type = text_of(record.pos, size)
    elif tag == 0x3A:
        entry.data = record.pos[:size]
    record.pos += size
    return 0
