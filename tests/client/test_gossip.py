"""Asking for gossip: endpoints that answer nonsense or nothing, their names, their certificates."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from client.finding import client_of, connect, failure_of, short_pauses  # noqa: F401  # a fixture
from client.gossip import GossipPeer, gossip_of, http_answer, member
from client.peer import Peer, outcome, soon

import fastpump
import fastpump.server
from fastpump import _gossip
from fastpump.exceptions import ClientClosed, DiscoveryFailed, UsageError

pytest.importorskip("aiohttp")


# --- what a gossip endpoint may do wrong ---

GOOD = gossip_of(member("Leader", 1))


ANSWERS: dict[str, tuple[bytes, str]] = {
    "not JSON": (http_answer(b"<html>hello</html>"), "unexpected character"),
    "empty": (http_answer(b""), "empty"),
    "not gossip": (http_answer(b"{}"), "not gossip"),
    "no members": (gossip_of(), "no member"),
    "unavailable": (http_answer(b"x", "503 Service Unavailable"), "status 503"),
    "no content": (http_answer(b"", "204 No Content"), "status 204"),
    "elsewhere": (http_answer(b"", "302 Found", "Location: http://127.0.0.1:1/"), "status 302"),
    "huge": (http_answer(b" " * (1024 * 1024 + 1)), "more than 1048576 bytes"),
    "huge in pieces": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"400\r\n" + b" " * 1024 + b"\r\n") * 1100,
        "more than 1048576 bytes",
    ),
    "compressed": (
        http_answer(
            gzip.compress(GOOD.partition(b"\r\n\r\n")[2]), "200 OK", "Content-Encoding: gzip"
        ),
        ".",
    ),
    "too short": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "."),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000, "."),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100_000, "."),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "."),
    "nothing": (b"", "."),
    "zeros": (b"\x00" * 1000, "."),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_disc_05_an_answer_that_is_none(kind: str) -> None:
    answer, why = ANSWERS[kind]
    async with GossipPeer(answer) as seed:
        error = await failure_of(seed, gossip_timeout=20)
        assert f"http://127.0.0.1:{seed.port}: " in str(error)
        assert why in str(error)
        assert len(str(error)) < 400
        assert str(error).isprintable()


async def test_disc_05_no_answer_in_time() -> None:
    async with GossipPeer(None) as seed:
        error = await failure_of(seed, gossip_timeout=0.1)
        assert "no answer within 0.1 s" in str(error)


async def test_disc_05_an_answer_that_never_ends() -> None:
    beginning = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"
    async with GossipPeer(beginning, stays_open=True) as seed:
        error = await failure_of(seed, gossip_timeout=0.1)
        assert "no answer within 0.1 s" in str(error)


@pytest.mark.parametrize(
    "host", ["a/b", "a@b", "a b", "ä" * 70, "a..b", "", "%00", "x" * 300, "a\nb"]
)
async def test_disc_05_members_at_addresses_that_are_none(host: str) -> None:
    async with Peer() as peer:
        told = gossip_of(
            member("Leader", peer.port, http=0), member("Manager", 1, host=host, http=5)
        )
        async with GossipPeer(told) as seed:
            client = client_of(seed)
            link = await connect(client, peer)
            await link.cut()
            await peer.accept_and_greet()
            assert len(seed.requests) == 2
            await client.close()


async def test_closed_while_it_looks_for_a_node() -> None:
    async with GossipPeer(None) as seed:
        client = client_of(seed, gossip_timeout=60)
        connecting = soon(client.connect())
        while not seed.requests:
            await asyncio.sleep(0.01)
        await client.close()
        assert isinstance(await outcome(connecting), ClientClosed)


async def test_cancelled_while_it_looks_for_a_node() -> None:
    async with GossipPeer(None) as seed:
        client = client_of(seed, gossip_timeout=60)
        connecting = soon(client.connect())
        while not seed.requests:
            await asyncio.sleep(0.01)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert connecting.cancelled()
        await client.close()


async def test_closed_while_it_looks_for_another_node() -> None:
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        client = client_of(seed, gossip_timeout=60)
        link = await connect(client, peer)
        seed.answer = None
        await link.cut()
        call = soon(client.ping())
        while len(seed.requests) < 2:
            await asyncio.sleep(0.01)
        await client.close()
        assert isinstance(await outcome(call), ClientClosed)


# --- names ---


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[str] | None]:
    """Names and the addresses they have now; None: unknown."""
    known: dict[str, Sequence[str] | None] = {}

    async def look_up(seed: _gossip.Seed, timeout: float) -> list[str]:
        addresses = known.get(seed.host)
        if addresses is None:
            raise _gossip.GossipFailed(f"{seed.host} is not known")
        return list(addresses)

    monkeypatch.setattr(_gossip, "_look_up", look_up)
    return known


Names = dict[str, "Sequence[str] | None"]


async def test_disc_01_all_addresses_of_a_name_are_asked(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.2", "127.0.0.3", "::1", "127.0.0.1"]
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
        for _ in range(5):
            client = fastpump.connect(
                discovery_host="cluster.test", discovery_port=seed.port, max_discover_attempts=1
            )
            await connect(client, peer)
            assert f"Host: cluster.test:{seed.port}\r\n" in seed.requests[-1]
            await client.close()


async def test_disc_05_a_name_that_disappears(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.1"]
    async with Peer() as peer, GossipPeer(gossip_of(member("Leader", peer.port, http=0))) as seed:
        client = fastpump.connect(
            discovery_host="cluster.test",
            discovery_port=seed.port,
            max_discover_attempts=2,
            reconnect_delay=0.01,
        )
        link = await connect(client, peer)
        names["cluster.test"] = None
        await link.cut()
        error = await outcome(client.ping())
        assert isinstance(error, DiscoveryFailed)
        assert "cluster.test is not known" in str(error)
        await client.close()


async def test_disc_05_a_name_that_disappears_while_members_are_known(names: Names) -> None:
    names["cluster.test"] = ["127.0.0.1"]
    async with Peer() as peer, GossipPeer(None) as seed:
        seed.answer = gossip_of(member("Leader", peer.port, http=seed.port))
        client = fastpump.connect(
            discovery_host="cluster.test", discovery_port=seed.port, reconnect_delay=0.01
        )
        link = await connect(client, peer)
        names["cluster.test"] = None
        await link.cut()
        await peer.accept_and_greet()
        await client.close()


async def test_disc_01_names_are_really_looked_up() -> None:
    (source, *_) = await _gossip.resolve(_gossip.Seed(False, "localhost", 2113), 5)
    assert source.name == "localhost"
    assert source.node.address in ("127.0.0.1", "::1")
    assert source.node.port == 2113


@pytest.mark.parametrize("name", ["a..b", "x" * 100])
async def test_disc_05_a_name_that_cannot_be_one(name: str) -> None:
    error = await failure_of((name, 2113))
    assert "cannot be resolved" in str(error)


async def test_disc_05_a_name_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    class Loop:
        getaddrinfo = staticmethod(never)
        create_task = asyncio.get_running_loop().create_task

    monkeypatch.setattr(_gossip.asyncio, "get_running_loop", Loop)
    with pytest.raises(_gossip.GossipFailed, match=r"be resolved: no answer within 0.01 s"):
        await _gossip.resolve(_gossip.Seed(False, "cluster.test", 2113), 0.01)
    monkeypatch.undo()


# --- https ---


class Authority:
    """A certificate authority, and the context of a server it vouches for."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("cryptography")
        from fastpump.server import _development_certificate as certificates

        folder.mkdir(exist_ok=True)
        files = certificates.write_files(folder, "127.0.0.1")
        self.file = files.ca_file
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(files.certificate, files.private_key)

    @property
    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.file)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_disc_01_gossip_over_https() -> None:
    pytest.importorskip("cryptography")
    async with (
        fastpump.server.run(tls="development", http_port=0) as node,
        fastpump.connect(
            gossip_seeds=[(node.host, node.http_port)], tls=True, ca_file=node.ca_file
        ) as client,
    ):
        await client.publish_event("s", "t")


