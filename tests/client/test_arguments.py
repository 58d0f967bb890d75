"""What a call refuses before anything is sent; the error names the argument."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from client.peer import Link, connected, outcome, reply_to, soon

import fastpump
from fastpump import (
    ExpectedVersion,
    Filter,
    Json,
    NewEvent,
    Position,
    StreamDirection,
    StreamMetadata,
)
from fastpump.exceptions import UsageError

Client = fastpump.Client
MAX = 2**63 - 1
LIMIT = 16_767_216  # section 5.6; row SIZE-02

LONE_SURROGATE = "\ud800"


class Unspeakable:
    """Nothing that JSON knows."""


CASES: list[tuple[str, str, Callable[[Client], Any]]] = []


def case(argument: str, what: str, call: Callable[[Client], Any]) -> None:
    CASES.append((argument, what, call))


for what, stream in {
    "None": None,
    "empty": "",
    "bytes": b"s",
    "number": 7,
    "surrogate": LONE_SURROGATE,
}.items():
    wrong: Any = stream
    case("stream", f"{what}, publish_event", lambda c, s=wrong: c.publish_event(s, "t"))
    case("stream", f"{what}, publish", lambda c, s=wrong: c.publish(s, [NewEvent("t")]))
    case("stream", f"{what}, get", lambda c, s=wrong: c.get(s))
    case("stream", f"{what}, get_event", lambda c, s=wrong: c.get_event(s, 0))
    case("stream", f"{what}, iter", lambda c, s=wrong: c.iter(s).__anext__())

for what, kind in {"None": None, "empty": "", "bytes": b"t", "surrogate": LONE_SURROGATE}.items():
    wrong = kind
    case("type", what, lambda c, t=wrong: c.publish_event("s", t))
    case("events[1].type", what, lambda c, t=wrong: c.publish("s", [NewEvent("t"), NewEvent(t)]))

for what, body in {
    "object": Unspeakable(),
    "in a list": [1, {"a": Unspeakable()}],
    "key": {1: 2},
    "too large a number": 2**64,
    "surrogate": LONE_SURROGATE,
    "surrogate inside": {"a": LONE_SURROGATE},
    "set": {1},
}.items():
    wrong = body
    case("body", what, lambda c, b=wrong: c.publish_event("s", "t", b))
    case("metadata", what, lambda c, b=wrong: c.publish_event("s", "t", metadata=b))
    case(
        "events[1].data",
        what,
        lambda c, b=wrong: c.publish("s", [NewEvent("t"), NewEvent("t", data=b)]),
    )
    case("events[0].metadata", what, lambda c, b=wrong: c.publish("s", [NewEvent("t", metadata=b)]))

case("id", "zero", lambda c: c.publish_event("s", "t", id=UUID(int=0)))
case("id", "text", lambda c: c.publish_event("s", "t", id=str(uuid4())))  # type: ignore[arg-type]
case("id", "in a tuple", lambda c: c.publish("s", [(7, "t", None, None)]))  # type: ignore[list-item]

for what, events in {
    "None": None,
    "number": 7,
    "object": Unspeakable(),
    "one event": NewEvent("t"),
}.items():
    wrong = events
    case("events", what, lambda c, e=wrong: c.publish("s", e))
for what, events in {
    "text": "abc",
    "None inside": [None],
    "dict": {"a": 1},
    "short tuple": [(None, "t")],
}.items():
    wrong = events
    case("events[0]", what, lambda c, e=wrong: c.publish("s", e))

for what, version in {
    "-3": -3,
    "-5": -5,
    "text": "1",
    "None": None,
    "float": 1.0,
    "65 bits": 2**63,
}.items():
    wrong = version
    case(
        "expected_version",
        f"{what}, publish_event",
        lambda c, v=wrong: c.publish_event("s", "t", expected_version=v),
    )
    case(
        "expected_version",
        f"{what}, publish",
        lambda c, v=wrong: c.publish("s", [NewEvent("t")], expected_version=v),
    )

for what, number in {"-2": -2, "text": "1", "None": None, "float": 0.5, "65 bits": 2**63}.items():
    wrong = number
    case("event_number", what, lambda c, n=wrong: c.get_event("s", n))

for what, count in {"0": 0, "-1": -1, "4097": 4097, "text": "1", "None": None, "1.5": 1.5}.items():
    wrong = count
    case("max_count", f"{what}, get", lambda c, n=wrong: c.get("s", max_count=n))
    case("max_count", f"{what}, get_all", lambda c, n=wrong: c.get_all(max_count=n))
    case("batch_size", f"{what}, iter", lambda c, n=wrong: c.iter("s", batch_size=n).__anext__())
    case(
        "batch_size",
        f"{what}, iter_all",
        lambda c, n=wrong: c.iter_all(batch_size=n).__anext__(),
    )

for what, start in {"-1": -1, "text": "1", "float": 1.5, "65 bits": 2**63}.items():
    wrong = start
    case("from_event", f"{what}, forward", lambda c, n=wrong: c.get("s", from_event=n))
for what, start in {"-2": -2, "text": "1"}.items():
    wrong = start
    case(
        "from_event",
        f"{what}, backward",
        lambda c, n=wrong: c.get("s", StreamDirection.Backward, n),
    )

for what, direction in {"text": "backward", "None": None, "7": 7}.items():
    wrong = direction
    case("direction", f"{what}, get", lambda c, d=wrong: c.get("s", d))
    case("direction", f"{what}, get_all", lambda c, d=wrong: c.get_all(d))

for what, position in {
    "number": 7,
    "three": (1, 1, 1),
    "text": "ab",
    "commit below prepare": Position(1, 2),
    "negative": Position(-2, -2),
    "65 bits": Position(2**63, 0),
}.items():
    wrong = position
    case("from_position", what, lambda c, p=wrong: c.get_all(from_position=p))

for what, correlation_id in {"text": str(uuid4()), "zero": UUID(int=0)}.items():
    wrong = correlation_id
    case("correlation_id", f"{what}, get", lambda c, i=wrong: c.get("s", correlation_id=i))
    case("conversation_id", f"{what}, ping", lambda c, i=wrong: c.ping(i))

for what, window in {"0": 0, "-1": -1, "below the count": 9, "text": "9", "33 bits": 2**31}.items():
    wrong = window
    search: Any = {"filter": Filter.stream_prefix("a"), "max_search_window": wrong}
    case("max_search_window", f"{what}, get_all", lambda c, s=search: c.get_all(max_count=10, **s))
    case(
        "max_search_window",
        f"{what}, iter_all",
        lambda c, s=search: c.iter_all(batch_size=10, **s).__anext__(),
    )
case("max_search_window", "without a filter", lambda c: c.get_all(max_search_window=100))
for what, wanted in {"text": "a", "True": True, "list": ["a"]}.items():
    wrong = wanted
    case("filter", what, lambda c, f=wrong: c.get_all(filter=f))

for what, metadata in {"dict": {"$maxCount": 1}, "number": 7, "text": "{}"}.items():
    wrong = metadata
    case("metadata", f"{what}, of a stream", lambda c, m=wrong: c.set_stream_metadata("s", m))
case(
    "custom",
    "object",
    lambda c: c.set_stream_metadata("s", StreamMetadata(custom={"a": Unspeakable()})),
)
wrong = {"$r": "$all"}
case("user_stream_acl", "dict", lambda c: c.set_system_settings(wrong))
case("system_stream_acl", "dict", lambda c: c.set_system_settings(None, wrong))
for argument in ("on_result", "on_failure", "guard"):
    case(argument, "number", lambda c, a=argument: c.publisher(**{a: 7}))

case("body", "over the limit", lambda c: c.publish_event("s", "t", bytes(LIMIT - 1)))
case("body", "type counts twice", lambda c: c.publish_event("s", "ttt", bytes(LIMIT - 5)))
case("body", "with metadata", lambda c: c.publish_event("s", "t", b"1", metadata=bytes(LIMIT - 2)))
case(
    "events[1].data",
    "over the limit",
    lambda c: c.publish("s", [NewEvent("t"), NewEvent("t", data=bytes(LIMIT))]),
)
case(
    "events",
    "SIZE-03: over 64 MiB together",
    lambda c: c.publish("s", [NewEvent("t", data=bytes(16_700_000)) for _ in range(5)]),
)


@pytest.mark.parametrize(
    ("argument", "call"),
    [(argument, call) for argument, _, call in CASES],
    ids=[f"{argument}: {what}" for argument, what, _ in CASES],
)
async def test_app_14_18_19_read_01_07_08_all_06_refused(
    argument: str, call: Callable[[Client], Any]
) -> None:
    async with connected() as (client, link, _):

        async def use() -> None:
            await call(client)

        error = await outcome(use())
        assert isinstance(error, UsageError), error
        assert error.argument == argument
        assert str(error).startswith(argument)
        await link.nothing_more()
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping


@pytest.mark.parametrize("id", [UUID(int=0), "text", 7])
def test_app_19_ids_of_new_events(id: Any) -> None:
    with pytest.raises(UsageError) as caught:
        NewEvent("t", id=id)
    assert caught.value.argument == "id"


async def sent_by(link: Link, work: Any) -> dict[str, Any]:
    """The request that a call sends, answered."""
    call = soon(work)
    receiving = soon(link.receive())
    await asyncio.wait({call, receiving}, return_when=asyncio.FIRST_COMPLETED)
    if call.done():
        receiving.cancel()
        call.result()
    request = await receiving
    link.reply(request)
    await call
    return request.fields


async def test_size_02_largest_event() -> None:
    async with connected() as (client, link, _):
        fields = await sent_by(link, client.publish_event("s", "t", bytes(LIMIT - 2)))
        assert len(fields["events"][0]["data"]) == LIMIT - 2


async def test_extremes_that_are_allowed() -> None:
    async with connected() as (client, link, _):
        assert (await sent_by(link, client.get_event("s", MAX)))["event_number"] == MAX
        assert (await sent_by(link, client.get_event("s", -1)))["event_number"] == -1
        assert (await sent_by(link, client.get("s", max_count=4096)))["max_count"] == 4096
        for version in (MAX, 0, -1, -2, -4, *ExpectedVersion):
            fields = await sent_by(link, client.publish("s", [], version))
            assert fields["expected_version"] == version
            assert "events" not in fields
            fields = await sent_by(link, client.publish_event("s", "t", expected_version=version))
            assert fields["expected_version"] == version
        start: Any = Number()
        assert (await sent_by(link, client.get("s", from_event=start)))["from_event_number"] == 7


class Number:
    """As numpy's whole numbers are."""

    def __index__(self) -> int:
        return 7

    __int__ = __index__


