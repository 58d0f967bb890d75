"""Events as views of the bytes they arrived in: how long they live, what they turn into."""

from __future__ import annotations

import gc
import inspect
import pickle
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import goldenlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import reference, views
from wire.scrambling import length_delimited, messages

from fastpump import _replies
from fastpump._events import delivery_of
from fastpump._framing import Framer
from fastpump.messages import AllStreamSlice, Event, EventRecord, Events, Position, StreamSlice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CREATED = datetime(2020, 1, 1, 12, 30, 15, 123456, tzinfo=timezone.utc)
RECORD = EventRecord("s", UUID(int=7), 3, "t", b"{}", b"m", CREATED)
LINK = EventRecord("$ce-s", UUID(int=8), 9, "$>", b"3@s", is_json=False)


def page_of(name: str, number: int = 1) -> StreamSlice:
    """The page in a capture."""
    frame = Framer().feed(goldenlib.capture(name).data)[number]
    return _replies.decode_stream_slice(frame, "stream", 0, 0)[1]


def push(retry_count: int = 0) -> Event:
    """An event as a persistent subscription delivers it."""
    fields = {"event": {"event": {"event_type": "t"}}, "retryCount": retry_count}
    payload = reference.PROTO2.encode("PersistentSubscriptionStreamEventAppeared", fields)
    [event] = _replies.decode_pushes(views.one_frame(0xC7, payload))
    return event


class TestNames:
    @given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=50))
    def test_names_are_those_that_were_written(self, names: list[str]) -> None:
        records = [EventRecord(name, UUID(int=1), 0, name[::-1]) for name in names * 2]
        read = [(event.stream, event.type) for event in Events(map(Event, records))]
        assert read == [(name, name[::-1]) for name in names * 2]

    def test_many_names(self) -> None:
        """More than are kept, of all lengths, that share their ends."""
        names = [f"{'long ' * (n % 40)}{n} same end" for n in range(5_000)]
        for name in names * 2:
            assert EventRecord(name, UUID(int=1), 0, "t").stream == name

    def test_equal_names_are_one_object(self) -> None:
        page = page_of("page500")
        assert len({id(event.stream) for event in page}) == 1


class TestOrder:
    def pushed(self, *positions: tuple[int, int] | None) -> Events:
        return Events(Event(RECORD, position=position) for position in positions)

    def test_behind_one_another(self) -> None:
        assert self.pushed((1, 1), (2, 2), (2, 3), (9, 0)).are_in_log_order()

    @pytest.mark.parametrize("second", [(2, 2), (2, 1), (1, 9), (-1, -1), None])
    def test_not_behind_one_another(self, second: tuple[int, int] | None) -> None:
        assert not self.pushed((2, 2), second, (3, 3)).are_in_log_order()

    def test_positions_that_are_not_known(self) -> None:
        assert not self.pushed(None).are_in_log_order()
        assert not self.pushed(None, (2, 2)).are_in_log_order()

    def test_streams_have_no_positions(self) -> None:
        """Whatever stands where others have theirs."""
        event = reference.PROTO2.encode(
            "ResolvedEvent", {"event": {"event_type": "t"}, "commit_position": 7}
        )
        frame = views.one_frame(0xB3, length_delimited(1, event))
        _, page, _ = _replies.decode_stream_slice(frame, "s", 0, 0)
        assert page[0].position is None
        assert not page.are_in_log_order()


