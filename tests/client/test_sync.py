"""The client with calls that wait, against the embedded node."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import fastpump
import fastpump.server
from fastpump import Client, NewEvent, PersistentSubscriptionSettings, StreamDirection, sync
from fastpump._background import BackgroundLoop
from fastpump.exceptions import (
    AccessDenied,
    ClientClosed,
    ConnectFailed,
    PublishFailed,
    StreamNotFound,
    UsageError,
    WrongExpectedVersion,
)

PATIENCE = 30.0


@pytest.fixture(scope="module")
def node() -> Iterator[fastpump.server.Node]:
    node = fastpump.server.run()
    loop = BackgroundLoop()
    loop.run(node.__aenter__)
    yield node
    loop.run(node.__aexit__, None, None, None)
    loop.stop()


@pytest.fixture
def client(node: fastpump.server.Node) -> Iterator[sync.Client]:
    with sync.connect(node.host, node.port) as client:
        yield client


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def fill(client: sync.Client, stream: str, count: int) -> None:
    client.publish(stream, [NewEvent("t", data={"n": n}) for n in range(count)])


def threads_of_clients() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fastpump"]


# --- what is offered ---


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


CALLS_OF_BOTH = sorted(
    name for name in public(Client) & public(sync.Client) if callable(getattr(Client, name))
)


@pytest.mark.parametrize(
    ("waiting", "asynchronous"),
    [
        (sync.Client, fastpump.Client),
        (sync.ActingClient, fastpump.ActingClient),
        (sync.Publisher, fastpump.Publisher),
        (sync.Transaction, fastpump.transactions.Transaction),
        (sync.Subscription, fastpump.subscriptions.Subscription),
        (sync.PersistentSubscription, fastpump.persistent.PersistentSubscription),
    ],
)
def test_everything_asynchronous_is_there(waiting: type, asynchronous: type) -> None:
    by_who_makes_it = {"start_now"}
    assert public(waiting) >= public(asynchronous) - by_who_makes_it


@pytest.mark.parametrize("name", CALLS_OF_BOTH)
def test_signatures_are_the_same(name: str) -> None:
    assert inspect.signature(getattr(sync.Client, name)).parameters == (
        inspect.signature(getattr(Client, name)).parameters
    )


@pytest.mark.parametrize("name", CALLS_OF_BOTH)
def test_examples_do_not_await(name: str) -> None:
    text = inspect.getdoc(getattr(sync.Client, name)) or ""
    examples = "\n".join(re.findall(r"(?:>>>|\.\.\.) .*", text))
    assert text
    assert "await" not in examples
    assert "async" not in examples


# --- operations ---


def test_publish_and_read(client: sync.Client, stream: str) -> None:
    assert client.ping() > 0
    result = client.publish_event(stream, "opened", {"owner": "Ada"})
    assert (result.first_event_number, result.last_event_number) == (0, 0)
    fill(client, stream, 9)
    assert [event.event_number for event in client.get(stream)] == list(range(10))
    event = client.get_event(stream, 0)
    assert event is not None
    assert event.json() == {"owner": "Ada"}


def test_publishing_in_bulk(client: sync.Client, stream: str) -> None:
    events = [NewEvent("t", data={"n": n}) for n in range(300)]
    with client.publisher(max_batch_events=7) as publisher:
        publisher.expect(stream, -1)
        publisher.send(stream, events[0])
        future = publisher.send_tracked(stream, events[1])
        publisher.release()
        assert future.result(30) == 1
        publisher.send_many(stream, events[2:])
        publisher.flush()
        assert publisher.stats.acknowledged == 300
        assert publisher.discard() == 0
    assert [event.id for event in client.iter(stream)] == [event.id for event in events]
    with pytest.raises(PublishFailed) as caught:
        with client.publisher() as publisher:
            publisher.expect(stream, 1000)
            failed = publisher.send_tracked(stream, NewEvent("t"))
    assert isinstance(failed.exception(30), WrongExpectedVersion)
    assert len(caught.value.failures) == 1


def test_sec_15_credentials_of_single_calls(client: sync.Client, stream: str) -> None:
    admin = client.acting_as(("admin", "changeit"))
    with pytest.raises(AccessDenied):
        client.publish_event(f"${stream}", "t")
    admin.publish_event(f"${stream}", "t")
    assert [event.type for event in admin.iter(f"${stream}")] == ["t"]
    assert "changeit" not in repr(admin)


def test_stats(node: fastpump.server.Node) -> None:
    client = sync.connect(node.host, node.port)
    assert client.stats() == fastpump.ClientStats()
    with client:
        client.ping()
        while_connected = client.stats()
    assert 0 < while_connected.bytes_out == client.stats().bytes_out


def test_iterating(client: sync.Client, stream: str) -> None:
    fill(client, stream, 25)
    events = client.iter(stream, StreamDirection.Backward, batch_size=10)
    assert [event.event_number for event in events] == list(range(24, -1, -1))
    assert [len(page) for page in client.iter_slices(stream, batch_size=10)] == [10, 10, 5]


def test_iterating_the_log(node: fastpump.server.Node, stream: str) -> None:
    with sync.connect(node.host, node.port, username="admin", password="changeit") as client:
        fill(client, stream, 3)
        events = [event for event in client.iter_all() if event.stream == stream]
        assert [event.event_number for event in events] == [0, 1, 2]
        pages = client.iter_all_slices(StreamDirection.Backward, batch_size=2)
        assert [event.event_number for event in next(pages)] == [2, 1]


def test_a_loop_left_early(client: sync.Client, stream: str) -> None:
    fill(client, stream, 25)
    for event in client.iter(stream, batch_size=5):
        if event.event_number == 7:
            break
    assert event.event_number == 7
    assert client.ping() > 0


def test_an_operation_inside_a_loop(client: sync.Client, stream: str) -> None:
    fill(client, stream, 25)
    for event in client.iter(stream, batch_size=5):
        client.publish_event(f"{stream}-copy", "t", event.json())
    assert len(client.get(f"{stream}-copy")) == 25


def test_errors_are_those_of_the_operation(client: sync.Client, stream: str) -> None:
    with pytest.raises(StreamNotFound):
        client.get(stream)
    with pytest.raises(StreamNotFound):
        next(client.iter(stream))
    with pytest.raises(WrongExpectedVersion) as caught:
        client.publish_event(stream, "t", expected_version=7)
    assert caught.value.actual_version == -1
    with pytest.raises(UsageError, match="max_count"):
        client.get(stream, max_count=0)
    with pytest.raises(AccessDenied):
        client.subscribe_to_all()


def test_transaction(client: sync.Client, stream: str) -> None:
    with client.transaction(stream) as transaction:
        transaction.write([NewEvent("a"), NewEvent("b")])
        assert transaction.id is not None
    assert transaction.result is not None
    assert transaction.result.last_event_number == 1
    with pytest.raises(RuntimeError), client.transaction(stream) as transaction:
        transaction.write([NewEvent("c")])
        raise RuntimeError
    assert len(client.get(stream)) == 2


def test_metadata_and_delete(client: sync.Client, stream: str) -> None:
    fill(client, stream, 3)
    client.set_stream_metadata(stream, fastpump.StreamMetadata(max_count=2))
    assert client.get_stream_metadata(stream).metadata.max_count == 2
    client.delete_stream(stream)
    with pytest.raises(StreamNotFound):
        client.get(stream)


# --- subscriptions ---


def test_subscription_from_history_into_live(client: sync.Client, stream: str) -> None:
    fill(client, stream, 5)
    with client.subscribe_to(stream, start_from=0) as subscription:
        assert subscription.name == stream
        assert [next(subscription.events).event_number for _ in range(5)] == list(range(5))
        assert subscription.checkpoint == 3
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(next, subscription.events)
            client.publish_event(stream, "t")
            assert waiting.result(PATIENCE).event_number == 5
        assert subscription.is_live


def test_a_subscriptions_loop_is_entered_again(client: sync.Client, stream: str) -> None:
    fill(client, stream, 5)
    with client.subscribe_to(stream, start_from=0) as subscription:
        for event in subscription.events:
            if event.event_number == 1:
                break
        assert subscription.checkpoint == 0
        assert next(subscription.events).event_number == 2
        assert subscription.checkpoint == 1
        with pytest.raises(UsageError, match="loop"):
            subscription.slices()


def test_a_subscriptions_batches(client: sync.Client, stream: str) -> None:
    fill(client, stream, 5)
    with client.subscribe_to(stream, start_from=0, batch_size=3) as subscription:
        batches = subscription.slices()
        assert [len(next(batches)), len(next(batches))] == [3, 2]
        assert subscription.checkpoint == 2


def test_filtered(node: fastpump.server.Node, stream: str) -> None:
    wanted = fastpump.Filter.stream_prefix(f"{stream}-a")
    checkpoints: list[fastpump.Position] = []
    with sync.connect(node.host, node.port, username="admin", password="changeit") as client:
        for name in ("a", "b", "a", "b"):
            client.publish_event(f"{stream}-{name}", "t")
        assert [event.event_number for event in client.iter_all(filter=wanted)] == [0, 1]
        with client.subscribe_to_all(
            fastpump.Beginning, filter=wanted, on_checkpoint=checkpoints.append
        ) as subscription:
            assert [next(subscription.events).event_number for _ in range(2)] == [0, 1]
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(next, subscription.events)
                assert subscription.caught_up()
                client.publish_event(f"{stream}-a", "t")
                assert waiting.result(PATIENCE).event_number == 2
            assert checkpoints
            assert subscription.checkpoint == checkpoints[-1]


def test_unsubscribing_in_another_thread_ends_the_loop(client: sync.Client, stream: str) -> None:
    subscription = client.subscribe_to(stream)
    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(list, subscription.events)
        client.ping()
        subscription.unsubscribe()
        assert loop.result(PATIENCE) == []


def test_unsubscribing_gives_out_nothing_more(client: sync.Client, stream: str) -> None:
    fill(client, stream, 5)
    subscription = client.subscribe_to(stream, start_from=0)
    next(subscription.events)
    subscription.unsubscribe()
    assert list(subscription.events) == []


# --- persistent subscriptions ---


@pytest.fixture
def group(node: fastpump.server.Node, client: sync.Client, stream: str) -> str:
    """A persistent subscription to the test's stream, which has three events."""
    fill(client, stream, 3)
    settings = PersistentSubscriptionSettings(start_from=0)
    with sync.connect(node.host, node.port, username="admin", password="changeit") as admin:
        admin.create_subscription("group", stream, settings=settings)
        admin.update_subscription("group", stream, settings)
        admin.create_subscription("other", stream)
        admin.delete_subscription("other", stream)
    return "group"


