"""A consumer of a persistent subscription: connected, connected again; its events and answers.

connecting ──confirmed──▶ connected ──connection lost──▶ connecting again …
     └────── refused ────────┴── dropped, closed, client closed ──▶ over
"""

from __future__ import annotations

import logging
from collections import deque
from uuid import UUID

from fastpump._answers import MAX_IDS, Answers, Nak
from fastpump._bell import Bell
from fastpump._events import Event, Events, delivery_of
from fastpump._group_operations import ConnectToGroup, group_key
from fastpump._outlet import Outlet
from fastpump._subscribing import Confirmation, Wire, was_out_of_reach
from fastpump.exceptions import ConnectionLost, ProtocolError

LOG = logging.getLogger("fastpump.persistent")


class Group(Wire):
    """A persistent subscription as its consumer needs it.

    Args:
        outlet, timeout: as for `Wire`.
        stream, name: which one.
        in_flight: how many events may be unanswered at this consumer.
    """

    def __init__(
        self, outlet: Outlet, timeout: float, stream: str, name: str, in_flight: int
    ) -> None:
        super().__init__(outlet, timeout)
        self.stream = stream
        self.in_flight = in_flight
        self.key = group_key(stream, name)
        self._name = name

    def connect(
        self, consumer: GroupConsumer, correlation_id: bytes, comes_back: bool
    ) -> ConnectToGroup:
        frame = ConnectToGroup.encode(correlation_id, self.stream, self._name, self.in_flight)
        operation = ConnectToGroup(
            correlation_id, frame, consumer, self._timeout, self.key, comes_back
        )
        self._outlet.start(operation)
        return operation

    def new_id(self) -> bytes:
        return self._outlet.correlation_ids.next()

    def send(self, frame: bytes) -> None:
        self._outlet.send_now(frame)


class GroupConsumer:
    """One consumer, from `start` to its end.

    Attributes:
        group: what it consumes.
        confirmation: what the server last confirmed.
        delivery: the correlation id that events can be answered under now; b"" for none.
        waiting: events that were not taken yet. Beyond the limit the server pushes only what takes
            the place of events it has given up, the oldest ones: those go.
        is_over: there will be no more.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.confirmation: Confirmation | None = None
        self.delivery = b""
        self.waiting: deque[Event] = deque(maxlen=group.in_flight)
        self.is_over = False
        self._error: BaseException | None = None
        self._operation: ConnectToGroup | None = None
        self._answers = Answers(group.send, max(1, min(group.in_flight // 2, MAX_IDS)))
        self._bell = Bell()

    async def start(self, correlation_id: bytes) -> None:
        """Connect; returns once the server has confirmed.

        Raises:
            PersistentSubscriptionNotFound, MaximumSubscribersReached, AccessDenied, …: it does
                not.
        """
        self._operation = self.group.connect(self, correlation_id, False)
        try:
            while self.confirmation is None and not self.is_over:
                await self._bell.wait()
        except BaseException:
            self.close()
            raise
        if self.confirmation is None:
            self._raise_error()

    async def arrival(self) -> bool:
        """Wait until there is an event; False: there will be none any more.

        Raises:
            FastpumpError: what it ended with, the first time.
        """
        while not self.waiting:
            if self.is_over:
                self._raise_error()
                return False
            await self._bell.wait()
        return True

    def answer(self, items: list[Event | UUID], nak: Nak | None) -> None:
        """Answer events, with an ack if there is no nak; not those of a former connection."""
        current = [item for item in items if self._is_current(item)]
        if len(current) < len(items):
            late = len(items) - len(current)
            LOG.info("%s: %d answers to events of a former connection", self.group.key, late)
        if current:
            self._answers.add(current, nak, not self.waiting)

    def close(self) -> None:
        """Send the answers that wait, and leave. Does nothing the second time."""
        if not self.is_over:
            self.waiting.clear()
            self._give_up(None)

    # --- for the operation ---

    def on_confirmed(self, confirmation: Confirmation) -> None:
        assert self._operation is not None
        self.confirmation = confirmation
        self.delivery = self._operation.correlation_id
        self._answers.address_to(self.delivery, confirmation.subscription_id)
        self._bell.ring()

    def on_events(self, events: Events) -> None:
        excess = len(self.waiting) + len(events) - self.group.in_flight
        if excess > 0:
            LOG.info("%s: the server took back %d events that waited", self.group.key, excess)
        try:
            self.waiting.extend(events.kept() if self.waiting else events)
        except ProtocolError as error:
            # What it came in was right, so the connection is; those before it can be taken.
            self._give_up(error)
        self._bell.ring()

    def on_end(self, error: BaseException | None) -> None:
        if self.is_over:
            return
        if self._may_be_held_after(error):
            self._leave()
        else:
            self._answers.forget()
        self.waiting.clear()
        self.delivery = b""
        if self.confirmation is not None and was_out_of_reach(error):
            LOG.info("Connecting to %s again: %s", self.group.key, error)
            self._operation = self.group.connect(self, self.group.new_id(), True)
        else:
            self.is_over = True
            self._error = error
        self._bell.ring()

    def _may_be_held_after(self, error: BaseException | None) -> bool:
        """Whether the server may count us among its consumers still."""
        assert self._operation is not None
        is_gone = self._operation.was_dropped or isinstance(error, ConnectionLost)
        return self.delivery != b"" and not is_gone

    def _is_current(self, item: Event | UUID) -> bool:
        """Whether the server, as far as is known, waits for the answer."""
        if isinstance(item, UUID):
            return self.delivery != b""
        return delivery_of(item) == self.delivery

    def _give_up(self, error: BaseException | None) -> None:
        """Leave; what was delivered can be answered no more."""
        self._leave()
        self.delivery = b""
        self.is_over = True
        self._error = error
        self._bell.ring()

    def _leave(self) -> None:
        self._answers.flush()
        if self._operation is not None:
            self.group.unsubscribe(self._operation)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
