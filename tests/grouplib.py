"""Persistent subscriptions for tests: groups and their consumers, over plain sockets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import goldenlib
from nodelib import ADMIN, Auth, Fields, NodeThread, RawClient, original

from fastpump._commands import Command
from fastpump.server.groups.machine import NakAction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LATE_SECONDS = 5.0
"""How long to wait for what the clock of the node brings, which ticks once per second."""

NOTHING_SECONDS = 0.1
"""How long nothing has to come where nothing is expected."""

OK, UNSUITED, FAIL, DENIED = range(4)
"""Results of a create, update or delete."""
DROPPED, DROPPED_DENIED, DROPPED_NOT_FOUND, DROPPED_FULL = 0, 1, 2, 4
"""Reasons of a SubscriptionDropped."""

SETTINGS: Fields = {
    "resolve_link_tos": False,
    "start_from": 0,
    "message_timeout_milliseconds": 30000,
    "record_statistics": False,
    "live_buffer_size": 500,
    "read_batch_size": 20,
    "buffer_size": 500,
    "max_retry_count": 10,
    "prefer_round_robin": True,
    "checkpoint_after_time": 2000,
    "checkpoint_max_count": 1000,
    "checkpoint_min_count": 10,
    "subscriber_max_count": 0,
    "named_consumer_strategy": "RoundRobin",
}


class Push(NamedTuple):
    """An event as a consumer got it."""

    number: int
    retry_count: int
    event_id: bytes
    fields: Fields

    @property
    def data(self) -> bytes:
        return bytes(self.fields["event"]["data"])


class Group:
    """A group of a stream, which is made by `create`."""

    def __init__(self, node: NodeThread, stream: str, name: str = "group") -> None:
        self.node = node
        self.stream = stream
        self.name = name

    @property
    def key(self) -> str:
        return f"{self.stream}::{self.name}"

    @property
    def checkpoint_stream(self) -> str:
        return f"$persistentsubscription-{self.key}-checkpoint"

    @property
    def parked_stream(self) -> str:
        return f"$persistentsubscription-{self.key}-parked"

    def create(self, auth: Auth = ADMIN, **settings: Any) -> tuple[int, str]:
        return self._change(Command.CreatePersistentSubscription, auth, {**SETTINGS, **settings})

    def update(self, auth: Auth = ADMIN, **settings: Any) -> tuple[int, str]:
        return self._change(Command.UpdatePersistentSubscription, auth, {**SETTINGS, **settings})

    def delete(self, auth: Auth = ADMIN) -> tuple[int, str]:
        return self._change(Command.DeletePersistentSubscription, auth, {})

    def connect(self, slots: int = 10, auth: Auth = None) -> Consumer:
        consumer = Consumer(self, slots, auth)
        assert consumer.refusal is None, consumer.refusal
        return consumer

    def refusal(self, slots: int = 10, auth: Auth = None) -> int | None:
        """Why a consumer is not taken."""
        with Consumer(self, slots, auth) as consumer:
            return consumer.refusal

    def parked(self) -> list[Fields]:
        with self.node.client() as client:
            return [original(item) for item in client.forward(self.parked_stream, auth=ADMIN).items]

    def checkpoint(self) -> bytes | None:
        """The content of the last checkpoint."""
        with self.node.client() as client:
            items = client.backward(self.checkpoint_stream, count=1, auth=ADMIN).items
            return original(items[0])["data"] if items else None

    def _change(self, command: int, auth: Auth, settings: Fields) -> tuple[int, str]:
        names = {"subscription_group_name": self.name, "event_stream_id": self.stream}
        with self.node.client() as client:
            reply = client.expect(command + 1, command, auth, **names, **settings)
        return reply["result"], reply["reason"]


class Consumer:
    """A connection that is a consumer; if it was refused, `refusal` says why."""

    def __init__(self, group: Group, slots: int, auth: Auth = None) -> None:
        self._group = group
        self._client = RawClient(group.node.address)
        self.refusal: int | None = None
        payload = goldenlib.encode_fields(
            Command.ConnectToPersistentSubscription,
            {
                "subscription_id": group.name,
                "event_stream_id": group.stream,
                "allowed_in_flight_messages": slots,
            },
        )
        self._id = self._client.send(Command.ConnectToPersistentSubscription, payload, auth)
        command, _, body = self._client.receive()
        self.confirmation = goldenlib.decode_fields(command, body)
        if command != Command.PersistentSubscriptionConfirmation:
            assert command == Command.SubscriptionDropped
            self.refusal = self.confirmation.get("reason", DROPPED)

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Close the connection."""
        self._client.close()

    def take(self, count: int = 1, timeout: float = 5.0) -> list[Push]:
        """The next events that are pushed."""
        return [self._next(timeout) for _ in range(count)]

    def numbers(self, count: int) -> list[int]:
        """Take this many events, acknowledge them, and tell their numbers."""
        taken = self.take(count)
        self.ack(taken)
        return [push.number for push in taken]

    def gets_nothing(self, seconds: float = NOTHING_SECONDS) -> bool:
        try:
            self._client.receive(seconds)
        except TimeoutError:
            return True
        return False

    def ack(self, pushes: Iterable[Push]) -> None:
        self.answer(Command.PersistentSubscriptionAckEvents, [p.event_id for p in pushes])

    def nak(
        self, pushes: Iterable[Push], action: NakAction = NakAction.RETRY, reason: str = "why"
    ) -> None:
        ids = [push.event_id for push in pushes]
        command = Command.PersistentSubscriptionNakEvents
        self.answer(command, ids, message=reason, action=action)

    def answer(self, command: int, ids: list[bytes], **fields: Any) -> None:
        message = {"subscription_id": self._group.key, "processed_event_ids": ids, **fields}
        self._client.send(command, goldenlib.encode_fields(command, message), None, self._id)

    def receive(self) -> tuple[int, Fields]:
        """The next frame of whatever kind."""
        command, correlation_id, body = self._client.receive()
        assert correlation_id == self._id
        return command, goldenlib.decode_fields(command, body)

    def unsubscribe(self) -> None:
        self._client.send(Command.UnsubscribeFromStream, b"", None, self._id)
        self.expect_drop()

    def expect_drop(self) -> None:
        """It is told that it was let go, without a reason."""
        assert self.receive() == (Command.SubscriptionDropped, {})

    def _next(self, timeout: float) -> Push:
        command, correlation_id, body = self._client.receive(timeout)
        assert (command, correlation_id) == (
            Command.PersistentSubscriptionStreamEventAppeared,
            self._id,
        )
        fields = goldenlib.decode_fields(command, body)
        record = original(fields["event"])
        return Push(
            record["event_number"], fields["retryCount"], record["event_id"], fields["event"]
        )


def until(condition: str, check: Callable[[], object]) -> None:
    """Wait until `check()` is true."""
    deadline = time.monotonic() + LATE_SECONDS
    while not check():
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)
