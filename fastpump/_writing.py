"""The operations that write."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any
from uuid import UUID

from fastpump._arguments import check_callback, check_expected_version, check_number, collect
from fastpump._requesting import Requesting
from fastpump._requests import encode_write_events
from fastpump._write_events import SingleWrites, WriteEvents
from fastpump.exceptions import StreamDeleted, UsageError, WrongExpectedVersion
from fastpump.guard import Guard
from fastpump.messages import (
    ConditionalWriteResult,
    ConditionalWriteStatus,
    ExpectedVersion,
    NewEventData,
    WriteResult,
)
from fastpump.publisher import OnFailure, OnResult, Publisher

ANY = ExpectedVersion.Any

MAX_BATCH_BYTES = 32 * 1024 * 1024
"""A batch of that and the event that made it full fit into a frame."""


class Writing(Requesting):
    """Publish events, singly or in batches."""

    _writes: SingleWrites

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
        outlet = self._outlet or self._not_connected()
        if expected_version is not ANY:
            check_expected_version(expected_version)
        return await self._writes.write(
            outlet, stream, expected_version, type, body, metadata, id, require_master
        )

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

    async def publish_conditional(
        self,
        stream: str,
        events: Iterable[NewEventData] | AsyncIterable[NewEventData],
        expected_version: int,
        require_master: bool | None = None,
    ) -> ConditionalWriteResult:
        """Write events if the stream is as expected, and tell what became of it.

        As `publish`, for whom another version, or a deleted stream, is one of several good outcomes
        and no error.

        Args:
            stream, events, expected_version, require_master: as in `publish`.

        Raises:
            WriteFailed: the server refused for another reason.

        >>> written = await client.publish_conditional("account-7", [NewEvent("paid")], 4)
        >>> if written.status == ConditionalWriteStatus.VersionMismatch:
        ...     print("somebody else was faster, it is at", written.actual_version)
        """
        try:
            written = await self.publish(stream, events, expected_version, require_master)
        except WrongExpectedVersion as refusal:
            return ConditionalWriteResult(
                ConditionalWriteStatus.VersionMismatch, actual_version=refusal.actual_version
            )
        except StreamDeleted:
            return ConditionalWriteResult(ConditionalWriteStatus.StreamDeleted)
        return ConditionalWriteResult(
            ConditionalWriteStatus.Succeeded, written.last_event_number, written.position
        )

    def publisher(
        self,
        *,
        max_batch_events: int = 500,
        max_batch_bytes: int = 1024 * 1024,
        max_delay: float = 0.05,
        max_in_flight_events: int = 65_536,
        max_in_flight_bytes: int = 32 * 1024 * 1024,
        on_result: OnResult | None = None,
        on_failure: OnFailure | None = None,
        guard: Guard | None = None,
        require_master: bool | None = None,
    ) -> Publisher:
        """A publisher of many events to many streams.

        Args:
            max_batch_events: the most events that are written together, 1 or more.
            max_batch_bytes: the same in bytes, at most 32 MiB; a larger event is written alone.
            max_delay: seconds that an event may wait for others to go with it, 0 or more. Nothing
                waits while producers are held back.
            max_in_flight_events, max_in_flight_bytes: how much may be taken and not be answered
                before producers are held back, encoded; they go on when half of it is. This, twice
                while it is sent again after a reconnect, is about the memory it takes.
            on_result: called as `on_result(stream, event_numbers)` for events that are written,
                once for several in a row, per stream in their order.
            on_failure: called with each `PublishFailure`, in its place among those. Failures are
                not raised then.
            guard: decides at which versions batches are written, see `fastpump.guard.Guard`.
            require_master: as in `publish_event`.

        Raises:
            UsageError: an argument is not acceptable; it names which.

        >>> async with client.publisher() as publisher:
        ...     await publisher.send("account-7", fastpump.NewEvent("opened", data={"n": 1}))
        """
        outlet = self._outlet or self._not_connected()
        check_number("max_batch_events", max_batch_events, 1)
        check_number("max_batch_bytes", max_batch_bytes, 1, MAX_BATCH_BYTES)
        check_number("max_in_flight_events", max_in_flight_events, 1)
        check_number("max_in_flight_bytes", max_in_flight_bytes, 1)
        if not isinstance(max_delay, (int, float)) or not max_delay >= 0:
            raise UsageError("max_delay", f"must be 0 seconds or more, not {max_delay!r:.80}")
        check_callback("on_result", on_result)
        check_callback("on_failure", on_failure)
        if guard is not None and not isinstance(guard, Guard):
            raise UsageError("guard", f"must be a Guard, not {guard!r:.80}")
        return Publisher(
            outlet,
            self._loop,
            self._timeout,
            max_batch_events=max_batch_events,
            max_batch_bytes=max_batch_bytes,
            max_delay=max_delay,
            max_in_flight_events=max_in_flight_events,
            max_in_flight_bytes=max_in_flight_bytes,
            on_result=on_result,
            on_failure=on_failure,
            guard=guard,
            require_master=self._leader_only(require_master),
        )
