"""Which events of the log of all events are wanted: by the name of their stream, or their type."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from fastpump.exceptions import UsageError
from fastpump.messages import utf8_of

__all__ = ["Filter", "FilterContext", "FilterKind"]


class FilterContext(IntEnum):
    """Which name of an event a filter looks at (protocol document, section 3.3)."""

    StreamId = 0
    EventType = 1


class FilterKind(IntEnum):
    """How a filter looks at it (protocol document, section 3.3)."""

    Regex = 0
    Prefix = 1


@dataclass(frozen=True)
class Filter:
    r"""Which events a server gives out of the log of all events.

    Make one with the methods below. The server looks at each event by itself: of a link it sees the
    link's own stream and type, not those of its target (protocol document, section 6.5). Servers
    know filters from version 20 on.

    Attributes:
        context: whether it looks at the stream's name or at the event's type.
        kind: whether `data` are prefixes, one of which must fit, or one regular expression.
        data: these texts.

    >>> Filter.stream_prefix("account-", "customer-")
    >>> Filter.event_type_regex(r"^Order.*\.v2$")
    """

    context: FilterContext
    kind: FilterKind
    data: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.data, tuple):
            raise UsageError("data", f"must be a tuple of str, not {self.data!r:.80}")
        argument = "prefixes" if self.kind == FilterKind.Prefix else "pattern"
        if not self.data:
            raise UsageError(argument, "must be given")
        if self.kind == FilterKind.Regex and len(self.data) > 1:
            raise UsageError(argument, "can only be one; alternatives are written with '|'")
        for text in self.data:
            if not utf8_of(argument, text):
                raise UsageError(argument, "must not be empty; without a filter everything fits")

    @classmethod
    def stream_prefix(cls, *prefixes: str) -> Filter:
        """Events in streams whose names begin with one of these.

        Raises:
            UsageError: there is no prefix, or one is empty or no str. So do the other methods.
        """
        return cls(FilterContext.StreamId, FilterKind.Prefix, prefixes)

    @classmethod
    def stream_regex(cls, pattern: str) -> Filter:
        """Events in streams in whose names the pattern is found.

        Args:
            pattern: a regular expression of .NET, found anywhere in the name unless it is anchored
                with "^" and "$". Only the server knows whether it is one: if it is not, what it is
                used for ends with BadRequest.
        """
        return cls(FilterContext.StreamId, FilterKind.Regex, (pattern,))

    @classmethod
    def event_type_prefix(cls, *prefixes: str) -> Filter:
        """Events whose types begin with one of these."""
        return cls(FilterContext.EventType, FilterKind.Prefix, prefixes)

    @classmethod
    def event_type_regex(cls, pattern: str) -> Filter:
        """Events in whose types the pattern is found; see `stream_regex`."""
        return cls(FilterContext.EventType, FilterKind.Regex, (pattern,))

    @classmethod
    def exclude_system_events(cls) -> Filter:
        """Events whose types do not begin with "$"."""
        return cls.event_type_regex(r"^[^\$].*")

    @property
    def message(self) -> dict[str, Any]:
        """The fields of the Filter message (protocol document, section 3.3)."""
        return {"context": self.context, "type": self.kind, "data": self.data}
