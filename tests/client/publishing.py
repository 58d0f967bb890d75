"""A publisher, events for it, and a scripted server that writes them, or refuses to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from client.peer import Request, connected, reply_to, serving

from fastpump import ExpectedVersion, NewEvent, Publisher
from fastpump.messages import NewEventData

ANY, NO_STREAM = ExpectedVersion.Any, ExpectedVersion.StreamMustNotExist
WRONG_VERSION, DELETED, DENIED = 4, 5, 7
LONG = 60.0
"""A delay nobody waits for."""


class Streams:
    """What a server has been told to write; answers as one that writes everything."""

    def __init__(self, refused: dict[str, int] | None = None) -> None:
        self.stored: dict[str, list[bytes]] = {}
        self.batches: list[tuple[str, int, int]] = []
        self.refused = refused or {}

    def answer(self, request: Request) -> bytes:
        fields = request.fields
        stream, ids = fields["event_stream_id"], request.event_ids
        self.batches.append((stream, fields["expected_version"], len(ids)))
        if stream in self.refused:
            return reply_to(request, result=self.refused[stream], current_version=7)
        events = self.stored.setdefault(stream, [])
        first = len(events)
        events += ids
        return reply_to(
            request, result=0, first_event_number=first, last_event_number=len(events) - 1
        )

    @property
    def sizes(self) -> list[int]:
        return [count for _, _, count in self.batches]


def events(count: int, data: Any = None) -> list[NewEventData]:
    return [NewEvent("t", data={"n": n} if data is None else data) for n in range(count)]


@asynccontextmanager
async def publishing(
    refused: dict[str, int] | None = None, **options: Any
) -> AsyncIterator[tuple[Publisher, Streams]]:
    """A publisher of a client whose server answers everything."""
    streams = Streams(refused)
    async with connected() as (client, link, _), serving(link, streams.answer):
        async with client.publisher(**{"max_delay": LONG, **options}) as publisher:
            yield publisher, streams
