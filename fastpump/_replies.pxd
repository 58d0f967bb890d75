"""Replies, for modules that decode them in C. `_replies.pyx` explains them."""

from libc.stdint cimport int64_t

from fastpump._framing cimport Frame


cdef class WriteResult:
    cdef readonly int64_t result
    cdef readonly str message
    cdef readonly int64_t first_event_number
    cdef readonly int64_t last_event_number
    cdef readonly int64_t prepare_position
    cdef readonly int64_t commit_position
    cdef int64_t current
    cdef bint has_current


cpdef WriteResult decode_write_completed(Frame frame)
