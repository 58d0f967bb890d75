from typing import Final

from fastpump.server._ids import IdTable
from fastpump.server._messages import WriteRequest

SEGMENT_SIZE: Final[int]

class LogWriter:
    def __init__(self, position: int, ids: IdTable | None) -> None: ...
    @property
    def position(self) -> int: ...
    @property
    def last_position(self) -> int: ...
    def append(
        self, request: WriteRequest, stream: str, stream_id: int, first_number: int, ticks: int
    ) -> list[int]: ...
    def append_transaction(
        self,
        requests: list[WriteRequest],
        prepares: list[int],
        stream: str,
        stream_id: int,
        first_number: int,
        ticks: int,
    ) -> list[int]: ...
    def append_tombstone(
        self, stream: str, stream_id: int, event_id: bytes, ticks: int
    ) -> list[int]: ...
    def skip(self, size: int) -> int: ...
    def take_segments(self) -> list[tuple[int, bytes]]: ...
