"""What of the dispatcher lies in a C structure. `_dispatcher.py` explains it."""

cimport cython

from fastpump._framing cimport Frame
from fastpump._operation cimport Operation
from fastpump._outlet cimport Outlet


cdef class Dispatcher(Outlet):
    cdef public Py_ssize_t unknown_frames
    cdef public object follow
    cdef bint _full
    cdef object _clock
    cdef Py_ssize_t _max_in_flight
    cdef double _max_attempts
    cdef Py_ssize_t _max_queue
    cdef double _queue_timeout
    cdef bint _fail_on_no_response
    cdef dict _operations
    cdef dict _standing
    cdef object _send
    cdef object _closed_by
    cdef bint _paused
    cdef object _queue
    cdef object _door
    cdef Py_ssize_t _admitted
    cdef set _known_unknowns

    @cython.locals(frame=Frame, operation=Operation, correlation_id=bytes)
    cpdef dispatch(self, list frames)
