"""What one connection has to write, gathered over a turn of the event loop.

A write to the system takes far longer than making a frame, so frames are written together at the
end of the turn they were made in. Who makes one at a time, as a loop that awaits each answer does,
would wait for that end for nothing: a frame that is the first one since something was received is
written at once, if there was just one between that and what was received before.
"""

cdef enum:
    WRITE_AT_ONCE = 256 * 1024             # bytes that do not wait for the end of the turn


cdef class Outbox:
    """The frames that wait to be written.

    Args:
        loop: the event loop whose turns count.
        traffic: its `sent` is told how many bytes are written.

    Attributes:
        transport: where to write; None before there is a connection, and when it is gone.
        size: bytes that wait.
    """

    cdef object call_soon
    cdef object traffic
    cdef public object transport
    cdef list frames
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t sent                   # frames since something was received
    cdef bint one_at_a_time                # there was just one before that

    def __init__(self, loop, traffic):
        self.call_soon = loop.call_soon
        self.traffic = traffic
        self.frames = []

    def on_received(self):
        """Something has arrived, and what is sent now may be the answer to it."""
        if self.sent:                      # else it is the rest of what came before
            self.one_at_a_time = self.sent == 1
            self.sent = 0

    def send(self, bytes frame not None):
        """Write the frame, together with all others of this turn of the loop if there are any."""
        self.sent += 1
        self.frames.append(frame)
        self.size += len(frame)
        if self.size >= WRITE_AT_ONCE or (self.one_at_a_time and self.sent == 1):
            self.flush()
        elif len(self.frames) == 1:
            self.call_soon(self.flush)

    cpdef object flush(self):
        """Write what waits; without a connection it is gone."""
        if not self.frames:
            return
        cdef bytes gathered = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        # Before the write, which would otherwise leave all of it here if it raised.
        self.frames.clear()
        self.size = 0
        if self.transport is not None:
            self.transport.write(gathered)
            self.traffic.sent += len(gathered)
