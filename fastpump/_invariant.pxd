"""What must hold whatever comes in: checked in the debug build (`make debug`), else compiled away.

A condition that does not hold ends the process, which says where. It must not do anything, and be
one comparison: Cython works out `and` and `or` before, where nothing compiles them away.
"""


cdef extern from "<assert.h>" nogil:
    void invariant "assert"(bint condition)
