"""APP, SIZE: what a stream must be like for a write, and how large it may be."""

from __future__ import annotations

import pytest
from acceptance.scenes import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    count,
    last_of,
    node_and_admin,
    refused,
    write,
)
from client.peer import connected

from fastpump import NewEvent, StreamDeleted, StreamMetadata, StreamNotFound, UsageError


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
