"""DEL: deletes of both kinds, and streams that come back."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest
from acceptance.scenes import (
    ANY,
    BACKWARD,
    END,
    MAX,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    last_of,
    numbers,
    refused,
    window,
    write,
)

from fastpump import (
    AccessDenied,
    Acl,
    BadRequest,
    Client,
    StreamDeleted,
    StreamMetadata,
    StreamNotFound,
)

KEPT = StreamMetadata(max_count=100, acl=Acl(delete=["some-role"]), custom={"key": "some", "n": 1})
"""Metadata of which nothing may get lost."""


def with_truncation(metadata: StreamMetadata, number: int) -> StreamMetadata:
    return StreamMetadata(
        max_count=metadata.max_count,
        truncate_before=number,
        acl=metadata.acl,
        custom=metadata.custom,
    )


async def metadata_of(client: Client, stream: str) -> tuple[int, StreamMetadata]:
    found = await client.get_stream_metadata(stream)
    return found.version, found.metadata


async def is_not_found(client: Client, stream: str) -> bool:
    """Whether it reads as if it were not there, whatever is asked."""
    asked: list[Awaitable[Any]] = [
        client.get(stream),
        client.get(stream, BACKWARD),
        *(client.get_event(stream, number) for number in (0, 1, -1)),
    ]
    for read in asked:
        with pytest.raises(StreamNotFound, match=stream):
            await read
    return True


@pytest.mark.parametrize("version", [NO_STREAM, ANY])
async def test_del_01_hard_delete_of_a_name_never_used(version: int) -> None:
    async with admin_client() as client:
        position = await client.delete_stream("s", version, hard=True)
        assert position.commit > 0
        with pytest.raises(StreamDeleted, match="'s'"):
            await client.get("s")


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("version", [1, 7])
async def test_del_02_delete_of_a_name_never_used_at_a_version(version: int, hard: bool) -> None:
    async with admin_client() as client:
        await refused(client.delete_stream("s", version, hard), version, None)
        assert await is_not_found(client, "s")


@pytest.mark.parametrize("version", [0, ANY])
async def test_del_03_hard_delete(version: int) -> None:
    async with admin_client() as client:
        written = await client.publish_event("s", "t")
        await refused(client.delete_stream("s", 1, hard=True), 1, None)
        tombstone = await client.delete_stream("s", version, hard=True)
        assert tombstone > written.position
        with pytest.raises(StreamDeleted):
            await client.get("s")


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("version", [ANY, NO_STREAM, 0, 7])
async def test_del_04_delete_of_a_hard_deleted_stream(version: int, hard: bool) -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted):
            await client.delete_stream("s", version, hard)


async def test_del_05_nothing_works_after_a_hard_delete() -> None:
    """But for setting metadata, which does nothing: see test_meta_03."""
    async with admin_client() as client:
        await write(client, "s", 1)
        transaction = client.transaction("s")
        await transaction.start()
        await client.delete_stream("s", hard=True)
        for attempt in (
            client.get_event("s", 0),
            client.get("s"),
            client.get("s", BACKWARD),
            write(client, "s", 1),
            transaction.commit(),
        ):
            with pytest.raises(StreamDeleted, match="'s'"):
                await attempt
        found = await client.get_stream_metadata("s")
        assert (found.is_stream_deleted, found.version, found.raw) == (True, MAX, b"")


async def test_del_06_proto_08_the_tombstone_is_seen() -> None:
    """By clients that said who they are; test_proto_08 of the node has the others."""
    async with admin_client() as client:
        await write(client, "s", 2)
        async with await client.subscribe_to("s") as subscription:
            await client.delete_stream("s", hard=True)
            pushed = await anext(subscription.events)
        (read,) = await client.get_all(BACKWARD, max_count=1)
        for event in (pushed, read):
            assert (event.stream, event.type, event.event_number) == ("s", "$streamDeleted", MAX)


async def test_del_07_soft_delete() -> None:
    """The page's last event number is not in the error; test_del_07 of the node looks at it."""
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.delete_stream("s", 1)
        assert await is_not_found(client, "s")


