"""fastpump for threads, scripts and notebooks: the same client, with calls that wait.

    with fastpump.sync.connect() as client:
        client.publish_event("account-7", "opened", {"owner": "Ada"})
        for event in client.iter("account-7"):
            print(event.event_number, event.type, event.json())

The clients work on one event loop in a thread of their own, which runs from the first `connect()`
to the last `close()`; whether the caller has a loop, as a notebook does, makes no difference.
Operations have the names, arguments, results and errors of `fastpump.Client`. Any number of threads
may use one client at once. What is iterated over crosses the threads by page, not by event.

A wait can be interrupted (Ctrl-C): what was waited for is cancelled, and the client stays usable. A
client does not survive a fork: connect in the child.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

import fastpump._operating
import fastpump.connection
import fastpump.persistent
import fastpump.publisher
import fastpump.subscriptions
import fastpump.transactions
from fastpump._background import BackgroundLoop, SharedLoop
from fastpump._blocking import (
    Blocking,
    blocking,
    described_by,
    flat,
    following,
    handing_over,
    making,
    opening,
    paging,
)
from fastpump._consuming import Batch
from fastpump._settings import ConnectionSettings
from fastpump._statistics import ClientStats
from fastpump.connection_events import ConnectionEvent
from fastpump.exceptions import UsageError
from fastpump.messages import Credential, Event, NewEventData, Token, WriteResult

__all__ = [
    "ActingClient",
    "Client",
    "PersistentSubscription",
    "Publisher",
    "Subscription",
    "Transaction",
    "connect",
    "connect_to",
]

P = ParamSpec("P")
T = TypeVar("T")

_Operating = fastpump._operating.Operating
_LOOP = SharedLoop()


class Transaction(Blocking[fastpump.transactions.Transaction]):
    """`fastpump.transactions.Transaction` with calls that wait; `Client.transaction` makes one."""

    def __enter__(self) -> Transaction:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running_loop().run(self._inner.__aexit__, kind, error, traceback)

    @property
    def id(self) -> int | None:
        """Its id; None before it was started."""
        return self._inner.id

    @property
    def result(self) -> WriteResult | None:
        """The WriteResult of the commit, None before."""
        return self._inner.result

    start = blocking(fastpump.transactions.Transaction.start)
    write = blocking(fastpump.transactions.Transaction.write)
    commit = blocking(fastpump.transactions.Transaction.commit)

    def rollback(self) -> None:
        """Forget what was written."""
        self._inner.rollback()


class Publisher(Blocking[fastpump.publisher.Publisher]):
    """`fastpump.publisher.Publisher` with calls that wait; `Client.publisher` makes one.

    Every call goes to the event loop's thread and back, which takes much longer than to take an
    event: `send_many` is the way to publish many. Callbacks are called in the loop's thread.
    """

    def __enter__(self) -> Publisher:
        self._running_loop().run(self._inner.__aenter__)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running_loop().run(self._inner.__aexit__, kind, error, traceback)

    @property
    def stats(self) -> fastpump.publisher.PublisherStats:
        """How many events are where."""
        return self._inner.stats

    send_many = blocking(fastpump.publisher.Publisher.send_many)
    flush = blocking(fastpump.publisher.Publisher.flush)
    release = handing_over(fastpump.publisher.Publisher.release)
    expect = handing_over(fastpump.publisher.Publisher.expect)
    discard = handing_over(fastpump.publisher.Publisher.discard)

    def send(self, stream: str, event: NewEventData) -> None:
        """Have an event published; returns as soon as there is room for another one.

        Raises:
            UsageError: stream or event cannot be sent; it was not taken.
            PublishFailed: more than half of what may be held are events that failed; these.
            ClientClosed, ConnectFailed: nothing can be sent any more.
        """
        self._running_loop().run(_sent, self._inner, stream, event)

    def send_tracked(self, stream: str, event: NewEventData) -> Future[int]:
        """Have an event published and be told of it.

        Returns:
            A future for threads, when there is room for another event. It ends with the event's
            number, or the reason why it was not written, which is raised at the end all the same.

        Raises:
            UsageError, PublishFailed, ClientClosed, ConnectFailed: as `send`.
        """
        return self._running_loop().run(_tracked, self._inner, stream, event)


async def _sent(publisher: fastpump.publisher.Publisher, stream: str, event: NewEventData) -> None:
    await publisher.send(stream, event)


async def _tracked(
    publisher: fastpump.publisher.Publisher, stream: str, event: NewEventData
) -> Future[int]:
    future = await publisher.send_tracked(stream, event)

    async def ended() -> int:
        return await future

    return asyncio.run_coroutine_threadsafe(ended(), asyncio.get_running_loop())


class Items(Iterator[T], Generic[T]):
    """What an asynchronous iterator gives, one by one.

    A wait for the next one that is interrupted (Ctrl-C) loses nothing: what arrived meanwhile is
    given out by the next call.
    """

    def __init__(self, items: AsyncIterator[T], loop: BackgroundLoop) -> None:
        self._items = items
        self._loop = loop
        self._arrived: deque[T | None] = deque()  # one at most; None is the end

    def __iter__(self) -> Items[T]:
        aiter(self._items)  # a loop over it begins
        return self

    def __next__(self) -> T:
        if not self._arrived:
            self._loop.run(self._fetch)
        item = self._arrived.popleft()
        if item is None:
            raise StopIteration
        return item

    async def _fetch(self) -> None:
        self._arrived.append(await following(self._items))

    def end(self) -> None:
        """Give out nothing of what is here already."""
        self._arrived.clear()


class Batches(Items[Batch]):
    """The batches of a subscription."""

    def __init__(self, subscription: fastpump.subscriptions.Subscription, loop: BackgroundLoop):
        super().__init__(subscription.slices(), loop)


class EventsOfBatches(Iterator[Event]):
    """The events of a subscription, out of its batches."""

    def __init__(self, subscription: fastpump.subscriptions.Subscription, loop: BackgroundLoop):
        self._subscription = subscription
        self._batches = Batches(subscription, loop)
        self._batch: Iterator[Event] = iter(())
        self._given: Event | None = None

    def __next__(self) -> Event:
        if self._given is not None:
            self._subscription.checkpoint = self._subscription.place_of(self._given)
            self._given = None
        while (event := next(self._batch, None)) is None:
            self._batch = iter(next(self._batches))
        self._given = event
        return event

    def end(self) -> None:
        """Give out nothing of what is here already."""
        self._batch = iter(())
        self._batches.end()


IteratorT = TypeVar("IteratorT", Batches, EventsOfBatches)


class Subscription(Blocking[fastpump.subscriptions.Subscription]):
    """`fastpump.subscriptions.Subscription` with loops that wait; `Client.subscribe_to` makes one.

    Leaving `with`, or `unsubscribe` (also from another thread), ends it. A loop that was left with
    `break` or interrupted can be entered again.
    """

    def __init__(self, inner: fastpump.subscriptions.Subscription, loop: BackgroundLoop) -> None:
        super().__init__(inner, loop)
        self._iterator: Batches | EventsOfBatches | None = None

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.unsubscribe()

    @property
    def name(self) -> str:
        """The stream's name, or "$all"."""
        return self._inner.name

    @property
    def stream(self) -> str:
        """photon-pump's name for `name`."""
        return self._inner.name

    @property
    def is_live(self) -> bool:
        """History was given out up to its end, and what is written now is pushed."""
        return self._inner.is_live

    @property
    def last_commit_position(self) -> int | None:
        """How far the log went when the server last confirmed the subscription; None before."""
        return self._inner.last_commit_position

    @property
    def last_event_number(self) -> int | None:
        """The number of the stream's last event then; -1 if it had none. None of the log."""
        return self._inner.last_event_number

    caught_up = blocking(fastpump.subscriptions.Subscription.caught_up)

    @property
    def checkpoint(self) -> Any:
        """Where the last event lies whose turn is over; as in the asynchronous subscription."""
        return self._inner.checkpoint

    @property
    def events(self) -> Iterator[Event]:
        """The events, one by one."""
        return self._iterate(EventsOfBatches)

    def slices(self) -> Iterator[Batch]:
        """The events in the batches they come in: pages while catching up, then pushes."""
        return self._iterate(Batches)

    def place_of(self, event: Event) -> Any:
        """Where an event of it lies: what `checkpoint` is when the event's turn is over."""
        return self._inner.place_of(event)

    def unsubscribe(self) -> None:
        """End it; the loop over its events ends too."""
        if self._iterator is not None:
            self._iterator.end()
        self._running_loop().run(self._inner.unsubscribe)

    def _iterate(self, kind: type[IteratorT]) -> IteratorT:
        if self._iterator is None:
            self._iterator = kind(self._inner, self._running_loop())
        elif not isinstance(self._iterator, kind):
            raise UsageError(
                "subscription", "has a loop over events or slices; subscribe once more for another"
            )
        return self._iterator


