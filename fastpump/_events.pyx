# cython: nonecheck=True
"""Replies that hold events, as lazy views: nothing is copied out of a page until somebody asks.

An event is checked when it is taken out of its page, by index or in a loop, and then knows where
everything in it lies (`_event_table`). Strings, bytes, UUIDs, datetimes and JSON are made when an
attribute is read; only its number and type, which nearly every loop reads, are made with it. An
event keeps its page alive; `Event.detach()` gives it memory of its own.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from uuid import UUID

import orjson

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.datetime cimport import_datetime, timedelta_new
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpump._event_table cimport EventTable, Record
from fastpump._ids cimport uuid_from_wire
from fastpump._members cimport add_member
from fastpump._varint cimport TYPE_BYTES, TYPE_VARINT, Cursor, write_varint

from fastpump._position import Position

cdef enum:
    LARGE_PART = 4                         # of the memory they lie in; so much of it may be held

cdef int64_t TICKS_TO_EPOCH = 621355968000000000           # ticks from 0001-01-01 to 1970-01-01
cdef int64_t DAY = 86_400_000_000                          # in microseconds

import_datetime()

cdef object EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object EMPTY_ID = UUID(int=0)
cdef object loads = orjson.loads


cdef object time_of(const Record* r):
    cdef int64_t microseconds, days
    if r.created:
        # Each divided for itself: C rounds a negative quotient towards zero.
        microseconds = r.created // 10 - TICKS_TO_EPOCH // 10
    elif r.created_epoch:
        microseconds = r.created_epoch * 1000
    else:
        return None
    days = microseconds // DAY
    microseconds -= days * DAY             # of the day, before 1970 negative
    return EPOCH + timedelta_new(
        <int>days, <int>(microseconds // 1_000_000), <int>(microseconds % 1_000_000)
    )


cdef object id_of(EventTable page, const Record* r):
    return uuid_from_wire(page.base + r.id) if r.id else EMPTY_ID


cdef object json_of(EventTable page, const Record* r):
    return loads(page.bytes_at(r.data, r.data_size))


cdef class Events(EventTable):
    """An immutable sequence of events that arrived together; items are made when asked for.

    Args:
        events: the events it shall hold; they are copied into memory of its own, 4 GiB at most.
    """

    def __init__(self, events=()):
        cdef bytearray memory = bytearray()
        cdef list spans = []
        cdef bint without_positions = True
        for event in events:
            without_positions &= (<Event?>event).page.without_positions
            resolved = (<Event?>event).to_bytes()
            spans.append((len(memory), len(resolved), event.retry_count))
            memory += resolved
        if self.memory is not None:        # since before, or since `events` ran
            raise TypeError("a sequence of events does not change")
        self.adopt(bytes(memory), NULL)
        self.without_positions = without_positions
        cdef Cursor c
        for offset, size, retry_count in spans:
            c.pos = self.base + <Py_ssize_t>offset
            c.end = c.pos + <Py_ssize_t>size
            self.add(&c)
            self.extents[self.length - 1].retry_count = retry_count

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        cdef Py_ssize_t i
        if isinstance(index, slice):
            return [event_at(self, i) for i in range(*index.indices(self.length))]
        i = index
        if i < 0:
            i += self.length
        if not 0 <= i < self.length:
            raise IndexError("index of an event is out of range")
        return event_at(self, i)

    def __iter__(self):
        cdef _EventIterator iterator = _EventIterator.__new__(_EventIterator)
        iterator.page = self
        return iterator

    def __eq__(self, other):
        if not isinstance(other, (list, tuple, Events)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None

    def __add__(self, other):
        return [*self, *other]

    def __radd__(self, other):
        return [*other, *self]

    def __reduce__(self):
        return type(self), (list(self),)

    def __repr__(self):
        return f"<{type(self).__name__} of {self.length} events>"

    def index(self, event, *bounds):
        """The first place of `event`; ValueError if it is not here."""
        return list(self).index(event, *bounds)

    def count(self, event):
        """How many times `event` is here."""
        return list(self).count(event)

    @property
    def events(self):
        """The same sequence; photon-pump's slices have this name for it."""
        return self

    def are_in_log_order(self):
        """Whether each lies behind the one before it in the log of all events.

        False also where their positions are not known: only pushes and pages of that log have them.
        """
        return self.positions_ascend()

    @property
    def nbytes(self):
        """Bytes that the events take in memory as received."""
        return self.size

    def kept(self):
        """The same events for one who lets them wait, in memory that is theirs for the most part.

        They arrived in memory together with whatever else the server sent, and hold all of it.
        """
        cdef Events copy
        cdef bytes memory
        cdef Cursor c
        cdef Py_ssize_t i, size
        if self.size > len(self.memory) // LARGE_PART:
            return self
        copy = Events.__new__(Events)
        memory = PyBytes_FromStringAndSize(NULL, self.size)
        copy.adopt(memory, NULL)
        copy.delivery = self.delivery
        c.end = copy.base
        for i in range(self.length):
            size = self.extents[i].size
            c.pos = c.end
            c.end = c.pos + size
            memcpy(<void*>c.pos, self.base + self.extents[i].begin, size)
            copy.add(&c)
            copy.extents[i].retry_count = self.extents[i].retry_count
        return copy


