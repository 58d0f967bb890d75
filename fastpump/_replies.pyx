# cython: nonecheck=True
"""Replies of the hot operations, decoded: each function takes a frame and returns what it says.

The fields are those of the protocol document, section 3: in any order, unknown ones skipped, absent
ones zero. A body that is not such a message is a ProtocolError saying what is wrong and where.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memset

from fastpump._event_table cimport Item, fail_at, text_at
from fastpump._events cimport AllStreamSlice, Events, StreamSlice, event_at
from fastpump._framing cimport Frame
from fastpump._varint cimport (
    TYPE_BYTES, TYPE_VARINT, WIRE_OK, WIRE_TWICE, Cursor, enter, read_int64, read_tag, skip_unknown,
)

from fastpump._position import Position
from fastpump.exceptions import ProtocolError

cdef enum:
    PREFIX_AND_HEADER = 22
    PERSISTENT_EVENT_APPEARED = 0xC7


cdef inline int begin(Frame frame, Cursor* c) except -1:
    if frame.memory is None:
        raise ValueError("frame: was not made by a Framer")
    c.pos = frame.data
    c.end = frame.data + frame.size
    return 0


cdef int begin_page(Events page, Frame frame, Cursor* c) except -1:
    begin(frame, c)
    return page.adopt(frame.memory, frame.data)


def decode_read_event(Frame frame not None):
    """ReadEventCompleted → (result, event or None, error text)."""
    cdef Events page = Events.__new__(Events)
    cdef Cursor c
    cdef Cursor inner
    cdef Item item
    cdef uint32_t tag = 0
    cdef int64_t result = 0
    cdef bint has_event = False
    cdef str error = ""
    page.without_positions = True
    begin_page(page, frame, &c)
    while c.pos < c.end:
        page.check(read_tag(&c, &tag), &c, "ReadEventCompleted")
        if tag == (1 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &result), &c, "result")
        elif tag == (2 << 3 | TYPE_BYTES):
            page.check(WIRE_TWICE if has_event else enter(&c, &inner), &c, "event")
            has_event = True
            if inner.pos < inner.end:
                page.add(&inner)
        elif tag == (3 << 3 | TYPE_BYTES):
            error = page.read_text(&c)
        else:
            page.check(skip_unknown(&c, tag, 3), &c, "ReadEventCompleted")
    if page.length == 0:
        return result, None, error
    memset(&item, 0, sizeof(Item))
    page.look_into(0, &item)
    if not (item.has_event or item.has_link):  # the server's way to say that there is none
        return result, None, error
    return result, event_at(page, 0), error


def decode_stream_slice(Frame frame not None, str stream, int64_t from_event_number, direction):
    """ReadStreamEventsCompleted → (result, StreamSlice, error text).

    The arguments behind the frame are what was asked for; the slice repeats them.
    """
    cdef StreamSlice page = StreamSlice.__new__(StreamSlice)
    cdef Cursor c
    cdef uint32_t tag = 0
    cdef int64_t result = 0
    cdef int64_t flag = 0
    cdef str error = ""
    page.stream = stream
    page.from_event_number = from_event_number
    page.direction = direction
    page.without_positions = True
    begin_page(page, frame, &c)
    while c.pos < c.end:
        page.check(read_tag(&c, &tag), &c, "ReadStreamEventsCompleted")
        if tag == (1 << 3 | TYPE_BYTES):
            page.add_run(&c, tag)
        elif tag == (2 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &result), &c, "result")
        elif tag == (3 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &page.next_event_number), &c, "next_event_number")
        elif tag == (4 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &page.last_event_number), &c, "last_event_number")
        elif tag == (5 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &flag), &c, "is_end_of_stream")
        elif tag == (6 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &page.commit_position), &c, "last_commit_position")
        elif tag == (7 << 3 | TYPE_BYTES):
            error = page.read_text(&c)
        else:
            page.check(skip_unknown(&c, tag, 7), &c, "ReadStreamEventsCompleted")
    page.is_end_of_stream = flag != 0
    return result, page, error


def decode_all_slice(Frame frame not None, direction, bint filtered=False):
    """ReadAllEventsCompleted → (result, AllStreamSlice, error text).

    A FilteredReadAllEventsCompleted has an end flag of its own, before the last two fields.
    """
    cdef AllStreamSlice page = AllStreamSlice.__new__(AllStreamSlice)
    cdef Cursor c
    cdef uint32_t tag = 0
    cdef int64_t result = 0
    cdef int64_t commit = 0
    cdef int64_t prepare = 0
    cdef int64_t next_commit = 0
    cdef int64_t next_prepare = 0
    cdef int64_t flag = 0
    cdef uint32_t last_field = 8 if filtered else 7
    cdef str error = ""
    page.direction = direction
    begin_page(page, frame, &c)
    while c.pos < c.end:
        page.check(read_tag(&c, &tag), &c, "ReadAllEventsCompleted")
        if tag == (1 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &commit), &c, "commit_position")
        elif tag == (2 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &prepare), &c, "prepare_position")
        elif tag == (3 << 3 | TYPE_BYTES):
            page.add_run(&c, tag)
        elif tag == (4 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &next_commit), &c, "next_commit_position")
        elif tag == (5 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &next_prepare), &c, "next_prepare_position")
        elif filtered and tag == (6 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &flag), &c, "is_end_of_stream")
        elif tag == (last_field - 1 << 3 | TYPE_VARINT):
            page.check(read_int64(&c, &result), &c, "result")
        elif tag == (last_field << 3 | TYPE_BYTES):
            error = page.read_text(&c)
        else:
            page.check(skip_unknown(&c, tag, last_field), &c, "ReadAllEventsCompleted")
    page.start_position = Position(commit, prepare)
    page.next_position = Position(next_commit, next_prepare)
    page.is_end_of_stream = flag != 0 if filtered else page.length == 0
    return result, page, error


@cython.final
@cython.freelist(256)
cdef class WriteResult:
    """What a server answers to a write (protocol document, section 5.5).

    Attributes:
        result: an OperationResult; 0 is Success.
        message: the server's words if it refused, else "".
        first_event_number, last_event_number: numbers of the events written; of a write repeated
            with the same event ids, the numbers they have had since the first time.
        position: Position of the last event; (-1, -1) for a repeated write on older servers.
        prepare_position, commit_position: the parts of it.
        current_version: the stream's last event number if the result is WrongExpectedVersion;
            None where the server does not tell it (proto3 servers leave out a zero, section 3.9).
    """

    def __init__(self, first_event_number, last_event_number, position, result=0, message=""):
        self.first_event_number = first_event_number
        self.last_event_number = last_event_number
        self.commit_position, self.prepare_position = position
        self.result = result
        self.message = message

    @property
    def position(self):
        return Position(self.commit_position, self.prepare_position)

    @property
    def current_version(self):
        return self.current if self.has_current else None

    def __repr__(self):
        if self.result != 0:
            return f"<WriteResult {self.result}: {self.message}>"
        return f"<WriteResult events {self.first_event_number} to {self.last_event_number}>"


cpdef WriteResult decode_write_completed(Frame frame):
    """WriteEventsCompleted → WriteResult."""
    cdef WriteResult w = WriteResult.__new__(WriteResult)
    cdef Cursor c
    cdef uint32_t tag = 0
    cdef int fault = WIRE_OK
    w.message = ""
    begin(frame, &c)
    while c.pos < c.end and fault == WIRE_OK:
        fault = read_tag(&c, &tag)
        if fault != WIRE_OK:
            break
        if tag == (1 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.result)
        elif tag == (2 << 3 | TYPE_BYTES):
            w.message = text_at(&c, frame.data)
        elif tag == (3 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.first_event_number)
        elif tag == (4 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.last_event_number)
        elif tag == (5 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.prepare_position)
        elif tag == (6 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.commit_position)
        elif tag == (7 << 3 | TYPE_VARINT):
            fault = read_int64(&c, &w.current)
            w.has_current = True
        else:
            fault = skip_unknown(&c, tag, 7)
    if fault != WIRE_OK:
        fail_at(c.pos - frame.data, fault, "WriteEventsCompleted")
    return w


def decode_pushes(Frame frame not None):
    """The events of a push (StreamEventAppeared, Persistent…) or of a run of them → Events."""
    cdef Events page = Events.__new__(Events)
    cdef const unsigned char* run_end = frame.data + frame.run_size
    cdef Cursor c
    cdef bint persistent = frame.command == PERSISTENT_EVENT_APPEARED
    begin_page(page, frame, &c)
    if persistent:
        page.delivery = frame.correlation_id
    while True:
        decode_push(page, &c, persistent)
        if c.end == run_end:
            break
        c.pos = c.end + PREFIX_AND_HEADER
        c.end = c.end + 4 + (
            c.end[0] | <Py_ssize_t>c.end[1] << 8 | <Py_ssize_t>c.end[2] << 16
            | <Py_ssize_t>c.end[3] << 24
        )
    return page


cdef int decode_push(Events page, Cursor* c, bint persistent) except -1:
    cdef Cursor inner
    cdef uint32_t tag = 0
    cdef int64_t retry_count = 0
    cdef Py_ssize_t before = page.length
    while c.pos < c.end:
        page.check(read_tag(c, &tag), c, "pushed event")
        if tag == (1 << 3 | TYPE_BYTES):
            page.check(WIRE_TWICE if page.length > before else enter(c, &inner), c, "event")
            page.add(&inner)
        elif persistent and tag == (2 << 3 | TYPE_VARINT):
            page.check(read_int64(c, &retry_count), c, "retryCount")
        else:
            page.check(skip_unknown(c, tag, 2 if persistent else 1), c, "pushed event")
    if page.length == before:
        raise ProtocolError("pushed event: there is none in the message", c.pos - page.base)
    page.extents[page.length - 1].retry_count = <int32_t>retry_count
    return 0
