"""What a node knows of a user, and its JSON in `$user-…` streams (section 13)."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from fastpump.exceptions import UsageError
from fastpump.server._access import ADMINS, OPS

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 255
"""Of a login and of a password in UTF-8: their length is one byte on the wire (section 1.2)."""

ITERATIONS = 1000
"""Of PBKDF2 with SHA-1, the original's way of keeping passwords."""


class HashedPassword(NamedTuple):
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        return "<HashedPassword>"


@dataclass(frozen=True)
class Account:
    """A user. The password stays out of the repr.

    Attributes:
        changed: when it was stored, in .NET ticks; None if it is not.
    """

    login: str
    password: HashedPassword = field(repr=False)
    full_name: str = ""
    groups: tuple[str, ...] = ()
    is_enabled: bool = True
    changed: int | None = None

    def accepts(self, password: str) -> bool:
        """Whether this is the account's password; takes half a millisecond."""
        digest = _digest(password, self.password.salt)
        return hmac.compare_digest(digest, self.password.digest)

    def with_password(self, password: str) -> Account:
        return replace(self, password=hashed(password))

    def to_json(self) -> bytes:
        """As the original stores it."""
        content = {
            "loginName": self.login,
            "fullName": self.full_name,
            "salt": b64encode(self.password.salt).decode(),
            "hash": b64encode(self.password.digest).decode(),
            "disabled": not self.is_enabled,
            "groups": self.groups,
        }
        return orjson.dumps(content)


def new_account(
    login: str, password: str, groups: Iterable[str] = (), full_name: str | None = None
) -> Account:
    """An account with these properties; the login serves as full name if there is none.

    Raises:
        UsageError: a login or a password that cannot be sent.
    """
    check_text("login", login, least=1)
    check_text("password", password, least=0)
    name = login if full_name is None else full_name
    return Account(login, hashed(password), name, tuple(groups))


def account_from_json(login: str, data: bytes, changed: int) -> Account | None:
    """What `to_json` made, or None if it is not that."""
    try:
        content: Any = orjson.loads(data)
        groups = content.get("groups") or []
        if not isinstance(groups, list):
            return None
        password = HashedPassword(b64decode(content["salt"]), b64decode(content["hash"]))
        name = content.get("fullName") or ""
        is_enabled = not content.get("disabled")
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return Account(login, password, str(name), tuple(map(str, groups)), is_enabled, changed)


def first_accounts() -> list[Account]:
    """The users of a new Event Store."""
    return [
        new_account("admin", "changeit", (ADMINS,), "Event Store Administrator"),
        new_account("ops", "changeit", (OPS,), "Event Store Operations"),
    ]


def hashed(password: str) -> HashedPassword:
    salt = os.urandom(16)
    return HashedPassword(salt, _digest(password, salt))


def check_text(what: str, text: str, *, least: int) -> None:
    """Raises UsageError unless it is a text of `least` to MAX_BYTES bytes in UTF-8."""
    if not isinstance(text, str):
        raise UsageError(what, f"not a text but {type(text).__name__}")
    if not least <= len(text.encode(errors="replace")) <= MAX_BYTES:
        raise UsageError(what, f"not between {least} and {MAX_BYTES} bytes long")


def _digest(password: str, salt: bytes) -> bytes:
    text = password.encode(errors="replace")
    return hashlib.pbkdf2_hmac("sha1", text, salt, ITERATIONS, 20)