Sequence.register(Events)


@cython.final
@cython.no_gc
cdef class _EventIterator:
    cdef Events page
    cdef Py_ssize_t index

    def __iter__(self):
        return self

    def __next__(self):
        cdef Event event
        if self.index == self.page.length:
            raise StopIteration
        event = event_at(self.page, self.index)
        self.index += 1
        return event

    def __length_hint__(self):
        return self.page.length - self.index


cdef class StreamSlice(Events):
    """One page of a stream: a sequence of its events, in the order of reading.

    Attributes:
        stream, from_event_number, direction: what was asked for.
        next_event_number: where the next page in this direction starts; -1 if there is none.
        last_event_number: number of the stream's last event; -1 if it has none.
        is_end_of_stream: nothing lies behind this page (yet).
        commit_position: how far the server's log went, for information.
        prepare_position: None; the protocol does not tell it.
    """

    def __init__(
        self,
        events=(),
        next_event_number=-1,
        last_event_number=-1,
        prepare_position=None,
        commit_position=0,
        is_end_of_stream=False,
        *,
        stream="",
        from_event_number=0,
        direction=None,
    ):
        Events.__init__(self, events)
        self.next_event_number = next_event_number
        self.last_event_number = last_event_number
        self.prepare_position = prepare_position
        self.commit_position = commit_position
        self.is_end_of_stream = is_end_of_stream
        self.stream = stream
        self.from_event_number = from_event_number
        self.direction = direction

    def __reduce__(self):
        state = (
            list(self),
            self.next_event_number,
            self.last_event_number,
            self.prepare_position,
            self.commit_position,
            self.is_end_of_stream,
        )
        return _restore_stream_slice, (
            state, self.stream, self.from_event_number, self.direction
        )


def _restore_stream_slice(state, stream, from_event_number, direction):
    return StreamSlice(
        *state, stream=stream, from_event_number=from_event_number, direction=direction
    )


cdef class AllStreamSlice(Events):
    """One page of the log of all events: a sequence of events, in the order of reading.

    Attributes:
        start_position: where the page starts; `End` is replaced by the actual position.
        next_position: where the next page in this direction starts.
        direction: the direction of reading.
        is_end_of_stream: nothing lies behind this page (yet). Without a filter servers do not say
            so: only an empty page is the end (section 6.4). With one they do, whether or not the
            page holds events, and an empty page may well have others behind it (section 6.5).
    """

    def __init__(
        self, events=(), position=None, next_position=None, direction=None, is_end_of_stream=None
    ):
        Events.__init__(self, events)
        self.start_position = position
        self.next_position = next_position
        self.direction = direction
        self.is_end_of_stream = self.length == 0 if is_end_of_stream is None else is_end_of_stream

    def __reduce__(self):
        return AllStreamSlice, (
            list(self), self.start_position, self.next_position, self.direction,
            self.is_end_of_stream,
        )


cdef inline EventRecord record_view(Events page, const Record* record):
    cdef EventRecord view = EventRecord.__new__(EventRecord)
    view.page = page
    view.record = record[0]
    return view


