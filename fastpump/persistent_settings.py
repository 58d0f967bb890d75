"""How a persistent subscription works at the server (protocol document, section 9.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastpump._arguments import MAX_INT32, check_number
from fastpump.exceptions import UsageError
from fastpump.messages import ROUND_ROBIN, utf8_of

_COUNTS = (
    "live_buffer_size",
    "read_batch_size",
    "buffer_size",
    "max_retry_count",
    "checkpoint_max_count",
    "checkpoint_min_count",
    "subscriber_max_count",
)
_TIMES = ("message_timeout", "checkpoint_after")
_FLAGS = ("resolve_links", "record_statistics", "prefer_round_robin")


@dataclass(frozen=True)
class PersistentSubscriptionSettings:
    """The settings of a persistent subscription; the defaults are the reference client's.

    `Client.create_subscription` without `settings` has photon-pump's instead: links resolved, a
    read batch of 500, a buffer of 1000, 10 consumers.

    Attributes:
        resolve_links: deliver what links point to as well.
        start_from: number of the first event; -1 for what is written from now on. It counts only
            as long as there is no checkpoint.
        message_timeout: seconds until an event that was not answered is delivered again, whole
            milliseconds. 0 means never (from Event Store 20 on: within a second).
        record_statistics: measure latencies for the server's statistics.
        live_buffer_size: new events kept while older ones are still read.
        read_batch_size: events read from the stream at once. Servers from version 20 on want it
            below `buffer_size`.
        buffer_size: events read ahead, those to be retried included.
        max_retry_count: retries after which an event is parked.
        checkpoint_after: seconds that lie between two checkpoints at least, whole milliseconds.
        checkpoint_max_count: events answered after which a checkpoint is written at once.
        checkpoint_min_count: events answered below which none is written: after a restart of the
            server they come again.
        subscriber_max_count: how many consumers there may be; 0 for any number.
        consumer_strategy: who gets an event: ROUND_ROBIN, DISPATCH_TO_SINGLE, PINNED, or
            PINNED_BY_CORRELATION, or a name that your server knows besides. "" leaves the choice
            between the first two to `prefer_round_robin`.
        prefer_round_robin: used only if `consumer_strategy` is "".

    Raises:
        UsageError: a value is not acceptable; it names which.
    """

    resolve_links: bool = False
    start_from: int = -1
    message_timeout: float = 30.0
    record_statistics: bool = False
    live_buffer_size: int = 500
    read_batch_size: int = 20
    buffer_size: int = 500
    max_retry_count: int = 10
    checkpoint_after: float = 2.0
    checkpoint_max_count: int = 1000
    checkpoint_min_count: int = 10
    subscriber_max_count: int = 0
    consumer_strategy: str = ROUND_ROBIN
    prefer_round_robin: bool = True

    def __post_init__(self) -> None:
        check_number("start_from", self.start_from, -1)
        for name in _COUNTS:
            check_number(name, getattr(self, name), 0, MAX_INT32)
        for name in _TIMES:
            _check_time(name, getattr(self, name))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(name, f"must be True or False, not {getattr(self, name)!r:.80}")
        utf8_of("consumer_strategy", self.consumer_strategy)

    def to_fields(self) -> dict[str, object]:
        """The fields of a request to create or update one (protocol document, section 3.5)."""
        return {
            "resolve_link_tos": self.resolve_links,
            "start_from": self.start_from,
            "message_timeout_milliseconds": _milliseconds(self.message_timeout),
            "record_statistics": self.record_statistics,
            "live_buffer_size": self.live_buffer_size,
            "read_batch_size": self.read_batch_size,
            "buffer_size": self.buffer_size,
            "max_retry_count": self.max_retry_count,
            "prefer_round_robin": self.prefer_round_robin,
            "checkpoint_after_time": _milliseconds(self.checkpoint_after),
            "checkpoint_max_count": self.checkpoint_max_count,
            "checkpoint_min_count": self.checkpoint_min_count,
            "subscriber_max_count": self.subscriber_max_count,
            "named_consumer_strategy": self.consumer_strategy,
        }


def _check_time(argument: str, seconds: Any) -> None:
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_INT32 / 1000:
        raise UsageError(
            argument, f"must be 0 to {MAX_INT32 / 1000:.0f} seconds, not {seconds!r:.80}"
        )


def _milliseconds(seconds: float) -> int:
    """0 means something of its own, so that no other time may become it."""
    return max(1, round(seconds * 1000)) if seconds else 0
