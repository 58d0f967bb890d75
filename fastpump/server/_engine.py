"""The database of a node and all that works on it; the nodes of a cluster share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump.server._access import Access
from fastpump.server._accounts import first_accounts
from fastpump.server._asking import Sources
from fastpump.server._metadata import MetadataReader
from fastpump.server._subscriptions import Subscriptions
from fastpump.server._user_changes import UserChange
from fastpump.server._user_streams import UserStreams, write_account
from fastpump.server._writer import Group, Writer
from fastpump.server.groups.service import Groups
from fastpump.server.session import Services
from fastpump.server.store import Store

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from fastpump.server._accounts import Account
    from fastpump.server._gate import Check
    from fastpump.server._streams import Stream
    from fastpump.server._user_changes import Outcome
    from fastpump.server._users import Users
    from fastpump.server._writer import Operation
    from fastpump.server.session import Limits, Sessions
    from fastpump.server.store import Segment


class Engine:
    """What answers requests, whichever node's socket they came in by.

    Args:
        path: the database file, made if missing; None keeps everything in memory.
    """

    def __init__(self, path: Path | None, users: Users) -> None:
        self.path = path
        self.users = users

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the database, or make a new one.

        Raises:
            StoreError: one of its kinds.
        """
        self._loop = loop
        self.store = Store(self.path)
        try:
            self._start(loop)
        except BaseException:
            self.store.close()
            raise

    def services(self, limits: Limits, sessions: Sessions, gate: list[Check]) -> Services:
        """What the sessions of one node need."""
        return Services(
            self._loop,
            self._sources,
            self._writer,
            self._subscriptions,
            self.groups,
            self.users,
            limits,
            sessions,
            gate,
        )

    async def drain(self) -> None:
        """Answer the writes that are here, and tell subscribers that it is over."""
        self.groups.close()
        await self._writer.close()
        self._subscriptions.drop_all()

    def close(self) -> None:
        """Close the database, after `drain`."""
        self.users.read_from(None)
        self.store.close()

    def change_user(
        self,
        login: str,
        decide: Callable[[Account | None], Account | Outcome | None],
        done: Callable[[Outcome], None],
    ) -> None:
        """See `UserChange`."""
        self._submit(UserChange(self.users, login, decide, done))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        store = self.store
        metadata = MetadataReader(store)
        self.access = access = Access(store, metadata)
        if store.end == 0:
            self._fill_new_database(metadata, access)
        self.users.read_from(UserStreams(store, metadata))
        self._sources = Sources(store, metadata, access)
        self._subscriptions = Subscriptions(self._sources)
        self.groups = Groups(self._sources, self._submit, loop)
        self._writer = Writer(store, metadata, access, loop, self._publish)
        self.groups.open()

    def _submit(self, operation: Operation) -> None:
        self._writer.submit(operation)

    def _publish(self, segments: list[Segment], written: list[tuple[Stream, list[int]]]) -> None:
        self._subscriptions.publish(segments, written)
        self.groups.publish(written)

    def _fill_new_database(self, metadata: MetadataReader, access: Access) -> None:
        group = Group(self.store, metadata, access)
        for account in first_accounts():
            write_account(group, self.users.find(account.login) or account)
        segments = group.log.take_segments()
        self.store.write(segments)
        self.store.commit()
        self.store.publish(group.log, segments)
        group.published()