cdef Event event_at(Events page, Py_ssize_t index):
    cdef Event event = Event.__new__(Event)
    page.look_into(index, &event.item)
    if not (event.item.has_event or event.item.has_link):
        page.fail_empty(&event.item.extent)
    event.page = page
    name_event(event)
    return event


cdef inline int name_event(Event event) except -1:
    event.event_number = event.item.received_number
    event.type = event.page.name_at(event.item.event.type, event.item.event.type_size)
    return 0


cdef int received_id_to_wire(Event event, unsigned char* wire) except -1:
    """Write the id of the received record, zeros if it has none."""
    cdef Record link
    cdef const Record* r = &event.item.event
    if event.item.has_link:
        event.page.read_link(&event.item, &link)
        r = &link
    if r.id:
        memcpy(wire, event.page.base + r.id, 16)
    else:
        memset(wire, 0, 16)
    return 0


def delivery_of(Event event not None):
    """The correlation id an event was pushed under by a persistent subscription, or None."""
    return event.page.delivery


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class EventRecord:
    """An event as the server stores it.

    Attributes:
        stream, event_number, id (UUID), type: which event it is.
        data, metadata: bytes, copied out of the page at each access; empty if there are none.
        is_json: the event was written as JSON.
        created: aware UTC datetime, or None where the server sent none.
    """

    def __init__(
        self, stream, id, event_number, type, data=b"", metadata=b"", created=None, is_json=True
    ):
        cdef bytes record = encode_record(
            stream, id, event_number, type, data, metadata, created, is_json
        )
        cdef Event event = <Event>_event_from_bytes(encode_field(1, record))
        if self.page is not None:          # since before, or since the arguments were encoded
            raise TypeError("an event does not change")
        self.page = event.page
        self.record = event.item.event

    @property
    def stream(self):
        return self.page.name_at(self.record.stream, self.record.stream_size)

    @property
    def event_number(self):
        return self.record.number

    @property
    def id(self):
        return id_of(self.page, &self.record)

    @property
    def type(self):
        return self.page.name_at(self.record.type, self.record.type_size)

    @property
    def is_json(self):
        return self.record.is_json != 0

    @property
    def data(self):
        return self.page.bytes_at(self.record.data, self.record.data_size)

    @property
    def metadata(self):
        return self.page.bytes_at(self.record.metadata, self.record.metadata_size)

    @property
    def created(self):
        return time_of(&self.record)

    def json(self):
        """The data parsed as JSON. Raises orjson.JSONDecodeError, a ValueError."""
        return json_of(self.page, &self.record)

    def to_bytes(self):
        """The EventRecord message as received."""
        return self.page.bytes_at(self.record.begin, self.record.size)

    def __eq__(self, other):
        if not isinstance(other, EventRecord):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self):
        return hash((self.stream, self.event_number))

    def __reduce__(self):
        return EventRecord, (
            self.stream, self.id, self.event_number, self.type, self.data, self.metadata,
            self.created, self.is_json,
        )

    def __repr__(self):
        return f"<EventRecord {self.event_number}@{self.stream}: {self.type}>"


