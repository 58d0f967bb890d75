"""Where the events of a message lie, and what lies in one. `_event_table.pyx` explains it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from fastpump._varint cimport Cursor


cdef struct Extent:
    # A ResolvedEvent, ResolvedIndexedEvent or push that nobody has looked into yet.
    uint32_t begin                  # offset from `EventTable.base`, as all places here
    uint32_t size
    int32_t retry_count


cdef struct Record:
    # An EventRecord message.
    int64_t number
    int64_t created                 # .NET ticks without kind bits, 0 if absent
    int64_t created_epoch           # milliseconds since 1970, 0 if absent
    uint32_t begin                  # the whole message; size 0: there is none
    uint32_t size
    uint32_t stream
    uint32_t stream_size
    uint32_t type
    uint32_t type_size
    uint32_t data
    uint32_t data_size
    uint32_t metadata
    uint32_t metadata_size
    uint32_t id                     # 16 bytes, or 0 if absent: no field starts at offset 0
    uint8_t is_json


cdef struct Item:
    # What lies in an extent.
    Extent extent
    Record event                    # the link's own where its target is gone
    int64_t received_number         # the link's if there is one, else the event's
    int64_t commit
    int64_t prepare
    uint32_t link                   # the link's EventRecord
    uint32_t link_size
    uint8_t has_event
    uint8_t has_link
    uint8_t has_position


cdef class EventTable:
    cdef bytes memory               # keeps `base` alive
    cdef const unsigned char* base
    cdef Extent* extents
    cdef Py_ssize_t length
    cdef Py_ssize_t room            # extents allocated
    cdef Py_ssize_t size            # bytes that the events take
    cdef bint without_positions     # they are ResolvedIndexedEvents, which have two fields only

    cdef int adopt(self, bytes memory, const unsigned char* base) except -1
    cdef int add(self, const Cursor* c) except -1
    cdef int add_run(self, Cursor* c, uint32_t tag) except -1
    cdef int grow(self) except -1
    cdef int look_into(self, Py_ssize_t index, Item* item) except -1
    cdef int read_resolved(self, Cursor* c, Item* item) except -1
    cdef bint positions_ascend(self) noexcept
    cdef int read_link(self, Item* item, Record* link) except -1
    cdef bint holds(self, uint32_t offset, uint32_t size) noexcept
    cdef bytes bytes_at(self, uint32_t offset, uint32_t size)
    cdef str name_at(self, uint32_t offset, uint32_t size)
    cdef int fail_empty(self, const Extent* extent) except -1
    cdef int fail(self, int fault, const unsigned char* where, str what) except -1
    cdef str read_text(self, Cursor* c)
    cdef int check(self, int fault, Cursor* c, str what) except -1


cdef int fail_at(Py_ssize_t offset, int fault, str what) except -1
cdef str text_at(Cursor* c, const unsigned char* base)
