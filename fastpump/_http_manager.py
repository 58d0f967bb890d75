"""Asking a server over its HTTP port: what everything that manages something there is made of."""

from __future__ import annotations

import asyncio
import os
import ssl
from base64 import b64encode
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from fastpump._arguments import check_host, check_name, check_number
from fastpump._settings import context_for
from fastpump.exceptions import (
    ClientClosed,
    ConnectFailed,
    OperationTimedOut,
    ProtocolError,
    UsageError,
)

if TYPE_CHECKING:
    import aiohttp

LONGEST_ANSWER = 16 * 1024 * 1024
"""Bytes."""

ManagerT = TypeVar("ManagerT", bound="HttpManager")


class HttpManager:
    """The base of what manages something over HTTP; `Users` describes its arguments."""

    _area: str
    """The first segment of its pages' path."""

    def __init__(
        self,
        host: str = "localhost",
        port: int = 2113,
        username: str | None = None,
        password: str | None = None,
        *,
        tls: bool | ssl.SSLContext = False,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: float = 7.0,
    ) -> None:
        check_host("host", host)
        check_number("port", port, 1, 65535)
        if (username is None) != (password is None):
            raise UsageError("password" if password is None else "username", "is missing")
        if not isinstance(timeout, (int, float)) or not timeout > 0:
            raise UsageError("timeout", f"must be seconds above 0, not {timeout!r:.80}")
        try:
            import aiohttp
            from yarl import URL
        except ImportError:
            raise UsageError(self._area, "needs aiohttp: pip install 'fastpump[cluster]'") from None
        self._http = aiohttp
        self._url = URL
        self._context = context_for(tls, ca_file, None)
        self._timeout = timeout
        name = f"[{host}]" if ":" in host else host
        self._start = f"http{'s' if self._context else ''}://{name}:{port}/{self._area}/"
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if username is not None and password is not None:
            self._headers["Authorization"] = _basic(username, password)
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._start}>"

    async def __aenter__(self: ManagerT) -> ManagerT:
        self._session = self._http.ClientSession(
            connector=self._http.TCPConnector(force_close=True),
            timeout=self._http.ClientTimeout(total=self._timeout),
            cookie_jar=self._http.DummyCookieJar(),
            auto_decompress=False,
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(
        self, method: str, path: Sequence[str], body: Any = None, query: str = ""
    ) -> tuple[int, bytes]:
        """Ask for a page of the area: the status and the content of the answer."""
        if self._session is None:
            name = type(self).__name__
            raise ClientClosed(f"{name} has to be entered: async with {name}(…) as {self._area}")
        url = self._start + "/".join(quote(name, safe="$") for name in path) + query
        try:
            async with self._session.request(
                method,
                self._url(url, encoded=True),
                json=body,
                ssl=self._context or True,
                allow_redirects=False,
            ) as response:
                return response.status, await _read(response)
        except asyncio.TimeoutError:
            raise OperationTimedOut(None, f"{method} {url}", self._timeout) from None
        except (self._http.ClientError, OSError) as error:
            raise ConnectFailed(f"{method} {url}: {error or type(error).__name__}") from error


def text(value: object) -> str:
    """A value in an answer that has to be a text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} instead of a text")
    return value


def _basic(username: str, password: str) -> str:
    """The header of Basic authentication (RFC 7617)."""
    check_name("username", username)
    if ":" in username:
        raise UsageError("username", "must not have a colon to be sent over HTTP")
    if not isinstance(password, str):
        raise UsageError("password", f"must be a str, not {type(password).__name__}")
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > LONGEST_ANSWER:
            raise ProtocolError(f"The server's answer is longer than {LONGEST_ANSWER} bytes")
    return bytes(content)
