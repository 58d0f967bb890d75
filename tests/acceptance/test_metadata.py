"""META, SYS: what is set on streams, and on the system as a whole."""

from __future__ import annotations

import dataclasses

import pytest
from acceptance.scenes import (
    ANY,
    BACKWARD,
    MAX,
    NO_STREAM,
    STREAM_EXISTS,
    admin_client,
    connect,
    count,
    last_of,
    node_and_admin,
    numbers,
    refused,
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
    UsageError,
)


@pytest.mark.parametrize("before", [0, 1])
async def test_meta_01_and_02_no_metadata(before: int) -> None:
    async with admin_client() as client:
        if before:
            await write(client, "s", before)
        found = await client.get_stream_metadata("s")
        assert (found.stream, found.is_stream_deleted) == ("s", False)
        assert (found.version, found.raw, found.updated) == (-1, b"", None)
        assert found.metadata == StreamMetadata()


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


@pytest.mark.parametrize("version", [NO_STREAM, ANY])
@pytest.mark.parametrize("again", [0, ANY])
@pytest.mark.parametrize("before", [0, 1])
async def test_meta_04_versions(version: int, again: int, before: int) -> None:
    async with admin_client() as client:
        if before:
            await write(client, "s", before)
        for number, expected in enumerate((version, again)):
            metadata = StreamMetadata(max_count=number + 1)
            assert await last_of(client.set_stream_metadata("s", metadata, expected)) == number
            found = await client.get_stream_metadata("s")
            assert (found.version, found.metadata) == (number, metadata)
            event = await client.get_event("$$s", number)
            assert event is not None
            assert found.updated == event.created


async def test_meta_05_wrong_versions() -> None:
    async with admin_client() as client:
        for version in (2, 5):
            setting = client.set_stream_metadata("s", StreamMetadata(), version)
            await refused(setting, version, -1, "$$s")
        await client.set_stream_metadata("s", StreamMetadata())
        setting = client.set_stream_metadata("s", StreamMetadata(max_count=1), NO_STREAM)
        await refused(setting, NO_STREAM, 0, "$$s")


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
    acl=Acl(read=["r"], write=["w", "w2"], delete=["d"], meta_read=["mr"], meta_write=["mw"]),
    custom={
        "text": "some",
        "number": -179,
        "real": 1.7,
        "large": 123123123123123123,
        "yes": True,
        "nothing": None,
        "object": {"subProperty": 999},
    },
)
RAW = (
    b'{"$maxCount":17,"$maxAge":123321,"$tb":23,"$cacheControl":7654321,'
    b'"$acl":{"$r":"r","$w":["w","w2"],"$d":["d"],"$mr":"mr","$mw":["mw"]},'
    b'"text":"some","number":-179,"real":1.7,"large":123123123123123123,"yes":true,"nothing":null,'
    b'"object":{"subProperty":999}}'
)


async def test_meta_07_and_08_every_field_comes_back() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", TYPED)
        found = (await client.get_stream_metadata("s")).metadata
        assert found == TYPED
        assert [type(value) for value in found.custom.values()] == [
            type(value) for value in TYPED.custom.values()
        ]
        assert "unknown" not in found.custom
        (event,) = await client.get("$$s")
        assert (event.type, event.is_json) == ("$metadata", True)
        content = event.json()
        limits = {key: content[key] for key in ("$maxCount", "$maxAge", "$tb", "$cacheControl")}
        assert limits == {"$maxCount": 17, "$maxAge": 123321, "$tb": 23, "$cacheControl": 7654321}
        assert content["$acl"] == {
            "$r": ["r"],
            "$w": ["w", "w2"],
            "$d": ["d"],
            "$mr": ["mr"],
            "$mw": ["mw"],
        }


async def test_meta_09_written_raw_and_read_typed_and_the_other_way_round() -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", RAW)
        found = await client.get_stream_metadata("s")
        assert (found.raw, found.metadata) == (RAW, TYPED)
        await client.set_stream_metadata("s", TYPED)
        found = await client.get_stream_metadata("s")
        assert StreamMetadata.from_json(found.raw) == TYPED


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b'{"$acl":{"$r":"ada"}}', ["ada"]),
        (b'{"$acl":{"$r":["ada"]}}', ["ada"]),
        (b'{"$acl":{"$r":["ada","$admins"]}}', ["ada", "$admins"]),
    ],
)
async def test_meta_10_one_role_and_several(raw: bytes, read: list[str]) -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", raw)
        acl = (await client.get_stream_metadata("s")).metadata.acl
        assert acl is not None
        assert (acl.read, acl.write) == (read, None)


@pytest.mark.parametrize("name", ["max_age", "max_count", "truncate_before", "cache_control"])
@pytest.mark.parametrize("value", [-1, 1.5, "7", True])
def test_meta_11_limits_are_checked(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=name):
        StreamMetadata(**{name: value})  # type: ignore[arg-type]  # the point of this test


@pytest.mark.parametrize("right", ["read", "write", "delete", "meta_read", "meta_write"])
@pytest.mark.parametrize("roles", [7, b"ops", ["ops", 7], {"ops": 1}])
def test_meta_11_roles_are_checked(right: str, roles: object) -> None:
    with pytest.raises(UsageError) as caught:
        Acl(**{right: roles})  # type: ignore[arg-type]
    assert caught.value.argument == right


@pytest.mark.parametrize("name", ["max_age", "max_count", "cache_control"])
def test_meta_11_limits_of_0(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        StreamMetadata(**{name: 0})
    assert StreamMetadata(truncate_before=0).truncate_before == 0


async def test_meta_12_a_metastream_has_no_metadata() -> None:
    async with admin_client() as client:
        for attempt in (client.set_stream_metadata("$$s", None), client.get_stream_metadata("$$s")):
            with pytest.raises(UsageError, match="metastream"):
                await attempt


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


@pytest.mark.parametrize("raw", [b"no JSON", b"[]", b'{"$acl": 7}', b'{"$acl": {"$r": 7}}'])
async def test_meta_15_what_is_not_metadata(raw: bytes) -> None:
    async with admin_client() as client:
        await client.set_stream_metadata("s", raw)
        found = await client.get_stream_metadata("s")
        assert found.raw == raw
        with pytest.raises(ValueError, match=r"."):
            _ = found.metadata


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


async def test_sys_01_the_settings_are_an_event() -> None:
    """They are one event each time, of which the last one holds."""
    users, system = Acl(read="$admins", write=["user1"]), Acl(read="$all")
    async with node_and_admin() as (node, admin), connect(node, None) as anonymous:
        await write(admin, "s", 1)
        for acls, content in (
            (
                (users, system),
                {
                    "$userStreamAcl": {"$r": "$admins", "$w": ["user1"]},
                    "$systemStreamAcl": {"$r": "$all"},
                },
            ),
            ((None, system), {"$systemStreamAcl": {"$r": "$all"}}),
        ):
            before = await count(admin, "$settings")
            await admin.set_system_settings(*acls)
            assert await count(admin, "$settings") == before + 1
            (event,) = await admin.get("$settings", BACKWARD, max_count=1)
            assert event.json() == content
            if acls[0] is not None:
                with pytest.raises(AccessDenied):
                    await anonymous.get("s")
        assert len(await anonymous.get("s")) == 1


async def test_sys_02_only_administrators_may_set_them() -> None:
    async with node_and_admin(users={"user1": "pw"}) as (node, admin):
        async with connect(node, None) as anonymous:
            for client in (anonymous, admin.acting_as(("user1", "pw"))):
                with pytest.raises(AccessDenied):
                    await client.set_system_settings(Acl(read="$all"))


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