def test_persistent_subscription(client: sync.Client, stream: str, group: str) -> None:
    with client.connect_subscription(group, stream, in_flight=1) as subscription:
        assert (subscription.name, subscription.stream) == (f"{stream}::group", stream)
        assert (subscription.last_event_number, subscription.auto_ack) == (2, False)
        assert (subscription.in_flight, subscription.buffer_size) == (1, 1)
        assert subscription.conversation_id is not None
        assert subscription.initial_commit_position > 0
        seen = []
        for event in subscription.events:
            seen.append((event.event_number, event.retry_count))
            if seen == [(0, 0)]:
                subscription.nak(event)
            else:
                subscription.ack(event)
            if event.event_number == 2:
                break
        assert seen == [(0, 0), (0, 1), (1, 0), (2, 0)]
    with client.connect_subscription(group, stream) as subscription:
        client.publish_event(stream, "t")
        [event] = next(subscription.slices())
        assert (event.event_number, event.retry_count) == (3, 0)
    with pytest.raises(fastpump.PersistentSubscriptionNotFound):
        client.connect_subscription("none", stream)


def test_persistent_subscription_acknowledges_what_went_well(
    client: sync.Client, stream: str, group: str
) -> None:
    with client.connect_subscription(group, stream, auto_ack=True) as subscription:
        with pytest.raises(ZeroDivisionError):
            for event in subscription.events:
                1 / (1 - event.event_number)
        for event in subscription.events:
            assert event.event_number == 2
            break
    with client.connect_subscription(group, stream) as subscription:
        again = [next(subscription.events) for _ in range(2)]
        assert [(event.event_number, event.retry_count) for event in again] == [(1, 1), (2, 1)]


