"""16-byte ids for modules that handle them in C. `_ids.pyx` explains their order on the wire."""


cdef object uuid_from_wire(const unsigned char* wire)
cdef int uuid_to_wire(object uuid, unsigned char* wire) except -1
cdef int random_id_to_wire(unsigned char* wire) except -1


cdef class CorrelationIds:
    cdef bytes prefix
    cdef unsigned long long number

    cpdef bytes next(self)