@pytest.mark.parametrize("version", [0, 2, NO_STREAM])
async def test_del_08_soft_delete_at_a_wrong_version(version: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await refused(client.delete_stream("s", version), version, None)
        assert numbers(await client.get("s")) == [0, 1]


async def test_del_09_soft_delete_replaces_the_metadata() -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.set_stream_metadata("s", KEPT)
        await client.delete_stream("s")
        assert await metadata_of(client, "s") == (1, StreamMetadata(truncate_before=MAX))


async def test_del_10_soft_delete_twice() -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        for version in (0, 1):
            await client.delete_stream("s")
            assert (await client.get_stream_metadata("s")).version == version


@pytest.mark.parametrize("version", [ANY, NO_STREAM])
async def test_del_11_soft_delete_of_a_name_never_used(version: int) -> None:
    async with admin_client() as client:
        await client.delete_stream("s", version)
        assert await metadata_of(client, "s") == (0, StreamMetadata(truncate_before=MAX))
        await client.set_stream_metadata("with-metadata", KEPT)
        await client.delete_stream("with-metadata", version)
        assert (await client.get_stream_metadata("with-metadata")).version == 1


@pytest.mark.parametrize("hard", [True, False])
async def test_del_12_a_delete_cannot_expect_the_stream_to_exist(hard: bool) -> None:
    """As servers before 21.10 have it."""
    async with admin_client() as client:
        await write(client, "s", 1)
        with pytest.raises(BadRequest):
            await client.delete_stream("s", STREAM_EXISTS, hard)
        assert numbers(await client.get("s")) == [0]


async def test_del_13_hard_delete_of_a_soft_deleted_stream() -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.delete_stream("s")
        await client.delete_stream("s", ANY, hard=True)
        for attempt in (client.get("s"), client.get_event("s", 0), write(client, "s", 1)):
            with pytest.raises(StreamDeleted):
                await attempt
        assert (await client.get_stream_metadata("s")).is_stream_deleted


@pytest.mark.parametrize("version", [ANY, NO_STREAM, 1])
async def test_del_14_to_16_written_again(version: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.delete_stream("s")
        assert await write(client, "s", 3, version) == 4
        page = await client.get("s")
        assert (window(page), page.last_event_number) == (([2, 3, 4], 5, END), 4)
        await refused(write(client, "s", 1, NO_STREAM), NO_STREAM, 4)
        assert await write(client, "s", 2) == 6
        assert numbers(await client.get("s")) == [2, 3, 4, 5, 6]
        assert await metadata_of(client, "s") == (1, StreamMetadata(truncate_before=2))


async def test_del_17_coming_back_keeps_the_rest_of_the_metadata() -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.set_stream_metadata("s", with_truncation(KEPT, MAX))
        assert await is_not_found(client, "s")
        assert await write(client, "s", 1, 1) == 2
        assert numbers(await client.get("s")) == [2]
        assert await metadata_of(client, "s") == (1, with_truncation(KEPT, 2))


async def test_del_18_metadata_for_an_empty_deleted_stream() -> None:
    async with admin_client() as client:
        await client.delete_stream("s")
        assert await last_of(client.set_stream_metadata("s", KEPT, 0)) == 1
        assert await metadata_of(client, "s") == (2, with_truncation(KEPT, 0))
        assert await is_not_found(client, "s")


async def test_del_19_metadata_for_a_deleted_stream() -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.delete_stream("s")
        assert await last_of(client.set_stream_metadata("s", KEPT, 0)) == 1
        assert await metadata_of(client, "s") == (2, with_truncation(KEPT, 2))
        page = await client.get("s")
        assert (window(page), page.last_event_number) == (([], 2, END), 1)


@pytest.mark.parametrize("before", [0, 2])
async def test_del_20_what_is_not_json_for_a_deleted_stream(before: int) -> None:
    content = bytes(range(256))
    async with admin_client() as client:
        if before:
            await write(client, "s", before)
        await client.delete_stream("s")
        assert await last_of(client.set_stream_metadata("s", content, 0)) == 1
        found = await client.get_stream_metadata("s")
        assert (found.version, found.raw) == (1, content)
        if before:
            page = await client.get("s")
            assert (numbers(page), page.last_event_number) == ([0, 1], 1)
        else:
            assert await is_not_found(client, "s")


@pytest.mark.parametrize("version", [1, ANY])
async def test_del_21_a_write_of_no_events_brings_it_back(version: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 2)
        await client.delete_stream("s")
        assert await last_of(client.publish("s", [], version)) == 1
        assert numbers(await client.get("s")) == []
        assert await metadata_of(client, "s") == (1, StreamMetadata(truncate_before=2))


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("name", ["$$s", "$all"])
async def test_del_22_what_nobody_may_delete(name: str, hard: bool) -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", KEPT)
        with pytest.raises(AccessDenied):
            await client.delete_stream(name, hard=hard)
