"""CONN-19: the client over TLS, against the embedded node with its development certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

import fastpump
import fastpump.server
from fastpump import ConnectFailed, UsageError


async def test_conn_19_everything_works_with_the_right_certificate() -> None:
    async with (
        fastpump.server.run(tls="development") as node,
        fastpump.connect(node.host, node.port, tls=True, ca_file=node.ca_file) as client,
    ):
        body = {"text": "x" * 100_000}
        for _ in range(20):
            await client.publish_event("s", "t", body)
        assert [event.json() async for event in client.iter("s", batch_size=5)] == [body] * 20


async def test_conn_19_a_context_of_ones_own() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with (
        fastpump.server.run(tls="development") as node,
        fastpump.connect(node.host, node.port, tls=context) as client,
    ):
        assert await client.ping() > 0


async def test_conn_19_validation_off() -> None:
    async with fastpump.server.run(tls="development") as node:
        where = f"{node.host}:{node.port}"
        for text in (
            f"esdb+tcp://{where}?tls=true&validate_server=false",
            f"ConnectTo=tcp://{where};UseSslConnection=true;ValidateServer=false",
        ):
            async with fastpump.connect_to(text) as client:
                assert await client.ping() > 0


@pytest.mark.parametrize("target_host", [None, "somebody.else"])
async def test_conn_19_a_certificate_that_does_not_verify(target_host: str | None) -> None:
    async with fastpump.server.run(tls="development") as node:
        ca_file = None if target_host is None else node.ca_file
        client = fastpump.connect(
            node.host, node.port, tls=True, ca_file=ca_file, target_host=target_host
        )
        with pytest.raises(ConnectFailed, match=r"certificate verify failed"):
            await client.connect()


async def test_conn_19_plain_bytes_on_a_tls_port() -> None:
    async with fastpump.server.run(tls="development") as node:
        client = fastpump.connect(node.host, node.port, connect_timeout=1)
        with pytest.raises(ConnectFailed, match=rf"{node.host}:{node.port}"):
            await client.connect()


def test_arguments_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ca_file: needs tls=True"):
        fastpump.connect(ca_file="ca.pem")
    with pytest.raises(UsageError, match=r"target_host: needs tls=True"):
        fastpump.connect(target_host="somebody")
    with pytest.raises(UsageError, match=r"ca_file"):
        fastpump.connect(tls=ssl.create_default_context(), ca_file="ca.pem")
    with pytest.raises(UsageError, match=r"ca_file: .* cannot be used"):
        fastpump.connect(tls=True, ca_file=tmp_path / "missing.pem")
