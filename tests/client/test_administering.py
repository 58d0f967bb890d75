"""Deleting streams, metadata and settings through the client, against the embedded node."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import fastpump
import fastpump.server
from fastpump import (
    AccessDenied,
    Acl,
    Client,
    ExpectedVersion,
    NewEvent,
    StreamDeleted,
    StreamMetadata,
    StreamNotFound,
    UsageError,
    WrongExpectedVersion,
)

MAX = 2**63 - 1


async def clients(stack: AsyncExitStack) -> tuple[Client, Client]:
    """An administrator and an anonymous client of one fresh node."""
    node = await stack.enter_async_context(fastpump.server.run())
    admin = fastpump.connect(node.host, node.port, username="admin", password="changeit")
    anonymous = fastpump.connect(node.host, node.port)
    return await stack.enter_async_context(admin), await stack.enter_async_context(anonymous)


def events(count: int) -> list[fastpump.NewEventData]:
    return [NewEvent("t", data={"n": n}) for n in range(count)]


async def test_del_01_hard_delete_of_a_name_never_used() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        position = await client.delete_stream("s", ExpectedVersion.StreamMustNotExist, hard=True)
        assert position.commit > 0
        with pytest.raises(StreamDeleted, match="'s'"):
            await client.get("s")


async def test_del_02_delete_at_a_wrong_version() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        for hard in (False, True):
            with pytest.raises(WrongExpectedVersion) as caught:
                await client.delete_stream("s", 7, hard=hard)
            assert caught.value.expected_version == 7


async def test_del_04_and_05_nothing_works_after_a_hard_delete() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.publish("s", events(1))
        await client.delete_stream("s", hard=True)
        for attempt in (
            client.delete_stream("s"),
            client.delete_stream("s", hard=True),
            client.get_event("s", 0),
            client.publish("s", events(1)),
        ):
            with pytest.raises(StreamDeleted):
                await attempt
        found = await client.get_stream_metadata("s")
        assert found.is_stream_deleted
        assert (found.version, found.raw) == (MAX, b"")


async def test_del_14_a_soft_deleted_stream_comes_back_and_its_numbers_go_on() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.publish("s", events(2))
        await client.delete_stream("s", 1)
        with pytest.raises(StreamNotFound):
            await client.get("s")
        written = await client.publish("s", events(3))
        assert written.last_event_number == 4
        assert [event.event_number for event in await client.get("s")] == [2, 3, 4]
        found = await client.get_stream_metadata("s")
        assert (found.version, found.metadata.truncate_before) == (1, 2)


async def test_del_22_metastreams_cannot_be_deleted() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        for name in ("$$s", "$all"):
            with pytest.raises(AccessDenied):
                await client.delete_stream(name)


async def test_meta_01_and_02_no_metadata() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.publish("with-events", events(1))
        for name in ("never-used", "with-events"):
            found = await client.get_stream_metadata(name)
            assert (found.stream, found.version, found.raw) == (name, -1, b"")
            assert found.metadata == StreamMetadata()


async def test_meta_04_and_05_versions_of_metadata() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        first = StreamMetadata(max_count=3)
        with pytest.raises(WrongExpectedVersion):
            await client.set_stream_metadata("s", first, 2)
        assert (await client.set_stream_metadata("s", first, -1)).last_event_number == 0
        assert (await client.set_stream_metadata("s", first, 0)).last_event_number == 1
        assert (await client.get_stream_metadata("s")).version == 1
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_meta_07_and_08_every_field_comes_back() -> None:
    everything = StreamMetadata(
        max_age=123321,
        max_count=17,
        truncate_before=23,
        cache_control=7654321,
        acl=Acl(read=["r"], write=["w"], delete=["d"], meta_read=["mr", "$all"], meta_write=["mw"]),
        custom={
            "text": "x",
            "number": -179,
            "big": 123123123123123123,
            "null": None,
            "o": {"a": 9},
        },
    )
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.set_stream_metadata("s", everything)
        found = await client.get_stream_metadata("s")
        assert found.metadata == everything
        event = await client.get_event("$$s", -1)
        assert event is not None
        assert (event.type, event.is_json) == ("$metadata", True)
        assert event.json()["$acl"]["$mr"] == ["mr", "$all"]


async def test_meta_10_a_single_role_reads_as_a_list_of_one() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.set_stream_metadata("s", b'{"$acl": {"$r": "ada"}}')
        acl = (await client.get_stream_metadata("s")).metadata.acl
        assert acl is not None
        assert (acl.read, acl.write) == (["ada"], None)


@pytest.mark.parametrize("name", ["max_age", "max_count", "truncate_before", "cache_control"])
@pytest.mark.parametrize("value", [-1, 1.5, "7", True])
def test_meta_11_limits_are_checked(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        StreamMetadata(**{name: value})  # type: ignore[arg-type]  # the point of this test


async def test_meta_12_a_metastream_has_no_metadata() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        for attempt in (client.set_stream_metadata("$$s", None), client.get_stream_metadata("$$s")):
            with pytest.raises(UsageError, match="metastream"):
                await attempt


@pytest.mark.parametrize("raw", [b"no JSON", b"[]", b'{"$acl": 7}', b'{"$acl": {"$r": 7}}'])
async def test_meta_15_what_is_not_metadata(raw: bytes) -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.set_stream_metadata("s", raw)
        found = await client.get_stream_metadata("s")
        assert found.raw == raw
        with pytest.raises(ValueError, match=r"."):
            _ = found.metadata


async def test_trunc_01_max_count_hides_old_events() -> None:
    async with AsyncExitStack() as stack:
        client, _ = await clients(stack)
        await client.publish("s", events(5))
        await client.set_stream_metadata("s", StreamMetadata(max_count=3))
        assert [event.event_number async for event in client.iter("s", batch_size=2)] == [2, 3, 4]


async def test_sys_01_and_02_settings_apply_to_streams_without_a_list() -> None:
    async with AsyncExitStack() as stack:
        client, anonymous = await clients(stack)
        await client.publish("s", events(1))
        await client.set_system_settings(user_stream_acl=Acl(read=["$admins"]))
        with pytest.raises(AccessDenied):
            await anonymous.get("s")
        with pytest.raises(AccessDenied):
            await anonymous.set_system_settings()
        assert len(await client.get("s")) == 1
        await client.set_system_settings()
        assert len(await anonymous.get("s")) == 1
