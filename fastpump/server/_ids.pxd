"""IdTable and BloomFilter for `_records.pyx`, which adds the ids of the events it encodes."""

from libc.stdint cimport int64_t, uint64_t


cdef struct IdSlot:
    uint64_t low                           # the id's 16 bytes, as two words
    uint64_t high
    int64_t stream                         # -1: the slot is empty
    int64_t number


cdef class IdTable:
    cdef IdSlot* slots
    cdef size_t mask                       # number of slots - 1; a power of two
    cdef readonly size_t count             # ids held

    cdef IdSlot* slot_of(self, uint64_t low, uint64_t high) noexcept
    cdef int add(self, const unsigned char* event_id, int64_t stream, int64_t number) except -1
    cdef int grow(self) except -1
