"""LINK: events that point to others, by all ways of reading them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from acceptance.scenes import (
    BACKWARD,
    admin_client,
    connect,
    node_and_admin,
    numbers,
    take,
    write,
)

from fastpump import (
    AccessDenied,
    Acl,
    Client,
    Event,
    NewEvent,
    NewEventData,
    PersistentSubscriptionSettings,
    StreamDirection,
    StreamMetadata,
)

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
    stored = await client.get("links", resolve_links=False)
    async with await client.subscribe_to("links", start_from=0) as subscription:
        return await take(subscription, "links", len(stored))


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


@every_way
async def test_link_01_resolved(read: Read) -> None:
    """The target, and the link it was reached by."""
    async with admin_client() as client:
        await write(client, "target", 3)
        written = await client.publish("links", [NewEvent("plain"), link("1@target")])
        event = (await read(client))[1]
        assert event.is_resolved
        assert event.event.event_number == 1
        assert (event.stream, event.json()) == ("target", {"n": 1})
        assert event.link is not None
        assert (event.link.stream, event.link.type, event.link.data) == ("links", "$>", b"1@target")
        assert event.received_event == event.link
        assert event.event_number == event.link.event_number == 1
        assert event.position in (None, written.position)


async def test_link_02_not_resolved() -> None:
    async with admin_client() as client:
        await write(client, "target", 1)
        await client.publish("links", [link("0@target")])
        by_number = await client.get_event("links", 0, resolve_links=False)
        log = await client.get_all(BACKWARD, max_count=1, resolve_links=False)
        pages = [await client.get("links", way, resolve_links=False) for way in StreamDirection]
        for event in (by_number, log[0], pages[0][0], pages[1][0]):
            assert event is not None
            assert (event.is_resolved, event.link, event.data) == (False, None, b"0@target")


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
    async with admin_client() as client:
        await write(client, "a@b", 1)
        await client.publish("links", [link("0@a@b")])
        (event,) = await read(client)
        assert (event.is_resolved, event.stream) == (True, "a@b")


async def test_link_05_persistent_subscriptions() -> None:
    """Before 20, what is stored is resolved too, as was recorded, and only live pushes are not."""
    settings = PersistentSubscriptionSettings(resolve_links=True, start_from=0)
    async with admin_client() as client:
        await write(client, "a@b", 1)
        await client.publish("links", [link("0@a@b")])
        await client.create_subscription("group", "links", settings=settings)
        async with await client.connect_subscription("group", "links") as consumer:
            stored = await anext(consumer.events)
            assert (stored.is_resolved, stored.stream) == (True, "a@b")
            await consumer.ack(stored)
            await client.publish("links", [link("0@a@b")])
            assert is_unresolved(await anext(consumer.events), "0@a@b")


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
