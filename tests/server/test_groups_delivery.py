"""What groups deliver to their consumers, and what the answers lead to: checkpoints, parked events.

Names are rows of the acceptance list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grouplib import Consumer, Group, until
from nodelib import MAX, Fields, NodeThread, RawClient, event, link, new_id

from fastpump._commands import Command
from fastpump.server.errors import StoreFailed
from fastpump.server.groups.machine import NakAction


@pytest.fixture
def connected(client: RawClient, group: Group) -> Iterator[Consumer]:
    """The only consumer, of ten slots, of a group that begins with event 0 of no events."""
    group.create()
    with group.connect() as consumer:
        yield consumer


# --- delivery ---


def test_psub_16_stored_then_written(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 10)
    group.create()
    with group.connect() as consumer:
        assert consumer.numbers(10) == list(range(10))
        client.write_some(group.stream, 10)
        taken = consumer.take(10)
        assert [push.number for push in taken] == list(range(10, 20))
        assert {push.retry_count for push in taken} == {0}


def test_psub_16_written_while_catching_up(client: RawClient, group: Group) -> None:
    for _ in range(250):
        client.write_some(group.stream, 1)
    group.create()
    with group.connect(slots=20) as consumer:
        numbers = []
        for _ in range(25):
            client.write_some(group.stream, 10)
            numbers += consumer.numbers(20)
        assert numbers == list(range(500))
        assert consumer.gets_nothing()


def test_psub_16_written_while_the_buffers_are_full(client: RawClient, group: Group) -> None:
    """Events that no buffer has room for are read again later."""
    group.create(live_buffer_size=3, buffer_size=8, read_batch_size=4)
    client.write_some(group.stream, 60)
    with group.connect(slots=2) as consumer:
        client.write_some(group.stream, 60)
        numbers = [consumer.numbers(1)[0] for _ in range(120)]
        assert numbers == list(range(120))
        assert consumer.gets_nothing()


@pytest.mark.parametrize("is_live", [True, False])
def test_psub_17_links(client: RawClient, group: Group, is_live: bool) -> None:
    target = group.stream + "-target"
    client.write_some(target, 3)
    links = [link(number, target) for number in range(3)]
    group.create(resolve_link_tos=True)
    if not is_live:
        client.write(group.stream, links)
    with group.connect() as consumer:
        if is_live:
            client.write(group.stream, links)
        taken = consumer.take(3)
        assert [push.event_id for push in taken] == [item["event_id"] for item in links]
        assert {push.fields["event"]["event_stream_id"] for push in taken} == {target}
        assert {push.fields["link"]["event_stream_id"] for push in taken} == {group.stream}
        consumer.ack(taken)
        consumer.unsubscribe()
    with group.connect() as consumer:
        assert consumer.gets_nothing()


def test_psub_18_broken_links(client: RawClient, group: Group) -> None:
    client.write(group.stream, [link(7, "nowhere"), event()])
    plain = Group(group.node, group.stream, "plain")
    for one, resolve in ((group, True), (plain, False)):
        one.create(resolve_link_tos=resolve)
        with one.connect(slots=1) as consumer:
            taken = consumer.take()
            assert list(taken[0].fields) == ["link" if resolve else "event"]
            consumer.ack(taken)
            assert consumer.numbers(1) == [1]


@pytest.mark.parametrize("slots", [1, 10])
def test_psub_19_slots(client: RawClient, group: Group, slots: int) -> None:
    client.write_some(group.stream, 20)
    group.create()
    with group.connect(slots) as consumer:
        taken = consumer.take(slots)
        assert consumer.gets_nothing()
        consumer.ack(taken[:1])
        assert [push.number for push in consumer.take()] == [slots]
        assert consumer.gets_nothing()


@pytest.mark.parametrize("action", [NakAction.UNKNOWN, NakAction.RETRY])
def test_psub_20_retry(client: RawClient, connected: Consumer, group: Group, action: int) -> None:
    client.write_some(group.stream, 2)
    first, second = connected.take(2)
    connected.ack([second])
    for count in range(1, 6):
        connected.nak([first], NakAction(action))
        (first,) = connected.take()
        assert (first.number, first.retry_count) == (0, count)
    connected.ack([first])
    client.write_some(group.stream, 1)
    assert connected.numbers(1) == [2]
    assert connected.gets_nothing()


def test_psub_21_most_retries(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 3)
    group.create(max_retry_count=3, start_from=2)
    with group.connect() as consumer:
        for count in range(4):
            taken = consumer.take()
            assert taken[0].retry_count == count
            consumer.nak(taken)
        assert consumer.gets_nothing()
    (parked,) = group.parked()
    reason = json.loads(parked["metadata"])
    assert parked["data"] == f"2@{group.stream}".encode()
    assert reason["reason"] == "Reached retry count of 3"
    assert reason["subscriptionEventNumber"] == 2


def test_psub_22_park(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 20)
    group.create()
    with group.connect(slots=20) as consumer:
        consumer.nak(consumer.take(20), NakAction.PARK, "poison")
        assert consumer.gets_nothing()
    parked = group.parked()
    assert [item["event_type"] for item in parked] == ["$>"] * 20
    assert [item["data"] for item in parked] == [
        b"%d@%s" % (n, group.stream.encode()) for n in range(20)
    ]
    metadata = [json.loads(item["metadata"]) for item in parked]
    assert {item["reason"] for item in metadata} == {"Client explicitly NAK'ed message.\npoison"}
    assert [item.get("subscriptionEventNumber", 0) for item in metadata] == list(range(20))
    assert all("added" in item for item in metadata)


def test_psub_22_park_what_a_link_leads_to(client: RawClient, group: Group) -> None:
    client.write_some(group.stream + "-target", 4)
    client.write(group.stream, [link(3, group.stream + "-target"), link(3, "nowhere")])
    group.create(resolve_link_tos=True)
    with group.connect() as consumer:
        consumer.nak(consumer.take(2), NakAction.PARK)
        until("both are parked", lambda: len(group.parked()) == 2)
    targets = [f"3@{group.stream}-target".encode(), b"3@nowhere"]
    assert [item["data"] for item in group.parked()] == targets


@pytest.mark.parametrize("action", [NakAction.SKIP, NakAction.STOP])
def test_psub_23_skip(client: RawClient, group: Group, action: NakAction) -> None:
    client.write_some(group.stream, 2)
    group.create()
    with group.connect(slots=1) as consumer:
        consumer.nak(consumer.take(), action)
        assert consumer.numbers(1) == [1]
        assert consumer.gets_nothing()
    assert group.parked() == []


def test_psub_24_timeout(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 1)
    group.create(message_timeout_milliseconds=200, max_retry_count=1)
    with group.connect(slots=1) as consumer:
        (first,) = consumer.take()
        (again,) = consumer.take()
        assert (first.retry_count, again.retry_count) == (0, 1)
        until("it is parked", group.parked)
        consumer.ack([again])
        client.write_some(group.stream, 1)
        assert consumer.numbers(1) == [1]


def test_psub_25_several_ids(client: RawClient, connected: Consumer, group: Group) -> None:
    client.write_some(group.stream, 20)
    taken = connected.take(10)
    connected.answer(Command.PersistentSubscriptionAckEvents, [new_id()])
    connected.ack(taken)
    taken = connected.take(10)
    assert [push.number for push in taken] == list(range(10, 20))
    connected.nak(taken)
    assert [push.number for push in connected.take(10)] == list(range(10, 20))


@pytest.mark.parametrize("ids", [[], [b"short"]])
def test_psub_25_bad_ids(connected: Consumer, ids: list[bytes]) -> None:
    for command in (
        Command.PersistentSubscriptionAckEvents,
        Command.PersistentSubscriptionNakEvents,
    ):
        connected.answer(command, ids)
        assert connected.receive()[0] == Command.BadRequest


def test_psub_27_one_id_twice(client: RawClient, group: Group) -> None:
    same = new_id()
    client.write(group.stream, [event(same), event(same), event()])
    group.create()
    with group.connect(slots=1) as consumer:
        assert [consumer.numbers(1)[0] for _ in range(3)] == [0, 1, 2]


def test_psub_27_one_id_twice_at_the_same_time(client: RawClient, group: Group) -> None:
    """Nothing is lost, no slot either."""
    same = new_id()
    client.write(group.stream, [event(same), event(same), event(), event()])
    group.create()
    with group.connect(slots=2) as consumer:
        consumer.ack(consumer.take(2))
        assert [push.number for push in consumer.take(2)] == [2, 3]


# --- several consumers ---


def test_psub_28_round_robin(client: RawClient, group: Group) -> None:
    group.create()
    with group.connect() as first, group.connect() as second:
        client.write_some(group.stream, 10)
        assert first.numbers(5) == [0, 2, 4, 6, 8]
        assert second.numbers(5) == [1, 3, 5, 7, 9]


def test_psub_28_dispatch_to_single(client: RawClient, group: Group) -> None:
    group.create(named_consumer_strategy="DispatchToSingle")
    with group.connect(slots=6) as first, group.connect() as second:
        client.write_some(group.stream, 10)
        assert first.numbers(6) == [0, 1, 2, 3, 4, 5]
        assert second.numbers(4) == [6, 7, 8, 9]


def test_psub_28_pinned(client: RawClient, group: Group) -> None:
    sources = [f"{group.stream}-{number}" for number in range(8)]
    for source in sources:
        client.write_some(source, 5)
    group.create(named_consumer_strategy="Pinned", resolve_link_tos=True)
    with group.connect(slots=100) as first, group.connect(slots=100) as second:
        for number in range(5):
            client.write(group.stream, [link(number, source) for source in sources])
        got = [consumer.take(20) for consumer in (first, second)]
        streams = [{push.fields["event"]["event_stream_id"] for push in taken} for taken in got]
        assert streams[0] | streams[1] == set(sources)
        assert not streams[0] & streams[1]


@pytest.mark.parametrize("is_cut", [False, True])
def test_psub_29_a_consumer_leaves(client: RawClient, group: Group, is_cut: bool) -> None:
    group.create()
    first = group.connect()
    client.write_some(group.stream, 4)
    taken = first.take(4)
    first.ack(taken[1:2])
    with group.connect() as second:
        if is_cut:
            first.cut()
        else:
            first.unsubscribe()
        assert [push[:2] for push in second.take(3)] == [(0, 1), (2, 1), (3, 1)]
    first.cut()


def test_psub_31_who_comes_back_gets_what_was_not_acknowledged(
    client: RawClient, group: Group
) -> None:
    client.write_some(group.stream, 2)
    group.create()
    with group.connect() as consumer:
        consumer.take(2)
    with group.connect() as consumer:
        assert [push[:2] for push in consumer.take(2)] == [(0, 1), (1, 1)]


# --- checkpoints ---


def test_psub_30_checkpoint(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 12)
    group.create(checkpoint_after_time=100, checkpoint_max_count=5, checkpoint_min_count=1)
    with group.connect(slots=12) as consumer:
        consumer.ack(consumer.take(10))
        until("there is a checkpoint", lambda: group.checkpoint() == b"9")
    group.update()
    with group.connect() as consumer:
        assert consumer.numbers(2) == [10, 11]


def test_psub_30_no_checkpoint_of_few_events(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 3)
    group.create(checkpoint_after_time=0, checkpoint_min_count=10)
    with group.connect() as consumer:
        consumer.ack(consumer.take(3))
        time.sleep(1.2)
        assert group.checkpoint() is None


def test_a_checkpoint_stays_below_what_is_not_done(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 4)
    group.create(checkpoint_after_time=0, checkpoint_max_count=1)
    with group.connect() as consumer:
        taken = consumer.take(4)
        consumer.ack(taken[:1] + taken[2:])
        until("there is a checkpoint", lambda: group.checkpoint() == b"0")
        consumer.nak(taken[1:2], NakAction.PARK)
        until("the parked one is done too", lambda: group.checkpoint() == b"3")


# --- parked events ---


def replay(group: Group, stop_at: int | None = None) -> bool:
    result: bool = group.node.run(
        lambda node: node._engine.groups.replay_parked(group.stream, group.name, stop_at)
    )
    return result


def test_replay_of_parked_events(client: RawClient, group: Group) -> None:
    events = client.write_some(group.stream, 3)
    group.create(checkpoint_after_time=0, checkpoint_max_count=1)
    with group.connect() as consumer:
        consumer.nak(consumer.take(3), NakAction.PARK)
        until("all are parked", lambda: len(group.parked()) == 3)
        parked = [item["event_id"] for item in group.parked()]
        assert replay(group)
        taken = consumer.take(3)
        assert [push.event_id for push in taken] == parked
        assert [push.retry_count for push in taken] == [0, 0, 0]
        assert {push.fields["link"]["event_stream_id"] for push in taken} == {group.parked_stream}
        assert [push.fields["event"]["data"] for push in taken] == [e["data"] for e in events]
        until("they are parked no more", lambda: not group.parked())
        consumer.ack(taken)
        assert replay(group)
        assert consumer.gets_nothing()
        assert group.checkpoint() == b"2"


def test_replay_up_to_a_number(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 3)
    group.create()
    with group.connect() as consumer:
        consumer.nak(consumer.take(3), NakAction.PARK)
        until("all are parked", lambda: len(group.parked()) == 3)
        assert replay(group, stop_at=2)
        consumer.nak(consumer.take(2), NakAction.PARK)
        until("they are parked again", lambda: numbers_of(group.parked()) == [2, 3, 4])


def numbers_of(records: list[Fields]) -> list[int]:
    return [record["event_number"] for record in records]


def test_replay_of_no_group(group: Group) -> None:
    assert not replay(group)


@pytest.mark.parametrize(("failures", "parked"), [(1, 1), (5, 1), (6, 0)])
def test_parking_is_tried_six_times(
    monkeypatch: pytest.MonkeyPatch, failures: int, parked: int
) -> None:
    """After that the event is lost to the group (section 9.5)."""
    with NodeThread() as node, node.client() as client:
        group = Group(node, "stream")
        group.create(checkpoint_after_time=0, checkpoint_max_count=1)
        client.write_some("stream", 1)
        with group.connect() as consumer:
            taken = consumer.take()
            store = node.run(lambda node: node._engine.store)
            monkeypatch.setattr(store, "write", failing_at_first(store.write, failures))
            consumer.nak(taken, NakAction.PARK)
            until("it is over", lambda: group.checkpoint() == b"0")
        assert len(group.parked()) == parked


def failing_at_first(write: Callable[..., None], count: int) -> Callable[..., None]:
    """The same as `write`, but the first so many calls fail."""
    left = iter(range(count))

    def failing(*args: Any) -> None:
        if next(left, None) is not None:
            raise StoreFailed("as asked")
        write(*args)

    return failing


# --- what else there is about streams ---


def test_truncated_events_are_not_delivered(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 10)
    client.set_metadata(group.stream, b'{"$tb": 4}')
    group.create(read_batch_size=2)
    with group.connect() as consumer:
        assert consumer.numbers(6) == [4, 5, 6, 7, 8, 9]


def test_a_deleted_stream_goes_on_after_its_re_creation(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 2)
    client.delete(group.stream)
    group.create()
    with group.connect() as consumer:
        assert consumer.gets_nothing()
        client.write_some(group.stream, 2)
        assert consumer.numbers(2) == [2, 3]


def test_a_tombstone_is_delivered(client: RawClient, connected: Consumer, group: Group) -> None:
    client.delete(group.stream, hard=True)
    assert [push.number for push in connected.take()] == [MAX]
