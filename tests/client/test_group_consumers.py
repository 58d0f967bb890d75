"""How consumers of a persistent subscription end, what they hold, how they come back."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from client.groupwire import (
    ACK,
    CONNECT,
    DROPPED,
    LEAVE,
    NAK,
    answered,
    come_back,
    confirm,
    consuming,
    push,
    take,
)
from client.peer import Request, connected, eventually, frame, outcome, soon
from client.subscribing import read_into

from fastpump import NakAction
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    MaximumSubscribersReached,
    OperationTimedOut,
    PersistentSubscriptionNotFound,
    RetriesLimitReached,
    UsageError,
)

# --- leaving ---


async def test_pp_15_answers_are_sent_before_it_leaves() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, *range(4)))
            first, second, _ = await take(subscription, 3)
            await subscription.ack(first)
            await subscription.nak(second, NakAction.Skip)
        assert answered(await link.expect(ACK)) == [0]
        assert answered(await link.expect(NAK)) == [1]
        assert (await link.expect(LEAVE)).id == request.id
        await subscription.unsubscribe()
        await subscription.ack(first)
        await subscription.ack(first.id)
        link.send_raw(push(request, 9))
        link.reply(request, DROPPED, reason=0)
        await link.nothing_more()
        assert [event async for event in subscription.events] == []


async def test_answers_are_sent_before_the_client_closes() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(4)))
        await subscription.ack((await take(subscription, 3))[:2])
    # Leaving the block above has closed the client.
    assert answered(await link.receive()) == [0, 1]
    await link.closed()


async def test_client_closed_while_it_is_open() -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        await confirm(link)
        subscription = await connecting
        waiting = soon(read_into([], subscription))
        await link.nothing_more()
        await client.close()
        assert isinstance(await outcome(waiting), ClientClosed)
        assert [event async for event in subscription.events] == []
        await subscription.unsubscribe()
        await subscription.ack(uuid4())
        assert isinstance(await outcome(client.connect_subscription("g", "s")), ClientClosed)


async def test_waiting_loop_ends_by_unsubscribe() -> None:
    async with consuming() as (subscription, _, link, _):
        reading = soon(read_into([], subscription))
        await link.nothing_more()
        await subscription.unsubscribe()
        await reading
        await link.expect(LEAVE)


async def test_one_loop_at_a_time() -> None:
    async with consuming() as (subscription, request, link, _):
        waiting = soon(read_into([], subscription))
        await link.nothing_more()
        with pytest.raises(UsageError, match="another loop"):
            await take(subscription)
        with pytest.raises(UsageError, match="has a loop"):
            await anext(subscription.slices())
        waiting.cancel()
        await asyncio.wait({waiting})
        link.send_raw(push(request, 0))
        assert [event.event_number for event in await take(subscription)] == [0]


async def test_slices_are_what_waits() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await link.nothing_more()
        batch = await anext(subscription.slices())
        assert [event.event_number for event in batch] == [0, 1, 2]
        await subscription.ack(batch)
        assert answered(await link.expect(ACK)) == [0, 1, 2]


# --- bounded memory ---


async def test_memory_is_bounded_by_the_limit() -> None:
    """Of more events than the limit the server has given up the oldest, and sends them again."""
    async with consuming(in_flight=4) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2, 3))
        for retry in range(1, 100):
            link.send_raw(push(request, 0, 1, 2, 3, retry_count=retry))
        link.send_raw(push(request, 4, 5))
        await link.nothing_more()
        events = await take(subscription, 4)
        assert [(e.event_number, e.retry_count) for e in events] == [
            (2, 99),
            (3, 99),
            (4, 0),
            (5, 0),
        ]
        waiting = soon(take(subscription))
        await link.nothing_more()
        assert not waiting.done()
        waiting.cancel()


async def test_other_operations_go_on_beside_a_consumer_that_stands_still() -> None:
    async with consuming(in_flight=2) as (_, request, link, peer):
        link.send_raw(push(request, *range(1000)))
        await link.nothing_more()
        assert peer.connections == 1


# --- reconnects ---


async def test_psub_31_pp_14_it_connects_again_by_itself() -> None:
    async with consuming() as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1))
        seen: list[tuple[int, int]] = []

        async def consume() -> None:
            async for event in subscription.events:
                seen.append((event.event_number, event.retry_count))
                if event.retry_count == 1:
                    await subscription.ack(event)

        consumer = soon(consume())
        await eventually(lambda: len(seen) == 2)
        second, link = await come_back(link, peer)
        assert second.fields == first.fields
        assert second.id != first.id
        link.send_raw(push(second, 0, 1, retry_count=1))
        ack = await link.expect(ACK)
        assert (ack.id, answered(ack)) == (second.id, [0, 1])
        assert seen == [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert subscription.conversation_id == UUID(bytes_le=second.id)
        await subscription.unsubscribe()
        await consumer
        assert (await link.expect(LEAVE)).id == second.id


async def test_psub_31_acks_of_the_old_connection_are_not_sent() -> None:
    async with consuming(in_flight=100) as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1, 2))
        old = await take(subscription, 2)
        await link.cut()
        await subscription.ack(old[0])  # gathered, or too late
        link = await peer.accept_and_greet()
        await subscription.ack(old)
        await subscription.nak(old[1].id)
        second = await confirm(link)
        await link.nothing_more()
        link.send_raw(push(second, 0, 1, retry_count=1))
        new = await take(subscription, 2)
        await subscription.ack(old)
        await subscription.nak(old)
        await link.nothing_more()
        await subscription.ack(new[0])
        await subscription.ack(new[1].id)
        ack = await link.expect(ACK)
        assert (ack.id, answered(ack)) == (second.id, [0, 1])
        await link.nothing_more()


async def test_what_waited_is_not_given_out_after_a_cut() -> None:
    async with consuming() as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1))
        await link.nothing_more()
        second, link = await come_back(link, peer)
        link.send_raw(push(second, 0, 1, 2, retry_count=1))
        events = await take(subscription, 3)
        assert [(event.event_number, event.retry_count) for event in events] == [
            (0, 1),
            (1, 1),
            (2, 1),
        ]


async def test_auto_ack_over_a_cut() -> None:
    async with consuming(auto_ack=True) as (subscription, first, link, peer):
        link.send_raw(push(first, 0))
        await take(subscription)
        second, link = await come_back(link, peer)
        link.send_raw(push(second, 0, 1, retry_count=1))
        await take(subscription, 2)
        assert answered(await link.expect(ACK)) == [0]  # of the second delivery
        await link.nothing_more()


async def test_many_cuts_while_it_connects() -> None:
    async with consuming(max_attempts=2) as (subscription, _, link, peer):
        for _ in range(5):
            await link.cut()
            link = await peer.accept_and_greet()
            await link.expect(CONNECT)
        request, link = await come_back(link, peer)
        link.send_raw(push(request, 7))
        assert [event.event_number for event in await take(subscription)] == [7]


async def test_cut_before_the_first_confirmation() -> None:
    async with connected() as (client, link, peer):
        connecting = soon(client.connect_subscription("g", "s"))
        first = await link.expect(CONNECT)
        await link.cut()
        link = await peer.accept_and_greet()
        second = await confirm(link)
        assert first.id != second.id
        assert (await connecting).conversation_id == UUID(bytes_le=second.id)


async def test_psub_07_deleted_while_it_was_away() -> None:
    async with consuming() as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept_and_greet()
        link.reply(await link.expect(CONNECT), DROPPED, reason=2)
        assert isinstance(await outcome(waiting), PersistentSubscriptionNotFound)
        assert [event async for event in subscription.events] == []


async def test_its_own_ghost_takes_its_place_for_a_while() -> None:
    """The server may not have noticed yet that the old connection is gone."""
    async with consuming() as (subscription, _, link, peer):
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(3):
            link.reply(await link.expect(CONNECT), DROPPED, reason=4)
        request = await confirm(link)
        link.send_raw(push(request, 0))
        assert [event.event_number for event in await take(subscription)] == [0]
        link.reply(request, DROPPED, reason=0)
        assert [event async for event in subscription.events] == []
        await subscription.unsubscribe()
        await link.nothing_more()


async def test_its_place_is_taken_by_another_one() -> None:
    async with consuming(max_attempts=2) as (subscription, _, link, peer):
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(2):
            link.reply(await link.expect(CONNECT), DROPPED, reason=4)
        error = await outcome(take(subscription))
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, MaximumSubscribersReached)


async def test_no_way_back() -> None:
    async with consuming(max_reconnects=1) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        peer._server.close()
        await link.cut()
        assert isinstance(await outcome(waiting), ConnectFailed)


async def test_outage_longer_than_an_operation_may_take() -> None:
    async with consuming(operation_timeout=0.2, max_reconnects=-1) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept()  # and no handshake
        await asyncio.sleep(0.5)
        await link.cut()
        link = await peer.accept_and_greet()
        link.send_raw(push(await confirm(link), 3))
        assert [event.event_number for event in await waiting] == [3]


async def test_no_confirmation_after_a_cut() -> None:
    async with consuming(operation_timeout=0.2, max_attempts=2) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(2):
            request = await link.expect(CONNECT)
            assert (await link.expect(LEAVE)).id == request.id, "it may have been heard"
        error = await outcome(waiting)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, OperationTimedOut)
        await link.nothing_more()


async def test_unsubscribed_while_the_connection_is_gone() -> None:
    async with consuming() as (subscription, request, link, peer):
        link.send_raw(push(request, 0))
        [event] = await take(subscription)
        await link.cut()
        link = await peer.accept()
        assert subscription.conversation_id is None
        assert repr(subscription) == "<PersistentSubscription s::g, connecting>"
        await subscription.ack(event)
        await subscription.unsubscribe()
        await link.handshake()
        await link.nothing_more()


async def test_pushes_cut_at_every_byte() -> None:
    whole = push(Request(CONNECT, 0, bytes(16), b""), 0, 1)
    async with consuming() as (subscription, request, link, peer):
        for cut in range(0, len(whole), 7):
            link.send_raw(push(request, 0, 1)[:cut])
            request, link = await come_back(link, peer)
        link.send_raw(push(request, 8, 9))
        seen = [event.event_number for event in await take(subscription, 2)]
        while seen[-2:] != [8, 9]:
            seen += [event.event_number for event in await take(subscription)]
        assert set(seen[:-2]) <= {0, 1}


async def test_push_in_single_bytes() -> None:
    async with consuming() as (subscription, request, link, _):
        for byte in push(request, 0, 1, retry_count=2):
            link.send_raw(bytes([byte]))
            await asyncio.sleep(0)
        events = await take(subscription, 2)
        assert [(event.event_number, event.retry_count) for event in events] == [(0, 2), (1, 2)]


async def test_heartbeats_beside_it() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(frame("HeartbeatRequest", bytes(16)) + push(request, 0))
        assert (await link.receive(heartbeats=True)).command == "HeartbeatResponse"
        await take(subscription)
