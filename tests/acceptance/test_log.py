"""ALL: the log of all events."""

from __future__ import annotations

import pytest
from acceptance.scenes import (
    BACKWARD,
    FORWARD,
    MAX,
    admin_client,
    connect,
    new_events,
    node_and_admin,
    numbers,
    write,
)

from fastpump import (
    AccessDenied,
    Acl,
    Beginning,
    Client,
    End,
    NewEvent,
    Position,
    ReadError,
    StreamDirection,
    StreamMetadata,
)


async def test_all_01_from_the_wrong_end() -> None:
    async with admin_client() as client:
        for direction, end in ((FORWARD, End), (BACKWARD, Beginning)):
            page = await client.get_all(direction, end)
            assert (len(page), page.is_end_of_stream) == (0, True)


@pytest.mark.parametrize("direction", StreamDirection)
async def test_all_02_and_03_and_05_the_same_in_every_page_size(
    direction: StreamDirection,
) -> None:
    async with admin_client() as client:
        for n in range(20):
            await client.publish_event(f"s{n % 3}", "known", n)
        whole = list(await client.get_all(direction, max_count=4096))
        for size in (1, 5, 4096):
            assert [e async for e in client.iter_all(direction, batch_size=size)] == whole
            pages = [p async for p in client.iter_all_slices(direction, batch_size=size)]
            assert [event for page in pages for event in page] == whole
        if direction == BACKWARD:
            whole.reverse()
        assert [event.json() for event in whole if event.type == "known"] == list(range(20))
        positions = [event.position for event in whole]
        assert all(position.commit == position.prepare for position in positions if position)
        assert positions == sorted(set(positions))


async def test_all_04_from_the_position_of_an_event() -> None:
    async with admin_client() as client:
        await client.publish("s", [NewEvent(kind) for kind in "abc"])
        log = [event async for event in client.iter_all()]
        position = log[-2].position
        assert [event.type for event in await client.get_all(FORWARD, position)] == ["b", "c"]
        (before,) = await client.get_all(BACKWARD, position, max_count=1)
        assert before.type == "a"


async def test_all_05_positions_of_a_transaction() -> None:
    async with admin_client() as client:
        async with client.transaction("s") as transaction:
            for _ in range(3):
                await transaction.write(new_events(1))
                await write(client, "among them", 1)
        log = [event async for event in client.iter_all()]
        positions = [event.position for event in log if event.stream == "s"]
        assert [event.stream for event in log[-3:]] == ["s"] * 3
        assert len({position.commit for position in positions if position}) == 1
        prepares = [position.prepare for position in positions if position]
        assert prepares == sorted(set(prepares))


async def test_all_06_a_position_that_is_none() -> None:
    """What a client does not send is in the tests of arguments."""
    async with admin_client() as client:
        with pytest.raises(ReadError, match=r"Invalid position"):
            await client.get_all(FORWARD, Position(0, -1))
        await client.ping()


async def test_all_07_the_end_and_what_is_written_behind_it() -> None:
    async with admin_client() as client:
        end = await client.get_all(FORWARD, End)
        assert end.is_end_of_stream
        written = await client.publish("s", [NewEvent(kind) for kind in "abc"])
        page = await client.get_all(FORWARD, end.next_position)
        assert [event.type for event in page] == ["a", "b", "c"]
        assert page[-1].position == written.position
        assert not page.is_end_of_stream
        assert (await client.get_all(FORWARD, page.next_position)).is_end_of_stream


async def log_of(client: Client) -> list[tuple[str, str, int]]:
    """Stream, type and number of what a test has written, in both directions the same."""
    log = [(e.stream, e.type, e.event_number) async for e in client.iter_all()]
    assert [(e.stream, e.type, e.event_number) async for e in client.iter_all(BACKWARD)] == log[
        ::-1
    ]
    return [entry for entry in log if entry[0] in ("s", "$$s")]


@pytest.mark.parametrize("hard", [True, False])
async def test_all_08_deleted_streams(hard: bool) -> None:
    async with admin_client() as client:
        await write(client, "s", 20)
        await client.delete_stream("s", hard=hard)
        end = ("s", "$streamDeleted", MAX) if hard else ("$$s", "$metadata", 0)
        assert await log_of(client) == [*(("s", "t", n) for n in range(20)), end]
        if not hard:
            (last,) = await client.get_all(BACKWARD, max_count=1)
            assert last.json() == {"$tb": MAX}


@pytest.mark.parametrize("limit", ["max_count", "truncate_before"])
async def test_all_09_hidden_events(limit: str) -> None:
    """Those too old are in test_trunc_11."""
    async with admin_client() as client:
        await write(client, "s", 3)
        await client.set_stream_metadata("s", StreamMetadata(**{limit: 1}))
        assert len(await client.get("s")) < 3
        log = [event async for event in client.iter_all()]
        assert numbers(event for event in log if event.stream == "s") == [0, 1, 2]


async def test_all_10_who_may_read_it() -> None:
    users = {"user1": "pw"}
    async with node_and_admin(users=users) as (node, admin):
        async with connect(node, None) as anonymous, connect(node, "user1", "pw") as user:
            for client in (anonymous, user):
                for attempt in (client.get_all(), client.subscribe_to_all()):
                    with pytest.raises(AccessDenied):
                        await attempt
            assert len(await admin.get_all(max_count=1)) == 1
            await admin.set_stream_metadata("$all", StreamMetadata(acl=Acl(read="$all")))
            for client in (anonymous, user):
                assert len(await client.get_all(max_count=1)) == 1


@pytest.mark.parametrize("direction", StreamDirection)
async def test_all_11_links_in_it(direction: StreamDirection) -> None:
    async with admin_client() as client:
        await write(client, "target", 1)
        written = [
            (await client.publish("links", [NewEvent("$>", data=target)])).position
            for target in (b"0@target", b"9@target")
        ]
        start = Beginning if direction == FORWARD else None
        for resolve in (True, False):
            log = [e async for e in client.iter_all(direction, start, resolve_links=resolve)]
            links = [e for e in log if e.received_event.stream == "links"]
            links.sort(key=lambda event: event.position)
            assert [event.position for event in links] == written
            assert [event.is_resolved for event in links] == [resolve, False]
            assert [event.link is not None for event in links] == [resolve, resolve]
            assert links[0].stream == ("target" if resolve else "links")