@cython.final
@cython.no_gc
@cython.freelist(1024)
cdef class Event:
    """An event as delivered: read or pushed, with the link it was found through, if any.

    It holds on to its page, some hundred kilobytes perhaps; keep `event.detach()` instead where few
    events of many are kept for long.

    Attributes:
        event: the EventRecord; for a link whose target is gone, the link's own.
        link: the link's EventRecord if the event was reached through a link, else None.
        is_resolved: a link was followed to its target.
        received_event: the record that lies in the stream that was read: the link if there is one.
        event_number: its number. Continue a stream from here.
        stream, id, type, data, metadata, created, is_json: those of `event`.
        position: Position in the log of all events, None for events read from a stream.
        retry_count: how often a persistent subscription delivered it before; 0 otherwise.
    """

    def __init__(self, event, link=None, position=None):
        cdef bytes resolved = encode_field(1, (<EventRecord?>event).to_bytes())
        if link is not None:
            resolved += encode_field(2, (<EventRecord?>link).to_bytes())
        if position is not None:
            commit, prepare = position
            resolved += encode_number(3, commit) + encode_number(4, prepare)
        cdef Event parsed = <Event>_event_from_bytes(resolved)
        if self.page is not None:          # since before, or since `position` was unpacked
            raise TypeError("an event does not change")
        self.page = parsed.page
        self.item = parsed.item
        name_event(self)

    @property
    def event(self):
        return record_view(self.page, &self.item.event)

    @property
    def link(self):
        cdef Record link
        if not self.item.has_link:
            return None
        self.page.read_link(&self.item, &link)
        return record_view(self.page, &link)

    @property
    def received_event(self):
        return self.link or self.event

    @property
    def is_resolved(self):
        return self.item.has_event and self.item.has_link

    @property
    def stream(self):
        return self.page.name_at(self.item.event.stream, self.item.event.stream_size)

    @property
    def id(self):
        return id_of(self.page, &self.item.event)

    @property
    def is_json(self):
        return self.item.event.is_json != 0

    @property
    def data(self):
        return self.page.bytes_at(self.item.event.data, self.item.event.data_size)

    @property
    def metadata(self):
        return self.page.bytes_at(self.item.event.metadata, self.item.event.metadata_size)

    @property
    def created(self):
        return time_of(&self.item.event)

    @property
    def position(self):
        return Position(self.item.commit, self.item.prepare) if self.item.has_position else None

    @property
    def retry_count(self):
        return self.item.extent.retry_count

    def json(self):
        """The data parsed as JSON. Raises orjson.JSONDecodeError, a ValueError."""
        return json_of(self.page, &self.item.event)

    def detach(self):
        """The same event in memory of its own, so that its page can be freed."""
        cdef Event event = <Event>_event_from_bytes(
            self.to_bytes(), self.retry_count, self.page.without_positions
        )
        event.page.delivery = self.page.delivery
        return event

    def to_bytes(self):
        """The ResolvedEvent message as received."""
        return self.page.bytes_at(self.item.extent.begin, self.item.extent.size)

    def __eq__(self, other):
        if not isinstance(other, Event):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self):
        return hash((self.stream, self.event_number))

    def __reduce__(self):
        return _event_from_bytes, (
            self.to_bytes(), self.retry_count, self.page.without_positions
        )

    def __repr__(self):
        return f"<Event {self.created}: {self.event_number}@{self.stream}:{self.type}>"


cdef int add_members() except -1:
    cdef Event event = Event.__new__(Event)
    event.event_number, event.type = object(), str(object())
    add_member(event, b"event_number", event.event_number)
    add_member(event, b"type", event.type)
    return 0


add_members()


def _event_from_bytes(
    bytes resolved not None, int32_t retry_count=0, bint without_positions=False
):
    """The event of a ResolvedEvent message; the inverse of `Event.to_bytes`."""
    cdef Events page = Events.__new__(Events)
    page.without_positions = without_positions
    page.adopt(resolved, NULL)
    cdef Cursor c
    c.pos = page.base
    c.end = c.pos + len(resolved)
    page.add(&c)
    page.extents[0].retry_count = retry_count
    return event_at(page, 0)


cdef bytes encode_varint(uint64_t value):
    cdef unsigned char[10] out
    cdef unsigned char* end = write_varint(out, value)
    return PyBytes_FromStringAndSize(<const char*>out, end - out)


cdef bytes encode_number(uint32_t field, int64_t value):
    return encode_varint(field << 3 | TYPE_VARINT) + encode_varint(<uint64_t>value)


cdef bytes encode_field(uint32_t field, bytes value):
    return encode_varint(field << 3 | TYPE_BYTES) + encode_varint(len(value)) + value


cdef bytes encode_record(stream, id, event_number, type, data, metadata, created, is_json):
    cdef int64_t ticks = 0
    cdef list parts = [
        encode_field(1, stream.encode()),
        encode_number(2, event_number),
        encode_field(3, id.bytes_le),
        encode_field(4, type.encode()),
        encode_number(5, 1 if is_json else 0),
        encode_number(6, 1 if is_json else 0),
        encode_field(7, data),
        encode_field(8, metadata),
    ]
    if created is not None:
        ticks = (created - EPOCH) // timedelta(microseconds=1) * 10 + TICKS_TO_EPOCH
        parts.append(encode_number(9, ticks))
        parts.append(encode_number(10, (created - EPOCH) // timedelta(milliseconds=1)))
    return b"".join(parts)
