"""Pages that are asked for before they are needed, while the consumer works on earlier ones.

A reader keeps a window of pages: those asked for and those received but not taken yet, bounded in
number and in bytes. Two ways to know where the next page starts:

* In a stream the numbers are predictable, so several pages are asked for at once. The first page
  tells the last event number, and nothing behind it is asked for ahead of time. Where a page ends
  elsewhere than predicted ($maxCount, $tb, $maxAge), the predicted ones are dropped.
* In $all only the page itself tells; the next one is asked for the moment it arrives, not when the
  consumer comes for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeVar
from weakref import ref

from fastpump._bell import Bell
from fastpump._events import AllStreamSlice, StreamSlice
from fastpump._position import End, Position
from fastpump.exceptions import ProtocolError

PageT = TypeVar("PageT", StreamSlice, AllStreamSlice)

WINDOW_PAGES = 4
WINDOW_BYTES = 8 * 1024 * 1024

Ask = Callable[[Any, "Slot"], None]
"""Sends the request for the page at a start; the page or an error goes to the slot."""


class Course(Protocol):
    """Where the pages of one read lie."""

    gives_empty_pages: bool
    """Whether a page without events tells the consumer something."""

    def first(self) -> Any:
        """Where the first page starts."""

    def predict(self, start: Any) -> Any | None:
        """Where the page after the one at `start` will start; None: only that page can tell."""

    def after(self, page: Any) -> Any | None:
        """Where the page after `page` starts; None: there is none."""

    def advances(self, start: Any, following: Any) -> bool:
        """Whether a page that starts at `following` can come after the one at `start`.

        A server that says otherwise would have us read for ever.
        """


class Slot:
    """A page that was asked for; the operation's waiter."""

    __slots__ = ("dropped", "error", "page", "reader", "start")

    def __init__(self, reader: ReadAhead[Any], start: Any) -> None:
        self.reader = ref(reader)  # when nobody holds the reader any more, it wants no page
        self.start = start
        self.page: Any = None
        self.error: BaseException | None = None
        self.dropped = False

    def done(self) -> bool:
        return self.dropped or self.page is not None or self.error is not None

    def set_result(self, page: Any) -> None:
        self.page = page
        if reader := self.reader():
            reader.on_page(self)

    def set_exception(self, error: BaseException) -> None:
        self.error = error
        if reader := self.reader():
            reader.on_error()


