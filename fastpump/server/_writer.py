"""Group commit: everything that arrives together becomes durable together.

Operations are queued as they arrive, from all connections. Once per turn of the event loop, and
never while a commit is under way, the queue is executed in order: events are encoded, versions
checked, replies made ready. Then SQLite commits once, in a thread of its own because that waits for
the disk, and only after that the replies leave. What arrives meanwhile is the next group.

An operation that depends on something that is only just being written ends the group before it, so
that rules about the past never meet uncommitted events (except the last number of a stream).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from fastpump.server.errors import StoreError

if TYPE_CHECKING:
    from fastpump.server._access import Access
    from fastpump.server._messages import WriteRequest
    from fastpump.server._metadata import MetadataReader
    from fastpump.server._streams import Stream
    from fastpump.server._transaction_table import Statement
    from fastpump.server.store import Segment, Store

log = logging.getLogger("fastpump.server")

GROUP_BYTES = 4 * 1024 * 1024
"""Size of the requests after which a group takes no more."""

TICKS_OF_1970 = 621355968000000000

OnCommitted = Callable[["list[Segment]", "list[tuple[Stream, list[int]]]"], None]
"""Called with the new segments of the log, and where in them the written streams are."""


class Client(Protocol):
    """Where replies go: a session."""

    def deliver(self, reply: bytes) -> None:
        """Queue a reply."""

    def operation_done(self, size: int) -> None:
        """One operation this client submitted has been answered."""

    def flush(self) -> None:
        """Send what was queued."""


class _Nobody:
    """Who gets the replies to the node's own operations."""

    def deliver(self, reply: bytes) -> None: ...

    def operation_done(self, size: int) -> None: ...

    def flush(self) -> None: ...


NOBODY: Client = _Nobody()


class Operation(Protocol):
    """Something to be done in the order of arrival.

    Attributes:
        client: who gets the reply.
        size: bytes of the request.
    """

    client: Client
    size: int

    def execute(self, group: Group) -> bool:
        """Do it, and leave the reply with the group. False: not before the group is committed."""

    def fail(self, problem: str) -> bytes:
        """The reply if the group could not be stored."""


class Group:
    """What is committed together. Operations write through it.

    Attributes:
        is_full: nothing more may be added, because what follows must see this group's effects.
        written: the streams that were written to, and where, as `LogWriter.append` tells it.
        rows: what is to be stored beside the log.
        transactions: ids of the explicit transactions that got events here.
    """

    def __init__(self, store: Store, metadata: MetadataReader, access: Access) -> None:
        self.store = store
        self.metadata = metadata
        self.access = access
        self.log = store.log_writer()
        self.ticks = TICKS_OF_1970 + time.time_ns() // 100
        self.size = 0
        self.is_full = False
        self.operations: list[Operation] = []
        self.replies: list[tuple[Client, bytes | Callable[[], None]]] = []
        self.written: list[tuple[Stream, list[int]]] = []
        self.rows: list[Statement] = []
        self.transactions: set[int] = set()
        self._effects: list[Callable[[], None]] = []

    # --- for operations ---

    def append(self, stream: Stream, request: WriteRequest) -> int:
        """Write the request's events behind the stream's last one; the newest one's position."""
        log = self.log
        if request.count == 0:
            # Nothing is stored, but the reply needs a position that no event has.
            return log.skip(1)
        stream_id = self.store.adopt(stream)
        places = log.append(request, stream.name, stream_id, stream.last + 1, self.ticks)
        stream.learn(places)
        self.written.append((stream, places))
        return log.last_position

    def append_transaction(
        self, stream: Stream, requests: list[WriteRequest], prepares: list[int]
    ) -> int:
        """Write all the requests' events, which have these prepare positions (see `LogWriter`).

        Returns:
            Their commit position.
        """
        log = self.log
        if not requests:
            return log.skip(1)
        stream_id = self.store.adopt(stream)
        places = log.append_transaction(
            requests, prepares, stream.name, stream_id, stream.last + 1, self.ticks
        )
        stream.learn(places)
        self.written.append((stream, places))
        return log.last_position

    def append_tombstone(self, stream: Stream) -> int:
        """Write the record of a hard delete. Returns its position."""
        stream_id = self.store.adopt(stream)
        places = self.log.append_tombstone(stream.name, stream_id, uuid4().bytes_le, self.ticks)
        self.on_committed(partial(stream.learn, places))
        self.written.append((stream, places))
        self.is_full = True
        return self.log.last_position

    def reply(self, client: Client, reply: bytes | Callable[[], None]) -> None:
        """After the commit, deliver the reply or call what makes it."""
        self.replies.append((client, reply))

    def on_committed(self, effect: Callable[[], None]) -> None:
        """Call this as soon as the group is durable, before any reply is made."""
        self._effects.append(effect)

    # --- for the writer ---

    def published(self) -> None:
        for stream, _ in self.written:
            stream.committed = stream.last
        for effect in self._effects:
            effect()


