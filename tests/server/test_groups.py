"""The life of groups as clients see it: made, connected to, begun, ended.

Names are rows of the acceptance list.
"""

from __future__ import annotations

import goldenlib
import pytest
from grouplib import (
    DENIED,
    DROPPED_DENIED,
    DROPPED_FULL,
    DROPPED_NOT_FOUND,
    FAIL,
    OK,
    SETTINGS,
    UNSUITED,
    Group,
    until,
)
from nodelib import ADMIN, ANY, OPS, NodeThread, RawClient, event, frame, new_id

from fastpump._commands import Command

# --- making and ending groups ---


def test_psub_01_create(node: NodeThread, stream: str) -> None:
    group = Group(node, stream)
    assert group.create() == (OK, "")
    assert Group(node, stream + "x").create() == (OK, "")
    assert group.create() == (UNSUITED, "Group 'group' already exists.")
    assert group.delete() == (OK, "")
    assert group.create() == (OK, "")


def test_psub_01_create_on_a_stream_with_events(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 2)
    assert group.create() == (OK, "")


@pytest.mark.parametrize("auth", [None, OPS])
def test_psub_02_rights(group: Group, auth: tuple[str, str] | None) -> None:
    """Version 4 refuses `$ops` too (section 16)."""
    assert group.create(auth)[0] == DENIED
    assert group.create()[0] == OK
    assert group.update(auth)[0] == DENIED
    assert group.delete(auth)[0] == DENIED


@pytest.mark.parametrize("name", ["$all", ""])
def test_psub_03_bad_stream(node: NodeThread, name: str) -> None:
    assert Group(node, name).create() == (FAIL, "Bad stream name.")


@pytest.mark.parametrize("strategy", ["RoundRobin", "DispatchToSingle", "Pinned", ""])
def test_psub_04_strategies(group: Group, strategy: str) -> None:
    assert group.create(named_consumer_strategy=strategy)[0] == OK


@pytest.mark.parametrize("strategy", ["DisptchToSingle", "pinned", "PinnedByCorrelation"])
def test_psub_04_unknown_strategies(group: Group, strategy: str) -> None:
    text = f"Consumer strategy {strategy} does not exist."
    assert group.create(named_consumer_strategy=strategy) == (FAIL, text)


@pytest.mark.parametrize(("prefer_round_robin", "numbers"), [(True, [0, 2]), (False, [0, 1])])
def test_psub_04_the_older_field_decides(
    client: RawClient, group: Group, prefer_round_robin: bool, numbers: list[int]
) -> None:
    group.create(named_consumer_strategy="", prefer_round_robin=prefer_round_robin)
    with group.connect() as first, group.connect():
        client.write_some(group.stream, 4)
        assert [push.number for push in first.take(2)] == numbers


def test_psub_05_odd_numbers(client: RawClient, group: Group) -> None:
    """Nothing is refused; negative starts and timeouts mean none (version 4)."""
    client.write_some(group.stream, 1)
    assert group.create(start_from=-2, message_timeout_milliseconds=-1, read_batch_size=0)[0] == OK
    with group.connect() as consumer:
        assert consumer.gets_nothing()
        client.write_some(group.stream, 1)
        assert [push[:2] for push in consumer.take()] == [(1, 0)]
        assert consumer.gets_nothing(1.2)


def test_psub_06_update(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 1)
    assert group.update() == (UNSUITED, "Group 'group' does not exist.")
    group.create(max_retry_count=0)
    with group.connect() as consumer:
        consumer.take()
        assert group.update(max_retry_count=1) == (OK, "")
        consumer.expect_drop()
    with group.connect() as consumer:
        consumer.nak(consumer.take())
        assert consumer.take()[0].retry_count == 1


