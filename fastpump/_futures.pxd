"""Futures, for modules that make them in C. `_futures.pyx` explains them."""


cdef class Futures:
    cdef dict arguments

    cpdef object new(self)
