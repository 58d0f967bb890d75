"""All that can be asked of a server, in one class."""

from __future__ import annotations

import time
from uuid import UUID

from fastpump._administering import Administering
from fastpump._commands import Command
from fastpump._following import Following
from fastpump._framing import encode_frame
from fastpump._grouping import Grouping
from fastpump._operations import Ping
from fastpump._transacting import Transacting


class Operating(Following, Grouping, Administering, Transacting):
    """What can be asked of a server."""

    async def ping(self, conversation_id: UUID | None = None) -> float:
        """Send a Ping; returns the seconds until its Pong came."""
        correlation_id = self._new_id(conversation_id, "conversation_id")
        frame = encode_frame(Command.Ping, correlation_id)
        begin = time.perf_counter()
        await self._perform(Ping, correlation_id, frame)
        return time.perf_counter() - begin
