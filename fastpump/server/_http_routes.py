"""What the node answers over HTTP (protocol document, sections 9.8 and 11.3)."""

from __future__ import annotations

import os
import re
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastpump.server._access import WRITE
from fastpump.server._gossip import ORIGINAL_VERSION, gossip
from fastpump.server._metadata import SETTINGS_STREAM
from fastpump.server.http import HttpError, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.server._access import User
    from fastpump.server._engine import Engine
    from fastpump.server._gossip import GossipShape
    from fastpump.server._node import BaseNode
    from fastpump.server.http import Request, Response

_NUMBER = re.compile("[0-9]{1,19}")


class Routes:
    """Finds who answers a request.

    Args:
        node: whose port it is.
        shape: whose names gossip and info use.
    """

    def __init__(self, node: BaseNode, engine: Engine, shape: GossipShape) -> None:
        self._node = node
        self._engine = engine
        self._shape = shape
        self._started = time.time()
        self._pages: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {
            ("gossip",): self._gossip,
            ("ping",): lambda: {"text": "Ping request successfully handled"},
            ("info",): self._info,
            ("stats",): self._stats,
        }

    def __call__(self, request: Request) -> Response:
        page = self._pages.get(request.path)
        if page is not None:
            _require_method("GET", request)
            return json_response(page())
        if len(request.path) == 4:
            first, stream, group, last = request.path
            if (first, last) == ("subscriptions", "replayParked"):
                _require_method("POST", request)
                return self._replay_parked(request, stream, group)
        raise HttpError(HTTPStatus.NOT_FOUND)

    def _gossip(self) -> dict[str, Any]:
        return gossip(self._node, self._node.members(), self._engine, self._shape)

    def _info(self) -> dict[str, Any]:
        return {
            "esVersion": ORIGINAL_VERSION,
            "state": self._node.state.lower(),
            "projectionsMode": "None",
        }

    def _replay_parked(self, request: Request, stream: str, group: str) -> Response:
        """Deliver parked events again, for whoever may write to `$settings`, as in the original."""
        stop_at = request.query.get("stopAt")
        if stop_at is not None and not _NUMBER.fullmatch(stop_at):
            raise HttpError(HTTPStatus.BAD_REQUEST)
        if not self._engine.access.allows(self._user(request), SETTINGS_STREAM, WRITE):
            raise _unauthorized()
        number = None if stop_at is None else int(stop_at)
        if not self._engine.groups.replay_parked(stream, group, number):
            raise HttpError(HTTPStatus.NOT_FOUND)
        return json_response({"result": "Success", "reason": ""})

    def _user(self, request: Request) -> User | None:
        """Who asks; None is anonymous."""
        if request.credentials is None:
            return None
        user = self._engine.users.authenticate(*request.credentials)
        if user is None:
            raise _unauthorized()
        return user

    def _stats(self) -> dict[str, Any]:
        """The part of the original's numbers that exist here, by their names."""
        end = self._engine.store.end
        return {
            "proc": {
                "id": os.getpid(),
                "upTime": time.time() - self._started,
                "cpuTime": time.process_time(),
                "threadsCount": threading.active_count(),
                "tcp": {"connections": self._node.connection_count},
            },
            "es": {"checksum": end, "checksumNonFlushed": end},
        }


def _require_method(method: str, request: Request) -> None:
    if request.method != method:
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", method))


def _unauthorized() -> HttpError:
    return HttpError(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", 'Basic realm="node"'))
