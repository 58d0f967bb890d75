"""The write of events as an operation: hundreds of thousands a second are made and answered."""

from libc.stdint cimport int64_t

from fastpump._framing cimport Frame
from fastpump._ids cimport CorrelationIds
from fastpump._operations cimport Change
from fastpump._replies cimport WriteResult, decode_write_completed
from fastpump._requests cimport encode_write_event

from fastpump._commands import Command

cdef enum:
    WRITE_EVENTS_COMPLETED = 0x83


cdef class WriteEvents(Change):
    """Ends with a WriteResult. Sent again it is not written again: the event ids are the same."""

    reply = Command.WriteEventsCompleted

    cpdef bint is_reply(self, Frame frame) except -1:
        return frame.command == WRITE_EVENTS_COMPLETED

    cpdef object on_reply(self, Frame frame, object retry):
        cdef WriteResult written = decode_write_completed(frame)
        if written.result == 0:
            self.waiter.set_result(written)
        else:
            self.settle(written.result, written.message, None, retry, written.current_version)


def write_of_event(
    CorrelationIds ids not None, waiter, double timeout, stream,
    int64_t expected_version, type, data, metadata, id, bint require_master,
):
    """The write of one event; its first arguments are `Operation`'s, its last ones `NewEvent`'s."""
    cdef WriteEvents write = WriteEvents.__new__(WriteEvents)
    write.correlation_id = ids.next()
    write.frame = encode_write_event(
        write.correlation_id, stream, expected_version, type, data, metadata, id, require_master
    )
    write.waiter = waiter
    write.timeout = timeout
    write.stream = stream
    write.number = expected_version
    return write