def test_psub_07_delete(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 2)
    group.create(checkpoint_after_time=0, checkpoint_max_count=1)
    with group.connect() as consumer:
        consumer.ack(consumer.take(2))
        until("there is a checkpoint", group.checkpoint)
        assert group.delete() == (OK, "")
        consumer.expect_drop()
    assert group.refusal() == DROPPED_NOT_FOUND
    assert group.delete() == (UNSUITED, "Group 'group' does not exist.")
    assert group.checkpoint() is None
    group.create()
    with group.connect() as consumer:
        assert consumer.numbers(2) == [0, 1]


def create_and_finish(group: Group, count: int) -> None:
    """Make the group, and acknowledge so many events until that is stored."""
    group.create(checkpoint_after_time=0, checkpoint_max_count=1)
    with group.connect(slots=count) as consumer:
        consumer.ack(consumer.take(count))
        until("there is a checkpoint", lambda: group.checkpoint() == b"%d" % (count - 1))


def test_psub_07_a_second_life_has_its_own_checkpoint(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 3)
    create_and_finish(group, 3)
    group.delete()
    create_and_finish(group, 1)
    group.update()
    with group.connect() as consumer:
        assert consumer.numbers(2) == [1, 2]


# --- connecting ---


def test_psub_09_connect(client: RawClient, group: Group) -> None:
    assert group.refusal() == DROPPED_NOT_FOUND
    client.write_some(group.stream, 3)
    group.create(start_from=-1)
    with group.connect() as consumer:
        assert consumer.confirmation["subscription_id"] == group.key
        assert consumer.confirmation["last_event_number"] == 2


def test_psub_09_connect_without_right(node: NodeThread, stream: str) -> None:
    group = Group(node, f"${stream}")
    assert group.refusal() == DROPPED_DENIED
    group.create()
    assert group.refusal() == DROPPED_DENIED
    assert group.refusal(auth=OPS) == DROPPED_DENIED
    with group.connect(auth=ADMIN) as consumer:
        assert consumer.confirmation["last_event_number"] == -1


def test_psub_10_no_credentials(group: Group) -> None:
    group.create()
    for auth in (None, OPS, ADMIN):
        group.connect(auth=auth).cut()


def test_psub_11_subscriber_limit(client: RawClient, group: Group) -> None:
    group.create(subscriber_max_count=1)
    with group.connect() as first:
        assert group.refusal() == DROPPED_FULL
        client.write_some(group.stream, 1)
        assert first.numbers(1) == [0]
        first.unsubscribe()
        with group.connect():
            assert group.refusal() == DROPPED_FULL


def test_psub_11_a_cut_connection_makes_place(group: Group) -> None:
    group.create(subscriber_max_count=1)
    for _ in range(5):
        group.connect().cut()


def test_psub_12_no_slots(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 1)
    group.create()
    with group.connect(slots=0) as consumer:
        assert consumer.gets_nothing()
    reply, _ = client.ask(
        Command.ConnectToPersistentSubscription,
        subscription_id=group.name,
        event_stream_id=group.stream,
        allowed_in_flight_messages=-1,
    )
    assert reply == Command.BadRequest


def test_version_0_clients_get_narrow_numbers(client: RawClient, group: Group) -> None:
    client.delete(group.stream, hard=True)
    group.create()
    with group.node.client(version=0) as old:
        confirmed = old.expect(
            Command.PersistentSubscriptionConfirmation,
            Command.ConnectToPersistentSubscription,
            subscription_id=group.name,
            event_stream_id=group.stream,
            allowed_in_flight_messages=1,
        )
    assert confirmed["last_event_number"] == 2**31 - 1


