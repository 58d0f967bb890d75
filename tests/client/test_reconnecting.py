"""Connections that are lost: what is sent again, and what is given up."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import pytest
from client.pages import events_of, stream_page
from client.peer import Peer, connected, outcome, reply_to, soon

import fastpump
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    OperationExpired,
    RetriesLimitReached,
)


async def test_conn_07_sent_again_with_new_correlation_ids_and_the_same_event_ids() -> None:
    async with connected() as (client, link, peer):
        events = [fastpump.NewEvent("t", data={"n": n}) for n in range(3)]
        calls = [
            soon(client.publish("s", events, expected_version=4)),
            soon(client.publish_event("s", "t", {"a": 1})),
            soon(client.get_event("s", 7)),
            soon(client.get("s", max_count=7)),
            soon(client.get_all(max_count=8)),
            soon(client.ping()),
        ]
        first = [await link.receive() for _ in calls]
        await link.cut()
        link = await peer.accept_and_greet()
        second = [await link.receive() for _ in calls]

        assert [r.command for r in second] == [r.command for r in first]
        assert [r.payload for r in second] == [r.payload for r in first]
        assert second[0].event_ids == [event.id.bytes_le for event in events]
        assert {r.id for r in first}.isdisjoint(r.id for r in second)
        for request in second:
            link.reply(request)
        await asyncio.gather(*calls)


async def test_conn_15_old_ids_mean_nothing_on_the_new_connection() -> None:
    async with connected() as (client, link, peer):
        reading = soon(client.get("s"))
        old = await link.expect("ReadStreamEventsForward")
        await link.cut()
        link = await peer.accept_and_greet()
        new = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(old, events_of("s", 1)))
        await link.nothing_more()
        assert not reading.done()
        link.send_raw(stream_page(new, events_of("s", 2)))
        assert len(await reading) == 2


async def test_called_while_there_is_no_connection() -> None:
    async with connected() as (client, link, peer):
        await link.cut()
        link = await peer.accept()
        call = soon(client.ping())
        await link.handshake()
        link.reply(await link.expect("Ping"))
        await call


async def test_cancelled_calls_are_not_sent_again() -> None:
    async with connected() as (client, link, peer):
        cancelled, kept = soon(client.get("s")), soon(client.ping())
        await link.expect("ReadStreamEventsForward")
        await link.expect("Ping")
        cancelled.cancel()
        await link.cut()
        link = await peer.accept_and_greet()
        link.reply(await link.expect("Ping"))
        await kept
        await link.nothing_more()


async def test_cut_at_every_byte_of_a_write_reply() -> None:
    async with connected(max_attempts=1000, max_reconnects=-1) as (client, link, peer):
        ids = set()
        writing = soon(client.publish_event("s", "t"))
        at, size = 0, 1
        while at < size:
            request = await link.expect("WriteEvents")
            ids.add(request.event_ids[0])
            data = reply_to(request, result=0, first_event_number=7, last_event_number=7)
            size = len(data)
            link.send_raw(data[:at])
            await link.cut()
            link = await peer.accept_and_greet()
            at += 1
        assert not writing.done()
        request = await link.expect("WriteEvents")
        assert {request.event_ids[0]} == ids
        link.reply(request, result=0, last_event_number=7)
        assert (await writing).last_event_number == 7


async def test_cut_at_every_byte_of_a_page() -> None:
    async with connected(max_attempts=10_000, max_reconnects=-1) as (client, link, peer):
        events = events_of("s", 2)
        reading = soon(client.get("s"))
        at, size = 0, 1
        while at < size:
            request = await link.expect("ReadStreamEventsForward")
            data = stream_page(request, events)
            size = len(data)
            link.send_raw(data[:at])
            await link.cut()
            link = await peer.accept_and_greet()
            at += 1
        link.send_raw(stream_page(await link.expect("ReadStreamEventsForward"), events))
        assert [event.event_number for event in await reading] == [0, 1]


async def test_cut_at_every_byte_of_the_handshake() -> None:
    for at in range(22):
        async with Peer() as peer:
            client = peer.client()
            connecting = soon(client.connect())
            link = await peer.accept()
            identify = await link.expect("IdentifyClient")
            link.send_raw(reply_to(identify, "ClientIdentified")[:at])
            await link.cut()
            await peer.accept_and_greet()
            await connecting
            await client.close()


async def test_conn_07_sent_only_so_often() -> None:
    async with connected(max_attempts=3) as (client, link, peer):
        call = soon(client.ping())
        for _ in range(3):
            await link.expect("Ping")
            await link.cut()
            link = await peer.accept_and_greet()
        with pytest.raises(RetriesLimitReached, match=r"3 times.*closed by the server") as caught:
            await call
        assert caught.value.attempts == 3
        assert isinstance(caught.value.last_error, ConnectionLost)
        assert caught.value.__cause__ is caught.value.last_error
        await link.nothing_more()


async def test_lost_again_before_the_handshake() -> None:
    async with connected() as (client, link, peer):
        await link.cut()
        for _ in range(4):
            await (await peer.accept()).cut()
        link = await peer.accept_and_greet()
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping


async def test_a_server_that_drops_every_connection_is_not_run_down() -> None:
    async with connected(reconnect_delay=0.04) as (_, link, peer):
        begin = asyncio.get_running_loop().time()
        for _ in range(10):
            await link.cut()
            link = await peer.accept_and_greet()
        assert asyncio.get_running_loop().time() - begin >= 10 * 0.02


async def test_very_many_attempts() -> None:
    peer = Peer()
    async with peer:  # more attempts than a float has powers of two
        client, _ = await peer.connect(max_reconnects=1100, reconnect_delay=0)
    with pytest.raises(ConnectFailed, match="1100 attempts"):
        await client.ping()
    await client.close()


async def test_conn_02_reconnects_exhausted() -> None:
    peer = Peer()
    async with peer:
        client, link = await peer.connect(max_reconnects=2)
        calls = [soon(client.ping()), soon(client.get("s")), soon(client.publish_event("s", "t"))]
        for _ in calls:
            await link.receive()
    results = await asyncio.gather(*map(outcome, calls))
    for error in results:
        assert isinstance(error, ConnectFailed)
        assert f"127.0.0.1:{peer.port}" in str(error)
        assert "2 attempts" in str(error)
    for later in (client.ping(), client.get("s"), client.publish_event("s", "t")):
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{peer.port}"):
            await later
    await client.close()
    with pytest.raises(ClientClosed):
        await client.ping()


async def test_conn_02_no_reconnects_wanted() -> None:
    async with connected(max_reconnects=0) as (client, link, peer):
        call = soon(client.ping())
        await link.expect("Ping")
        await link.cut()
        with pytest.raises(ConnectFailed, match="was lost"):
            await call
        with pytest.raises(ConnectFailed):
            await client.ping()
        assert peer.connections == 1


async def test_conn_02_what_nobody_reckoned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any, **__: Any) -> NoReturn:
        raise ZeroDivisionError("in an SSL context")

    async with connected(max_reconnects=-1) as (client, link, _):
        call = soon(client.ping())
        await link.expect("Ping")
        monkeypatch.setattr("fastpump._connector.ConnectionProtocol", break_down)
        await link.cut()
        with pytest.raises(ConnectFailed, match="ZeroDivisionError: in an SSL context"):
            await call


async def test_conn_09_expires_while_there_is_no_connection() -> None:
    peer = Peer()
    async with peer:
        client, link = await peer.connect(
            queue_timeout=0.05, max_reconnects=-1, reconnect_delay=0.001
        )
        sent = soon(client.ping())
        await link.expect("Ping")
    for call in (sent, client.ping(), client.get("s")):
        with pytest.raises(OperationExpired, match=r"within 0\.05 s"):
            await call
    await client.close()


async def test_closed_while_reconnecting() -> None:
    peer = Peer()
    async with peer:
        client, link = await peer.connect(max_reconnects=-1)
        call = soon(client.ping())
        await link.expect("Ping")
    await asyncio.sleep(0.02)
    await client.close()
    with pytest.raises(ClientClosed):
        await call


async def test_conn_04_server_stopped_and_started_again() -> None:
    peer = Peer()
    async with peer:
        client, link = await peer.connect(max_reconnects=-1)
        call = soon(client.publish_event("s", "t"))
        first = await link.expect("WriteEvents")
    async with Peer(port=peer.port) as again:
        link = await again.accept_and_greet()
        second = await link.expect("WriteEvents")
        assert second.event_ids == first.event_ids
        link.reply(second, last_event_number=3)
        assert (await call).last_event_number == 3
        await client.close()
