"""The users of a node (protocol document, section 13): those in the database, and its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastpump.exceptions import UsageError
from fastpump.server._access import User
from fastpump.server._accounts import first_accounts, new_account

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastpump.server._accounts import Account
    from fastpump.server._user_streams import UserStreams

    Configured = str | tuple[str, Iterable[str]]


class Users:
    """Who may log in. Changes hold from the next request on, on open connections too.

    What is configured or set by the methods here lives in memory and goes before what the database
    tells of the same login, until that is changed over HTTP.

    Args:
        configured: login -> password, or (password, groups); in addition to `admin` and `ops`,
            whose passwords can be changed this way.

    Raises:
        UsageError: a login or a password that cannot be sent.
    """

    def __init__(self, configured: Mapping[str, Configured] | None = None) -> None:
        self._streams: UserStreams | None = None
        self._own: dict[str, Account | None] = {}
        self._accepted: dict[str, tuple[Account, str, User]] = {}
        first = {account.login: account for account in first_accounts()} if configured else {}
        for login, given in (configured or {}).items():
            password, groups = _as_pair(login, given)
            account = new_account(login, password, groups or ())
            if login in first:
                groups = first[login].groups if groups is None else groups
                account = replace(account, full_name=first[login].full_name, groups=groups)
            self._own[login] = account

    def __repr__(self) -> str:
        return f"<Users {', '.join(self.logins())}>"

    def authenticate(self, login: str, password: str) -> User | None:
        """The user, or None if there is none, it is disabled, or the password is wrong."""
        account = self.find(login)
        if account is None or not account.is_enabled:
            return None
        accepted = self._accepted.get(login)
        if accepted is None or accepted[0] is not account or accepted[1] != password:
            if not account.accepts(password):
                return None
            accepted = account, password, User(login, frozenset(account.groups))
            self._accepted[login] = accepted
        return accepted[2]

    def account(self, login: str) -> Account:
        """What is known of a login.

        Raises:
            UsageError: there is no such login.
        """
        account = self.find(login)
        if account is None:
            raise UsageError("login", f"there is no user {login!r}")
        return account

    def set(self, login: str, password: str, groups: Iterable[str] = ()) -> None:
        """Add a user, or give one another password and other groups.

        Raises:
            UsageError: a login or a password that cannot be sent.
        """
        self._own[login] = new_account(login, password, groups)

    def disable(self, login: str) -> None:
        """Refuse this login until `enable`. Raises UsageError if there is none."""
        self._own[login] = replace(self.account(login), is_enabled=False)

    def enable(self, login: str) -> None:
        """Accept this login again. Raises UsageError if there is none."""
        self._own[login] = replace(self.account(login), is_enabled=True)

    def remove(self, login: str) -> None:
        """Forget this login. Raises UsageError if there is none."""
        self.account(login)
        self._own[login] = None

    # --- for the node ---

    def find(self, login: str) -> Account | None:
        """What is known of a login, or None."""
        if login in self._own:
            return self._own[login]
        return None if self._streams is None else self._streams.find(login)

    def logins(self) -> list[str]:
        """Those of all users."""
        stored = [] if self._streams is None else self._streams.logins()
        known = dict.fromkeys((*stored, *self._own))
        return [login for login in known if self.find(login) is not None]

    def read_from(self, streams: UserStreams | None) -> None:
        """Where those in the database are found from now on; None: it is closed."""
        self._streams = streams

    def trust_database(self, login: str) -> None:
        """What the database tells of this login counts from now on."""
        self._own.pop(login, None)


def _as_pair(login: str, given: Configured) -> tuple[str, tuple[str, ...] | None]:
    """The password and, if any were given, the groups."""
    if isinstance(given, str):
        return given, None
    password, groups = given
    if isinstance(groups, str):
        raise UsageError("users", f"the groups of {login!r} are a text, not a list of texts")
    return password, tuple(groups)
