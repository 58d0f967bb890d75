"""What holds for every call: replies cut at any byte, or twice, and waits that are cancelled."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from client.calls import CALLS, Call, answer, every_call
from client.peer import Link, Peer, Request, connected, reply_to, serving, soon

from fastpump import Client
from fastpump.exceptions import ConnectionLost


class Cutter:
    """Serves, and cuts the first replies of each kind: after 0 bytes, after 1, and so on."""

    def __init__(self, peer: Peer) -> None:
        self.cuts = 0
        self._peer = peer
        self._given: defaultdict[str, int] = defaultdict(int)

    async def serve(self, link: Link) -> None:
        while True:
            try:
                await self._serve_until_cut(link)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            link = await self._peer.accept_and_greet()

    async def _serve_until_cut(self, link: Link) -> None:
        while True:
            request = await link.receive()
            reply = answer(request) or b""
            given = self._given[request.command]
            if given < len(reply):
                self._given[request.command] += 1
                self.cuts += 1
                link.send_raw(reply[:given])
                await link.cut()
                return
            link.send_raw(reply)


async def until_it_is_done(call: Call, client: Client) -> None:
    """A transaction's write is not sent twice: the program begins another transaction."""
    while True:
        try:
            await call(client)
            return
        except ConnectionLost:
            assert call is CALLS["transaction"]


@every_call
async def test_replies_cut_at_every_byte(call: Call) -> None:
    limits = {"max_attempts": -1, "max_reconnects": -1}
    async with connected(reconnect_delay=0, **limits) as (client, link, peer):
        cutter = Cutter(peer)
        serving_all = soon(cutter.serve(link))
        await until_it_is_done(call, client)
        assert cutter.cuts >= 22, "a frame is no shorter"
        await client.ping()
        assert client.stats().in_flight == 0
        await client.close()
        await serving_all


@every_call
async def test_every_reply_twice(call: Call) -> None:
    async with connected() as (client, link, peer):
        async with serving(link, lambda request: (answer(request) or b"") * 2):
            await call(client)
            await client.ping()
        assert client.stats().in_flight == client.stats().waiting == 0
        assert peer.connections == 1


@every_call
@pytest.mark.parametrize("replies", range(3))
async def test_cancelled_after_some_replies(call: Call, replies: int) -> None:
    async with connected() as (client, link, peer):
        pending = soon(call(client))
        requests: list[Request] = []
        while len(requests) <= replies:
            if requests:
                link.send_raw(answer(requests[-1]) or b"")
            receiving = soon(link.receive())
            await asyncio.wait({receiving, pending}, return_when=asyncio.FIRST_COMPLETED)
            if pending.done():
                receiving.cancel()
                return  # it takes fewer replies
            requests.append(receiving.result())
        pending.cancel()
        await asyncio.wait({pending})
        assert pending.cancelled()
        link.send_raw(answer(requests[-1]) or b"")  # late
        async with serving(link, reply_to):
            await client.ping()
        assert client.stats().in_flight == client.stats().subscriptions == 0
        assert peer.connections == 1
