"""Users, access lists and settings. Names are rows of the acceptance list."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from nodelib import (
    ADMIN,
    DENIED,
    OPS,
    SUCCESS,
    WRONG,
    Auth,
    NodeThread,
    RawClient,
    event,
    may_write,
)

from fastpump._commands import Command

READ_DENIED, READ_EVENT_DENIED = 5, 5


def may_read(client: RawClient, stream: str, auth: Auth) -> bool:
    results = {
        client.forward(stream, auth=auth).result,
        client.backward(stream, auth=auth).result,
        client.read_event(stream, 0, auth=auth)["result"],
    }
    assert len(results) == 1
    return results == {SUCCESS}


def test_sec_01_a_wrong_password_is_always_refused(client: RawClient, stream: str) -> None:
    for command in (0x82, 0x8A, 0xB0, 0xB2, 0xB4, 0xB6, 0xB8, Command.Ping):
        reply, content = client.ask(command, WRONG)
        assert (reply, content) == (Command.NotAuthenticated, {"text": "Not Authenticated"})
    assert client.forward(stream).result == 1


def test_sec_02_no_list_is_open_to_everybody(client: RawClient, stream: str) -> None:
    for auth in (None, OPS, ADMIN):
        assert may_write(client, stream, auth)
        assert may_read(client, stream, auth)
        assert client.set_metadata(stream, b"{}", auth)["result"] == SUCCESS


def test_sec_03_and_04_reading_and_writing(client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    client.set_metadata(stream, b'{"$acl":{"$r":"ops"}}')
    assert [may_read(client, stream, who) for who in (None, OPS, ADMIN)] == [False, True, True]
    assert may_write(client, stream, None)
    client.set_metadata(stream, b'{"$acl":{"$w":["ops"]}}')
    assert [may_write(client, stream, who) for who in (None, OPS, ADMIN)] == [False, True, True]
    assert may_read(client, stream, None)


def test_sec_06_metadata(client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    client.set_metadata(stream, b'{"$acl":{"$mr":"ops"}}')
    assert client.read_event(f"$${stream}", -1)["result"] == READ_EVENT_DENIED
    assert client.read_event(f"$${stream}", -1, auth=OPS)["result"] == SUCCESS
    client.set_metadata(stream, b'{"$acl":{"$mw":"ops"}}')
    assert client.set_metadata(stream, b"{}")["result"] == DENIED
    assert client.set_metadata(stream, b"{}", OPS)["result"] == SUCCESS


@pytest.mark.parametrize(
    ("prefix", "role", "allowed"),
    [
        ("", None, [True, True, True]),
        ("", "ops", [False, True, True]),
        ("", "$admins", [False, False, True]),
        ("", "$all", [True, True, True]),
        ("$", None, [False, False, True]),
        ("$", "ops", [False, True, True]),
        ("$", "$admins", [False, False, True]),
        ("$", "$all", [True, True, True]),
    ],
)
def test_sec_07_and_08_deleting(
    client: RawClient, stream: str, prefix: str, role: str | None, allowed: list[bool]
) -> None:
    found = []
    for number, auth in enumerate((None, OPS, ADMIN)):
        name = f"{prefix}{stream}-{number}"
        client.write_some(name, 1, ADMIN)
        if role is not None:
            client.set_metadata(name, json.dumps({"$acl": {"$d": role}}).encode(), ADMIN)
        found.append(client.delete(name, auth=auth)["result"] == SUCCESS)
    assert found == allowed


def test_sec_09_system_streams(client: RawClient, stream: str) -> None:
    name = f"${stream}"
    client.write_some(name, 1, ADMIN)
    for auth, allowed in ((None, False), (OPS, False), (ADMIN, True)):
        assert may_read(client, name, auth) is allowed
        assert may_write(client, name, auth) is allowed
        assert (client.set_metadata(name, b"{}", auth)["result"] == SUCCESS) is allowed


def test_sec_11_and_14_lists(client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    client.set_metadata(stream, b'{"$acl":{"$r":["nobody","ops"],"$w":[],"$d":["x","$all"]}}')
    assert [may_read(client, stream, who) for who in (None, OPS)] == [False, True]
    assert [may_write(client, stream, who) for who in (None, OPS, ADMIN)] == [False, False, True]
    assert client.delete(stream)["result"] == SUCCESS


@pytest.fixture
def settings(client: RawClient) -> Iterator[None]:
    """Settings are put back after the test: they hold for the whole node."""
    yield
    client.write("$settings", [event(data=b"{}", type="$settings")], auth=ADMIN)


@pytest.mark.usefixtures("settings")
def test_sec_12_and_13_and_sys_01_settings(client: RawClient, stream: str) -> None:
    own = f"{stream}-own"
    client.write_some(own, 1)
    client.set_metadata(own, b'{"$acl":{"$r":"$all"}}')
    client.write_some(f"${stream}", 1, ADMIN)
    content = {"$userStreamAcl": {"$r": "ops", "$w": "ops"}, "$systemStreamAcl": {"$r": "$all"}}
    data = json.dumps(content).encode()
    client.write("$settings", [event(data=data, type="$settings")], auth=ADMIN)
    client.write_some(stream, 1, OPS)
    assert [may_read(client, stream, who) for who in (None, OPS, ADMIN)] == [False, True, True]
    assert may_read(client, own, None)
    assert not may_write(client, own, None)
    assert may_read(client, f"${stream}", None)
    assert not may_write(client, f"${stream}", None)
    assert client.delete(own)["result"] == SUCCESS


@pytest.mark.usefixtures("settings")
def test_sys_02_and_03_who_sets_settings(client: RawClient, stream: str) -> None:
    closed = event(data=b'{"$userStreamAcl":{"$w":"$admins"}}', type="$settings")
    for auth in (None, OPS):
        assert client.write("$settings", [closed], auth=auth)["result"] == DENIED
    client.write("$settings", [closed], auth=ADMIN)
    assert not may_write(client, stream, None)
    client.write("$settings", [event(data=b"{}", type="$settings")], auth=ADMIN)
    assert may_write(client, stream, None)


def test_sec_15_the_user_of_the_connection(node: NodeThread, stream: str) -> None:
    with node.client() as client:
        assert client.ask(Command.Authenticate, ADMIN)[0] == Command.Authenticated
        assert may_write(client, f"${stream}", None)
        assert not may_write(client, f"${stream}", OPS)
        assert client.ask(Command.Authenticate, WRONG)[0] == Command.NotAuthenticated
        assert client.ask(Command.Ping)[0] == Command.NotAuthenticated
        assert client.ask(Command.Ping, OPS)[0] == Command.Pong


def test_sec_16_a_refusal_does_no_harm(client: RawClient, stream: str) -> None:
    assert not may_write(client, f"${stream}", None)
    assert not may_read(client, f"${stream}", None)
    assert may_write(client, stream, None)


def test_auth_01_and_05(node: NodeThread) -> None:
    with node.client() as client:
        for auth in (("žluťoučký", "😀"), ("u" * 255, "p" * 255), ("Admin", "changeit")):
            reply, content = client.ask(Command.Authenticate, auth)
            assert (reply, content) == (Command.NotAuthenticated, {"text": "Unauthorized"})
        assert client.ask(Command.Authenticate, OPS)[0] == Command.Authenticated
