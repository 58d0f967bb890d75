"""What becomes of a bulk publisher's events: numbers, failures, guards of expected versions."""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
from client.peer import connected, reply_to, serving, soon
from client.publishing import (
    ANY,
    DELETED,
    DENIED,
    LONG,
    NO_STREAM,
    WRONG_VERSION,
    Streams,
    events,
    publishing,
)

import fastpump
from fastpump import Json, NewEvent, PublishFailure
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    FastpumpError,
    PublishFailed,
    ServerError,
    StreamDeleted,
    UsageError,
    WrongExpectedVersion,
)
from fastpump.guard import Guard
from fastpump.messages import NewEventData


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

    async def test_a_guard_that_fails_while_the_publisher_ends(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = asyncio.Event()

        class Clumsy(Guard):
            async def refused(self, *_: Any) -> Sequence[int | FastpumpError]:
                asked.set()
                try:
                    await asyncio.sleep(LONG)
                finally:
                    raise ValueError("in its own cleaning up")

        async with connected() as (client, link, _), serving(link, Streams({"s": 7}).answer):

            async def publish() -> None:
                async with client.publisher(guard=Clumsy()) as publisher:
                    await publisher.send("s", NewEvent("t"))

            task = soon(publish())
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "in its own cleaning up" in caplog.text

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
