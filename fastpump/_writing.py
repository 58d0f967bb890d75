"""The operations that write."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any
from uuid import UUID

from fastpump._arguments import check_expected_version, collect
from fastpump._operations import WriteEvents
from fastpump._requesting import Requesting
from fastpump._requests import encode_write_event, encode_write_events
from fastpump.messages import ExpectedVersion, NewEventData, WriteResult


class Writing(Requesting):
    """Publish events, singly or in batches."""

    async def publish_event(
        self,
        stream: str,
        type: str,
        body: Any = None,
        id: UUID | None = None,
        metadata: Any = None,
        expected_version: int = ExpectedVersion.Any,
        require_master: bool | None = None,
    ) -> WriteResult:
        """Write one event.

        Args:
            stream: the stream, made by its first event.
            type: the event's type.
            body: bytes, bytearray or memoryview are sent as binary; None as empty binary; str and
                `Json` (bytes) as JSON text as they are; anything else is made JSON by orjson.
            id: the event's UUID; a new random one by default.
            metadata: like `body`; None for none.
            expected_version: number of the event that must be the stream's last one, or one of
                `ExpectedVersion`.
            require_master: only the leader of a cluster may answer; None for what `connect` says.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.

        >>> await client.publish_event("account-7", "opened", {"owner": "Ada"})
        """
        dispatcher = self._dispatcher or self._not_connected()
        if expected_version != -2:
            check_expected_version(expected_version)
        correlation_id = dispatcher.new_correlation_id()
        frame = encode_write_event(
            correlation_id,
            stream,
            expected_version,
            type,
            body,
            metadata,
            id,
            self._require_master if require_master is None else require_master,
        )
        # What `_perform` does, without a coroutine of its own: this is the call that ingest
        # workers make hundreds of thousands of times a second.
        if dispatcher.is_full:
            await dispatcher.room()
        waiter = self._loop.create_future()
        dispatcher.start(
            WriteEvents(correlation_id, frame, waiter, self._timeout, stream, expected_version)
        )
        result: WriteResult = await waiter
        return result

    async def publish(
        self,
        stream: str,
        events: Iterable[NewEventData] | AsyncIterable[NewEventData],
        expected_version: int = ExpectedVersion.Any,
        require_master: bool | None = None,
    ) -> WriteResult:
        """Write events to a stream, all or none of them.

        A write repeated with the same event ids is recognised and not made twice.

        Args:
            stream: the stream, made by its first event.
            events: what `NewEvent` makes, from any iterable or asynchronous iterable.
            expected_version, require_master: as in `publish_event`.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.
        """
        correlation_id = self._new_id(None)
        check_expected_version(expected_version)
        batch = await collect(events)
        frame = encode_write_events(
            correlation_id, stream, expected_version, batch, self._leader_only(require_master)
        )
        result: WriteResult = await self._perform(
            WriteEvents, correlation_id, frame, stream, expected_version
        )
        return result
