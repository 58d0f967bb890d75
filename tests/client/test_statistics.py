"""What a client tells of itself in numbers."""

from __future__ import annotations

import asyncio
import dataclasses

from client.peer import connected, eventually, frame, reply_to, serving, soon

import fastpump
import fastpump.server
from fastpump import ClientStats

FRAME = 22
"""Bytes of a frame without a payload."""


def test_nothing_before_it_is_connected() -> None:
    assert fastpump.connect().stats() == ClientStats()
    assert set(dataclasses.asdict(ClientStats()).values()) == {0}


async def test_what_is_under_way_and_who_waits() -> None:
    async with connected(max_in_flight=2, max_queue=1) as (client, link, _):
        calls = [soon(client.ping()) for _ in range(5)]
        requests = [await link.expect("Ping") for _ in range(2)]
        assert (client.stats().in_flight, client.stats().waiting) == (2, 3)
        calls[3].cancel()
        await asyncio.sleep(0)
        assert client.stats().waiting == 2
        for _ in range(4):
            link.reply(requests.pop(0))
            if len(requests) < 2 and client.stats().waiting:
                requests.append(await link.expect("Ping"))
        await asyncio.gather(*calls, return_exceptions=True)
        assert (client.stats().in_flight, client.stats().waiting) == (0, 0)


async def test_bytes_and_reconnects(writes: list[bytes]) -> None:
    async with connected(name="") as (client, link, peer):
        assert client.stats().bytes_in == FRAME
        async with serving(link, reply_to):
            for _ in range(3):
                await client.ping()
        assert client.stats().bytes_in == 4 * FRAME
        await link.cut()
        link = await peer.accept_and_greet()
        await eventually(lambda: client.stats().reconnects == 1)
        async with serving(link, reply_to):
            await client.publish_event("s", "t", bytes(1000))
        stats = client.stats()
        assert stats.bytes_in >= 6 * FRAME
        assert stats.bytes_out == sum(map(len, writes)) > 1000
        assert stats.queued_bytes == 0
        await client.close()
        assert client.stats() == stats, "they stay"


async def test_unknown_frames() -> None:
    async with connected() as (client, link, _):
        for _ in range(3):
            link.send_raw(frame("Pong", b"is nobody's call"))
        await link.nothing_more()
        assert client.stats().unknown_frames == 3


async def test_queued_bytes() -> None:
    async with connected() as (client, _, _):
        calls = [soon(client.publish_event("s", "t", bytes(100_000))) for _ in range(400)]
        await eventually(lambda: client.stats().waiting)
        assert client.stats().queued_bytes > 100_000
        assert client.stats().in_flight + client.stats().waiting == 400
        await client.close()
        await asyncio.gather(*calls, return_exceptions=True)
        assert client.stats() == dataclasses.replace(
            client.stats(), in_flight=0, waiting=0, queued_bytes=0
        )


async def test_subscriptions() -> None:
    async with (
        fastpump.server.run() as node,
        fastpump.connect(node.host, node.port, reconnect_delay=0.01) as client,
    ):
        async with await client.subscribe_to("s") as first, await client.subscribe_to("s"):
            assert client.stats().subscriptions == 2
            await first.unsubscribe()
            await client.ping()
            assert client.stats().subscriptions == 1
            node.faults.disconnect()
            await eventually(lambda: client.stats().reconnects == 1)
        await client.ping()
        assert client.stats().subscriptions == 0
