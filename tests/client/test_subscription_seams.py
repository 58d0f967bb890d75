"""Where pages and pushes of a subscription meet: no gap and no event twice, wherever it is cut."""

from __future__ import annotations

import asyncio

import pytest
from client.pages import all_page, events_of, stream_page
from client.peer import Link, Request, connected, eventually, outcome, reply_to, serving, soon
from client.subscribing import READ, confirm, next_number, push, read_into, volatile

from fastpump import Beginning
from fastpump.exceptions import RetriesLimitReached
from fastpump.subscriptions import Subscription

# --- from history into live ---


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
