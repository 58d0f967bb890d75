"""Volatile subscriptions. Names are rows of the acceptance list."""

from __future__ import annotations

import goldenlib
import pytest
from nodelib import (
    ADMIN,
    MAX,
    OPS,
    Auth,
    Fields,
    NodeThread,
    RawClient,
    event,
    frame,
    link,
    new_id,
    original,
    position_of,
)

from fastpump._commands import Command


class Subscriber:
    """A connection with one subscription."""

    def __init__(
        self, node: NodeThread, stream: str, *, resolve: bool = False, auth: Auth = None
    ) -> None:
        self.client = node.client()
        self.stream, self.resolve, self.auth = stream, resolve, auth

    def __enter__(self) -> Subscriber:
        self.confirmation = self.client.expect(
            Command.SubscriptionConfirmation,
            Command.SubscribeToStream,
            self.auth,
            event_stream_id=self.stream,
            resolve_link_tos=self.resolve,
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()

    def take(self, count: int) -> list[Fields]:
        """The next pushes, which must be the only ones."""
        pushed = [self.client.receive() for _ in range(count)]
        assert {command for command, _, _ in pushed} <= {Command.StreamEventAppeared}
        with pytest.raises(TimeoutError):
            self.client.receive(0.03)
        return [goldenlib.decode_fields(command, body)["event"] for command, _, body in pushed]


def numbers(items: list[Fields]) -> list[int]:
    return [original(item)["event_number"] for item in items]


def test_vsub_01_a_stream_that_does_not_exist(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    with Subscriber(node, stream) as subscriber:
        assert subscriber.confirmation["last_event_number"] == -1
        client.write_some(stream, 1)
        assert numbers(subscriber.take(1)) == [0]


def test_vsub_02_only_what_is_new(node: NodeThread, client: RawClient, stream: str) -> None:
    client.write_some(stream, 5)
    with Subscriber(node, stream) as subscriber:
        assert subscriber.confirmation["last_event_number"] == 4
        client.write_some(stream, 3)
        items = subscriber.take(3)
    assert numbers(items) == [5, 6, 7]
    assert position_of(items[0])[0] > subscriber.confirmation["last_commit_position"]
    pages = client.all_backward(count=3).items[::-1]
    assert items == pages


def test_vsub_03_several_subscriptions(node: NodeThread, client: RawClient, stream: str) -> None:
    with (
        Subscriber(node, stream) as one,
        Subscriber(node, stream) as two,
        Subscriber(node, f"{stream}-b") as other,
    ):
        for number in range(200):
            client.write_some(stream if number % 4 else f"{stream}-b", 5)
        assert numbers(one.take(750)) == list(range(750))
        assert numbers(two.take(750)) == list(range(750))
        assert numbers(other.take(250)) == list(range(250))


def test_vsub_04_unsubscribe(node: NodeThread, client: RawClient, stream: str) -> None:
    correlation_id = new_id()
    with node.client() as subscriber:
        subscribe = goldenlib.encode_fields(Command.SubscribeToStream, {"event_stream_id": stream})
        subscriber.exchange(Command.SubscribeToStream, subscribe, None, correlation_id)
        dropped = subscriber.exchange(Command.UnsubscribeFromStream, b"", None, correlation_id)
        assert dropped == (Command.SubscriptionDropped, {})
        subscriber.send(Command.UnsubscribeFromStream, b"", None, correlation_id)
        client.write_some(stream, 1)
        with pytest.raises(TimeoutError):
            subscriber.receive(0.03)


def test_vsub_05_deletes(node: NodeThread, client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    with Subscriber(node, stream) as mine, Subscriber(node, "", auth=ADMIN) as everything:
        assert "last_event_number" not in everything.confirmation
        client.delete(stream)
        client.delete(stream, hard=True)
        assert numbers(mine.take(1)) == [MAX]
        records = [original(item) for item in everything.take(2)]
    assert [record["event_type"] for record in records] == ["$metadata", "$streamDeleted"]


def test_vsub_06_the_whole_log(node: NodeThread, client: RawClient, stream: str) -> None:
    with Subscriber(node, "", auth=ADMIN) as everything:
        client.set_metadata(stream, b"{}")
        for number in range(3):
            client.write_some(f"{stream}-{number}", 2)
        items = everything.take(7)
    assert items == client.all_backward(count=7).items[::-1]


def test_vsub_07_links(node: NodeThread, client: RawClient, stream: str) -> None:
    links = f"{stream}-links"
    client.write_some(stream, 1)
    client.set_metadata(stream, b'{"$acl":{"$r":"$admins"}}')
    with Subscriber(node, links, resolve=True) as yes, Subscriber(node, links) as no:
        client.write(links, [link(0, stream), link(7, stream), event()])
        kinds = [("event" in item, "link" in item) for item in yes.take(3)]
        assert kinds == [(True, True), (False, True), (True, False)]
        assert all("link" not in item for item in no.take(3))


@pytest.mark.parametrize(("name", "auth"), [("", None), ("", OPS), ("$x", None)])
def test_vsub_08_no_right(client: RawClient, name: str, auth: Auth) -> None:
    reply, content = client.ask(Command.SubscribeToStream, auth, event_stream_id=name)
    assert (reply, content) == (Command.SubscriptionDropped, {"reason": 1})


def test_trunc_15_limits_do_not_filter(node: NodeThread, client: RawClient, stream: str) -> None:
    client.set_metadata(stream, b'{"$maxCount":1}')
    with Subscriber(node, stream) as subscriber:
        client.write_some(stream, 20)
        assert numbers(subscriber.take(20)) == list(range(20))


def test_repetitions_are_not_pushed(node: NodeThread, client: RawClient, stream: str) -> None:
    with Subscriber(node, stream) as subscriber:
        events = client.write_some(stream, 2)
        client.write(stream, events)
        assert len(subscriber.take(2)) == 2


def test_a_subscriber_that_does_not_read_is_cut_off_and_told(stream: str) -> None:
    with NodeThread(push_limit=1_000_000) as node, node.client() as client:
        with Subscriber(node, stream) as slow, Subscriber(node, stream) as steady:
            # More than the limit and what the two sockets hold.
            for number in range(40):
                client.write(stream, [event(data=bytes(500_000))])
                assert steady.client.receive()[0] == Command.StreamEventAppeared, number
            command: int = Command.StreamEventAppeared
            while command == Command.StreamEventAppeared:
                command, correlation_id, _ = slow.client.receive()
            assert (command, correlation_id) == (Command.BadRequest, bytes(16))
            assert slow.client.is_closed()
        assert client.ask(Command.Ping)[0] == Command.Pong


def test_subscribers_are_told_when_the_node_ends(stream: str) -> None:
    with NodeThread() as node:
        subscriber = Subscriber(node, stream)
        subscriber.__enter__()
    assert subscriber.client.receive()[0] == Command.SubscriptionDropped
    assert subscriber.client.is_closed()
    subscriber.client.close()


def test_pushes_to_clients_of_protocol_version_0(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    with node.client(version=0) as old:
        old.ask(Command.SubscribeToStream, event_stream_id=stream)
        client.delete(stream, hard=True)
        command, _, body = old.receive()
        item = goldenlib.decode_fields(command, body)["event"]
        assert numbers([item]) == [2**31 - 1]


def test_the_subscriber_s_own_writes(client: RawClient, stream: str) -> None:
    subscribe = goldenlib.encode_fields(Command.SubscribeToStream, {"event_stream_id": stream})
    write = goldenlib.encode_fields(
        Command.WriteEvents,
        {"event_stream_id": stream, "expected_version": -2, "events": [event()]},
    )
    client.send_bytes(
        frame(Command.SubscribeToStream, subscribe, None, new_id())
        + frame(Command.WriteEvents, write, None, new_id())
    )
    assert client.receive()[0] == Command.SubscriptionConfirmation
    replies = {client.receive()[0] for _ in range(2)}
    assert replies == {Command.StreamEventAppeared, Command.WriteEventsCompleted}