async def test_disc_01_https_for_gossip_only(authority: Authority) -> None:
    async with (
        Peer() as peer,
        GossipPeer(gossip_of(member("Leader", peer.port)), authority.server) as seed,
    ):
        # The system's certificates do not vouch for it, and nothing else was said.
        error = await failure_of(f"https://127.0.0.1:{seed.port}")
        assert "certificate verify failed" in str(error)


async def test_disc_01_http_for_gossip_only() -> None:
    pytest.importorskip("cryptography")
    async with fastpump.server.run(tls="development") as node:
        told = gossip_of(member("Master", 0, secure=node.port, old_names=True))
        async with (
            GossipPeer(told) as seed,
            fastpump.connect(
                gossip_seeds=[f"http://127.0.0.1:{seed.port}"], tls=True, ca_file=node.ca_file
            ) as client,
        ):
            await client.ping()


async def test_disc_05_no_secure_port(authority: Authority) -> None:
    async with GossipPeer(gossip_of(member("Leader", 1113)), authority.server) as seed:
        error = await failure_of(seed, tls=authority.client)
        assert "127.0.0.1 is Master and has no port with TLS" in str(error)


async def test_disc_05_a_foreign_certificate(authority: Authority, tmp_path: Path) -> None:
    foreign = Authority(tmp_path / "foreign")
    async with GossipPeer(GOOD, foreign.server) as seed:
        error = await failure_of(seed, tls=authority.client)
        assert "certificate verify failed" in str(error)
        assert not seed.requests


