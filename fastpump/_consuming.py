"""What all subscriptions have in common: one loop at a time over events or batches, and an end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from types import AsyncGeneratorType, TracebackType
from typing import Generic, TypeVar, cast

from fastpump._event_feed import EventFeed
from fastpump._events import Event
from fastpump.exceptions import UsageError

T = TypeVar("T")
ConsumingT = TypeVar("ConsumingT", bound="Consuming")

Batch = Sequence[Event]


class Loop(AsyncIterator[T], Generic[T]):
    """What `async for` runs over: the events of a subscription, or its batches.

    It can be left and entered again, also by a cancelled wait for the next item: it goes on behind
    the last one given out.

    Args:
        begin: makes the generator of what is given out.
        on_entry: called when a loop begins, or begins again.
        end: ends the subscription, and so whoever waits for the next item.
    """

    def __init__(
        self,
        begin: Callable[[], AsyncGenerator[T, None]],
        on_entry: Callable[[], None],
        end: Callable[[], None],
    ) -> None:
        self._begin = begin
        self._on_entry = on_entry
        self._end = end
        self._items: AsyncGeneratorType[T, None] | None = None

    def __aiter__(self) -> Loop[T]:
        self._on_entry()
        return self

    def __anext__(self) -> Awaitable[T]:
        items = self._items
        if items is None or items.ag_frame is None:  # not begun, or ended by a cancellation
            items = self._items = cast("AsyncGeneratorType[T, None]", self._begin())
        elif items.ag_running:
            raise UsageError(
                "subscription",
                "another loop waits for its next event; subscribe once more for a second loop",
            )
        return items.__anext__()

    async def aclose(self) -> None:
        """End it, as generators do; a loop that waits is woken, and sees to what it holds."""
        self._end()
        if self._items is not None and not self._items.ag_running:
            await self._items.aclose()


class Consuming(ABC):
    """The consumer's side of a subscription."""

    def __init__(self) -> None:
        self._events = self._loop_over_events()
        self._slices: Loop[Batch] = Loop(self._each_batch, self._on_entry, self._end)
        self._loop: Loop[Event] | EventFeed | Loop[Batch] | None = None

    async def __aenter__(self: ConsumingT) -> ConsumingT:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.unsubscribe()

    @property
    def events(self) -> AsyncIterator[Event]:
        """The events, one by one. Raises what `slices` does.

        Closing it, as `contextlib.aclosing` does, ends the subscription; leaving its loop does not.
        """
        return self._events

    def slices(self) -> AsyncIterator[Batch]:
        """The events in the batches they come in: pages of history, pushes.

        Raises (in the loop):
            AccessDenied, StreamDeleted, SubscriptionFailed, ClientClosed, …: it cannot go on.
            UsageError: there is another loop already.
        """
        return self._slices

    async def unsubscribe(self) -> None:
        """End it. The loop over its events ends too, and what is waiting is not given out.

        Does nothing the second time.
        """
        self._end()
        if self._loop is not None:
            await self._loop.aclose()

    def _loop_over_events(self) -> Loop[Event] | EventFeed:
        """What `events` gives; one by one from `_give_events`, where nothing faster will do."""
        return Loop(self._each, self._on_entry, self._end)

    def _each(self) -> AsyncGenerator[Event, None]:
        self._enter(self._events)
        return self._give_events()

    def _each_batch(self) -> AsyncGenerator[Batch, None]:
        self._enter(self._slices)
        return self._give_batches()

    def _enter(self, loop: Loop[Event] | EventFeed | Loop[Batch]) -> None:
        if self._loop not in (None, loop):
            raise UsageError(
                "subscription", "has a loop over events or slices; subscribe once more for another"
            )
        self._loop = loop

    def _on_entry(self) -> None:  # noqa: B027  # nothing to do for most
        """A loop begins, or begins again."""

    def _give_events(self) -> AsyncGenerator[Event, None]:
        """The events, until it is over."""
        raise NotImplementedError

    @abstractmethod
    def _give_batches(self) -> AsyncGenerator[Batch, None]:
        """The same in batches."""

    @abstractmethod
    def _end(self) -> None:
        """Tell the server, and let go of what is here. May be called again."""
