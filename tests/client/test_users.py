"""Managing users over HTTP. Names are rows of the acceptance list."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

import pytest
from client.embedded import ADMIN
from client.gossip import GossipPeer, http_answer

import fastpump
import fastpump.server
from fastpump import exceptions
from fastpump.users import User, Users


def node() -> fastpump.server.Node:
    return fastpump.server.run(http_port=0)


def users_of(node: fastpump.server.Node, *who: str, **options: Any) -> Users:
    assert node.http_port is not None
    return Users(node.host, node.http_port, *who, **options)


async def may_ping(node: fastpump.server.Node, username: str, password: str) -> bool:
    try:
        async with fastpump.connect(
            node.host, node.port, username=username, password=password
        ) as client:
            await client.ping()
    except exceptions.NotAuthenticated:
        return False
    return True


async def test_user_01_create() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada Lovelace", "engine", groups=["writers", "readers"])
        ada = await users.get("ada")
        assert (ada.login, ada.full_name, ada.groups) == (
            "ada",
            "Ada Lovelace",
            ("writers", "readers"),
        )
        assert not ada.disabled
        assert ada.updated is not None
        assert abs((datetime.now(timezone.utc) - ada.updated).total_seconds()) < 60
        with pytest.raises(exceptions.UserCommandConflict, match="'ada'") as caught:
            await users.create("ada", "Another", "motor")
        assert (caught.value.login, caught.value.status) == ("ada", 409)
        assert await users.get("ada") == ada


@pytest.mark.parametrize("missing", ["login", "full_name", "password"])
async def test_user_01_arguments(missing: str) -> None:
    given: dict[str, Any] = {"login": "ada", "full_name": "Ada", "password": "engine"}
    async with Users("127.0.0.1", 1) as users:
        for nothing in ("", None):
            with pytest.raises(exceptions.UsageError, match=missing):
                await users.create(**{**given, missing: nothing})
        for groups in ("writers", 7, [""], [None]):
            with pytest.raises(exceptions.UsageError, match="groups"):
                await users.create(**given, groups=groups)


async def test_user_02_update_disable_enable_delete() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada", "engine", ["writers"])
        await users.update("ada", "Countess of Lovelace", ["readers"])
        ada = await users.get("ada")
        assert (ada.full_name, ada.groups) == ("Countess of Lovelace", ("readers",))
        await users.disable("ada")
        assert (await users.get("ada")).disabled
        await users.enable("ada")
        assert not (await users.get("ada")).disabled
        await users.delete("ada")
        for call in (
            users.get("ada"),
            users.update("ada", "Ada"),
            users.delete("ada"),
            users.enable("ada"),
            users.disable("ada"),
            users.reset_password("ada", "loom"),
        ):
            with pytest.raises(exceptions.UserNotFound, match="'ada'"):
                await call


async def test_user_03_list_and_current() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada Lovelace", "engine")
        assert [user.login for user in await users.list()] == ["ada", "admin", "ops"]
        assert (await users.current()).full_name == "Event Store Administrator"
        async with users_of(running, "ada", "engine") as own:
            assert await own.current() == await users.get("ada")


async def test_user_04_and_auth_06_passwords() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada", "engine")
        async with users_of(running, "ada", "engine") as own:
            with pytest.raises(exceptions.UserCommandUnauthorized):
                await own.change_password("ada", "motor", "loom")
            assert await may_ping(running, "ada", "engine")
            await own.change_password("ada", "engine", "loom")
        assert not await may_ping(running, "ada", "engine")
        assert await may_ping(running, "ada", "loom")
        await users.reset_password("ada", "card")
        assert not await may_ping(running, "ada", "loom")
        assert await may_ping(running, "ada", "card")
        await users.disable("ada")
        assert not await may_ping(running, "ada", "card")
        await users.enable("ada")
        assert await may_ping(running, "ada", "card")


async def test_user_05_who_may_not() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada", "engine")
        for who in ((), ("ada", "engine"), ("ops", "changeit"), ("admin", "wrong")):
            async with users_of(running, *who) as others:
                for call in (
                    others.list(),
                    others.get("admin"),
                    others.create("eve", "Eve", "apple"),
                    others.update("admin", "Nobody"),
                    others.enable("admin"),
                    others.disable("admin"),
                    others.delete("admin"),
                    others.change_password("admin", "changeit", "x"),
                    others.reset_password("admin", "x"),
                ):
                    with pytest.raises(exceptions.UserCommandUnauthorized):
                        await call
        async with users_of(running) as nobody:
            with pytest.raises(exceptions.UserCommandUnauthorized):
                await nobody.current()
        assert [user.login for user in await users.list()] == ["ada", "admin", "ops"]


async def test_sec_17_a_group_that_is_left() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await users.create("ada", "Ada", "engine", ["writers"])
        async with fastpump.connect(
            running.host, running.port, username="ada", password="engine"
        ) as client:
            await client.set_stream_metadata(
                "notes", fastpump.StreamMetadata(acl=fastpump.Acl(write=["writers"]))
            )
            await client.publish_event("notes", "written", body={})
            await users.update("ada", "Ada")
            with pytest.raises(exceptions.AccessDenied):
                await client.publish_event("notes", "written", body={})


async def test_logins_of_all_kinds() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        for login in ("a/b", "x y", "ключ", "100%", "a?b#c", "$x"):
            await users.create(login, f"The {login}", "engine")
            assert (await users.get(login)).full_name == f"The {login}"
            await users.delete(login)


async def test_it_has_to_be_entered() -> None:
    async with node() as running:
        users = users_of(running, *ADMIN)
        with pytest.raises(exceptions.ClientClosed):
            await users.list()
        async with users:
            await users.list()
        with pytest.raises(exceptions.ClientClosed):
            await users.list()


async def test_a_server_that_is_not_there() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        await running.kill()
        with pytest.raises(exceptions.ConnectFailed, match="/users/"):
            await users.list()


async def test_a_server_that_answers_late() -> None:
    async with node() as running, users_of(running, *ADMIN, timeout=0.05) as users:
        with (
            running.faults.http(b"{}", delay=30),
            pytest.raises(exceptions.OperationTimedOut, match="GET"),
        ):
            await users.list()


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b"{}", b'{"data":7}', b'{"data":{}}', b'{"data":[{"loginName":"a"}]}'],
)
async def test_a_server_that_answers_nonsense(answer: bytes) -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        with running.faults.http(answer), pytest.raises(exceptions.ProtocolError):
            await users.get("ada")


async def test_a_server_that_fails() -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        with (
            running.faults.http(b"{}", status=500),
            pytest.raises(exceptions.UserCommandFailed, match="500"),
        ):
            await users.delete("ada")


async def test_credentials_do_not_follow_a_redirection() -> None:
    elsewhere = http_answer(b"", "302 Found", "Location: /elsewhere")
    async with GossipPeer(elsewhere) as peer, Users(*peer.address, *ADMIN) as users:
        with pytest.raises(exceptions.UserCommandFailed, match="302"):
            await users.get("ada")
        assert len(peer.requests) == 1


@pytest.mark.parametrize("login", ["", None])
async def test_a_login_that_is_none(login: Any) -> None:
    async with node() as running, users_of(running, *ADMIN) as users:
        for call in (users.get, users.enable, users.disable, users.delete):
            with pytest.raises(exceptions.UsageError, match="login"):
                await call(login)
        assert len(await users.list()) == 2


async def test_an_answer_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpump._http_manager.LONGEST_ANSWER", 100)
    async with node() as running, users_of(running, *ADMIN) as users:
        with pytest.raises(exceptions.ProtocolError, match="longer than 100"):
            await users.list()


async def test_times_as_servers_write_them() -> None:
    wanted = datetime(2020, 1, 2, 3, 4, 5, 678900, tzinfo=timezone.utc)
    texts = ["2020-01-02T03:04:05.6789000Z", "2020-01-02T04:04:05.6789+01:00"]
    async with node() as running, users_of(running, *ADMIN) as users:
        for text in texts:
            answer = b'{"data":{"loginName":"a","dateLastUpdated":"%s"}}' % text.encode()
            with running.faults.http(answer):
                assert await users.get("a") == User("a", updated=wanted)


async def test_with_tls() -> None:
    async with fastpump.server.run(http_port=0, tls="development") as running:
        async with users_of(running, *ADMIN, tls=True, ca_file=running.ca_file) as users:
            assert (await users.current()).login == "admin"
        async with users_of(running, *ADMIN, tls=True) as users:
            with pytest.raises(exceptions.ConnectFailed):
                await users.current()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"host": ""}, "host"),
        ({"host": "http://ada:engine@node"}, r"host: must be a host name or an address, with"),
        ({"port": 0}, "port"),
        ({"username": "ada"}, "password"),
        ({"password": "engine"}, "username"),
        ({"username": "a:b", "password": "engine"}, "colon"),
        ({"username": "ada", "password": b"engine"}, "password"),
        ({"timeout": 0}, "timeout"),
        ({"ca_file": "x.pem"}, "ca_file"),
    ],
)
def test_arguments(options: dict[str, Any], named: str) -> None:
    with pytest.raises(exceptions.UsageError, match=named):
        Users(**options)


def test_without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(exceptions.UsageError, match=r"fastpump\[cluster\]"):
        Users()


def test_passwords_stay_out_of_the_repr() -> None:
    assert "engine" not in repr(Users(username="ada", password="engine"))