async def test_correlation_id_in_use() -> None:
    async with connected() as (client, link, _):
        mine = uuid4()
        first = soon(client.get("s", correlation_id=mine))
        request = await link.expect("ReadStreamEventsForward")
        with pytest.raises(UsageError, match="correlation_id"):
            await client.get("s", correlation_id=mine)
        link.reply(request)
        await first


async def test_correlation_id_of_a_subscription() -> None:
    async with connected() as (client, link, _):
        mine = uuid4()
        connecting = soon(client.connect_subscription("g", "s", mine))
        request = await link.expect("ConnectToPersistentSubscription")
        link.reply(request, subscription_id="s::g", last_commit_position=7)
        async with await connecting as subscription:
            for call in (client.ping(mine), client.connect_subscription("h", "s", mine)):
                with pytest.raises(UsageError, match="correlation_id"):
                    await call
            assert subscription.conversation_id == mine
            link.send_raw(reply_to(request, "SubscriptionDropped"))
            assert [event async for event in subscription.events] == []


async def test_positional_arguments_of_photon_pump() -> None:
    event_id, correlation_id = uuid4(), uuid4()
    async with connected() as (client, link, _):
        fields = await sent_by(
            link, client.publish_event("s", "t", {"a": 1}, event_id, {"b": 2}, 7, True)
        )
        assert fields == {
            "event_stream_id": "s",
            "expected_version": 7,
            "require_leader": True,
            "events": [
                {
                    "event_id": event_id.bytes_le,
                    "event_type": "t",
                    "data_content_type": 1,
                    "metadata_content_type": 0,
                    "data": b'{"a":1}',
                    "metadata": b'{"b":2}',
                }
            ],
        }
        fields = await sent_by(link, client.get_event("s", 3, False, True, correlation_id))
        assert fields == {
            "event_stream_id": "s",
            "event_number": 3,
            "resolve_link_tos": False,
            "require_leader": True,
        }
        backward = StreamDirection.Backward
        fields = await sent_by(link, client.get("s", backward, 9, 5, False, True, correlation_id))
        assert fields == {
            "event_stream_id": "s",
            "from_event_number": 9,
            "max_count": 5,
            "resolve_link_tos": False,
            "require_leader": True,
        }
        fields = await sent_by(
            link, client.get_all(backward, Position(9, 8), 5, False, True, correlation_id)
        )
        assert fields == {
            "commit_position": 9,
            "prepare_position": 8,
            "max_count": 5,
            "resolve_link_tos": False,
            "require_leader": True,
        }


