"""READ: single events and pages of streams."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from acceptance.scenes import (
    BACKWARD,
    END,
    FORWARD,
    MAX,
    OPEN,
    Window,
    admin_client,
    numbers,
    window,
    write,
)

from fastpump import StreamDeleted, StreamDirection, StreamMetadata, StreamNotFound

Page = tuple[StreamDirection, int, int]
"""Direction, first number and most events of a page."""


@pytest.mark.parametrize("number", [5, -1])
async def test_read_02_pp_05_a_missing_stream(number: int) -> None:
    async with admin_client() as client:
        with pytest.raises(StreamNotFound, match="'missing'"):
            await client.get_event("missing", number)


async def test_read_03_events_that_cannot_be_read() -> None:
    async with admin_client() as client:
        for stream in ("hard", "soft", "short"):
            await write(client, stream, 5)
        await client.delete_stream("hard", hard=True)
        await client.delete_stream("soft")
        with pytest.raises(StreamDeleted, match="'hard'"):
            await client.get_event("hard", 0)
        with pytest.raises(StreamNotFound, match="'soft'"):
            await client.get_event("soft", 0)
        assert await client.get_event("short", 5) is None


@pytest.mark.parametrize(
    ("body", "data", "is_json"), [({"n": 1}, b'{"n":1}', True), (b"\x00\xff", b"\x00\xff", False)]
)
async def test_read_04_an_event_is_what_was_written(
    body: object, data: bytes, is_json: bool
) -> None:
    event_id = uuid4()
    async with admin_client() as client:
        await client.publish_event("s", "type", body, event_id, {"m": 2})
        event = await client.get_event("s", 0)
        assert event is not None
        assert event.link is None
        assert (event.stream, event.event_number, event.id) == ("s", 0, event_id)
        assert (event.type, event.is_json) == ("type", is_json)
        assert (event.data, event.metadata) == (data, b'{"m":2}')
        assert event.created is not None
        assert abs(datetime.now(timezone.utc) - event.created) < timedelta(minutes=1)


async def test_read_05_the_last_event() -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        event = await client.get_event("s", -1)
        assert event is not None
        assert event.event_number == 4


async def test_read_06_a_metastream_without_metadata() -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        assert await client.get_event("$$s", -1) is None
        with pytest.raises(StreamNotFound):
            await client.get_event("$$never-used", -1)


@pytest.mark.parametrize("direction", StreamDirection)
async def test_read_09_streams_that_are_not_there(direction: StreamDirection) -> None:
    """The page that a server sends for them is test_read_09 of the node."""
    async with admin_client() as client:
        with pytest.raises(StreamNotFound) as missing:
            await client.get("missing", direction)
        assert missing.value.stream == "missing"
        with pytest.raises(StreamNotFound):
            await anext(client.iter("missing", direction))
        await client.delete_stream("deleted", hard=True)
        with pytest.raises(StreamDeleted) as deleted:
            await client.get("deleted", direction)
        assert deleted.value.stream == "deleted"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param((FORWARD, 0, 3), ([0, 1, 2], 3, OPEN), id="READ-10, (0,3)"),
        pytest.param((FORWARD, 1, 4), ([1, 2, 3, 4], 5, END), id="READ-10, (1,4)"),
        pytest.param((FORWARD, 1, 5), ([1, 2, 3, 4], 5, END), id="READ-10, (1,5)"),
        pytest.param((FORWARD, 0, 5), ([0, 1, 2, 3, 4], 5, END), id="READ-10, (0,5)"),
        pytest.param((FORWARD, 6, 2), ([], 5, END), id="READ-10, (6,2)"),
        pytest.param((FORWARD, 5, 1), ([], 5, END), id="READ-10, (5,1)"),
        pytest.param((FORWARD, MAX - 1, 10), ([], 5, END), id="READ-16"),
        pytest.param((BACKWARD, 4, 3), ([4, 3, 2], 1, OPEN), id="READ-11, (4,3)"),
        pytest.param((BACKWARD, 2, 3), ([2, 1, 0], -1, END), id="READ-11, (2,3)"),
        pytest.param((BACKWARD, 2, 5), ([2, 1, 0], -1, END), id="READ-11, (2,5)"),
        pytest.param((BACKWARD, 6, 5), ([4, 3, 2], 1, OPEN), id="READ-11, (6,5)"),
        pytest.param((BACKWARD, 10, 3), ([], 4, OPEN), id="READ-11, (10,3)"),
        pytest.param((BACKWARD, 0, 1), ([0], -1, END), id="READ-11, (0,1)"),
        pytest.param((BACKWARD, -1, 2), ([4, 3], 2, OPEN), id="READ-11, (-1,2)"),
    ],
)
async def test_read_10_and_11_and_15_and_16_pages(asked: Page, expected: Window) -> None:
    """READ-15 is what the page tells of the request, and its events of themselves."""
    direction, start, _ = asked
    async with admin_client() as client:
        await write(client, "s", 5)
        page = await client.get("s", *asked)
        assert (window(page), page.last_event_number) == (expected, 4)
        assert (page.stream, page.from_event_number, page.direction) == ("s", start, direction)
        for event in page:
            assert (event.stream, event.json()) == ("s", {"n": event.event_number})
            assert event.created is not None


async def test_read_11_backwards_from_nowhere_in_particular() -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        assert window(await client.get("s", BACKWARD, None, 2)) == ([4, 3], 2, OPEN)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((FORWARD, 9, 5), [9]),
        ((FORWARD, 11, 5), []),
        ((FORWARD, 5, 1), [5]),
        ((FORWARD, 5, 2), [5, 6]),
        ((BACKWARD, 1, 5), [1, 0]),
        ((BACKWARD, 0, 1), [0]),
        ((BACKWARD, -1, 1), [9]),
        ((BACKWARD, 3, 2), [3, 2]),
        ((BACKWARD, 7, 1), [7]),
    ],
)
async def test_read_12_pages_of_ten_events(asked: Page, expected: list[int]) -> None:
    async with admin_client() as client:
        await write(client, "s", 10)
        assert numbers(await client.get("s", *asked)) == expected


@pytest.mark.parametrize("direction", StreamDirection)
async def test_read_13_from_page_to_page(direction: StreamDirection) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        start = 0 if direction == FORWARD else -1
        seen: list[int] = []
        is_end = False
        while not is_end:
            found, start, is_end = window(await client.get("s", direction, start, 2))
            seen += found
        assert seen == list(range(5))[:: 1 if direction == FORWARD else -1]


@pytest.mark.parametrize("size", [2, 7, 100])
async def test_pp_08_iterating(size: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 50)
        for direction, start, expected in (
            (FORWARD, None, range(50)),
            (FORWARD, 47, range(47, 50)),
            (BACKWARD, None, range(49, -1, -1)),
            (BACKWARD, -1, range(49, -1, -1)),
            (BACKWARD, 2, range(2, -1, -1)),
            (BACKWARD, 0, range(1)),
        ):
            found = [e async for e in client.iter("s", direction, start, size)]
            assert numbers(found) == list(expected)
            pages = [page async for page in client.iter_slices("s", direction, start, size)]
            assert [event for page in pages for event in page] == found
            assert all(len(page) == size for page in pages[:-1])


async def test_writing_while_iterating() -> None:
    async with admin_client() as client:
        await write(client, "s", 20)
        async for event in client.iter("s", batch_size=5):
            await client.publish_event("copy", event.type, event.data)
        copies, originals = await client.get("copy"), await client.get("s")
        assert [event.data for event in copies] == [event.data for event in originals]


async def test_read_14_a_page_that_ends_with_the_last_event() -> None:
    async with admin_client() as client:
        await write(client, "s", 4)
        assert window(await client.get("s", from_event=0, max_count=4)) == ([0, 1, 2, 3], 4, END)
        assert window(await client.get("s", from_event=4)) == ([], 4, END)
        await write(client, "s", 1)
        assert window(await client.get("s", from_event=4)) == ([4], 5, END)


async def test_read_17_a_hundred_streams_at_once() -> None:
    async with admin_client() as client:
        await asyncio.gather(*(write(client, f"s{n}", n % 7 + 1) for n in range(100)))
        pages = await asyncio.gather(*(client.get(f"s{n}") for n in range(100)))
        for n, page in enumerate(pages):
            assert [(event.stream, event.event_number) for event in page] == [
                (f"s{n}", number) for number in range(n % 7 + 1)
            ]


@pytest.mark.parametrize("wanted", [True, False])
async def test_read_18_requiring_the_leader_changes_nothing_on_a_single_node(wanted: bool) -> None:
    async with admin_client() as client:
        await write(client, "s", 3)
        assert numbers(await client.get("s", require_master=wanted)) == [0, 1, 2]
        event = await client.get_event("s", 1, require_master=wanted)
        assert event is not None
        assert event.event_number == 1
        assert len(await client.get_all(require_master=wanted)) >= 3


async def test_read_21_of_metadata_only_the_newest_is_seen() -> None:
    async with admin_client() as client:
        for version in range(3):
            await client.set_stream_metadata("s", StreamMetadata(max_count=version + 1))
        assert window(await client.get("$$s", from_event=0, max_count=10)) == ([2], 3, END)
