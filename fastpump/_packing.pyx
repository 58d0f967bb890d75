# cython: nonecheck=True
"""Events gathered by stream into batches, in the form they have on the wire.

    Packer ── a Lane per stream that has events ── full batches, and one that is being filled

An event is encoded when it is given. So what is wrong with it is said to the one who gave it, its
dict may be changed afterwards, and what is held is known to the byte. A batch whose write failed
is made events again.
"""

from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from fastpump._invariant cimport invariant
from fastpump._new_events cimport (
    ARGUMENTS, ONE_EVENT, NewEventData, Part, new_event_of, prepare, utf8_of, write_part,
)
from fastpump._varint cimport Cursor, read_length, size_of_bytes_field

from fastpump._new_events import Json

cdef enum:
    FIRST_CAPACITY = 256                   # many streams may have one small event each
    SLOW_GROWTH = 4096                     # bytes from which on capacity is doubled, not quadrupled
    EVENTS_A_TURN = 1024                   # given without a turn of the event loop between them
    SIZE_OF_FLAG_FIELD = 2
    ID = 16


@cython.final
cdef class Ready:
    """Awaited, it is done at once."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration


cdef Ready READY = Ready()


@cython.final
cdef class Batch:
    """Events of one stream that are written together, all or none of them."""

    def __cinit__(self, stream):
        self.stream = stream

    def __dealloc__(self):
        free(self.memory)

    def __len__(self):
        return self.count

    def attach(self, future):
        """Have a future stand for the event that was added last."""
        if self.futures is None:
            self.futures = []
        self.futures.append((self.count - 1, future))

    def events(self):
        """The events, new objects with their ids: data as bytes or `Json`, metadata as bytes."""
        cdef list events = []
        cdef Cursor c
        c.pos = self.events_start
        c.end = self.events_start + self.size
        while c.pos < c.end:
            events.append(read_event(&c))
        return events

    cdef int add(self, const void* prepared) except -1:
        cdef const Part* part = <const Part*>prepared
        cdef Py_ssize_t size = size_of_bytes_field(part.size)
        invariant(self.frame is None)      # `memory` is gone then
        if self.size + size > self.capacity:
            self.reserve(self.size + size)
        cdef unsigned char* end = write_part(self.events_start + self.size, 3, part)
        self.size = end - self.events_start
        invariant(self.size <= self.capacity)
        self.data_size += part.data_size + part.metadata_size
        self.count += 1
        return 0

    cdef int reserve(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t factor = 4 if self.capacity < SLOW_GROWTH else 2
        cdef Py_ssize_t capacity = max(factor * self.capacity, size, <Py_ssize_t>FIRST_CAPACITY)
        cdef void* memory = realloc(self.memory, capacity)
        if memory == NULL:
            raise MemoryError
        self.memory = self.events_start = <unsigned char*>memory
        self.capacity = capacity
        return 0

    cdef int move_to(self, bytes frame, unsigned char* start) except -1:
        """The events lie in this frame, too: let go of the memory they were written to."""
        free(self.memory)
        self.memory = NULL
        self.capacity = 0
        self.frame = frame
        self.events_start = start
        return 0


cdef object take_bytes(Cursor* c):
    """The value of a bytes field, whose tag is skipped unseen."""
    cdef Py_ssize_t length = 0
    c.pos += 1
    read_length(c, &length)
    c.pos += length
    return PyBytes_FromStringAndSize(<const char*>c.pos - length, length)


cdef NewEventData read_event(Cursor* c):
    """Read what `write_part` wrote: the layout is known and needs no checks."""
    cdef NewEventData event = NewEventData.__new__(NewEventData)
    cdef Py_ssize_t length = 0
    cdef bint is_json
    c.pos += 1
    read_length(c, &length)
    cdef const unsigned char* end = c.pos + length
    memcpy(event.wire_id, c.pos + 2, ID)
    c.pos += 2 + ID
    event.type = take_bytes(c).decode()
    is_json = c.pos[1]
    c.pos += 2 * SIZE_OF_FLAG_FIELD
    event.data = take_bytes(c)
    if is_json:
        event.data = Json(event.data)
    event.metadata = take_bytes(c) if c.pos < end else None
    return event


@cython.final
cdef class Lane:
    """The batches of one stream that wait; `sending` and `error` are for the one who sends them."""

    cdef readonly object stream
    cdef readonly Batch filling            # the batch that takes more events, or None
    cdef readonly object full              # deque of those before it; None until there are
    cdef readonly bint due                 # `filling` is to be sent without waiting for more
    cdef public bint busy                  # in `Packer.ready`, or a batch of it is being written
    cdef public object sending             # the batch that is being written, or None
    cdef public object error               # why nothing more of this stream is written, or None
    cdef bint gathering                    # `filling` waits for more events

    def __cinit__(self, stream):
        self.stream = stream

    def take(self):
        """The next batch that may be sent, or None."""
        if self.full:
            return self.full.popleft()
        batch = None
        if self.due:
            batch, self.filling = self.filling, None
            self.due = False
        return batch

    @property
    def last(self):
        """The batch behind all others that are not answered, or None."""
        if self.filling is not None:
            return self.filling
        return self.full[len(self.full) - 1] if self.full else self.sending


@cython.final
cdef class Packer:
    """The lanes, and how much there is in them.

    Args:
        max_batch_events, max_batch_bytes: a batch that reaches one of them is full. An event that
            does not fit into a batch that has others becomes a batch of its own.
        max_events, max_bytes: how much may be held until it is answered.
        hold: makes what is to be awaited when that much is held, or a turn of the loop is due.
        on_gathering: called when events begin to wait for more events.
        on_ready: called when there is something to send.
    """

    cdef readonly dict lanes
    cdef readonly object ready             # deque of lanes that have a batch to be sent
    cdef readonly Py_ssize_t given         # events
    cdef readonly Py_ssize_t held_events
    cdef readonly Py_ssize_t held_bytes
    cdef public object error               # raised instead of taking an event, unless None
    cdef list gathering                    # lanes that fill a batch and wait for more events
    cdef Py_ssize_t turn_left
    cdef Py_ssize_t max_batch_events
    cdef Py_ssize_t max_batch_bytes
    cdef Py_ssize_t max_events
    cdef Py_ssize_t max_bytes
    cdef object hold
    cdef object on_gathering
    cdef object on_ready

    def __init__(
        self, Py_ssize_t max_batch_events, Py_ssize_t max_batch_bytes, Py_ssize_t max_events,
        Py_ssize_t max_bytes, hold, on_gathering, on_ready,
    ):
        self.lanes = {}
        self.ready = deque()
        self.gathering = []
        self.turn_left = EVENTS_A_TURN
        self.max_batch_events = max_batch_events
        self.max_batch_bytes = max_batch_bytes
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.hold = hold
        self.on_gathering = on_gathering
        self.on_ready = on_ready

    def send(self, stream, event):
        """Take an event; what it returns is to be awaited before the next one is given."""
        self.pack(stream, event, ONE_EVENT)
        return self.hold() if self.is_full_or_turn_is_over() else READY

    def send_some(self, stream, iterator, Py_ssize_t index):
        """Take events from an iterator until `hold` is due; the index of the next, -1 at its end.

        `index` counts the events before, for error messages.
        """
        for event in iterator:
            self.pack(stream, event, index)
            index += 1
            if self.is_full_or_turn_is_over():
                return index
        return -1

    @property
    def is_full(self):
        """No more should be given."""
        return self.held_events >= self.max_events or self.held_bytes >= self.max_bytes

    @property
    def has_room(self):
        """Half of what may be held is free: producers that wait should go on."""
        return self.held_events <= self.max_events // 2 and self.held_bytes <= self.max_bytes // 2

    def begin_turn(self):
        """The event loop has had its turn."""
        self.turn_left = EVENTS_A_TURN

    def release(self):
        """Let go of all batches that wait for more events."""
        cdef Lane lane
        for lane in self.gathering:
            lane.gathering = False
            if lane.filling is not None:
                lane.due = True
                self.make_ready(lane)
        self.gathering.clear()

    def let_go(self, Batch batch not None):
        """A batch is not held any more."""
        self.held_events -= batch.count
        self.held_bytes -= batch.size
        invariant(self.held_events >= 0)
        invariant(self.held_bytes >= 0)

    def finish(self, Lane lane not None):
        """What was sent of a lane is answered: its next batch may follow, or nothing is left."""
        lane.busy = False
        lane.sending = None
        if lane.full or lane.due:
            self.make_ready(lane)
        elif lane.filling is None and lane.error is None and self.lanes.get(lane.stream) is lane:
            del self.lanes[lane.stream]

    def discard(self, Lane lane not None):
        """Take a lane's batches that were not sent out of it, and return them."""
        batches = list(lane.full or ())
        if lane.filling is not None:
            batches.append(lane.filling)
        lane.full = None
        lane.filling = None
        lane.due = False
        return batches

    cdef bint is_full_or_turn_is_over(self) noexcept:
        return (
            self.turn_left <= 0
            or self.held_events >= self.max_events or self.held_bytes >= self.max_bytes
        )

    # Wherever an object is made below, and in whatever is called, garbage may be collected, and
    # finalizers may give events to this packer: what was looked at before may have changed by then.

    cdef int pack(self, object stream, object given, Py_ssize_t index) except -1:
        cdef Part part
        cdef NewEventData event
        cdef Lane lane
        cdef Py_ssize_t size
        if self.error is not None:
            raise self.error.with_traceback(None)
        event = new_event_of(given, index)
        _alive = prepare(&part, event, index)  # what `part` points to, up to the end
        size = size_of_bytes_field(part.size)
        lane = self.lane_of(stream)
        if lane.filling is not None and lane.filling.size + size > self.max_batch_bytes:
            self.close_batch(lane)
        while lane.filling is None:
            self.open_batch(lane)
        lane.filling.add(&part)
        self.given += 1
        self.held_events += 1
        self.held_bytes += size
        self.turn_left -= 1
        if (
            lane.filling.count >= self.max_batch_events
            or lane.filling.size >= self.max_batch_bytes
        ):
            self.close_batch(lane)
        return 0

    cdef Lane lane_of(self, object stream):
        cdef PyObject* found = NULL
        cdef Py_ssize_t ignored = 0
        if isinstance(stream, str):
            found = PyDict_GetItemWithError(self.lanes, stream)
            if found != NULL:
                return <Lane>found
        utf8_of(stream, "stream", ARGUMENTS, &ignored)
        return self.lanes.setdefault(stream, Lane(stream))

    cdef int open_batch(self, Lane lane) except -1:
        batch = Batch(lane.stream)
        if lane.filling is not None:
            return 0
        lane.filling = batch
        if not lane.gathering:
            lane.gathering = True
            self.gathering.append(lane)
            if len(self.gathering) == 1:
                self.on_gathering()
        return 0

    cdef int close_batch(self, Lane lane) except -1:
        if lane.full is None:
            full = deque()
            lane.full = lane.full or full
        if lane.filling is not None:
            lane.full.append(lane.filling)
            lane.filling = None
            lane.due = False
        return self.make_ready(lane)

    cdef int make_ready(self, Lane lane) except -1:
        if not lane.busy:
            lane.busy = True
            self.ready.append(lane)
            if len(self.ready) == 1:
                self.on_ready()
        return 0
