"""The tags of an entry, for `_log_writer.pyx` too."""


cdef enum:
    TAG_ALL_EVENTS = 0x1A                  # an entry: field 3 of a page of $all
    TAG_RECORD = 0x0A
    TAG_COMMIT = 0x18
    TAG_PREPARE = 0x20
