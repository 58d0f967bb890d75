"""How a bulk publisher ends, and what it does when the connection, node or client ends first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest
from client.embedded import ADMIN
from client.peer import connected, eventually, outcome, reply_to, serving, soon
from client.proxy import CuttingProxy
from client.publishing import DENIED, LONG, NO_STREAM, events, publishing

import fastpump
import fastpump.server
from fastpump import NewEvent
from fastpump.exceptions import ClientClosed, ConnectFailed, PublishFailed
from fastpump.messages import NewEventData


def ids_of(events: Iterable[NewEventData]) -> list[UUID]:
    return [event.id for event in events]


async def stored_ids(client: fastpump.Client, stream: str) -> list[UUID]:
    return [event.id async for event in client.iter(stream)]


class TestTheEnd:
    async def test_flush_does_not_wait_for_what_comes_later(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_delay=LONG) as publisher:
                await publisher.send("s", NewEvent("t"))
                flushing = soon(publisher.flush())
                request = await link.expect("WriteEvents")
                await publisher.send("s", NewEvent("t"))
                await publisher.send("other", NewEvent("t"))
                link.reply(request)
                await flushing
                assert publisher.stats.waiting == 2
                async with serving(link, reply_to):
                    await publisher.flush()

    async def test_flush_of_nothing(self) -> None:
        async with publishing() as (publisher, _):
            await publisher.flush()

    async def test_an_exception_leaves_nothing_unsent(self) -> None:
        with pytest.raises(ZeroDivisionError):
            async with publishing() as (publisher, streams):
                await publisher.send("s", NewEvent("t"))
                raise ZeroDivisionError
        assert streams.sizes == [1]

    async def test_cancelled_it_sends_what_it_has(self) -> None:
        async with connected() as (client, link, _):

            async def work() -> None:
                async with client.publisher(max_delay=LONG) as publisher:
                    await publisher.send("s", NewEvent("t"))
                    await asyncio.sleep(LONG)

            task = soon(work())
            await asyncio.sleep(0)
            task.cancel()
            link.reply(await link.expect("WriteEvents"))
            await asyncio.wait({task})
            assert task.cancelled()

    async def test_cancelled_it_logs_what_failed(self, caplog: pytest.LogCaptureFixture) -> None:
        async def work() -> None:
            async with publishing({"s": DENIED}) as (publisher, _):
                await publisher.send("s", NewEvent("t"))
                entered.set()
                await asyncio.sleep(LONG)

        entered = asyncio.Event()
        task = soon(work())
        await entered.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert "1 event of 1 stream could not be published" in caplog.text

    async def test_cancelled_twice_it_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        async with connected() as (client, link, _):

            async def work() -> None:
                async with client.publisher(max_batch_events=1) as publisher:
                    futures = [await publisher.send_tracked("s", event) for event in events(3)]
                    try:
                        await asyncio.sleep(LONG)
                    finally:
                        tracked.extend(futures)

            tracked: list[asyncio.Future[int]] = []
            task = soon(work())
            request = await link.expect("WriteEvents")
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
            link.reply(request)
            await link.nothing_more()
            assert all(isinstance(future.exception(), ClientClosed) for future in tracked)
        assert "3 events of 1 stream could not be published" in caplog.text

    async def test_cancelling_a_held_back_producer(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_in_flight_events=2) as publisher:
                await publisher.send("s", NewEvent("t"))
                held = soon(publisher.send("s", NewEvent("t")))  # type: ignore[arg-type]
                request = await link.expect("WriteEvents")
                held.cancel()
                await asyncio.wait({held})
                assert held.cancelled()
                assert len(request.event_ids) == 2
                link.reply(request, last_event_number=1)

    async def test_the_client_is_closed_under_it(self) -> None:
        given = events(40)
        async with connected() as (client, link, _):
            with pytest.raises(PublishFailed, match="The client was closed") as caught:
                async with client.publisher(
                    max_batch_events=10, max_in_flight_events=40
                ) as publisher:
                    producing = soon(publisher.send_many("s", given))
                    await link.expect("WriteEvents")
                    await client.close()
                    assert isinstance(await outcome(producing), ClientClosed)
                    with pytest.raises(ClientClosed, match="The client was closed"):
                        await publisher.send("s", NewEvent("t"))
        (failure,) = caught.value.failures
        assert ids_of(failure.events) == ids_of(given)

    async def test_the_connection_is_given_up(self) -> None:
        async with connected(max_reconnects=0) as (client, link, _):
            with pytest.raises(PublishFailed, match="was lost"):
                async with client.publisher() as publisher:
                    await publisher.send("s", NewEvent("t"))
                    await link.expect("WriteEvents")
                    await link.cut()
                    await eventually(lambda: publisher.stats.failed)
                    with pytest.raises(ConnectFailed):
                        await publisher.send("s", NewEvent("t"))

    async def test_discard(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_batch_events=2, max_in_flight_events=10) as publisher:
                await publisher.send_many("s", events(5))
                future = await publisher.send_tracked("other", NewEvent("t"))
                request = await link.expect("WriteEvents")
                assert publisher.discard() == 4
                assert future.cancelled()
                link.reply(request, last_event_number=1)
                await publisher.flush()
                await link.nothing_more()
                await publisher.send("s", NewEvent("t"))
                link.reply(await link.expect("WriteEvents"))
        stats = publisher.stats
        assert (stats.sent, stats.acknowledged, stats.discarded) == (7, 3, 4)


class TestLostConnections:
    async def test_sent_again_with_the_same_event_ids(self) -> None:
        async with connected() as (client, link, peer):
            async with client.publisher() as publisher:
                await publisher.send_many("s", events(3))
                await publisher.send_many("other", events(2))
                first = [await link.expect("WriteEvents") for _ in range(2)]
                await link.cut()
                link = await peer.accept_and_greet()
                second = [await link.expect("WriteEvents") for _ in range(2)]
                assert [r.payload for r in second] == [r.payload for r in first]
                assert {r.id for r in first}.isdisjoint(r.id for r in second)
                for request in second:
                    link.reply(request)

    @pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "any"])
    async def test_nothing_lost_doubled_or_swapped(self, guarded: bool) -> None:
        """Replies are swallowed with their connection, again and again, at every stage."""
        names = [f"s{n}" for n in range(7)]
        given = {name: events(300) for name in names}
        async with fastpump.server.run() as node, CuttingProxy(node.host, node.port) as proxy:
            async with fastpump.connect(
                proxy.host,
                proxy.port,
                max_attempts=1000,
                max_reconnects=-1,
                reconnect_delay=0.001,
                operation_timeout=LONG,
            ) as client:
                async with client.publisher(max_batch_events=20) as publisher:
                    for name in names if guarded else ():
                        publisher.expect(name, NO_STREAM)
                    for number in range(300):
                        for name in names:
                            await publisher.send(name, given[name][number])
                        if number % 10 == 0:
                            proxy.cut_replies = 1
                            await asyncio.sleep(0.002)
                    await publisher.flush()
                assert proxy.cuts > 10
                for name in names:
                    assert await stored_ids(client, name) == ids_of(given[name])

    @pytest.mark.parametrize("seed", range(6))
    async def test_cut_at_any_moment(self, seed: int) -> None:
        chance = random.Random(seed)
        names = [f"s{n}" for n in range(chance.choice([2, 5, 20]))]
        given = {name: events(chance.choice([200, 1000])) for name in names}
        told: dict[str, list[int]] = {name: [] for name in names}
        async with fastpump.server.run() as node, CuttingProxy(node.host, node.port) as proxy:

            async def produce(name: str) -> None:
                for event in given[name]:
                    await publisher.send(name, event)
                    roll = chance.random()
                    if roll < 0.05:
                        await asyncio.sleep(0.001)
                    if roll < 0.01:
                        proxy.cut()

            async with fastpump.connect(
                proxy.host,
                proxy.port,
                max_attempts=10_000,
                max_reconnects=-1,
                reconnect_delay=0.0005,
                operation_timeout=LONG,
            ) as client:
                async with client.publisher(
                    max_batch_events=chance.choice([3, 20, 50]),
                    max_delay=chance.choice([0, 0.001, 0.05]),
                    max_in_flight_events=chance.choice([5, 100, 10_000]),
                    on_result=lambda stream, numbers: told[stream].extend(numbers),
                ) as publisher:
                    for name in names if seed % 2 else ():
                        publisher.expect(name, NO_STREAM)
                    await asyncio.gather(*map(produce, names))
                assert proxy.cuts
                for name in names:
                    assert await stored_ids(client, name) == ids_of(given[name])
                    assert told[name] == list(range(len(given[name])))

    async def test_guarded_events_are_recognised_after_a_restart(self, tmp_path: Path) -> None:
        given = events(100)
        for sizes in (7, 30):
            async with fastpump.server.run(path=tmp_path / "events.db") as node:
                async with fastpump.connect(node.host, node.port) as client:
                    async with client.publisher(max_batch_events=sizes) as publisher:
                        publisher.expect("s", NO_STREAM)
                        await publisher.send_many("s", given)
                    assert await stored_ids(client, "s") == ids_of(given)

    async def test_a_server_that_is_restarted_in_the_middle(self, tmp_path: Path) -> None:
        names = [f"s{n}" for n in range(5)]
        given = {name: events(300) for name in names}
        path = tmp_path / "events.db"
        async with AsyncExitStack() as running:
            node = await running.enter_async_context(fastpump.server.run(path=path))
            async with fastpump.connect(
                node.host, node.port, max_attempts=1000, max_reconnects=-1, reconnect_delay=0.001
            ) as client:
                async with client.publisher(
                    max_batch_events=10, max_in_flight_events=200
                ) as publisher:
                    for name in names:
                        publisher.expect(name, NO_STREAM)
                    producers = [soon(publisher.send_many(name, given[name])) for name in names]
                    for wanted in (100, 500, 900):
                        await eventually(lambda least=wanted: publisher.stats.acknowledged > least)
                        await running.aclose()
                        again = fastpump.server.run(port=node.port, path=path)
                        await running.enter_async_context(again)
                    await asyncio.gather(*producers)
                for name in names:
                    assert await stored_ids(client, name) == ids_of(given[name])


async def test_with_other_credentials_over_a_lost_connection() -> None:
    async with fastpump.server.run() as node, CuttingProxy(node.host, node.port) as proxy:
        async with fastpump.connect(proxy.host, proxy.port, reconnect_delay=0.001) as client:
            admin = client.acting_as(ADMIN)
            proxy.cut_replies = 1
            async with admin.publisher(max_batch_events=10) as publisher:
                await publisher.send_many("$secret", events(100))
            assert proxy.cuts == 1
            stored = [event.event_number async for event in admin.iter("$secret")]
            assert stored == list(range(100))
            with pytest.raises(PublishFailed, match="access denied"):
                async with client.publisher() as publisher:
                    await publisher.send("$secret", NewEvent("t"))
