"""The operation that lies in a C structure as a whole, for those that come in large numbers."""

from fastpump._operation cimport Operation


cdef class Change(Operation):
    pass
