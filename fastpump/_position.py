"""Where an event lies in the log of all events (protocol document, section 5.2)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class _LogOffsets(NamedTuple):
    commit: int
    prepare: int


class Position(_LogOffsets):
    """A pair of log offsets. They are opaque: compare them, never calculate with them."""

    __slots__ = ()

    min: ClassVar[Position]

    @classmethod
    def for_direction(cls, direction: int, pos: Position | PositionSentinel | None) -> Position:
        """Where a read in this direction starts; by default at the end of the log it comes from."""
        if pos is None:
            pos = End if direction else Beginning
        return pos.position if isinstance(pos, PositionSentinel) else pos


Position.min = Position(-1, -1)


class PositionSentinel:
    """One end of the log; the only two are `Beginning` and `End`."""

    __slots__ = ("name", "position")

    def __init__(self, name: str, position: Position) -> None:
        self.name = name
        self.position = position

    def __repr__(self) -> str:
        return f"Position: {self.name}"


Beginning = PositionSentinel("Beginning", Position(0, 0))
End = PositionSentinel("End", Position(-1, -1))
