"""TX: explicit transactions among other writes, and over a restart."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from acceptance.scenes import (
    ANY,
    NO_STREAM,
    admin_client,
    connect,
    count,
    last_of,
    new_events,
    numbers,
    refused,
    write,
)

import fastpump.server


async def test_tx_04_the_version_counts_at_the_commit() -> None:
    async with admin_client() as client:
        late = client.transaction("s", NO_STREAM)
        await late.start()
        await late.write(new_events(1))
        await write(client, "s", 1)
        await refused(late.commit(), NO_STREAM, None)
        assert await count(client, "s") == 1

        early = client.transaction("other", 0)
        await early.start()
        await early.write(new_events(1))
        await write(client, "other", 1)
        assert await last_of(early.commit()) == 1


@pytest.mark.parametrize("version", [2, ANY])
async def test_tx_06_writes_after_an_empty_commit(version: int) -> None:
    async with admin_client() as client:
        events = new_events(3)
        await client.publish("s", events)
        async with client.transaction("s", 2) as empty:
            pass
        assert empty.result is not None
        assert empty.result.last_event_number == 2
        assert await write(client, "s", 2, version) == 4
        assert numbers(await client.get("s")) == [0, 1, 2, 3, 4]
        assert await last_of(client.publish("s", events[:1], NO_STREAM)) == 0
        await refused(write(client, "s", 1, NO_STREAM), NO_STREAM, 4)


async def test_tx_07_many_writes_among_others() -> None:
    mine, others = new_events(500), new_events(500)
    async with admin_client() as client:
        async with client.transaction("s") as transaction:
            await asyncio.gather(
                *(
                    writing
                    for one, other in zip(mine, others, strict=True)
                    for writing in (transaction.write([one]), client.publish("s", [other]))
                )
            )
        ids = [event.id async for event in client.iter("s")]
        assert len(ids) == 1000
        assert set(ids[:500]) == {event.id for event in others}
        assert ids[500:] == [event.id for event in mine]


async def test_tx_11_over_a_restart_of_the_node(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with AsyncExitStack() as stack:
        async with fastpump.server.run(path=path) as node:
            client = await stack.enter_async_context(connect(node))
            started = client.transaction("s", NO_STREAM)
            await started.start()
            await started.write(new_events(5))
        async with fastpump.server.run(path=path, port=node.port):
            continued = client.transaction("s", transaction_id=started.id)
            await continued.write(new_events(5))
            assert await last_of(continued.commit()) == 9
            assert await count(client, "s") == 10
