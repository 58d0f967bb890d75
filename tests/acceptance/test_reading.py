"""READ, LINK, ALL: single events, pages, links, and the log of all events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from acceptance.scenes import (
    BACKWARD,
    END,
    MAX,
    admin_client,
    connect,
    new_events,
    node_and_admin,
    numbers,
    window,
    write,
)

from fastpump import (
    AccessDenied,
    Acl,
    Beginning,
    Client,
    Event,
    NewEvent,
    NewEventData,
    StreamDeleted,
    StreamDirection,
    StreamMetadata,
    StreamNotFound,
)

FORWARD = StreamDirection.Forward


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


@pytest.mark.parametrize(
    ("direction", "start", "size", "expected"),
    [
        (FORWARD, 9, 5, [9]),
        (FORWARD, 11, 5, []),
        (FORWARD, 5, 1, [5]),
        (FORWARD, 5, 2, [5, 6]),
        (BACKWARD, 1, 5, [1, 0]),
        (BACKWARD, 0, 1, [0]),
        (BACKWARD, -1, 1, [9]),
        (BACKWARD, 3, 2, [3, 2]),
        (BACKWARD, 7, 1, [7]),
    ],
)
async def test_read_12_pages_of_ten_events(
    direction: StreamDirection, start: int, size: int, expected: list[int]
) -> None:
    async with admin_client() as client:
        await write(client, "s", 10)
        assert numbers(await client.get("s", direction, start, size)) == expected


async def test_read_16_a_page_at_the_end_of_all_numbers() -> None:
    async with admin_client() as client:
        await write(client, "s", 5)
        assert window(await client.get("s", from_event=MAX - 1, max_count=10)) == ([], 5, END)


async def test_read_21_of_metadata_only_the_newest_is_seen() -> None:
    async with admin_client() as client:
        for version in range(3):
            await client.set_stream_metadata("s", StreamMetadata(max_count=version + 1))
        assert window(await client.get("$$s", from_event=0, max_count=10)) == ([2], 3, END)


# --- links ---

Read = Callable[[Client], Awaitable[Sequence[Event]]]
"""How to get the events of the stream "links"; all of them resolve links."""


async def by_number(client: Client) -> list[Event]:
    last = await client.get_event("links", -1)
    assert last is not None
    found = [await client.get_event("links", n) for n in range(last.received_event.event_number)]
    return [event for event in (*found, last) if event is not None]


async def backward(client: Client) -> list[Event]:
    return list(await client.get("links", BACKWARD))[::-1]


async def in_the_log(client: Client) -> list[Event]:
    log = [event async for event in client.iter_all()]
    return [event for event in log if event.received_event.stream == "links"]


async def catching_up(client: Client) -> list[Event]:
    (last,) = await client.get("links", BACKWARD, max_count=1, resolve_links=False)
    events = []
    async with await client.subscribe_to("links", start_from=0) as subscription:
        async for event in subscription.events:
            events.append(event)
            if event.event_number == last.event_number:
                break
    return events


WAYS = {
    "by number": by_number,
    "forward": lambda client: client.get("links"),
    "backward": backward,
    "in the log": in_the_log,
    "catching up": catching_up,
}
every_way = pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)


def link(target: str) -> NewEventData:
    return NewEvent("$>", data=target.encode())


def is_unresolved(event: Event, target: str) -> bool:
    """Whether it is only the link, whose target there is not."""
    assert event.link is not None, "it must not pass for an ordinary event"
    return not event.is_resolved and event.event == event.link and event.data == target.encode()


async def soft_delete(client: Client) -> None:
    await client.delete_stream("target")


async def hard_delete(client: Client) -> None:
    await client.delete_stream("target", hard=True)


async def keep_one(client: Client) -> None:
    await client.set_stream_metadata("target", StreamMetadata(max_count=1))


async def truncate(client: Client) -> None:
    await client.set_stream_metadata("target", StreamMetadata(truncate_before=2))


async def leave_as_it_is(client: Client) -> None:
    """The link points to an event that never was."""


@every_way
@pytest.mark.parametrize(
    ("target", "spoil"),
    [
        pytest.param("0@target", soft_delete, id="LINK-03, soft deleted"),
        pytest.param("0@target", keep_one, id="LINK-03, maxCount"),
        pytest.param("0@target", truncate, id="LINK-03, tb"),
        pytest.param("7@target", leave_as_it_is, id="LINK-03, no such event"),
        pytest.param("0@other", leave_as_it_is, id="LINK-03, no such stream"),
        pytest.param("0@target", hard_delete, id="LINK-04"),
    ],
)
async def test_link_03_to_04_targets_that_are_not_there(
    target: str, spoil: Callable[[Client], Awaitable[None]], read: Read
) -> None:
    async with admin_client() as client:
        await write(client, "target", 3)
        await client.publish("links", [link(target)])
        await spoil(client)
        (event,) = await read(client)
        assert is_unresolved(event, target)
        assert (event.event_number, event.stream) == (0, "links")


@every_way
async def test_link_05_target_with_an_at_in_its_name(read: Read) -> None:
    """Persistent subscriptions are in the tests of those."""
    async with admin_client() as client:
        await write(client, "a@b", 1)
        await client.publish("links", [link("0@a@b")])
        (event,) = await read(client)
        assert (event.is_resolved, event.stream) == (True, "a@b")


@every_way
@pytest.mark.parametrize("payload", ["xyz@target", "5"])
async def test_link_06_payloads_that_point_nowhere(payload: str, read: Read) -> None:
    """A server was recorded to give both as unresolved links, other than the row has it."""
    async with admin_client() as client:
        await write(client, "target", 6)
        await client.publish("links", [link(payload)])
        (event,) = await read(client)
        assert is_unresolved(event, payload)


@every_way
async def test_link_07_exactly_one_step(read: Read) -> None:
    async with admin_client() as client:
        await write(client, "target", 1)
        await client.publish("inner", [link("0@target")])
        await client.publish("links", [link("0@inner")])
        (event,) = await read(client)
        assert event.is_resolved
        assert (event.event.stream, event.event.data) == ("inner", b"0@target")


@every_way
async def test_link_08_all_kinds_on_one_page(read: Read) -> None:
    async with admin_client() as client:
        await write(client, "target", 2)
        mixed = [
            NewEvent("plain", data=b"a"),
            link("1@target"),
            link("9@target"),
            NewEvent("plain", data=b"b"),
            link("0@target"),
        ]
        await client.publish("links", mixed)
        events = await read(client)
        assert numbers(events) == [0, 1, 2, 3, 4]
        assert [event.link is not None for event in events] == [False, True, True, False, True]
        assert [event.is_resolved for event in events] == [False, True, False, False, True]
        assert [event.data for event in events] == [b"a", b'{"n":1}', b"9@target", b"b", b'{"n":0}']


async def test_link_09_a_target_that_must_not_be_read() -> None:
    """As servers before 20 have it: one such link closes the page; pushes are not looked at."""
    async with node_and_admin() as (node, admin), connect(node, None) as anonymous:
        await write(admin, "target", 1)
        await admin.set_stream_metadata("target", StreamMetadata(acl=Acl(read="$admins")))
        async with await anonymous.subscribe_to("links") as subscription:
            await admin.publish("links", [NewEvent("plain"), link("0@target")])
            pushed = [await anext(subscription.events) for _ in range(2)]
        assert pushed[1].is_resolved
        for attempt in (
            anonymous.get("links"),
            anonymous.get("links", BACKWARD),
            anonymous.get_event("links", 1),
        ):
            with pytest.raises(AccessDenied):
                await attempt
        assert numbers(await anonymous.get("links", resolve_links=False)) == [0, 1]
        assert numbers(await admin.get("links")) == [0, 1]


# --- the log of all events ---


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


@pytest.mark.parametrize("hidden", [keep_one, truncate])
async def test_all_09_hidden_events(hidden: Callable[[Client], Awaitable[None]]) -> None:
    """maxAge is in test_trunc_11."""
    async with admin_client() as client:
        await client.publish("target", new_events(3))
        await hidden(client)
        assert numbers(await client.get("target")) == [2]
        log = [event async for event in client.iter_all()]
        assert numbers(event for event in log if event.stream == "target") == [0, 1, 2]


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
            (await client.publish("links", [link(target)])).position
            for target in ("0@target", "9@target")
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