def test_persistent_subscription_ended_by_another_thread(
    client: sync.Client, stream: str, group: str
) -> None:
    subscription = client.connect_subscription(group, stream, auto_ack=True)
    seen: queue.SimpleQueue[int] = queue.SimpleQueue()

    def consume() -> None:
        for event in subscription.events:
            seen.put(event.event_number)

    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(consume)
        assert [seen.get(timeout=PATIENCE) for _ in range(3)] == [0, 1, 2]
        subscription.unsubscribe()
        loop.result(PATIENCE)


# --- threads ---


def test_many_threads_share_a_client(client: sync.Client, stream: str) -> None:
    def publish(thread: int) -> None:
        for n in range(20):
            client.publish_event(f"{stream}-{thread}", "t", {"n": n})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(8)))
    for thread in range(8):
        assert [event.json()["n"] for event in client.iter(f"{stream}-{thread}")] == list(range(20))


def test_the_thread_ends_with_the_last_client(node: fastpump.server.Node) -> None:
    before = len(threads_of_clients())
    with sync.connect(node.host, node.port) as first:
        with sync.connect(node.host, node.port) as second:
            assert len(threads_of_clients()) == before + 1
            second.ping()
        first.ping()
    assert len(threads_of_clients()) == before


def test_closing_ends_what_waits_in_other_threads(node: fastpump.server.Node, stream: str) -> None:
    client = sync.connect(node.host, node.port)
    client.connect()
    subscription = client.subscribe_to(stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, subscription.events)
        client.ping()
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(PATIENCE)


