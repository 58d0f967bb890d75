"""What of a read lies in a C structure. `_reads.py` explains it."""


cdef class Read:
    cdef bint is_forward
    cdef int count
    cdef readonly bint resolve_links
    cdef bint require_master
    cdef readonly object stream


cdef class StreamRead(Read):
    pass


cdef class LogRead(Read):
    pass


cdef class FilteredRead(Read):
    cdef readonly object filter
    cdef readonly int window
