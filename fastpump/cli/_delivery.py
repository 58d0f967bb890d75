"""Writing one stream's batches so that nothing is added twice.

Each batch is sent with the expected version that follows from the batch before it, the first one
with `StreamMustNotExist`. A server compares such a batch with what it stored at that place: one
that it has already is acknowledged and not written again, also after the server was restarted and
however the batches are cut (protocol document, section 5.4, rules 8 to 12).

`Any` would not do. Under it a server looks at the first id alone before it writes the whole batch
(rule 5), and so adds known events again as soon as a new one stands in front of them: a line, for
instance, that was bad in the first run and is mended now. Where the versions do not follow,
because the stream holds other events too or holds them in another order, events are sent one by
one with `Any`, which is exact as long as the server remembers the ids (rules 5 to 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import fastpump
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    StreamDeleted,
    UsageError,
    WrongExpectedVersion,
)

REMEMBERED_STREAMS = 100_000
"""Streams whose tail is remembered; a forgotten one costs time, not correctness."""
FAMILIAR_AFTER = 500
"""This many new events in a row, and a stream that held other events is being continued."""

NO_STREAM = int(fastpump.ExpectedVersion.StreamMustNotExist)
ANY = int(fastpump.ExpectedVersion.Any)

ABOUT_THE_STREAM = (AccessDenied, StreamDeleted)
ABOUT_AN_EVENT = (UsageError, BadRequest)


Row = tuple[int, str, int, bytes]
"""An event to write: its place, type, id (a UUID's number) and JSON data.

The place is its giver's way to recognise it and grows along the input. This is a bare tuple of
simple things because tens of thousands of them wait at a time, and the garbage collector has to
look at anything else again and again.
"""


def size_of(rows: Sequence[Row]) -> int:
    """Bytes of data in these rows."""
    return sum([len(row[3]) for row in rows])


def events_of(rows: Sequence[Row]) -> list[fastpump.NewEventData]:
    """The events that rows stand for."""
    new, json = fastpump.NewEventData, fastpump.Json
    return [new(UUID(int=number), type_, json(body), None) for _, type_, number, body in rows]


class Tail(NamedTuple):
    """What is known of a stream: the event number that the next batch follows on.

    With `end` None everything in the stream up to `version` stands before the next batch in the
    input, too, so that what comes after it may be written. Otherwise the stream holds events in
    another order, and known ones may still come: up to `end` batches are compared with what is
    there, and behind it every event is asked for. `unfamiliar` counts the new ones in a row.
    """

    version: int
    end: int | None = None
    unfamiliar: int = 0


UNSEEN = Tail(NO_STREAM)


class Delivery:
    """Writes batches, one at a time per stream, and remembers where each stream stands.

    `on_failure(place, reason)` is called for every row that the server, or the client before
    sending, refuses. Errors that are about no particular row are raised.
    """

    def __init__(self, client: fastpump.Client, on_failure: Callable[[int, str], None]) -> None:
        self._client = client
        self._on_failure = on_failure
        self._tails: dict[str, Tail] = {}
        self.acknowledged = 0
        self.acknowledged_bytes = 0

    async def deliver(self, stream: str, rows: Sequence[Row]) -> None:
        """Have the rows written, or found to be there already, or reported as refused."""
        tail = self._tails.pop(stream, UNSEEN)
        try:
            tail = await self._advance(stream, rows, tail)
        except ABOUT_THE_STREAM as error:
            for place, *_ in rows:
                self._on_failure(place, str(error))
        if len(self._tails) >= REMEMBERED_STREAMS:
            del self._tails[next(iter(self._tails))]
        self._tails[stream] = tail

    async def _advance(self, stream: str, rows: Sequence[Row], tail: Tail) -> Tail:
        """Deliver rows to a stream that stands at `tail`; where it stands then."""
        if tail.end is not None:
            return await self._compare(stream, rows, tail, tail.end)
        try:
            return Tail(await self._publish(stream, rows, tail.version))
        except WrongExpectedVersion as error:
            return await self._reconcile(stream, rows, tail, error.actual_version)
        except ABOUT_AN_EVENT:
            return tail_after(tail, await self._one_by_one(stream, rows))

    async def _publish(self, stream: str, rows: Sequence[Row], expected: int) -> int:
        """Write the rows; the event number of the last of them."""
        result = await self._client.publish(stream, events_of(rows), expected)
        self.acknowledged += len(rows)
        self.acknowledged_bytes += size_of(rows)
        return result.last_event_number

    async def _reconcile(
        self, stream: str, rows: Sequence[Row], tail: Tail, actual: int | None
    ) -> Tail:
        """The stream is not where the batch belongs: find out what of it is there already."""
        end = tail.version if actual is None else actual
        known = end - tail.version
        if 0 < known < len(rows) and await self._matches(stream, rows[:known], tail.version):
            # An earlier run of the same input was stopped here.
            return await self._advance(stream, rows[known:], Tail(end))
        return tail_after(tail._replace(end=end), await self._one_by_one(stream, rows))

    async def _compare(self, stream: str, rows: Sequence[Row], tail: Tail, end: int) -> Tail:
        """Compare rows with what the stream holds up to `end`, and ask for those behind it."""
        piece = rows[: max(end - tail.version, 0)]
        if piece and await self._matches(stream, piece, tail.version):
            rows = rows[len(piece) :]
            tail = Tail(tail.version + len(piece), end)
        return tail_after(tail, await self._one_by_one(stream, rows))

    async def _matches(self, stream: str, rows: Sequence[Row], version: int) -> bool:
        """Whether these rows are what stands behind `version`, where other events do stand."""
        try:
            await self._publish(stream, rows, version)
        except (WrongExpectedVersion, *ABOUT_AN_EVENT):
            return False
        return True

    async def _one_by_one(self, stream: str, rows: Sequence[Row]) -> list[int]:
        """Write each row by itself, if it is not there; the event numbers they have."""
        numbers = []
        for row in rows:
            try:
                numbers.append(await self._publish(stream, [row], ANY))
            except ABOUT_AN_EVENT as error:
                self._on_failure(row[0], str(error))
        return numbers


def tail_after(tail: Tail, numbers: Sequence[int]) -> Tail:
    """Where the next batch belongs, given the numbers that single writes were answered with."""
    start = tail.version + 1
    if not numbers:
        return tail
    if tail.end is None:
        if list(numbers) == list(range(start, start + len(numbers))):
            return Tail(numbers[-1])
        return Tail(tail.version, max(numbers))
    known = [number for number in numbers if number <= tail.end]
    end = max(tail.end, *numbers)
    if known:
        return Tail(known[-1], end)
    unfamiliar = tail.unfamiliar + len(numbers)
    if unfamiliar >= FAMILIAR_AFTER:
        return Tail(numbers[-1])
    return Tail(tail.version, end, unfamiliar)
