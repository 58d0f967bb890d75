"""Connections from end to end, against the embedded node; and programs as a whole."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from acceptance.scenes import admin_client, connect, new_events

import fastpump
import fastpump.server
from fastpump import NotAuthenticated


async def test_proto_04_ping() -> None:
    async with admin_client() as client:
        seconds = await client.ping()
        assert 0 < seconds < 10
        assert await client.ping(uuid4()) > 0


async def test_auth_01_sec_01_credentials() -> None:
    async with fastpump.server.run() as node:
        with pytest.raises(NotAuthenticated):
            await connect(node, "admin", "wrong").connect()
        async with connect(node) as client:
            await client.get_all(max_count=1)


async def test_conn_20_two_clients_of_one_node() -> None:
    async with fastpump.server.run() as node:
        async with connect(node, None) as second:
            async with connect(node, None) as first:
                await first.publish_event("s", "t")
            await second.publish_event("s", "t")
            assert len(await second.get("s")) == 2


async def test_conn_04_node_that_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with fastpump.server.run(path=path) as node:
        client = connect(node, max_reconnects=-1)
        await client.connect()
        await client.publish_event("s", "t", 0)
    writing = asyncio.ensure_future(client.publish_event("s", "t", 1, id=uuid4()))
    await asyncio.sleep(0.05)
    async with fastpump.server.run(port=node.port, path=path):
        assert (await writing).last_event_number == 1
        assert [event.json() async for event in client.iter("s")] == [0, 1]
        await client.close()


def test_program_started_by_fastpump_run() -> None:
    async def main() -> tuple[str, list[UUID]]:
        async with admin_client() as client:
            events = new_events(3)
            await client.publish("s", events)
            page = await client.get("s")
            assert [event.id for event in page] == [event.id for event in events]
            return type(asyncio.get_running_loop()).__module__, [event.id for event in page]

    module, ids = fastpump.run(main())
    assert len(ids) == 3
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return
    assert module.startswith("uvloop")


def test_run_passes_on_errors_and_cleans_up() -> None:
    cancelled = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        task = asyncio.ensure_future(forgotten())
        await asyncio.sleep(0)
        assert not task.done()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fastpump.run(main())
    assert cancelled == [True]
