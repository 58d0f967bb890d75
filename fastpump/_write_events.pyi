from collections.abc import Awaitable
from typing import Any
from uuid import UUID

from fastpump._commands import Command
from fastpump._framing import Frame
from fastpump._futures import Futures
from fastpump._operation import Retry
from fastpump._operations import Change
from fastpump._outlet import Outlet
from fastpump._replies import WriteResult

class WriteEvents(Change):
    reply: Command
    def is_reply(self, frame: Frame) -> bool: ...
    def on_reply(self, frame: Frame, retry: Retry) -> None: ...

class SingleWrites:
    def __init__(self, futures: Futures, timeout: float, require_master: bool) -> None: ...
    def write(
        self,
        outlet: Outlet,
        stream: str,
        expected_version: int,
        type: str,
        data: Any,
        metadata: Any,
        id: UUID | None,
        require_master: bool | None,
    ) -> Awaitable[WriteResult]: ...
