"""What a group tells of itself, in the original's words (section 9.8)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from fastpump.server.groups.settings import ROUND_ROBIN

if TYPE_CHECKING:
    from fastpump.server.groups.settings import GroupSettings

_CONFIG_NAMES = {
    "resolve_links": "resolveLinktos",
    "start_from": "startFrom",
    "message_timeout": "messageTimeoutMilliseconds",
    "extra_statistics": "extraStatistics",
    "max_retry_count": "maxRetryCount",
    "live_buffer_size": "liveBufferSize",
    "buffer_size": "bufferSize",
    "read_batch_size": "readBatchSize",
    "checkpoint_after": "checkPointAfterMilliseconds",
    "checkpoint_min": "minCheckPointCount",
    "checkpoint_max": "maxCheckPointCount",
    "max_subscribers": "maxSubscriberCount",
    "strategy": "namedConsumerStrategy",
}


class Statistics(NamedTuple):
    """What is where in a group.

    Attributes:
        checkpoint: the last one written since the group began, -1 before.
    """

    is_live: bool
    is_reading: bool
    fresh: int
    newest: int
    retries: int
    in_flight: int
    checkpoint: int

    def status(self, *, is_replaying: bool) -> str:
        """The group's state."""
        words = {
            "Behind": not self.is_live,
            "OutstandingPageRequest": self.is_reading,
            "ReplayingParkedMessages": is_replaying,
            "Live": self.is_live,
        }
        return ",".join(word for word, holds in words.items() if holds)


class Meter:
    """Counts events."""

    def __init__(self) -> None:
        # Not the loop's clock: uvloop's stands still during a turn and knows only milliseconds.
        self._started = time.perf_counter()
        self._total = 0
        self._told = 0

    def count(self) -> None:
        self._total += 1

    def read(self) -> dict[str, Any]:
        """How many there were: in all, per second, and since this was asked last."""
        seconds = time.perf_counter() - self._started
        since, self._told = self._total - self._told, self._total
        return {
            "averageItemsPerSecond": round(self._total / seconds, 2),
            "totalItemsProcessed": self._total,
            "countSinceLastMeasurement": since,
        }


def config_of(settings: GroupSettings) -> dict[str, Any]:
    config = {key: getattr(settings, name) for name, key in _CONFIG_NAMES.items()}
    return {**config, "preferRoundRobin": settings.strategy == ROUND_ROBIN}
