"""Subscribing to streams."""

from __future__ import annotations

from fastpump._arguments import (
    MAX_INT32,
    check_callback,
    check_count,
    check_name,
    check_number,
    check_without_filter,
    first_position,
)
from fastpump._logs import AllLog, FilteredLog, StreamLog
from fastpump._reading import Forward, Reading
from fastpump._reads import FilteredRead, StreamRead
from fastpump.filters import Filter
from fastpump.messages import Beginning, End, Position, PositionSentinel
from fastpump.subscriptions import BUFFER_BYTES, BUFFER_EVENTS, OnCheckpoint, Subscription


class Following(Reading):
    """Follow a stream or the log of all events: from history into what is written now."""

    async def subscribe_to(
        self,
        stream: str,
        start_from: int = -1,
        resolve_link_tos: bool = True,
        batch_size: int = 100,
        *,
        buffer_events: int = BUFFER_EVENTS,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> Subscription:
        """Follow a stream.

        Args:
            stream: the stream; it need not exist yet.
            start_from: number of the first event wanted, everything behind it follows; -1 for what
                is written from now on. To resume, give the checkpoint plus one.
            resolve_link_tos: give out what links point to as well.
            batch_size: the most events in one page of history, 1 to 4096.
            buffer_events, buffer_bytes: pushed events that may wait for the consumer, 1 or more.
                Beyond that the subscription goes on from history, at the consumer's pace.

        Raises:
            AccessDenied, NotAuthenticated, RetriesLimitReached, SubscriptionCreationFailed: the
                server does not confirm it (only with -1; otherwise the loop over the events raises
                it).
            StreamDeleted: the stream was deleted for ever (likewise).

        >>> async with await client.subscribe_to("account-7", start_from=0) as subscription:
        ...     async for event in subscription.events:
        ...         print(event.event_number)
        """
        outlet = self._outlet or self._not_connected()
        check_name("stream", stream)
        check_number("start_from", start_from, -1)
        check_count("batch_size", batch_size)
        _check_buffer(buffer_events, buffer_bytes)

        leader_only = self._leader_only(None)
        read = StreamRead(Forward, batch_size, resolve_link_tos, leader_only, stream)
        log = StreamLog(outlet, self._timeout, read, self._ahead)
        subscription = Subscription(log, start_from - 1, buffer_events, buffer_bytes)
        if start_from == -1:
            await subscription.start_now()
        return subscription

    async def subscribe_to_all(
        self,
        from_position: Position | PositionSentinel | None = End,
        resolve_link_tos: bool = True,
        batch_size: int = 100,
        *,
        filter: Filter | None = None,
        max_search_window: int | None = None,
        checkpoint_interval: int | None = None,
        on_checkpoint: OnCheckpoint | None = None,
        buffer_events: int = BUFFER_EVENTS,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> Subscription:
        """Follow the log of all events. By default only administrators may.

        Args:
            from_position: `Beginning` or None for everything, `End` for what is written from now
                on, or the Position of an event, for instance a checkpoint, to go on behind it.
            resolve_link_tos, batch_size, buffer_events, buffer_bytes: as in `subscribe_to`.
            filter, max_search_window: as in `get_all`, for history and for what is written now.
            checkpoint_interval: with a filter, how many events the server looks at, whether or not
                they fit, until it tells how far it is: 1 to 2**31 - 1, by default the search
                window; -1 for never. In history each page tells it.
            on_checkpoint: with a filter, called with the subscription's new checkpoint whenever the
                server tells how far it is, once more when the subscription turns live, and between
                events, so that all before it have had their turn: the place to write it down where
                nothing may fit for long. Positions never go back; one may stand for several that
                came meanwhile. It runs on the client's event loop and may be a coroutine function,
                whose end is waited for. What it raises ends the subscription, and the loop over the
                events raises it.

        Raises:
            AccessDenied, NotAuthenticated, RetriesLimitReached: as in `subscribe_to`.
            BadRequest: the server does not know filters, or the filter's pattern is none; likewise.

        >>> async with await client.subscribe_to_all(
        ...     saved, filter=Filter.stream_prefix("account-"), on_checkpoint=save
        ... ) as subscription:
        ...     async for event in subscription.events:
        ...         print(event.position)
        """
        outlet = self._outlet or self._not_connected()
        start = first_position(Forward, from_position)
        check_count("batch_size", batch_size)
        _check_buffer(buffer_events, buffer_bytes)
        read = self._log_read(
            Forward, batch_size, resolve_link_tos, None, filter, max_search_window
        )
        log: AllLog
        if isinstance(read, FilteredRead):
            interval = read.window if checkpoint_interval is None else checkpoint_interval
            _check_checkpoints(interval, on_checkpoint)
            log = FilteredLog(outlet, self._timeout, read, self._ahead, interval)
        else:
            check_without_filter("checkpoint_interval", checkpoint_interval)
            check_without_filter("on_checkpoint", on_checkpoint)
            log = AllLog(outlet, self._timeout, read, self._ahead)
        # Beginning is before the event at Position(0, 0), that position behind it.
        is_everything = from_position is None or from_position is Beginning
        checkpoint = None if is_everything else start
        subscription = Subscription(log, checkpoint, buffer_events, buffer_bytes, on_checkpoint)
        if start == End.position:
            await subscription.start_now()
        return subscription


def _check_checkpoints(interval: int, on_checkpoint: OnCheckpoint | None) -> None:
    if interval != -1:
        check_number("checkpoint_interval", interval, 1, MAX_INT32)
    check_callback("on_checkpoint", on_checkpoint)


def _check_buffer(events: int, size: int) -> None:
    check_number("buffer_events", events, 1)
    check_number("buffer_bytes", size, 1)
