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
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

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
    EventSpan,
    WriteRequest,
    size_of_blob,
    size_of_int,
    write_blob,
    write_header,
    write_int,
)

from fastpump.server.errors import StoreDamaged

cdef enum:
    FIXED_PART = 160                       # tags, lengths and numbers of an entry at their longest

    TAG_EVENTS = 0x0A                      # field 1 of a page of a stream
    TAG_ALL_EVENTS = 0x1A                  # field 3 of a page of $all
    TAG_APPEARED = 0x0A                    # field 1 of a push
    TAG_RECORD = 0x0A
    TAG_COMMIT = 0x18
    TAG_PREPARE = 0x20

    STREAM_EVENT_APPEARED = 0xC2

cdef int64_t TICKS_OF_1970 = 621355968000000000
cdef int64_t TICKS_PER_MS = 10000

SEGMENT_SIZE = 16 * 1024
"""Bytes after which a segment is closed; only an entry larger than this makes a larger segment."""


cdef inline str text_of(const unsigned char* start, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(<const char*>start, size, NULL)


# --- writing the log ---------------------------------------------------------------------------


cdef class LogWriter:
    """Encodes events behind the end of the log, into segments.

    Args:
        position: the end of the log, where the next entry will lie.
        ids: the table that learns each event's id, or None.
    """

    cdef readonly int64_t position
    cdef readonly int64_t last_position    # of the newest entry, -1 before the first
    cdef IdTable ids
    cdef list segments
    cdef unsigned char* memory
    cdef Py_ssize_t capacity
    cdef Py_ssize_t filled
    cdef int64_t segment_position

    def __cinit__(self, int64_t position, IdTable ids):
        self.position = self.segment_position = position
        self.last_position = -1
        self.ids = ids
        self.segments = []
        self.memory = NULL

    def __dealloc__(self):
        free(self.memory)

    def append(
        self,
        WriteRequest request not None,
        str stream not None,
        int64_t stream_id,
        int64_t first_number,
        int64_t ticks,
    ):
        """Encode the request's events as numbers first_number … of `stream`, created at `ticks`.

        Returns:
            Where they lie: [number, position, count, …], a triple per segment that got some.
        """
        cdef bytes name = stream.encode()
        cdef list runs = []
        cdef Py_ssize_t i
        for i in range(request.count):
            self.append_event(runs, name, stream_id, first_number + i, &request.spans[i], ticks)
        return runs

    def append_transaction(
        self,
        list requests not None,
        list prepares not None,
        str stream not None,
        int64_t stream_id,
        int64_t first_number,
        int64_t ticks,
    ):
        """Encode the events of all the requests as one segment, all with one commit position.

        Args:
            prepares: per request the prepare position of its first event; the next ones follow.

        Returns:
            Their run, as `append` does.
        """
        cdef bytes name = stream.encode()
        cdef WriteRequest request
        cdef Py_ssize_t count = 0, most = 0, i
        cdef int64_t start, commit, prepare
        cdef unsigned char* out
        self.close_segment()
        for request in requests:
            for i in range(request.count):
                most += largest_entry(name, &request.spans[i])
        self.reserve(most)
        start = self.position
        commit = start + most
        out = self.memory
        for request, prepare in zip(requests, prepares, strict=True):
            for i in range(request.count):
                out = write_entry(
                    out, name, first_number + count, &request.spans[i], ticks, commit, prepare + i
                )
                if self.ids is not None:
                    self.ids.add(request.spans[i].event_id, stream_id, first_number + count)
                count += 1
        self.filled = out - self.memory
        self.close_segment()
        self.last_position = commit
        self.position = self.segment_position = commit + 1
        return [first_number, start, count]

    def append_tombstone(
        self, str stream not None, int64_t stream_id, bytes event_id, int64_t ticks
    ):
        """Encode the record of a hard delete (section 7.1). Returns its run, as `append` does."""
        cdef EventSpan span
        cdef list runs = []
        memset(&span, 0, sizeof(span))
        span.event_id = <const unsigned char*>PyBytes_AS_STRING(event_id)
        span.event_type = <const unsigned char*>b"$streamDeleted"
        span.type_size = 14
        self.append_event(runs, stream.encode(), stream_id, 0x7FFFFFFFFFFFFFFF, &span, ticks)
        return runs

    def skip(self, Py_ssize_t size):
        """Leave a gap of `size` bytes and return its position, which then is never an event's."""
        self.close_segment()
        cdef int64_t position = self.position
        self.position += size
        self.segment_position = self.position
        return position

    def take_segments(self):
        """The segments filled so far, as [(position, bytes), …]."""
        self.close_segment()
        cdef list segments = self.segments
        self.segments = []
        return segments

    cdef int append_event(
        self,
        list runs,
        bytes name,
        int64_t stream_id,
        int64_t number,
        EventSpan* span,
        int64_t ticks,
    ) except -1:
        cdef Py_ssize_t most = largest_entry(name, span)
        cdef int64_t position
        cdef unsigned char* out
        if self.filled and self.filled + most > SEGMENT_SIZE:
            self.close_segment()
        self.reserve(most)
        position = self.position
        out = write_entry(self.memory + self.filled, name, number, span, ticks, position, position)
        self.filled = out - self.memory
        self.position = self.segment_position + self.filled
        self.last_position = position
        if self.ids is not None and span.event_id != NULL:
            self.ids.add(span.event_id, stream_id, number)
        cdef Py_ssize_t size = len(runs)
        if size == 0 or <int64_t>runs[size - 2] < self.segment_position:
            runs.extend((number, position, 1))
        else:
            runs[size - 1] += 1
        return 0

    cdef int reserve(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity = max(self.filled + size, SEGMENT_SIZE)
        cdef unsigned char* memory
        if capacity <= self.capacity:
            return 0
        memory = <unsigned char*>realloc(self.memory, capacity)
        if memory == NULL:
            raise MemoryError
        self.memory = memory
        self.capacity = capacity
        return 0

    cdef int close_segment(self) except -1:
        if self.filled:
            segment = PyBytes_FromStringAndSize(<char*>self.memory, self.filled)
            self.segments.append((self.segment_position, segment))
            self.segment_position = self.position
            self.filled = 0
        return 0


cdef inline Py_ssize_t largest_entry(bytes name, EventSpan* span) noexcept:
    """No fewer bytes than the entry of this event gets."""
    cdef Py_ssize_t payload = span.type_size + span.data_size + span.metadata_size
    return FIXED_PART + PyBytes_GET_SIZE(name) + payload


cdef unsigned char* write_entry(
    unsigned char* out,
    bytes name,
    int64_t number,
    EventSpan* span,
    int64_t ticks,
    int64_t commit,
    int64_t prepare,
) noexcept:
    cdef int64_t epoch_ms = (ticks - TICKS_OF_1970) // TICKS_PER_MS
    cdef Py_ssize_t record = (
        size_of_blob(PyBytes_GET_SIZE(name))
        + size_of_int(number)
        + size_of_blob(16)
        + size_of_blob(span.type_size)
        + 4
        + size_of_blob(span.data_size)
        + size_of_blob(span.metadata_size)
        + size_of_int(ticks)
        + size_of_int(epoch_ms)
    )
    cdef Py_ssize_t positions = size_of_int(commit) + size_of_int(prepare)
    out = write_int(out, TAG_ALL_EVENTS, size_of_blob(record) + positions)
    out = write_int(out, TAG_RECORD, record)
    out = write_blob(out, 0x0A, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
    out = write_int(out, 0x10, number)
    out = write_blob(out, 0x1A, span.event_id, 16)
    out = write_blob(out, 0x22, span.event_type, span.type_size)
    out = write_int(out, 0x28, span.is_json)
    # The server keeps one flag per event and shows it in both fields (section 3.1).
    out = write_int(out, 0x30, span.is_json)
    out = write_blob(out, 0x3A, span.data, span.data_size)
    out = write_blob(out, 0x42, span.metadata, span.metadata_size)
    out = write_int(out, 0x48, ticks)
    out = write_int(out, 0x50, epoch_ms)
    out = write_int(out, TAG_COMMIT, commit)
    return write_int(out, TAG_PREPARE, prepare)


# --- reading the log ---------------------------------------------------------------------------


cdef int damaged() except -1:
    raise StoreDamaged("the log holds bytes that are not events")


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
    cdef const char* used_id = PyBytes_AS_STRING(correlation_id)
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
            and number == first + count
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
