"""Writing every stream so that nothing is added twice.

Each batch is written at the version that follows from the batch before it, the first one with
`StreamMustNotExist`. A server compares such a batch with what it stored at that place: one that it
has already is acknowledged and not written again, also after the server was restarted and however
the batches are cut (protocol document, section 5.4, rules 8 to 12).

`Any` would not do. Under it a server looks at the first id alone before it writes the whole batch
(rule 5), and so adds known events again as soon as a new one stands in front of them: a line, for
instance, that was bad in the first run and is mended now. Where the versions do not follow,
because the stream holds other events too or holds them in another order, events are sent one by
one with `Any`, which is exact as long as the server remembers the ids (rules 5 to 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import fastpump
from fastpump.exceptions import BadRequest, FastpumpError, ServerError, WrongExpectedVersion
from fastpump.guard import Guard

REMEMBERED_STREAMS = 100_000
"""Streams whose tail is remembered; a forgotten one costs time, not correctness."""
FAMILIAR_AFTER = 500
"""This many new events in a row, and a stream that held other events is being continued."""

NO_STREAM = int(fastpump.ExpectedVersion.StreamMustNotExist)
ANY = int(fastpump.ExpectedVersion.Any)

NOT_AS_A_WHOLE = (WrongExpectedVersion, BadRequest)
"""Refusals of a batch whose events may be written otherwise, most of them at least."""

Events = Sequence[fastpump.NewEventData]
Outcomes = list["int | FastpumpError"]


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


class Delivery(Guard):
    """Remembers where each stream stands, and finds out what of a refused batch is there."""

    def __init__(self, client: fastpump.Client) -> None:
        super().__init__()
        self._client = client
        self._tails: dict[str, Tail] = {}

    def expected(self, stream: str) -> int | None:
        tail = self._tails.pop(stream, UNSEEN)
        if len(self._tails) >= REMEMBERED_STREAMS:
            del self._tails[next(iter(self._tails))]
        self._tails[stream] = tail
        return tail.version if tail.end is None else None

    def written(self, stream: str, last_event_number: int) -> None:
        self._tails[stream] = Tail(last_event_number)

    async def refused(self, stream: str, events: Events, error: ServerError | None) -> Outcomes:
        tail = self._tails[stream]
        if error is None:
            assert tail.end is not None
            outcomes, tail = await self._compare(stream, events, tail, tail.end)
        else:
            outcomes, tail = await self._mend(stream, events, tail, error)
        self._tails[stream] = tail
        return outcomes

    async def _mend(
        self, stream: str, events: Events, tail: Tail, error: ServerError
    ) -> tuple[Outcomes, Tail]:
        """The stream stands at `tail` and did not take the batch."""
        if isinstance(error, WrongExpectedVersion):
            return await self._reconcile(stream, events, tail, error.actual_version)
        if isinstance(error, BadRequest):
            return await self._one_by_one(stream, events, tail)
        raise error

    async def _publish(self, stream: str, events: Events, expected: int) -> Outcomes:
        """Write the events; their numbers."""
        result = await self._client.publish(stream, list(events), expected)
        end = result.last_event_number + 1
        return list(range(end - len(events), end))

    async def _reconcile(
        self, stream: str, events: Events, tail: Tail, actual: int | None
    ) -> tuple[Outcomes, Tail]:
        """The stream is not where the batch belongs: find out what of it is there already."""
        end = tail.version if actual is None else actual
        known = end - tail.version
        if 0 < known < len(events):
            there = await self._matching(stream, events[:known], tail.version)
            if there:
                # An earlier run of the same input was stopped here.
                outcomes, tail = await self._advance(stream, events[known:], Tail(end))
                return there + outcomes, tail
        return await self._one_by_one(stream, events, tail._replace(end=end))

    async def _advance(self, stream: str, events: Events, tail: Tail) -> tuple[Outcomes, Tail]:
        try:
            outcomes = await self._publish(stream, events, tail.version)
        except NOT_AS_A_WHOLE as error:
            return await self._mend(stream, events, tail, error)
        return outcomes, Tail(tail.version + len(events))

    async def _compare(
        self, stream: str, events: Events, tail: Tail, end: int
    ) -> tuple[Outcomes, Tail]:
        """Compare events with what the stream holds up to `end`, and ask for those behind it."""
        piece = events[: max(end - tail.version, 0)]
        there = await self._matching(stream, piece, tail.version) if piece else []
        if there:
            tail = Tail(tail.version + len(there), end)
        outcomes, tail = await self._one_by_one(stream, events[len(there) :], tail)
        return there + outcomes, tail

    async def _matching(self, stream: str, events: Events, version: int) -> Outcomes:
        """The numbers of these events if they stand behind `version`, where events do stand."""
        try:
            return await self._publish(stream, events, version)
        except NOT_AS_A_WHOLE:
            return []

    async def _one_by_one(self, stream: str, events: Events, tail: Tail) -> tuple[Outcomes, Tail]:
        """Write each event by itself, if it is not there."""
        outcomes: Outcomes = []
        for event in events:
            try:
                outcomes += await self._publish(stream, [event], ANY)
            except BadRequest as error:
                outcomes.append(error)
        return outcomes, tail_after(tail, [n for n in outcomes if isinstance(n, int)])


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
