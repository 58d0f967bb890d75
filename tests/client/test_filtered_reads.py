"""Filtered reads: against the embedded node, and against a scripted server where it must err."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from client.embedded import client_of
from client.pages import record
from client.peer import Request, connected, outcome, reply_to, serving, soon

import fastpump
import fastpump.server
from fastpump import (
    AllStreamSlice,
    Beginning,
    Client,
    End,
    Filter,
    FilterContext,
    FilterKind,
    NewEvent,
    Position,
    StreamDirection,
)
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    PayloadUnreadable,
    ProtocolError,
    ReadError,
    UnexpectedCommand,
    UsageError,
)

FORWARD, BACKWARD = StreamDirection.Forward, StreamDirection.Backward
BOTH_WAYS = pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
ANYTHING = Filter.stream_prefix("s")
FILTERED = ("FilteredReadAllEventsForward", "FilteredReadAllEventsBackward")


@asynccontextmanager
async def admin() -> AsyncIterator[Client]:
    async with fastpump.server.run() as node:
        async with client_of(node) as client:
            yield client


async def write_twenty(client: Client) -> None:
    """Ten AEvents in stream-a and ten BEvents in stream-b, in turns."""
    for _ in range(10):
        for letter in "ab":
            await client.publish_event(f"stream-{letter}", f"{letter.upper()}Event")


def streams(events: Any) -> list[tuple[str, int]]:
    return [(event.stream, event.event_number) for event in events]


# --- filters ---


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Filter.stream_prefix(), "prefixes"),
        (lambda: Filter.event_type_prefix("a", ""), "prefixes"),
        (lambda: Filter.stream_prefix(b"a"), "prefixes"),  # type: ignore[arg-type]
        (lambda: Filter.stream_prefix("\ud800"), "prefixes"),
        (lambda: Filter.stream_regex(""), "pattern"),
        (lambda: Filter(FilterContext.StreamId, FilterKind.Regex, ("a", "b")), "pattern"),
        (lambda: Filter(FilterContext.StreamId, FilterKind.Prefix, "ab"), "data"),  # type: ignore[arg-type]
        (lambda: Filter.event_type_regex(None), "pattern"),  # type: ignore[arg-type]
    ],
)
def test_filt_04_filters_that_are_none(make: Any, argument: str) -> None:
    with pytest.raises(UsageError, match=argument):
        make()


def test_filters_can_be_compared_and_kept() -> None:
    wanted = Filter.stream_prefix("a", "b")
    assert wanted == Filter.stream_prefix("a", "b") != Filter.event_type_prefix("a", "b")
    assert len({wanted, Filter.stream_prefix("a", "b")}) == 1
    assert "'a', 'b'" in repr(wanted)


# --- pages ---


@pytest.mark.parametrize(
    ("wanted", "letter"),
    [
        (Filter.stream_prefix("stream-a"), "a"),
        (Filter.event_type_prefix("AE"), "a"),
        (Filter.stream_regex("^.*m-b.*$"), "b"),
        (Filter.event_type_regex("^.*BEv.*$"), "b"),
    ],
)
async def test_filt_01_both_ways(wanted: Filter, letter: str) -> None:
    async with admin() as client:
        await write_twenty(client)
        expected = [(f"stream-{letter}", number) for number in range(10)]
        page = await client.get_all(max_count=4096, filter=wanted)
        assert streams(page) == expected
        assert (page.is_end_of_stream, page.direction) == (True, FORWARD)
        back = await client.get_all(BACKWARD, max_count=4096, filter=wanted)
        assert streams(back) == expected[::-1]
        assert back.is_end_of_stream
        for direction in (FORWARD, BACKWARD):
            events = client.iter_all(direction, batch_size=3, filter=wanted)
            assert streams([event async for event in events]) == expected[:: 1 - 2 * direction]


async def test_filt_02_without_system_events() -> None:
    async with admin() as client:
        await write_twenty(client)
        page = await client.get_all(max_count=4096, filter=Filter.exclude_system_events())
        assert len(page) == 20
        assert not any(event.type.startswith("$") for event in page)


async def test_filt_03_two_prefixes() -> None:
    async with admin() as client:
        await write_twenty(client)
        await client.publish_event("other", "t")
        page = await client.get_all(filter=Filter.stream_prefix("stream-a", "stream-b"))
        assert len(page) == 20


@pytest.mark.parametrize(("options", "window"), [({}, 7), ({"max_search_window": 900}, 900)])
@BOTH_WAYS
async def test_filt_04_what_is_sent(
    options: dict[str, int], window: int, direction: StreamDirection
) -> None:
    wanted = Filter.event_type_regex("^A")
    async with connected() as (client, link, _):
        reading = soon(client.get_all(direction, Position(5, 4), 7, filter=wanted, **options))
        request = await link.expect(FILTERED[direction])
        link.reply(request, is_end_of_stream=True)
        assert (await reading).is_end_of_stream
        assert request.fields == {
            "commit_position": 5,
            "prepare_position": 4,
            "max_count": 7,
            "max_search_window": window,
            "resolve_link_tos": True,
            "require_leader": False,
            "filter": {"context": 1, "type": 0, "data": ["^A"]},
        }


@BOTH_WAYS
async def test_filt_05_far_apart(direction: StreamDirection) -> None:
    async with admin() as client:
        for name, count in (("AE", 10), ("BE", 10_000), ("CE", 10)):
            await client.publish("s", [NewEvent(name, data=b"") for _ in range(count)])
        wanted = Filter.event_type_prefix("AE" if direction else "CE")
        where: dict[str, Any] = {"filter": wanted, "max_search_window": 100}
        pages: list[AllStreamSlice] = []
        while not (pages and (pages[-1].is_end_of_stream or len(pages[-1]))):
            start = pages[-1].next_position if pages else None
            pages.append(await client.get_all(direction, start, 50, **where))
        assert [len(page) for page in pages] == [0] * 100 + [10]
        assert not any(page.is_end_of_stream for page in pages[:-1])
        given = [page async for page in client.iter_all_slices(direction, None, 50, **where)]
        assert [list(page) for page in given[:101]] == [list(page) for page in pages]
        assert [page.is_end_of_stream for page in given] == [False] * (len(given) - 1) + [True]
        events = [event async for event in client.iter_all(direction, None, 50, **where)]
        assert events == list(pages[-1])


async def test_filt_05_going_on_behind_an_empty_page() -> None:
    async with admin() as client:
        await write_twenty(client)
        wanted = Filter.event_type_prefix("BE")
        seen: list[tuple[str, int]] = []
        position: Any = Beginning
        for _ in range(40):
            pages = client.iter_all_slices(FORWARD, position, 1, filter=wanted)
            async for page in pages:
                seen += streams(page)
                position = page.next_position
                break
            await pages.aclose()
        assert seen == [("stream-b", number) for number in range(10)]


async def test_filt_06_count_and_window() -> None:
    async with admin() as client:
        await write_twenty(client)
        log = [event async for event in client.iter_all()]
        wanted = Filter.event_type_prefix("BE")
        page = await client.get_all(FORWARD, Beginning, 20, filter=wanted)
        assert 0 < len(page) < 10
        assert not page.is_end_of_stream
        assert log[19].position < page.next_position <= log[20].position  # type: ignore[operator]


@BOTH_WAYS
async def test_filt_07_no_right(direction: StreamDirection) -> None:
    async with fastpump.server.run() as node, fastpump.connect(node.host, node.port) as client:
        calls = [
            client.get_all(direction, filter=ANYTHING),
            anext(client.iter_all(direction, filter=ANYTHING)),
        ]
        for call in calls:
            assert isinstance(await outcome(call), AccessDenied)
        assert await client.ping() > 0


@pytest.mark.parametrize("pattern", ["(", "[a"])
async def test_pattern_that_is_none(pattern: str) -> None:
    async with admin() as client:
        with pytest.raises(BadRequest, match="NET"):
            await client.get_all(filter=Filter.stream_regex(pattern))
        assert await client.ping() > 0


# --- replies ---


@BOTH_WAYS
@pytest.mark.parametrize(("result", "kind"), [(1, ReadError), (2, ReadError), (3, AccessDenied)])
@pytest.mark.parametrize("as_unfiltered", [True, False])
async def test_filt_07_refused(
    direction: StreamDirection, result: int, kind: type[Exception], as_unfiltered: bool
) -> None:
    async with connected() as (client, link, _):
        reading = soon(client.get_all(direction, filter=ANYTHING))
        request = await link.expect(FILTERED[direction])
        unfiltered = FILTERED[direction].removeprefix("Filtered") + "Completed"
        link.reply(request, unfiltered if as_unfiltered else None, result=result, error="no")
        error = await outcome(reading)
        assert type(error) is kind
        if kind is ReadError:
            assert error.error == "no"  # type: ignore[union-attr]


@BOTH_WAYS
async def test_unfiltered_page_is_no_reply_to_a_filtered_read(direction: StreamDirection) -> None:
    async with connected() as (client, link, _):
        for command in ("ReadAllEventsForwardCompleted", "ReadAllEventsBackwardCompleted"):
            reading = soon(client.get_all(direction, filter=ANYTHING))
            event = {"event": record("s", 1), "commit_position": 1, "prepare_position": 1}
            link.reply(await link.expect(FILTERED[direction]), command, events=[event])
            assert isinstance(await outcome(reading), UnexpectedCommand)


@pytest.mark.parametrize("unfiltered", [True, False])
async def test_unreadable(unfiltered: bool) -> None:
    async with connected() as (client, link, peer):
        reading = soon(client.get_all(filter=ANYTHING))
        request = await link.expect(FILTERED[0])
        name = "ReadAllEventsForwardCompleted" if unfiltered else FILTERED[0] + "Completed"
        link.send(name, request.id, b"\x1a\xff")
        assert isinstance(await outcome(reading), PayloadUnreadable)
        await peer.accept_and_greet()


@BOTH_WAYS
async def test_filt_12_server_that_does_not_know_filters(direction: StreamDirection) -> None:
    async with connected() as (client, link, _):
        reading = soon(client.get_all(direction, filter=ANYTHING))
        link.refuse(await link.expect(FILTERED[direction]), "BadRequest", "Unknown command.")
        error = await outcome(reading)
        assert isinstance(error, BadRequest)
        assert "Unknown command. (filters need a server of version 20" in str(error)
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping


# --- pages ahead ---


def empty_pages(request: Request) -> bytes:
    """Pages of ten positions up to 100, none with an event."""
    position = request.fields["commit_position"]
    is_forward = request.command == FILTERED[0]
    following = position + 10 if is_forward else (110 if position < 0 else position) - 10
    return reply_to(
        request,
        commit_position=position,
        prepare_position=position,
        next_commit_position=following,
        next_prepare_position=following,
        is_end_of_stream=following == (100 if is_forward else 0),
    )


@BOTH_WAYS
async def test_empty_pages_are_given_out_and_gone_over(direction: StreamDirection) -> None:
    start = End if direction else Beginning
    async with connected() as (client, link, _), serving(link, empty_pages) as requests:
        pages = client.iter_all_slices(direction, start, 10, filter=ANYTHING)
        found = [page.next_position.commit async for page in pages]
        assert len(requests) == len(found)
        assert found == (list(range(100, -1, -10)) if direction else list(range(10, 101, 10)))
        assert [event async for event in client.iter_all(direction, start, filter=ANYTHING)] == []


@pytest.mark.parametrize(("direction", "following"), [(FORWARD, 5), (BACKWARD, 5), (BACKWARD, 6)])
async def test_empty_page_that_does_not_advance(direction: StreamDirection, following: int) -> None:
    def answer(request: Request) -> bytes:
        return reply_to(request, next_commit_position=following, next_prepare_position=following)

    async with connected() as (client, link, _), serving(link, answer) as requests:
        events = client.iter_all(direction, Position(5, 5), filter=ANYTHING)
        assert isinstance(await outcome(anext(events)), ProtocolError)
        assert len(requests) == 1


async def test_cut_between_filtered_pages() -> None:
    async with fastpump.server.run() as node:
        async with client_of(node) as client:
            await write_twenty(client)
            seen = []
            pages = client.iter_all_slices(batch_size=2, filter=Filter.stream_prefix("stream-b"))
            async for page in pages:
                seen += streams(page)
                node.faults.disconnect()
            assert seen == [("stream-b", number) for number in range(10)]
