"""META, SYS: what is set on streams, and on the system as a whole."""

from __future__ import annotations

import dataclasses

import pytest
from acceptance.scenes import (
    ANY,
    MAX,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    last_of,
    node_and_admin,
    numbers,
    write,
)

from fastpump import (
    AccessDenied,
    Acl,
    Json,
    NewEvent,
    StreamDeleted,
    StreamMetadata,
    StreamNotFound,
)


async def test_meta_03_after_a_hard_delete() -> None:
    """Setting it succeeds, as a server was recorded to do, other than the row has it.

    Nobody will ever read it.
    """
    async with admin_client() as client:
        await write(client, "s", 1)
        await client.set_stream_metadata("s", StreamMetadata(max_count=3))
        await client.delete_stream("s", hard=True)
        for _ in range(2):
            found = await client.get_stream_metadata("s")
            assert (found.is_stream_deleted, found.version, found.raw) == (True, MAX, b"")
            assert found.metadata == StreamMetadata()
            await client.set_stream_metadata("s", StreamMetadata(max_count=3))
        with pytest.raises(StreamDeleted):
            await client.get("$$s")


@pytest.mark.parametrize(
    ("given", "raw"), [(b"", b""), (None, b""), (StreamMetadata(), b"{}"), (b"{}", b"{}")]
)
async def test_meta_06_empty_metadata(given: StreamMetadata | bytes | None, raw: bytes) -> None:
    async with admin_client() as client:
        assert await last_of(client.set_stream_metadata("s", given)) == 0
        found = await client.get_stream_metadata("s")
        assert (found.version, found.raw) == (0, raw)
        assert found.metadata == StreamMetadata()


TYPED = StreamMetadata(
    max_count=17,
    max_age=123321,
    truncate_before=23,
    cache_control=7654321,
    acl=Acl(read=["r"], write=["w", "w2"], meta_write=["mw"]),
    custom={"text": "some", "number": -179, "real": 1.7, "object": {"subProperty": 999}},
)
RAW = (
    b'{"$maxCount":17,"$maxAge":123321,"$tb":23,"$cacheControl":7654321,'
    b'"$acl":{"$r":"r","$w":["w","w2"],"$mw":["mw"]},'
    b'"text":"some","number":-179,"real":1.7,"object":{"subProperty":999}}'
)


async def test_meta_09_written_raw_and_read_typed_and_the_other_way_round() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", RAW)
        found = await client.get_stream_metadata("s")
        assert (found.raw, found.metadata) == (RAW, TYPED)
        await client.set_stream_metadata("s", TYPED)
        found = await client.get_stream_metadata("s")
        assert StreamMetadata.from_json(found.raw) == TYPED


@pytest.mark.parametrize("field", ["max_count", "max_age", "truncate_before", "cache_control"])
async def test_meta_13_changing_one_field(field: str) -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", TYPED)
        found = await client.get_stream_metadata("s")
        changed = dataclasses.replace(found.metadata, **{field: 5})
        await client.set_stream_metadata("s", changed, found.version)
        found = await client.get_stream_metadata("s")
        assert found.version == 1
        assert getattr(found.metadata, field) == 5
        unchanged = getattr(TYPED, field)
        assert dataclasses.replace(found.metadata, **{field: unchanged}) == TYPED


async def test_meta_14_metadata_makes_no_stream() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", StreamMetadata(max_count=1))
        with pytest.raises(StreamNotFound):
            await client.get("s")
        assert await write(client, "s", 1, STREAM_EXISTS) == 0


@pytest.mark.parametrize(("body", "visible"), [(Json, [1]), (bytes, [0, 1])])
async def test_meta_16_written_like_an_event(
    body: type[Json] | type[bytes], visible: list[int]
) -> None:
    """It is metadata only if it says that it is JSON."""
    content = b'{"$maxCount":1}'
    async with admin_client() as client:
        await write(client, "s", 2)
        event = NewEvent("$metadata", data=body(content))
        assert await last_of(client.publish("$$s", [event], NO_STREAM)) == 0
        assert (await client.get_stream_metadata("s")).raw == content
        assert numbers(await client.get("s")) == visible


async def test_sys_03_without_settings_the_defaults_hold_again() -> None:
    async with node_and_admin(users={"user1": "pw"}) as (node, admin):
        async with connect(node, None) as anonymous, connect(node, "user1", "pw") as user:
            await write(admin, "$s", 1)
            await admin.set_system_settings(
                user_stream_acl=Acl(read="user1", write="user1"), system_stream_acl=Acl(read="$all")
            )
            assert await write(user, "s", 1, ANY) == 0
            with pytest.raises(AccessDenied):
                await write(anonymous, "s", 1)
            assert len(await anonymous.get("$s")) == 1
            await admin.set_system_settings()
            assert await write(anonymous, "s", 1) == 1
            assert len(await anonymous.get("s")) == 2
            for client in (anonymous, user):
                with pytest.raises(AccessDenied):
                    await client.get("$s")
