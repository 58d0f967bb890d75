"""Connecting: what is said in which order, and what happens if nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import sys
import weakref
from typing import Any

import pytest
from client.peer import Peer, connected, outcome, reply_to, soon

import fastpump
from fastpump._protocol import ConnectionProtocol
from fastpump.discovery import prefer_read_only_replica
from fastpump.exceptions import ClientClosed, ConnectFailed, NotAuthenticated, UsageError

PASSWORD = "correct horse battery staple"


async def test_auth_04_authenticate_then_identify() -> None:
    async with Peer() as peer:
        client = peer.client(username="ada", password=PASSWORD, name="Lovelace")
        connecting = soon(client.connect())
        link = await peer.accept()

        authenticate = await link.expect("Authenticate")
        assert (authenticate.flags, authenticate.payload) == (1, b"")
        assert (authenticate.login, authenticate.password) == ("ada", PASSWORD)
        await link.nothing_more()
        link.send("Authenticated", authenticate.id)

        identify = await link.expect("IdentifyClient")
        assert identify.flags == 0
        assert identify.fields == {"version": 1, "connection_name": "Lovelace"}
        await link.nothing_more()
        assert not connecting.done(), "connected before the server has identified the client"
        link.send("ClientIdentified", identify.id)

        await connecting
        await client.close()


async def test_auth_04_without_credentials_only_identify() -> None:
    async with Peer() as peer:
        client = peer.client()
        connecting = soon(client.connect())
        link = await peer.accept()
        identify = await link.expect("IdentifyClient")
        assert identify.fields["connection_name"].startswith("fastpump-")
        link.send("ClientIdentified", identify.id)
        await connecting
        await client.close()


async def test_auth_04_again_on_every_connection() -> None:
    async with Peer() as peer:
        client, link = await peer.connect(username="ada", password=PASSWORD)
        await link.cut()
        again = await (await peer.accept()).handshake()
        assert [request.command for request in again] == ["Authenticate", "IdentifyClient"]
        await client.close()


async def refuse_all(peer: Peer) -> None:
    while True:
        link = await peer.accept()
        link.refuse(await link.expect("Authenticate"), "NotAuthenticated", "Unauthorized")


async def test_auth_02_wrong_password() -> None:
    async with Peer() as peer:
        refusing = soon(refuse_all(peer))
        client = peer.client(username="ada", password="wrong")
        with pytest.raises(NotAuthenticated, match="Unauthorized"):
            await client.connect()
        refusing.cancel()
        with pytest.raises((NotAuthenticated, ClientClosed)):
            await client.ping()
        await client.close()


async def accept_and_say_nothing(peer: Peer) -> None:
    while True:
        await peer.accept()


async def test_auth_03_no_reply_to_authenticate() -> None:
    async with Peer() as peer:
        accepting = soon(accept_and_say_nothing(peer))
        client = peer.client(username="ada", password="x", connect_timeout=0.05)
        with pytest.raises(ConnectFailed) as caught:
            await client.connect()
        accepting.cancel()
        for part in (f"127.0.0.1:{peer.port}", "attempts", "Authenticate"):
            assert part in str(caught.value)


async def test_auth_04_no_reply_to_identify() -> None:
    async with Peer() as peer:
        accepting = soon(accept_and_say_nothing(peer))
        with pytest.raises(ConnectFailed) as caught:
            await peer.client(connect_timeout=0.05).connect()
        accepting.cancel()
        for part in (f"127.0.0.1:{peer.port}", "attempts", "IdentifyClient"):
            assert part in str(caught.value)


async def test_server_that_closes_at_once() -> None:
    async with Peer() as peer:

        async def cut_all() -> None:
            while True:
                await (await peer.accept()).cut()

        cutting = soon(cut_all())
        with pytest.raises(ConnectFailed, match=r"IdentifyClient: .*closed by the server"):
            await peer.client().connect()
        cutting.cancel()


async def test_server_that_speaks_another_protocol() -> None:
    async with Peer() as peer:

        async def speak_http() -> None:
            while True:
                (await peer.accept()).send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        speaking = soon(speak_http())
        with pytest.raises(ConnectFailed) as caught:
            await peer.client().connect()
        speaking.cancel()
        assert "frame length" in str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_conn_02_nothing_listens() -> None:
    port = free_port()
    client = fastpump.connect("127.0.0.1", port, reconnect_delay=0.01)
    with pytest.raises(ConnectFailed) as caught:
        await client.connect()
    for part in (f"127.0.0.1:{port}", "attempts", "refused"):
        assert part in str(caught.value).lower()


@pytest.mark.skipif(sys.platform != "linux", reason="a full backlog refuses elsewhere")
async def test_conn_03_address_that_swallows_everything() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):  # more than the backlog takes
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        client = fastpump.connect(*address, connect_timeout=0.05, reconnect_delay=0.01)
        with pytest.raises(ConnectFailed, match=rf"127\.0\.0\.1:{address[1]}.*no answer"):
            await client.connect()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 200])
async def test_host_that_does_not_resolve(host: str) -> None:
    with pytest.raises(ConnectFailed, match=f"{host}:1113"):
        await fastpump.connect(host, reconnect_delay=0.01).connect()


async def test_operations_after_a_failed_connect_fail_too() -> None:
    client = fastpump.connect("127.0.0.1", free_port(), reconnect_delay=0.01)
    assert isinstance(await outcome(client.connect()), ConnectFailed)
    with pytest.raises((ConnectFailed, ClientClosed)):
        await client.ping()
    with pytest.raises(ClientClosed):
        await client.connect()
    await client.close()


@pytest.mark.parametrize("in_the_same_read", [False, True])
async def test_lost_right_behind_the_handshake(in_the_same_read: bool) -> None:
    async with Peer() as peer:
        client = peer.client()
        connecting = soon(client.connect())
        link = await peer.accept()
        identified = reply_to(await link.expect("IdentifyClient"), "ClientIdentified")
        if in_the_same_read:
            link.send_raw(identified + bytes(4))  # what cannot be a frame ends the connection
        else:
            link.send_raw(identified)
            await link.cut()
        again = await peer.accept_and_greet()
        await connecting
        ping = soon(client.ping())
        again.reply(await again.expect("Ping"))
        await ping
        await client.close()


async def test_cancelled_while_connecting() -> None:
    async with Peer() as peer:
        client = peer.client()
        connecting = soon(client.connect())
        link = await peer.accept()
        await link.expect("IdentifyClient")
        connecting.cancel()
        await link.closed()
        assert connecting.cancelled()
        with pytest.raises(ClientClosed):
            await client.ping()


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_just_when_it_is_connected(turns: int) -> None:
    async with Peer() as peer:
        client = peer.client()
        connecting = soon(client.connect())
        link = await peer.accept()
        link.reply(await link.expect("IdentifyClient"), "ClientIdentified")
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})
        if not connecting.cancelled():
            await client.close()
        await link.closed()


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_before_it_is_connected(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: weakref.WeakSet[ConnectionProtocol] = weakref.WeakSet()
    connection_made = ConnectionProtocol.connection_made

    def noted(self: ConnectionProtocol, transport: asyncio.BaseTransport) -> None:
        made.add(self)
        connection_made(self, transport)

    monkeypatch.setattr(ConnectionProtocol, "connection_made", noted)
    async with Peer() as peer:
        connecting = soon(peer.client().connect())
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})
        del connecting
        for _ in range(3):
            await asyncio.sleep(0)
    gc.collect()
    assert not made, "one is watched for its heartbeats still"


async def test_closed_while_connecting() -> None:
    async with Peer() as peer:
        client = peer.client()
        connecting = soon(client.connect())
        link = await peer.accept()
        identify = await link.expect("IdentifyClient")
        await client.close()
        link.send("ClientIdentified", identify.id)
        assert isinstance(await outcome(connecting), ClientClosed)
        await link.closed()
        assert peer.connections == 1


async def test_no_password_in_logs_and_reprs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Peer() as peer:
        refusing = soon(refuse_all(peer))
        client = peer.client(username="ada", password=PASSWORD)
        error = await outcome(client.connect())
        refusing.cancel()
    async with connected(username="ada", password=PASSWORD) as (client, link, peer):
        await link.cut()
        await peer.accept_and_greet()
        texts = [repr(client), str(client), repr(error), str(error), caplog.text]
        texts += [repr(vars(record)) for record in caplog.records]
        texts += [repr(value) for value in vars(client).values()]
    assert caplog.records
    for text in texts:
        assert PASSWORD not in text


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("username", {"username": "x" * 256, "password": "p"}),
        ("password", {"username": "u", "password": "é" * 128}),
        ("password", {"username": "u"}),
        ("username", {"password": "p"}),
        ("username", {"username": 7, "password": "p"}),
        ("password", {"username": "u", "password": "\ud800"}),
        ("name", {"name": 7}),
        ("name", {"name": "\ud800"}),
        ("telemetry", {"telemetry": True}),
        ("tls", {"tls": "no"}),
        ("tls", {"tls": None}),
        ("target_host", {"tls": True, "target_host": 7}),
        ("target_host", {"tls": True, "target_host": ""}),
        ("ca_file", {"tls": True, "ca_file": 7}),
        ("validate_server", {"tls": True, "validate_server": "no"}),
        ("port", {"port": 0}),
        ("port", {"port": 65536}),
        ("port", {"port": "1113"}),
        ("host", {"host": ""}),
        ("host", {"host": "a b"}),
        ("host", {"host": "a\x00b"}),
        ("host", {"host": "x" * 256}),
        ("host", {"host": "tcp://localhost:1113"}),
        ("discovery_host", {"discovery_host": ""}),
        ("discovery_host", {"discovery_host": "http://cluster"}),
        ("discovery_port", {"discovery_host": "cluster", "discovery_port": 0}),
        ("gossip_seeds", {"gossip_seeds": []}),
        ("gossip_seeds", {"gossip_seeds": "a:2113"}),
        ("gossip_seeds", {"gossip_seeds": [("a", 0)]}),
        ("gossip_seeds", {"gossip_seeds": [("a",)]}),
        ("gossip_seeds", {"gossip_seeds": [2113]}),
        ("gossip_seeds", {"gossip_seeds": ["a:99999"]}),
        ("gossip_seeds", {"gossip_seeds": ["ftp://a:21"]}),
        ("gossip_seeds", {"gossip_seeds": ["http://u:secret@a"]}),
        ("gossip_seeds", {"gossip_seeds": ["a"], "discovery_host": "cluster"}),
        ("gossip_seeds", {"gossip_seeds": ["a"], "host": "node"}),
        ("gossip_timeout", {"gossip_timeout": 0}),
        ("max_discover_attempts", {"max_discover_attempts": 0}),
        ("selector", {"selector": "prefer_master"}),
        ("retry_policy", {"retry_policy": 3}),
        ("connect_timeout", {"connect_timeout": 0}),
        ("connect_timeout", {"connect_timeout": "5"}),
        ("operation_timeout", {"operation_timeout": -1}),
        ("operation_timeout", {"operation_timeout": float("nan")}),
        ("heartbeat_interval", {"heartbeat_interval": 0}),
        ("heartbeat_timeout", {"heartbeat_timeout": -0.1}),
        ("busy_poll", {"busy_poll": -1}),
        ("busy_poll", {"busy_poll": "1"}),
        ("busy_poll", {"busy_poll": float("nan")}),
        ("reconnect_delay", {"reconnect_delay": -1}),
        ("max_reconnects", {"max_reconnects": -2}),
        ("max_attempts", {"max_attempts": 0}),
        ("max_attempts", {"max_attempts": -2}),
        ("max_attempts", {"max_attempts": True}),
        ("max_queue", {"max_queue": 0}),
        ("max_queue", {"max_queue": -1}),
        ("queue_timeout", {"queue_timeout": 0}),
        ("queue_timeout", {"queue_timeout": "1"}),
        ("fail_on_no_response", {"fail_on_no_response": 1}),
        ("require_master", {"require_master": None}),
        ("selector", {"require_master": True, "selector": prefer_read_only_replica}),
        ("validate_server", {"validate_server": False}),
        ("validate_server", {"validate_server": False, "tls": ssl.create_default_context()}),
        ("ca_file", {"validate_server": False, "tls": True, "ca_file": "x.pem"}),
        ("max_in_flight", {"max_in_flight": 0}),
        ("max_in_flight", {"max_in_flight": 2**63}),
        ("max_queue", {"max_queue": 2**63}),
        ("operation_timeout", {"operation_timeout": 2**1024}),
        ("max_frame_size", {"max_frame_size": 17}),
        ("max_frame_size", {"max_frame_size": 2**31}),
    ],
)
def test_auth_05_conn_16_bad_settings(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        fastpump.connect(**options)  # type: ignore[arg-type]
    assert caught.value.argument == argument
    assert argument in str(caught.value)


def test_conn_16_no_limit() -> None:
    fastpump.connect(max_attempts=-1, max_reconnects=-1, max_discover_attempts=-1)
    fastpump.connect(queue_timeout=None)


async def test_auth_05_longest_credentials() -> None:
    async with connected(username="u" * 255, password="é" * 127):
        pass


def test_pp_01_defaults() -> None:
    assert "localhost:1113" in repr(fastpump.connect())
    with pytest.warns(DeprecationWarning, match="loop"):
        fastpump.connect(loop=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("connect", [fastpump.connect, fastpump.sync.connect])
def test_name_and_settings_can_be_read_back(connect: Any) -> None:
    client = connect(name="Lovelace", max_attempts=3)
    assert (client.name, client.settings.max_attempts) == ("Lovelace", 3)
    assert client.settings.max_queue == fastpump.ConnectionSettings().max_queue
