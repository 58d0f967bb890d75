"""Events on their way: gathered by stream, sent in batches, within limits.

Events wait until a window of them has come together, because a batch holds one stream's events
only: the larger the window, the larger the batches. Then every stream sends its batches one after
another, all streams side by side.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from fastpump.cli._delivery import Delivery, Row, size_of

WINDOW_EVENTS = 49_152
WINDOW_BYTES = 24 << 20
"""How much comes together before it is sent."""
HELD_EVENTS = 65_536
HELD_BYTES = 32 << 20
"""How much is held at most: what comes together, and what was sent and is not answered."""
IN_FLIGHT_BYTES = 8 << 20
BATCH_BYTES = 2 << 20


class StreamWriter:
    """Writes rows given to `add`; the owner of everything that is not answered yet.

    An error that is about no particular row ends the writing: it is kept in `fatal`, and what was
    not sent is given up.
    """

    def __init__(self, delivery: Delivery, *, batch_size: int, in_flight: int) -> None:
        self._delivery = delivery
        self._batch_size = batch_size
        self._in_flight_limit = in_flight
        self._waiting: dict[str, list[Row]] = {}
        self._due: dict[str, list[Row]] = {}
        self._ready: deque[str] = deque()
        self._sending: dict[str, list[Row]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered = asyncio.Event()
        self._given_up_from: int | None = None
        self._waiting_events = self._waiting_bytes = 0
        self._sending_events = self._sending_bytes = 0
        self._held_events = self._held_bytes = 0
        self.fatal: Exception | None = None

    def add(self, stream: str, row: Row) -> None:
        """Take an event; call `pump` after some of them."""
        rows = self._waiting.get(stream)
        if rows is None:
            self._waiting[stream] = [row]
        else:
            rows.append(row)
        size = len(row[3])
        self._waiting_events += 1
        self._waiting_bytes += size
        self._held_events += 1
        self._held_bytes += size

    def pump(self) -> None:
        """Send what may be sent now."""
        if not self._ready and (
            self._waiting_events >= WINDOW_EVENTS or self._waiting_bytes >= WINDOW_BYTES
        ):
            self._release()
        while self._ready and self._may_send():
            self._start(self._ready.popleft())

    def flush(self) -> None:
        """Send everything taken so far as soon as the limits allow, without waiting for more."""
        self._release()
        self.pump()

    async def room(self) -> None:
        """Wait until more may be added."""
        while self._held_events >= HELD_EVENTS or self._held_bytes >= HELD_BYTES:
            await self._next_answer()

    async def drain(self) -> None:
        """Send everything and wait until all of it is answered."""
        while self._held_events:
            self.flush()
            await self._next_answer()

    def give_up(self, failed: Sequence[Row] = ()) -> None:
        """Forget what was not sent; what was sent is still waited for by `drain`.

        `failed` are rows that were sent and will not be answered.
        """
        places = [self.first_unanswered(among_sent=False), *(row[0] for row in failed[:1])]
        self._given_up_from = min((p for p in places if p is not None), default=None)
        for rows in (*self._waiting.values(), *self._due.values()):
            self._forget(len(rows), size_of(rows))
        self._waiting.clear()
        self._due.clear()
        self._ready.clear()
        self._waiting_events = self._waiting_bytes = 0
        self._answered.set()

    def first_unanswered(self, *, among_sent: bool = True) -> int | None:
        """The lowest place of a row that was added and is not answered; None if all are."""
        groups = [*self._waiting.values(), *self._due.values()]
        if among_sent:
            groups += self._sending.values()
        places = [rows[0][0] for rows in groups]
        if self._given_up_from is not None:
            places.append(self._given_up_from)
        return min(places, default=None)

    def _release(self) -> None:
        for stream, rows in self._waiting.items():
            if stream in self._due:
                self._due[stream] += rows
            else:
                self._due[stream] = rows
                if stream not in self._sending:
                    self._ready.append(stream)
        self._waiting.clear()
        self._waiting_events = self._waiting_bytes = 0

    def _may_send(self) -> bool:
        return (
            self._sending_events < self._in_flight_limit and self._sending_bytes < IN_FLIGHT_BYTES
        )

    def _start(self, stream: str) -> None:
        rows = self._due.pop(stream)
        batch = rows[: self._batch_size]
        while (size := size_of(batch)) > BATCH_BYTES and len(batch) > 1:
            batch = batch[: len(batch) // 2]
        if len(batch) < len(rows):
            self._due[stream] = rows[len(batch) :]
        self._sending[stream] = batch
        self._sending_events += len(batch)
        self._sending_bytes += size
        task = asyncio.create_task(self._send(stream, batch, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, stream: str, rows: list[Row], size: int) -> None:
        try:
            await self._delivery.deliver(stream, rows)
        except Exception as error:
            # Whatever it is, the one who drains has to hear of it and must not wait for more.
            self.fatal = self.fatal or error
            self.give_up(rows)
        del self._sending[stream]
        self._sending_events -= len(rows)
        self._sending_bytes -= size
        self._forget(len(rows), size)
        if stream in self._due:
            self._ready.append(stream)
        self.pump()
        self._answered.set()

    def _forget(self, count: int, size: int) -> None:
        self._held_events -= count
        self._held_bytes -= size

    async def _next_answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()
