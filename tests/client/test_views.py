"""Events, records, slices and the rest of the vocabulary, by their public names."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from client.pages import record
from client.peer import connected, soon

import fastpump
from fastpump import (
    AllStreamSlice,
    Credential,
    Event,
    EventRecord,
    NewEvent,
    NewEventData,
    Position,
    StreamDirection,
    StreamSlice,
)
from fastpump import exceptions as errors

NOW = datetime(2013, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
ID = UUID("01020304-0506-0708-090a-0b0c0d0e0f10")


def make_record(number: int = 7, **changes: Any) -> EventRecord:
    fields = {
        "stream": "größe::1@2",
        "id": ID,
        "event_number": number,
        "type": "t\N{SNOWMAN}",
        "data": b'{"a": 1}',
        "metadata": b"m",
        "created": NOW,
        "is_json": True,
        **changes,
    }
    return EventRecord(**fields)


def copies() -> list[Callable[[Any], Any]]:
    return [
        copy.copy,
        copy.deepcopy,
        *(
            lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
        ),
    ]


def test_record() -> None:
    record = make_record()
    assert record.stream == "größe::1@2"
    assert (record.event_number, record.id, record.type) == (7, ID, "t\N{SNOWMAN}")
    assert (record.data, record.metadata, record.is_json) == (b'{"a": 1}', b"m", True)
    assert record.created == NOW
    assert record.created.utcoffset() == timedelta(0)
    assert record.json() == {"a": 1}
    assert "7@größe::1@2" in repr(record)


def test_record_defaults() -> None:
    record = EventRecord("s", ID, 0, "t")
    assert (record.data, record.metadata, record.created) == (b"", b"", None)


@pytest.mark.parametrize("number", [0, 2**31, 2**63 - 1, -1])
def test_64_bit_numbers(number: int) -> None:
    assert make_record(number).event_number == number


def test_created_in_another_time_zone() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=-5)))
    created = make_record(created=there).created
    assert created == NOW
    assert created is not None
    assert created.utcoffset() == timedelta(0)


def test_equality_of_records() -> None:
    assert make_record() == make_record()
    assert hash(make_record()) == hash(make_record())
    for changes in ({"stream": "x"}, {"data": b"x"}, {"created": None}, {"id": uuid4()}):
        assert make_record() != make_record(**changes)
    assert make_record() != 7


def test_event_without_link() -> None:
    event = Event(make_record())
    assert event.event == event.received_event == make_record()
    assert event.link is None
    assert not event.is_resolved
    assert event.position is None
    assert event.retry_count == 0
    for name in ("stream", "id", "event_number", "type", "data", "metadata", "created", "is_json"):
        assert getattr(event, name) == getattr(make_record(), name)
    assert event.json() == {"a": 1}


def test_pp_16_event_reached_through_a_link() -> None:
    link = make_record(99, stream="links", type="$>", data=b"7@x", is_json=False)
    event = Event(make_record(), link, (11, 10))
    assert event.is_resolved
    assert (event.event, event.link, event.received_event) == (make_record(), link, link)
    assert event.event_number == 99, "where to go on in the stream that was read"
    assert (event.stream, event.type) == ("größe::1@2", "t\N{SNOWMAN}")
    assert event.position == Position(11, 10)


async def test_pp_16_unresolved_link() -> None:
    link = record("links", 99, b"7@gone", event_type="$>", data_content_type=0)
    async with connected() as (client, fake, _):
        reading = soon(client.get("links"))
        request = await fake.expect("ReadStreamEventsForward")
        fake.reply(request, events=[{"link": link}], is_end_of_stream=True)
        (event,) = await reading
        assert not event.is_resolved
        assert event.link is not None
        assert event.event == event.link == event.received_event
        assert (event.type, event.data, event.event_number) == ("$>", b"7@gone", 99)
        assert event.detach() == event


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"nope"])
def test_pp_16_json_of_bytes_that_are_not_json(data: bytes) -> None:
    for view in (make_record(data=data), Event(make_record(data=data))):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # the class is checked below
            view.json()
        assert isinstance(caught.value, orjson.JSONDecodeError)


def test_wrong_arguments_of_constructors() -> None:
    with pytest.raises(TypeError):
        Event(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Event("event")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Event(make_record(), "link")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        StreamSlice([make_record()])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        StreamSlice([None])  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        make_record().data = b""  # type: ignore[misc]


@pytest.mark.parametrize("copied", copies())
def test_copies(copied: Callable[[Any], Any]) -> None:
    event = Event(make_record(), make_record(99), Position(3, 2))
    for value in (make_record(), make_record(created=None), event, NewEvent("t", data={"a": 1})):
        assert copied(value) == value
        assert type(copied(value)) is type(value)
    assert copied(event).position == Position(3, 2)


def make_slice(count: int = 5) -> StreamSlice:
    return StreamSlice(
        [Event(make_record(n)) for n in range(count)],
        next_event_number=count,
        last_event_number=count - 1,
        is_end_of_stream=True,
        stream="s",
        from_event_number=0,
        direction=StreamDirection.Forward,
    )


def test_pp_06_slice_is_a_sequence() -> None:
    page = make_slice()
    assert isinstance(page, Sequence)
    assert len(page) == 5
    assert [event.event_number for event in page] == [0, 1, 2, 3, 4]
    assert page[0].event_number == 0
    assert page[-1].event_number == page[4].event_number == 4
    assert [e.event_number for e in page[1:4]] == [1, 2, 3]
    assert [e.event_number for e in page[::-2]] == [4, 2, 0]
    assert isinstance(page[1:4], list)
    assert [e.event_number for e in reversed(page)] == [4, 3, 2, 1, 0]
    assert page[2] in page
    assert page.index(page[2]) == 2
    assert page.count(page[2]) == 1
    assert page == list(page) == page[:]
    assert page != page[1:]
    assert page != 7
    assert page + page == list(page) * 2
    assert [] + page == list(page)  # it is what is tested
    assert page.events == page
    assert bool(page)
    assert not StreamSlice()
    for index in (5, -6):
        with pytest.raises(IndexError):
            page[index]
    with pytest.raises(TypeError):
        page["0"]  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        hash(page)
    with pytest.raises(TypeError):
        page[0] = page[1]  # type: ignore[index]


def test_slice_attributes() -> None:
    page = make_slice()
    assert (page.stream, page.from_event_number, page.direction) == ("s", 0, 0)
    assert (page.next_event_number, page.last_event_number) == (5, 4)
    assert page.is_end_of_stream is True
    empty = StreamSlice()
    assert (empty.next_event_number, empty.last_event_number) == (-1, -1)
    assert empty.is_end_of_stream is False


@pytest.mark.parametrize("copied", copies())
def test_copies_of_slices(copied: Callable[[Any], Any]) -> None:
    page = copied(make_slice())
    assert page == make_slice()
    assert (page.stream, page.next_event_number, page.is_end_of_stream) == ("s", 5, True)
    assert page.direction is StreamDirection.Forward
    log = AllStreamSlice([Event(make_record(), position=(3, 3))], Position(3, 3), Position(4, 0), 0)
    again = copied(log)
    assert again == log
    assert (again.start_position, again.next_position) == (Position(3, 3), Position(4, 0))
    assert not again.is_end_of_stream
    assert AllStreamSlice().is_end_of_stream


@pytest.mark.parametrize("copied", copies())
@pytest.mark.parametrize("is_end", [True, False])
def test_filtered_slices_tell_their_end_themselves(
    copied: Callable[[Any], Any], is_end: bool
) -> None:
    events = [Event(make_record(), position=(3, 3))]
    for content in (events, []):
        page = AllStreamSlice(content, is_end_of_stream=is_end)
        assert page.is_end_of_stream is copied(page).is_end_of_stream is is_end


def test_events_outlive_their_page() -> None:
    page = make_slice()
    event, detached = page[3], page[3].detach()
    records = [event.event for event in page]
    del page
    assert event == detached
    assert event.json() == detached.json() == {"a": 1}
    assert [record.event_number for record in records] == [0, 1, 2, 3, 4]


async def test_detached_event_of_a_reply() -> None:
    async with connected() as (client, link, _):
        reading = soon(client.get_all())
        request = await link.expect("ReadAllEventsForward")
        item = {"event": record("s", 7, b"[1]"), "commit_position": 6, "prepare_position": 5}
        link.reply(request, events=[item, item])
        page = await reading
        kept = page[1].detach()
        assert kept == page[1]
        del page
        assert (kept.json(), kept.position) == ([1], Position(6, 5))


def test_detached_events_in_use_by_several_threads() -> None:
    async def main() -> None:
        page = make_slice(100)
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(None, lambda: [(e.stream, e.type, e.json()) for e in page])
            for _ in range(8)
        ]
        results = await asyncio.gather(*jobs)
        assert all(result == results[0] for result in results)

    asyncio.run(main())


def test_new_event_reads_like_photon_pumps_named_tuple() -> None:
    event = NewEvent("t", ID, {"a": 1}, b"m")
    assert isinstance(event, NewEventData)
    assert (event.id, event.type, event.data, event.metadata) == (ID, "t", {"a": 1}, b"m")
    event_id, kind, data, metadata = event
    assert (event_id, kind, data, metadata) == (event[0], event[1], event[2], event[-1])
    assert event[1:3] == ("t", {"a": 1})
    assert len(event) == 4
    assert event == (ID, "t", {"a": 1}, b"m")
    assert event == NewEventData(ID, "t", {"a": 1}, b"m")
    assert event != NewEvent("t", uuid4(), {"a": 1}, b"m")
    assert event != 7
    assert hash(event) == hash(NewEvent("t", ID, {"a": 1}, b"m"))
    assert str(ID) in repr(event)


def test_new_event_defaults() -> None:
    first, second = NewEvent("t"), NewEvent("t")
    assert isinstance(first.id, UUID)
    assert first.id == first.id, "made once"
    assert first.id != second.id
    assert first.id.version == 4
    assert (first.data, first.metadata) == (None, None)


def test_credential() -> None:
    credential = Credential("ada", "secret")
    assert (credential.username, credential.password) == ("ada", "secret")
    assert "ada" in repr(credential)
    for text in (repr(credential), str(credential), f"{credential}", f"{[credential]}"):
        assert "secret" not in text


def test_positions() -> None:
    assert Position(1, 1) < Position(2, 0) < Position(2, 1)
    commit, prepare = Position(5, 4)
    assert (commit, prepare) == (5, 4)
    assert Position.min == Position(-1, -1)
    assert repr(fastpump.Beginning) != repr(fastpump.End)


def test_pp_03_expected_versions_of_photon_pump() -> None:
    versions = fastpump.ExpectedVersion
    assert (versions.Any, versions.StreamMustNotExist) == (-2, -1)
    assert (versions.StreamMustBeEmpty, versions.StreamMustExist) == (0, -4)


@pytest.mark.parametrize("name", fastpump.exceptions.__all__)
def test_every_error_has_one_root(name: str) -> None:
    assert issubclass(getattr(fastpump.exceptions, name), fastpump.exceptions.FastpumpError)


CONVERSATION = uuid4()


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("stream", "must not be empty"),
        errors.ProtocolError("cut short", 7),
        errors.ConnectFailed("nobody there"),
        errors.OperationTimedOut(CONVERSATION, "Ping", 7.0),
        errors.StreamNotFound(CONVERSATION, "s"),
        errors.WrongExpectedVersion(CONVERSATION, "s", 3, 4),
        errors.NotMaster(CONVERSATION, ("10.0.0.7", 1113)),
        errors.PayloadUnreadable(CONVERSATION, errors.ProtocolError("cut short", 7)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_to_another_process(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
