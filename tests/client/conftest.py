"""What the tests of the client share: a look at what it hands to its transports."""

from __future__ import annotations

from typing import Any

import pytest

from fastpump._protocol import ConnectionProtocol


class Spy:
    """A transport that notes every write on its way to the real one."""

    def __init__(self, transport: Any, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(bytes(data))
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What clients write, one item for each call of a transport's `write`."""
    noted: list[bytes] = []
    connection_made = ConnectionProtocol.connection_made

    def spied(self: ConnectionProtocol, transport: Any) -> None:
        connection_made(self, Spy(transport, noted))

    monkeypatch.setattr(ConnectionProtocol, "connection_made", spied)
    return noted
