from typing import Any
from uuid import UUID

from fastpump._commands import Command
from fastpump._framing import Frame
from fastpump._ids import CorrelationIds
from fastpump._operation import Retry, Waiter
from fastpump._operations import Change

class WriteEvents(Change):
    reply: Command
    def is_reply(self, frame: Frame) -> bool: ...
    def on_reply(self, frame: Frame, retry: Retry) -> None: ...

def write_of_event(
    ids: CorrelationIds,
    waiter: Waiter,
    timeout: float,
    stream: str,
    expected_version: int,
    type: str,
    data: Any,
    metadata: Any,
    id: UUID | None,
    require_master: bool,
) -> WriteEvents: ...
