"""All groups of a node, and what clients want of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.server._access import READ
from fastpump.server._streams import DELETED_NUMBER, Stream
from fastpump.server._subscriptions import DropReason
from fastpump.server.groups.changes import Change
from fastpump.server.groups.consumers import Consumer
from fastpump.server.groups.hosted import HostedGroup, Recipient
from fastpump.server.groups.requests import decode_ack, decode_connect, decode_nak
from fastpump.server.groups.storage import GroupName, read_config

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from fastpump._framing import Frame
    from fastpump.server._access import User
    from fastpump.server._asking import Asker, Sources
    from fastpump.server._writer import Client, Operation
    from fastpump.server.groups.hosted import Connection
    from fastpump.server.groups.requests import Connect
    from fastpump.server.groups.settings import GroupSettings

TICK_SECONDS = 1.0
SECOND_LOOK_SECONDS = 0.05
"""When a group that was full is looked at again, before a consumer is refused."""


class Groups:
    """All groups of a node.

    Args:
        sources: where they read from.
        submit: takes what they write.
        loop: the running event loop.
    """

    def __init__(
        self,
        sources: Sources,
        submit: Callable[[Operation], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.sources = sources
        self.submit = submit
        self.loop = loop
        self.touched: set[Connection] = set()
        self._by_key: dict[str, HostedGroup] = {}
        self._by_stream: dict[str, list[HostedGroup]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    # --- for the node ---

    def open(self) -> None:
        """Start the groups that are stored."""
        for name, settings in read_config(self.sources).items():
            self._start(name, settings)

    def close(self) -> None:
        """Let go of all consumers. What was refused by then may still be parked."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for hosted in self.hosted():
            hosted.machine.stop()
        self.flush()

    def drop_all(self) -> None:
        """Let go of all consumers and begin anew from the checkpoints, as a new leader does."""
        for name, settings in self.settings().items():
            self.replace(name, settings)

    def publish(self, written: Iterable[tuple[Stream, list[int]]]) -> None:
        """Events have become durable at these places."""
        if not self._by_stream:
            return
        for stream, places in written:
            for hosted in self._by_stream.get(stream.name, ()):
                hosted.committed(places)
        self.flush()

    def hosted(self) -> list[HostedGroup]:
        """All groups, in the order of their making."""
        return list(self._by_key.values())

    def find(self, name: GroupName) -> HostedGroup | None:
        hosted = self._by_key.get(name.key)
        return hosted if hosted is not None and hosted.name == name else None

    def replay_parked(self, stream: str, group: str, stop_at: int | None = None) -> bool:
        """Deliver a group's parked events again (section 9.5); who may do that is not asked here.

        Args:
            stop_at: the number in the stream of parked events of the first one that stays.

        Returns:
            Whether there is such a group.
        """
        hosted = self.find(GroupName(stream, group))
        if hosted is None:
            return False
        hosted.replay_parked(stop_at)
        self.flush()
        return True

    # --- for sessions ---

    def change(self, client: Client, user: User | None, frame: Frame, offset: int) -> Operation:
        """The operation that a create, update or delete asks for. Raises InvalidRequest."""
        return Change(self, client, user, frame, offset)

    def connect(
        self, connection: Connection, asker: Asker, frame: Frame, offset: int
    ) -> Callable[[], None]:
        """What a ConnectToPersistentSubscription asks for, to be called when its turn has come.

        Raises:
            InvalidRequest: it is not one.
        """
        request = decode_connect(frame, offset)
        recipient = Recipient(self, connection, frame.correlation_id, asker)
        return partial(self._connect, recipient, request)

    def unsubscribe(self, correlation_id: bytes) -> None:
        """Let go of the consumer of this id, whoever asks; nothing happens if there is none."""
        for hosted in self._by_key.values():
            consumer = hosted.machine.consumer(correlation_id)
            if consumer is not None:
                consumer.receiver.drop()
                hosted.machine.leave((consumer,))
        self.flush()

    def forget(self, connection: Connection) -> None:
        """The connection is gone, with all consumers it was."""
        for hosted in self._by_key.values():
            leaving = [c for c in hosted.machine.consumers if _is_at(c, connection)]
            if leaving:
                hosted.machine.leave(leaving)
        self.flush()

    def answer(self, frame: Frame, offset: int) -> None:
        """Take an ack or nak. Raises InvalidRequest."""
        is_ack = frame.command == Command.PersistentSubscriptionAckEvents
        answer = decode_ack(frame, offset) if is_ack else decode_nak(frame, offset)
        hosted = self._by_key.get(answer.key)
        if hosted is None:
            return
        consumer = frame.correlation_id
        if answer.action is None:
            hosted.machine.acknowledge(consumer, answer.event_ids)
        else:
            hosted.machine.refuse(consumer, answer.event_ids, answer.action, answer.reason)
        self.flush()

    def _connect(
        self,
        recipient: Recipient,
        request: Connect,
        is_second_look: bool = False,
    ) -> None:
        if not recipient.connection.is_open:
            return
        hosted = self.find(request.name)
        refusal = self._why_not(recipient.user, request.name, hosted)
        if hosted is not None and refusal is None:
            self._join(hosted, recipient, request.slots)
        elif refusal is DropReason.SUBSCRIBER_MAX_COUNT_REACHED and not is_second_look:
            # Who reconnects is often heard before it is noticed that their old connection is gone.
            again = partial(self._connect, recipient, request, True)
            self.loop.call_later(SECOND_LOOK_SECONDS, again)
        else:
            recipient.refuse(refusal or DropReason.NOT_FOUND)
        self.flush()

    def _why_not(
        self, user: User | None, name: GroupName, hosted: HostedGroup | None
    ) -> DropReason | None:
        if not self.sources.access.allows(user, name.stream, READ):
            return DropReason.ACCESS_DENIED
        if hosted is None:
            return DropReason.NOT_FOUND
        return DropReason.SUBSCRIBER_MAX_COUNT_REACHED if hosted.machine.is_full else None

    def _join(self, hosted: HostedGroup, recipient: Recipient, slots: int) -> None:
        store = self.sources.store
        stream = store.stream(hosted.name.stream)
        last = DELETED_NUMBER if stream.deleted else stream.committed
        recipient.confirm(hosted, store.last_position, last)
        predecessor = hosted.machine.consumer(recipient.correlation_id)
        if predecessor is not None:
            hosted.machine.leave((predecessor,))
        hosted.machine.join(Consumer(recipient.correlation_id, recipient, slots))

    # --- for its parts ---

    def settings(self) -> dict[GroupName, GroupSettings]:
        """All groups, in the order of their making."""
        return {hosted.name: hosted.settings for hosted in self._by_key.values()}

    def replace(self, name: GroupName, settings: GroupSettings | None) -> None:
        """Start a group, anew if it was there; None: it is deleted."""
        if self._is_closed:
            return
        old = self._by_key.get(name.key)
        if old is not None:
            self._end(old)
        if settings is None:
            del self._by_key[name.key]
        else:
            self._start(name, settings)
        self.flush()

    def has_place_for(self, hosted: HostedGroup) -> bool:
        return self._by_key.get(hosted.name.key) is hosted

    def flush(self) -> None:
        """Send what connections were given."""
        for connection in self.touched:
            connection.flush()
        self.touched.clear()

    def _start(self, name: GroupName, settings: GroupSettings) -> None:
        hosted = self._by_key[name.key] = HostedGroup(self, name, settings)
        self._by_stream.setdefault(name.stream, []).append(hosted)
        hosted.start()
        if self._timer is None:
            self._timer = self.loop.call_later(TICK_SECONDS, self._tick)

    def _end(self, hosted: HostedGroup) -> None:
        others = self._by_stream[hosted.name.stream]
        others.remove(hosted)
        if not others:
            del self._by_stream[hosted.name.stream]
        hosted.machine.stop()

    def _tick(self) -> None:
        self._timer = None
        for hosted in self._by_key.values():
            hosted.machine.tick()
        self.flush()
        if self._by_key:
            self._timer = self.loop.call_later(TICK_SECONDS, self._tick)


def _is_at(consumer: Consumer, connection: Connection) -> bool:
    receiver = consumer.receiver
    return isinstance(receiver, Recipient) and receiver.connection is connection
