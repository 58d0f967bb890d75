"""Which events of a stream a reader can see (protocol document, section 6)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastpump.server._metadata import MetadataReader, StreamMetadata
from fastpump.server._streams import Stream, is_metastream, original_of

if TYPE_CHECKING:
    from fastpump.server._records import Entry
    from fastpump.server.store import Store

TICKS_OF_1970 = 621355968000000000
TICKS_PER_SECOND = 10_000_000

METASTREAM_METADATA = StreamMetadata(max_count=1)
"""Every metastream shows its newest event only, whatever its own metadata says (section 6.8)."""


def ticks_now() -> int:
    """The time in .NET ticks: 100 ns since the year 1."""
    return TICKS_OF_1970 + time.time_ns() // 100


class Visibility:
    """What metadata and deletion leave of a stream."""

    def __init__(self, store: Store, metadata: MetadataReader) -> None:
        self._store = store
        self._metadata = metadata

    def metadata_of(self, stream: Stream) -> StreamMetadata:
        """The limits in force for reads of this stream."""
        if is_metastream(stream.name):
            return METASTREAM_METADATA
        return self._metadata.of(stream)

    def is_deleted(self, stream: Stream) -> bool:
        """Whether the stream is hard-deleted; a metastream goes with its stream."""
        if stream.deleted:
            return True
        if not is_metastream(stream.name):
            return False
        return self._store.stream(original_of(stream.name)).deleted

    def is_missing(self, stream: Stream) -> bool:
        """Whether reads answer "no stream": it never had an event, or is soft-deleted."""
        return stream.committed < 0 or self.metadata_of(stream).soft_deleted

    def oldest_ticks(self, metadata: StreamMetadata) -> int | None:
        """The creation time below which events are invisible; None if age does not matter."""
        if metadata.max_age is None:
            return None
        return ticks_now() - metadata.max_age * TICKS_PER_SECOND

    def event(self, stream: Stream, number: int) -> Entry | None:
        """One visible event (-1: the last one), or None."""
        if self.is_deleted(stream) or self.is_missing(stream):
            return None
        metadata = self.metadata_of(stream)
        if number == -1:
            number = stream.committed
        if not metadata.first_visible(stream.committed) <= number <= stream.committed:
            return None
        entry = self._store.entry(stream, number)
        oldest = self.oldest_ticks(metadata)
        return None if entry is None or (oldest and entry.ticks < oldest) else entry
