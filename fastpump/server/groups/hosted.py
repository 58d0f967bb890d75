"""One group in a node: its machine, with the stream, the log and connections around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fastpump.server._asking import MAX_INT32
from fastpump.server._streams import metastream_of
from fastpump.server._subscriptions import DropReason, dropped
from fastpump.server.groups.machine import ConsumerGroup
from fastpump.server.groups.reading import GroupReader
from fastpump.server.groups.requests import appeared, confirmation
from fastpump.server.groups.settings import MAX_BATCH, GroupSettings
from fastpump.server.groups.statistics import Meter, config_of
from fastpump.server.groups.storage import (
    GroupName,
    NewEvent,
    OwnWrite,
    checkpoint_event,
    parked_event,
    read_checkpoint,
    truncation,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from fastpump.server._asking import Asker, Sources
    from fastpump.server._writer import Operation
    from fastpump.server.groups.messages import Message

PARK_ATTEMPTS = 6
"""How often it is tried to park an event before it is given up (section 9.5)."""


class Connection(Protocol):
    """A client's connection: a session."""

    @property
    def is_open(self) -> bool: ...

    @property
    def peer(self) -> str: ...

    def deliver(self, reply: bytes) -> None: ...

    def push(self, frames: bytes) -> None: ...

    def flush(self) -> None: ...


class Host(Protocol):
    """What the groups of a node share.

    Attributes:
        sources: where they read from.
        submit: takes what they write.
        loop: the running event loop.
        touched: the connections that were given something, to be flushed.
    """

    sources: Sources
    submit: Callable[[Operation], None]
    loop: asyncio.AbstractEventLoop
    touched: set[Connection]

    def has_place_for(self, hosted: HostedGroup) -> bool:
        """Whether the group still is one, neither deleted nor replaced by an updated one."""

    def flush(self) -> None:
        """Send what connections were given."""


class Recipient:
    """A consumer's connection, as its group sees it.

    Args:
        asker: who is at its other end.
    """

    def __init__(
        self, host: Host, connection: Connection, correlation_id: bytes, asker: Asker
    ) -> None:
        self.connection = connection
        self.correlation_id = correlation_id
        self.user = asker.user
        self._is_narrow = asker.is_narrow
        self._touched = host.touched
        self._meters: tuple[Meter, ...] = ()
        self._own_meter = Meter()

    def confirm(self, hosted: HostedGroup, last_position: int, last_number: int) -> None:
        """Tell that the connection is a consumer of this group from now on."""
        self._meters = self._own_meter, hosted.meter
        number = min(last_number, MAX_INT32) if self._is_narrow else last_number
        self._deliver(confirmation(self.correlation_id, last_position, hosted.name, number))

    def refuse(self, reason: DropReason) -> None:
        """Tell that it will not be one."""
        self._deliver(dropped(self.correlation_id, reason))

    def push(self, message: Message) -> None:
        frame = appeared(self.correlation_id, message, is_narrow=self._is_narrow)
        self.connection.push(frame)
        self._touched.add(self.connection)
        for meter in self._meters:
            meter.count()

    def describe(self) -> dict[str, Any]:
        """What the group tells of it."""
        user = "anonymous" if self.user is None else self.user.login
        figures = self._own_meter.read()
        return {"from": self.connection.peer, "username": user, **figures, "extraStatistics": []}

    def drop(self) -> None:
        self._deliver(dropped(self.correlation_id, DropReason.UNSUBSCRIBED))

    def _deliver(self, reply: bytes) -> None:
        self.connection.deliver(reply)
        self._touched.add(self.connection)


class HostedGroup:
    """A group that runs in a node. It begins with `start`.

    Attributes:
        machine: the group itself.
        meter: counts what it delivers.
    """

    def __init__(self, host: Host, name: GroupName, settings: GroupSettings) -> None:
        self.name = name
        self.settings = settings
        self.machine = ConsumerGroup(settings, self, host.loop.time)
        self.meter = Meter()
        self._host = host
        self._reader = GroupReader(host.sources, name.stream, resolve=settings.resolve_links)
        self._is_replaying = False

    def start(self) -> None:
        self.machine.start(read_checkpoint(self._host.sources, self.name))

    def committed(self, places: Sequence[int]) -> None:
        """Its stream has new events at these places of the log."""
        self.machine.committed(self._reader.committed(places))

    def replay_parked(self, stop_at: int | None) -> None:
        """Deliver what is parked again, and make it invisible in the stream of parked events."""
        if self._is_replaying:
            return
        messages = self._parked_messages(stop_at)
        if messages:
            self._is_replaying = True
            metastream = metastream_of(self.name.parked_stream)
            self._write(metastream, truncation(messages[-1].number + 1), self._replayed)
            self.machine.replay(messages)

    def describe(self) -> dict[str, Any]:
        """What it tells of itself, by the original's names."""
        now = self.machine.statistics()
        return {
            "status": now.status(is_replaying=self._is_replaying),
            **self.meter.read(),
            "lastProcessedEventNumber": now.checkpoint,
            "lastKnownEventNumber": self._host.sources.store.stream(self.name.stream).committed,
            "readBufferCount": now.fresh,
            "liveBufferCount": now.newest,
            "retryBufferCount": now.retries,
            "totalInFlightMessages": now.in_flight,
            "outstandingMessagesCount": now.in_flight,
            "config": config_of(self.settings),
            "connections": [
                {
                    **consumer.receiver.describe(),
                    "availableSlots": consumer.free_slots,
                    "inFlightMessages": consumer.in_flight,
                }
                for consumer in self.machine.consumers
            ],
        }

    # --- what the machine asks for ---

    def request_page(self, first: int, count: int) -> None:
        # Other things get their turn between two pages.
        self._host.loop.call_soon(self._read_page, first, count)

    def write_checkpoint(self, number: int) -> None:
        self._write(self.name.checkpoint_stream, checkpoint_event(number), lambda is_stored: None)

    def park(self, message: Message, reason: str) -> None:
        self._park(message, parked_event(message, reason), PARK_ATTEMPTS)

    # --- how it is done ---

    def _read_page(self, first: int, count: int) -> None:
        if self._host.has_place_for(self):
            self.machine.page_read(self._reader.page(first, count))
            self._host.flush()

    def _park(self, message: Message, event: NewEvent, attempts: int) -> None:
        def done(is_stored: bool) -> None:
            if is_stored or attempts == 1:
                self.machine.parked(message)
            else:
                self._park(message, event, attempts - 1)

        self._write(self.name.parked_stream, event, done)

    def _write(self, stream: str, event: NewEvent, done: Callable[[bool], None]) -> None:
        def is_wanted() -> bool:
            return self._host.has_place_for(self)

        self._host.submit(OwnWrite(stream, event, is_wanted=is_wanted, done=done))

    def _parked_messages(self, stop_at: int | None) -> list[Message]:
        """Those before the number `stop_at`, or all."""
        stream = self.name.parked_stream
        reader = GroupReader(self._host.sources, stream, resolve=True, is_replay=True)
        messages: list[Message] = []
        number, is_end = 0, False
        while not is_end:
            page, number, is_end = reader.page(number, MAX_BATCH)
            messages += page
        return [m for m in messages if stop_at is None or m.number < stop_at]

    def _replayed(self, is_stored: bool) -> None:
        self._is_replaying = False
