"""What the arguments of the public calls may be. Each check names the argument it refuses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable
from operator import index
from typing import Any, TypeGuard

from fastpump.exceptions import UsageError
from fastpump.filters import Filter
from fastpump.messages import (
    MAX_READ_COUNT,
    Credential,
    ExpectedVersion,
    NewEventData,
    Position,
    PositionSentinel,
    StreamDirection,
    Token,
    utf8_of,
)

MAX_NUMBER = 2**63 - 1
"""Event numbers and log offsets are 64-bit."""

MAX_INT32 = 2**31 - 1
"""Counts of events are 32-bit, and so are times in milliseconds."""

MAX_PORT = 65535

FORWARD = StreamDirection.Forward
"""Found once, since finding a member in its class takes longer than checking an argument."""

DIRECTIONS = tuple(StreamDirection)

_HOST = re.compile(r"[\w.:%-]{1,255}")


def is_host(value: object) -> TypeGuard[str]:
    """Whether it can be a host name or an address: nothing that would be more in a URL or a log."""
    return isinstance(value, str) and _HOST.fullmatch(value) is not None


def check_host(argument: str, host: object) -> None:
    if not is_host(host):
        # What it is instead is not shown: there may be a password in an address.
        raise UsageError(argument, "must be a host name or an address, with nothing around it")


async def collect(events: Iterable[Any] | AsyncIterable[Any]) -> list[Any]:
    """All events of an iterable or asynchronous iterable."""
    if isinstance(events, list):
        return events
    if isinstance(events, NewEventData):
        raise UsageError("events", "must be an iterable of events, not one: write [event]")
    if isinstance(events, AsyncIterable):
        return [event async for event in events]
    if not isinstance(events, Iterable):
        raise UsageError("events", f"must be an iterable of events, not {events!r:.80}")
    return list(events)


def check_number(argument: str, value: int, lowest: int, highest: int = MAX_NUMBER) -> None:
    try:
        number = index(value)
    except TypeError:
        raise UsageError(argument, f"must be a whole number, not {value!r:.80}") from None
    if not lowest <= number <= highest:
        raise UsageError(argument, f"must be {lowest} to {highest}, not {number}")


def check_callback(argument: str, callback: object) -> None:
    """It can be called, or is None."""
    if callback is not None and not callable(callback):
        raise UsageError(argument, f"must be a function, not {callback!r:.80}")


def check_name(argument: str, name: str) -> None:
    if not utf8_of(argument, name):
        raise UsageError(argument, "must not be empty")


def check_expected_version(version: int) -> None:
    check_number("expected_version", version, ExpectedVersion.StreamMustExist)
    if version == -3:
        raise UsageError("expected_version", "-3 is not one of ExpectedVersion")


def credential_of(argument: str, value: Credential | Token | tuple[str, str]) -> Credential | Token:
    if isinstance(value, (Credential, Token)):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return Credential(*value)
    # Whatever it is, it may hold a password.
    raise UsageError(
        argument,
        f"must be a Credential, a Token or (username, password), not {type(value).__name__}",
    )


def check_count(argument: str, count: int) -> None:
    check_number(argument, count, 1, MAX_READ_COUNT)


def search_window(wanted: Filter | None, window: int | None, count: int) -> int:
    """How many events a server may look at for a page of `count` that fit a filter.

    Without a filter that is `count`, and no window may be asked for.
    """
    if wanted is None:
        check_without_filter("max_search_window", window)
    elif not isinstance(wanted, Filter):
        raise UsageError("filter", f"must be a Filter, not {wanted!r:.80}")
    if window is None:
        return count
    check_number("max_search_window", window, count, MAX_INT32)
    return window


def check_without_filter(argument: str, value: Any) -> None:
    if value is not None:
        raise UsageError(argument, "means nothing without a filter")


def check_direction(direction: StreamDirection) -> None:
    if direction not in DIRECTIONS:
        raise UsageError("direction", f"must be a StreamDirection, not {direction!r:.80}")


def first_event_number(direction: StreamDirection, from_event: int | None) -> int:
    """Where a read of a stream starts if `from_event` was asked for."""
    check_direction(direction)
    lowest = 0 if direction == FORWARD else -1
    if from_event is None:
        return lowest
    check_number("from_event", from_event, lowest)
    return from_event


def first_position(
    direction: StreamDirection, from_position: Position | PositionSentinel | None
) -> Position:
    """Where a read of the log of all events starts if `from_position` was asked for."""
    check_direction(direction)
    try:
        position = Position(*Position.for_direction(direction, from_position))
    except TypeError:
        raise UsageError(
            "from_position", f"must be Beginning, End or a Position, not {from_position!r:.80}"
        ) from None
    for offset in position:
        check_number("from_position", offset, -1)
    if position.commit < position.prepare:
        raise UsageError("from_position", f"must not have commit below prepare: {position}")
    return position