def test_closing_ends_what_waits_for_something_else(node: fastpump.server.Node) -> None:
    client = sync.connect(node.host, node.port)
    client.connect()
    subscription = client.subscribe_to("s", start_from=0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(subscription.caught_up)  # nobody loops over its events
        client.ping()
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(PATIENCE)


class Interrupt(Exception):
    """What the signal of a timer raises, as Ctrl-C raises KeyboardInterrupt."""


@contextmanager
def interrupted_while_waiting() -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


has_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this platform has no such timer"
)


@has_timers
def test_an_interrupted_wait_leaves_the_client_usable(client: sync.Client, stream: str) -> None:
    subscription = client.subscribe_to(stream)
    with interrupted_while_waiting():
        next(subscription.events)
    client.publish_event(stream, "t")
    assert next(subscription.events).event_number == 0
    subscription.unsubscribe()


@has_timers
def test_what_an_interrupted_wait_waited_for_is_cancelled() -> None:
    loop, ended = BackgroundLoop(), threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with interrupted_while_waiting():
        loop.run(work)
    assert ended.wait(PATIENCE)
    loop.stop()


@contextmanager
def interrupted_on_arrival() -> Iterator[None]:
    """A Ctrl-C that comes when the wait is over already, but has not returned."""
    run = BackgroundLoop.run

    def interrupted(self: BackgroundLoop, *args: Any) -> None:
        run(self, *args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackgroundLoop, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("kind", ["events", "slices", "of a group", "slices of a group"])
def test_what_arrives_at_an_interrupt_is_given_out_next(
    client: sync.Client, stream: str, group: str, kind: str
) -> None:
    subscription: sync.Subscription | sync.PersistentSubscription
    if "group" in kind:
        subscription = client.connect_subscription(group, stream, in_flight=1, auto_ack=True)
    else:
        subscription = client.subscribe_to(stream, start_from=0, batch_size=1)
    with subscription:
        items: Iterator[Any] = subscription.slices() if "slices" in kind else subscription.events
        for number in range(3):
            with interrupted_on_arrival():
                next(items)
            item = next(items)
            event = item[0] if "slices" in kind else item
            assert event.event_number == number


CTRL_C = """
import signal
import sys
import fastpump
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with fastpump.sync.connect(sys.argv[1], int(sys.argv[2])) as client:
    with client.subscribe_to(sys.argv[3]) as subscription:
        try:
            print("waiting", flush=True)
            next(subscription.events)
        except KeyboardInterrupt:
            client.publish_event(sys.argv[3], "t")
            print(next(subscription.events).event_number, flush=True)
            next(subscription.events)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_ctrl_c(node: fastpump.server.Node, stream: str) -> None:
    """The first one is caught, and the client goes on; the second one ends the program."""
    program = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, node.host, str(node.port), stream],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        for line in ("waiting\n", "0\n"):
            assert program.stdout.readline() == line
            program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert program.returncode == -signal.SIGINT


async def test_a_caller_with_a_loop_of_its_own(node: fastpump.server.Node) -> None:
    with sync.connect(node.host, node.port) as client:
        assert client.ping() > 0


# --- life ---


def test_before_connecting_and_after_closing(node: fastpump.server.Node) -> None:
    threads = threads_of_clients()
    client = sync.connect(node.host, node.port)
    with pytest.raises(ClientClosed, match="not connected"):
        client.ping()
    client.close()
    with client:
        with pytest.raises(ClientClosed, match="once"):
            client.connect()
        client.ping()
    client.close()
    for _ in range(2):
        with pytest.raises(ClientClosed):
            client.ping()
    with pytest.raises(ClientClosed):
        next(client.iter("s"))
    with pytest.raises(ClientClosed):
        client.connect()
    assert threads_of_clients() == threads


def test_a_failed_connect_leaves_no_thread() -> None:
    before = len(threads_of_clients())
    with pytest.raises(ConnectFailed), sync.connect("127.0.0.1", 1, connect_timeout=1):
        pass
    assert len(threads_of_clients()) == before


def test_a_call_in_the_loops_own_thread_is_refused() -> None:
    loop = BackgroundLoop()

    async def blocks() -> None:
        loop.run(asyncio.sleep, 0)

    with pytest.raises(UsageError, match="callback"):
        loop.run(blocks)
    loop.stop()
    with pytest.raises(ClientClosed):
        loop.run(asyncio.sleep, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_client_does_not_survive_a_fork(node: fastpump.server.Node) -> None:
    code = f"""
import os
import fastpump
from fastpump import exceptions, sync
with sync.connect({node.host!r}, {node.port}) as client:
    child = os.fork()
    if child == 0:
        try:
            client.ping()
        except exceptions.ClientClosed as error:
            with sync.connect({node.host!r}, {node.port}) as other:
                other.ping()
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    client.ping()
assert os.waitstatus_to_exitcode(status) == 0, status
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
