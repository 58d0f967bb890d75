"""A scripted HTTP endpoint that tells of a cluster's members, and the words it does so in.

async with GossipPeer(gossip_of(member("Leader", peer.port))) as seed:
    client = fastpump.connect(gossip_seeds=[seed.address])
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import Any

from client.listening import Listener

Member = dict[str, Any]


def member(
    state: str,
    port: int = 1113,
    *,
    host: str = "127.0.0.1",
    http: int = 2113,
    alive: bool = True,
    secure: int = 0,
    old_names: bool = False,
) -> Member:
    """A member as servers from version 20 on describe it; with `old_names` as those before."""
    fields = {
        "instanceId": "3a9d3e3c-7e3c-4a32-8b5b-0fb7b1f27a25",
        "timeStamp": "2026-01-01T00:00:00Z",
        "state": state,
        "isAlive": alive,
        "internalTcpIp": "10.9.9.9",
        "internalTcpPort": 1112,
        "externalTcpIp": host,
        "externalTcpPort": port,
        "externalSecureTcpPort": secure,
        "lastCommitPosition": 77,
    }
    if old_names:
        internal = {"internalHttpIp": "10.9.9.9", "internalHttpPort": 2112}
        return {**fields, **internal, "externalHttpIp": host, "externalHttpPort": http}
    return {**fields, "httpEndPointIp": host, "httpEndPointPort": http, "isReadOnlyReplica": False}


def gossip_of(*members: Member) -> bytes:
    return http_answer(json.dumps({"members": members, "serverIp": "x", "serverPort": 1}).encode())


def http_answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class GossipPeer(Listener):
    """Answers every request with `answer`, which may be changed; None is no answer at all.

    With `stays_open` it does not close the connection behind the answer.

    Attributes:
        requests: the heads of all requests so far.
    """

    def __init__(
        self,
        answer: bytes | None,
        context: ssl.SSLContext | None = None,
        *,
        stays_open: bool = False,
    ) -> None:
        super().__init__(context)
        self.answer = answer
        self.requests: list[str] = []
        self._stays_open = stays_open

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(self.answer or b"")
                await writer.drain()
                if self.answer is None or self._stays_open:
                    await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
