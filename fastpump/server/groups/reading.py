"""Messages for groups from stored events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._links import LINK_TYPE, Resolved, link_target
from fastpump.server._records import Entry, entries_of
from fastpump.server.groups.machine import Page
from fastpump.server.groups.messages import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastpump.server._asking import Sources
    from fastpump.server._streams import Stream


class GroupReader:
    """Reads a stream for a group, with the eyes of the node: access lists don't count.

    Args:
        sources: where it reads from.
        stream: the name of the stream.
        resolve: whether links are followed.
        is_replay: whether the stream is one of parked events, to be delivered again.
    """

    def __init__(
        self, sources: Sources, stream: str, *, resolve: bool, is_replay: bool = False
    ) -> None:
        self._sources = sources
        self._name = stream
        self._resolve = resolve
        self._is_replay = is_replay

    def page(self, first: int, count: int) -> Page:
        """The visible events from number `first` on; fewer than `count` do not mean the end."""
        stream = self._sources.store.stream(self._name)
        visibility = self._sources.visibility
        if visibility.is_deleted(stream) or visibility.is_missing(stream):
            return Page((), first, is_end=True)
        metadata = visibility.metadata_of(stream)
        first = max(first, metadata.first_visible(stream.committed))
        last = min(first + count - 1, stream.committed)
        oldest = visibility.oldest_ticks(metadata)
        messages = [
            self.message(entry)
            for entry in self._entries(stream, first, last)
            if oldest is None or entry.ticks >= oldest
        ]
        return Page(messages, last + 1, is_end=last >= stream.committed)

    def committed(self, places: Sequence[int]) -> Iterator[Message]:
        """The events that were just written to these places."""
        for index in range(0, len(places), 3):
            _, position, count = places[index : index + 3]
            start, records = self._sources.store.segment(position)
            for entry in entries_of(records, position - start, count):
                yield self.message(entry, is_live=True)

    def message(self, entry: Entry, *, is_live: bool = False) -> Message:
        content = self._resolved(entry, is_live=is_live)
        return Message(
            entry.event_id,
            entry.number,
            _source_of(content),
            content,
            is_replayed=self._is_replay,
        )

    def _resolved(self, entry: Entry, *, is_live: bool) -> Resolved:
        if not self._resolve:
            return Resolved(entry)
        if is_live and entry.event_type == LINK_TYPE and entry.data.count(b"@") > 1:
            # Version 4 cuts the target's name at a second "@" here, and so finds nothing (LINK-21).
            return Resolved(None, entry)
        return self._sources.links.resolve_for_push(entry)

    def _entries(self, stream: Stream, first: int, last: int) -> Iterator[Entry]:
        store = self._sources.store
        for number, position, count in store.places(stream, first, last):
            start, records = store.segment(position)
            for entry in entries_of(records, position - start, min(count, last - number + 1)):
                if entry.number >= first:
                    yield entry


def _source_of(content: Resolved) -> str:
    """The stream of the event itself, or the one that a link to nothing names."""
    if content.event is not None:
        return content.event.stream
    assert content.link is not None
    target = link_target(content.link.data)
    return content.link.stream if target is None else target[1]
