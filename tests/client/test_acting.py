"""Credentials of single calls: the view that `Client.acting_as` gives, and what goes out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any
from uuid import UUID

import pytest
from client.calls import CALLS, Call, answer, every_call
from client.embedded import ADMIN, AS_ADMIN
from client.pages import events_of, stream_page
from client.peer import Request, connected, outcome, serving, soon

import fastpump
import fastpump.server
from fastpump import Client, Credential, NewEvent, StreamMetadata, Token
from fastpump._operating import Operating
from fastpump.exceptions import AccessDenied, ClientClosed, NotAuthenticated, UsageError
from fastpump.metadata import Acl

ADA = ("ada", "the engine")


def test_every_operation_is_among_the_calls() -> None:
    public = {
        name
        for name in dir(Operating)
        if not name.startswith("_")
        and (iscoroutinefunction(f := getattr(Operating, name)) or isasyncgenfunction(f))
    }
    assert public <= set(CALLS)


@every_call
async def test_sec_15_every_request_carries_the_credentials(call: Call) -> None:
    async with connected(username="bob", password="b") as (client, link, _):
        async with serving(link, answer) as requests:
            await call(client.acting_as(ADA))
            await client.ping()
        *of_ada, ping = [r for r in requests if r.command != "UnsubscribeFromStream"]
        assert of_ada
        assert {(request.login, request.password) for request in of_ada} == {ADA}
        assert ping.flags == 0
        assert all(r.flags == 0 for r in requests if r.command == "UnsubscribeFromStream")


@every_call
async def test_sec_15_sent_again_with_the_credentials(call: Call) -> None:
    async with connected() as (client, link, peer):
        pending = soon(call(client.acting_as(Token("abc"))))
        first = await link.receive()
        await link.cut()
        link = await peer.accept_and_greet()
        async with serving(link, answer) as requests:
            await pending
        again = requests[0]
        assert (again.command, again.payload) == (first.command, first.payload)
        assert (first.token, again.token) == ("abc", "abc")
        assert again.id != first.id


async def test_sec_15_pages_read_ahead_carry_the_credentials() -> None:
    def page(request: Request) -> bytes:
        return stream_page(request, events_of("s", 50))

    async with connected() as (client, link, _), serving(link, page) as requests:
        view = client.acting_as(Credential(*ADA))
        assert len([event async for event in view.iter("s", batch_size=5)]) == 50
        assert len(requests) >= 10
        assert {request.login for request in requests} == {"ada"}


async def test_sec_15_the_credential_of_create_subscription_wins() -> None:
    async with connected() as (client, link, _), serving(link, answer) as requests:
        view = client.acting_as(ADA)
        await view.create_subscription("g", "s", credential=("bob", "b"))
        (request,) = requests
        assert (request.login, request.password) == ("bob", "b")
        assert request.fields["event_stream_id"] == "s"


async def test_ping_with_a_token(writes: list[bytes]) -> None:
    async with connected() as (client, link, _):
        writes.clear()
        ping = soon(client.acting_as(Token("abc")).ping())
        request = await link.expect("Ping")
        link.reply(request)
        await ping
        # Golden vector V33, but for the correlation id.
        assert writes[0].hex() == f"170000000301{request.id.hex()}fdff616263"


async def test_a_token_for_the_connection() -> None:
    async with connected(credential=Token("abc")) as (_, link, peer):
        await link.cut()
        link = await peer.accept()
        authenticate, identify = await link.handshake()
        assert (authenticate.command, authenticate.token) == ("Authenticate", "abc")
        assert identify.flags == 0


async def test_the_view_shares_the_client() -> None:
    async with connected(max_in_flight=1) as (client, link, _):
        view = client.acting_as(ADA)
        first, second = soon(client.ping()), soon(view.ping())
        request = await link.expect("Ping")
        await link.nothing_more()
        link.reply(request)
        await first
        request = await link.expect("Ping")
        assert request.login == "ada"
        second.cancel()
        link.reply(request)
        assert not hasattr(view, "close")
        await client.close()
        with pytest.raises(ClientClosed):
            await view.ping()


@pytest.mark.parametrize(
    "wrong", [None, "ada:secret", ("ada",), ("ada", "secret", 7), 7, ["a", "b"]]
)
async def test_auth_05_no_credential(wrong: Any) -> None:
    async with connected() as (client, _, _):
        with pytest.raises(UsageError, match="credential") as caught:
            client.acting_as(wrong)
        assert "secret" not in str(caught.value)


async def test_conn_01_acting_before_connect() -> None:
    with pytest.raises(ClientClosed, match="not connected"):
        fastpump.connect().acting_as(ADA)


@pytest.mark.parametrize("longest", [127, 255])
@pytest.mark.parametrize("wrong", ["username", "password"])
def test_auth_05_longest_credentials_of_both_headers(longest: int, wrong: str) -> None:
    texts = {"username": "u" * longest, "password": "p" * longest}
    assert len(Credential(**texts, longest=longest).auth_block) == 2 * (longest + 1)
    texts[wrong] += "x"
    with pytest.raises(UsageError, match=f"{wrong}: .* {longest} bytes"):
        Credential(**texts, longest=longest)


@pytest.mark.parametrize("wrong", ["", "möbius", None, b"abc", "x" * 32_766])
def test_auth_05_no_token(wrong: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Token(wrong)
    assert caught.value.argument == "token"
    assert len(str(caught.value)) < 100


def test_longest_token() -> None:
    assert Token("x" * 32_765).auth_block[:2] == b"\x03\x80"


def test_auth_05_both_kinds_of_credentials() -> None:
    with pytest.raises(UsageError) as caught:
        fastpump.connect(username="u", password="p", credential=Token("abc"))
    assert caught.value.argument == "credential"
    with pytest.raises(UsageError):
        fastpump.connect(credential="u:p")  # type: ignore[arg-type]


SECRETS = ("geheim-7", "eyJ.geheim.8")


async def test_no_secret_in_logs_reprs_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    credentials = (Credential("ada", SECRETS[0]), Token(SECRETS[1]))
    for credential in credentials:
        async with connected(credential=credential) as (client, link, peer):
            for view in (client, *map(client.acting_as, credentials)):
                pending = soon(view.ping())
                link.refuse(await link.expect("Ping"), "NotAuthenticated", "Not Authenticated")
                error = await outcome(pending)
                texts += [repr(view), str(error), repr(error), repr(pending)]
                texts += [repr(value) for value in vars(view).values()]
            pending = soon(client.acting_as(credential).ping())
            await link.expect("Ping")
            await link.cut()
            await peer.accept_and_greet()
            pending.cancel()
    texts += [repr(vars(record)) for record in caplog.records]
    texts += [repr(credential) for credential in credentials]
    header = fastpump.messages.Header(18, 3, 1, UUID(int=7), "ada", SECRETS[0])
    texts += [repr(header), str(header)]
    assert caplog.records
    for text in texts:
        assert not any(secret in text for secret in SECRETS), text


def test_no_secret_behind_an_encoding_error() -> None:
    with pytest.raises(UsageError) as caught:
        Credential("ada", SECRETS[0] + "\ud800")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# --- against the node ---

USERS = {"ada": "the engine"}


@asynccontextmanager
async def node_and_client(**options: Any) -> AsyncIterator[Client]:
    async with fastpump.server.run(users=USERS) as node:
        async with fastpump.connect(node.host, node.port, **options) as client:
            yield client


async def test_sec_15_the_credentials_of_a_call_win() -> None:
    async with node_and_client(username="ada", password="the engine") as client:
        admin = client.acting_as(ADMIN)
        with pytest.raises(AccessDenied):
            await client.get_all()
        await admin.publish_event("s", "t")
        await admin.set_stream_metadata("s", StreamMetadata(acl=Acl(read=("ada",))))
        assert len(await client.get("s")) == 1
        assert len(await admin.get_all()) > 1
        with pytest.raises(NotAuthenticated):
            await client.acting_as(("admin", "wrong")).ping()
        await client.ping()


async def test_sec_15_nobody_and_somebody() -> None:
    async with node_and_client() as client:
        view = client.acting_as(ADMIN)
        with pytest.raises(AccessDenied):
            await client.subscribe_to_all()
        async with await view.subscribe_to_all() as subscription:
            await client.publish_event("s", "t", {"n": 1})
            async for event in subscription.events:
                if event.stream == "s":
                    break
        async with view.transaction("$system-only") as transaction:
            await transaction.write([NewEvent("t")])
        assert [event.type async for event in view.iter("$system-only")] == ["t"]


async def test_sec_16_refusals_of_a_view_do_no_harm() -> None:
    async with node_and_client(**AS_ADMIN) as client:
        async with await client.subscribe_to("s") as subscription:
            for credential in (("ada", "the engine"), ("ada", "wrong"), ("nobody", "")):
                view = client.acting_as(credential)
                with pytest.raises((AccessDenied, NotAuthenticated)):
                    await view.get_all()
                with pytest.raises((AccessDenied, NotAuthenticated)):
                    await view.publish_event("$s", "t")
                with pytest.raises((AccessDenied, NotAuthenticated)):
                    await view.subscribe_to_all()
            await client.publish_event("s", "t", {"n": 7})
            assert (await anext(subscription.events)).json() == {"n": 7}
