"""Signs of life over a real connection; `test_protocol` has their times."""

from __future__ import annotations

import asyncio
import logging

import pytest
from client.pages import events_of, stream_page
from client.peer import connected, reply_to, serving, soon


async def test_conn_11_answered_with_the_same_id() -> None:
    async with connected() as (_, link, _):
        link.send("HeartbeatRequest", b"0123456789abcdef")
        answer = await link.expect("HeartbeatResponse")
        assert (answer.id, answer.payload) == (b"0123456789abcdef", b"")


async def test_conn_11_answered_while_a_consumer_is_busy() -> None:
    async with connected() as (client, link, _):
        taken = asyncio.Event()

        async def consume() -> None:
            async for _ in client.iter("s", batch_size=10):
                taken.set()
                await asyncio.get_running_loop().create_future()

        consumer = soon(consume())
        request = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(request, events_of("s", 100)))
        await taken.wait()
        link.send("HeartbeatRequest", b"0123456789abcdef")
        while (answer := await link.receive(heartbeats=True)).command != "HeartbeatResponse":
            assert answer.command == "ReadStreamEventsForward"
        assert answer.id == b"0123456789abcdef"
        consumer.cancel()


async def test_conn_11_answered_in_the_middle_of_large_replies() -> None:
    async with connected() as (client, link, _):
        reading = soon(client.get("s"))
        request = await link.expect("ReadStreamEventsForward")
        page = stream_page(request, events_of("s", 3, bytes(5_000_000)))
        for _ in range(3):
            link.send_raw(page[:-1].replace(request.id, bytes(16), 1) + page[-1:])
            link.send("HeartbeatRequest", b"0123456789abcdef")
        link.send_raw(page)
        for _ in range(3):
            assert (await link.expect("HeartbeatResponse")).id == b"0123456789abcdef"
        assert [len(event.data) for event in await reading] == [5_000_000] * 3


async def test_conn_12_sent_when_the_server_is_silent() -> None:
    async with connected(heartbeat_interval=0.02, heartbeat_timeout=30) as (_, link, peer):
        for _ in range(3):
            heartbeat = await link.expect("HeartbeatRequest")
            link.send("HeartbeatResponse", heartbeat.id)
        assert peer.connections == 1


async def test_conn_12_silence_ends_the_connection() -> None:
    async with connected(heartbeat_interval=0.05, heartbeat_timeout=0.05) as (client, link, peer):
        ping = soon(client.ping())
        await link.closed()
        again = await peer.accept_and_greet()
        async with serving(again, reply_to):
            await ping


async def test_heartbeats_are_not_unknown_frames(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with connected(heartbeat_interval=0.02, heartbeat_timeout=30) as (client, link, _):
        heartbeat = await link.expect("HeartbeatRequest")
        link.send("HeartbeatResponse", heartbeat.id)
        link.send("HeartbeatRequest", bytes(16))
        await link.expect("HeartbeatResponse")
        async with serving(link, reply_to):
            await client.ping()
        assert "Heartbeat" not in caplog.text
