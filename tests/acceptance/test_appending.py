"""APP, SIZE: what writes expect of their stream, what is kept of them, how large they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from acceptance.scenes import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    count,
    last_of,
    new_events,
    node_and_admin,
    numbers,
    read_every_way,
    refused,
    write,
)
from client.peer import connected

from fastpump import (
    MAX_EVENT_SIZE,
    AccessDenied,
    Client,
    Json,
    NewEvent,
    NewEventData,
    StreamDeleted,
    StreamMetadata,
    StreamNotFound,
    UsageError,
)

# Every kind of character that some place might treat specially.
NAMES = [
    "with spaces",
    "a@b",
    "stream::group",
    "größe",
    "日本語",
    "🚀🚀",
    "a/b?c#d",
    "%41",
    "'\"\\",
]


async def test_app_01_no_stream_and_then_the_exact_version() -> None:
    async with admin_client() as client:
        written = await client.publish("s", new_events(1), NO_STREAM)
        assert (written.first_event_number, written.last_event_number) == (0, 0)
        assert await write(client, "s", 1, 0) == 1
        assert numbers(await client.get("s", from_event=0, max_count=2)) == [0, 1]


async def test_app_02_any_version() -> None:
    async with admin_client() as client:
        assert [await write(client, "s", 1) for _ in range(2)] == [0, 1]


async def test_app_03_many_events_in_one_call() -> None:
    async with admin_client() as client:
        events = [NewEvent(f"t{n}", data=n, metadata={"m": n}) for n in range(100)]
        written = await client.publish("s", events, NO_STREAM)
        assert (written.first_event_number, written.last_event_number) == (0, 99)
        page = await client.get("s")
        assert [(e.id, e.type, e.json()) for e in page] == [(e.id, e.type, e.data) for e in events]
        assert [e.metadata for e in page] == [b'{"m":%d}' % n for n in range(100)]
        assert {e.stream for e in page} == {"s"}


async def test_app_04_positions_increase() -> None:
    async with admin_client() as client:
        written = [await client.publish(f"s{n % 2}", new_events(2)) for n in range(5)]
        positions = [result.position for result in written]
        assert all(position.commit == position.prepare > 0 for position in positions)
        assert positions == sorted(set(positions))


@pytest.mark.parametrize("versions", [(ANY, NO_STREAM) * 2, (NO_STREAM, ANY) * 2])
async def test_app_05_writes_of_no_events_to_a_new_name(versions: tuple[int, ...]) -> None:
    async with admin_client() as client:
        for version in versions:
            assert await last_of(client.publish("s", [], version)) == -1
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_app_06_writes_of_no_events() -> None:
    async with admin_client() as client:
        await write(client, "s", 3)
        for version in (ANY, 2):
            assert await last_of(client.publish("s", [], version)) == 2
        for version in (0, 1, 7, NO_STREAM):
            await refused(client.publish("s", [], version), version, 2)
        assert await count(client, "s") == 3


async def test_app_07_exact_version_of_a_new_name() -> None:
    async with admin_client() as client:
        await refused(write(client, "s", 1, 1), 1, -1)
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_app_08_pp_04_wrong_versions() -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        for version in (1, NO_STREAM, 7):
            await refused(write(client, "s", 1, version), version, 0)
        assert await count(client, "s") == 1


async def test_app_09_stream_exists_of_a_new_name() -> None:
    async with admin_client() as client:
        await refused(write(client, "s", 1, STREAM_EXISTS), STREAM_EXISTS, -1)


@pytest.mark.parametrize("before", [1, 5])
async def test_app_10_stream_exists(before: int) -> None:
    async with admin_client() as client:
        await write(client, "s", before)
        assert await write(client, "s", 1, STREAM_EXISTS) == before


async def test_app_11_metadata_makes_a_stream_exist() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", StreamMetadata())
        assert await write(client, "s", 1, STREAM_EXISTS) == 0


async def test_app_12_stream_exists_of_a_soft_deleted_stream() -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.delete_stream("s")
        with pytest.raises(StreamDeleted, match="'s'"):
            await write(client, "s", 1, STREAM_EXISTS)


@pytest.mark.parametrize("version", [NO_STREAM, ANY, 5, STREAM_EXISTS])
async def test_app_13_hard_deleted_stream(version: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted, match="'s'"):
            await write(client, "s", 1, version)


async def append(client: Client, events: list[NewEventData]) -> None:
    await client.publish("s", events)


async def transact(client: Client, events: list[NewEventData]) -> None:
    async with client.transaction("s") as transaction:
        await transaction.write(events)


@pytest.mark.parametrize("writing", [append, transact])
async def test_app_15_the_json_flag(
    writing: Callable[[Client, list[NewEventData]], Awaitable[None]],
) -> None:
    events = [
        NewEvent("t", data=data, metadata=metadata)
        for data in ({"n": 1}, b"binary")
        for metadata in (None, {"m": 1}, b"binary")
    ]
    async with admin_client() as client:
        found = await read_every_way(client, "s", writing(client, events))
        for way, events_found in found.items():
            assert [event.is_json for event in events_found] == [True] * 3 + [False] * 3, way


@pytest.mark.parametrize(
    ("body", "data", "is_json"),
    [
        (None, b"", False),
        (b"\x00\xff", b"\x00\xff", False),
        (bytearray(b"b"), b"b", False),
        (memoryview(b"m"), b"m", False),
        (Json(b"[1]"), b"[1]", True),
        ({"a": "ü"}, b'{"a":"\xc3\xbc"}', True),
        ([1, None], b"[1,null]", True),
        ('{"as": "it is"}', b'{"as": "it is"}', True),
        (7, b"7", True),
    ],
)
async def test_app_16_pp_02_bodies(body: Any, data: bytes, is_json: bool) -> None:
    events = [
        NewEvent("t", data=body),
        NewEvent("t", data=body, metadata=body),
        NewEvent("t", metadata=body),
    ]
    async with admin_client() as client:
        found = await read_every_way(client, "s", client.publish("s", events))
        for way, (alone, both, only_metadata) in found.items():
            assert (alone.data, alone.metadata, alone.is_json) == (data, b"", is_json), way
            assert (both.data, both.metadata, both.is_json) == (data, data, is_json), way
            assert (only_metadata.data, only_metadata.metadata) == (b"", data), way


async def test_app_17_created() -> None:
    """That both fields of it agree is test_app_17 of the node."""
    async with admin_client() as client:
        await write(client, "s", 1)
        (event,) = await client.get("s")
        assert event.created is not None
        assert event.created.utcoffset() == timedelta(0)
        assert abs(datetime.now(timezone.utc) - event.created) < timedelta(minutes=1)


async def test_app_20_nobody_writes_to_the_log() -> None:
    async with admin_client() as client:
        with pytest.raises(AccessDenied):
            await write(client, "$all", 1)


@pytest.mark.parametrize("name", NAMES)
async def test_app_21_names(name: str) -> None:
    async with admin_client() as client:
        found = await read_every_way(client, name, client.publish_event(name, name, name))
        for way, (event,) in found.items():
            assert (event.stream, event.type, event.data.decode()) == (name, name, name), way


async def test_app_22_order_of_writes_not_awaited_one_by_one() -> None:
    async with admin_client() as client:
        await asyncio.gather(
            *(client.publish_event("s", "t", n, expected_version=n - 1) for n in range(100))
        )
        assert [event.json() async for event in client.iter("s")] == list(range(100))


async def test_app_23_five_hundred_at_once() -> None:
    async with admin_client() as client:
        written = await asyncio.gather(*(client.publish_event("s", "t", n) for n in range(500)))
        assert sorted(result.last_event_number for result in written) == list(range(500))
        events = [event async for event in client.iter("s", batch_size=64)]
        assert numbers(events) == list(range(500))
        assert {event.json() for event in events} == set(range(500))


async def test_app_24_names_of_the_system() -> None:
    async with node_and_admin() as (node, admin), connect(node, None) as anonymous:
        with pytest.raises(AccessDenied):
            await write(anonymous, "$s", 1)
        assert await write(admin, "$s", 1) == 0


async def test_size_01_large_events() -> None:
    large = [NewEvent("t", metadata=bytes([n]) * 6_000_000) for n in range(2)]
    async with admin_client() as client:
        found = await read_every_way(client, "s", client.publish("s", large))
        for way, events in found.items():
            assert [event.metadata for event in events] == [new.metadata for new in large], way


async def test_size_02_the_largest_event() -> None:
    """Data, metadata and twice the type count."""
    async with admin_client() as client:
        metadata = bytes(1000)
        data = bytes(MAX_EVENT_SIZE - len(metadata) - 2 * len("type"))
        await client.publish_event("s", "type", data, metadata=metadata)
        event = await client.get_event("s", 0)
        assert event is not None
        assert (event.data, event.metadata) == (data, metadata)
        with pytest.raises(UsageError, match="body"):
            await client.publish_event("s", "type", data + b"x", metadata=metadata)
        assert await count(client, "s") == 1


async def test_size_03_more_than_a_package_can_hold() -> None:
    """What a server does when it is sent one is test_proto_03 of the node."""
    too_much = [NewEvent("t", data=bytes(16_700_000))] * 5
    async with connected() as (client, link, _):
        with pytest.raises(UsageError, match="events"):
            await client.publish("s", too_much)
        await link.nothing_more()


async def test_size_04_large_events_do_not_cost_the_connection() -> None:
    """A client that must not reconnect would end with the first connection."""
    metadata = bytes(range(250)) * 24_000
    async with node_and_admin() as (node, writer):
        await writer.publish_event("s", "t", metadata=metadata)
        options = {"heartbeat_interval": 0.5, "max_reconnects": 0, "max_attempts": 1}
        async with connect(node, **options) as client:
            for _ in range(10):
                event = await client.get_event("s", 0)
                assert event is not None
                assert event.metadata == metadata
