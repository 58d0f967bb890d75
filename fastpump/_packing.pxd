"""Batches of encoded events for modules that put them into frames. `_packing.pyx` explains them."""


cdef class Batch:
    cdef readonly object stream
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t size          # bytes of the events as fields of WriteEvents
    cdef readonly Py_ssize_t data_size     # bytes of data and metadata in them
    cdef readonly list futures             # (place in the batch, future), or None
    cdef public list on_answered           # to be called once the batch is answered, or None
    cdef unsigned char* events_start       # in `memory`, and once there is a frame in that
    cdef unsigned char* memory
    cdef Py_ssize_t capacity
    cdef bytes frame

    cdef int add(self, const void* part) except -1
    cdef int reserve(self, Py_ssize_t size) except -1
    cdef int move_to(self, bytes frame, unsigned char* start) except -1
