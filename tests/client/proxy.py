"""A proxy before a real server that cuts connections: now, after some bytes, or for a reply."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from client.listening import Listener

WRITE_EVENTS_COMPLETED = 0x83


class CuttingProxy(Listener):
    """Hands frames through; the next `cut_replies` replies to writes end their connection.

    Attributes:
        bytes_left: how many may pass, in both directions, before all connections are cut, in the
            middle of a frame perhaps.
        delay: seconds by which everything comes later.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._target = (host, port)
        self._clients: set[asyncio.StreamWriter] = set()
        self.cut_replies = 0
        self.cuts = 0
        self.bytes_left = math.inf
        self.delay = 0.0

    def cut(self) -> None:
        """Cut all connections now, wherever they are."""
        for writer in self._clients:
            self.cuts += 1
            writer.transport.abort()

    async def _serve(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with aborted(to_client):
                from_server, to_server = await asyncio.open_connection(*self._target)
                async with aborted(to_server):
                    await self._hand_on(from_client, to_client, from_server, to_server)

    async def _hand_on(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._clients.add(to_client)
        upwards = asyncio.ensure_future(self._requests(from_client, to_server))
        try:
            await self._replies(from_server, to_client)
        finally:
            self._clients.discard(to_client)
            upwards.cancel()
            await asyncio.gather(upwards, return_exceptions=True)

    async def _requests(
        self, from_client: asyncio.StreamReader, to_server: asyncio.StreamWriter
    ) -> None:
        while data := await from_client.read(65536):
            await self._write(to_server, data)
        to_server.close()

    async def _replies(
        self, from_server: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        while True:
            prefix = await from_server.readexactly(4)
            frame = await from_server.readexactly(int.from_bytes(prefix, "little"))
            if frame[0] == WRITE_EVENTS_COMPLETED and self.cut_replies:
                self.cut_replies -= 1
                self.cuts += 1
                return
            await self._write(to_client, prefix + frame)

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if len(data) < self.bytes_left:
            self.bytes_left -= len(data)
            writer.write(data)
            return
        writer.write(data[: int(self.bytes_left)])
        self.bytes_left = math.inf
        for client in self._clients:
            self.cuts += 1
            client.close()  # what is on its way arrives


@contextlib.asynccontextmanager
async def aborted(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Cut the connection at the end."""
    try:
        yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
