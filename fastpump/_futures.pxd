"""Futures, for modules that make them in C. `_futures.pyx` explains them."""


cdef class Futures:
    cdef object create_future
    cdef bint are_asyncios
    cdef dict arguments

    cpdef object new(self)
