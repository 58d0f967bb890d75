"""The users of a server, managed over its HTTP port as the reference client's UsersManager does.

    async with Users("localhost", username="admin", password="changeit") as users:
        await users.create("ada", "Ada Lovelace", "engine", groups=["writers"])
        print(await users.get("ada"))

Needs aiohttp: `pip install 'fastpump[cluster]'`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from fastpump._arguments import check_name
from fastpump._http_manager import HttpManager, text
from fastpump.exceptions import (
    ProtocolError,
    UsageError,
    UserCommandConflict,
    UserCommandFailed,
    UserCommandUnauthorized,
    UserNotFound,
)

__all__ = ["User", "Users"]

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?")

_ERRORS: dict[int, type[UserCommandFailed]] = {
    401: UserCommandUnauthorized,
    403: UserCommandUnauthorized,
    404: UserNotFound,
    409: UserCommandConflict,
}


@dataclass(frozen=True)
class User:
    """A user as the server tells of one.

    Attributes:
        login: what it logs in with.
        full_name: for people to read.
        groups: names that access lists may name; `$admins` may everything.
        disabled: refused until enabled.
        updated: when it was changed last, if the server says so.
    """

    login: str
    full_name: str = ""
    groups: tuple[str, ...] = ()
    disabled: bool = False
    updated: datetime | None = None


UserList = list[User]


class Users(HttpManager):
    """Creates, shows and changes users. Use it in `async with`.

    Only members of `$admins` may do that; everybody may ask for `current` and change their own
    password.

    Args:
        host: the server.
        port: its port for HTTP, not the one events go by.
        username, password: who asks; both or neither.
        tls: speak https, and verify the certificate; or a context of your own that says how.
        ca_file: certificates (PEM) to verify it with instead of the system's; needs `tls=True`.
        timeout: seconds until a call has to have its answer.

    Raises:
        UsageError: an argument makes no sense, or aiohttp is not installed.

    Raises (every call):
        UserCommandUnauthorized: the credentials are wrong, missing, or not enough.
        UserCommandFailed: the server refused for another reason; its `status` is that of HTTP.
        ConnectFailed: the server cannot be reached.
        OperationTimedOut: there was no answer in time; a change may have been made.
        ProtocolError: the answer is not one of Event Store.
        ClientClosed: outside of the `async with`.
    """

    _area = "users"

    # --- showing ---

    async def get(self, login: str) -> User:
        """One user.

        Raises:
            UserNotFound: there is none of that login.
        """
        return _user(_data(await self._ask("GET", login)))

    async def current(self) -> User:
        """The user whose credentials these are."""
        return _user(_data(await self._ask("GET", "$current")))

    async def list(self) -> UserList:
        """All users, by login."""
        data = _data(await self._ask("GET"))
        if not isinstance(data, list):
            raise ProtocolError("The server's list of users is no list")
        return [_user(item) for item in data]

    # --- changing ---

    async def create(
        self, login: str, full_name: str, password: str, groups: Iterable[str] = ()
    ) -> None:
        """Add a user.

        Raises:
            UserCommandConflict: there is one of that login, with another password. With the same
                one the server takes it for a repetition, and nothing changes.
        """
        check_name("login", login)
        check_name("full_name", full_name)
        check_name("password", password)
        await self._ask(
            "POST",
            loginName=login,
            fullName=full_name,
            groups=_names("groups", groups),
            password=password,
        )

    async def update(self, login: str, full_name: str, groups: Iterable[str] = ()) -> None:
        """Give a user another name and other groups, in place of what there is.

        Raises:
            UserNotFound: there is none of that login.
        """
        check_name("full_name", full_name)
        await self._ask("PUT", login, fullName=full_name, groups=_names("groups", groups))

    async def enable(self, login: str) -> None:
        """Let a user in again. Raises UserNotFound."""
        await self._ask("POST", login, "command", "enable")

    async def disable(self, login: str) -> None:
        """Refuse a user until `enable`. Raises UserNotFound."""
        await self._ask("POST", login, "command", "disable")

    async def delete(self, login: str) -> None:
        """Remove a user. Raises UserNotFound."""
        await self._ask("DELETE", login)

    async def change_password(self, login: str, current_password: str, new_password: str) -> None:
        """Change the password of who knows it.

        Raises:
            UserCommandUnauthorized: also for a wrong `current_password`.
            UserNotFound: there is none of that login.
        """
        check_name("current_password", current_password)
        check_name("new_password", new_password)
        passwords = {"currentPassword": current_password, "newPassword": new_password}
        await self._ask("POST", login, "command", "change-password", **passwords)

    async def reset_password(self, login: str, new_password: str) -> None:
        """Set a password without knowing the one there is. Raises UserNotFound."""
        check_name("new_password", new_password)
        await self._ask("POST", login, "command", "reset-password", newPassword=new_password)

    async def _ask(self, method: str, *path: str, **body: Any) -> bytes:
        """One request to a page below `/users/`. `path` begins with a login, or is empty."""
        for name in path:
            check_name("login", name)
        sent = body if method in ("POST", "PUT") else None
        status, answer = await self._request(method, path, sent)
        if status not in (200, 201):
            raise _ERRORS.get(status, UserCommandFailed)(
                path[0] if path else body.get("loginName"), status
            )
        return answer


def _data(answer: bytes) -> Any:
    """What was asked for, from what the server says about it."""
    try:
        return orjson.loads(answer)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ProtocolError("The server's answer is not about users") from None


def _user(data: Any) -> User:
    try:
        updated = data.get("dateLastUpdated")
        return User(
            text(data["loginName"]),
            text(data.get("fullName") or ""),
            tuple(map(text, data.get("groups") or ())),
            bool(data.get("disabled")),
            None if updated is None else _time(updated),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ProtocolError("The server's answer tells of no user") from None


def _time(given: str) -> datetime:
    # Python 3.10 reads neither Z nor the seven decimals of .NET.
    match = _TIME.fullmatch(given)
    if match is None:
        raise ValueError(given)
    seconds, fraction, zone = match.groups()
    micros = f"{fraction or 0:0<6.6}"
    offset = "+00:00" if zone in ("Z", "", None) else zone
    return datetime.fromisoformat(f"{seconds}.{micros}{offset}")


def _names(argument: str, names: Iterable[str]) -> Any:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise UsageError(argument, f"must be an iterable of str, not {names!r:.80}")
    given = [*names]
    for name in given:
        check_name(argument, name)
    return given
