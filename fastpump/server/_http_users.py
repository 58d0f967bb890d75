"""Users over HTTP, in the original's words: the pages below `/users` (section 13)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from fastpump.exceptions import UsageError
from fastpump.server._accounts import check_text, new_account
from fastpump.server._http_asking import CHALLENGE, require_method, url_of, user_of
from fastpump.server._user_changes import Outcome
from fastpump.server.http import HttpError, Response, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.server._access import User
    from fastpump.server._accounts import Account
    from fastpump.server._engine import Engine
    from fastpump.server._node import BaseNode
    from fastpump.server.http import Request

    Answer = Callable[[Response], None]
    Change = Callable[[Account], Account | Outcome | None]

CURRENT = "$current"

_EPOCH_OF_TICKS = datetime(1, 1, 1, tzinfo=timezone.utc)

_STATUSES = {
    Outcome.SUCCESS: HTTPStatus.OK,
    Outcome.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Outcome.CONFLICT: HTTPStatus.CONFLICT,
    Outcome.ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Outcome.UNAUTHORIZED: HTTPStatus.UNAUTHORIZED,
}


class UserPages:
    """Shows and changes users. Admins may do that; others may see themselves and change their own
    password.
    """

    def __init__(self, node: BaseNode, engine: Engine) -> None:
        self._node = node
        self._engine = engine
        self._commands: dict[str, Callable[[dict[str, Any]], Change]] = {
            "enable": lambda body: lambda account: replace(account, is_enabled=True),
            "disable": lambda body: lambda account: replace(account, is_enabled=False),
            "reset-password": _reset_password,
            "change-password": _change_password,
        }

    def __call__(self, request: Request, answer: Answer) -> None:
        """Answer a request below `/users`. Raises HttpError."""
        user = user_of(self._engine.users, request)
        match request.path[1:]:
            case ():
                require_method(request, "GET", "POST")
                if request.method == "GET":
                    answer(self._list(user))
                else:
                    self._create(user, request, answer)
            case (login,):
                require_method(request, "GET", "PUT", "DELETE")
                if request.method == "GET":
                    answer(self._show(user, login))
                elif request.method == "PUT":
                    self._change(user, login, _update(_body_of(request)), answer)
                else:
                    self._change(user, login, lambda account: None, answer)
            case (login, "command", name) if name in self._commands:
                require_method(request, "POST")
                change = self._commands[name](_body_of(request))
                is_own = name == "change-password" and user is not None and user.login == login
                self._change(user, login, change, answer, is_allowed=is_own)
            case _:
                raise HttpError(HTTPStatus.NOT_FOUND)

    def _list(self, user: User | None) -> Response:
        if not _is_admin(user):
            return _answered(Outcome.UNAUTHORIZED)
        users = self._engine.users
        accounts = [users.account(login) for login in sorted(users.logins())]
        return _answered(Outcome.SUCCESS, data=[self._details(account) for account in accounts])

    def _show(self, user: User | None, login: str) -> Response:
        if user is not None and login == CURRENT:
            login = user.login
        if user is None or not (user.is_admin or user.login == login):
            return _answered(Outcome.UNAUTHORIZED)
        account = self._engine.users.find(login)
        if account is None:
            return _answered(Outcome.NOT_FOUND)
        return _answered(Outcome.SUCCESS, data=self._details(account))

    def _details(self, account: Account) -> dict[str, Any]:
        page = ("users", account.login)
        toggle = "disable" if account.is_enabled else "enable"
        links = {
            **{command: (*page, "command", command) for command in (*_PASSWORD_COMMANDS, toggle)},
            **dict.fromkeys(("edit", "delete"), page),
        }
        details: dict[str, Any] = {
            "loginName": account.login,
            "fullName": account.full_name,
            "groups": account.groups,
            "disabled": not account.is_enabled,
            "links": [
                {"href": url_of(self._node, *path), "rel": rel} for rel, path in links.items()
            ],
        }
        if account.changed is not None:
            changed = _EPOCH_OF_TICKS + timedelta(microseconds=account.changed // 10)
            details["dateLastUpdated"] = changed.isoformat()
        return details

    def _create(self, user: User | None, request: Request, answer: Answer) -> None:
        body = _body_of(request)
        login, password = _text(body, "loginName", least=1), _text(body, "password")
        account = new_account(login, password, _groups(body), _text(body, "fullName"))

        def decide(existing: Account | None) -> Account | Outcome:
            if existing is None:
                return account
            # As in the original, the same request again is no conflict.
            return Outcome.SUCCESS if existing.accepts(password) else Outcome.CONFLICT

        def done(outcome: Outcome) -> None:
            if outcome is not Outcome.SUCCESS:
                answer(_answered(outcome, loginName=login))
                return
            location = ("Location", url_of(self._node, "users", login))
            response = _answered(outcome, loginName=login)
            answer(response._replace(status=HTTPStatus.CREATED, headers=(location,)))

        if _is_admin(user):
            self._engine.change_user(login, decide, done)
        else:
            done(Outcome.UNAUTHORIZED)

    def _change(
        self,
        user: User | None,
        login: str,
        change: Change,
        answer: Answer,
        *,
        is_allowed: bool = False,
    ) -> None:
        """Change a user there is, for an admin or whoever is allowed to."""

        def decide(existing: Account | None) -> Account | Outcome | None:
            return Outcome.NOT_FOUND if existing is None else change(existing)

        def done(outcome: Outcome) -> None:
            answer(_answered(outcome, loginName=login))

        if is_allowed or _is_admin(user):
            self._engine.change_user(login, decide, done)
        else:
            done(Outcome.UNAUTHORIZED)


_PASSWORD_COMMANDS = ("reset-password", "change-password")


def _is_admin(user: User | None) -> bool:
    return user is not None and user.is_admin


def _update(body: dict[str, Any]) -> Change:
    full_name, groups = _text(body, "fullName"), _groups(body)
    return lambda account: replace(account, full_name=full_name, groups=groups)


def _reset_password(body: dict[str, Any]) -> Change:
    password = _text(body, "newPassword")
    return lambda account: account.with_password(password)


def _change_password(body: dict[str, Any]) -> Change:
    current, new = _text(body, "currentPassword"), _text(body, "newPassword")

    def change(account: Account) -> Account | Outcome:
        return account.with_password(new) if account.accepts(current) else Outcome.UNAUTHORIZED

    return change


def _answered(outcome: Outcome, **content: Any) -> Response:
    """The original's way of saying how it went."""
    is_success = outcome is Outcome.SUCCESS
    body = {**content, "success": is_success, "error": outcome.value}
    response = json_response(body, _STATUSES[outcome])
    return response._replace(headers=(CHALLENGE,)) if outcome is Outcome.UNAUTHORIZED else response


# --- what comes with a request ---


def _body_of(request: Request) -> dict[str, Any]:
    """The JSON object, or an empty one; its names in lower case. Raises HttpError."""
    try:
        content = orjson.loads(request.body or b"{}")
    except orjson.JSONDecodeError:
        raise HttpError(HTTPStatus.BAD_REQUEST) from None
    if not isinstance(content, dict):
        raise HttpError(HTTPStatus.BAD_REQUEST)
    return {name.lower(): value for name, value in content.items()}


def _text(body: dict[str, Any], name: str, least: int = 0) -> str:
    text = body.get(name.lower()) or ""
    try:
        check_text(name, text, least=least)
    except UsageError:
        raise HttpError(HTTPStatus.BAD_REQUEST) from None
    return str(text)


def _groups(body: dict[str, Any]) -> tuple[str, ...]:
    groups = body.get("groups") or []
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise HttpError(HTTPStatus.BAD_REQUEST)
    return tuple(groups)
