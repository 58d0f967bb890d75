"""The settings of a group, as requests carry them and as they are stored (section 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUND_ROBIN = "RoundRobin"
DISPATCH_TO_SINGLE = "DispatchToSingle"
PINNED = "Pinned"
STRATEGIES = frozenset((ROUND_ROBIN, DISPATCH_TO_SINGLE, PINNED))
"""Those of server 4.1.4; PinnedByCorrelation came with version 20."""

DEFAULT_BATCH = 20
MAX_BATCH = 500

_STORED_NAMES = {
    "resolve_links": "resolveLinkTos",
    "extra_statistics": "extraStatistics",
    "message_timeout": "messageTimeout",
    "start_from": "startFrom",
    "live_buffer_size": "liveBufferSize",
    "buffer_size": "historyBufferSize",
    "max_retry_count": "maxRetryCount",
    "read_batch_size": "readBatchSize",
    "checkpoint_after": "checkPointAfter",
    "checkpoint_min": "minCheckPointCount",
    "checkpoint_max": "maxCheckPointCount",
    "max_subscribers": "maxSubscriberCount",
    "strategy": "namedConsumerStrategy",
}


@dataclass(frozen=True)
class GroupSettings:
    """How a group works; the defaults are those of the reference client, times in milliseconds.

    Attributes:
        resolve_links: deliver what links stand for.
        start_from: the first event number delivered where there is no checkpoint; negative means
            only what is written from now on.
        message_timeout: after it an event that was not answered is delivered again; 0 or less
            means never.
        extra_statistics: kept for the client; the node measures nothing.
        live_buffer_size: new events kept while the group reads older ones.
        read_batch_size: events per page of the stream.
        buffer_size: events read ahead, those to be retried included.
        max_retry_count: deliveries after the first one, before an event is parked.
        checkpoint_after: least time between two checkpoints, unless `checkpoint_max` is reached.
        checkpoint_max: events done after which a checkpoint is written at once.
        checkpoint_min: events done below which none is written.
        max_subscribers: 0 means any number.
        strategy: one of `STRATEGIES`.
    """

    resolve_links: bool = False
    start_from: int = -1
    message_timeout: int = 30_000
    extra_statistics: bool = False
    live_buffer_size: int = 500
    read_batch_size: int = DEFAULT_BATCH
    buffer_size: int = 500
    max_retry_count: int = 10
    checkpoint_after: int = 2_000
    checkpoint_max: int = 1_000
    checkpoint_min: int = 10
    max_subscribers: int = 0
    strategy: str = ROUND_ROBIN

    @property
    def page_size(self) -> int:
        """Events that are really read at once."""
        return min(self.read_batch_size, MAX_BATCH) if self.read_batch_size > 0 else DEFAULT_BATCH

    def to_stored(self) -> dict[str, object]:
        """The keys of a group in `$persistentSubscriptionConfig`; what is zero is left out."""
        values = {key: getattr(self, name) for name, key in _STORED_NAMES.items()}
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_stored(cls, entry: Mapping[str, Any]) -> GroupSettings:
        """The settings that `to_stored` wrote.

        Raises:
            TypeError: a value is of the wrong type.
        """
        values = {}
        for name, key in _STORED_NAMES.items():
            kind = type(getattr(cls, name))
            values[name] = value = entry.get(key, kind())
            if type(value) is not kind:
                raise TypeError(f"{key}: {value!r}")
        return cls(**values)


def strategy_for(name: str | None, *, prefer_round_robin: bool) -> str:
    """The strategy a request means; without a name an older field decides."""
    if name:
        return name
    return ROUND_ROBIN if prefer_round_robin else DISPATCH_TO_SINGLE