class PersistentSubscription(Blocking[fastpump.persistent.PersistentSubscription]):
    """`fastpump.persistent.PersistentSubscription` with calls and loops that wait.

    `Client.connect_subscription` makes one. Its events cross the threads one by one, so that each
    has its own turn; take `slices()` where there are many.
    """

    def __init__(
        self, inner: fastpump.persistent.PersistentSubscription, loop: BackgroundLoop
    ) -> None:
        super().__init__(inner, loop)
        self._events = Items(inner.events, loop)
        self._slices = Items(inner.slices(), loop)

    def __enter__(self) -> PersistentSubscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.unsubscribe()

    @property
    def name(self) -> str:
        """What the server calls it: "stream::subscription"."""
        return self._inner.name

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._inner.stream

    @property
    def last_event_number(self) -> int:
        """Number of the stream's last event when the server confirmed; -1 for none."""
        return self._inner.last_event_number

    @property
    def initial_commit_position(self) -> int:
        """How far the server's log went when it confirmed."""
        return self._inner.initial_commit_position

    @property
    def conversation_id(self) -> UUID | None:
        """Correlation id of the present connection to it; None while there is none."""
        return self._inner.conversation_id

    @property
    def in_flight(self) -> int:
        """How many events may be here unanswered."""
        return self._inner.in_flight

    @property
    def buffer_size(self) -> int:
        """photon-pump's name for `in_flight`."""
        return self._inner.in_flight

    @property
    def auto_ack(self) -> bool:
        """Whether an event is acknowledged when the next one is asked for."""
        return self._inner.auto_ack

    @property
    def events(self) -> Iterator[Event]:
        """The events, one by one."""
        return self._events

    def slices(self) -> Iterator[Batch]:
        """The events in the batches they come in."""
        return self._slices

    ack = blocking(fastpump.persistent.PersistentSubscription.ack)
    nak = blocking(fastpump.persistent.PersistentSubscription.nak)

    def unsubscribe(self) -> None:
        """End it; the loop over its events ends too. Answers that wait are sent before."""
        self._events.end()
        self._slices.end()
        self._running_loop().run(self._inner.unsubscribe)


