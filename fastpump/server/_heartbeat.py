"""The node's side of heartbeats (protocol document, sections 4.3 and 16)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 2.0
"""Seconds of silence after which a client is asked for a sign of life."""
TIMEOUT = 1.0
"""Seconds it then has to send anything."""


class Heartbeat:
    """Watches one connection: silence for `interval`, a request, silence for `timeout`, the end.

    Attributes:
        heard: set it to True whenever bytes arrive.

    Args:
        is_excused: asked before a silent client is blamed: True while we are not reading from it.
        send: sends a heartbeat request.
        give_up: closes the connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        interval: float,
        timeout: float,
        is_excused: Callable[[], bool],
        send: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        self.heard = False
        self._loop = loop
        self._interval = interval
        self._timeout = timeout
        self._is_excused = is_excused
        self._send = send
        self._give_up = give_up
        self._timer = loop.call_later(interval, self._on_interval)

    def stop(self) -> None:
        """The connection is gone."""
        self._timer.cancel()

    def _on_interval(self) -> None:
        if self._was_heard():
            self._timer = self._loop.call_later(self._interval, self._on_interval)
        else:
            self._send()
            self._timer = self._loop.call_later(self._timeout, self._on_timeout)

    def _on_timeout(self) -> None:
        if self._was_heard():
            self._timer = self._loop.call_later(self._interval, self._on_interval)
        else:
            self._give_up()

    def _was_heard(self) -> bool:
        was_heard = self.heard or self._is_excused()
        self.heard = False
        return was_heard
