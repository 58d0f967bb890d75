"""Reading page after page: what is asked for and when, and what comes out."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest
from client.pages import Fields, all_page, events_of, record, stream_page
from client.peer import Request, connected, eventually, outcome, reply_to, serving, soon

import fastpump
from fastpump import Beginning, End, Position, StreamDirection
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    ProtocolError,
    ReadError,
    StreamDeleted,
    StreamNotFound,
    UsageError,
)

FORWARD, BACKWARD = StreamDirection.Forward, StreamDirection.Backward
READ = {FORWARD: "ReadStreamEventsForward", BACKWARD: "ReadStreamEventsBackward"}


def starts(requests: list[Request]) -> list[int]:
    return [request.fields["from_event_number"] for request in requests]


async def read_into(seen: list[int], iterator: AsyncGenerator[fastpump.Event, None]) -> None:
    async for event in iterator:
        seen.append(event.event_number)  # it stays filled when an error comes


async def next_number(iterator: AsyncIterator[fastpump.Event]) -> int:
    return (await anext(iterator)).event_number


async def numbers(iterator: AsyncGenerator[fastpump.Event, None]) -> list[int]:
    return [event.event_number async for event in iterator]


# --- what comes out ---


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 6, 4096])
@pytest.mark.parametrize(
    ("direction", "start", "expected"),
    [
        (FORWARD, None, [0, 1, 2, 3, 4]),
        (FORWARD, 0, [0, 1, 2, 3, 4]),
        (FORWARD, 2, [2, 3, 4]),
        (FORWARD, 4, [4]),
        (FORWARD, 9, []),
        (BACKWARD, None, [4, 3, 2, 1, 0]),
        (BACKWARD, -1, [4, 3, 2, 1, 0]),
        (BACKWARD, 2, [2, 1, 0]),
        (BACKWARD, 0, [0]),
        (BACKWARD, 100, [4, 3, 2, 1, 0]),
    ],
)
async def test_pp_08_each_event_once_in_order(
    batch: int, direction: StreamDirection, start: int | None, expected: list[int]
) -> None:
    events = events_of("s", 5)
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events)),
    ):
        assert await numbers(client.iter("s", direction, start, batch)) == expected
        pages = [page async for page in client.iter_slices("s", direction, start, batch)]
        assert [event.event_number for page in pages for event in page] == expected
        assert all(0 < len(page) <= batch for page in pages)


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
async def test_pp_10_log_in_both_directions(batch: int) -> None:
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: all_page(request, 7)) as requests,
    ):
        forward = [event async for event in client.iter_all(batch_size=batch)]
        assert [event.event_number for event in forward] == list(range(7))
        assert [event.position for event in forward] == [Position(n + 1, n + 1) for n in range(7)]
        assert await numbers(client.iter_all(BACKWARD, batch_size=batch)) == list(range(7))[::-1]
        assert await numbers(client.iter_all(from_position=Position(4, 4))) == [3, 4, 5, 6]
        assert await numbers(client.iter_all(BACKWARD, Position(4, 4))) == [2, 1, 0]
        assert await numbers(client.iter_all(from_position=End)) == []
        assert await numbers(client.iter_all(BACKWARD, Beginning)) == []
        assert {request.fields["max_count"] for request in requests} <= {batch, 100}


async def test_from_event_0_backwards_asks_for_event_0() -> None:
    events = events_of("s", 5)
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events)) as requests,
    ):
        assert await numbers(client.iter("s", BACKWARD, from_event=0)) == [0]
        assert [event.event_number for event in await client.get("s", BACKWARD, 0)] == [0]
        assert starts(requests) == [0, 0]


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
async def test_short_and_empty_pages_are_not_the_end(direction: StreamDirection) -> None:
    # $maxCount hides the first 37 of 40 events; a page of hidden ones is empty and not the last.
    events = events_of("s", 40)
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events, first=37)),
    ):
        expected = [37, 38, 39][:: 1 if direction == FORWARD else -1]
        assert await numbers(client.iter("s", direction, batch_size=5)) == expected
        assert await numbers(client.iter("s", direction, batch_size=2)) == expected
        pages = [page async for page in client.iter_slices("s", direction, batch_size=5)]
        assert all(len(page) for page in pages)


async def test_empty_pages_in_the_middle() -> None:
    # $maxAge of version 5: a filter on the page, numbers go on as if nothing was missing.
    events = events_of("s", 12)

    def thinned(request: Request) -> bytes:
        start, count = request.fields["from_event_number"], request.fields["max_count"]
        chosen = [e for e in events[start : start + count] if e["event"]["event_number"] % 6 == 5]
        end = start + count - 1
        return reply_to(
            request,
            events=chosen,
            next_event_number=min(end, 11) + 1,
            last_event_number=11,
            is_end_of_stream=end >= 11,
        )

    async with connected() as (client, link, _), serving(link, thinned):
        assert await numbers(client.iter("s", batch_size=2)) == [5, 11]


def short_page(request: Request, events: list[Fields]) -> bytes:
    """Fewer events than were asked for: what was asked for ahead is then of no use."""
    start, end = request.fields["from_event_number"], len(events)
    return reply_to(
        request,
        events=events[start : start + 3],
        next_event_number=min(start + 3, end),
        last_event_number=end - 1,
        is_end_of_stream=start + 3 >= end,
    )


async def test_pages_that_end_elsewhere_than_predicted() -> None:
    events = events_of("s", 20)
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: short_page(request, events)),
    ):
        assert await numbers(client.iter("s", batch_size=5)) == list(range(20))


# --- what is asked for ---


async def test_pages_are_asked_for_ahead_but_not_beyond_the_last_event() -> None:
    events = events_of("s", 25)
    async with connected() as (client, link, _):
        reading = soon(numbers(client.iter("s", batch_size=5)))
        first = await link.expect("ReadStreamEventsForward")
        await link.nothing_more()  # how long the stream is, only the first page tells
        link.send_raw(stream_page(first, events))
        requests = [await link.expect("ReadStreamEventsForward") for _ in range(4)]
        assert starts(requests) == [5, 10, 15, 20]
        await link.nothing_more()
        for request in requests:
            link.send_raw(stream_page(request, events))
        assert await reading == list(range(25))
        await link.nothing_more()


async def test_pages_arriving_in_another_order() -> None:
    events = events_of("s", 25)
    async with connected() as (client, link, _):
        reading = soon(numbers(client.iter("s", batch_size=5)))
        link.send_raw(stream_page(await link.expect("ReadStreamEventsForward"), events))
        requests = [await link.expect("ReadStreamEventsForward") for _ in range(4)]
        for request in reversed(requests):
            link.send_raw(stream_page(request, events))
        assert await reading == list(range(25))


async def test_window_is_bounded_in_pages() -> None:
    events = events_of("s", 1000, bytes(40_000))
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events)) as requests,
        aclosing(client.iter_slices("s", batch_size=10)) as pages,
    ):
        # One page taken, and a window of four asked for or here; so it is behind 10 MB, too.
        for taken in range(1, 26):
            await pages.__anext__()
            if taken <= 3 or taken == 25:
                await eventually(lambda expected=taken + 4: len(requests) >= expected)
                await quiet(requests)
                assert len(requests) == taken + 4


async def test_window_is_bounded_in_bytes() -> None:
    events = events_of("s", 1000, bytes(6_000_000))
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events)) as requests,
        aclosing(client.iter_slices("s", batch_size=2)) as pages,
    ):
        # A page of 12 MB fills the window of 8 MiB: one is ahead of the consumer, no more.
        for taken in range(1, 4):
            await pages.__anext__()
            await eventually(lambda expected=taken + 1: len(requests) >= expected)
            await quiet(requests)
            assert starts(requests) == [2 * n for n in range(taken + 1)]


async def test_pages_that_were_dropped_take_no_room_in_the_window() -> None:
    events = events_of("s", 100, bytes(500_000))
    async with (
        connected() as (client, link, _),
        aclosing(client.iter_slices("s", batch_size=5)) as pages,
    ):
        taking = soon(pages.__anext__())
        link.send_raw(short_page(await link.expect("ReadStreamEventsForward"), events))
        assert len(await taking) == 3
        for start in range(3, 15, 3):  # those dropped would take 4.5 MB of 8 MiB each time
            requests = [await link.expect("ReadStreamEventsForward") for _ in range(4)]
            assert starts(requests) == [start, start + 5, start + 10, start + 15]
            link.send_raw(short_page(requests[0], events))
            await pages.__anext__()


async def test_a_full_connection_is_asked_for_what_is_needed_only() -> None:
    events = events_of("s", 10)
    async with connected(max_in_flight=1) as (client, link, _):
        reading = soon(numbers(client.iter("s", batch_size=2)))
        for _ in range(5):
            request = await link.expect("ReadStreamEventsForward")
            await link.nothing_more()
            link.send_raw(stream_page(request, events))
        assert await reading == list(range(10))


async def quiet(requests: list[Request]) -> None:
    """Wait until no request has come for a while."""
    seen = -1
    while seen != len(requests):
        seen = len(requests)
        await asyncio.sleep(0.03)


async def test_log_asks_for_the_next_page_when_one_arrives() -> None:
    async with (
        connected() as (client, link, _),
        aclosing(client.iter_all_slices(batch_size=5)) as pages,
    ):
        taking = soon(pages.__anext__())
        link.send_raw(all_page(await link.expect("ReadAllEventsForward"), 12))
        request = await link.expect("ReadAllEventsForward")
        assert request.fields["commit_position"] == 6
        await taking
        link.send_raw(all_page(request, 12))
        # Nobody has come for the page yet that this one was asked for behind.
        request = await link.expect("ReadAllEventsForward")
        assert request.fields["commit_position"] == 11


@pytest.mark.parametrize("log", [False, True])
async def test_pp_09_leaving_early_asks_for_nothing_more(log: bool) -> None:
    events = events_of("s", 1000)

    def page(request: Request) -> bytes:
        return all_page(request, 1000) if log else stream_page(request, events)

    async with connected() as (client, link, _), serving(link, page) as requests:
        async for _ in client.iter_all(batch_size=10) if log else client.iter("s", batch_size=10):
            break
        await quiet(requests)
        assert len(requests) <= 5, "one page was taken, the window of four may be under way"


async def test_pp_09_page_that_arrives_after_leaving() -> None:
    async with connected() as (client, link, _):

        async def take_one() -> None:
            async for _ in client.iter_all(batch_size=5):
                break

        taking = soon(take_one())
        link.send_raw(all_page(await link.expect("ReadAllEventsForward"), 100))
        request = await link.expect("ReadAllEventsForward")
        await taking
        await quiet([])  # the generator is closed by a task of the loop
        link.send_raw(all_page(request, 100))
        await link.nothing_more()


async def test_arguments_travel() -> None:
    events = events_of("s", 5)

    def page(request: Request) -> bytes:
        return all_page(request, 5) if "All" in request.command else stream_page(request, events)

    async with connected() as (client, link, _), serving(link, page) as requests:
        await numbers(client.iter("s", resolve_links=False, require_master=True))
        await numbers(client.iter("s"))
        await numbers(client.iter_all(resolve_links=False, require_master=True, batch_size=9))
        flags = [
            (r.fields["resolve_link_tos"], r.fields["require_leader"], r.fields["max_count"])
            for r in requests
        ]
        assert flags[:2] == [(False, True, 100), (True, False, 100)]
        assert set(flags[2:]) == {(False, True, 9)}


# --- in the middle of it ---


async def test_awaiting_another_operation_inside() -> None:
    # photon-pump: a full page in its queue, and the answer waited for ever behind it.
    events = events_of("s", 30)

    def answer(request: Request) -> bytes:
        if request.command.startswith("ReadStream"):
            return stream_page(request, events)
        return reply_to(request)

    async with connected() as (client, link, _), serving(link, answer):
        count = 0
        async for _ in client.iter("s", batch_size=5):
            await client.publish_event("copy", "t")
            await client.ping()
            count += 1
        assert count == 30


async def test_two_at_once_on_one_connection() -> None:
    events = events_of("s", 50)
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: stream_page(request, events)),
    ):
        both = await asyncio.gather(
            numbers(client.iter("s", batch_size=3)), numbers(client.iter("s", BACKWARD, None, 7))
        )
        assert both == [list(range(50)), list(range(50))[::-1]]


@pytest.mark.parametrize(
    ("result", "kind"), [(1, StreamNotFound), (2, StreamDeleted), (4, ReadError), (5, AccessDenied)]
)
async def test_pp_09_error_at_the_first_step(result: int, kind: type[Exception]) -> None:
    async with (
        connected() as (client, link, _),
        serving(link, lambda request: reply_to(request, result=result, next_event_number=-1)),
    ):
        iterator = client.iter("s")
        with pytest.raises(kind):
            await iterator.__anext__()
        with pytest.raises(StopAsyncIteration):
            await iterator.__anext__()


async def test_pp_09_error_on_a_later_page_comes_after_the_earlier_events() -> None:
    events = events_of("s", 30)

    def answer(request: Request) -> bytes:
        if request.fields["from_event_number"] >= 10:
            return reply_to(request, result=4, error="disk on fire", next_event_number=-1)
        return stream_page(request, events)

    async with connected() as (client, link, _), serving(link, answer):
        seen: list[int] = []
        error = await outcome(read_into(seen, client.iter("s", batch_size=5)))
        assert isinstance(error, ReadError)
        assert seen == list(range(10))


async def test_error_that_overtakes_the_pages_before_it() -> None:
    events = events_of("s", 20)
    async with connected() as (client, link, _):
        seen: list[int] = []
        reading = soon(read_into(seen, client.iter("s", batch_size=5)))
        link.send_raw(stream_page(await link.expect("ReadStreamEventsForward"), events))
        second, third, fourth = [await link.expect("ReadStreamEventsForward") for _ in range(3)]
        link.reply(third, result=4, error="disk on fire")
        link.send_raw(stream_page(fourth, events))
        await link.nothing_more()
        assert not reading.done()
        link.send_raw(stream_page(second, events))
        assert isinstance(await outcome(reading), ReadError)
        assert seen == list(range(10))


async def test_closed_in_the_middle() -> None:
    events = events_of("s", 20)
    async with connected() as (client, link, _):
        seen: list[int] = []
        reading = soon(read_into(seen, client.iter("s", batch_size=5)))
        link.send_raw(stream_page(await link.expect("ReadStreamEventsForward"), events))
        await link.expect("ReadStreamEventsForward")
        await client.close()
        assert isinstance(await outcome(reading), ClientClosed)
        assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("log", [False, True])
async def test_wait_that_is_cancelled_can_be_repeated(log: bool) -> None:
    events = events_of("s", 40)
    async with connected() as (client, link, _):
        answer = (lambda r: all_page(r, 40)) if log else (lambda r: stream_page(r, events))
        async with serving(link, answer):
            rest = client.iter_all(batch_size=3) if log else client.iter("s", batch_size=3)
            seen: list[int] = []
            for turns in itertools.cycle(range(7)):
                waiting = soon(next_number(rest))
                for _ in range(turns):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait({waiting})
                if not waiting.cancelled():
                    seen.append(waiting.result())
                if len(seen) == 40:
                    break
            assert seen == list(range(40))
            assert [event async for event in rest] == []


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
@pytest.mark.parametrize("cut_at", [0, 1, 2, 5])
async def test_pp_11_cut_between_pages(direction: StreamDirection, cut_at: int) -> None:
    events = events_of("s", 40)
    async with connected() as (client, link, peer):
        reading = soon(numbers(client.iter("s", direction, batch_size=5)))
        for _ in range(cut_at):
            link.send_raw(stream_page(await link.expect(READ[direction]), events))
        await link.expect(READ[direction])
        await link.cut()
        link = await peer.accept_and_greet()
        async with serving(link, lambda request: stream_page(request, events)):
            assert await reading == list(range(40))[:: 1 if direction == FORWARD else -1]


async def test_pp_11_cut_on_every_page() -> None:
    events = events_of("s", 20)
    async with connected(max_attempts=100) as (client, link, peer):
        reading = soon(numbers(client.iter("s", from_event=3, batch_size=2)))
        while not reading.done():
            receiving = soon(link.receive())
            await asyncio.wait({reading, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                receiving.cancel()
                break
            link.send_raw(stream_page(await receiving, events))
            await link.cut()
            link = await peer.accept_and_greet()
        assert await reading == list(range(3, 20))


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD])
async def test_pp_11_cut_between_pages_of_the_log(direction: StreamDirection) -> None:
    command = "ReadAllEventsForward" if direction == FORWARD else "ReadAllEventsBackward"
    async with connected() as (client, link, peer):
        reading = soon(numbers(client.iter_all(direction, batch_size=5)))
        for _ in range(3):
            link.send_raw(all_page(await link.expect(command), 40))
            await link.expect(command)
            await link.cut()
            link = await peer.accept_and_greet()
        async with serving(link, lambda request: all_page(request, 40)):
            assert await reading == list(range(40))[:: 1 if direction == FORWARD else -1]


# --- servers that lead nowhere ---


@pytest.mark.parametrize(
    ("direction", "start", "following"),
    [
        (FORWARD, 5, 5),
        (FORWARD, 5, 4),
        (FORWARD, 5, -1),
        (BACKWARD, 5, 5),
        (BACKWARD, 5, 6),
        (BACKWARD, 5, -1),
        (BACKWARD, -1, -1),
    ],
)
async def test_page_that_does_not_advance(
    direction: StreamDirection, start: int, following: int
) -> None:
    def answer(request: Request) -> bytes:
        return reply_to(
            request,
            events=[{"event": record("s", 5)}],
            next_event_number=following,
            last_event_number=100,
            is_end_of_stream=False,
        )

    async with connected() as (client, link, _), serving(link, answer) as requests:
        with pytest.raises(ProtocolError, match=f"does not lead on: {following}"):
            await numbers(client.iter("s", direction, start, 10))
        assert len(requests) <= 4


@pytest.mark.parametrize(
    ("direction", "following"), [(FORWARD, 5), (FORWARD, 4), (BACKWARD, 5), (BACKWARD, 6)]
)
async def test_log_page_that_does_not_advance(direction: StreamDirection, following: int) -> None:
    def answer(request: Request) -> bytes:
        event = {"event": record("s", 5), "commit_position": 5, "prepare_position": 5}
        return reply_to(
            request,
            events=[event],
            next_commit_position=following,
            next_prepare_position=following,
        )

    async with connected() as (client, link, _), serving(link, answer) as requests:
        with pytest.raises(ProtocolError, match="does not lead on"):
            await numbers(client.iter_all(direction, Position(5, 5)))
        assert len(requests) == 1


async def test_taken_in_another_way() -> None:
    async with connected() as (client, _, _):
        with pytest.raises(RuntimeError, match="async for"):
            for _ in client.iter("s"):  # type: ignore[attr-defined]
                pass
        with pytest.raises(RuntimeError, match="async for"):
            await client.iter("s")


async def test_wrong_arguments() -> None:
    async with connected() as (client, link, _):
        for arguments in (
            {"batch_size": 0},
            {"batch_size": 4097},
            {"from_event": -1},
            {"direction": 7},
        ):
            with pytest.raises(UsageError, match=next(iter(arguments))):
                await numbers(client.iter("s", **arguments))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="stream"):
            await numbers(client.iter(""))
        with pytest.raises(UsageError, match="batch_size"):
            await numbers(client.iter_all(batch_size=0))
        await link.nothing_more()