class Operating(Blocking[_Operating]):
    """What can be asked of a server."""

    ping = blocking(_Operating.ping)
    publish_event = blocking(_Operating.publish_event)
    publish = blocking(_Operating.publish)
    publisher = making(_Operating.publisher, Publisher)
    publish_conditional = blocking(_Operating.publish_conditional)
    transaction = making(_Operating.transaction, Transaction)
    get_event = blocking(_Operating.get_event)
    get = blocking(_Operating.get)
    get_all = blocking(_Operating.get_all)
    iter = flat(_Operating.iter, _Operating.iter_slices)
    iter_slices = paging(_Operating.iter_slices)
    iter_all = flat(_Operating.iter_all, _Operating.iter_all_slices)
    iter_all_slices = paging(_Operating.iter_all_slices)
    subscribe_to = opening(_Operating.subscribe_to, Subscription)
    subscribe_to_all = opening(_Operating.subscribe_to_all, Subscription)
    create_subscription = blocking(_Operating.create_subscription)
    update_subscription = blocking(_Operating.update_subscription)
    delete_subscription = blocking(_Operating.delete_subscription)
    connect_subscription = opening(_Operating.connect_subscription, PersistentSubscription)
    delete_stream = blocking(_Operating.delete_stream)
    get_stream_metadata = blocking(_Operating.get_stream_metadata)
    set_stream_metadata = blocking(_Operating.set_stream_metadata)
    set_system_settings = blocking(_Operating.set_system_settings)


class ActingClient(Operating):
    """`fastpump.ActingClient` with calls that wait; `Client.acting_as` makes one."""


class Client(Operating):
    """`fastpump.Client` with calls that wait; `connect()` makes one.

    Use it as a context manager, or call `connect` and `close`.
    """

    _inner: fastpump.connection.Client

    def __init__(self, inner: fastpump.connection.Client) -> None:
        super().__init__(inner, None)
        self._is_closed = False

    @property
    def name(self) -> str:
        """What the server's statistics call the connection."""
        return self._inner.name

    @property
    def settings(self) -> ConnectionSettings:
        """The time limits, counts and the like that `connect` was given."""
        return self._inner.settings

    def connect(self) -> None:
        """Connect; returns once the node has identified the client.

        Raises:
            ConnectFailed: there was no connection within bounded time; says what was tried.
            NotAuthenticated: the node does not accept the credentials.
        """
        loop = _LOOP.hold()
        try:
            loop.run(self._inner.connect)
        except BaseException:
            _LOOP.release(loop)
            raise
        self._loop = loop

    def close(self) -> None:
        """Close the connection. Operations that still wait, in other threads, fail."""
        if self._loop is None or self._is_closed:
            return
        self._is_closed = True
        try:
            self._loop.run(self._inner.close)
        finally:
            _LOOP.release(self._loop)

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def listen(self, callback: Callable[[ConnectionEvent], object]) -> Callable[[], None]:
        """Be told of the connection, in the thread of its loop; as in the asynchronous client."""
        return self._inner.listen(callback)

    def stats(self) -> ClientStats:
        """The client in numbers; all are 0 before it is connected."""
        if self._loop is None or self._is_closed:
            return self._inner.stats()
        return self._loop.run(_stats_of, self._inner)

    def acting_as(self, credential: Credential | Token | tuple[str, str]) -> ActingClient:
        """The same operations with other credentials; as in the asynchronous client.

        >>> client.acting_as(("ops", "secret")).get("$stats-127.0.0.1:2113")
        """
        return ActingClient(self._inner.acting_as(credential), self._running_loop())


async def _stats_of(client: fastpump.connection.Client) -> ClientStats:
    return client.stats()


def making_a_client(
    make: Callable[P, fastpump.connection.Client],
) -> Callable[P, Client]:
    """A function that makes a client as one that makes a client whose calls wait."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Client:
        return Client(make(*args, **kwargs))

    return described_by(make, call)


connect = making_a_client(fastpump.connection.connect)
connect_to = making_a_client(fastpump.connection.connect_to)
