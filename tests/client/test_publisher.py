"""The bulk publisher: order, packing, limits, results, failures, lost connections, its end."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from client.peer import Request, connected, eventually, outcome, reply_to, serving, soon
from client.proxy import CuttingProxy

import fastpump
import fastpump.server
from fastpump import ExpectedVersion, Json, NewEvent, Publisher, PublishFailure
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    ConnectFailed,
    FastpumpError,
    PublishFailed,
    ServerError,
    StreamDeleted,
    UsageError,
    WrongExpectedVersion,
)
from fastpump.guard import Guard
from fastpump.messages import NewEventData

ANY, NO_STREAM = ExpectedVersion.Any, ExpectedVersion.StreamMustNotExist
SUCCESS, WRONG_VERSION, DELETED, DENIED = 0, 4, 5, 7
LONG = 60.0
"""A delay nobody waits for."""


class Streams:
    """What a server has been told to write; answers as one that writes everything."""

    def __init__(self, refused: dict[str, int] | None = None) -> None:
        self.stored: dict[str, list[bytes]] = {}
        self.batches: list[tuple[str, int, int]] = []
        self.refused = refused or {}

    def answer(self, request: Request) -> bytes:
        fields = request.fields
        stream, ids = fields["event_stream_id"], request.event_ids
        self.batches.append((stream, fields["expected_version"], len(ids)))
        if stream in self.refused:
            return reply_to(request, result=self.refused[stream], current_version=7)
        events = self.stored.setdefault(stream, [])
        first = len(events)
        events += ids
        return reply_to(
            request, result=0, first_event_number=first, last_event_number=len(events) - 1
        )

    @property
    def sizes(self) -> list[int]:
        return [count for _, _, count in self.batches]


def events(count: int, data: Any = None) -> list[NewEventData]:
    return [NewEvent("t", data={"n": n} if data is None else data) for n in range(count)]


def wire_ids(given: Sequence[NewEventData]) -> list[bytes]:
    return [event.id.bytes_le for event in given]


def runs_through(awaitable: Any) -> bool:
    """Whether it ends without suspending."""
    try:
        awaitable.__await__().__next__()
    except StopIteration:
        return True
    return False


@asynccontextmanager
async def publishing(
    refused: dict[str, int] | None = None, **options: Any
) -> AsyncIterator[tuple[Publisher, Streams]]:
    """A publisher of a client whose server answers everything."""
    streams = Streams(refused)
    async with connected() as (client, link, _), serving(link, streams.answer):
        async with client.publisher(**{"max_delay": LONG, **options}) as publisher:
            yield publisher, streams


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


class TestResults:
    async def test_tracked(self) -> None:
        async with publishing(max_batch_events=3) as (publisher, _):
            futures = [await publisher.send_tracked("s", event) for event in events(7)]
            await publisher.flush()
            assert [future.result() for future in futures] == list(range(7))

    async def test_tracked_failure(self) -> None:
        async with publishing({"s": DELETED}) as (publisher, _):
            future = await publisher.send_tracked("s", NewEvent("t"))
            with pytest.raises(PublishFailed):
                await publisher.flush()
            with pytest.raises(StreamDeleted):
                await future

    async def test_tracked_and_not_looked_at(self) -> None:
        async with publishing({"s": DELETED}) as (publisher, _):
            await publisher.send_tracked("s", NewEvent("t"))
            (await publisher.send_tracked("s", NewEvent("t"))).cancel()
            with pytest.raises(PublishFailed):
                await publisher.flush()
            gc.collect()

    async def test_callbacks_in_order(self) -> None:
        told: list[Any] = []
        async with publishing(
            {"b": DENIED},
            max_batch_events=2,
            on_result=lambda stream, numbers: told.append((stream, list(numbers))),
            on_failure=told.append,
        ) as (publisher, _):
            given = events(3)
            await publisher.send_many("a", events(3))
            await publisher.send_many("b", given)
        assert [entry for entry in told if entry[0] == "a"] == [("a", [0, 1]), ("a", [2])]
        failed = [entry for entry in told if entry[0] == "b"]
        assert [event.id for failure in failed for event in failure.events] == [
            event.id for event in given
        ]
        assert all(isinstance(failure.reason, AccessDenied) for failure in failed)

    async def test_numbers_of_a_repeated_batch_with_one_id(self) -> None:
        event = NewEvent("t")
        async with connected() as (client, link, _):
            async with client.publisher() as publisher:
                futures = [await publisher.send_tracked("s", event) for _ in range(3)]
                link.reply(
                    await link.expect("WriteEvents"), first_event_number=4, last_event_number=4
                )
                assert await asyncio.gather(*futures) == [4, 4, 4]

    async def test_stats(self) -> None:
        async with connected() as (client, link, _):
            async with client.publisher() as publisher:
                await publisher.send("s", NewEvent("t", data=b"12345", metadata=b"678"))
                assert publisher.stats.waiting == 1
                link.reply(await link.expect("WriteEvents"))
                await publisher.flush()
                assert publisher.stats == fastpump.PublisherStats(1, 1, 0, 0, 0, 8, 0)
                assert "acknowledged=1" in repr(publisher)


class TestFailures:
    async def test_one_stream_does_not_hold_up_the_others(self) -> None:
        given = events(5)
        async with publishing({"bad": DELETED}, max_batch_events=2) as (publisher, streams):
            await publisher.send_many("bad", given[:3])
            with pytest.raises(PublishFailed):
                await publisher.flush()
            assert streams.batches == [("bad", ANY, 2)]
            await publisher.send_many("bad", given[3:])
            await publisher.send_many("good", events(5))
            with pytest.raises(PublishFailed) as caught:
                await publisher.flush()
            assert streams.sizes == [2, 2, 2, 1]
        (failure,) = caught.value.failures
        assert failure.stream == "bad"
        assert [event.id for event in failure.events] == [event.id for event in given[3:]]
        assert isinstance(failure.reason, StreamDeleted)
        assert publisher.stats.failed == publisher.stats.acknowledged == 5

    async def test_raised_on_leaving_with_all_events(self) -> None:
        given = {"a": events(2), "b": events(3)}
        with pytest.raises(PublishFailed, match=r"^5 events of 2 streams could not") as caught:
            async with publishing({"a": DELETED, "b": WRONG_VERSION}) as (publisher, _):
                for name, some in given.items():
                    await publisher.send_many(name, some)
        failures = {failure.stream: failure for failure in caught.value.failures}
        assert {name: [event.id for event in failures[name].events] for name in given} == {
            name: [event.id for event in some] for name, some in given.items()
        }
        assert isinstance(caught.value.__cause__, ServerError)
        again = pickle.loads(pickle.dumps(caught.value))
        assert [tuple(failure[:2]) for failure in again.failures] == [
            tuple(failure[:2]) for failure in caught.value.failures
        ]

    async def test_failed_events_can_be_sent_again(self) -> None:
        given = [
            NewEvent("größe", data={"n": 1}, metadata={"m": "ü"}),
            NewEvent("t", data=b"\0\1", metadata=b""),
            NewEvent("t"),
            NewEvent("t", data="text", metadata=bytes(300)),
        ]
        async with connected() as (client, link, _):
            async with client.publisher() as publisher:
                await publisher.send_many("s", given)
                first = await link.expect("WriteEvents")
                link.reply(first, result=WRONG_VERSION)
                with pytest.raises(PublishFailed) as caught:
                    await publisher.flush()
                ((stream, failed, _),) = caught.value.failures
                assert failed[0].data == Json(b'{"n":1}')
                publisher.expect(stream, ANY)
                await publisher.send_many(stream, failed)
                second = await link.expect("WriteEvents")
                assert second.payload == first.payload
                link.reply(second)

    async def test_memory_is_bounded_when_a_stream_goes_on_failing(self) -> None:
        given = events(3000)
        taken = 0
        async with publishing({"s": DENIED}, max_in_flight_events=1000) as (publisher, _):
            with pytest.raises(PublishFailed) as caught:
                for event in given:
                    await publisher.send("s", event)
                    taken += 1
            assert taken < 3000
            (failure,) = caught.value.failures
            assert 500 < len(failure.events) <= 2000
            assert failure.events[0].id == given[0].id

    async def test_by_callback_nothing_is_raised(self) -> None:
        failures: list[PublishFailure] = []
        async with publishing({"s": DENIED}, on_failure=failures.append) as (publisher, _):
            await publisher.send_many("s", events(3000))
            await publisher.flush()
        assert sum(len(failure.events) for failure in failures) == 3000

    async def test_no_answer_in_time(self) -> None:
        options: dict[str, Any] = {"operation_timeout": 0.05, "fail_on_no_response": True}
        async with connected(**options) as (client, link, _):
            with pytest.raises(PublishFailed, match="no reply within"):
                async with client.publisher(max_batch_events=1) as publisher:
                    await publisher.send_many("s", events(3))
                    await link.expect("WriteEvents")
            await link.nothing_more()

    async def test_a_callback_that_raises_ends_it(self) -> None:
        def break_down(stream: str, numbers: Sequence[int]) -> None:
            raise ZeroDivisionError(stream)

        async with connected() as (client, link, _), serving(link, reply_to):
            with pytest.raises(ZeroDivisionError):
                async with client.publisher(on_result=break_down, max_delay=0) as publisher:
                    while True:
                        await publisher.send("s", NewEvent("t"))
                        await asyncio.sleep(0)
            assert publisher.stats.waiting == 0
            await client.ping()

    @pytest.mark.parametrize("flushes", [False, True])
    @pytest.mark.parametrize("refused", [{}, {"s": DENIED}], ids=["written", "refused"])
    async def test_a_callback_that_raises_for_the_last_batch(
        self, refused: dict[str, int], flushes: bool
    ) -> None:
        def break_down(*_: Any) -> None:
            raise ZeroDivisionError

        callbacks = {"on_result": break_down, "on_failure": break_down}
        with pytest.raises(ZeroDivisionError):
            async with publishing(refused, **callbacks) as (publisher, _):
                await publisher.send("s", NewEvent("t"))
                if flushes:
                    await publisher.flush()

    async def test_a_callback_that_raises_is_not_called_again(self) -> None:
        called: list[str] = []

        def break_down(failure: PublishFailure) -> None:
            called.append(failure.stream)
            raise ZeroDivisionError

        refused = {f"s{number}": DENIED for number in range(5)}
        with pytest.raises(ZeroDivisionError):
            async with publishing(refused, on_failure=break_down) as (publisher, _):
                for stream in refused:
                    await publisher.send(stream, NewEvent("t"))
                await publisher.flush()
        assert len(called) == 1

    async def test_answers_behind_the_one_a_callback_raises_for(self) -> None:
        def break_down(*_: Any) -> None:
            raise ZeroDivisionError

        async with connected() as (client, link, _):
            with pytest.raises(ZeroDivisionError):
                async with client.publisher(on_result=break_down, max_delay=LONG) as publisher:
                    for number in range(3):
                        await publisher.send(f"s{number}", NewEvent("t"))
                    flushing = soon(publisher.flush())
                    requests = [await link.expect("WriteEvents") for _ in range(3)]
                    link.send_raw(b"".join(map(reply_to, requests)))
                    await flushing


class TestExpecting:
    async def test_each_batch_follows_on_the_one_before(self) -> None:
        async with publishing(max_batch_events=2) as (publisher, streams):
            publisher.expect("s", NO_STREAM)
            await publisher.send_many("s", events(5))
            await publisher.send_many("any", events(3))
        assert [batch for batch in streams.batches if batch[0] == "s"] == [
            ("s", NO_STREAM, 2),
            ("s", 1, 2),
            ("s", 3, 1),
        ]
        assert [batch for batch in streams.batches if batch[0] == "any"] == [
            ("any", ANY, 2),
            ("any", ANY, 1),
        ]

    async def test_not_where_it_should_be(self) -> None:
        async with publishing({"s": WRONG_VERSION}) as (publisher, streams):
            publisher.expect("s", 3)
            await publisher.send("s", NewEvent("t"))
            with pytest.raises(PublishFailed) as caught:
                await publisher.flush()
            reason = caught.value.failures[0].reason
            assert isinstance(reason, WrongExpectedVersion)
            assert (reason.expected_version, reason.actual_version) == (3, 7)
            streams.refused.clear()
            publisher.expect("s", 7)
            await publisher.send("s", NewEvent("t"))
        assert streams.batches == [("s", 3, 1), ("s", 7, 1)]

    async def test_not_while_events_wait(self) -> None:
        async with publishing() as (publisher, _):
            await publisher.send("s", NewEvent("t"))
            with pytest.raises(UsageError, match="not answered"):
                publisher.expect("s", 1)
            with pytest.raises(UsageError, match="expected_version"):
                publisher.expect("t", -3)
            with pytest.raises(UsageError, match="stream"):
                publisher.expect("", 1)

    async def test_a_guard_of_ones_own(self) -> None:
        class Sceptic(Guard):
            """Takes every second event, and hands nothing on to the server."""

            def expected(self, stream: str) -> int | None:
                return None if stream == "mine" else super().expected(stream)

            async def refused(
                self, stream: str, events: list[NewEventData], error: ServerError | None
            ) -> Sequence[int | FastpumpError]:
                await asyncio.sleep(0)
                assert error is None
                return [n if n % 2 else FastpumpError("even") for n in range(len(events))]

        told: list[Any] = []
        async with publishing(
            guard=Sceptic(),
            on_result=lambda stream, numbers: told.append(list(numbers)),
            on_failure=lambda failure: told.append(str(failure.reason)),
        ) as (publisher, streams):
            futures = [await publisher.send_tracked("mine", event) for event in events(4)]
            publisher.release()
            results = await asyncio.gather(*futures, return_exceptions=True)
            await publisher.send("other", NewEvent("t"))
        assert streams.batches == [("other", ANY, 1)]
        assert told == ["even", [1], "even", [3], [0]]
        assert [str(result) for result in results] == ["even", "1", "even", "3"]
        assert (publisher.stats.acknowledged, publisher.stats.failed) == (3, 2)

    async def test_a_guard_that_breaks_down(self) -> None:
        class Broken(Guard):
            async def refused(self, *_: Any) -> Sequence[int | FastpumpError]:
                return []

        async with connected() as (client, link, _), serving(link, Streams({"s": 7}).answer):
            with pytest.raises(ValueError, match="shorter"):
                async with client.publisher(guard=Broken()) as publisher:
                    await publisher.send_tracked("s", NewEvent("t"))

    async def test_a_guard_that_decides_when_it_is_too_late(self) -> None:
        class Slow(Guard):
            async def refused(
                self, stream: str, events: list[NewEventData], error: ServerError | None
            ) -> Sequence[int | FastpumpError]:
                asked.set()
                await decided.wait()
                return [0]

        def break_down(*_: Any) -> None:
            raise ZeroDivisionError

        asked, decided = asyncio.Event(), asyncio.Event()
        async with connected() as (client, link, _), serving(link, Streams({"s": 7}).answer):
            publisher = client.publisher(guard=Slow(), on_result=break_down)
            with pytest.raises(ZeroDivisionError):
                async with publisher:
                    future = await publisher.send_tracked("s", NewEvent("t"))
                    publisher.release()
                    await asked.wait()
                    await publisher.send("other", NewEvent("t"))
                    with pytest.raises(ZeroDivisionError):
                        await publisher.flush()
                    assert isinstance(future.exception(), ClientClosed)
                    decided.set()
                    for _ in range(3):
                        await asyncio.sleep(0)
            stats = publisher.stats
            assert (stats.acknowledged, stats.failed, stats.waiting) == (1, 1, 0)


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
        assert [event.id for event in failure.events] == [event.id for event in given]

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
                    stored = [event.id async for event in client.iter(name)]
                    assert stored == [event.id for event in given[name]]

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
                    stored = [event.id async for event in client.iter(name)]
                    assert stored == [event.id for event in given[name]]
                    assert told[name] == list(range(len(given[name])))

    async def test_guarded_events_are_recognised_after_a_restart(self, tmp_path: Path) -> None:
        given = events(100)
        for sizes in (7, 30):
            async with fastpump.server.run(path=tmp_path / "events.db") as node:
                async with fastpump.connect(node.host, node.port) as client:
                    async with client.publisher(max_batch_events=sizes) as publisher:
                        publisher.expect("s", NO_STREAM)
                        await publisher.send_many("s", given)
                    stored = [event.id async for event in client.iter("s")]
                    assert stored == [event.id for event in given]

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
                    stored = [event.id async for event in client.iter(name)]
                    assert stored == [event.id for event in given[name]]


async def test_with_other_credentials_over_a_lost_connection() -> None:
    async with fastpump.server.run() as node, CuttingProxy(node.host, node.port) as proxy:
        async with fastpump.connect(proxy.host, proxy.port, reconnect_delay=0.001) as client:
            admin = client.acting_as(("admin", "changeit"))
            proxy.cut_replies = 1
            async with admin.publisher(max_batch_events=10) as publisher:
                await publisher.send_many("$secret", events(100))
            assert proxy.cuts == 1
            stored = [event.event_number async for event in admin.iter("$secret")]
            assert stored == list(range(100))
            with pytest.raises(PublishFailed, match="access denied"):
                async with client.publisher() as publisher:
                    await publisher.send("$secret", NewEvent("t"))


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