class TestLifetime:
    def test_an_event_keeps_its_page(self) -> None:
        framer = Framer()
        data = goldenlib.capture("links100").data
        _, page, _ = _replies.decode_stream_slice(framer.feed(data)[1], "", 0, 0)
        event, before = page[40], views.event_values(page[40])
        del page
        gc.collect()
        for _ in range(50):  # the framer goes on, and would use the memory again if it could
            framer.feed(data)
        assert views.event_values(event) == before

    def test_a_record_keeps_its_page(self) -> None:
        record = page_of("page500")[7].event
        gc.collect()
        assert record == page_of("page500")[7].event

    def test_detached_events_are_the_same(self) -> None:
        for name in ("page500", "links100"):
            for event in page_of(name):
                assert views.event_values(event.detach()) == views.event_values(event)

    @pytest.mark.parametrize("copied", [Event.detach, lambda e: pickle.loads(pickle.dumps(e))])
    def test_a_copied_push_keeps_its_retry_count(self, copied: Callable[[Event], Event]) -> None:
        assert copied(push(retry_count=3)).retry_count == 3

    def test_a_sequence_of_pushes_keeps_their_retry_counts(self) -> None:
        pushes = Events([push(retry_count=3), Event(RECORD), push(retry_count=-1)])
        assert [event.retry_count for event in pushes] == [3, 0, -1]
        copies = pickle.loads(pickle.dumps(pushes))
        assert [event.retry_count for event in copies] == [3, 0, -1]

    def test_a_push_knows_its_delivery(self) -> None:
        event = push()
        assert delivery_of(event) == delivery_of(event.detach()) == bytes(range(16))
        assert delivery_of(pickle.loads(pickle.dumps(event))) is None

    def test_nothing_else_has_one(self) -> None:
        assert delivery_of(page_of("page500")[0]) is None
        assert delivery_of(Event(RECORD)) is None
        fields = {"event": {"event": {"event_type": "t"}}}
        payload = reference.PROTO2.encode("StreamEventAppeared", fields)
        [event] = _replies.decode_pushes(views.one_frame(0xC2, payload))
        assert delivery_of(event) is None

    @pytest.mark.parametrize("name", ["page500", "links100"])
    def test_pickled_events_are_the_same(self, name: str) -> None:
        page = page_of(name)
        copy = pickle.loads(pickle.dumps(page))
        assert [views.event_values(event) for event in copy] == [
            views.event_values(event) for event in page
        ]
        assert copy.next_event_number == page.next_event_number
        assert copy.stream == page.stream

    def test_a_pickled_page_of_all(self) -> None:
        frame = Framer().feed(goldenlib.capture("all_page").data)[2]
        _, page, _ = _replies.decode_all_slice(frame, 1)
        copy = pickle.loads(pickle.dumps(page))
        assert list(copy) == list(page)
        assert (copy.start_position, copy.next_position) == (
            page.start_position,
            page.next_position,
        )
        assert [event.position for event in copy] == [event.position for event in page]


class TestSequence:
    def test_it_is_one(self) -> None:
        page = page_of("page500")
        assert isinstance(page, Sequence)
        assert len(page) == 500
        assert [event.event_number for event in page] == list(range(500))
        assert [event.event_number for event in reversed(page)] == list(range(499, -1, -1))
        assert page[-1] == page[499]
        assert page[10:13] == [page[10], page[11], page[12]]
        assert page[::-100][0] == page[499]
        assert page.index(page[20]) == 20
        assert page.count(page[20]) == 1
        assert page[20] in page
        assert page.__eq__(list(page)) is True
        assert page.events is page

    @pytest.mark.parametrize("index", [500, -501, 2**62])
    def test_index_out_of_range(self, index: int) -> None:
        page = page_of("page500")
        with pytest.raises(IndexError):
            page[index]

    def test_it_concatenates_to_a_list(self) -> None:
        page = page_of("links100")
        assert page + page == [*page, *page]
        assert [*page] + page == [*page, *page]

    def test_an_iterator_can_stop_and_go_on(self) -> None:
        iterator = iter(page_of("page500"))
        assert next(iterator).event_number == 0
        assert sum(1 for _ in iterator) == 499
        assert next(iterator, None) is None

    def test_its_events_cannot_be_filled_in_twice(self) -> None:
        page: Events = Events.__new__(Events)

        def events() -> Iterator[Event]:
            page.__init__([Event(RECORD, LINK)])  # type: ignore[misc]
            yield Event(RECORD)

        with pytest.raises(TypeError, match="does not change"):
            page.__init__(events())  # type: ignore[misc]
        assert list(page) == [Event(RECORD, LINK)]

    @pytest.mark.skipif(sys.platform != "linux", reason="takes memory that elsewhere is not unused")
    def test_more_than_its_offsets_can_count(self) -> None:
        rebuild, _ = Event(RECORD).__reduce__()
        with pytest.raises(ValueError, match="4294967296 bytes are more than"):
            rebuild(bytes(2**32))  # untouched, and so without a page in memory

    def test_nbytes(self) -> None:
        page = page_of("page500")
        assert page.nbytes == sum(len(event.to_bytes()) for event in page)


class TestMembers:
    """The interpreter reads them without a call: they lie in the object."""

    @pytest.mark.parametrize("name", ["event_number", "type"])
    def test_what_they_are(self, name: str) -> None:
        assert inspect.ismemberdescriptor(inspect.getattr_static(Event, name))
        with pytest.raises(AttributeError, match="readonly"):
            setattr(Event(RECORD), name, getattr(RECORD, name))
        with pytest.raises(AttributeError, match="readonly"):
            delattr(Event(RECORD), name)

    def test_they_are_those_of_the_records(self) -> None:
        for event in page_of("links100"):
            assert event.event_number == event.received_event.event_number
            assert event.type == event.event.type

    def test_an_event_without_content_has_none(self) -> None:
        empty: Event = Event.__new__(Event)
        assert empty.event_number is None
        assert empty.type is None