async def test_disc_05_an_expired_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = pytest.importorskip("fastpump.server._development_certificate")
    monkeypatch.setattr(certificates, "VALID_FOR", datetime.timedelta(minutes=-30))
    expired = Authority(tmp_path)
    async with GossipPeer(GOOD, expired.server) as seed:
        error = await failure_of(seed, tls=expired.client)
        assert "certificate verify failed" in str(error)
        assert not seed.requests


@pytest.mark.parametrize(("target", "is_right"), [("localhost", True), ("somebody.else", False)])
async def test_disc_05_the_name_in_the_certificate(
    authority: Authority, target: str, is_right: bool
) -> None:
    async with GossipPeer(GOOD, authority.server) as seed:
        error = await failure_of(seed, tls=authority.client, target_host=target)
        assert ("certificate verify failed" in str(error)) is not is_right


async def test_disc_01_the_certificate_has_to_be_for_the_name(
    authority: Authority, names: Names
) -> None:
    names.update({"localhost": ["127.0.0.1"], "cluster.test": ["127.0.0.1"]})
    async with GossipPeer(GOOD, authority.server) as seed:
        for name, is_right in (("localhost", True), ("cluster.test", False)):
            error = await failure_of((name, seed.port), tls=authority.client)
            assert ("certificate verify failed" in str(error)) is not is_right


async def test_disc_05_plain_http_where_tls_is_spoken(authority: Authority) -> None:
    async with GossipPeer(GOOD, authority.server) as seed:
        await failure_of(seed)


async def test_disc_05_tls_where_plain_http_is_spoken(authority: Authority) -> None:
    async with GossipPeer(GOOD) as seed:
        await failure_of(seed, tls=authority.client, gossip_timeout=0.2)


# --- without the extra ---


@pytest.mark.parametrize(
    "options", [{"discovery_host": "cluster"}, {"gossip_seeds": ["node"]}], ids=str
)
def test_the_extra_is_missing(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(UsageError, match=r"fastpump\[cluster\]"):
        fastpump.connect(**options)
    fastpump.connect()


def test_it_is_loaded_for_clusters_only() -> None:
    code = "import fastpump, sys; fastpump.connect(); sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
