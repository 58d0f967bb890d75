"""What a bulk publisher takes, in which batches it leaves, and when producers wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from client.peer import connected, eventually, serving, soon
from client.publishing import ANY, LONG, Streams, events, publishing

import fastpump
import fastpump.server
from fastpump import NewEvent
from fastpump.exceptions import ClientClosed, UsageError
from fastpump.messages import NewEventData


def wire_ids(given: Sequence[NewEventData]) -> list[bytes]:
    return [event.id.bytes_le for event in given]


def runs_through(awaitable: Any) -> bool:
    """Whether it ends without suspending."""
    try:
        awaitable.__await__().__next__()
    except StopIteration:
        return True
    return False


class TestPacking:
    async def test_by_stream_and_in_order(self) -> None:
        given = {name: events(10) for name in "abc"}
        async with publishing() as (publisher, streams):
            for number in range(10):
                for name in given:
                    await publisher.send(name, given[name][number])
            assert streams.batches == []
        assert streams.stored == {name: wire_ids(given[name]) for name in given}
        assert sorted(streams.batches) == [("a", ANY, 10), ("b", ANY, 10), ("c", ANY, 10)]
        assert publisher.stats.sent == publisher.stats.acknowledged == 30

    async def test_a_full_batch_does_not_wait(self) -> None:
        async with publishing(max_batch_events=3) as (publisher, streams):
            for event in events(7):
                await publisher.send("s", event)
            await eventually(lambda: streams.sizes == [3, 3])
        assert streams.sizes == [3, 3, 1]

    async def test_batches_in_bytes(self) -> None:
        async with publishing(max_batch_bytes=1000) as (publisher, streams):
            await publisher.send_many("s", events(8, bytes(400)))
        assert streams.sizes == [2, 2, 2, 2]

    async def test_an_event_larger_than_a_batch_goes_alone(self) -> None:
        given = [*events(2), *events(1, bytes(5000)), *events(2)]
        async with publishing(max_batch_bytes=1000) as (publisher, streams):
            await publisher.send_many("s", given)
        assert streams.sizes == [2, 1, 2]
        assert streams.stored["s"] == wire_ids(given)

    async def test_events_wait_for_others_only_so_long(self) -> None:
        async with publishing(max_delay=0.001) as (publisher, streams):
            await publisher.send("s", NewEvent("t"))
            await eventually(lambda: streams.sizes == [1])
            await publisher.send("s", NewEvent("t"))
            await publisher.send("s", NewEvent("t"))
            await eventually(lambda: streams.sizes == [1, 2])

    async def test_release_sends_what_is_there(self) -> None:
        async with publishing() as (publisher, streams):
            await publisher.send("s", NewEvent("t"))
            publisher.release()
            await eventually(lambda: streams.sizes == [1])

    async def test_one_batch_of_a_stream_at_a_time(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_batch_events=2) as publisher:
                await publisher.send_many("s", events(5))
                await publisher.send_many("other", events(2))
                publisher.release()
                first, other = await link.expect("WriteEvents"), await link.expect("WriteEvents")
                assert (len(first.event_ids), len(other.event_ids)) == (2, 2)
                await link.nothing_more()
                # What is ready meanwhile goes together, although it was asked for apart.
                link.reply(first, last_event_number=1)
                second = await link.expect("WriteEvents")
                await link.nothing_more()
                link.reply(second, first_event_number=2, last_event_number=3)
                link.reply(await link.expect("WriteEvents"), last_event_number=4)
                link.reply(other, last_event_number=1)

    async def test_what_comes_while_a_batch_is_away_goes_together(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_delay=LONG) as publisher:
                await publisher.send("s", NewEvent("t"))
                publisher.release()
                first = await link.expect("WriteEvents")
                for event in events(3):
                    await publisher.send("s", event)
                    publisher.release()
                link.reply(first, last_event_number=0)
                rest = await link.expect("WriteEvents")
                assert len(rest.event_ids) == 3
                link.reply(rest, first_event_number=1, last_event_number=3)

    async def test_bodies_may_change_once_they_were_sent(self) -> None:
        body = {"n": 1}
        async with connected() as (client, link, _):
            async with client.publisher() as publisher:
                await publisher.send("s", NewEvent("t", data=body, metadata={"m": 1}))
                body["n"] = 2
                request = await link.expect("WriteEvents")
                (event,) = request.fields["events"]
                assert (event["data"], event["metadata"]) == (b'{"n":1}', b'{"m":1}')
                link.reply(request)

    async def test_many_from_an_asynchronous_iterable_and_tuples(self) -> None:
        async def some() -> AsyncIterator[NewEventData]:
            for event in events(3):
                yield event

        async with publishing() as (publisher, streams):
            await publisher.send_many("s", some())
            await publisher.send_many("s", [(None, "t", b"x", None)])  # type: ignore[list-item]
        assert streams.sizes == [4]


class TestBadEvents:
    @pytest.mark.parametrize(
        ("stream", "event", "argument"),
        [
            ("", NewEvent("t"), "stream"),
            (7, NewEvent("t"), "stream"),
            ("s", "an event", "event"),
            ("s", NewEvent(""), "event.type"),
            ("s", NewEvent("t", data={1, 2}), "event.data"),
            ("s", NewEvent("t", data=bytes(17 << 20)), "event.data"),
            ("s", NewEvent("t", metadata=object()), "event.metadata"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    async def test_refused_at_once_and_not_taken(
        self, stream: Any, event: Any, argument: str
    ) -> None:
        async with publishing() as (publisher, streams):
            await publisher.send("s", NewEvent("t"))
            with pytest.raises(UsageError) as caught:
                await publisher.send(stream, event)
            assert caught.value.argument == argument
            await publisher.send("s", NewEvent("t"))
        assert streams.sizes == [2]

    async def test_one_of_many(self) -> None:
        async with publishing() as (publisher, streams):
            with pytest.raises(UsageError, match=r"events\[2\].type"):
                await publisher.send_many("s", [*events(2), NewEvent(""), *events(2)])
        assert streams.sizes == [2]

    @pytest.mark.parametrize(
        "option",
        [
            {"max_batch_events": 0},
            {"max_batch_bytes": 64 << 20},
            {"max_delay": -1},
            {"max_delay": float("nan")},
            {"max_in_flight_events": 0},
            {"max_in_flight_bytes": "1"},
        ],
        ids=str,
    )
    async def test_settings(self, option: Any) -> None:
        async with connected() as (client, _, _):
            with pytest.raises(UsageError, match=next(iter(option))):
                client.publisher(**option)

    async def test_before_and_after(self) -> None:
        async with connected() as (client, _, _):
            publisher = client.publisher()
            with pytest.raises(ClientClosed, match="async with"):
                await publisher.send("s", NewEvent("t"))
            async with publisher:
                pass
            with pytest.raises(ClientClosed, match="was closed"):
                await publisher.send("s", NewEvent("t"))
            with pytest.raises(UsageError, match="once"):
                await publisher.__aenter__()

    def test_not_connected(self) -> None:
        with pytest.raises(ClientClosed):
            fastpump.connect().publisher()


class TestBackPressure:
    async def test_nothing_suspends_while_there_is_room(self) -> None:
        async with publishing(max_in_flight_events=6) as (publisher, _):
            assert all(runs_through(publisher.send("s", event)) for event in events(5))

    async def test_producers_are_held_back_by_events(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_in_flight_events=10) as publisher:

                async def produce() -> None:
                    for event in events(50):
                        await publisher.send("s", event)

                producer = soon(produce())
                request = await link.expect("WriteEvents")
                await link.nothing_more()
                assert len(request.event_ids) == publisher.stats.waiting == 10
                link.reply(request, last_event_number=9)
                async with serving(link, Streams().answer) as requests:
                    await producer
                    await publisher.flush()
                assert {len(request.event_ids) for request in requests} == {10}

    async def test_producers_are_held_back_by_bytes(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_in_flight_bytes=100_000) as publisher:
                producer = soon(publisher.send_many("s", events(100, bytes(10_000))))
                request = await link.expect("WriteEvents")
                assert len(request.event_ids) == 10
                assert publisher.stats.waiting_bytes < 110_000
                link.reply(request, last_event_number=9)
                async with serving(link, Streams().answer):
                    await producer
                    await publisher.flush()

    async def test_nothing_waits_for_the_delay_meanwhile(self) -> None:
        async with publishing(max_in_flight_events=4) as (publisher, _):
            for number in range(20):
                await publisher.send(f"s{number}", NewEvent("t"))
            assert publisher.stats.acknowledged >= 16

    async def test_they_go_on_when_half_is_answered(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher(max_in_flight_events=4) as publisher:
                for name in "abc":
                    await publisher.send(name, NewEvent("t"))
                fourth = soon(publisher.send("d", NewEvent("t")))  # type: ignore[arg-type]
                requests = [await link.expect("WriteEvents") for _ in range(4)]
                link.reply(requests[0])
                await link.nothing_more()
                assert not fourth.done()
                link.reply(requests[1])
                await fourth
                link.reply(requests[2])
                link.reply(requests[3])

    async def test_the_loop_gets_its_turns(self) -> None:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with publishing() as (publisher, _):
            counting = soon(count_turns())
            for event in events(10_000):
                await publisher.send("s", event)
            assert turns >= 9
            counting.cancel()

    async def test_a_server_that_does_not_read(self) -> None:
        async with connected(operation_timeout=LONG) as (client, link, _):
            async with client.publisher(
                max_in_flight_bytes=8 << 20, max_batch_bytes=1 << 20
            ) as publisher:
                bodies = [bytes(100_000)] * 5
                producers = [
                    soon(publisher.send_many(f"s{n}", [NewEvent("t", data=b) for b in bodies]))
                    for n in range(40)
                ]
                await eventually(lambda: publisher.stats.waiting_bytes >= 8 << 20)
                assert publisher.stats.waiting_bytes < (8 << 20) + 40 * 110_000
                async with serving(link, Streams().answer):
                    await asyncio.gather(*producers)
                    await publisher.flush()
                assert publisher.stats.acknowledged == 200

    @pytest.mark.parametrize("places", [1, 2])
    async def test_few_places_for_operations(self, places: int) -> None:
        streams = Streams()
        async with connected(max_in_flight=places) as (client, link, _):
            async with serving(link, streams.answer), client.publisher() as publisher:
                for event in events(50):
                    await publisher.send(f"s{event.id.int % 7}", event)
        assert publisher.stats.acknowledged == 50


async def test_a_server_that_does_as_it_should() -> None:
    """Many streams and producers, everything compared."""
    given = {f"s{n}": events(50) for n in range(200)}
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port) as client:
            async with client.publisher(
                max_batch_events=7, max_in_flight_events=500, max_delay=0.001
            ) as publisher:
                await asyncio.gather(
                    *(publisher.send_many(name, some) for name, some in given.items())
                )
            for name, some in given.items():
                stored = await client.get(name, max_count=100)
                assert [event.id for event in stored] == [event.id for event in some]
                assert [event.json() for event in stored] == [{"n": n} for n in range(50)]
