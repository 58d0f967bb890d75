"""The users of a node and their passwords (protocol document, section 13)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastpump.exceptions import UsageError
from fastpump.server._access import ADMINS, OPS, User

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Configured = str | tuple[str, Iterable[str]]

MAX_BYTES = 255
"""Of a login and of a password in UTF-8: their length is one byte on the wire (section 1.2)."""


@dataclass(frozen=True)
class Account:
    """A login's password and groups. The password stays out of the repr."""

    password: str = field(repr=False)
    groups: tuple[str, ...] = ()
    is_enabled: bool = True


DEFAULT_ACCOUNTS = {
    "admin": Account("changeit", (ADMINS,)),
    "ops": Account("changeit", (OPS,)),
}


class Users:
    """Who may log in. Changes hold from the next request on, on open connections too.

    They live in memory: the database keeps nothing of them but what a new one tells of `admin` and
    `ops` in `$users`.

    Args:
        configured: login -> password, or (password, groups); in addition to `admin` and `ops`,
            whose passwords can be changed this way.

    Raises:
        UsageError: a login or a password that cannot be sent.
    """

    def __init__(self, configured: Mapping[str, Configured] | None = None) -> None:
        self._accounts: dict[str, Account] = {}
        self._known: dict[str, tuple[str, User]] = {}
        for login, account in DEFAULT_ACCOUNTS.items():
            self._put(login, account)
        for login, given in (configured or {}).items():
            password, groups = _as_pair(login, given)
            if groups is None and login in DEFAULT_ACCOUNTS:
                groups = DEFAULT_ACCOUNTS[login].groups
            self.set(login, password, groups or ())

    def __repr__(self) -> str:
        return f"<Users {', '.join(self._accounts)}>"

    def authenticate(self, login: str, password: str) -> User | None:
        """The user, or None if there is none, it is disabled, or the password is wrong."""
        known = self._known.get(login)
        return known[1] if known is not None and known[0] == password else None

    def account(self, login: str) -> Account:
        """What is known of a login.

        Raises:
            UsageError: there is no such login.
        """
        account = self._accounts.get(login)
        if account is None:
            raise UsageError("login", f"there is no user {login!r}")
        return account

    def set(self, login: str, password: str, groups: Iterable[str] = ()) -> None:
        """Add a user, or give one another password and other groups.

        Raises:
            UsageError: a login or a password that cannot be sent.
        """
        _check("login", login, least=1)
        _check("password", password, least=0)
        self._put(login, Account(password, tuple(groups)))

    def disable(self, login: str) -> None:
        """Refuse this login until `enable`. Raises UsageError if there is none."""
        self._put(login, replace(self.account(login), is_enabled=False))

    def enable(self, login: str) -> None:
        """Accept this login again. Raises UsageError if there is none."""
        self._put(login, replace(self.account(login), is_enabled=True))

    def remove(self, login: str) -> None:
        """Forget this login. Raises UsageError if there is none."""
        self.account(login)
        del self._accounts[login]
        self._known.pop(login, None)

    def _put(self, login: str, account: Account) -> None:
        self._accounts[login] = account
        if account.is_enabled:
            self._known[login] = account.password, User(login, frozenset(account.groups))
        else:
            self._known.pop(login, None)


def _as_pair(login: str, given: Configured) -> tuple[str, tuple[str, ...] | None]:
    """The password and, if any were given, the groups."""
    if isinstance(given, str):
        return given, None
    password, groups = given
    if isinstance(groups, str):
        raise UsageError("users", f"the groups of {login!r} are a text, not a list of texts")
    return password, tuple(groups)


def _check(what: str, text: str, *, least: int) -> None:
    if not isinstance(text, str):
        raise UsageError(what, f"not a text but {type(text).__name__}")
    if not least <= len(text.encode()) <= MAX_BYTES:
        raise UsageError(what, f"not between {least} and {MAX_BYTES} bytes long")
