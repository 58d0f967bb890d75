"""The end of a client, and what is possible before its beginning."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from client.calls import Call, every_call
from client.peer import Peer, connected, eventually, outcome, reply_to, serving, soon

import fastpump
from fastpump.exceptions import ClientClosed


@every_call
async def test_conn_01_before_connect(call: Call) -> None:
    with pytest.raises(ClientClosed, match="not connected"):
        await call(fastpump.connect())


@every_call
async def test_conn_01_after_close(call: Call) -> None:
    async with connected() as (client, link, _):
        await client.close()
        await link.closed()
        with pytest.raises(ClientClosed, match="closed"):
            await call(client)


@every_call
async def test_conn_05_closed_with_a_pending_call(call: Call) -> None:
    async with connected() as (client, link, _):
        pending = soon(call(client))
        await link.receive()
        await client.close()
        await link.closed()
        with pytest.raises(ClientClosed, match="closed"):
            await pending


async def test_conn_05_every_pending_operation_fails() -> None:
    async with connected(max_in_flight=50) as (client, link, _):
        calls = [soon(client.publish_event("s", "t")) for _ in range(200)]
        for _ in range(50):
            await link.expect("WriteEvents")
        await client.close()
        for error in await asyncio.gather(*map(outcome, calls)):
            assert isinstance(error, ClientClosed)


async def test_conn_01_connect_and_close_once_or_twice() -> None:
    unused = fastpump.connect()
    await unused.close()
    await unused.close()
    async with connected() as (client, _, peer):
        with pytest.raises(ClientClosed, match="once"):
            await client.connect()
        await client.close()
        await client.close()
        with pytest.raises(ClientClosed):
            await client.connect()
        assert peer.connections == 1


async def test_close_from_several_sides_at_once() -> None:
    async with connected() as (client, link, _):
        await asyncio.gather(*(client.close() for _ in range(5)))
        await link.closed()


async def test_what_was_sent_before_close_still_arrives() -> None:
    async with connected() as (client, link, _):
        call = soon(client.publish_event("s", "t"))
        await asyncio.sleep(0)
        await client.close()
        await link.expect("WriteEvents")
        assert isinstance(await outcome(call), ClientClosed)


async def test_server_that_never_reads_cannot_hold_up_close() -> None:
    async with connected() as (client, _, _):
        calls = [soon(client.publish_event("s", "t", bytes(1_000_000))) for _ in range(20)]
        await asyncio.sleep(0.05)
        await client.close()
        for error in await asyncio.gather(*map(outcome, calls)):
            assert isinstance(error, ClientClosed)


async def test_close_that_is_cancelled_leaves_no_connection() -> None:
    async with connected() as (client, _, _):
        calls = [soon(client.publish_event("s", "t", bytes(1_000_000))) for _ in range(20)]
        await asyncio.sleep(0.05)
        closing = soon(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        assert closing.cancelled()
        for error in await asyncio.gather(*map(outcome, calls)):
            assert isinstance(error, ClientClosed)
        await eventually(lambda: client.stats().queued_bytes == 0)


async def test_context_manager_closes_after_an_error() -> None:
    async with Peer() as peer:
        greeting = soon(peer.accept_and_greet())

        async def program() -> None:
            async with peer.client():
                await greeting
                raise ZeroDivisionError

        assert isinstance(await outcome(program()), ZeroDivisionError)
        await greeting.result().closed()


def open_files() -> int:
    """How many this process has open, sockets included; where the system tells."""
    files = Path("/proc/self/fd")
    return len(list(files.iterdir())) if files.exists() else 0


async def test_conn_20_a_hundred_times() -> None:
    async with Peer() as peer:
        before = open_files()
        for _ in range(100):
            client, link = await peer.connect()
            async with serving(link, reply_to):
                await client.ping()
                await client.close()
            await link.cut()
        assert peer.connections == 100
        assert open_files() <= before + 5


async def test_conn_20_two_clients_do_not_touch_each_other() -> None:
    async with Peer() as peer:
        first, first_link = await peer.connect()
        second, second_link = await peer.connect()
        call = soon(second.ping())
        request = await second_link.expect("Ping")
        await first.close()
        await first_link.closed()
        second_link.reply(request)
        await call
        await second.close()


async def test_state_in_repr() -> None:
    async with Peer() as peer:
        client = peer.client(name="Lovelace")
        assert "not connected" in repr(client)
        connecting = soon(client.connect())
        link = await peer.accept()
        assert "connecting" in repr(client)
        await link.handshake()
        await connecting
        assert f"<Client Lovelace of 127.0.0.1:{peer.port}, connected>" == repr(client)
        await client.close()
        assert "closed" in repr(client)
