"""What of an operation lies in a C structure. `_operation.py` explains it."""

from fastpump._framing cimport Frame


cdef class Operation:
    cdef public bytes correlation_id
    cdef public bytes frame
    cdef public object waiter
    cdef public double timeout
    cdef public double deadline
    cdef public object stream
    cdef public object number
    cdef public Py_ssize_t attempts

    cpdef bint on_frame(self, Frame frame, object retry) except -1
    cpdef bint is_reply(self, Frame frame) except -1
    cpdef object on_reply(self, Frame frame, object retry)
