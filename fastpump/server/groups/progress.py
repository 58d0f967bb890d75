"""How far a group has come, and when that is worth a checkpoint (section 9.6)."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastpump.server.groups.settings import GroupSettings

MILLISECONDS = 1000

MOST_FINISHED = 1000
"""Numbers of events that are done and may still be in the heap."""


class Progress:
    """Knows which events were begun and are not done.

    An event is begun when it is delivered first, and done when it was acknowledged, skipped or
    parked; while it waits to be delivered again it is not.

    Attributes:
        written: the last checkpoint that was due since the group began, -1 before.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self._settings = settings
        self._open: set[int] = set()
        self._heap: list[int] = []
        self._last_begun = -1
        # As in the original, one that was loaded does not count as written (section 9.6).
        self.written = -1
        self._written_at = -math.inf

    def begin(self, number: int) -> None:
        self._open.add(number)
        heappush(self._heap, number)
        self._last_begun = max(self._last_begun, number)

    def finish(self, number: int) -> None:
        self._open.discard(number)
        if len(self._heap) > 2 * len(self._open) + MOST_FINISHED:
            # One event that nobody answers must not keep all the others here.
            self._heap = sorted(self._open)

    @property
    def done(self) -> int:
        """The last number of which everything up to it is done, -1 if there is none."""
        while self._heap and self._heap[0] not in self._open:
            heappop(self._heap)
        return self._heap[0] - 1 if self._heap else self._last_begun

    def checkpoint(self, now: float, *, is_tick: bool) -> int | None:
        """The checkpoint to be written now, if one is due.

        Args:
            now: any clock's time, in seconds.
            is_tick: whether it is the clock that asks. Only then a checkpoint is written that is
                not urgent.
        """
        done = self.done
        if done < 0 or done == self.written:
            return None
        difference = done - self.written
        is_urgent = difference >= self._settings.checkpoint_max
        is_early = (now - self._written_at) * MILLISECONDS < self._settings.checkpoint_after
        is_worthwhile = is_tick and difference >= self._settings.checkpoint_min
        if not is_urgent and (is_early or not is_worthwhile):
            return None
        self.written = done
        self._written_at = now
        return done
