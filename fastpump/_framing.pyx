"""Bytes to frames. No I/O, no event loop: the owner receives into `get_buffer()`, then `commit`s.

A frame (protocol document, section 1.1; integers little-endian):

    int32     length of everything behind these 4 bytes, at least 18
    uint8     command
    uint8     flags: 0x01 an auth block stands before the payload, 0x02 trusted write
    16 bytes  correlation id
    …         [auth block and] payload: the body

Frames are handed out as views, so memory with frames in it is never moved or used again:

* Frames share an *arena*, one behind the other. Where the next one does not fit, the start of the
  arena is used again if no view of it is left; otherwise an earlier one that nobody holds any more
  takes its place, or a new one. Memory that was in use has its pages, and is in the cache.
* A frame that is large and not complete gets memory of exactly its size; the rest of it is received
  straight to where it stays.

Nothing is parsed twice: `needed` keeps the length prefix once it was read.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport PyObject
from libc.string cimport memcmp, memcpy, memmove

from fastpump._invariant cimport invariant

from fastpump.exceptions import ProtocolError

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject* o)
    PyObject* PyList_GET_ITEM(list items, Py_ssize_t index)

cdef enum:
    PREFIX = 4
    HEADER = 18
    ARENA = 512 * 1024
    ARENAS = 4                             # kept to be used again
    LARGE = 256 * 1024                     # an incomplete frame this large gets its own memory
    SMALLEST_WINDOW = 16 * 1024            # an arena with less room than this is full

    FLAG_AUTHENTICATED = 1
    HEARTBEAT_REQUEST = 0x01
    STREAM_EVENT_APPEARED = 0xC2
    PERSISTENT_EVENT_APPEARED = 0xC7

MAX_FRAME_SIZE = 64 * 1024 * 1024


cdef inline unsigned int read_uint32(const unsigned char* p) noexcept nogil:
    return p[0] | <unsigned int>p[1] << 8 | <unsigned int>p[2] << 16 | <unsigned int>p[3] << 24


cdef inline void write_uint32(unsigned char* p, unsigned int value) noexcept nogil:
    p[0] = value & 0xFF
    p[1] = value >> 8 & 0xFF
    p[2] = value >> 16 & 0xFF
    p[3] = value >> 24


cdef inline unsigned char* start_of(bytes memory) noexcept:
    return <unsigned char*>PyBytes_AS_STRING(memory)


cdef inline bint is_push(unsigned char command) noexcept nogil:
    return command == STREAM_EVENT_APPEARED or command == PERSISTENT_EVENT_APPEARED


cdef class _Window:
    """Part of some memory, writable: what a socket receives into. Keeps that memory alive."""

    cdef bytes memory
    cdef Py_ssize_t offset
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, start_of(self.memory) + self.offset, self.size, 0, flags)


cdef class Frame:
    """One frame, or a run of pushes of one subscription that lie one after the other.

    `body` is a view of the received bytes and keeps them alive; `bytes(frame.body)` copies it out.
    """

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void*>self.data, self.size, 1, flags)

    @property
    def body(self):
        return PyMemoryView_FromObject(self)

    def __len__(self):
        return self.size

    def __repr__(self):
        cdef str run = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"<Frame 0x{self.command:02X}, {self.size} bytes{run}>"


cdef class Framer:
    """Splits received bytes into frames.

    Args:
        max_frame_size: the largest length prefix accepted, in bytes. Default 64 MiB, the limit of
            server and reference client.
        merge_pushes: hand out neighbouring pushes (0xC2, 0xC7) of one subscription as one Frame.
    """

    def __cinit__(self, *, Py_ssize_t max_frame_size=MAX_FRAME_SIZE, bint merge_pushes=False):
        if not HEADER <= max_frame_size <= 0x7FFFFFFF:
            raise ValueError(f"max_frame_size: {max_frame_size} is not between 18 and 2147483647")
        self.max_frame_size = max_frame_size
        self.merge_pushes = merge_pushes
        self.arenas = []
        self.arena = self.memory = self.free_arena()

    @property
    def pending(self):
        return self.filled - self.start

    def get_buffer(self, Py_ssize_t sizehint=-1):
        """A writable window for the next received bytes; never empty. `sizehint` is not needed."""
        self.make_room()
        cdef _Window window = _Window.__new__(_Window)
        window.memory = self.memory
        window.offset = self.filled
        window.size = len(self.memory) - self.filled
        invariant(window.size > 0)
        return PyMemoryView_FromObject(window)

    cpdef list commit(self, Py_ssize_t nbytes):
        """The first `nbytes` of the window were received: the frames that are complete by that.

        A length prefix that is not allowed ends the stream: the frames before it are returned and
        `error` is set; from then on this raises it.
        """
        if self.error is not None:
            raise self.error
        if nbytes < 0 or nbytes > len(self.memory) - self.filled:
            raise ValueError(f"nbytes: {nbytes} does not fit the window")
        cdef list frames = []
        self.heartbeat_requests = 0
        self.filled += nbytes
        self.take_frames(frames)
        return frames

    def feed(self, data):
        """Copy `data` in and return the frames that are complete by that; see `commit`."""
        cdef Py_buffer view
        cdef list frames = []
        self.heartbeat_requests = 0
        if self.error is not None:
            raise self.error
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.copy_in(<const unsigned char*>view.buf, view.len, frames)
        finally:
            PyBuffer_Release(&view)
        return frames

    cdef int copy_in(self, const unsigned char* source, Py_ssize_t left, list frames) except -1:
        cdef Py_ssize_t room
        while left > 0 and self.error is None:
            self.make_room()
            room = min(left, len(self.memory) - self.filled)
            memcpy(start_of(self.memory) + self.filled, source, room)
            self.filled += room
            self.take_frames(frames)
            source += room
            left -= room
        return 0

    cdef int take_frames(self, list frames) except -1:
        invariant(0 <= self.start)
        invariant(self.start <= self.filled)
        invariant(self.filled <= PyBytes_GET_SIZE(self.memory))
        while True:
            if self.needed == 0 and not self.read_length_prefix():
                return 0
            if self.filled - self.start < self.needed:
                return 0
            self.append_frame(frames)
            self.start += self.needed
            self.consumed += self.needed
            self.needed = 0

    cdef int read_length_prefix(self) except -1:
        """Set `needed` from the length prefix. 0: it has not arrived, or is not allowed."""
        cdef unsigned int length
        if self.filled - self.start < PREFIX:
            return 0
        length = read_uint32(start_of(self.memory) + self.start)
        if length < HEADER or length > <unsigned int>self.max_frame_size:
            self.error = ProtocolError(
                f"frame length {<int>length} is not between {HEADER} and {self.max_frame_size}",
                self.consumed,
            )
            self.filled = self.start
            return 0
        self.needed = PREFIX + <Py_ssize_t>length
        return 1

    cdef int append_frame(self, list frames) except -1:
        cdef const unsigned char* header = start_of(self.memory) + self.start + PREFIX
        cdef Frame frame
        cdef Py_ssize_t last = len(frames) - 1
        if self.merge_pushes and last >= 0 and is_push(header[0]) and header[1] == 0:
            frame = <Frame>frames[last]
            if (
                frame.command == header[0]
                and frame.flags == 0
                and frame.data + frame.run_size == header - PREFIX
                and memcmp(start_of(frame.correlation_id), header + 2, 16) == 0
            ):
                frame.count += 1
                frame.run_size += self.needed
                return 0
        frame = Frame.__new__(Frame)
        frame.command = header[0]
        frame.flags = header[1]
        frame.correlation_id = PyBytes_FromStringAndSize(<const char*>header + 2, 16)
        frame.count = 1
        frame.memory = self.memory
        frame.data = header + HEADER
        frame.size = frame.run_size = self.needed - PREFIX - HEADER
        self.heartbeat_requests += header[0] == HEARTBEAT_REQUEST
        frames.append(frame)
        return 0

    cdef int make_room(self) except -1:
        cdef Py_ssize_t partial
        if self.memory is not self.arena:
            if self.start < self.filled:
                return 0                   # the rest of a large frame
            self.memory = self.arena
            self.start = self.filled = self.arena_filled
        if self.needed >= LARGE:
            self.move_to(PyBytes_FromStringAndSize(NULL, self.needed))
            return 0
        partial = self.filled - self.start
        if partial == 0 and not self.arena_has_views():
            self.start = self.filled = 0
        if len(self.memory) - self.filled < max(self.needed - partial, SMALLEST_WINDOW):
            self.change_arena()
        return 0

    cdef bint arena_has_views(self) noexcept:
        """Whether anybody but `arenas`, `arena` and `memory` here holds the arena."""
        return Py_REFCNT(<PyObject*>self.arena) > 3

    cdef int move_to(self, bytes memory) except -1:
        """Receive the rest of the incomplete frame into `memory`, its own."""
        cdef Py_ssize_t partial = self.filled - self.start
        memcpy(start_of(memory), start_of(self.memory) + self.start, partial)
        self.arena_filled = self.start
        self.memory = memory
        self.start = 0
        self.filled = partial
        return 0

    cdef int change_arena(self) except -1:
        """Continue at the start of an arena that nobody holds; the present one, if that is it."""
        cdef Py_ssize_t partial = self.filled - self.start
        cdef bytes arena = self.free_arena() if self.arena_has_views() else self.arena
        memmove(start_of(arena), start_of(self.memory) + self.start, partial)
        self.arena = self.memory = arena
        self.start = 0
        self.filled = partial
        return 0

    cdef bytes free_arena(self):
        """One of those before that nobody holds, or a new one, which is kept instead of the oldest.

        So an arena that somebody holds for long is forgotten, and not in the way.
        """
        cdef bytes arena
        for i in range(len(self.arenas)):
            if Py_REFCNT(PyList_GET_ITEM(self.arenas, i)) == 1:
                return self.arenas[i]
        arena = PyBytes_FromStringAndSize(NULL, ARENA)
        if len(self.arenas) == ARENAS:
            del self.arenas[0]
        self.arenas.append(arena)
        return arena


cdef bytes new_frame(
    int command, bytes correlation_id, bytes auth, Py_ssize_t payload_size, unsigned char** payload
):
    """A frame whose header and auth block are written; the caller writes the payload in place."""
    cdef Py_ssize_t auth_size = 0 if auth is None else len(auth)
    cdef Py_ssize_t size = HEADER + auth_size + payload_size
    if len(correlation_id) != 16:
        raise ValueError(f"correlation_id: {len(correlation_id)} bytes instead of 16")
    if size > 0x7FFFFFFF:
        raise ValueError(f"payload: {payload_size} bytes are more than a frame can hold")
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, PREFIX + size)
    cdef unsigned char* out = start_of(frame)
    write_uint32(out, <unsigned int>size)
    out[4] = <unsigned char>command
    out[5] = 0 if auth is None else FLAG_AUTHENTICATED
    memcpy(out + 6, start_of(correlation_id), 16)
    if auth_size:
        memcpy(out + PREFIX + HEADER, start_of(auth), auth_size)
    payload[0] = out + PREFIX + HEADER + auth_size
    return frame


def encode_frame(int command, bytes correlation_id not None, body=b"", auth=None):
    """A whole frame as bytes.

    Args:
        command: 0 … 255.
        correlation_id: 16 bytes.
        body: the payload, anything with a buffer.
        auth: a ready auth block (section 1.2), or None for none.

    Raises:
        ValueError: the command, the correlation id or the body does not fit.
    """
    cdef bytes payload = bytes(body)
    cdef unsigned char* out = NULL
    if not 0 <= command <= 255:
        raise ValueError(f"command: {command} is not a byte")
    cdef bytes frame = new_frame(command, correlation_id, auth, len(payload), &out)
    memcpy(out, start_of(payload), len(payload))
    return frame
