"""The event views, for modules that make them in C."""

from libc.stdint cimport int64_t

from fastpump._event_table cimport EventTable, Item, Record


cdef class Events(EventTable):
    cdef bytes delivery             # correlation id of the persistent subscription that pushed them


cdef class StreamSlice(Events):
    cdef readonly str stream
    cdef readonly int64_t from_event_number
    cdef readonly object direction
    cdef readonly int64_t next_event_number
    cdef readonly int64_t last_event_number
    cdef readonly object prepare_position
    cdef readonly int64_t commit_position
    cdef readonly bint is_end_of_stream


cdef class AllStreamSlice(Events):
    cdef readonly object direction
    cdef readonly object start_position
    cdef readonly object next_position
    cdef readonly bint is_end_of_stream


cdef class EventRecord:
    cdef Events page
    cdef Record record


cdef class Event:
    cdef Events page
    cdef Item item
    cdef object event_number
    cdef str type


cdef Event event_at(Events page, Py_ssize_t index)
cdef int received_id_to_wire(Event event, unsigned char* wire) except -1
