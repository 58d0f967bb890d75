"""What the node answers over HTTP, and who does (protocol document, sections 9.8, 11.3 and 13)."""

from __future__ import annotations

import os
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastpump.server._gossip import ORIGINAL_VERSION, gossip
from fastpump.server._http_asking import require_method
from fastpump.server._http_groups import GroupPages
from fastpump.server._http_users import UserPages
from fastpump.server.http import HttpError, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.server._engine import Engine
    from fastpump.server._gossip import GossipShape
    from fastpump.server._node import BaseNode
    from fastpump.server.http import Handler, Request, Response


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
        self._sections: dict[str, Handler] = {
            "users": UserPages(node, engine),
            "subscriptions": GroupPages(node, engine),
        }

    def __call__(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answer a request. Raises HttpError."""
        page = self._pages.get(request.path)
        if page is not None:
            require_method(request, "GET")
            answer(json_response(page()))
            return
        section = self._sections.get(request.path[0]) if request.path else None
        if section is None:
            raise HttpError(HTTPStatus.NOT_FOUND)
        section(request, answer)

    def _gossip(self) -> dict[str, Any]:
        return gossip(self._node, self._node.members(), self._engine, self._shape)

    def _info(self) -> dict[str, Any]:
        return {
            "esVersion": ORIGINAL_VERSION,
            "state": self._node.state.lower(),
            "projectionsMode": "None",
        }

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
