"""What of an outlet lies in a C structure. `_outlet.py` explains it."""

from fastpump._ids cimport CorrelationIds
from fastpump._operation cimport Operation


cdef class Outlet:
    cdef readonly CorrelationIds correlation_ids

    cpdef bint is_full(self) except -1
    cpdef object start(self, Operation operation)


cdef class Detour(Outlet):
    cdef Outlet _outlet


cpdef object perform(Outlet outlet, Operation operation)
