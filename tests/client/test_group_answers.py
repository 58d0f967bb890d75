"""Acks and naks of a persistent subscription on the wire, given or automatic."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest
from client.groupwire import (
    ACK,
    LEAVE,
    NAK,
    PUSH,
    answered,
    consuming,
    push,
    take,
)
from client.pages import record
from client.peer import soon

from fastpump import (
    Event,
    NakAction,
    _answers,
)
from fastpump.exceptions import UsageError

# --- answers ---


async def test_acks_go_in_few_frames() -> None:
    """photon-pump sends one for each event."""
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(100)))
        for event in await take(subscription, 100):
            await subscription.ack(event)
        ack = await link.expect(ACK)
        assert ack.id == request.id
        assert answered(ack) == list(range(100))
        await link.nothing_more()


async def test_acks_in_a_loop_that_does_not_wait() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(100)))
        async for event in subscription.events:
            await subscription.ack(event)
            if event.event_number == 99:
                break
        assert answered(await link.expect(ACK)) == list(range(100))
        await link.nothing_more()


async def test_acks_in_a_loop_that_waits() -> None:
    """Those of half the limit go together: the server should not run out of slots."""
    async with consuming(in_flight=8) as (subscription, request, link, _):
        link.send_raw(push(request, *range(8)))
        frames = []
        async for event in subscription.events:
            await subscription.ack(event)
            await asyncio.sleep(0)
            if event.event_number == 7:
                break
        while sum(map(len, frames)) < 8:
            frames.append(answered(await link.expect(ACK)))
        assert list(chain(*frames)) == list(range(8))
        assert len(frames) <= 3


async def test_acks_of_half_the_limit_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_answers, "LONGEST_DELAY", 3600.0)
    async with consuming(in_flight=8) as (subscription, request, link, _):
        link.send_raw(push(request, *range(8)))
        for event in await take(subscription, 3):
            await subscription.ack(event)
        await link.nothing_more()
        await subscription.ack(await take(subscription, 1))
        assert answered(await link.expect(ACK)) == [0, 1, 2, 3]


async def test_ack_that_waits_for_others_is_sent_all_the_same() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await subscription.ack(await take(subscription, 1))
        assert answered(await link.expect(ACK)) == [0]


async def test_psub_25_at_most_2000_ids_in_a_frame() -> None:
    async with consuming(in_flight=5000) as (subscription, request, link, _):
        link.send_raw(push(request, *range(4500)))
        events = await take(subscription, 4500)
        for start in range(0, 4500, 1500):
            await subscription.ack(events[start : start + 1500])
        frames = [answered(await link.expect(ACK)) for _ in range(3)]
        assert [len(ids) for ids in frames] == [2000, 2000, 500]
        assert list(chain(*frames)) == list(range(4500))
        await link.nothing_more()


async def test_ack_of_one_of_many_of_ids_and_of_a_generator() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, *range(7)))
        events = await take(subscription, 7)
        await subscription.ack(events[0])
        await subscription.ack(events[1].id)
        await subscription.ack([events[2], events[3].id])
        await subscription.ack(event for event in events[4:6])
        await subscription.ack(events[6].detach())
        await subscription.ack([])
        assert answered(await link.expect(ACK)) == list(range(7))
        await link.nothing_more()


async def test_pp_14_psub_17_the_link_is_acknowledged() -> None:
    async with consuming() as (subscription, request, link, _):
        resolved = {"event": record("target", 5), "link": record("s", 1)}
        broken = {"link": record("s", 2)}
        for event in (resolved, broken):
            link.reply(request, PUSH, event=event, retryCount=0)
        first, second = await take(subscription, 2)
        assert (first.stream, first.event_number, first.is_resolved) == ("target", 1, True)
        assert (second.event_number, second.is_resolved) == (2, False)
        await subscription.ack([first, second])
        assert answered(await link.expect(ACK)) == [1, 2]


@pytest.mark.parametrize("action", list(NakAction))
async def test_nak(action: NakAction) -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        await subscription.nak(await take(subscription, 2), action, "größer")
        nak = await link.expect(NAK)
        assert nak.id == request.id
        assert answered(nak) == [0, 1]
        assert (nak.fields["action"], nak.fields["message"]) == (action, "größer")


async def test_naks_go_in_a_frame_for_each_reason() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, *range(6)))
        for event in await take(subscription, 6):
            if event.event_number == 5:
                await subscription.ack(event)
            else:
                await subscription.nak(event, NakAction.Park, f"odd {event.event_number % 2}")
        even = await link.expect(NAK)
        odd = await link.expect(NAK)
        assert (answered(even), even.fields["message"]) == ([0, 2, 4], "odd 0")
        assert (answered(odd), odd.fields["message"]) == ([1, 3], "odd 1")
        assert answered(await link.expect(ACK)) == [5]
        await link.nothing_more()


async def test_nak_retries_unless_told_otherwise() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0))
        await subscription.nak(await take(subscription))
        nak = await link.expect(NAK)
        assert (nak.fields["action"], nak.fields["message"]) == (NakAction.Retry, "")


async def test_psub_25_what_cannot_be_answered() -> None:
    async with consuming(in_flight=3000) as (subscription, request, link, _):
        link.send_raw(push(request, *range(2001)))
        events = await take(subscription, 2001)
        stranger = Event(events[0].event)
        for wrong in (None, 7, "an id", events[0].event, [events[0], None], stranger, events):
            with pytest.raises(UsageError, match="events: "):
                await subscription.ack(wrong)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="events: "):
                await subscription.nak(wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="action: "):
            await subscription.nak(events[0], 9)  # type: ignore[arg-type]
        for message in (None, "\ud800", "x" * 65_537):
            with pytest.raises(UsageError, match="message: "):
                await subscription.nak(events[0], NakAction.Park, message)  # type: ignore[arg-type]
        await link.nothing_more()


# --- acknowledging automatically ---


async def test_auto_ack_when_the_next_one_is_asked_for() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        assert subscription.auto_ack
        link.send_raw(push(request, 0, 1))
        await take(subscription)
        await link.nothing_more()
        await take(subscription)
        assert answered(await link.expect(ACK)) == [0]
        await link.nothing_more()
        waiting = soon(take(subscription))
        assert answered(await link.expect(ACK)) == [1]
        waiting.cancel()


async def test_auto_ack_of_slices() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await link.nothing_more()
        await subscription.nak((await anext(subscription.slices()))[1])
        waiting = soon(anext(subscription.slices()))  # type: ignore[arg-type]
        assert answered(await link.expect(NAK)) == [1]
        assert answered(await link.expect(ACK)) == [0, 2]
        waiting.cancel()


@pytest.mark.parametrize("by_id", [False, True])
async def test_auto_ack_not_of_what_was_answered(by_id: bool) -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        async for event in subscription.events:
            if event.event_number == 0:
                await subscription.nak(event.id if by_id else event, NakAction.Park)
            else:
                break
        assert answered(await link.expect(NAK)) == [0]
        await link.nothing_more()


async def test_psub_26_auto_ack_not_of_what_failed() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        for failing in (0, 1):
            with pytest.raises(ZeroDivisionError):
                async for event in subscription.events:
                    assert event.event_number == failing
                    1 / 0  # noqa: B018
        async for event in subscription.events:
            assert event.event_number == 2
            break
        await link.nothing_more()  # none was acknowledged, though another one was asked for
        await subscription.unsubscribe()
        await link.expect(LEAVE)


async def test_auto_ack_not_of_what_was_cancelled() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        reached = asyncio.Event()

        async def consume() -> None:
            async with subscription:
                async for event in subscription.events:
                    if event.event_number == 1:
                        reached.set()
                        await asyncio.Event().wait()

        consumer = soon(consume())
        await reached.wait()
        consumer.cancel()
        await asyncio.wait({consumer})
        assert answered(await link.expect(ACK)) == [0]
        await link.expect(LEAVE)
        await link.nothing_more()
