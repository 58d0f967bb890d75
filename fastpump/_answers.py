"""Acks and naks of a persistent subscription, gathered into few frames."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from fastpump._events import Event
from fastpump._requests import encode_ack, encode_nak

MAX_IDS = 2000
"""Most ids in one ack or nak, as the reference client has it."""

LONGEST_DELAY = 0.01
"""Seconds that an answer may wait for others."""


class Nak(NamedTuple):
    """Why and how events are refused."""

    action: int
    message: str


class Answers:
    """What was answered and is not sent yet.

    It is sent at the end of the event loop's turn if the server may be waiting for it, and soon
    after otherwise. Answers belong to the connection that delivered the events: when that is lost
    they are forgotten, since on the next one they would meet other deliveries.

    Args:
        send: sends a frame.
        enough: number of answers from which on the server may be waiting for them.
    """

    def __init__(self, send: Callable[[bytes], None], enough: int) -> None:
        self._send = send
        self._enough = enough
        self._correlation_id = b""
        self._subscription_id = ""
        self._waiting: dict[Nak | None, list[Event | UUID]] = {}
        self._count = 0
        self._timer: asyncio.Handle | None = None
        self._is_urgent = False

    def address_to(self, correlation_id: bytes, subscription_id: str) -> None:
        """Whom they are sent to from now on."""
        self._correlation_id = correlation_id
        self._subscription_id = subscription_id

    def add(self, ids: list[Event | UUID], nak: Nak | None, is_urgent: bool) -> None:
        """Answer events, with an ack if there is no nak; `is_urgent`: the consumer has no other."""
        self._waiting.setdefault(nak, []).extend(ids)
        self._count += len(ids)
        self._plan(is_urgent or self._count >= self._enough)

    def flush(self) -> None:
        """Send them now."""
        waiting = self._waiting
        self._waiting = {}
        self._settle()
        for nak, ids in waiting.items():
            for begin in range(0, len(ids), MAX_IDS):
                self._send(self._encode(nak, ids[begin : begin + MAX_IDS]))

    def forget(self) -> None:
        """Send none of them."""
        self._waiting = {}
        self._settle()

    def _settle(self) -> None:
        self._count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self, is_urgent: bool) -> None:
        if self._timer is not None:
            if self._is_urgent or not is_urgent:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._is_urgent = is_urgent
        self._timer = (
            loop.call_soon(self.flush) if is_urgent else loop.call_later(LONGEST_DELAY, self.flush)
        )

    def _encode(self, nak: Nak | None, ids: list[Event | UUID]) -> bytes:
        if nak is None:
            return encode_ack(self._correlation_id, self._subscription_id, ids)
        return encode_nak(self._correlation_id, self._subscription_id, ids, nak.action, nak.message)
