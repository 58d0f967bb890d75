"""What servers have in common that serve each connection in a task of its own."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from typing import TypeVar

T = TypeVar("T", bound="Listener")


class Listener(ABC):
    """Listens on a free port of this machine while its `async with` block runs.

    Args:
        context: of TLS; None for none.
    """

    host = "127.0.0.1"

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self: T) -> T:
        self._server = await asyncio.start_server(
            self._on_connection, self.host, 0, ssl=self._context
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, and close it."""
