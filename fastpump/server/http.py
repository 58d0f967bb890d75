"""HTTP/1.1 as far as the node needs it: one bounded request, one answer, the end.

The standard library is enough for that. Its own servers block a thread, a framework would be
larger than the node, and what is left for a parser is a request line, headers and a short body.
Everything is bounded: the size of a request, the time it may take, the number of connections. A
connection carries one request, so that nothing has to be kept apart between two.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("fastpump.server")

MAX_HEAD = 16 * 1024
"""Bytes of request line and headers."""
MAX_BODY = 64 * 1024
"""Bytes of a request's body."""
MAX_CONNECTIONS = 256
"""Open at a time; further ones are closed at once."""
SECONDS = 10.0
"""From the connection's beginning until its answer is taken, an ordered delay not counted."""

_END_OF_HEAD = b"\r\n\r\n"


class Request(NamedTuple):
    """A request as its handler sees it.

    Attributes:
        path: the segments of the path, decoded: ("subscriptions", "a/b").
        query: the last value of each parameter.
        credentials: login and password of Basic authentication, if there are any.
        body: what came with it, which may hold a password.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    credentials: tuple[str, str] | None
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<Request {self.method} /{'/'.join(self.path)}>"


class Response(NamedTuple):
    status: int = HTTPStatus.OK
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        if self.body:
            lines.append("Content-Type: application/json; charset=utf-8")
        lines += [f"Content-Length: {len(self.body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines).encode() + _END_OF_HEAD + self.body


class HttpError(Exception):
    """The request gets this answer instead of a handler's."""

    def __init__(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        super().__init__(status.phrase)
        self.response = Response(status, headers=headers)


class Handler(Protocol):
    def __call__(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Give `answer` a response, now or later, once. Raises HttpError instead."""


class Interference(Protocol):
    """Who may want another answer sent: the node's faults."""

    def disturb_http(self, response: Response) -> tuple[Response, float]:
        """The answer to send, and the seconds to wait before."""


def json_response(content: object, status: int = HTTPStatus.OK) -> Response:
    return Response(status, orjson.dumps(content))


class HttpConnections:
    """The open connections, and the factory of new ones.

    Attributes:
        are_wanted: new ones may come; others are cut, as by the `Sessions` of the node.
    """

    def __init__(self, handler: Handler, interference: Interference) -> None:
        self.handler = handler
        self.interference = interference
        self.open: set[HttpConnection] = set()
        self.are_wanted = True

    def connection(self) -> HttpConnection:
        """A new connection's protocol."""
        return HttpConnection(self)

    def abort(self) -> None:
        """Cut all of them."""
        for connection in list(self.open):
            connection.abort()


class HttpConnection(asyncio.Protocol):
    """One connection: collects a request, answers it, closes."""

    def __init__(self, connections: HttpConnections) -> None:
        self._connections = connections
        self._received = bytearray()
        self._is_complete = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(SECONDS, self.abort)
        self._connections.open.add(self)
        if not self._connections.are_wanted or len(self._connections.open) > MAX_CONNECTIONS:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_complete = True
        self._timer.cancel()
        self._connections.open.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._is_complete:
            return
        self._received += data
        try:
            request = read_request(self._received)
            if request is not None:
                self._is_complete = True
                self._connections.handler(request, self._answer)
        except HttpError as error:
            self._answer(error.response)
        except Exception:
            log.exception("An HTTP request failed")
            self._answer(Response(HTTPStatus.INTERNAL_SERVER_ERROR))

    def abort(self) -> None:
        self._transport.abort()

    def _answer(self, response: Response) -> None:
        if self._transport.is_closing():
            return
        self._is_complete = True
        response, delay = self._connections.interference.disturb_http(response)
        if delay == 0:
            self._send(response)
            return
        self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._send, response)

    def _send(self, response: Response) -> None:
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(SECONDS, self.abort)
        self._transport.write(response.encode())
        self._transport.close()


def read_request(received: bytes | bytearray) -> Request | None:
    """The request at the beginning of these bytes, or None if more of it has to come.

    Raises:
        HttpError: it is not one, or is larger than allowed.
    """
    end = received.find(_END_OF_HEAD, 0, MAX_HEAD + len(_END_OF_HEAD))
    if end < 0:
        if len(received) > MAX_HEAD:
            raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return None
    first, *rest = bytes(received[:end]).decode("latin-1").split("\r\n")
    method, target = _read_request_line(first)
    headers = _read_headers(rest)
    start = end + len(_END_OF_HEAD)
    size = _size_of_body(headers)
    if len(received) < start + size:
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST) from None
    path = tuple(unquote(segment) for segment in parts.path.split("/") if segment)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    credentials = _read_credentials(headers.get("authorization"))
    return Request(method, path, query, credentials, bytes(received[start : start + size]))


def _read_request_line(line: str) -> tuple[str, str]:
    words = line.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[2].startswith("HTTP/"):
        raise HttpError(HTTPStatus.BAD_REQUEST)
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    return method, target


def _read_headers(lines: list[str]) -> dict[str, str]:
    """Names are lower-case. No header the node reads may come twice."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpError(HTTPStatus.BAD_REQUEST)
        name = name.lower()
        if name in headers and name in ("content-length", "transfer-encoding", "authorization"):
            raise HttpError(HTTPStatus.BAD_REQUEST)
        headers[name] = value.strip()
    return headers


def _size_of_body(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED)
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST)
    if len(text) > len(str(MAX_BODY)) or int(text) > MAX_BODY:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(text)


def _read_credentials(header: str | None) -> tuple[str, str] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        login, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise HttpError(HTTPStatus.BAD_REQUEST) from None
    if not colon:
        raise HttpError(HTTPStatus.BAD_REQUEST)
    return login, password


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
