"""The replay engine: pages in, lines out. Neither arguments nor display here."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from typing import IO, Any

import orjson

import fastpump
from fastpump.cli._progress import Sample

SYSTEM_PREFIX = "$"
"""How the types of the server's own events begin."""

SEARCH_WINDOW = 10_000
"""Events a server looks at for one page where a filter says which are wanted."""


def to_line(event: fastpump.Event) -> bytes:
    """An event as one line of NDJSON.

    JSON bodies are inserted as they are stored; others stand in Base64 under `data_base64` and
    `metadata_base64`. Empty metadata is left out.
    """
    fields: dict[str, Any] = {
        "stream": event.stream,
        "event_number": event.event_number,
        "type": event.type,
        "id": event.id,
        "created": event.created,
        "position": None if event.position is None else list(event.position),
    }
    _put_body(fields, "data", event.data, event.is_json)
    if event.metadata:
        _put_body(fields, "metadata", event.metadata, True)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)


def _put_body(fields: dict[str, Any], name: str, body: bytes, may_be_json: bool) -> None:
    if may_be_json:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            # Inserted unread, a number keeps all its digits; but a line must stay one line.
            fields[name] = value if b"\n" in body else orjson.Fragment(body)
            return
    fields[f"{name}_base64"] = b64encode(body).decode()


class Replay:
    """Reads a stream, or with `stream` None the log of all events, forwards to its end.

    `start` is an event number or a position; a `filter` is for the log only. With an `output` every
    event becomes a line there. Events of the server's own are left out unless `system` is true.
    The counters may be looked at while it runs.
    """

    def __init__(
        self,
        client: fastpump.Client,
        stream: str | None,
        *,
        filter: fastpump.Filter | None = None,
        start: int | fastpump.Position,
        batch_size: int,
        output: IO[bytes] | None,
        system: bool = False,
    ) -> None:
        self._client = client
        self._stream = stream
        self._filter = filter
        self._output = output
        self._system = system
        self._start = start
        self._batch_size = batch_size
        self._stopped = False
        self._end = 0
        self.next: int | fastpump.Position = start
        """Where a later replay goes on."""
        self.events = 0
        self.bytes = 0
        """The events' data, without metadata."""

    def look(self) -> Sample:
        """How far it is, in event numbers or in the log's bytes."""
        done = self.next if isinstance(self.next, int) else self.next.commit
        return Sample(self.events, self.bytes, min(done, self._end), self._end)

    def stop(self) -> None:
        """Take no further page; `run` returns."""
        self._stopped = True

    async def run(self) -> None:
        """Read to the end."""
        pages = self._log_pages() if self._stream is None else self._stream_pages(self._stream)
        async for page in pages:
            self._take(page)
            if self._stopped:
                return

    async def _stream_pages(self, stream: str) -> AsyncIterator[Iterable[fastpump.Event]]:
        assert isinstance(self._start, int)
        async for page in self._client.iter_slices(
            stream, from_event=self._start, batch_size=self._batch_size, resolve_links=False
        ):
            self._end = page.last_event_number + 1
            self.next = page.next_event_number
            yield page

    async def _log_pages(self) -> AsyncIterator[Iterable[fastpump.Event]]:
        assert not isinstance(self._start, int)
        last = await self._client.get_all(
            direction=fastpump.StreamDirection.Backward,
            from_position=fastpump.End,
            max_count=1,
            resolve_links=False,
        )
        self._end = last.start_position.commit
        async for page in self._client.iter_all_slices(
            from_position=self._start,
            batch_size=self._batch_size,
            resolve_links=False,
            filter=self._filter,
            max_search_window=None if self._filter is None else SEARCH_WINDOW,
        ):
            self.next = page.next_position
            yield page

    def _take(self, page: Iterable[fastpump.Event]) -> None:
        if not self._system:
            page = [event for event in page if not event.type.startswith(SYSTEM_PREFIX)]
        count = size = 0
        for event in page:
            count += 1
            size += len(event.data)
        if self._output is not None:
            self._output.write(b"".join(map(to_line, page)))
        self.events += count
        self.bytes += size
