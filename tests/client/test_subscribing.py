"""Subscriptions against a scripted server: what they say to it, and what it can say to them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from client.pages import all_page, events_of, record, stream_page
from client.peer import (
    Link,
    Peer,
    Request,
    connected,
    eventually,
    frame,
    outcome,
    reply_to,
    serving,
    soon,
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
    RetriesLimitReached,
    StreamDeleted,
    SubscriptionCreationFailed,
    SubscriptionFailed,
    UnexpectedCommand,
)
from fastpump.subscriptions import Subscription

READ = "ReadStreamEventsForward"
GARBAGE = b"\x0a\xff"


def push(request: Request, *numbers: int, stream: str = "s") -> bytes:
    """Pushes for a request to subscribe; the event n is at position n + 1."""
    return b"".join(
        reply_to(
            request,
            "StreamEventAppeared",
            event={
                "event": record(stream, number),
                "commit_position": number + 1,
                "prepare_position": number + 1,
            },
        )
        for number in numbers
    )


async def read_into(seen: list[int], subscription: Subscription) -> None:
    async for event in subscription.events:
        seen.append(event.event_number)


async def next_number(subscription: Subscription) -> int:
    return (await anext(subscription.events)).event_number


async def confirm(link: Link, last: int = -1, commit: int = 0) -> Request:
    request = await link.expect("SubscribeToStream")
    link.reply(request, last_commit_position=commit, last_event_number=last)
    return request


@asynccontextmanager
async def volatile(
    **options: Any,
) -> AsyncIterator[tuple[Subscription, Request, Link, Peer]]:
    """A confirmed subscription to what is new in "s"."""
    async with connected(**options) as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        yield await subscribing, request, link, peer


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
        assert client._dispatcher is not None
        link.send_raw(push(request, 0, 1))
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.expect("UnsubscribeFromStream")
        await link.nothing_more()
        assert client._dispatcher.unknown_frames == 0
        link.send_raw(push(request, 2))
        await link.nothing_more()
        assert client._dispatcher.unknown_frames == 1


@pytest.mark.parametrize("start", [-1, 0])
async def test_cancelled_before_the_confirmation(start: int) -> None:
    async with connected() as (client, link, _):

        async def follow() -> None:
            async with await client.subscribe_to("s", start) as subscription:
                await next_number(subscription)

        following = soon(follow())
        if start == 0:
            link.reply(await link.expect(READ), result=1)
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

        async def follow() -> None:
            async with await client.subscribe_to("s", start) as subscription:
                await next_number(subscription)

        following = soon(follow())
        if start == 0:
            link.reply(await link.expect(READ), result=1)
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

        async def follow() -> None:
            async with await client.subscribe_to("s", start) as subscription:
                await next_number(subscription)

        following = soon(follow())
        if start == 0:
            link.reply(await link.expect(READ), result=1)
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


# --- the seam ---


@pytest.mark.parametrize("pushed", [(6, 7), (4, 5, 6, 7), (3, 3, 4, 5, 5, 6, 7, 7)])
async def test_csub_11_between_page_and_confirmation(pushed: tuple[int, ...]) -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 3)))
        request = await confirm(link, last=4)
        link.send_raw(push(request, *pushed))
        again = await link.expect(READ)
        assert again.fields["from_event_number"] == 3
        assert not subscription.is_live
        link.send_raw(stream_page(again, events_of("s", 6)))
        await eventually(lambda: len(seen) == 8)
        await eventually(lambda: subscription.is_live)
        link.send_raw(push(request, 7, 8))
        await eventually(lambda: seen[-1] == 8)
        await subscription.unsubscribe()
        await reading
        assert seen == list(range(9))


async def test_csub_11_between_page_and_confirmation_of_the_log() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to_all(Beginning, batch_size=3)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        for count in (3, 3):
            link.send_raw(all_page(await link.expect("ReadAllEventsForward"), count))
        request = await confirm(link, commit=5)
        link.send_raw(push(request, 5, 6))
        for _ in range(3):
            link.send_raw(all_page(await link.expect("ReadAllEventsForward"), 6))
        await eventually(lambda: len(seen) == 7)
        await subscription.unsubscribe()
        await reading
        assert seen == list(range(7))


async def test_nothing_new_since_the_last_page_is_not_read_again() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0)
        reading = soon(read_into([], subscription))
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 3)))
        await confirm(link, last=2)
        await link.nothing_more()
        assert subscription.is_live
        await subscription.unsubscribe()
        await reading


async def wait_in_vain(subscription: Subscription, link: Link, command: str) -> Request:
    """A wait for the next event that is cancelled when its request has arrived."""
    waiting = soon(next_number(subscription))
    request = await link.expect(command)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    return request


async def test_waits_shorter_than_the_way_to_the_server_and_back() -> None:
    async with connected() as (client, link, _):
        async with await client.subscribe_to("s", 0) as subscription:
            request = await wait_in_vain(subscription, link, READ)
            link.send_raw(stream_page(request, events_of("s", 1)))
            assert await next_number(subscription) == 0
            subscribe = await wait_in_vain(subscription, link, "SubscribeToStream")
            link.reply(subscribe, last_commit_position=1, last_event_number=1)
            request = await wait_in_vain(subscription, link, READ)
            link.send_raw(push(subscribe, 1) + push(subscribe, 2))
            link.send_raw(stream_page(request, events_of("s", 2)))
            assert [await next_number(subscription) for _ in range(2)] == [1, 2]
            await link.nothing_more()


# --- connections that are lost ---


@pytest.mark.parametrize("attempts", [1, 11])
@pytest.mark.parametrize("moment", ["history", "subscribing", "bridging", "live", "pushed"])
async def test_csub_16_pp_13_cut(moment: str, attempts: int) -> None:
    events = events_of("s", 5)
    async with connected(max_attempts=attempts) as (client, link, peer):
        subscription = await client.subscribe_to("s", 0, batch_size=2)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.send_raw(stream_page(await link.expect(READ), events[:3]))
        request = await link.expect(READ)
        if moment != "history":
            link.send_raw(stream_page(request, events[:3]))
            request = await link.expect("SubscribeToStream")
            if moment != "subscribing":
                last = 3 if moment == "bridging" else 2
                link.reply(request, last_commit_position=1, last_event_number=last)
                if moment == "bridging":
                    await link.expect(READ)
                    link.send_raw(push(request, 4))
                elif moment == "pushed":
                    link.send_raw(push(request, 3) + push(request, 4)[:-1])
        await link.cut()
        link = await peer.accept_and_greet()
        assert not subscription.is_live

        def answer(request: Request) -> bytes | None:
            if request.command == READ:
                return stream_page(request, events)
            if request.command == "SubscribeToStream":
                return reply_to(request, last_event_number=4, last_commit_position=1) + push(
                    request, 5
                )
            return None

        async with serving(link, answer) as requests:
            await eventually(lambda: len(seen) == 6)
            await subscription.unsubscribe()
            await reading
            assert seen == list(range(6))
            await eventually(lambda: requests[-1].command == "UnsubscribeFromStream")
            commands = [request.command for request in requests]
            assert commands.count("UnsubscribeFromStream") == 1


async def test_pushes_of_a_lost_connection_make_no_gap() -> None:
    """The other node does not have all yet that the first one pushed."""
    async with connected() as (client, link, peer):
        subscription = await client.subscribe_to("s", 0)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.reply(await link.expect(READ), result=1)
        request = await confirm(link, last=2)
        await link.expect(READ)
        link.send_raw(push(request, 3, 4))
        await link.cut()
        link = await peer.accept_and_greet()
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 2)))
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 2)))
        request = await confirm(link, last=1)
        link.send_raw(push(request, 2, 3, 4))
        await eventually(lambda: len(seen) == 5)
        await subscription.unsubscribe()
        await reading
        assert seen == [0, 1, 2, 3, 4]


async def test_cut_before_the_loop() -> None:
    async with volatile() as (subscription, request, link, peer):
        link.send_raw(push(request, 0))
        await link.cut()
        link = await peer.accept_and_greet()
        await eventually(lambda: not subscription.is_live)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.send_raw(stream_page(await link.expect(READ), events_of("s", 2)))
        await confirm(link, last=1)
        await eventually(lambda: subscription.is_live)
        await subscription.unsubscribe()
        await reading
        assert seen == [0, 1]


async def test_cut_too_often_before_the_confirmation() -> None:
    async with connected(max_attempts=1) as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        await link.expect("SubscribeToStream")
        await link.cut()
        assert isinstance(await outcome(subscribing), RetriesLimitReached)
        await (await peer.accept_and_greet()).nothing_more()


@pytest.mark.parametrize("moment", ["history", "subscribing"])
async def test_outage_longer_than_an_operation_may_take(moment: str) -> None:
    async with connected(operation_timeout=0.2, max_reconnects=-1) as (client, link, peer):
        subscription = await client.subscribe_to("s", 0)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        request = await link.expect(READ)
        if moment == "subscribing":
            link.send_raw(stream_page(request, events_of("s", 1)))
            await link.expect("SubscribeToStream")
        await link.cut()
        link = await peer.accept()  # and no handshake
        await asyncio.sleep(0.5)
        await link.cut()
        link = await peer.accept_and_greet()

        def answer(request: Request) -> bytes | None:
            if request.command == READ:
                return stream_page(request, events_of("s", 2))
            if request.command == "UnsubscribeFromStream":
                return reply_to(request)
            return reply_to(request, last_event_number=1, last_commit_position=1)

        async with serving(link, answer):
            await eventually(lambda: subscription.is_live)
            await subscription.unsubscribe()
            await reading
        assert seen == [0, 1]


async def test_pushes_cut_at_every_byte() -> None:
    """Each connection ends one byte later in the third push of four."""
    async with connected(max_attempts=1) as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        subscription = await subscribing
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        first = 0
        length = len(push(request, 2))
        for size in range(length):
            pushes = [push(request, first + index) for index in range(3)]
            link.send_raw(b"".join(pushes[:2]) + pushes[2][:size])
            await link.cut()
            link = await peer.accept_and_greet()
            first += 3
            # What was cut off is history now.
            read = await link.expect(READ)
            assert read.fields["from_event_number"] == first - 1
            link.send_raw(stream_page(read, events_of("s", first)))
            request = await confirm(link, last=first - 1)
        await eventually(lambda: len(seen) == first)
        await subscription.unsubscribe()
        await reading
        assert seen == list(range(3 * length))


async def test_push_in_single_bytes() -> None:
    async with volatile() as (subscription, request, link, _):
        for byte in push(request, 0, 1):
            link.send_raw(bytes([byte]))
            await asyncio.sleep(0)
        assert [await next_number(subscription) for _ in range(2)] == [0, 1]
        await subscription.unsubscribe()


# --- slow consumers ---


async def test_csub_13_overflow_asks_the_server_to_stop() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s", buffer_events=3))
        request = await confirm(link)
        subscription = await subscribing
        link.send_raw(push(request, 0, 1))
        await link.nothing_more()
        link.send_raw(push(request, 2, 3))
        assert (await link.expect("UnsubscribeFromStream")).id == request.id
        assert not subscription.is_live
        link.send_raw(push(request, 4, 5, 6))
        link.reply(request, "SubscriptionDropped", reason=0)
        await link.nothing_more()
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        read = await link.expect(READ)
        assert seen == [0, 1, 2, 3]
        assert read.fields["from_event_number"] == 4
        link.send_raw(stream_page(read, events_of("s", 7)))
        request = await confirm(link, last=6)
        link.send_raw(push(request, 7))
        await eventually(lambda: len(seen) == 8)
        await subscription.unsubscribe()
        await reading
        assert seen == list(range(8))
        assert (await link.expect("UnsubscribeFromStream")).id == request.id


async def test_csub_13_overflow_while_bridging() -> None:
    async with connected() as (client, link, _):
        subscription = await client.subscribe_to("s", 0, buffer_events=2)
        seen: list[int] = []
        reading = soon(read_into(seen, subscription))
        link.reply(await link.expect(READ), result=1)
        request = await confirm(link, last=0)
        late = await link.expect(READ)
        link.send_raw(push(request, 1, 2, 3))
        await link.expect("UnsubscribeFromStream")
        link.send_raw(frame("StreamEventAppeared", request.id, GARBAGE))
        link.send_raw(stream_page(late, events_of("s", 1)))
        read = await link.expect(READ)
        assert read.fields["from_event_number"] == 4
        assert seen == [0, 1, 2, 3]
        link.send_raw(stream_page(read, events_of("s", 4)))
        await confirm(link, last=3)
        await eventually(lambda: subscription.is_live)
        await subscription.unsubscribe()
        await reading


# --- memory ---


async def with_other_traffic(client: fastpump.Client, link: Link, pushes: list[bytes]) -> int:
    """Send each push together with 100 KiB that nobody keeps; by how many bytes memory grew."""
    tracemalloc.start()
    try:
        for each in pushes:
            ping = soon(client.ping())
            request = await link.expect("Ping")
            link.send_raw(each)
            link.send("Pong", request.id, bytes(100 * 1024))
            await ping
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


async def test_pushes_that_wait_hold_nothing_else() -> None:
    async with connected() as (client, link, _):
        subscribing = soon(client.subscribe_to("s"))
        request = await confirm(link)
        subscription = await subscribing
        pushes = [push(request, number) for number in range(200)]
        assert await with_other_traffic(client, link, pushes) < 4 * 1024 * 1024
        assert [await next_number(subscription) for _ in pushes] == list(range(200))
        await subscription.unsubscribe()


async def test_deliveries_that_wait_hold_nothing_else() -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s", in_flight=200))
        request = await link.expect("ConnectToPersistentSubscription")
        link.reply(request, subscription_id="s::g", last_commit_position=7)
        command = "PersistentSubscriptionStreamEventAppeared"
        pushes = [
            reply_to(request, command, event={"event": record("s", number)}, retryCount=number % 3)
            for number in range(200)
        ]
        async with await connecting as subscription:
            assert await with_other_traffic(client, link, pushes) < 4 * 1024 * 1024
            events = [await anext(subscription.events) for _ in pushes]
            assert [event.event_number for event in events] == list(range(200))
            assert [event.retry_count for event in events] == [n % 3 for n in range(200)]
            await subscription.ack(events)
            acked = await link.expect("PersistentSubscriptionAckEvents")
            ids = [event.received_event.id.bytes_le for event in events]
            assert acked.fields["processed_event_ids"] == ids
