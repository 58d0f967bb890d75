"""Events on their way into a frame. `_new_events.pyx` explains them."""

from libc.stdint cimport uint32_t


cdef enum:
    # What stands for the place of an event that was not in a list, for error messages:
    ARGUMENTS = -1                         # its fields were the arguments themselves
    ONE_EVENT = -2                         # it was the argument `event`


cdef struct Part:
    # The pointers live as long as the NewEventData and what `prepare` returned.
    const char* type
    const char* data
    const char* metadata
    Py_ssize_t type_size
    Py_ssize_t data_size
    Py_ssize_t metadata_size
    Py_ssize_t size                        # of the NewEvent message
    const unsigned char* id
    bint is_json
    bint has_metadata


cdef class NewEventData:
    cdef readonly object type
    cdef readonly object data
    cdef readonly object metadata
    cdef unsigned char[16] wire_id


cdef int id_to_wire(object id, unsigned char* wire) except -1
cdef NewEventData new_event_of(object event, Py_ssize_t index)
cdef const char* utf8_of(object text, str argument, Py_ssize_t index, Py_ssize_t* size) except NULL
cdef object body_of(object value, str field, Py_ssize_t index, bint* is_json)
cdef int fill(
    Part* part, const unsigned char* id, object type, object data, bint is_json, object metadata,
    Py_ssize_t index,
) except -1
cdef object prepare(Part* part, NewEventData event, Py_ssize_t index)
cdef unsigned char* write_part(
    unsigned char* out, uint32_t field, const Part* part
) noexcept nogil
