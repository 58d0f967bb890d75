"""Requests, for modules that make them in C. `_requests.pyx` explains them."""

from libc.stdint cimport int64_t


cpdef bytes encode_write_event(
    bytes correlation_id, object stream, int64_t expected_version, object type, object data,
    object metadata, object id, bint require_master=*, bytes auth=*,
)
