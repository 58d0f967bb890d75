"""What a group reads, which consumer gets it, and what answers do; no sockets, database, clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from machinelib import Recorder, World, message, messages

from fastpump.server.groups.buffers import StreamBuffer
from fastpump.server.groups.consumers import Consumer
from fastpump.server.groups.machine import NakAction, Page
from fastpump.server.groups.messages import Message
from fastpump.server.groups.settings import GroupSettings, strategy_for
from fastpump.server.groups.strategies import Problem, make_strategy

# --- reading ---


def test_reads_from_the_start() -> None:
    world = World(30)
    assert world.requests == [(0, 20)]
    world.read()
    assert world.join(slots=100).numbers() == list(range(30))


@pytest.mark.parametrize(
    ("start_from", "checkpoint", "first"), [(7, None, 7), (0, 4, 5), (-1, 4, 5), (9, 4, 5)]
)
def test_where_it_begins(start_from: int, checkpoint: int | None, first: int) -> None:
    world = World(10, checkpoint=checkpoint, start_from=start_from)
    assert world.requests == [(first, 20)]


@pytest.mark.parametrize("start_from", [-1, -2])
def test_from_now_on_reads_nothing(start_from: int) -> None:
    world = World(10, start_from=start_from)
    consumer = world.join()
    world.write()
    assert world.requests == []
    assert consumer.numbers() == [10]


@pytest.mark.parametrize(("asked", "read"), [(0, 20), (-5, 20), (7, 7), (500, 500), (501, 500)])
def test_page_sizes(asked: int, read: int) -> None:
    assert World(read_batch_size=asked, buffer_size=1000).requests == [(0, read)]


def test_reads_as_much_as_the_buffer_holds() -> None:
    world = World(1000, buffer_size=50)
    world.read()
    assert world.join(slots=1000).numbers() == list(range(40))


def test_a_free_slot_alone_makes_it_read_nothing() -> None:
    """PS-19 of the recordings."""
    world = World(15, read_batch_size=5, buffer_size=10)
    world.read()
    consumer = world.join()
    assert consumer.numbers() == [0, 1, 2, 3, 4]
    world.tick()
    assert world.requests == []
    world.ack(0)
    world.read()
    assert consumer.numbers() == [5, 6, 7, 8, 9]


def test_asks_for_one_page_at_a_time() -> None:
    world = World(100)
    world.join()
    world.ack(1)
    assert world.requests == [(0, 20)]


def test_events_before_the_start_are_not_delivered() -> None:
    world = World(5, start_from=7)
    world.read()
    consumer = world.join()
    world.write(3)
    assert consumer.numbers() == [7]


def test_written_while_it_reads() -> None:
    world = World(30)
    world.read(pages=1)
    world.write(5)
    world.read()
    world.write(5)
    assert world.join(slots=100).numbers() == list(range(40))


def test_more_written_while_it_reads_than_it_remembers() -> None:
    world = World(30, live_buffer_size=3)
    world.read(pages=1)
    world.write(20)
    world.read()
    world.write(1)
    assert world.join(slots=100).numbers() == list(range(51))


def test_nothing_is_remembered() -> None:
    world = World(1, live_buffer_size=0)
    world.write(1)
    world.read()
    world.write(1)
    assert world.join().numbers() == [0, 1, 2]


@pytest.mark.parametrize("remembered", [0, 1, 2, 7, 100])
def test_a_live_group_that_cannot_keep_up_reads_again(remembered: int) -> None:
    world = World(live_buffer_size=remembered, buffer_size=6, read_batch_size=3)
    world.read()
    world.write(50)
    consumer = world.join(slots=1)
    numbers = []
    for number in range(50):
        numbers += consumer.numbers()
        world.ack(number)
        world.read()
    assert numbers == list(range(50))


def test_what_was_remembered_comes_even_if_it_cannot_be_read() -> None:
    world = World(3)
    world.write(2)
    world.group.page_read(Page((), 0, is_end=True))
    assert world.join().numbers() == [3, 4]


def test_a_gap_at_the_switch() -> None:
    world = World(3)
    world.write(2)
    world.group.page_read(Page(messages([0, 4]), 5, is_end=True))
    assert world.join().numbers() == [0, 4]


# --- slots and answers ---


def test_slots() -> None:
    world = World(10)
    world.read()
    consumer = world.join(slots=2)
    assert consumer.numbers() == [0, 1]
    world.ack(1)
    assert consumer.numbers() == [2]
    world.ack(1, 7)
    assert consumer.numbers() == []
    world.ack(0, 2)
    assert consumer.numbers() == [3, 4]


def test_no_slots() -> None:
    world = World(1)
    world.read()
    assert world.join(slots=0).take() == []


def test_another_consumers_ack_frees_no_slot() -> None:
    """PS-24 of the recordings."""
    world = World(3)
    world.read()
    consumer = world.join(slots=1)
    world.ack(0, key=b"other")
    assert consumer.numbers() == [0]
    world.ack(0)
    assert consumer.numbers() == [1]
    world.leave(b"key")
    assert world.join().take() == [(1, 1), (2, 0)]


@pytest.mark.parametrize("action", [NakAction.RETRY, NakAction.UNKNOWN])
def test_retries_come_first_and_in_order(action: NakAction) -> None:
    world = World(5)
    world.read()
    consumer = world.join(slots=3)
    assert consumer.numbers() == [0, 1, 2]
    world.nak(2, 0, action=action)
    assert consumer.take() == [(0, 1), (2, 1)]
    world.nak(0)
    world.ack(1, 2)
    assert consumer.take() == [(0, 2), (3, 0), (4, 0)]


@pytest.mark.parametrize("most", [0, 2])
def test_too_many_retries(most: int) -> None:
    world = World(1, max_retry_count=most)
    world.read()
    consumer = world.join()
    for _ in range(most + 1):
        world.nak(0)
    assert consumer.take() == [(0, count) for count in range(most + 1)]
    assert [reason for _, reason in world.parked] == [f"Reached retry count of {most}"]


def test_park() -> None:
    world = World(2)
    world.read()
    consumer = world.join(slots=1)
    world.nak(0, action=NakAction.PARK)
    assert consumer.numbers() == [0, 1]
    assert [(parked.number, reason) for parked, reason in world.parked] == [
        (0, "Client explicitly NAK'ed message.\nwhy")
    ]


@pytest.mark.parametrize("action", [NakAction.SKIP, NakAction.STOP])
def test_skip(action: NakAction) -> None:
    world = World(2)
    world.read()
    consumer = world.join(slots=1)
    world.nak(0, action=action)
    assert consumer.numbers() == [0, 1]
    assert world.parked == []


def test_timeouts() -> None:
    world = World(3, message_timeout=3000, max_retry_count=1)
    world.read()
    consumer = world.join(slots=2)
    assert consumer.take() == [(0, 0), (1, 0)]
    world.ack(1)
    assert consumer.take() == [(2, 0)]
    world.tick(2.9)
    assert consumer.take() == []
    world.tick(0.1)
    assert consumer.take() == [(0, 1), (2, 1)]
    world.ack(2)
    world.tick(3)
    assert consumer.take() == []
    assert [parked.number for parked, _ in world.parked] == [0]
    world.ack(0)


def test_no_timeout() -> None:
    world = World(1, message_timeout=0)
    world.read()
    consumer = world.join()
    world.tick(10**9)
    assert consumer.take() == [(0, 0)]


def test_a_late_ack_counts() -> None:
    world = World(2, message_timeout=1000)
    world.read()
    consumer = world.join(slots=1)
    world.tick()
    assert consumer.take() == [(0, 0), (0, 1)]
    world.ack(0)
    assert consumer.take() == [(1, 0)]
    world.ack(0)
    assert consumer.take() == []


def test_one_id_twice() -> None:
    world = World()
    world.read()
    consumer = world.join(slots=2)
    twins = [Message(b"id", number, "stream", None) for number in range(3)]
    world.group.committed(twins)
    assert consumer.numbers() == [0, 1]
    world.group.acknowledge(b"key", [b"id"])
    assert consumer.numbers() == [2]
    world.group.acknowledge(b"key", [b"id", b"id"])
    world.write(2)
    assert consumer.numbers() == [0, 1]


# --- consumers come and go ---


def test_subscriber_limit() -> None:
    world = World(max_subscribers=2)
    is_full = []
    for key in (b"a", b"b"):
        world.join(key=key)
        is_full.append(world.group.is_full)
    world.leave(b"a")
    is_full.append(world.group.is_full)
    assert is_full == [False, True, False]


def test_no_subscriber_limit() -> None:
    world = World(max_subscribers=0)
    for number in range(50):
        world.join(key=b"%d" % number)
    assert not world.group.is_full


def test_who_leaves_leaves_events_to_the_others() -> None:
    world = World(6)
    world.read()
    first = world.join(slots=3, key=b"a")
    world.nak(0, key=b"a")
    world.nak(0, key=b"a")
    assert first.take() == [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)]
    second = world.join(slots=2, key=b"b")
    assert second.take() == [(3, 0), (4, 0)]
    world.ack(1, key=b"a")
    world.leave(b"a")
    # Version 4 begins to count anew.
    world.ack(3, 4, key=b"b")
    assert second.take() == [(0, 1), (2, 1)]


def test_several_leave_at_once() -> None:
    world = World(4)
    world.read()
    world.join(slots=1, key=b"a")
    world.join(slots=1, key=b"b")
    world.leave(b"b", b"a")
    assert world.join(key=b"c").take() == [(0, 1), (1, 1), (2, 0), (3, 0)]


def test_stop_drops_consumers() -> None:
    world = World()
    consumers = [world.join(key=key) for key in (b"a", b"b")]
    world.group.stop()
    assert all(consumer.is_dropped for consumer in consumers)
    assert not world.group.consumers
    world.read()
    world.write()
    assert not any(consumer.got for consumer in consumers)


# --- buffers ---


def test_retries_are_ordered_and_replayed_ones_come_last() -> None:
    buffer = StreamBuffer(10, 10, is_live=True)
    replayed = Message(b"r", 0, "x", None, is_replayed=True)
    for retry in (message(5), replayed, message(3), message(9), message(3)):
        buffer.add_retry(retry)
    assert [m.number for m in buffer.retries] == [3, 3, 5, 9, 0]


def test_room_in_a_buffer() -> None:
    buffer = StreamBuffer(10, 10, is_live=True)
    assert buffer.accepts(9)
    assert not buffer.accepts(10)
    buffer.add_live(message(0))
    buffer.add_retry(message(1))
    assert buffer.accepts(7)
    assert not buffer.accepts(8)


# --- strategies ---


def consumers(*slots: int) -> list[Consumer]:
    return [Consumer(b"%d" % index, Recorder(), count) for index, count in enumerate(slots)]


def assigned(name: str, members: list[Consumer], sources: Iterable[str]) -> list[object]:
    """The indexes of the consumers that get the events, or why nobody does."""
    strategy = make_strategy(name)
    for member in members:
        strategy.add(member)
    result: list[object] = []
    for number, source in enumerate(sources):
        chosen = strategy.choose(message(number, source=source))
        if isinstance(chosen, Consumer):
            chosen.push(message(number, source=source))
            result.append(members.index(chosen))
        else:
            result.append(chosen)
    return result


def test_round_robin() -> None:
    full = Problem.NOBODY_FREE
    assert assigned("RoundRobin", consumers(1, 3), "aaaaa") == [0, 1, 1, 1, full]


def test_dispatch_to_single() -> None:
    full = Problem.NOBODY_FREE
    assert assigned("DispatchToSingle", consumers(2, 3), "aaaaaa") == [0, 0, 1, 1, 1, full]


def test_dispatch_to_single_stays_with_the_second() -> None:
    """PS-46 of the recordings."""
    strategy = make_strategy("DispatchToSingle")
    first, second = consumers(1, 9)
    strategy.add(first)
    strategy.add(second)
    first.push(message(0))
    assert strategy.choose(message(1)) is second
    first.release(b"0")
    assert strategy.choose(message(2)) is second


def test_pinned() -> None:
    sources = [f"source-{number % 10}" for number in range(50)]
    result = assigned("Pinned", consumers(100, 100), sources)
    assert result == result[:10] * 5
    assert result.count(0) == result.count(1) == 25


def test_pinned_passes_over_who_is_full() -> None:
    result = assigned("Pinned", consumers(1, 5), ["a", "a", "b", "b"])
    assert result == [0, Problem.NOT_NOW, 1, 1]
    assert assigned("Pinned", consumers(1), ["a", "a"]) == [0, Problem.NOBODY_FREE]


def test_pinned_shares_when_somebody_comes_and_goes() -> None:
    strategy = make_strategy("Pinned")
    first, second = consumers(100, 100)
    strategy.add(first)
    sources = [f"source-{number}" for number in range(20)]
    events = [message(0, source=source) for source in sources]
    assert {strategy.choose(m) for m in events} == {first}
    strategy.add(second)
    owners = [strategy.choose(m) for m in events]
    assert owners.count(first) == owners.count(second) == 10
    assert [strategy.choose(m) for m in events] == owners
    strategy.remove(first)
    assert {strategy.choose(m) for m in events} == {second}


def test_pinned_in_a_group_lets_others_overtake() -> None:
    world = World(strategy="Pinned")
    world.read()
    first, second = world.join(slots=1, key=b"a"), world.join(slots=5, key=b"b")
    world.group.committed(
        Message(b"%d" % number, number, source, None) for number, source in enumerate("aaabb")
    )
    assert first.numbers() == [0]
    assert second.numbers() == [3, 4]
    world.ack(0, key=b"a")
    assert first.numbers() == [1]


def test_nobody_there() -> None:
    for name in ("RoundRobin", "DispatchToSingle", "Pinned"):
        assert make_strategy(name).choose(message(0)) is Problem.NOBODY_FREE


# --- settings ---


def test_stored_settings() -> None:
    settings = GroupSettings(resolve_links=True, start_from=0, max_subscribers=7)
    stored = settings.to_stored()
    assert "startFrom" not in stored
    assert stored["maxSubscriberCount"] == 7
    assert GroupSettings.from_stored(stored) == settings
    with pytest.raises(TypeError):
        GroupSettings.from_stored({**stored, "messageTimeout": "soon"})


def test_strategy_names() -> None:
    assert strategy_for("Any", prefer_round_robin=True) == "Any"
    for nothing in ("", None):
        assert strategy_for(nothing, prefer_round_robin=True) == "RoundRobin"
        assert strategy_for(nothing, prefer_round_robin=False) == "DispatchToSingle"