class TestConstruction:
    def test_event(self) -> None:
        event = Event(RECORD, LINK, Position(5, 4))
        assert (event.event, event.link, event.position) == (RECORD, LINK, (5, 4))
        assert event.received_event == LINK
        assert (event.stream, event.event_number) == ("s", 9)
        assert event.is_resolved
        assert Event(RECORD).link is None
        assert Event(RECORD).position is None

    @given(
        stream=st.text(max_size=10),
        number=st.integers(-(2**63), 2**63 - 1),
        data=st.binary(max_size=20),
        metadata=st.binary(max_size=20),
        created=st.none() | st.datetimes(timezones=st.just(timezone.utc)),
        is_json=st.booleans(),
        identifier=st.uuids(),
    )
    def test_record(
        self,
        stream: str,
        number: int,
        data: bytes,
        metadata: bytes,
        created: datetime | None,
        is_json: bool,
        identifier: UUID,
    ) -> None:
        record = EventRecord(stream, identifier, number, "t", data, metadata, created, is_json)
        assert (record.stream, record.id, record.event_number) == (stream, identifier, number)
        assert (record.data, record.metadata, record.is_json) == (data, metadata, is_json)
        # The very first instant is the zero of both time fields, which means that there is none.
        first = datetime(1, 1, 1, tzinfo=timezone.utc)
        assert record.created in ((created,) if created != first else (None, first))
        assert pickle.loads(pickle.dumps(record)) == record

    @given(messages("EventRecord"))
    def test_bytes_of_a_record_are_those_received(self, fields: dict[str, object]) -> None:
        data = reference.PROTO2.encode("EventRecord", fields)
        event = reference.PROTO2.encode("ResolvedIndexedEvent", {"event": fields})
        payload = reference.PROTO2.encode("ReadEventCompleted", {"event": {"event": fields}})
        _, found, _ = _replies.decode_read_event(views.one_frame(0xB1, payload))
        assert found is not None
        assert found.event.to_bytes() == data
        assert found.to_bytes() == event

    def test_slices(self) -> None:
        events = [Event(RECORD), Event(LINK)]
        page = StreamSlice(events, 10, 9, None, 7, True, stream="s", from_event_number=8)
        assert list(page) == events
        assert (page.next_event_number, page.last_event_number) == (10, 9)
        assert (page.prepare_position, page.commit_position) == (None, 7)
        assert page.is_end_of_stream
        all_page = AllStreamSlice(events, Position(1, 1), Position(2, 2))
        assert list(all_page) == events
        assert not all_page.is_end_of_stream
        assert AllStreamSlice().is_end_of_stream

    @pytest.mark.parametrize("kind", [Events, StreamSlice, AllStreamSlice])
    def test_a_sequence_does_not_change(self, kind: Callable[..., Events]) -> None:
        page = kind([Event(RECORD)])
        with pytest.raises(TypeError):
            page.__init__([])  # type: ignore[misc]
        assert len(page) == 1

    def test_events_do_not_change(self) -> None:
        event, record = Event(RECORD), EventRecord("s", UUID(int=7), 3, "t")
        with pytest.raises(TypeError, match="an event does not change"):
            event.__init__(LINK)  # type: ignore[misc]
        with pytest.raises(TypeError, match="an event does not change"):
            record.__init__("other", UUID(int=8), 4, "t")  # type: ignore[misc]
        assert (event.event, record.stream) == (RECORD, "s")

    @pytest.mark.parametrize("argument", [None, "record", b"", LINK.to_bytes()])
    def test_what_is_no_record(self, argument: object) -> None:
        with pytest.raises((TypeError, AttributeError)):
            Event(argument)  # type: ignore[arg-type]

    @pytest.mark.parametrize("position", [(), (1,), (1, 2, 3), 5, ("a", "b"), (2**63, 0)])
    def test_what_is_no_position(self, position: Any) -> None:
        with pytest.raises((TypeError, ValueError, OverflowError)):
            Event(RECORD, None, position)

    @pytest.mark.parametrize("event", [None, RECORD, b"", (RECORD, None)])
    def test_what_is_no_event(self, event: Any) -> None:
        with pytest.raises(TypeError):
            StreamSlice([event])

    def test_naive_times_are_refused(self) -> None:
        with pytest.raises(TypeError):
            EventRecord("s", UUID(int=1), 0, "t", created=datetime(2020, 1, 1))

    def test_other_time_zones(self) -> None:
        zone = timezone(timedelta(hours=5, minutes=30))
        record = EventRecord("s", UUID(int=1), 0, "t", created=CREATED.astimezone(zone))
        assert record.created == CREATED
        assert record.created.tzinfo is timezone.utc
