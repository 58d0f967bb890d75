"""What an operation may take: attempts, time for a reply, time and place to wait."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable
from typing import Any

import pytest
from client.calls import Call, answer, every_call
from client.pages import events_of, stream_page
from client.peer import Link, Request, connected, eventually, outcome, reply_to, serving, soon

from fastpump import NewEvent
from fastpump._dispatcher import Dispatcher
from fastpump._settings import ConnectionSettings
from fastpump.exceptions import (
    ClientClosed,
    ConnectionLost,
    OperationExpired,
    OperationTimedOut,
    RetriesLimitReached,
)

UNSUBSCRIBE = "UnsubscribeFromStream"


async def next_request(link: Link) -> Request:
    """The next one that is no farewell."""
    while (request := await link.receive()).command == UNSUBSCRIBE:
        pass
    return request


# --- no reply ---


@every_call
async def test_conn_08_sent_again_if_there_is_no_reply(call: Call) -> None:
    async with connected(operation_timeout=0.1) as (client, link, peer):
        pending = soon(call(client))
        first = await link.receive()
        second = await next_request(link)
        assert (second.command, second.payload) == (first.command, first.payload)
        assert second.id != first.id
        link.send_raw(answer(first) or b"")  # late
        link.send_raw(answer(second) or b"")
        async with serving(link, answer):
            await pending
        assert client.stats().unknown_frames >= 1
        assert peer.connections == 1


@every_call
async def test_conn_08_fails_if_that_is_wanted(call: Call) -> None:
    options: dict[str, Any] = {"operation_timeout": 0.05, "fail_on_no_response": True}
    async with connected(**options) as (client, link, peer):
        pending = soon(call(client))
        first = await link.receive()
        assert isinstance(await outcome(pending), OperationTimedOut)
        async with serving(link, reply_to) as requests:
            await client.ping()
        assert {request.command for request in requests} <= {"Ping", UNSUBSCRIBE}
        assert first.id not in {request.id for request in requests if request.command == "Ping"}
        assert peer.connections == 1


async def test_conn_08_what_may_have_been_heard_is_taken_back() -> None:
    async with connected(operation_timeout=0.1, max_attempts=2) as (client, link, _):
        pending = soon(client.subscribe_to("s"))
        for _ in range(2):
            request = await link.expect("SubscribeToStream")
            assert (await link.expect(UNSUBSCRIBE)).id == request.id
        error = await outcome(pending)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, OperationTimedOut)
        await link.nothing_more()


async def test_conn_08_time_without_a_connection_does_not_count() -> None:
    async with connected(operation_timeout=0.2, fail_on_no_response=True) as (client, link, peer):
        pending = soon(client.get("s"))
        await link.expect("ReadStreamEventsForward")
        await link.cut()
        link = await peer.accept()
        await asyncio.sleep(0.4)
        await link.handshake()
        async with serving(link, answer):
            assert len(await pending) == 1


async def test_conn_08_a_loop_kept_busy_is_not_the_servers_silence() -> None:
    async with connected(operation_timeout=0.2) as (client, link, _):
        reading = [soon(client.get("s")) for _ in range(20)]
        requests = [await link.receive() for _ in reading]
        for request in requests:  # more than one look into the socket brings
            link.send_raw(stream_page(request, events_of("s", 1, bytes(100_000))))
        time.sleep(1.3)  # noqa: ASYNC251
        await asyncio.gather(*reading)
        await link.nothing_more()


# --- attempts ---


async def test_conn_07_eleven_attempts_and_no_more() -> None:
    async with connected(max_reconnects=-1, reconnect_delay=0) as (client, link, peer):
        writing = soon(client.publish_event("s", "t"))
        ids = set()
        for _ in range(11):
            ids.add((await link.expect("WriteEvents")).event_ids[0])
            await link.cut()
            link = await peer.accept_and_greet()
        error = await outcome(writing)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, ConnectionLost)
        assert "11 times" in str(error)
        assert len(ids) == 1
        await link.nothing_more()


@pytest.mark.parametrize("fault", ["cut", "not ready", "silence"])
async def test_conn_07_no_limit_to_attempts(fault: str) -> None:
    options = {"max_attempts": -1, "max_reconnects": -1, "operation_timeout": 0.01}
    if fault != "silence":
        options["operation_timeout"] = 60
    async with connected(reconnect_delay=0, **options) as (client, link, peer):
        pending = soon(client.ping())
        for _ in range(4 if fault == "not ready" else 15):
            request = await link.expect("Ping")
            if fault == "cut":
                await link.cut()
                link = await peer.accept_and_greet()
            elif fault == "not ready":
                link.reply(request, "NotHandled", reason=0)
        async with serving(link, reply_to):
            await pending


# --- waiting ---


async def test_conn_09_expired_in_the_queue() -> None:
    async with connected(max_in_flight=1, queue_timeout=0.05) as (client, link, _):
        first, second = soon(client.ping()), soon(client.ping())
        request = await link.expect("Ping")
        with pytest.raises(OperationExpired, match=r"within 0\.05 s"):
            await second
        link.reply(request)
        await first
        await link.nothing_more()


async def test_conn_09_nobody_expires_at_the_door() -> None:
    async with connected(max_in_flight=1, max_queue=1, queue_timeout=0.2) as (client, link, _):
        first, queued, at_the_door = (soon(client.ping()) for _ in range(3))
        request = await link.expect("Ping")
        assert isinstance(await outcome(queued), OperationExpired)
        assert not at_the_door.done(), "its time in the queue has just begun"
        link.reply(request)
        await first
        link.reply(await link.expect("Ping"))
        await at_the_door


async def test_conn_09_none_expires_by_default() -> None:
    async with connected(max_in_flight=1, operation_timeout=0.05) as (client, link, peer):
        first, second = soon(client.ping()), soon(client.ping())
        await link.expect("Ping")
        await link.cut()
        link = await peer.accept()
        await asyncio.sleep(0.2)
        await link.handshake()
        async with serving(link, reply_to):
            await asyncio.gather(first, second)


@pytest.mark.parametrize("max_queue", [1, 3, 5000])
async def test_conn_10_nothing_is_lost_and_nobody_overtakes(max_queue: int) -> None:
    async with connected(max_in_flight=2, max_queue=max_queue) as (client, link, _):
        calls = [soon(client.publish_event("s", "t", expected_version=n)) for n in range(20)]
        seen = []
        for number in range(40):
            request = await link.expect("WriteEvents")
            seen.append(request.fields["expected_version"])
            if number < 20:  # somebody comes while others wait
                new = client.publish_event("s", "t", expected_version=20 + number)
                calls.append(soon(new))
            link.reply(request)
        await asyncio.gather(*calls)
        assert seen == list(range(40))
        assert client.stats().in_flight == client.stats().waiting == 0


async def test_conn_10_cancelled_callers_leave_no_gap() -> None:
    async with connected(max_in_flight=1, max_queue=2) as (client, link, _):
        calls = [soon(client.publish_event("s", "t", expected_version=n)) for n in range(9)]
        first = await link.expect("WriteEvents")
        for number in (1, 2, 3, 5, 8):  # of those in the queue and of those at its door
            calls[number].cancel()
        link.reply(first)
        async with serving(link, reply_to) as requests:
            await asyncio.wait(calls)
        assert [request.fields["expected_version"] for request in requests] == [4, 6, 7]


@pytest.mark.parametrize("max_queue", [1, 5000])
async def test_conn_10_cancelled_callers_leave_no_memory(max_queue: int) -> None:
    async with connected(max_in_flight=1, max_queue=max_queue) as (client, link, _):
        first, patient = soon(client.ping()), soon(client.ping())
        request = await link.expect("Ping")
        before = count_futures()
        for _ in range(20):
            await give_up(soon(client.ping()) for _ in range(10))
        assert count_futures() == before
        assert client.stats().waiting == 1
        link.reply(request)
        link.reply(await link.expect("Ping"))
        await asyncio.gather(first, patient)


async def test_conn_10_cancelled_calls_leave_while_there_is_no_connection() -> None:
    async with connected(max_in_flight=3) as (client, link, peer):
        await link.cut()
        link = await peer.accept()
        await give_up(soon(client.ping()) for _ in range(5))
        await eventually(lambda: client.stats().in_flight == 0)
        await link.handshake()
        async with serving(link, reply_to) as requests:
            await client.ping()
        assert len(requests) == 1


async def give_up(calls: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(calls)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def count_futures() -> int:
    gc.collect()
    return sum(type(each) is asyncio.Future for each in gc.get_objects())


async def test_after_the_end_nobody_waits_for_a_place() -> None:
    dispatcher = Dispatcher(ConnectionSettings(max_in_flight=1))
    waiting = soon(dispatcher.room())
    await asyncio.sleep(0)
    dispatcher.resume()  # gives the only place away
    dispatcher.close(ClientClosed("The client was closed"))
    dispatcher.pause()  # as a transport does that has something left to send
    assert not dispatcher.is_full()
    dispatcher.resume()
    assert not dispatcher.is_full()
    await waiting


async def test_a_full_transport_is_gone_with_its_connection() -> None:
    dispatcher = Dispatcher(ConnectionSettings())
    dispatcher.connected(lambda _: None)
    dispatcher.pause()
    assert dispatcher.is_full()
    dispatcher.disconnected(ConnectionLost("The connection was lost"))
    assert not dispatcher.is_full()


async def test_conn_10_a_place_that_was_not_used_is_not_lost() -> None:
    async with connected(max_in_flight=1) as (client, link, _):
        calls = [soon(client.ping()) for _ in range(6)]
        request = await link.expect("Ping")
        await asyncio.sleep(0)
        for call in calls[1:5]:
            call.cancel()
        link.reply(request)
        link.reply(await link.expect("Ping"))
        await asyncio.wait(calls)
        assert [call.cancelled() for call in calls] == [False, True, True, True, True, False]
        await eventually(lambda: client.stats().in_flight == 0)


async def test_conn_10_a_publisher_among_other_callers() -> None:
    async with connected(max_in_flight=1) as (client, link, _), serving(link, reply_to) as requests:
        async with client.publisher(max_batch_events=1) as publisher:
            calls = [soon(client.ping()) for _ in range(20)]
            for number in range(10):
                await publisher.send(f"s-{number % 3}", NewEvent("t"))
            await publisher.flush()
        await asyncio.gather(*calls)
        assert [request.command for request in requests].count("WriteEvents") == 10


async def test_conn_09_a_publisher_does_not_expire() -> None:
    async with connected(max_in_flight=1, queue_timeout=0.05) as (client, link, _):
        first = soon(client.ping())
        request = await link.expect("Ping")
        async with client.publisher(max_delay=0) as publisher:
            await publisher.send("s", NewEvent("t"))
            await asyncio.sleep(0.3)
            link.reply(request)
            await first
            async with serving(link, reply_to):
                await publisher.flush()


async def test_conn_10_a_place_that_is_not_taken_goes_to_the_next() -> None:
    async with connected(max_in_flight=1) as (client, link, _):
        outlet = client._outlet
        assert outlet is not None
        first = soon(client.ping())
        request = await link.expect("Ping")
        leaving, last = soon(outlet.room()), soon(client.ping())
        link.reply(request)
        link.reply(await link.expect("Ping"))
        await asyncio.gather(first, leaving, last)
