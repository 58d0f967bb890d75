"""Subscriptions against a scripted server: what is asked of it, and what it can say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from client.pages import all_page, events_of, record, stream_page
from client.peer import connected, outcome, reply_to, soon
from client.subscribing import (
    GARBAGE,
    READ,
    confirm,
    following_from,
    next_number,
    push,
    read_into,
    volatile,
)

import fastpump
from fastpump import Beginning
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    FastpumpError,
    NotAuthenticated,
    NotHandled,
    OperationTimedOut,
    PayloadUnreadable,
    ProtocolError,
    ReadError,
    StreamDeleted,
    SubscriptionCreationFailed,
    SubscriptionFailed,
    UnexpectedCommand,
)

# --- what is sent ---


@pytest.mark.parametrize("resolve", [True, False])
async def test_requests_to_subscribe(resolve: bool) -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s", -1, resolve))
        request = await confirm(link)
        assert request.fields == {"event_stream_id": "s", "resolve_link_tos": resolve}
        await subscribing
        soon_log = soon(client.subscribe_to_all(resolve_link_tos=resolve))
        request = await confirm(link, commit=7)
        assert request.fields == {"event_stream_id": "", "resolve_link_tos": resolve}
        assert (await soon_log).checkpoint == (7, 7)


@pytest.mark.parametrize("resolve", [True, False])
async def test_pp_12_batch_size_and_links_of_history(resolve: bool) -> None:
    events = events_of("s", 10)
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 2, resolve, batch_size=3)
        await link.nothing_more()
        reading = soon(next_number(subscription))
        request = await link.expect(READ)
        wanted = ("from_event_number", "max_count", "resolve_link_tos")
        assert [request.fields[name] for name in wanted] == [2, 3, resolve]
        link.send_raw(stream_page(request, events))
        assert await reading == 2
        await subscription.unsubscribe()


async def test_pp_15_unsubscribe_is_sent_once() -> None:
    async with volatile() as (subscription, request, link, _):
        async with subscription:
            await subscription.unsubscribe()
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        await link.nothing_more()


async def test_pp_15_leaving_sends_unsubscribe_once() -> None:
    async with volatile() as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, 0, 1))
            assert await next_number(subscription) == 0
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.nothing_more()
        assert [event async for event in subscription.events] == []


async def test_pp_15_waiting_loop_ends_by_unsubscribe() -> None:
    async with volatile() as (subscription, _, link, _):
        reading = soon(read_into([], subscription))
        await link.nothing_more()
        await subscription.unsubscribe()
        await reading
        await link.expect("UnsubscribeFromStream")


async def test_late_pushes_are_ignored() -> None:
    async with volatile() as (subscription, request, link, _):
        await subscription.unsubscribe()
        await link.expect("UnsubscribeFromStream")
        link.send_raw(push(request, 0))
        link.reply(request, last_commit_position=0)
        link.reply(request, "SubscriptionDropped", reason=0)
        link.send_raw(push(request, 1))
        link.reply(request, "SubscriptionDropped", reason=1)
        await link.nothing_more()
        assert [event async for event in subscription.events] == []


async def test_what_is_under_way_after_unsubscribe_is_not_unknown() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        await (await subscribing).unsubscribe()
        link.send_raw(push(request, 0, 1))
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.expect("UnsubscribeFromStream")
        await link.nothing_more()
        assert client.stats().unknown_frames == 0
        link.send_raw(push(request, 2))
        await link.nothing_more()
        assert client.stats().unknown_frames == 1


@pytest.mark.parametrize("start", [-1, 0])
async def test_cancelled_before_the_confirmation(start: int) -> None:
    async with connected() as (client, link, _):
        following = await following_from(client, link, start)
        request = await link.expect("SubscribeToStream")
        following.cancel()
        await asyncio.wait({following})
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        link.reply(request, last_commit_position=0)
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.nothing_more()


async def test_cancelled_before_the_confirmation_and_then_cut() -> None:
    async with connected() as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        await link.expect("SubscribeToStream")
        subscribing.cancel()
        await link.expect("UnsubscribeFromStream")
        await link.cut()
        link = await peer.accept_and_greet()
        await link.nothing_more()


async def test_unsubscribed_before_the_confirmation() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0)
        reading = soon(read_into([], subscription))
        link.reply(await link.expect(READ), result=1)
        request = await link.expect("SubscribeToStream")
        await subscription.unsubscribe()
        await reading
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        await link.nothing_more()


async def test_unsubscribed_before_the_confirmation_in_an_empty_log() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to_all(Beginning)
        reading = soon(read_into([], subscription))
        link.send_raw(all_page(await link.expect("ReadAllEventsForward"), 0))
        await link.expect("SubscribeToStream")
        await subscription.unsubscribe()
        await reading
        await link.expect("UnsubscribeFromStream")
        await link.nothing_more()


async def test_unsubscribed_in_history() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0, batch_size=2)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 3)))
        request = await link.expect(READ)
        await subscription.unsubscribe()
        await reading  # it does not wait for the page
        assert seen == [0, 1]
        link.send_raw(stream_page(request, events_of("s", 3)))
        await link.nothing_more()


async def test_unsubscribed_after_a_second_request() -> None:
    # The id to unsubscribe is that of the request that was confirmed, not of the first one.
    async with connected() as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        first = await link.expect("SubscribeToStream")
        link.reply(first, "NotHandled", reason=0)
        second = await link.expect("SubscribeToStream")
        await link.cut()
        link = await peer.accept_and_greet()
        third = await confirm(link)
        assert len({first.id, second.id, third.id}) == 3
        await (await subscribing).unsubscribe()
        assert (await link.expect("UnsubscribeFromStream")).id == third.id
        await link.nothing_more()


async def test_no_confirmation_in_time() -> None:
    options = {"operation_timeout": 0.2, "fail_on_no_response": True}
    async with connected(**options) as (client, link, _):
        subscribing = soon(client.subscribe_to("s"))
        request = await link.expect("SubscribeToStream")
        assert isinstance(await outcome(subscribing), OperationTimedOut)
        # It may have been heard.
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        await link.nothing_more()


# --- what the server can say ---


@pytest.mark.parametrize("start", [-1, 0])
@pytest.mark.parametrize(
    ("command", "fields", "kind"),
    [
        ("SubscriptionDropped", {"reason": 0}, SubscriptionCreationFailed),
        ("SubscriptionDropped", {"reason": 1}, AccessDenied),
        ("SubscriptionDropped", {"reason": 2}, SubscriptionCreationFailed),
        ("SubscriptionDropped", {"reason": 77}, SubscriptionCreationFailed),
        ("BadRequest", {}, BadRequest),
        ("NotAuthenticated", {}, NotAuthenticated),
        ("NotHandled", {"reason": 42}, NotHandled),
        ("Pong", {}, UnexpectedCommand),
    ],
)
async def test_vsub_08_pp_15_csub_10_refused(
    start: int, command: str, fields: dict[str, Any], kind: type[FastpumpError]
) -> None:
    async with connected() as (client, link, _):
        following = await following_from(client, link, start)
        link.reply(await link.expect("SubscribeToStream"), command, **fields)
        assert type(await outcome(following)) is kind
        await link.nothing_more()  # nothing to unsubscribe from


@pytest.mark.parametrize(
    ("command", "fields", "kind"),
    [
        ("SubscriptionDropped", {"reason": 0}, None),
        ("SubscriptionDropped", {}, None),
        ("SubscriptionDropped", {"reason": 1}, AccessDenied),
        ("SubscriptionDropped", {"reason": 2}, SubscriptionFailed),
        ("SubscriptionDropped", {"reason": 77}, SubscriptionFailed),
        ("BadRequest", {}, BadRequest),
        ("NotAuthenticated", {}, NotAuthenticated),
        ("NotHandled", {"reason": 0}, fastpump.exceptions.NotReady),
        ("Pong", {}, UnexpectedCommand),
    ],
)
async def test_vsub_09_pp_15_dropped(
    command: str, fields: dict[str, Any], kind: type[FastpumpError] | None
) -> None:
    async with volatile() as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, 0, 1))
            link.reply(request, command, **fields)
            seen: list[int] = []
            error = await outcome(read_into(seen, subscription))
            assert type(error) is (type(None) if kind is None else kind)
            assert seen == [0, 1], "what came before it"
            assert [event async for event in subscription.events] == []
        await link.nothing_more()  # nothing to unsubscribe from


@pytest.mark.parametrize("what", ["an event", "the end"])
async def test_what_comes_just_when_it_is_unsubscribed(what: str) -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        subscription = await subscribing
        seen: list[int] = []
        following = soon(read_into(seen, subscription))

        async def leave() -> None:
            await client.ping()
            await subscription.unsubscribe()

        leaving = soon(leave())
        ping = await link.expect("Ping")
        dropped = reply_to(request, "SubscriptionDropped", reason=1)
        # The loop is woken, but does not run before the subscription is left.
        link.send_raw(reply_to(ping) + (dropped if what == "the end" else push(request, 0)))
        await asyncio.gather(leaving, following)
        assert seen == []


async def test_reason_has_a_name() -> None:
    async with volatile() as (subscription, request, link, _):
        link.reply(request, "SubscriptionDropped", reason=2)
        with pytest.raises(SubscriptionFailed, match="'s': NotFound"):
            await next_number(subscription)


async def test_pp_12_confirmed_twice() -> None:
    async with volatile() as (subscription, request, link, _):
        link.send_raw(push(request, 0))
        link.reply(request, last_commit_position=9, last_event_number=9)
        link.send_raw(push(request, 1))
        assert [await next_number(subscription) for _ in range(2)] == [0, 1]
        await subscription.unsubscribe()


async def test_pushed_before_the_confirmation() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s"))
        link.send_raw(push(await link.expect("SubscribeToStream"), 0))
        assert isinstance(await outcome(subscribing), UnexpectedCommand)


@pytest.mark.parametrize("command", ["StreamEventAppeared", "SubscriptionDropped"])
async def test_unreadable(command: str) -> None:
    async with volatile() as (subscription, request, link, peer):
        link.send_raw(push(request, 0))
        assert await next_number(subscription) == 0
        link.send(command, request.id, GARBAGE)
        assert isinstance(await outcome(next_number(subscription)), PayloadUnreadable)
        await (await peer.accept_and_greet()).nothing_more()


async def test_pushes_of_the_log_that_do_not_tell_where_they_lie() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to_all())
        request = await confirm(link, commit=7)
        async with await subscribing as subscription:
            link.reply(request, "StreamEventAppeared", event={"event": record("s", 0)})
            with pytest.raises(ProtocolError, match="does not tell its position"):
                await next_number(subscription)
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        await link.nothing_more()


async def test_unreadable_confirmation() -> None:
    async with connected() as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        request = await link.expect("SubscribeToStream")
        link.send("SubscriptionConfirmation", request.id, GARBAGE)
        assert isinstance(await outcome(subscribing), PayloadUnreadable)
        await (await peer.accept_and_greet()).nothing_more()


@pytest.mark.parametrize("start", [-1, 0])
async def test_csub_09_deleted_says_the_confirmation(start: int) -> None:
    async with connected() as (client, link, _):
        following = await following_from(client, link, start)
        await confirm(link, last=2**63 - 1)
        assert isinstance(await outcome(following), StreamDeleted)
        await link.expect("UnsubscribeFromStream")
        await link.nothing_more()


@pytest.mark.parametrize("failing", [0, 1, 2])
async def test_csub_10_page_that_fails(failing: int) -> None:
    """The first page, the second one, or the one behind the confirmation."""
    events = events_of("s", 4)

    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0, batch_size=2)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        for _ in range(failing):
            link.send_raw(stream_page(await link.expect(READ), events))
        if failing == 2:
            await confirm(link, last=5)
        link.reply(await link.expect(READ), result=4, error="disk on fire")
        assert isinstance(await outcome(reading), ReadError)
        assert seen == [0, 1, 2, 3][: 2 * failing]
        assert not subscription.is_live
        assert not await subscription.caught_up()
        if failing == 2:
            await link.expect("UnsubscribeFromStream")
        await link.nothing_more()


async def test_history_without_an_answer() -> None:
    options = {"operation_timeout": 0.2, "fail_on_no_response": True}
    async with connected(**options) as (client, link, _):
        subscription = await client.subscribe_to("s", 0)
        reading = soon(next_number(subscription))
        await link.expect(READ)
        assert isinstance(await outcome(reading), OperationTimedOut)
