"""Changing a user in the database, one at a time and in the order of the other writes."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from fastpump.server._user_streams import delete_account, stream_of, write_account
from fastpump.server._writer import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.server._accounts import Account
    from fastpump.server._users import Users
    from fastpump.server._writer import Client, Group


class Outcome(Enum):
    """How it went, by the original's names."""

    SUCCESS = "Success"
    NOT_FOUND = "NotFound"
    CONFLICT = "Conflict"
    ERROR = "Error"
    UNAUTHORIZED = "Unauthorized"


class UserChange:
    """One change of one user.

    Args:
        decide: given the account there is, says what is to become of it: another one, none at all,
            or why it stays as it is.
        done: called with the outcome when that is durable.
    """

    client: Client = NOBODY
    size = 0

    def __init__(
        self,
        users: Users,
        login: str,
        decide: Callable[[Account | None], Account | Outcome | None],
        done: Callable[[Outcome], None],
    ) -> None:
        self._users = users
        self._login = login
        self._decide = decide
        self._done = done

    def execute(self, group: Group) -> bool:
        if group.written:
            # It rests on what the database tells of the user.
            return False
        group.reply(self.client, partial(self._done, self._change(group)))
        return True

    def fail(self, problem: str) -> bytes:
        self._done(Outcome.ERROR)
        return b""

    def _change(self, group: Group) -> Outcome:
        decided = self._decide(self._users.find(self._login))
        if isinstance(decided, Outcome):
            return decided
        stream = group.store.stream(stream_of(self._login))
        if stream.deleted:
            # For good, by somebody who deleted the stream: this login cannot be stored again.
            return Outcome.CONFLICT
        if decided is not None:
            write_account(group, decided)
        elif stream.committed >= 0:
            delete_account(group, self._login)
        group.on_committed(partial(self._users.trust_database, self._login))
        return Outcome.SUCCESS
