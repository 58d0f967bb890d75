"""Connection strings, in the spelling of the reference client and as URLs."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import Any

import pytest
from client.peer import Peer
from hypothesis import given
from hypothesis import strategies as st

import fastpump
from fastpump import Credential, connect_to, discovery, sync
from fastpump._connection_string import KEYS, OPTIONS, parse
from fastpump.exceptions import UsageError

NODE = "ConnectTo=tcp://localhost:1113"
SECRET = "geheim"


def parsed(text: str) -> dict[str, Any]:
    """The arguments, with credentials spelt out."""
    arguments = parse(text)
    credential = arguments.pop("credential", None)
    if credential is not None:
        arguments["user"] = f"{credential.username}:{credential.password}"
    return arguments


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("MaxRetries=0", {"max_attempts": 1}),
        ("MaxRetries=10", {"max_attempts": 11}),
        ("MaxRetries=-1", {"max_attempts": -1}),
        ("MaxReconnections=-1", {"max_reconnects": -1}),
        ("MaxReconnections=5", {"max_reconnects": 5}),
        ("MaxQueueSize=7", {"max_queue": 7}),
        ("MaxConcurrentItems=8", {"max_in_flight": 8}),
        ("RequireMaster=true", {"require_master": True}),
        ("RequireLeader=False", {"require_master": False}),
        ("ReconnectionDelay=250", {"reconnect_delay": 0.25}),
        ("QueueTimeout=0", {"queue_timeout": None}),
        ("QueueTimeout=1500", {"queue_timeout": 1.5}),
        ("OperationTimeout=7000", {"operation_timeout": 7.0}),
        ("FailOnNoServerResponse=True", {"fail_on_no_response": True}),
        ("HeartbeatInterval=750", {"heartbeat_interval": 0.75}),
        ("HeartBeatTimeout=1500", {"heartbeat_timeout": 1.5}),
        ("ClientConnectionTimeout=1000", {"connect_timeout": 1.0}),
        ("MaxDiscoverAttempts=3", {"max_discover_attempts": 3}),
        ("GossipTimeout=500", {"gossip_timeout": 0.5}),
        ("GossipPort=2114", {"discovery_port": 2114}),
        ("ExternalGossipPort=30778", {"discovery_port": 30778}),
        ("NodePreference=Slave", {"selector": discovery.prefer_replica}),
        ("NodePreference=ReadOnlyReplica", {"selector": discovery.prefer_read_only_replica}),
        ("DefaultUserCredentials=foo:bar", {"user": "foo:bar"}),
        ("DefaultUserCredentials=foo:b%41:r", {"user": "foo:b%41:r"}),
        (
            "UseSslConnection=true;TargetHost=node;ValidateServer=false",
            {"tls": True, "target_host": "node", "validate_server": False},
        ),
        ("UseSslConnection=false;TargetHost=;ValidateServer=true", {"tls": False}),
        ("ValidateServer=true", {}),
        ("VerboseLogging=true", {}),
        ("CompatibilityMode=disabled", {}),
        ("OperationTimeoutCheckPeriod=1000", {}),
        ("RetryAuthenticationOnTimeout=true", {}),
        ("SkipCertificateValidation=false", {}),
    ],
)
def test_conn_17_every_key(text: str, arguments: dict[str, Any]) -> None:
    assert parsed(f"{NODE};{text}") == {"host": "localhost", "port": 1113, **arguments}
    connect_to(f"{NODE};{text}")


@pytest.mark.parametrize(
    "text",
    [
        "connectto=tcp://h:7;maxretries=2",
        "CONNECTTO=tcp://h:7;MAXRETRIES=2",
        "Connect To=tcp://h:7; Max Retries=2",
        "  ConnectTo = tcp://h:7 ;;; MaxRetries = 2 ; ",
        "ConnectTo=\"tcp://h:7\";MaxRetries='2'",
        "MaxRetries=9;ConnectTo=tcp://h:7;MaxRetries=2",
    ],
)
def test_conn_17_spellings(text: str) -> None:
    assert parse(text) == {"host": "h", "port": 7, "max_attempts": 3}


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ('DefaultUserCredentials="ada:pa;ss=wo\'rd"', "pa;ss=wo'rd"),
        ("DefaultUserCredentials='ada:a''b\"c'", "a'b\"c"),
        ('DefaultUserCredentials="ada: x "', " x "),
        ("DefaultUserCredentials= ada:a=b ", "a=b"),
        ("DefaultUserCredentials=ada:größe", "größe"),
        ("DefaultUserCredentials=ada:", ""),
    ],
)
def test_conn_17_quotes(text: str, password: str) -> None:
    assert parsed(f"{NODE};{text}")["user"] == f"ada:{password}"


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40), st.sampled_from("\"'")
)
def test_conn_17_any_password_can_be_quoted(password: str, quote: str) -> None:
    quoted = quote + f"ada:{password}".replace(quote, quote * 2) + quote
    assert parsed(f"{NODE};DefaultUserCredentials={quoted};MaxRetries=1") == {
        "host": "localhost",
        "port": 1113,
        "user": f"ada:{password}",
        "max_attempts": 2,
    }


@given(st.text())
def test_conn_17_any_text(text: str) -> None:
    for spelling in (text, f"{NODE};{text}", f"tcp://{text}", f"ConnectTo={text}"):
        with contextlib.suppress(UsageError):
            parse(spelling)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://node:2000", {"host": "node", "port": 2000}),
        ("tcp://node", {"host": "node"}),
        ("TCP://node/", {"host": "node"}),
        ("tcp://127.0.0.1:1113", {"host": "127.0.0.1", "port": 1113}),
        ("tcp://[::1]:1113", {"host": "::1", "port": 1113}),
        ("tcp://ada:engine@node:7", {"user": "ada:engine", "host": "node", "port": 7}),
        ("tcp://ada:%40%3A%2F%3b%C3%A9@node", {"user": "ada:@:/;é", "host": "node"}),
        ("tcp://a%3Ada:x@y@node", {"user": "a:da:x@y", "host": "node"}),
        ("discover://ada:engine@dns", {"user": "ada:engine", "discovery_host": "dns"}),
        ("discover://dns:2114", {"discovery_host": "dns", "discovery_port": 2114}),
    ],
)
def test_conn_18_addresses(text: str, address: dict[str, Any]) -> None:
    assert parsed(f"ConnectTo={text}") == address
    assert parsed(text) == address
    if text.lower().startswith("tcp"):
        assert parsed(f"esdb+{text}") == address
    else:
        assert parsed(f"esdb+tcp+{text}") == address


def test_conn_18_credentials_of_the_address_win() -> None:
    text = "ConnectTo=tcp://ada:engine@node;DefaultUserCredentials=foo:bar"
    assert parsed(text)["user"] == "ada:engine"


def test_conn_17_seeds() -> None:
    text = "GossipSeeds=a:1, http://b:2 ,https://c:3"
    assert parse(text) == {"gossip_seeds": ["a:1", "http://b:2", "https://c:3"]}
    assert "http://a:1, http://b:2, https://c:3" in repr(connect_to(text))
    assert parsed("esdb+tcp://ada:engine@a,b:3,[::1]:4?tls=true&selector=prefer_replica") == {
        "user": "ada:engine",
        "gossip_seeds": [("a", 2113), ("b", 3), ("::1", 4)],
        "tls": True,
        "selector": discovery.prefer_replica,
    }
    assert parse("ClusterDns=dns;GossipPort=7") == {"discovery_host": "dns", "discovery_port": 7}


def test_url_options() -> None:
    text = "tcp://n?Operation_Timeout=0.5&queue_timeout=none&max_attempts=-1&tls=no&name=a%20b"
    assert parse(text) == {
        "host": "n",
        "operation_timeout": 0.5,
        "queue_timeout": None,
        "max_attempts": -1,
        "tls": False,
        "name": "a b",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (7, "str"),
        ("", "ConnectTo"),
        ("MaxRetries=1", "ConnectTo"),
        (f"{NODE};GossipSeeds=a:1", "not more"),
        (f"{NODE};ClusterDns=a", "not more"),
        (f"{NODE};geheim", "without '='"),
        (f"geheim;{NODE}", "without '='"),
        (f'{NODE};DefaultUserCredentials="ada:geheim', "quotes"),
        (f"{NODE};DefaultUserCredentials='ada:geheim' x", "quotes"),
        (f"{NODE};DefaultUserCredentials=geheim", "user:password"),
        (f"{NODE};DefaultUserCredentials=:geheim", "user:password"),
        (f"{NODE};DefaultUserCredentials={SECRET * 43}:x", "username"),
        (f"{NODE};MaxRetries=geheim", "MaxRetries"),
        (f"{NODE};Max Retries=-2", "Max Retries"),
        (f"{NODE};MaxReconnections=-2", "max_reconnects"),
        (f"{NODE};MaxQueueSize=0", "max_queue"),
        (f"{NODE};MaxConcurrentItems=-1", "max_in_flight"),
        (f"{NODE};OperationTimeout=7s", "OperationTimeout"),
        (f"{NODE};OperationTimeout=-1", "OperationTimeout"),
        (f"{NODE};OperationTimeout=0", "operation_timeout"),
        (f"{NODE};OperationTimeout=\u0661", "OperationTimeout"),
        (f"{NODE};FailOnNoServerResponse=perhaps", "FailOnNoServerResponse"),
        (f"{NODE};NodePreference=geheim", "NodePreference"),
        (f"{NODE};SkipCertificateValidation=true", "ValidateServer=false"),
        (f"{NODE};CustomHttpMessageHandler=SkipCertificateValidation", "ValidateServer=false"),
        ("ConnectTo=tcp://ada:geheim@", "host"),
        ("ConnectTo=tcp://ada:geheim", "port"),
        ("ConnectTo=tcp://ada:geheim@h:0", "port"),
        ("ConnectTo=tcp://ada:geheim@h:65536", "port"),
        ("ConnectTo=tcp://ada:gehe/im@h:1", "%2F"),
        ("ConnectTo=tcp://ada:geheim@h/path", "%2F"),
        ("ConnectTo=tcp://geheim@h:1", "user:password"),
        ("ConnectTo=tcp://ada:geheim%FF@h:1", "percent"),
        ("ConnectTo=tcp://ada:geheim@h:1?tls=true", "%2F"),
        ("ConnectTo=http://ada:geheim@h:1", "tcp"),
        ("ConnectTo=geheim:1", "tcp"),
        ("http://ada:geheim@h:1", "tcp"),
        ("esdb://ada:geheim@h:1", "esdb+tcp"),
        ("discover://a,b", "one name"),
        ("GossipSeeds=ada:geheim@a:1", "DefaultUserCredentials"),
        ("GossipSeeds=a:x", "gossip_seeds"),
        ("GossipSeeds=a:1,,b:2", "gossip_seeds"),
        ("tcp://ada:geheim@h?operation_timeout=geheim", "operation_timeout"),
        ("tcp://ada:geheim@h?operation_timeout=nan", "operation_timeout"),
        ("tcp://ada:geheim@h?tls=false&target_host=x", "target_host"),
        ("tcp://ada:geheim@h?selector=geheim", "selector"),
        (
            "ConnectTo=discover://h;NodePreference=ReadOnlyReplica;RequireLeader=true",
            "selector",
        ),
    ],
)
def test_conn_16_conn_17_conn_18_refused(text: Any, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect_to(text)
    assert told in str(caught.value)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert SECRET not in f"{cause!r}{cause}"
        cause = None if cause.__suppress_context__ else cause.__context__


def test_conn_17_unknown_keys_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    parse(f"{NODE};Foo=1;Bar Baz=geheim;cret9@x=1")
    parse("tcp://ada:geheim@h?tlsVerifyCert=false")
    first, second = (record.getMessage() for record in caplog.records)
    assert "Foo, Bar Baz, ?" in first
    assert "tlsVerifyCert" in second
    assert SECRET not in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_overrides_win() -> None:
    text = "ConnectTo=tcp://ada:engine@node:7;OperationTimeout=1000"
    client = connect_to(text, operation_timeout=3.0, name="Lovelace", port=8)
    assert repr(client).startswith("<Client Lovelace of node:8,")
    assert client._settings.operation_timeout == 3.0
    for overrides in (
        {"username": "bob", "password": "b"},
        {"credential": Credential("bob", "b")},
    ):
        credential = connect_to(text, **overrides)._credential
        assert isinstance(credential, Credential)
        assert credential.username == "bob"
    with pytest.raises(TypeError, match="operation_timeuot"):
        connect_to(text, operation_timeuot=3)


def test_every_option_is_an_argument() -> None:
    arguments = inspect.signature(fastpump.connect).parameters
    assert set(OPTIONS) <= set(arguments)
    assert {argument for argument, _ in KEYS.values()} - {None} <= set(arguments)
    # The others are in the address, or cannot be written.
    in_address = {"host", "port", "discovery_host", "discovery_port", "gossip_seeds"}
    not_text = {"username", "password", "credential", "loop", "retry_policy", "telemetry"}
    assert set(arguments) - set(OPTIONS) == in_address | not_text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("form", ["ConnectTo=tcp://{}", "esdb+tcp://{}"])
async def test_conn_18_connects_with_the_credentials(host: str, form: str) -> None:
    async with Peer() as peer:
        client = connect_to(form.format(f"ada:the%20engine@{host}:{peer.port}"))
        connecting = asyncio.ensure_future(client.connect())
        authenticate, _ = await (await peer.accept()).handshake()
        await connecting
        assert (authenticate.login, authenticate.password) == ("ada", "the engine")
        await client.close()


def test_synchronous() -> None:
    client = sync.connect_to("esdb+tcp://ada:geheim@h:7")
    assert "h:7" in repr(client)
    assert SECRET not in repr(client)
