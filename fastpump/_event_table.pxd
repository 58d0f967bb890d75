"""The tables behind the event views. `_event_table.pyx` explains them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from fastpump._varint cimport Cursor


cdef struct Record:
    # An EventRecord message. Places are offsets from `EventTable.base`.
    int64_t number
    int64_t created                 # .NET ticks without kind bits, 0 if absent
    int64_t created_epoch           # milliseconds since 1970, 0 if absent
    uint32_t begin                  # the whole message
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
    # A ResolvedEvent, ResolvedIndexedEvent or push: one entry.
    Record event
    int64_t commit
    int64_t prepare
    uint32_t begin                  # the whole resolved event
    uint32_t size
    uint32_t link                   # 1 + index in `EventTable.links`, 0 for none
    int32_t retry_count
    uint8_t has_event
    uint8_t has_position


cdef class EventTable:
    cdef bytes memory               # keeps `base` alive
    cdef const unsigned char* base
    cdef Item* items
    cdef Py_ssize_t length
    cdef Py_ssize_t room            # items allocated
    cdef Record* links
    cdef uint32_t link_count
    cdef uint32_t link_room
    cdef str stream_name            # the last names decoded, and where they stood
    cdef const Record* stream_source
    cdef str type_name
    cdef const Record* type_source

    cdef int adopt(self, bytes memory, const unsigned char* base) except -1
    cdef Item* add_item(self) except NULL
    cdef int add_link(self, Item* item, Record* link) except -1
    cdef int parse_item(self, Cursor c) except -1
    cdef int parse_resolved(self, Cursor* c, Item* item) except -1
    cdef const Record* record_of(self, Py_ssize_t index) noexcept
    cdef const Record* link_of(self, Py_ssize_t index) noexcept
    cdef str stream_of(self, const Record* record)
    cdef str type_of(self, const Record* record)
    cdef bytes bytes_at(self, uint32_t offset, uint32_t size)
    cdef int fail(self, int fault, const unsigned char* where, str what) except -1
    cdef str read_text(self, Cursor* c)
    cdef int check(self, int fault, Cursor* c, str what) except -1
    cdef int check_items(self) except -1
