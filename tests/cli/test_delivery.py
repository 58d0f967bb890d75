"""Nothing is lost and nothing is added twice, whatever was written before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpump
from fastpump.cli._delivery import FAMILIAR_AFTER, NO_STREAM, Delivery, Tail, tail_after
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    FastpumpError,
    ServerError,
    WrongExpectedVersion,
)

STREAM = "s"
ANY = fastpump.ExpectedVersion.Any


class Result:
    def __init__(self, last: int) -> None:
        self.last_event_number = last


class StandIn:
    """A stream kept by the rules of the protocol document, section 5.4, and nothing more."""

    def __init__(self, stored: Iterable[UUID] = (), refused: Iterable[UUID] = ()) -> None:
        self.stored = list(stored)
        self.refused = set(refused)
        self.requests: list[tuple[int, int]] = []

    async def publish(
        self, stream: str, events: list[fastpump.NewEventData], expected_version: int
    ) -> Result:
        await asyncio.sleep(0)
        ids = [event.id for event in events]
        assert all(isinstance(id_, UUID) for id_ in ids)
        self.requests.append((expected_version, len(ids)))
        if self.refused.intersection(ids):
            raise BadRequest(None, "is too large")
        if expected_version == ANY:
            return self._any(ids)
        return self._at(expected_version, ids)

    def _any(self, ids: list[Any]) -> Result:
        if ids[0] not in self.stored:
            self.stored += ids
            return Result(len(self.stored) - 1)
        if not set(ids) <= set(self.stored):
            raise WrongExpectedVersion(None, STREAM, ANY, len(self.stored) - 1)
        return Result(self.stored.index(ids[-1]))

    def _at(self, version: int, ids: list[Any]) -> Result:
        end = len(self.stored) - 1
        if version == end:
            self.stored += ids
        elif version > end or self.stored[version + 1 : version + 1 + len(ids)] != ids:
            raise WrongExpectedVersion(None, STREAM, version, end)
        return Result(version + len(ids))


def ids(*numbers: int) -> list[UUID]:
    return [UUID(int=number + 1) for number in numbers]


async def write(
    server: StandIn, delivery: Delivery, events: list[fastpump.NewEventData]
) -> Sequence[int | FastpumpError]:
    """Write one batch, and ask what the publisher asks; the outcome of each event."""
    error: ServerError | None = None
    version = delivery.expected(STREAM)
    if version is not None:
        try:
            result = await server.publish(STREAM, events, version)
        except ServerError as caught:
            error = caught
        else:
            last = result.last_event_number
            delivery.written(STREAM, last)
            return range(last + 1 - len(events), last + 1)
    try:
        return await delivery.refused(STREAM, events, error)
    except ServerError as reason:
        return [reason] * len(events)


def deliver(server: StandIn, *batches: list[UUID]) -> list[UUID]:
    """Deliver batches one after another; the events that failed."""
    failed: list[UUID] = []

    async def main() -> None:
        client: Any = server
        delivery = Delivery(client)
        for batch in batches:
            events = [fastpump.NewEvent("t", id_, fastpump.Json(b"{}")) for id_ in batch]
            for id_, outcome in zip(batch, await write(server, delivery, events), strict=True):
                if isinstance(outcome, FastpumpError):
                    failed.append(id_)
                else:
                    assert server.stored[outcome] == id_

    asyncio.run(main())
    return failed


def cut(whole: list[UUID], sizes: list[int]) -> list[list[UUID]]:
    """The list in pieces of these sizes, over and over."""
    pieces = []
    turn = 0
    while whole:
        size = sizes[turn % len(sizes)]
        pieces.append(whole[:size])
        whole = whole[size:]
        turn += 1
    return pieces


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 40),
    SIZES,
    SIZES,
    SIZES,
    st.sets(st.integers(0, 39)),
    st.sets(st.integers(0, 39)),
    st.integers(0, 40),
)
def test_any_history_ends_with_each_event_once(
    count: int,
    first: list[int],
    second: list[int],
    third: list[int],
    bad_first: set[int],
    bad_second: set[int],
    stopped_at: int,
) -> None:
    """Runs that left lines out or were stopped, and then one that is given all of them."""
    server = StandIn()
    everything = ids(*range(count))
    deliver(server, *cut(ids(*(n for n in range(count) if n not in bad_first)), first))
    partly = [n for n in range(count) if n not in bad_second][:stopped_at]
    deliver(server, *cut(ids(*partly), second))
    deliver(server, *cut(everything, third))
    assert sorted(server.stored) == everything


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 20), SIZES, SIZES)
def test_a_stream_that_holds_other_events(
    others: int, count: int, first: list[int], second: list[int]
) -> None:
    foreign = ids(*range(1000, 1000 + others))
    server = StandIn(foreign)
    everything = ids(*range(count))
    deliver(server, *cut(everything, first))
    deliver(server, *cut(everything, second))
    assert server.stored == foreign + everything


def test_a_new_stream_takes_one_request_per_batch() -> None:
    server = StandIn()
    deliver(server, ids(0, 1, 2), ids(3, 4))
    assert server.requests == [(NO_STREAM, 3), (2, 2)]


def test_the_second_run_adds_nothing_and_asks_as_little() -> None:
    server = StandIn(ids(*range(5)))
    deliver(server, ids(0, 1), ids(2, 3, 4))
    assert server.stored == ids(*range(5))
    assert server.requests == [(NO_STREAM, 2), (1, 3)]


def test_going_on_where_a_run_was_stopped_takes_three_requests() -> None:
    server = StandIn(ids(*range(5)))
    deliver(server, ids(*range(8)))
    assert server.stored == ids(*range(8))
    assert server.requests == [(NO_STREAM, 8), (NO_STREAM, 5), (4, 3)]


def test_a_mended_line_is_added_alone() -> None:
    server = StandIn(ids(1, 2, 3))
    deliver(server, ids(0, 1), ids(2, 3))
    assert server.stored == ids(1, 2, 3, 0)


def test_a_long_continuation_goes_back_to_batches() -> None:
    server = StandIn(ids(9999))
    batches = cut(ids(*range(2 * FAMILIAR_AFTER)), [100])
    deliver(server, *batches)
    assert server.stored == ids(9999, *range(2 * FAMILIAR_AFTER))
    assert len(server.requests) < 1.2 * FAMILIAR_AFTER
    assert server.requests[-1] == (2 * FAMILIAR_AFTER - 100, 100)


def test_a_refused_event_is_the_only_one_left_out() -> None:
    server = StandIn(refused=ids(2))
    assert deliver(server, ids(0, 1, 2, 3), ids(4, 5)) == ids(2)
    assert server.stored == ids(0, 1, 3, 4, 5)


def test_a_refused_stream_refuses_all_events_at_once() -> None:
    class Closed(StandIn):
        async def publish(self, *arguments: Any, **options: Any) -> Result:
            self.requests.append((0, 0))
            raise AccessDenied(None, "WriteEvents", STREAM)

    server = Closed()
    assert len(deliver(server, ids(0, 1, 2))) == 3
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("tail", "numbers", "after"),
    [
        (Tail(4), [5, 6], Tail(6)),
        (Tail(4), [7, 8], Tail(4, 8)),
        (Tail(4), [], Tail(4)),
        (Tail(4, 8), [], Tail(4, 8)),
        (Tail(4, 8), [9, 10], Tail(4, 10, 2)),
        (Tail(4, 8, FAMILIAR_AFTER - 2), [9, 10], Tail(10)),
        (Tail(4, 8, 3), [9, 5], Tail(5, 9)),
        (Tail(4, 8, 3), [5, 9], Tail(5, 9)),
        (Tail(4, 8), [8], Tail(8, 8)),
    ],
)
def test_tail_after(tail: Tail, numbers: list[int], after: Tail) -> None:
    assert tail_after(tail, numbers) == after
