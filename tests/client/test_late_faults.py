"""Events that turn out to be unreadable when they are taken, in pages whose outside was right."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from client.pages import Fields, record, stream_page
from client.peer import Request, connected, reply_to, serving, soon
from client.subscribing import READ, read_into

from fastpump.exceptions import ProtocolError

BROKEN = 2
"""The number of the event that is broken, of five."""


def fields(number: int) -> Fields:
    return record("s", number, **({"event_id": b"too short"} if number == BROKEN else {}))


EVENTS = [{"event": fields(number)} for number in range(5)]


async def test_a_page_gives_what_can_be_read() -> None:
    async with connected() as (client, link, peer):
        reading = soon(client.get("s"))
        link.send_raw(stream_page(await link.expect(READ), EVENTS))
        page = await reading
        assert len(page) == 5
        assert [page[n].event_number for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
        whatever_takes_it: list[Any] = [
            lambda: page[BROKEN],
            lambda: page[1:4],
            lambda: list(page),
            lambda: pickle.dumps(page),
        ]
        for take in whatever_takes_it:
            with pytest.raises(ProtocolError, match="an id is not 16 bytes long") as caught:
                take()
            assert caught.value.offset is not None
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping
        assert peer.connections == 1, "the frames were right"


async def test_a_loop_ends_with_it() -> None:
    def page(request: Request) -> bytes:
        return stream_page(request, EVENTS)

    async with connected() as (client, link, peer), serving(link, page):
        events = client.iter("s")
        seen = []
        with pytest.raises(ProtocolError, match="16 bytes"):
            async for event in events:
                seen.append(event.event_number)
        assert seen == [0, 1]
        assert [event async for event in events] == []
        assert peer.connections == 1


async def test_history_of_a_subscription() -> None:
    async with connected() as (client, link, peer):
        async with await client.subscribe_to("s", start_from=0) as subscription:
            seen: list[int] = []
            following = soon(read_into(seen, subscription))
            link.send_raw(stream_page(await link.expect(READ), EVENTS))
            with pytest.raises(ProtocolError, match="16 bytes"):
                await following
            assert (seen, subscription.checkpoint) == ([0, 1], 1)
            await read_into(seen, subscription)
            assert seen == [0, 1], "it is over"
        await link.nothing_more()
        assert peer.connections == 1


async def test_pushes_of_a_subscription() -> None:
    async with connected() as (client, link, peer):
        subscribing = soon(client.subscribe_to("s"))
        request = await link.expect("SubscribeToStream")
        link.reply(request, last_commit_position=0, last_event_number=-1)
        async with await subscribing as subscription:
            pushes = b""
            for number in (1, BROKEN, 3):
                place = {"commit_position": number, "prepare_position": number}
                event = {"event": fields(number), **place}
                pushes += reply_to(request, "StreamEventAppeared", event=event)
            link.send_raw(pushes)
            assert (await anext(subscription.events)).event_number == 1
            with pytest.raises(ProtocolError, match="16 bytes"):
                await anext(subscription.events)
            await link.expect("UnsubscribeFromStream")
            assert subscription.checkpoint == 1
        assert peer.connections == 1


@pytest.mark.parametrize("waiting", [[], [0]], ids=["none", "one"])
async def test_pushes_of_a_persistent_subscription(waiting: list[int]) -> None:
    async with connected() as (client, link, peer):
        connecting = soon(client.connect_subscription("g", "s"))
        request = await link.expect("ConnectToPersistentSubscription")
        link.reply(request, subscription_id="s::g", last_commit_position=7)
        async with await connecting as subscription:
            for number in (*waiting, 1, BROKEN, 3):
                push = "PersistentSubscriptionStreamEventAppeared"
                link.send_raw(reply_to(request, push, event={"event": fields(number)}))
            await link.expect("UnsubscribeFromStream")
            for number in (*waiting, 1):
                assert (await anext(subscription.events)).event_number == number
            with pytest.raises(ProtocolError, match="16 bytes"):
                await anext(subscription.events)
        await link.nothing_more()
        assert peer.connections == 1
