"""What a client tells of its connection, in which order, and what a listener may do."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest
from client.peer import Peer, connected, eventually, leader_info, outcome, soon

import fastpump
from fastpump.connection_events import (
    AuthenticationFailed,
    Closed,
    Connected,
    ConnectionEvent,
    Disconnected,
    ErrorOccurred,
    Reconnecting,
)
from fastpump.exceptions import ConnectFailed, NotAuthenticated, UsageError

Told = list[ConnectionEvent]


def kinds(told: Told) -> list[str]:
    return [type(event).__name__ for event in told]


async def refused(**options: Any) -> tuple[fastpump.Client, Told]:
    """A client of an address where nobody listens, after it was told so."""
    async with Peer() as peer:
        client = peer.client(**options)
    told: Told = []
    client.listen(told.append)
    assert isinstance(await outcome(client.connect()), ConnectFailed)
    return client, told


async def test_conn_06_connect_cut_restore_close() -> None:
    told: Told = []
    async with Peer() as peer:
        client = peer.client()
        client.listen(told.append)
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        await link.cut()
        await peer.accept_and_greet()
        await eventually(lambda: len(told) == 4)
        await client.close()
        await client.close()
    assert told == [
        Connected("127.0.0.1", peer.port),
        Disconnected("127.0.0.1", peer.port, "The connection was lost: closed by the server"),
        Reconnecting(1),
        Connected("127.0.0.1", peer.port),
        Closed("The client was closed"),
    ]


async def test_conn_06_every_attempt_is_told() -> None:
    told: Told = []
    async with Peer() as peer:
        client, link = await peer.connect(max_reconnects=3)
        client.listen(told.append)
        await link.cut()
        for _ in range(3):
            await (await peer.accept()).cut()
        await eventually(lambda: kinds(told)[-1:] == ["Closed"])
        await client.close()
    assert kinds(told) == [
        "Disconnected",
        *(["Reconnecting", "ErrorOccurred"] * 3),
        "ErrorOccurred",
        "Closed",
    ]
    assert [event.attempt for event in told if isinstance(event, Reconnecting)] == [1, 2, 3]
    given_up, closed = told[-2:]
    assert isinstance(given_up, ErrorOccurred)
    assert isinstance(closed, Closed)
    assert isinstance(given_up.error, ConnectFailed)
    assert closed.reason == str(given_up.error)
    assert "3 attempts" in closed.reason


@pytest.mark.parametrize("attempts", [0, 1])
async def test_conn_02_closed_after_the_attempts(attempts: int) -> None:
    told: Told = []
    async with connected(max_reconnects=attempts) as (client, link, peer):
        client.listen(told.append)
        call = soon(client.ping())
        await link.expect("Ping")
        await link.cut()
        for _ in range(attempts):
            await (await peer.accept()).cut()
        assert isinstance(await outcome(call), ConnectFailed)
        await eventually(lambda: kinds(told)[-1:] == ["Closed"])
        assert kinds(told).count("Reconnecting") == attempts
        assert peer.connections == 1 + attempts


async def test_conn_02_conn_06_never_connected() -> None:
    client, told = await refused()
    assert kinds(told) == [*["ErrorOccurred"] * 4, "Closed"]
    await client.close()
    assert kinds(told).count("Closed") == 1


async def test_conn_06_not_connected_at_all() -> None:
    told: Told = []
    client = fastpump.connect()
    client.listen(told.append)
    await client.close()
    assert told == []


async def test_conn_06_given_up_by_the_program_that_connects() -> None:
    told: Told = []
    async with Peer() as peer:
        client = peer.client()
        client.listen(told.append)
        connecting = soon(client.connect())
        await peer.accept()
        connecting.cancel()
        await asyncio.wait({connecting})
    assert kinds(told) == ["Closed"]


async def test_conn_06_authentication_failed() -> None:
    told: Told = []
    async with Peer() as peer:
        client = peer.client(username="ada", password="secret")
        client.listen(told.append)
        connecting = soon(client.connect())
        for _ in range(3):
            link = await peer.accept()
            link.refuse(await link.expect("Authenticate"), "NotAuthenticated", "Unauthorized")
        assert isinstance(await outcome(connecting), NotAuthenticated)
    assert told[0] == AuthenticationFailed("Unauthorized")
    assert kinds(told) == [
        *["AuthenticationFailed", "ErrorOccurred"] * 3,
        "ErrorOccurred",
        "Closed",
    ]
    assert "secret" not in repr(told)


async def test_conn_06_left_for_the_leader() -> None:
    told: Told = []
    async with Peer() as leader, connected() as (client, link, peer):
        client.listen(told.append)
        call = soon(client.ping())
        request = await link.expect("Ping")
        info = leader_info(leader.port)
        link.reply(request, "NotHandled", reason=2, additional_info=info)
        link = await leader.accept_and_greet()
        link.reply(await link.expect("Ping"))
        await call
        left, reconnecting, there = told
        assert isinstance(left, Disconnected)
        assert (left.port, there) == (peer.port, Connected("127.0.0.1", leader.port))
        assert "not the leader" in left.reason
        assert reconnecting == Reconnecting(1)
        await client.close()


async def test_conn_06_closed_by_what_the_server_refuses() -> None:
    told: Told = []
    async with connected() as (client, link, _):
        client.listen(told.append)
        link.send("BadRequest", bytes(16), b"Invalid TCP frame received.")
        await eventually(lambda: told)
        assert kinds(told) == ["ErrorOccurred", "Closed"]
        assert "Invalid TCP frame" in repr(told[-1])


# --- listeners ---


async def test_conn_06_an_error_in_a_listener(caplog: pytest.LogCaptureFixture) -> None:
    told: Told = []
    async with Peer() as peer:
        client = peer.client()
        client.listen(lambda event: 1 / 0)
        client.listen(told.append)
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        await link.cut()
        link = await peer.accept_and_greet()
        call = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await call
        await client.close()
    assert kinds(told) == ["Connected", "Disconnected", "Reconnecting", "Connected", "Closed"]
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == len(told)
    assert {record.name for record in failures} == {"fastpump.connection_events"}


async def test_a_listener_that_is_removed() -> None:
    first: Told = []
    second: Told = []
    async with Peer() as peer:
        client = peer.client()
        remove = client.listen(first.append)
        client.listen(second.append)
        client.listen(second.append)
        client.listen(lambda _: remove())
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        await link.cut()
        await peer.accept_and_greet()
        await client.close()
        remove()
    assert kinds(first) == ["Connected"]
    assert second[0] == second[1]
    assert len(second) >= 8


async def test_a_listener_that_closes_the_client() -> None:
    told: Told = []
    closing: list[asyncio.Task[None]] = []
    async with connected() as (client, link, _):

        def close(event: ConnectionEvent) -> None:
            told.append(event)
            if isinstance(event, Disconnected):
                closing.append(soon(client.close()))

        client.listen(close)
        await link.cut()
        await eventually(lambda: closing)
        await closing[0]
        assert kinds(told)[0] == "Disconnected"
        assert kinds(told)[-1] == "Closed"
        assert "Connected" not in kinds(told)


async def test_a_listener_that_publishes() -> None:
    async with Peer() as peer:
        client = peer.client()
        calls: list[asyncio.Task[Any]] = []

        def publish(event: ConnectionEvent) -> None:
            if isinstance(event, Connected):
                calls.append(soon(client.ping()))

        client.listen(publish)
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        link.reply(await link.expect("Ping"))
        await calls[0]
        await client.close()


async def coroutine(event: ConnectionEvent) -> None:
    raise AssertionError("nobody awaits it")


@pytest.mark.parametrize("callback", [None, 3, coroutine])
def test_what_cannot_listen(callback: Any) -> None:
    with pytest.raises(UsageError, match="callback: must be a plain function"):
        fastpump.connect().listen(callback)


def test_events_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Connected("a", 1).port = 2  # type: ignore[misc]


# --- the log ---


async def test_conn_06_the_log_says_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastpump")
    async with Peer() as peer:
        client = peer.client(name="Lovelace", username="ada", password="correct horse")
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        await link.cut()
        await peer.accept_and_greet()
        await eventually(lambda: "connected to" in caplog.records[-1].message)
        await client.close()
    where = f"127.0.0.1:{peer.port}"
    assert [
        (record.levelname, record.message)
        for record in caplog.records
        if record.name == "fastpump.connector"
    ] == [
        ("INFO", f"Lovelace: connected to {where}"),
        (
            "WARNING",
            f"Lovelace: The connection was lost: closed by the server; reconnecting to {where}",
        ),
        ("INFO", f"Lovelace: connected to {where}"),
        ("INFO", "Lovelace: closed: The client was closed"),
    ]
    assert "correct horse" not in caplog.text


async def test_conn_06_the_log_says_that_it_gives_up(caplog: pytest.LogCaptureFixture) -> None:
    async with Peer() as peer:
        client, _ = await peer.connect(name="Lovelace", max_reconnects=2)
    await eventually(lambda: "ERROR" in {record.levelname for record in caplog.records})
    last = caplog.records[-1]
    assert last.name == "fastpump.connector"
    assert last.message.startswith("Lovelace: closed: Could not connect to 127.0.0.1:")
    await client.close()


async def test_what_connect_raises_is_not_logged_as_an_error_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastpump")
    await refused(name="Lovelace")
    assert {record.levelname for record in caplog.records} == {"INFO"}