class ReadAhead(AsyncIterator[PageT]):
    """The pages of one read up to the end, in order, each as soon as it is there.

    A wait for the next page that is cancelled loses nothing. Whoever leaves it need not close it;
    pages that are under way are let go.

    Args:
        course: where the pages lie, and whether empty ones are given out.
        ask: sends a request.
        is_held_back: whether the connection is full, so that only what is needed is asked for.
    """

    def __init__(self, course: Course, ask: Ask, is_held_back: Callable[[], bool]) -> None:
        self._course = course
        self._ask = ask
        self._is_held_back = is_held_back
        self._has_begun = False
        self._slots: deque[Slot] = deque()
        self._under_way = 0  # of these slots
        self._buffered = 0  # bytes in the others
        self._page_size = 0  # of the last page; the next ones are taken to be as large
        self._bell = Bell()

    async def __anext__(self) -> PageT:
        """The next page.

        Raises:
            FastpumpError: what a page's request ended with, after the pages before it.
        """
        if self._bell.is_awaited:
            raise RuntimeError("another loop waits for the next page of this iterator")
        try:
            if not self._has_begun:
                self._has_begun = True
                self._request(self._course.first())
            while self._slots:
                page = self._take()
                if page is None:
                    await self._bell.wait()
                elif len(page) or self._course.gives_empty_pages:
                    return page
        except Exception:
            self._drop_slots()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it, as generators do."""
        self.stop()

    def stop(self) -> None:
        """End the pages, also for who waits for one; what is under way is let go."""
        self._has_begun = True
        self._drop_slots()
        self._bell.ring()

    def __del__(self) -> None:
        self._drop_slots()

    def _take(self) -> PageT | None:
        """The next page, if it is there."""
        slot = self._slots[0]
        if not slot.done():
            return None
        self._slots.popleft()
        if slot.error is not None:
            raise slot.error
        page: PageT = slot.page
        self._buffered -= page.nbytes
        self._keep_course(slot.start, page)
        return page

    def on_page(self, slot: Slot) -> None:
        self._under_way -= 1
        self._page_size = slot.page.nbytes
        self._buffered += self._page_size
        if slot is self._slots[-1]:
            self._look_ahead()
        self._bell.ring()

    def on_error(self) -> None:
        self._under_way -= 1
        self._bell.ring()

    def _keep_course(self, start: Any, page: PageT) -> None:
        """Drop what was asked for at a wrong place, and see that the window is full."""
        following = self._course.after(page)
        if following is not None and not self._course.advances(start, following):
            raise ProtocolError(f"the server's page from {start} does not lead on: {following}")
        if self._slots and self._slots[0].start != following:
            self._drop_slots()
        if not self._slots and following is not None:
            self._request(following)
        self._look_ahead()

    def _look_ahead(self) -> None:
        while self._slots and self._has_room() and not self._is_held_back():
            newest = self._slots[-1]
            if newest.page is not None:
                following = self._course.after(newest.page)
            else:
                following = self._course.predict(newest.start)
            if following is None or newest.error is not None:
                return
            if not self._course.advances(newest.start, following):
                return  # an error once the consumer has come so far
            self._request(following)

    def _has_room(self) -> bool:
        expected = self._buffered + self._under_way * self._page_size
        return len(self._slots) < WINDOW_PAGES and expected < WINDOW_BYTES

    def _request(self, start: Any) -> None:
        slot = Slot(self, start)
        self._slots.append(slot)
        self._under_way += 1
        self._ask(start, slot)

    def _drop_slots(self) -> None:
        for slot in self._slots:
            slot.dropped = True
        self._slots.clear()
        self._under_way = self._buffered = 0


class StreamForward:
    """Up a stream, `count` numbers at a time."""

    gives_empty_pages = False

    def __init__(self, start: int, count: int) -> None:
        self._start = start
        self._count = count
        self._last_known = -1

    def first(self) -> int:
        return self._start

    def predict(self, start: int) -> int | None:
        following = start + self._count
        return following if following <= self._last_known else None

    def after(self, page: StreamSlice) -> int | None:
        self._last_known = page.last_event_number
        return None if page.is_end_of_stream else page.next_event_number

    def advances(self, start: int, following: int) -> bool:
        return following > start


class StreamBackward:
    """Down a stream from a number, or from its end (-1)."""

    gives_empty_pages = False

    def __init__(self, start: int, count: int) -> None:
        self._start = start
        self._count = count

    def first(self) -> int:
        return self._start

    def predict(self, start: int) -> int | None:
        following = start - self._count
        return following if start >= 0 and following >= 0 else None

    def after(self, page: StreamSlice) -> int | None:
        return None if page.is_end_of_stream else page.next_event_number

    def advances(self, start: int, following: int) -> bool:
        return following >= 0 and (start < 0 or following < start)


class AllPages:
    """Along the log of all events, in either direction: each page tells where the next starts."""

    gives_empty_pages = False

    def __init__(self, start: Position, forward: bool) -> None:
        self._start = start
        self._forward = forward

    def first(self) -> Position:
        return self._start

    def predict(self, start: Position) -> None:
        return None

    def after(self, page: AllStreamSlice) -> Position | None:
        return None if page.is_end_of_stream else page.next_position

    def advances(self, start: Position, following: Position) -> bool:
        if start == End.position:
            return following != start
        return following > start if self._forward else following < start


class FilteredPages(AllPages):
    """Along the log, with a filter: an empty page tells how far nothing was found."""

    gives_empty_pages = True
