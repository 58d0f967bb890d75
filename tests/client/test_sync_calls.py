"""Calls that wait: all of the client's are there and do what theirs do, on the embedded node."""

from __future__ import annotations

import inspect
import queue
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from client.running import PATIENCE
from client.waiting import (  # noqa: F401  # fixtures
    client_of_node,
    fill,
    group_of_stream,
    node_of_module,
    stream_of_test,
)

import fastpump
import fastpump.server
from fastpump import Client, NewEvent, StreamDirection, sync
from fastpump.exceptions import (
    AccessDenied,
    PublishFailed,
    StreamNotFound,
    UsageError,
    WrongExpectedVersion,
)

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
