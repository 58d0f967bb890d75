"""Groups of a node that ends and begins again with the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from grouplib import DROPPED_NOT_FOUND, OK, Group, until
from nodelib import ADMIN, Fields, NodeThread, event

from fastpump.server.groups.machine import NakAction

URGENT: Fields = {"checkpoint_after_time": 0, "checkpoint_max_count": 1, "checkpoint_min_count": 1}
"""Settings by which every event that is done gives a checkpoint."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


def write(node: NodeThread, stream: str, count: int) -> None:
    with node.client() as client:
        client.write_some(stream, count)


def test_psub_30_a_checkpoint_survives(path: Path) -> None:
    with NodeThread(path) as node:
        write(node, "stream", 5)
        group = Group(node, "stream")
        group.create(**URGENT)
        with group.connect() as consumer:
            consumer.ack(consumer.take(5)[:3])
            until("there is a checkpoint", lambda: group.checkpoint() == b"2")
    with NodeThread(path) as node, Group(node, "stream").connect() as consumer:
        assert [push[:2] for push in consumer.take(2)] == [(3, 0), (4, 0)]
        write(node, "stream", 1)
        assert [push.number for push in consumer.take()] == [5]


def test_psub_30_without_a_checkpoint_it_begins_again(path: Path) -> None:
    with NodeThread(path) as node:
        write(node, "stream", 3)
        group = Group(node, "stream")
        group.create(start_from=1)
        with group.connect() as consumer:
            assert consumer.numbers(2) == [1, 2]
    with NodeThread(path) as node, Group(node, "stream").connect() as consumer:
        assert consumer.numbers(2) == [1, 2]


def test_all_settings_survive(path: Path) -> None:
    with NodeThread(path) as node:
        write(node, "target", 1)
        group = Group(node, "stream")
        group.create(
            resolve_link_tos=True,
            max_retry_count=0,
            subscriber_max_count=1,
            named_consumer_strategy="Pinned",
        )
        Group(node, "stream", "deleted").create()
        Group(node, "stream", "deleted").delete()
    with NodeThread(path) as node:
        group = Group(node, "stream")
        assert Group(node, "stream", "deleted").refusal() == DROPPED_NOT_FOUND
        with group.connect() as consumer:
            assert group.refusal() is not None
            with node.client() as client:
                client.write("stream", [event(data=b"0@target", type="$>", is_json=False)])
            taken = consumer.take()
            assert set(taken[0].fields) == {"event", "link"}
            consumer.nak(taken)
            assert consumer.gets_nothing()
        assert len(group.parked()) == 1
        assert group.update() == (OK, "")


def test_parked_events_survive(path: Path) -> None:
    with NodeThread(path) as node:
        write(node, "stream", 2)
        group = Group(node, "stream")
        group.create(**URGENT)
        with group.connect() as consumer:
            consumer.nak(consumer.take(2), NakAction.PARK)
            until("there is a checkpoint", lambda: group.checkpoint() == b"1")
    with NodeThread(path) as node:
        group = Group(node, "stream")
        with group.connect() as consumer:
            assert consumer.gets_nothing()
            node.run(lambda node: node._engine.groups.replay_parked("stream", "group"))
            assert [push.fields["event"]["event_number"] for push in consumer.take(2)] == [0, 1]


def test_what_was_refused_is_parked_even_if_the_node_ends(path: Path) -> None:
    with NodeThread(path) as node:
        write(node, "stream", 1)
        group = Group(node, "stream")
        group.create()
        with group.connect() as consumer, node.client() as client:
            consumer.nak(consumer.take(), NakAction.PARK)
            consumer.unsubscribe()
            client.write_some("other", 1)
    with NodeThread(path) as node:
        assert len(Group(node, "stream").parked()) == 1


def test_a_checkpoint_of_a_later_server_is_understood(path: Path) -> None:
    """Version 21.10 and later write it as a JSON string (section 9.1)."""
    with NodeThread(path) as node:
        write(node, "stream", 3)
        group = Group(node, "stream")
        group.create()
        with node.client() as client:
            checkpoint = event(data=b'"1"', type="SubscriptionCheckpoint")
            client.write(group.checkpoint_stream, [checkpoint], auth=ADMIN)
    with NodeThread(path) as node, Group(node, "stream").connect() as consumer:
        assert consumer.numbers(1) == [2]


@pytest.mark.parametrize("content", [b"nonsense", b"{}", b'{"entries": [1, {"group": 2}]}'])
def test_a_list_of_groups_that_makes_no_sense(path: Path, content: bytes) -> None:
    with NodeThread(path) as node, node.client() as client:
        client.write("$persistentSubscriptionConfig", [event(data=content)], auth=ADMIN)
    with NodeThread(path) as node:
        assert Group(node, "stream").create() == (OK, "")
