"""Persistent subscriptions: the server hands out events, and keeps count of what was answered.

The server delivers an event at least once: until it is acknowledged it comes again, here or at
another consumer. At most `in_flight` events are at a consumer at a time, and that is also what
bounds the memory here: of more events than that the server has given up the oldest, which it
delivers again.

An answer belongs to one delivery. When a connection is lost the server takes back what was not
answered on it; so an answer that comes later is not sent, because it would meet another delivery of
the event, perhaps at another consumer. The event comes again, with its retry count.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from uuid import UUID

from fastpump._answers import MAX_IDS, Nak
from fastpump._consuming import Batch, Consuming
from fastpump._events import Event, delivery_of
from fastpump._group_consumer import GroupConsumer
from fastpump._subscribing import Confirmation
from fastpump.exceptions import UsageError
from fastpump.messages import NakAction, utf8_of

MAX_MESSAGE = 65_536
"""Bytes of a nak's message. The server writes it into the metadata of the parked event."""

Answered = Event | UUID


class PersistentSubscription(Consuming):
    """A consumer of a persistent subscription; `Client.connect_subscription` makes one.

    Take its events, or whole batches of them, in one loop, and answer each with `ack` or `nak`.
    Leaving `async with`, or `unsubscribe`, ends it: answers that wait are sent before, and the
    server takes back what was not answered. After a reconnect it goes on by itself.

    With `auto_ack` an event is acknowledged when the next one is asked for, unless it was answered
    before. If its turn ends otherwise, by an exception, a cancellation or `break`, it is not:
    answer it, or it comes again after the subscription's message timeout, or once this consumer
    has left.

    The loop ends when the server ends the subscription in good order: it was updated or deleted, or
    the node is shut down.

    Attributes:
        auto_ack: whether events are acknowledged as described.

    >>> async with await client.connect_subscription("billing", "account-7") as subscription:
    ...     async for event in subscription.events:
    ...         print(event.event_number, event.retry_count)
    ...         await subscription.ack(event)
    """

    def __init__(self, consumer: GroupConsumer, auto_ack: bool) -> None:
        super().__init__()
        self.auto_ack = auto_ack
        self._consumer = consumer
        self._turn: Sequence[Event] = ()  # what will be acknowledged automatically
        self._answered: set[UUID] = set()  # of those, by the consumer itself

    def __repr__(self) -> str:
        consumer = self._consumer
        state = "over" if consumer.is_over else "connected" if consumer.delivery else "connecting"
        return f"<PersistentSubscription {self.name}, {state}>"

    @property
    def name(self) -> str:
        """What the server calls it: "stream::subscription"."""
        return self._confirmation.subscription_id

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._consumer.group.stream

    @property
    def last_event_number(self) -> int:
        """Number of the stream's last event when the server confirmed; -1 for none."""
        return self._confirmation.last_event_number

    @property
    def initial_commit_position(self) -> int:
        """How far the server's log went when it confirmed."""
        return self._confirmation.last_commit_position

    @property
    def conversation_id(self) -> UUID | None:
        """Correlation id of the present connection to it; None while there is none."""
        delivery = self._consumer.delivery
        return UUID(bytes_le=delivery) if delivery else None

    @property
    def in_flight(self) -> int:
        """How many events may be here unanswered."""
        return self._consumer.group.in_flight

    @property
    def buffer_size(self) -> int:
        """photon-pump's name for `in_flight`."""
        return self.in_flight

    async def ack(self, events: Answered | Iterable[Answered]) -> None:
        """Tell the server that events are done. What is answered is sent soon, many in one frame.

        Args:
            events: an event as it was delivered, the id of one (of the link, where it was found
                through one), or up to 2000 of these. An id names the event and not its delivery:
                it answers whatever delivery of it there is.

        Raises:
            UsageError: what was given is no such event, or too many.
        """
        self._answer(events, None)

    async def nak(
        self,
        events: Answered | Iterable[Answered],
        action: NakAction = NakAction.Retry,
        message: str = "",
    ) -> None:
        """Tell the server that events were not done, and what is to become of them.

        Args:
            events: as for `ack`.
            action: what is to become of them.
            message: why, up to 65,536 bytes as UTF-8; kept with what is parked.

        Raises:
            UsageError: as for `ack`, or there is no such action, or the message cannot be sent.
        """
        self._answer(events, Nak(_action_of(action), _checked_message(message)))

    @property
    def _confirmation(self) -> Confirmation:
        confirmation = self._consumer.confirmation
        assert confirmation is not None
        return confirmation

    async def _give_events(self) -> AsyncGenerator[Event, None]:
        waiting = self._consumer.waiting
        while await self._consumer.arrival():
            event = waiting.popleft()
            self._begin_turn((event,))
            yield event
            self._finish_turn()

    async def _give_batches(self) -> AsyncGenerator[Batch, None]:
        waiting = self._consumer.waiting
        while await self._consumer.arrival():
            batch = list(waiting)
            waiting.clear()
            self._begin_turn(batch)
            yield batch
            self._finish_turn()

    def _begin_turn(self, events: Sequence[Event]) -> None:
        if self.auto_ack:
            self._turn = events

    def _finish_turn(self) -> None:
        turn, self._turn = self._turn, ()
        if self._answered:
            turn = [event for event in turn if _id_of(event) not in self._answered]
            self._answered.clear()
        if turn:
            self._consumer.answer(list(turn), None)

    def _on_entry(self) -> None:
        # The turn of what was given out before has ended in some other way.
        self._turn = ()
        self._answered.clear()

    def _answer(self, events: Answered | Iterable[Answered], nak: Nak | None) -> None:
        answered = _listed(events)
        if self._turn:
            self._answered.update(map(_id_of, answered))
        self._consumer.answer(answered, nak)

    def _end(self) -> None:
        self._consumer.close()


def _listed(events: Answered | Iterable[Answered]) -> list[Answered]:
    """The events or ids, each of which can be answered."""
    if isinstance(events, (Event, UUID)):
        listed = [events]
    elif isinstance(events, Iterable):
        listed = list(islice(events, MAX_IDS + 1))
    else:
        raise UsageError("events", f"must be events or their ids, not {events!r:.80}")
    if len(listed) > MAX_IDS:
        raise UsageError("events", f"more than {MAX_IDS} of them cannot be answered in one call")
    for item in listed:
        if isinstance(item, UUID):
            continue
        if not isinstance(item, Event):
            raise UsageError("events", f"must be events or their ids, not {item!r:.80}")
        if delivery_of(item) is None:
            raise UsageError(
                "events",
                f"{item!r} was not delivered by a persistent subscription; one that is a copy from "
                "elsewhere can be answered by its id",
            )
    return listed


def _id_of(item: Answered) -> UUID:
    return item if isinstance(item, UUID) else item.received_event.id


def _action_of(action: int) -> NakAction:
    try:
        return NakAction(action)
    except ValueError:
        raise UsageError("action", f"must be a NakAction, not {action!r:.80}") from None


def _checked_message(message: str) -> str:
    size = len(utf8_of("message", message))
    if size > MAX_MESSAGE:
        raise UsageError("message", f"takes {MAX_MESSAGE} bytes at most, these are {size}")
    return message
