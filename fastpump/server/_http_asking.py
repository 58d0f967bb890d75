"""What the pages of the node's HTTP side have in common."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastpump.server.http import HttpError

if TYPE_CHECKING:
    from fastpump.server._access import User
    from fastpump.server._node import BaseNode
    from fastpump.server._users import Users
    from fastpump.server.http import Request

CHALLENGE = ("WWW-Authenticate", 'Basic realm="ES"')
"""The header of an answer that credentials are missing or wrong."""


def require_method(request: Request, *methods: str) -> None:
    """Raises HttpError for any other."""
    if request.method not in methods:
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", ", ".join(methods)))


def user_of(users: Users, request: Request) -> User | None:
    """Who asks; None is anonymous. Raises HttpError for wrong credentials."""
    if request.credentials is None:
        return None
    user = users.authenticate(*request.credentials)
    if user is None:
        raise unauthorized()
    return user


def unauthorized() -> HttpError:
    return HttpError(HTTPStatus.UNAUTHORIZED, CHALLENGE)


def url_of(node: BaseNode, *segments: str) -> str:
    """The address of a page of the node."""
    scheme = "https" if node.is_secure else "http"
    path = "/".join(quote(segment, safe="") for segment in segments)
    return f"{scheme}://{node.host}:{node.http_port}/{path}"
