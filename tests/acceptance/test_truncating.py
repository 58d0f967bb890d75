"""TRUNC: events hidden by maxCount, truncate-before ("tb") and maxAge."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from acceptance.scenes import (
    BACKWARD,
    END,
    FORWARD,
    OPEN,
    Window,
    admin_client,
    new_events,
    numbers,
    window,
    write,
)

from fastpump import Client, StreamDirection, StreamMetadata
from fastpump.server import _writer

Page = tuple[StreamDirection, int, int]
"""Direction, first number and most events of a page."""

MAX_COUNT_3 = StreamMetadata(max_count=3)
TB_2 = StreamMetadata(truncate_before=2)
MINUTE = 60
TWENTY_MINUTES = StreamMetadata(max_age=20 * MINUTE)

FORWARDS: list[tuple[Page, Window]] = [
    ((FORWARD, 0, 2), ([], 2, OPEN)),
    ((FORWARD, 0, 4), ([2, 3], 4, OPEN)),
    ((FORWARD, 1, 2), ([2], 3, OPEN)),
    ((FORWARD, 1, 4), ([2, 3, 4], 5, END)),
    ((FORWARD, 7, 2), ([], 5, END)),
]
BACKWARDS: list[tuple[Page, Window]] = [
    ((BACKWARD, 4, 2), ([4, 3], 2, OPEN)),
    ((BACKWARD, 4, 3), ([4, 3, 2], -1, END)),
    ((BACKWARD, 3, 3), ([3, 2], -1, END)),
    ((BACKWARD, 1, 2), ([], -1, END)),
    ((BACKWARD, 10, 3), ([], 4, OPEN)),
]
AGED_BACKWARDS: list[tuple[Page, Window]] = [
    ((BACKWARD, 4, 2), ([4, 3], 2, OPEN)),
    ((BACKWARD, 4, 3), ([4, 3, 2], 1, OPEN)),
    ((BACKWARD, 3, 3), ([3, 2], -1, END)),
    ((BACKWARD, 1, 2), ([], -1, END)),
]


async def check_pages(client: Client, rows: list[tuple[Page, Window]]) -> None:
    for asked, expected in rows:
        page = await client.get("s", *asked)
        assert (window(page), page.last_event_number) == (expected, 4), asked


async def visible_by_number(client: Client, highest: int = 4) -> list[int]:
    """Which numbers a read of a single event finds."""
    found = [await client.get_event("s", number) for number in range(highest + 1)]
    return numbers(event for event in found if event is not None)


@pytest.mark.parametrize(
    ("metadata", "rows"),
    [
        pytest.param(MAX_COUNT_3, FORWARDS, id="TRUNC-01"),
        pytest.param(MAX_COUNT_3, BACKWARDS, id="TRUNC-02"),
        pytest.param(TB_2, [*FORWARDS, *BACKWARDS], id="TRUNC-03"),
    ],
)
async def test_trunc_01_to_03_pages(
    metadata: StreamMetadata, rows: list[tuple[Page, Window]]
) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", metadata)
        await check_pages(client, rows)


@pytest.mark.parametrize("metadata", [MAX_COUNT_3, TB_2])
async def test_trunc_04_single_events(metadata: StreamMetadata) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", metadata)
        assert await visible_by_number(client) == [2, 3, 4]
        last = await client.get_event("s", -1)
        assert last is not None
        assert last.event_number == 4


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        ("max_count", [(3, [2, 3, 4]), (4, [1, 2, 3, 4]), (2, [3, 4])]),
        ("truncate_before", [(2, [2, 3, 4]), (1, [1, 2, 3, 4]), (3, [3, 4])]),
    ],
)
async def test_trunc_05_nothing_is_removed(limit: str, steps: list[tuple[int, list[int]]]) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        for value, visible in steps:
            await client.set_stream_metadata("s", StreamMetadata(**{limit: value}))
            assert numbers(await client.get("s")) == visible


@pytest.mark.parametrize(("max_count", "visible"), [(4, [2, 3, 4]), (2, [3, 4])])
async def test_trunc_06_both(max_count: int, visible: list[int]) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        both = StreamMetadata(truncate_before=2, max_count=max_count)
        await client.set_stream_metadata("s", both)
        assert numbers(await client.get("s")) == visible
        assert await visible_by_number(client) == visible


@pytest.mark.parametrize("metadata", [MAX_COUNT_3, b'{"$maxCount":3}'])
@pytest.mark.parametrize("is_first", [True, False])
async def test_trunc_07_before_and_after_the_events(
    metadata: StreamMetadata | bytes, is_first: bool
) -> None:
    async with admin_client() as client:
        if is_first:
            await client.set_stream_metadata("s", metadata)
        await write(client, "s", 5)
        if not is_first:
            await client.set_stream_metadata("s", metadata)
        assert numbers(await client.get("s")) == [2, 3, 4]
        await write(client, "s", 1)
        assert numbers(await client.get("s")) == [3, 4, 5]


async def write_in_the_past(
    client: Client, monkeypatch: pytest.MonkeyPatch, *minutes: float
) -> None:
    """Events that are so old."""
    for age in minutes:
        then = time.time_ns() - round(age * MINUTE * 1e9)
        with monkeypatch.context() as patch:
            patch.setattr(_writer, "time", SimpleNamespace(time_ns=lambda then=then: then))
            await write(client, "s", 1)


@pytest.mark.parametrize(
    "rows",
    [pytest.param(FORWARDS, id="TRUNC-08"), pytest.param(AGED_BACKWARDS, id="TRUNC-09")],
)
async def test_trunc_08_to_09_pages_of_events_of_some_age(
    rows: list[tuple[Page, Window]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin_client() as client:
        await write_in_the_past(client, monkeypatch, 50, 25, 15, 11, 3)
        await client.set_stream_metadata("s", TWENTY_MINUTES)
        await check_pages(client, rows)


async def test_trunc_10_single_events_of_some_age(monkeypatch: pytest.MonkeyPatch) -> None:
    async with admin_client() as client:
        await write_in_the_past(client, monkeypatch, 50, 25, 15, 11, 3)
        await client.set_stream_metadata("s", TWENTY_MINUTES)
        assert await visible_by_number(client) == [2, 3, 4]


async def test_trunc_10_all_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with admin_client() as client:
        await write_in_the_past(client, monkeypatch, 50, 45, 40, 35, 30)
        await client.set_stream_metadata("s", TWENTY_MINUTES)
        assert await client.get_event("s", -1) is None
        pages = [page async for page in client.iter_slices("s", batch_size=2)]
        assert [event for page in pages for event in page] == []
        assert (await client.get("s", from_event=4)).next_event_number == 5


async def test_trunc_11_events_become_too_old() -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", StreamMetadata(max_age=2))
        assert numbers(await client.get("s")) == [0, 1, 2, 3, 4]
        await asyncio.sleep(3)
        assert window(await client.get("s")) == ([], 5, END)
        assert numbers(await client.get("s", BACKWARD)) == []
        assert await visible_by_number(client) == []
        log = [event async for event in client.iter_all()]
        assert numbers(event for event in log if event.stream == "s") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("max_count", "visible"), [(2, [3, 4]), (4, [2, 3, 4])])
async def test_trunc_12_the_stricter_limit_decides(
    max_count: int, visible: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with admin_client() as client:
        await write_in_the_past(client, monkeypatch, 50, 25, 15, 11, 3)
        both = StreamMetadata(max_age=20 * MINUTE, max_count=max_count)
        await client.set_stream_metadata("s", both)
        assert [e.event_number async for e in client.iter("s", batch_size=2)] == visible


@pytest.mark.parametrize(
    "raw",
    [
        b'{"$maxCount":1.5,"$tb":3}',
        b'{"$maxCount":9223372036854775808,"$tb":3}',
        b'{"$maxCount":"x","$tb":3}',
        b'{"$tb":3,"$acl":7}',
        b'{"$tb":3,"$acl":{"$r":7}}',
        b'{"$tb":3',
    ],
)
async def test_trunc_13_unusable_metadata_is_ignored_as_a_whole(raw: bytes) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", raw)
        assert numbers(await client.get("s")) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "limit", [b'"$maxCount":0', b'"$maxCount":-1', b'"$maxAge":0', b'"$maxAge":-1']
)
async def test_trunc_13_a_value_out_of_bounds_is_ignored_alone(limit: bytes) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", b'{%b,"$tb":3}' % limit)
        assert numbers(await client.get("s")) == [3, 4]


@pytest.mark.parametrize(
    ("metadata", "visible"),
    [
        (StreamMetadata(truncate_before=2**32), []),
        (StreamMetadata(max_count=2**32), [0, 1, 2, 3, 4]),
        (StreamMetadata(max_count=2**32 + 1), [0, 1, 2, 3, 4]),
    ],
)
async def test_trunc_14_limits_of_64_bits(metadata: StreamMetadata, visible: list[int]) -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        await client.set_stream_metadata("s", metadata)
        assert numbers(await client.get("s")) == visible
        assert (await client.get_stream_metadata("s")).metadata == metadata


async def test_trunc_15_subscribers_get_every_event() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", StreamMetadata(max_count=1))
        async with await client.subscribe_to("s") as subscription:
            await client.publish("s", new_events(5))
            pushed = [await anext(subscription.events) for _ in range(5)]
        assert numbers(pushed) == [0, 1, 2, 3, 4]
