"""May these events be written? The decision table of protocol document, section 5.4."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpump.server._streams import Stream

ANY = -2
NO_STREAM = -1
STREAM_EXISTS = -4


class Decision(Enum):
    WRITE = "write"
    IDEMPOTENT = "written before"
    WRONG_VERSION = "wrong expected version"
    DELETED = "stream deleted"
    UNDECIDED = "depends on events that are not committed yet"


class Verdict(NamedTuple):
    """`first` and `last` are the numbers of a write that was done before."""

    decision: Decision
    first: int = -1
    last: int = -1


class History(Protocol):
    """What the table asks about the past."""

    def find_id(self, event_id: bytes) -> tuple[int, int] | None:
        """(stream number, event number) of the first event anywhere that had this id."""

    def stored_ids(self, stream: Stream, first: int, count: int) -> list[bytes]:
        """The ids of the stream's events from number `first` on, at most `count`."""

    def has_metadata(self, stream: Stream) -> bool:
        """Whether the stream's metastream has an event."""

    def is_soft_deleted(self, stream: Stream) -> bool: ...


_WRITE = Verdict(Decision.WRITE)
_WRONG_VERSION = Verdict(Decision.WRONG_VERSION)
_DELETED = Verdict(Decision.DELETED)
_UNDECIDED = Verdict(Decision.UNDECIDED)


def check(stream: Stream, expected: int, ids: Sequence[bytes], history: History) -> Verdict:
    """Decide on a write of events with these ids.

    The numbers in the comments are the rows of the table. The stream's last number is taken with
    what is written but not committed yet.
    """
    if stream.deleted:  # 1
        return _DELETED
    if expected == STREAM_EXISTS:
        if history.is_soft_deleted(stream):  # 2
            return _DELETED
        if stream.last < 0 and not history.has_metadata(stream):  # 3
            return _WRONG_VERSION
        return _check_ids(stream, ids, history)
    if expected == ANY:
        return _check_ids(stream, ids, history)
    if expected == stream.last:  # 14
        return _WRITE
    if expected > stream.last:  # 13
        return _WRONG_VERSION
    return _check_past(stream, expected, ids, history)


def _check_ids(stream: Stream, ids: Sequence[bytes], history: History) -> Verdict:
    """Rows 4 to 7: any version will do, so it is the ids that tell a repetition."""
    if not ids or stream.last < 0:  # 4, 5
        return _WRITE
    numbers: list[int] = []
    for event_id in ids:
        found = history.find_id(event_id)
        if found is None or found[0] != stream.id:
            return _WRONG_VERSION if numbers else _WRITE  # 6, 5
        numbers.append(found[1])
    return Verdict(Decision.IDEMPOTENT, numbers[0], numbers[-1])  # 7


def _check_past(stream: Stream, expected: int, ids: Sequence[bytes], history: History) -> Verdict:
    """Rows 8 to 12: an older version is right only for a repetition of what was written there."""
    if not ids:  # 8
        return _WRONG_VERSION
    if stream.last != stream.committed:
        return _UNDECIDED
    stored = history.stored_ids(stream, expected + 1, len(ids))
    if stored == list(ids):  # 9
        return Verdict(Decision.IDEMPOTENT, expected + 1, expected + len(ids))
    if (not stored or stored[0] != ids[0]) and expected == NO_STREAM:
        return _WRITE if history.is_soft_deleted(stream) else _WRONG_VERSION  # 10, 11
    return _WRONG_VERSION  # 11, 12
