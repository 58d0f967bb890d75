"""Encodes events into segments of the log, whose layout `_records.pyx` tells."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from fastpump.server._ids cimport IdTable
from fastpump.server._messages cimport (
    EventSpan,
    WriteRequest,
    bytes_of_id,
    size_of_blob,
    size_of_int,
    write_blob,
    write_int,
)
from fastpump.server._records cimport TAG_ALL_EVENTS, TAG_COMMIT, TAG_PREPARE, TAG_RECORD

cdef enum:
    FIXED_PART = 160                       # tags, lengths and numbers of an entry at their longest

cdef int64_t TICKS_OF_1970 = 621355968000000000
cdef int64_t TICKS_PER_MS = 10000

SEGMENT_SIZE = 16 * 1024
"""Bytes after which a segment is closed; only an entry larger than this makes a larger segment."""


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
        self, str stream not None, int64_t stream_id, bytes event_id not None, int64_t ticks
    ):
        """Encode the record of a hard delete (section 7.1). Returns its run, as `append` does."""
        cdef EventSpan span
        cdef list runs = []
        memset(&span, 0, sizeof(span))
        span.event_id = <const unsigned char*>bytes_of_id(event_id)
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
