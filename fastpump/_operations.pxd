"""The operations that lie in C structures as a whole: those that come in large numbers."""

from fastpump._operation cimport Operation


cdef class Change(Operation):
    pass


cdef class WriteEvents(Change):
    pass
