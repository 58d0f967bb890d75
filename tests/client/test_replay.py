"""Many streams, and ranges of the log, over several connections."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from acceptance.scenes import connect
from client.pages import events_of, stream_page
from client.peer import Link, Peer, Request, eventually, outcome, reply_to, serving, soon
from client.proxy import CuttingProxy

import fastpump
import fastpump.server
from fastpump import LogRange, NewEvent, Position, Replay, StreamSlice
from fastpump._read_ahead import WINDOW_PAGES
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    ReadError,
    ReplayFailed,
    StreamDeleted,
    StreamNotFound,
    UsageError,
)
from fastpump.replay import CHUNK_SIZE, Pages

STREAMS = {f"stream-{number}": number * 7 % 60 + 1 for number in range(40)}
"""How many events each has."""

ANYWHERE = 1
"""The chunk size of a node that may be read from any position."""

Content = dict[str, list[tuple[int, Any]]]


@asynccontextmanager
async def filled_node() -> AsyncIterator[tuple[fastpump.server.Node, Content]]:
    """A node with the events of all streams mixed in its log, and what they are."""
    expected: Content = defaultdict(list)
    async with fastpump.server.run() as node:
        async with connect(node) as client, client.publisher(max_batch_events=3) as publisher:
            for number in range(max(STREAMS.values())):
                for stream, count in STREAMS.items():
                    if number < count:
                        body = {"of": stream, "n": number}
                        await publisher.send(stream, NewEvent("t", data=body))
                        expected[stream].append((number, body))
        yield node, expected


async def contents(pages: Pages[StreamSlice]) -> Content:
    """What was read, by stream, in the order in which it came."""
    found: Content = defaultdict(list)
    async for page in pages:
        found[page.stream] += [(event.event_number, event.json()) for event in page]
    return found


async def log_of(replay: Replay, ranges: list[LogRange], batch_size: int) -> list[Position | None]:
    """The positions in the ranges, one range behind the other."""
    found: dict[LogRange, list[Position | None]] = {part: [] for part in ranges}
    async for page in replay.log(ranges, batch_size=batch_size):
        found[page.range] += [event.position for event in page.events]
    return [position for part in ranges for position in found[part]]


# --- streams ---


@pytest.mark.parametrize("connections", [1, 2, 4])
async def test_every_stream_is_complete_and_in_order(connections: int) -> None:
    async with filled_node() as (node, expected):
        async with Replay(partial(connect, node), connections) as replay:
            for at_once, batch_size in ((1, 500), (3, 7), (50, 1)):
                pages = replay.streams(STREAMS.keys(), at_once=at_once, batch_size=batch_size)
                assert await contents(pages) == expected
                assert pages.finished == len(STREAMS)
            assert await contents(replay.streams(iter(()))) == {}


async def test_a_mapping_says_where_each_stream_starts() -> None:
    async with filled_node() as (node, expected):
        async with Replay(partial(connect, node), 2) as replay:
            starts = {stream: count // 2 for stream, count in STREAMS.items()}
            found = await contents(replay.streams(starts, batch_size=4))
            assert found == {name: expected[name][start:] for name, start in starts.items()}


async def test_a_stream_that_cannot_be_read_holds_up_no_other() -> None:
    async with filled_node() as (node, expected):
        async with connect(node) as client:
            await client.delete_stream("stream-5", hard=True)
        del expected["stream-5"]
        names = ["missing", *STREAMS, "", "gone"]
        async with Replay(partial(connect, node), 2) as replay:
            found: Content = defaultdict(list)
            pages = replay.streams(names, batch_size=10)
            with pytest.raises(ReplayFailed, match="4 streams could not be read") as caught:
                async for page in pages:
                    found[page.stream] += [(event.event_number, event.json()) for event in page]
            assert found == expected
            assert pages.finished == len(names)
            failures = {name: type(error) for name, error in caught.value.failures.items()}
            assert failures == {
                "missing": StreamNotFound,
                "stream-5": StreamDeleted,
                "": UsageError,
                "gone": StreamNotFound,
            }
            assert [page async for page in pages] == []


async def test_connections_cut_in_the_middle_repeat_and_lose_nothing() -> None:
    async with filled_node() as (node, expected):
        async with CuttingProxy(node.host, node.port) as proxy:
            async with Replay(partial(connect, proxy, max_attempts=-1), 3) as replay:
                found: Content = defaultdict(list)
                taken = 0
                async for page in replay.streams(STREAMS.keys(), at_once=4, batch_size=2):
                    found[page.stream] += [(event.event_number, event.json()) for event in page]
                    taken += 1
                    if taken % 40 == 0:
                        proxy.cut()
                assert proxy.cuts > 3
                assert found == expected


# --- the log ---


@pytest.mark.parametrize("connections", [1, 2, 4])
async def test_ranges_one_behind_the_other_are_the_log(connections: int) -> None:
    async with filled_node() as (node, _), connect(node) as client:
        expected = [event.position async for event in client.iter_all()]
        async with Replay(partial(connect, node), connections) as replay:
            for count, batch_size in ((1, 500), (2, 500), (3, 13), (9, 50)):
                ranges = await replay.ranges(count, chunk_size=ANYWHERE)
                assert len(ranges) == count
                assert await log_of(replay, ranges, batch_size) == expected
            middle = expected[len(expected) // 2]
            assert middle is not None
            ranges = await replay.ranges(4, from_position=middle, chunk_size=ANYWHERE)
            assert len(ranges) == 4
            assert await log_of(replay, ranges, 20) == expected[len(expected) // 2 :]


async def test_pages_of_a_range_are_in_order_and_say_where_it_goes_on() -> None:
    async with filled_node() as (node, _), connect(node) as client:
        async with Replay(partial(connect, node), 2) as replay:
            ranges = await replay.ranges(3, chunk_size=ANYWHERE)
            last: dict[LogRange, fastpump.LogPage] = {}
            async for page in replay.log(ranges, batch_size=20):
                assert page.range not in last or not last[page.range].is_last
                assert all(event.position < page.next_position for event in page.events)
                before = last.get(page.range)
                start = page.range.start if before is None else before.next_position
                assert all(event.position >= start for event in page.events)
                last[page.range] = page
            assert all(last[part].is_last for part in ranges)
            assert [last[part].next_position for part in ranges[:-1]] == [
                part.start for part in ranges[1:]
            ]
            ended = last[ranges[-1]].next_position
            assert not await client.get_all(from_position=ended, max_count=10)


async def test_the_log_over_connections_that_are_cut() -> None:
    async with filled_node() as (node, _), connect(node) as client:
        expected = [event.position async for event in client.iter_all()]
        async with CuttingProxy(node.host, node.port) as proxy:
            async with Replay(partial(connect, proxy, max_attempts=-1), 2) as replay:
                ranges = await replay.ranges(4, chunk_size=ANYWHERE)
                found: dict[LogRange, list[Position | None]] = defaultdict(list)
                taken = 0
                async for page in replay.log(ranges, batch_size=10):
                    found[page.range] += [event.position for event in page.events]
                    taken += 1
                    if taken % 30 == 0:
                        proxy.cut()
                assert proxy.cuts > 2
        assert [position for part in ranges for position in found[part]] == expected


async def test_a_filter_holds_in_every_range() -> None:
    async with filled_node() as (node, expected):
        async with Replay(partial(connect, node), 2) as replay:
            ranges = await replay.ranges(4, chunk_size=ANYWHERE)
            wanted = fastpump.Filter.stream_prefix("stream-7", "stream-1")
            found: dict[LogRange, Content] = {part: defaultdict(list) for part in ranges}
            async for page in replay.log(ranges, filter=wanted, batch_size=10):
                for event in page.events:
                    found[page.range][event.stream].append((event.event_number, event.json()))
        names = [name for name in STREAMS if name.startswith(("stream-7", "stream-1"))]
        assert {
            name: [item for part in ranges for item in found[part].get(name, [])] for name in names
        } == {name: expected[name] for name in names}


# --- where the log may be divided ---


def log_in_files(length: int, readable: Callable[[int], bool]) -> Callable[[Request], bytes | None]:
    """Answers reads of one event of a log; Error where the server does not read from."""

    def answer(request: Request) -> bytes | None:
        asked = request.fields["commit_position"]
        if request.command == "ReadAllEventsBackward":
            return reply_to(
                request,
                commit_position=length,
                prepare_position=length,
                next_commit_position=length,
                next_prepare_position=length,
            )
        if not readable(asked):
            return reply_to(
                request,
                commit_position=-1,
                prepare_position=-1,
                next_commit_position=-1,
                next_prepare_position=-1,
                result=2,
                error="not a record",
            )
        event = events_of("s", 1)[0] | {"commit_position": asked + 5, "prepare_position": asked + 5}
        return reply_to(
            request,
            commit_position=asked,
            prepare_position=asked,
            events=[event],
            next_commit_position=asked + 99,
            next_prepare_position=0,
        )

    return answer


async def borders(
    answer: Callable[[Request], bytes | None], count: int, **options: Any
) -> list[tuple[int, int | None]]:
    """Where ranges begin and end, by commit position."""
    async with Peer() as peer:
        replay = Replay(peer.client)
        link, _ = await asyncio.gather(peer.accept_and_greet(), replay.__aenter__())
        async with serving(link, answer):
            ranges = await replay.ranges(count, **options)
            await replay.__aexit__(None, None, None)
    return [(part.start.commit, part.end.commit if part.end else None) for part in ranges]


async def test_borders_are_events_at_the_beginning_of_files() -> None:
    log = log_in_files(10 * CHUNK_SIZE, lambda position: position % CHUNK_SIZE == 0)
    second, third = 3 * CHUNK_SIZE + 5, 7 * CHUNK_SIZE + 5
    assert await borders(log, 3) == [(0, second), (second, third), (third, None)]
    start = Position(8 * CHUNK_SIZE, 8 * CHUNK_SIZE)
    border = 9 * CHUNK_SIZE + 5
    assert await borders(log, 2, from_position=start) == [(start.commit, border), (border, None)]


async def test_a_log_of_one_file_is_not_divided() -> None:
    log = log_in_files(CHUNK_SIZE // 3, lambda position: False)
    assert await borders(log, 4) == [(0, None)]


async def test_a_log_of_few_files_has_few_ranges() -> None:
    log = log_in_files(2 * CHUNK_SIZE, lambda position: position == CHUNK_SIZE)
    border = CHUNK_SIZE + 5
    assert await borders(log, 8) == [(0, border), (border, None)]


async def test_a_server_that_refuses_is_read_in_one_range() -> None:
    assert await borders(log_in_files(10 * CHUNK_SIZE, lambda position: False), 4) == [(0, None)]


async def test_files_of_another_size() -> None:
    log = log_in_files(4096 * 8, lambda position: position % 4096 == 0)
    assert await borders(log, 2, chunk_size=4096) == [(0, 4 * 4096 + 5), (4 * 4096 + 5, None)]


# --- bounds, ends, faults ---


@asynccontextmanager
async def replaying(
    answer: Callable[[Request], bytes | None], connections: int
) -> AsyncIterator[tuple[Replay, list[Link], list[list[Request]]]]:
    """A replay over connections to a scripted server, and what it asks on each."""
    async with Peer() as peer, AsyncExitStack() as stack:
        replay = Replay(partial(peer.client, max_reconnects=0), connections)
        entering = soon(replay.__aenter__())
        links = [await peer.accept_and_greet() for _ in range(connections)]
        await entering
        stack.push_async_exit(replay)
        requests = [await stack.enter_async_context(serving(link, answer)) for link in links]
        yield replay, links, requests


@pytest.mark.parametrize("connections", [1, 3])
async def test_who_takes_nothing_stops_the_reading(connections: int) -> None:
    events = events_of("s", 10_000)
    at_once = 2
    answer = partial(stream_page, events=events)
    async with replaying(answer, connections) as (replay, _, requests):
        names = (f"s-{number}" for number in range(1_000))
        pages = replay.streams(names, at_once=at_once, batch_size=10)
        await anext(pages)
        seen = -1
        while seen != (seen := sum(map(len, requests))):
            await asyncio.sleep(0.1)
        in_windows = connections * at_once * (WINDOW_PAGES + 1)
        waiting = 2 * connections + 1
        assert seen <= in_windows + waiting
        assert next(names) == f"s-{connections * at_once}"


async def test_connections_share_the_streams() -> None:
    events = events_of("s", 5)
    async with replaying(partial(stream_page, events=events), 3) as (replay, _, requests):
        names = {f"s-{number}" for number in range(30)}
        seen = [page.stream async for page in replay.streams(names, at_once=1)]
        assert sorted(seen) == sorted(names)
        assert all(requests)


async def test_a_connection_that_is_gone_for_good_ends_it() -> None:
    events = events_of("s", 1_000)
    async with replaying(partial(stream_page, events=events), 2) as (replay, links, _):
        pages = replay.streams([f"s-{number}" for number in range(100)], batch_size=10)
        await anext(pages)
        links[0].abort()
        with pytest.raises((ClientClosed, ConnectFailed)):
            async for _ in pages:
                pass


async def test_left_early() -> None:
    async with filled_node() as (node, _):
        async with Replay(partial(connect, node), 2) as replay:
            async for _ in replay.streams(STREAMS.keys(), batch_size=1):
                break
            pages = replay.streams(STREAMS.keys(), batch_size=1)
            await anext(pages)
            waiting = replay.streams(STREAMS.keys(), batch_size=1)
            await waiting.aclose()
            await pages.aclose()
            with pytest.raises(ClientClosed):
                async for _ in pages:
                    pass
        assert isinstance(await outcome(anext(replay.streams(["s"]))), ClientClosed)


async def test_left_before_it_failed() -> None:
    def names() -> Iterator[str]:
        yield "stream-0"
        raise ZeroDivisionError

    async with filled_node() as (node, _):
        async with Replay(partial(connect, node)) as replay:
            pages = replay.streams(names(), at_once=1)
            await anext(pages)
            await eventually(lambda: not replay._running)
        # An error that nobody sees is none of the event loop's business.


async def test_closed_while_somebody_waits() -> None:
    async with replaying(lambda request: None, 1) as (replay, _, requests):
        waiting = soon(anext(replay.streams(["s"])))
        await eventually(lambda: requests[0])
    assert isinstance(await outcome(waiting), ClientClosed)


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    async with filled_node() as (node, expected):
        async with Replay(partial(connect, node), 2) as replay:
            pages = replay.streams(STREAMS.keys(), batch_size=5)
            found: Content = defaultdict(list)
            cancelled = 0
            while pages.finished < len(STREAMS):
                taking = soon(anext(pages))
                await asyncio.sleep(0)
                taking.cancel()
                await asyncio.wait({taking})
                if taking.cancelled():
                    cancelled += 1
                else:
                    page = taking.result()
                    found[page.stream] += [(event.event_number, event.json()) for event in page]
            for name, items in (await contents(pages)).items():
                found[name] += items
            assert cancelled
            assert found == expected


async def test_an_error_of_the_log_ends_it() -> None:
    log = log_in_files(100, lambda position: False)
    async with replaying(log, 2) as (replay, _, _):
        with pytest.raises(ReadError, match="not a record"):
            async for _ in replay.log([LogRange(Position(3, 3))]):
                pass


async def test_a_connection_that_cannot_be_made_closes_the_others() -> None:
    async with Peer() as peer, Peer() as nobody:
        ports = iter([peer.port, nobody.port])
        entering = soon(
            Replay(
                lambda: fastpump.connect(
                    peer.host, next(ports), max_reconnects=0, connect_timeout=0.1
                ),
                connections=2,
            ).__aenter__()
        )
        link = await peer.accept_and_greet()
        await link.closed()
        assert isinstance(await outcome(entering), ConnectFailed)


@pytest.mark.parametrize("connections", [0, 65, 1.5, None])
def test_connections_are_a_small_number(connections: Any) -> None:
    with pytest.raises(UsageError, match="connections"):
        Replay(fastpump.connect, connections)


async def test_wrong_arguments_are_named() -> None:
    replay = Replay(fastpump.connect)
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("streams", lambda: replay.streams("a-name")),
        ("streams", lambda: replay.streams(7)),  # type: ignore[arg-type]
        ("at_once", lambda: replay.streams([], at_once=0)),
        ("batch_size", lambda: replay.streams([], batch_size=5000)),
        ("batch_size", lambda: replay.log([], batch_size=0)),
        ("max_search_window", lambda: replay.log([], max_search_window=100)),
        ("end", lambda: LogRange(Position(5, 5), Position(5, 5))),
    ]
    for argument, call in wrong:
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.argument == argument
    for argument, ranges in (
        ("count", replay.ranges(0)),
        ("chunk_size", replay.ranges(1, chunk_size=0)),
    ):
        with pytest.raises(UsageError) as caught:
            await ranges
        assert caught.value.argument == argument
