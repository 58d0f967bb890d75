"""CONN-19: the client over TLS, against the embedded node with its development certificate."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

import pytest

import fastpump
import fastpump.server
from fastpump import ConnectFailed, NewEvent, StreamMetadata, UsageError
from fastpump.server import _development_certificate


async def test_conn_19_everything_works_with_the_right_certificate() -> None:
    options = {"tls": True, "username": "admin", "password": "changeit"}
    async with (
        fastpump.server.run(tls="development") as node,
        fastpump.connect(node.host, node.port, ca_file=node.ca_file, **options) as client,
        await client.subscribe_to("s", start_from=0) as subscription,
    ):
        body = {"text": "x" * 100_000}
        for _ in range(20):
            await client.publish_event("s", "t", body)
        assert [event.json() async for event in client.iter("s", batch_size=5)] == [body] * 20
        assert [(await anext(subscription.events)).json() for _ in range(20)] == [body] * 20
        async with client.transaction("s") as transaction:
            await transaction.write([NewEvent("t", data=body)])
        async with client.publisher() as publisher:
            await publisher.send("s", NewEvent("t", data=body))
        assert len([event async for event in client.iter_all() if event.stream == "s"]) == 22
        await client.create_subscription("g", "s", start_from=0)
        async with await client.connect_subscription("g", "s", auto_ack=True) as consumer:
            assert (await anext(consumer.events)).json() == body
        await client.set_stream_metadata("s", StreamMetadata(max_count=1))
        assert (await client.get_stream_metadata("s")).metadata.max_count == 1
        assert len(await client.get("s")) == 1
        await client.delete_stream("s")


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


async def test_conn_19_an_expired_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_development_certificate, "VALID_FOR", timedelta(minutes=-30))
    async with fastpump.server.run(tls="development") as node:
        client = fastpump.connect(node.host, node.port, tls=True, ca_file=node.ca_file)
        with pytest.raises(ConnectFailed, match=r"certificate has expired"):
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
