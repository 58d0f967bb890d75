"""The HTTP side of a node for tests: asked by the standard library's client."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from nodelib import PATIENCE

if TYPE_CHECKING:
    from nodelib import Auth, NodeThread


def http_address(node: NodeThread) -> tuple[str, int]:
    address: tuple[str, int] = node.run(lambda n: (n.host, n.http_port))
    return address


def ask(
    node: NodeThread, method: str, target: str, auth: Auth = None, body: object = None
) -> tuple[int, Any]:
    """Status and content of an answer; `body` goes as JSON, unless it is bytes."""
    status, _, content = ask_with_headers(node, method, target, auth, body)
    return status, content


def ask_with_headers(
    node: NodeThread, method: str, target: str, auth: Auth = None, body: object = None
) -> tuple[int, http.client.HTTPMessage, Any]:
    connection = http.client.HTTPConnection(*http_address(node), timeout=PATIENCE)
    headers = {} if auth is None else {"Authorization": basic(auth)}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body)
    try:
        connection.request(method, target, data, headers)
        response = connection.getresponse()
        content = response.read()
        assert response.getheader("Connection") == "close"
        return response.status, response.headers, json.loads(content) if content else None
    finally:
        connection.close()


def basic(auth: tuple[str, str]) -> str:
    return "Basic " + b64encode(":".join(auth).encode()).decode()
