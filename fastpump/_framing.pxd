"""Frame and Framer for modules that decode bodies in C. `_framing.pyx` explains the layout."""


cdef class Frame:
    cdef readonly unsigned char command
    cdef readonly unsigned char flags
    cdef readonly Py_ssize_t count         # frames in this run; 1 unless pushes were merged
    cdef readonly bytes correlation_id     # 16 bytes as on the wire
    cdef bytes memory                      # what keeps `data` alive
    cdef const unsigned char* data         # first byte behind the header
    cdef Py_ssize_t size                   # body of the first frame
    cdef Py_ssize_t run_size               # from `data` to the end of the run's last frame


cdef class Framer:
    cdef readonly object error             # ProtocolError that ended this stream of bytes, or None
    cdef readonly Py_ssize_t max_frame_size
    cdef readonly bint merge_pushes
    cdef readonly Py_ssize_t heartbeat_requests  # among the frames handed out last
    cdef bytes memory                      # where bytes are received: the arena, or one large frame
    cdef bytes arena                       # the shared memory, most of the time `memory` itself
    cdef list arenas                       # it and earlier ones, to be used again
    cdef Py_ssize_t start                  # first byte of the incomplete frame in `memory`
    cdef Py_ssize_t filled                 # end of what was received into `memory`
    cdef Py_ssize_t needed                 # full size of the incomplete frame, 0 while unknown
    cdef Py_ssize_t arena_filled           # `filled` of the arena while a large frame is received
    cdef Py_ssize_t consumed               # bytes of the frames handed out so far

    cpdef list commit(self, Py_ssize_t nbytes)
    cdef int copy_in(self, const unsigned char* source, Py_ssize_t left, list frames) except -1
    cdef int take_frames(self, list frames) except -1
    cdef int read_length_prefix(self) except -1
    cdef int append_frame(self, list frames) except -1
    cdef int make_room(self) except -1
    cdef bint arena_has_views(self) noexcept
    cdef int move_to(self, bytes memory) except -1
    cdef int change_arena(self) except -1
    cdef bytes free_arena(self)


cdef bytes new_frame(
    int command, bytes correlation_id, bytes auth, Py_ssize_t payload_size, unsigned char** payload
)
