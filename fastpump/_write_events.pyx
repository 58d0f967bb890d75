# cython: nonecheck=True
"""The write of events as an operation: hundreds of thousands a second are made and answered."""

from libc.stdint cimport int64_t

from fastpump._framing cimport Frame
from fastpump._futures cimport Futures
from fastpump._operations cimport Change
from fastpump._outlet cimport Outlet, perform
from fastpump._replies cimport WriteResult, decode_write_completed
from fastpump._requests cimport encode_write_event

from fastpump._commands import Command

cdef enum:
    WRITE_EVENTS_COMPLETED = 0x83


cdef class WriteEvents(Change):
    """Ends with a WriteResult. Sent again it is not written again: the event ids are the same."""

    reply = Command(WRITE_EVENTS_COMPLETED)

    cpdef bint is_reply(self, Frame frame) except -1:
        return frame.command == WRITE_EVENTS_COMPLETED

    cpdef object on_reply(self, Frame frame, object retry):
        cdef WriteResult written = decode_write_completed(frame)
        if written.result == 0:
            self.waiter.set_result(written)
        else:
            self.settle(written.result, written.message, None, retry, written.current_version)


cdef class SingleWrites:
    """Writes single events.

    Args:
        futures: makes their waiters.
        timeout: as for `Operation`.
        require_master: what holds for a write that does not say itself.
    """

    cdef Futures futures
    cdef double timeout
    cdef bint require_master

    def __init__(self, Futures futures, double timeout, bint require_master):
        self.futures = futures
        self.timeout = timeout
        self.require_master = require_master

    def write(
        self, Outlet outlet not None, stream, int64_t expected_version, type, data, metadata, id,
        require_master,
    ):
        """Write an event, the arguments of which are those of `NewEvent`; await the result."""
        # Its __init__ would be one more call with all of this. What is not set is zero, as there.
        cdef WriteEvents write = WriteEvents.__new__(WriteEvents)
        write.correlation_id = outlet.correlation_ids.next()
        write.frame = encode_write_event(
            write.correlation_id, stream, expected_version, type, data, metadata, id,
            self.require_master if require_master is None else require_master,
        )
        write.waiter = self.futures.new()
        write.timeout = self.timeout
        write.stream = stream
        write.number = expected_version
        return perform(outlet, write)
