"""Ids: UUIDs and their bytes on the wire, new random ones made in bulk, correlation ids.

On the wire an id has .NET's Guid order, Python's `UUID.bytes_le`: the first three of its five
groups are little-endian (protocol document, section 5.3).
"""

import os
from uuid import UUID, SafeUUID

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

cdef enum:
    ID = 16
    POOL = 256 * ID                        # random bytes fetched from the system at once

cdef bytes pool = b""
cdef Py_ssize_t pool_used = 0

cdef object new_object = object.__new__
cdef object set_attribute = object.__setattr__
cdef object SAFETY_UNKNOWN = SafeUUID.unknown


cdef inline void swap_order(const unsigned char* source, unsigned char* target) noexcept nogil:
    """From big-endian order to the wire's or back; the swap is its own inverse."""
    target[0] = source[3]
    target[1] = source[2]
    target[2] = source[1]
    target[3] = source[0]
    target[4] = source[5]
    target[5] = source[4]
    target[6] = source[7]
    target[7] = source[6]
    memcpy(target + 8, source + 8, 8)


cdef object uuid_from_wire(const unsigned char* wire):
    """The UUID; made without its constructor, which takes five times as long."""
    cdef bytes big_endian = PyBytes_FromStringAndSize(NULL, ID)
    swap_order(wire, <unsigned char*>PyBytes_AS_STRING(big_endian))
    uuid = new_object(UUID)
    set_attribute(uuid, "int", int.from_bytes(big_endian, "big"))
    set_attribute(uuid, "is_safe", SAFETY_UNKNOWN)
    return uuid


cdef int uuid_to_wire(object uuid, unsigned char* wire) except -1:
    cdef bytes big_endian = uuid.int.to_bytes(ID, "big")
    if len(big_endian) != ID:              # a subclass may do as it likes
        raise ValueError(f"id: {len(big_endian)} bytes instead of {ID}")
    swap_order(<const unsigned char*>PyBytes_AS_STRING(big_endian), wire)
    return 0


cdef int random_id_to_wire(unsigned char* wire) except -1:
    """Write a new random id (version 4)."""
    global pool, pool_used
    if pool_used == len(pool):
        pool = os.urandom(POOL)
        pool_used = 0
    memcpy(wire, PyBytes_AS_STRING(pool) + pool_used, ID)
    pool_used += ID
    wire[7] = wire[7] & 0x0F | 0x40
    wire[8] = wire[8] & 0x3F | 0x80
    return 0


def _forget_pool():
    global pool, pool_used
    pool = b""
    pool_used = 0


if hasattr(os, "register_at_fork"):
    # A forked child must not hand out the ids its parent hands out.
    os.register_at_fork(after_in_child=_forget_pool)


def new_event_id():
    """A new random UUID (version 4), several times as fast as `uuid.uuid4`."""
    cdef unsigned char[16] wire
    random_id_to_wire(wire)
    return uuid_from_wire(wire)


cdef class CorrelationIds:
    """Ids for requests: 8 random bytes that all of them share, then a number."""

    def __cinit__(self):
        self.prefix = os.urandom(8)

    cpdef bytes next(self):
        """16 bytes that no other request of this object has."""
        cdef bytes wire = PyBytes_FromStringAndSize(NULL, ID)
        self.number += 1
        memcpy(PyBytes_AS_STRING(wire), PyBytes_AS_STRING(self.prefix), 8)
        memcpy(PyBytes_AS_STRING(wire) + 8, &self.number, 8)
        return wire
