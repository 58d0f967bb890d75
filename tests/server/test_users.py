"""Users of the configuration. Names are rows of the acceptance list."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import goldenlib
import pytest
from nodelib import ADMIN, DENIED, SUCCESS, Auth, NodeThread, RawClient, event, may_write

from fastpump._commands import Command
from fastpump.exceptions import UsageError
from fastpump.server import run

ADA = ("ada", "engine")
GRACE = ("grace", "möbius-ключ")
ROOT = ("root", "")
USERS = {"ada": "engine", "grace": ("möbius-ключ", ["writers"]), "root": ("", ("$admins",))}


@pytest.fixture
def own() -> Iterator[NodeThread]:
    with NodeThread(users=USERS) as running:
        yield running


def pings(client: RawClient, auth: Auth) -> bool:
    """Whether these credentials are accepted."""
    reply = client.exchange(Command.Ping, b"x", auth)[0]
    assert reply in (Command.Pong, Command.NotAuthenticated)
    return reply == Command.Pong


def test_auth_01_and_05_own_users(own: NodeThread) -> None:
    with own.client() as client:
        assert all(pings(client, who) for who in (ADMIN, ADA, GRACE, ROOT))
        assert not pings(client, ("ada", "Engine"))
        assert not pings(client, ("nobody", ""))
        assert client.ask(Command.Authenticate, GRACE)[0] == Command.Authenticated


def may_subscribe(client: RawClient, stream: str, auth: Auth) -> bool:
    fields = {"event_stream_id": stream, "resolve_link_tos": False}
    payload = goldenlib.encode_fields(Command.SubscribeToStream, fields)
    reply, content = client.exchange(Command.SubscribeToStream, payload, auth)
    if reply == Command.SubscriptionDropped:
        assert content == {"reason": 1}, "AccessDenied"
    return reply == Command.SubscriptionConfirmation


def transaction(client: RawClient, command: int, auth: Auth, **fields: Any) -> dict[str, Any]:
    return client.expect(command + 1, command, auth, require_leader=False, **fields)


def test_sec_03_subscribing_is_reading(own: NodeThread, stream: str) -> None:
    with own.client() as client:
        client.set_metadata(stream, b'{"$acl":{"$r":"ada"}}')
        allowed = [may_subscribe(client, stream, who) for who in (None, GRACE, ADA, ROOT)]
        assert allowed == [False, False, True, True]


def test_sec_04_and_05_transactions(own: NodeThread, stream: str) -> None:
    begin, add, end = (
        Command.TransactionStart,
        Command.TransactionWrite,
        Command.TransactionCommit,
    )
    with own.client() as client:
        client.set_metadata(stream, b'{"$acl":{"$w":"ada"}}')
        where = {"event_stream_id": stream, "expected_version": -2}
        for who in (None, GRACE):
            assert transaction(client, begin, who, **where)["result"] == DENIED
        number = transaction(client, begin, ADA, **where)["transaction_id"]
        added = transaction(client, add, GRACE, transaction_id=number, events=[event()])
        assert added["result"] == SUCCESS
        for who in (None, GRACE):
            assert transaction(client, end, who, transaction_id=number)["result"] == DENIED
        wrong = goldenlib.encode_fields(end, {"transaction_id": number})
        assert client.exchange(end, wrong, ("ada", "x"))[0] == Command.NotAuthenticated
        assert transaction(client, end, ROOT, transaction_id=number)["result"] == SUCCESS
        assert client.forward(stream).numbers == [0]


def test_sec_16_subscriptions_survive_refusals(own: NodeThread, stream: str) -> None:
    with own.client() as client:
        assert may_subscribe(client, stream, None)
        assert not may_subscribe(client, "$all", ADA)
        assert not may_write(client, f"${stream}", ADA)
        assert not pings(client, ("ada", "x"))
        with own.client() as writer:
            writer.write_some(stream, 1)
        assert client.receive()[0] == Command.StreamEventAppeared


def test_sec_04_a_role_may_be_a_login_or_a_group(own: NodeThread, stream: str) -> None:
    with own.client() as client:
        client.set_metadata(stream, b'{"$acl":{"$w":["ada","writers"]}}')
        allowed = [may_write(client, stream, who) for who in (None, ADA, GRACE, ROOT)]
        assert allowed == [False, True, True, True]


def test_sec_10_all_has_a_list_of_its_own(own: NodeThread) -> None:
    with own.client() as client:
        reads = [client.all_forward(auth=who).result for who in (None, ADA, ROOT)]
        client.set_metadata("$all", b'{"$acl":{"$r":"ada"}}', ROOT)
        again = [client.all_forward(auth=who).result for who in (None, GRACE, ADA, ROOT)]
        # Results of ReadAll: 0 Success, 3 AccessDenied.
        assert (reads, again) == ([3, 3, 0], [3, 3, 0, 0])
        with own.client() as other:
            assert [may_subscribe(other, "", who) for who in (GRACE, ADA)] == [False, True]
        assert not may_write(client, "$all", ROOT)
        assert client.delete("$all", auth=ROOT)["result"] == DENIED
        assert client.set_metadata("$all", b"{}", ADA)["result"] == DENIED
        assert client.set_metadata("$all", b"{}", ADMIN)["result"] == SUCCESS


def test_sec_17_a_group_that_is_left(own: NodeThread, stream: str) -> None:
    with own.client() as client:
        assert client.ask(Command.Authenticate, GRACE)[0] == Command.Authenticated
        client.set_metadata(stream, b'{"$acl":{"$w":"writers"}}')
        assert may_write(client, stream, None)
        own.run(lambda node: node.users.set(*GRACE))
        assert not may_write(client, stream, None)


def test_auth_06_disabled_users_and_changed_passwords(own: NodeThread) -> None:
    with own.client() as client:
        own.run(lambda node: node.users.disable("ada"))
        assert not pings(client, ADA)
        own.run(lambda node: node.users.enable("ada"))
        assert pings(client, ADA)
        own.run(lambda node: node.users.set("ada", "loom"))
        assert [pings(client, ("ada", word)) for word in ("engine", "loom")] == [False, True]
        own.run(lambda node: node.users.remove("ada"))
        assert not pings(client, ("ada", "loom"))


def test_the_first_users_can_have_other_passwords() -> None:
    with NodeThread(users={"admin": "safer"}) as node, node.client() as client:
        assert not pings(client, ADMIN)
        assert client.all_forward(auth=("admin", "safer")).result == SUCCESS


def test_passwords_stay_secret(own: NodeThread, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), own.client() as client:
        assert pings(client, ADA)
        assert not pings(client, ("ada", "engine-2"))

    def shown(node: Any) -> str:
        services = [session._services for session in node._sessions]
        account = node.users.account("ada")
        return f"{node!r} {node.users!r} {account!r} {services!r} {node._engine!r}"

    with own.client() as client:
        client.ask(Command.Authenticate, ADA)
        texts = own.run(shown), own.run(lambda n: repr([s._default for s in n._sessions]))
    for text in (*texts, caplog.text):
        assert "engine-2" not in text
        assert "'engine'" not in text
    assert "ada" in texts[0]


@pytest.mark.parametrize(
    "users",
    [
        {"": "x"},
        {"a" * 256: "x"},
        {"ä" * 128: "x"},
        {"a": "x" * 256},
        {"a": ("x", "$admins")},
        {"a": (1, ())},
    ],
)
def test_auth_05_users_that_cannot_log_in(users: Any) -> None:
    with pytest.raises(UsageError):
        run(users=users)


def call_users(method: str, login: str, node: Any) -> None:
    getattr(node.users, method)(login)


def test_unknown_users_cannot_be_changed(own: NodeThread) -> None:
    for method in ("enable", "disable", "remove"):
        with pytest.raises(UsageError, match="nobody"):
            own.run(partial(call_users, method, "nobody"))