class Writer:
    """Executes operations in groups.

    Args:
        store: what it writes to; nobody else does.
        loop: the running event loop.
        on_committed: told of what has become durable.
    """

    def __init__(
        self,
        store: Store,
        metadata: MetadataReader,
        access: Access,
        loop: asyncio.AbstractEventLoop,
        on_committed: OnCommitted,
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._access = access
        self._loop = loop
        self._tell = on_committed
        self._queue: deque[Operation] = deque()
        self._is_scheduled = False
        self._is_committing = False
        self._broken: str | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastpump-commit")

    def submit(self, operation: Operation) -> None:
        """Execute the operation with the others of this turn of the loop."""
        self._queue.append(operation)
        if not self._is_scheduled and not self._is_committing:
            self._is_scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._run)

    async def close(self) -> None:
        """Wait until everything submitted is answered."""
        await self._idle.wait()
        self._thread.shutdown()

    def _run(self) -> None:
        self._is_scheduled = False
        while self._queue and not self._is_committing:
            self._start_group()
        if not self._queue and not self._is_committing:
            self._idle.set()

    def _start_group(self) -> None:
        group = Group(self._store, self._metadata, self._access)
        try:
            self._fill(group)
            segments = group.log.take_segments()
            if self._broken is not None:
                raise StoreError(self._broken)
            if segments or group.rows:
                self._store.write(segments, group.rows)
                if not self._store.in_memory:
                    self._commit_in_thread(group, segments)
                    return
                self._store.commit()
        except StoreError as error:
            self._give_up(group, error)
        except Exception as error:
            # What it rests on cannot be read: a damaged file, or a fault of the node.
            log.exception("A group of writes failed")
            self._give_up(group, error)
        else:
            self._finish(group, segments)

    def _fill(self, group: Group) -> None:
        queue = self._queue
        with self._store.reading():
            while queue and not group.is_full and group.size < GROUP_BYTES:
                operation = queue.popleft()
                group.operations.append(operation)
                if not operation.execute(group):
                    queue.appendleft(group.operations.pop())
                    return
                group.size += operation.size

    def _commit_in_thread(self, group: Group, segments: list[Segment]) -> None:
        self._is_committing = True
        commit = self._loop.run_in_executor(self._thread, self._store.commit)
        commit.add_done_callback(partial(self._on_committed, group, segments))

    def _on_committed(
        self, group: Group, segments: list[Segment], commit: asyncio.Future[None]
    ) -> None:
        self._is_committing = False
        error = commit.exception()
        if error is None:
            self._finish(group, segments)
        else:
            self._give_up(group, error)
        self._run()

    def _finish(self, group: Group, segments: list[Segment]) -> None:
        self._store.publish(group.log, segments)
        group.published()
        self._tell(segments, group.written)
        for client, reply in group.replies:
            if isinstance(reply, bytes):
                client.deliver(reply)
            else:
                reply()
        self._answered(group)

    def _give_up(self, group: Group, error: BaseException) -> None:
        """The group is not stored: tell every client of it, and start again from what is stored."""
        try:
            self._store.recover()
            self._metadata.forget_settings()
        except Exception as problem:
            self._broken = f"the database failed and cannot be read again: {problem}"
        for operation in group.operations:
            try:
                operation.client.deliver(operation.fail(str(error)))
            except Exception:
                log.exception("A refusal failed")
        self._answered(group)

    def _answered(self, group: Group) -> None:
        clients = {operation.client for operation in group.operations}
        for operation in group.operations:
            operation.client.operation_done(operation.size)
        for client in clients:
            client.flush()
