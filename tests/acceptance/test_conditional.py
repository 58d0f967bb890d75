"""COND: writes that tell of another version, or of a deleted stream, by a status."""

from __future__ import annotations

import pytest
from acceptance.scenes import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    count,
    new_events,
    node_and_admin,
    write,
)
from client.peer import connected, soon

import fastpump
from fastpump import (
    AccessDenied,
    ConditionalWriteResult,
    ConditionalWriteStatus,
    NotAuthenticated,
    UsageError,
    WriteFailed,
)

SUCCEEDED, MISMATCH, DELETED = ConditionalWriteStatus


async def test_cond_01_another_version() -> None:
    async with admin_client() as client:
        written = await client.publish_conditional("s", new_events(1), 7)
        assert written == ConditionalWriteResult(MISMATCH, None, None, -1)
        assert await write(client, "s", 3) == 2
        written = await client.publish_conditional("s", new_events(1), NO_STREAM)
        assert written == ConditionalWriteResult(MISMATCH, actual_version=2)
        assert await count(client, "s") == 3


@pytest.mark.parametrize("version", [ANY, NO_STREAM])
async def test_cond_02_succeeds_also_the_second_time(version: int) -> None:
    async with admin_client() as client:
        events = new_events(1)
        first = await client.publish_conditional("s", events, version)
        assert (first.status, first.last_event_number) == (SUCCEEDED, 0)
        [event] = [event async for event in client.iter_all() if event.stream == "s"]
        assert first.position == event.position
        again = await client.publish_conditional("s", events, version)
        assert (again.status, again.last_event_number) == (SUCCEEDED, 0)
        assert again.position is not None
        assert again.actual_version is None
        assert await count(client, "s") == 1


async def test_cond_02_exact_version() -> None:
    async with admin_client() as client:
        await write(client, "s", 3)
        written = await client.publish_conditional("s", new_events(2), 2)
        assert (written.status, written.last_event_number) == (SUCCEEDED, 4)


@pytest.mark.parametrize(("hard", "version"), [(True, ANY), (False, STREAM_EXISTS)])
async def test_cond_03_deleted(hard: bool, version: int) -> None:
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.delete_stream("s", hard=hard)
        written = await client.publish_conditional("s", new_events(1), version)
        assert written == ConditionalWriteResult(DELETED)


async def test_cond_04_no_right() -> None:
    async with node_and_admin() as (node, admin):
        await admin.publish_event("$$s", "$metadata", {"$acl": {"$w": "$admins"}})
        async with connect(node, None) as client:
            with pytest.raises(AccessDenied):
                await client.publish_conditional("s", new_events(1), ANY)


async def test_cond_04_wrong_password() -> None:
    async with node_and_admin() as (_, client):
        wrong = client.acting_as(fastpump.Credential("admin", "wrong"))
        with pytest.raises(NotAuthenticated):
            await wrong.publish_conditional("s", new_events(1), ANY)
        assert await client.ping() > 0


async def test_cond_04_whatever_else_is_raised() -> None:
    async with connected() as (client, link, _):
        writing = soon(client.publish_conditional("s", new_events(1), ANY))
        link.reply(await link.expect("WriteEvents"), result=6, message="no transaction")
        with pytest.raises(WriteFailed):
            await writing
        for version in (-3, None, "1"):
            with pytest.raises(UsageError, match="expected_version"):
                await client.publish_conditional("s", [], version)  # type: ignore[arg-type]
