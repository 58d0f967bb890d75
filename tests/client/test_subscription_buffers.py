"""Pushes that wait in a subscription's buffer: how many may, and how much memory they hold."""

from __future__ import annotations

import tracemalloc

from client.pages import events_of, record, stream_page
from client.peer import Link, connected, eventually, frame, reply_to, soon
from client.subscribing import GARBAGE, READ, confirm, next_number, push, read_into

import fastpump

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
