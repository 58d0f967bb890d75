"""An event on its way to a consumer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Message:
    """An event of the group's stream, or one that was parked and comes again.

    Attributes:
        event_id: what consumers answer with: the id of the link where there is one.
        number: in the group's stream; of a replayed one, in the stream of parked events.
        source: the stream the event itself is in, which a link may have led to.
        content: what is pushed; nobody looks into it on the way.
        retry_count: how often it was delivered before.
        is_replayed: it was parked. The checkpoint has nothing to do with it.
    """

    event_id: bytes
    number: int
    source: str
    content: Any
    retry_count: int = 0
    is_replayed: bool = False
