"""How many pushes a client has not taken yet (protocol document, section 1.3, the last row)."""

from __future__ import annotations

from collections import deque


class UnsentPushes:
    """Counts packages by what is known in bytes: how much of the output still waits.

    Attributes:
        packages: those that wait, as of the last `settle`.
    """

    __slots__ = ("_bytes", "_pushes", "packages")

    def __init__(self) -> None:
        self.packages = 0
        self._bytes = 0
        self._pushes: deque[tuple[int, int]] = deque()

    def add(self, size: int, packages: int) -> None:
        """So many packages were queued behind all the others."""
        self._bytes += size
        self.packages += packages
        self._pushes.append((self._bytes, packages))

    def settle(self, waiting: int) -> None:
        """No more than `waiting` bytes have not been sent: what lies before them has."""
        sent = self._bytes - waiting
        while self._pushes and self._pushes[0][0] <= sent:
            self.packages -= self._pushes.popleft()[1]