def test_connect_waits_for_the_writes_before_it(client: RawClient, group: Group) -> None:
    """A client may send everything at once."""
    write = {
        "event_stream_id": group.stream,
        "expected_version": ANY,
        "events": [event()],
        "require_leader": True,
    }
    names = {"subscription_group_name": group.name, "event_stream_id": group.stream}
    connect = {
        "subscription_id": group.name,
        "event_stream_id": group.stream,
        "allowed_in_flight_messages": 10,
    }
    requests = [
        (Command.CreatePersistentSubscription, {**SETTINGS, **names}),
        (Command.WriteEvents, write),
        (Command.ConnectToPersistentSubscription, connect),
    ]
    for command, fields in requests:
        client.send(command, goldenlib.encode_fields(command, fields), ADMIN)
    assert [client.receive()[0] for _ in range(4)] == [
        Command.CreatePersistentSubscriptionCompleted,
        Command.WriteEventsCompleted,
        Command.PersistentSubscriptionConfirmation,
        Command.PersistentSubscriptionStreamEventAppeared,
    ]


# --- where a group begins ---


@pytest.mark.parametrize(
    ("start_from", "stored", "then", "first"),
    [(0, 0, 2, 0), (0, 10, 0, 0), (2, 0, 3, 2)],
)
def test_psub_13_from_a_number(
    client: RawClient, group: Group, start_from: int, stored: int, then: int, first: int
) -> None:
    begin_and_expect(client, group, start_from, stored, then, first)


def test_psub_14_from_now_on(client: RawClient, group: Group) -> None:
    client.write_some(group.stream, 10)
    group.create(start_from=-1)
    with group.connect() as consumer:
        assert consumer.gets_nothing()
        client.write_some(group.stream, 1)
        assert consumer.numbers(1) == [10]


@pytest.mark.parametrize(
    ("start_from", "stored", "then", "first"),
    [(4, 10, 0, 4), (10, 10, 1, 10), (11, 11, 1, 11)],
)
def test_psub_15_from_the_middle_and_the_end(
    client: RawClient, group: Group, start_from: int, stored: int, then: int, first: int
) -> None:
    begin_and_expect(client, group, start_from, stored, then, first)


def begin_and_expect(
    client: RawClient, group: Group, start_from: int, stored: int, then: int, first: int
) -> None:
    client.write(group.stream, [event() for _ in range(stored)])
    group.create(start_from=start_from)
    with group.connect() as consumer:
        client.write(group.stream, [event() for _ in range(then)])
        assert consumer.numbers(1) == [first]


def test_a_group_gets_nothing_that_was_written_just_before_it(
    client: RawClient, group: Group
) -> None:
    """Not even what arrived with the same bytes, and could be committed together with it."""
    write = {
        "event_stream_id": group.stream,
        "expected_version": ANY,
        "events": [event() for _ in range(3)],
        "require_leader": True,
    }
    create = {
        **SETTINGS,
        "start_from": -1,
        "subscription_group_name": group.name,
        "event_stream_id": group.stream,
    }
    requests = [
        (Command.WriteEvents, write),
        (Command.CreatePersistentSubscription, create),
    ]
    client.send_bytes(
        b"".join(
            frame(command, goldenlib.encode_fields(command, fields), ADMIN, new_id())
            for command, fields in requests
        )
    )
    assert [client.receive()[0] for _ in requests] == [command + 1 for command, _ in requests]
    with group.connect() as consumer:
        client.write_some(group.stream, 1)
        assert consumer.numbers(1) == [3]


# --- consumers that are let go ---


def test_a_change_of_the_leader_begins_anew(client: RawClient, group: Group) -> None:
    """Consumers are let go, and those that come back begin behind the checkpoint."""
    client.write_some(group.stream, 3)
    group.create()
    with group.connect() as consumer:
        consumer.ack(consumer.take(3)[:1])
        group.node.run(lambda node: node._engine.groups.drop_all())
        consumer.expect_drop()
    with group.connect() as consumer:
        assert [push[:2] for push in consumer.take(3)] == [(0, 0), (1, 0), (2, 0)]


def test_the_end_of_the_node_drops_consumers() -> None:
    with NodeThread() as node:
        group = Group(node, "stream")
        group.create()
        consumer = group.connect()
    consumer.expect_drop()
    consumer.cut()