async def test_pp_06_pp_07_defaults() -> None:
    async with connected() as (client, link, _):
        fields = await sent_by(link, client.get("s"))
        assert (fields["from_event_number"], fields["max_count"]) == (0, 100)
        fields = await sent_by(link, client.get("s", StreamDirection.Backward))
        assert (fields["from_event_number"], fields["max_count"]) == (-1, 100)
        assert fields["resolve_link_tos"] is True
        assert fields["require_leader"] is False
        fields = await sent_by(link, client.get_all())
        assert (fields["commit_position"], fields["prepare_position"]) == (0, 0)
        fields = await sent_by(link, client.get_all(StreamDirection.Backward))
        assert (fields["commit_position"], fields["prepare_position"]) == (-1, -1)
        fields = await sent_by(link, client.publish_event("s", "t"))
        assert fields["expected_version"] == -2


BODIES: list[tuple[Any, bytes, bool]] = [
    (None, b"", False),
    (b"raw", b"raw", False),
    (b"", b"", False),
    (bytearray(b"raw"), b"raw", False),
    (memoryview(b"-raw-")[1:-1], b"raw", False),
    (Json(b'{"a": 1}'), b'{"a": 1}', True),
    ({"a": [1, None]}, b'{"a":[1,null]}', True),
    ([1, 2], b"[1,2]", True),
    ("text as it is", b"text as it is", True),
    ("\N{SNOWMAN}", b"\xe2\x98\x83", True),
    (0, b"0", True),
    (1.5, b"1.5", True),
    (False, b"false", True),
    (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"', True),
]


@pytest.mark.parametrize(("body", "data", "is_json"), BODIES)
async def test_pp_02_bodies(body: Any, data: bytes, is_json: bool) -> None:
    async with connected() as (client, link, _):
        for call in (
            client.publish_event("s", "t", body, metadata=body),
            client.publish("s", [NewEvent("t", data=body, metadata=body)]),
        ):
            (event,) = (await sent_by(link, call))["events"]
            assert event["data"] == data
            assert event["data_content_type"] == is_json
            # No metadata is not the same as empty metadata, though servers forget the difference.
            assert event.get("metadata") == (None if body is None else data)


async def test_pp_02_ids_are_made_where_none_is_given() -> None:
    async with connected() as (client, link, _):
        ids = set()
        for _ in range(3):
            fields = await sent_by(link, client.publish_event("s", "t"))
            ids.add(UUID(bytes_le=fields["events"][0]["event_id"]))
        assert len(ids) == 3
        assert {made.version for made in ids} == {4}


def three() -> list[fastpump.NewEventData]:
    return [NewEvent("t", data=n) for n in range(3)]


async def later() -> AsyncIterator[fastpump.NewEventData]:
    for event in three():
        yield event


def generator() -> Iterator[fastpump.NewEventData]:
    yield from three()


@pytest.mark.parametrize(
    "make",
    [three, lambda: tuple(three()), generator, lambda: map(tuple, three()), later],
    ids=["list", "tuple", "generator", "tuples", "asynchronous generator"],
)
async def test_pp_02_events_from_anywhere(make: Callable[[], Any]) -> None:
    async with connected() as (client, link, _):
        fields = await sent_by(link, client.publish("s", make()))
        assert [event["data"] for event in fields["events"]] == [b"0", b"1", b"2"]


async def test_errors_of_the_source_of_events_stay_what_they_are() -> None:
    def broken() -> Iterator[fastpump.NewEventData]:
        yield NewEvent("t")
        raise TypeError("a mistake of the program's own")

    async with connected() as (client, link, _):
        with pytest.raises(TypeError, match="of the program's own"):
            await client.publish("s", broken())
        await link.nothing_more()
