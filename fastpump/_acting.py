"""The operations of a client with other credentials than the connection's."""

from __future__ import annotations

from fastpump._commands import Command
from fastpump._operating import Operating
from fastpump._operation import Operation
from fastpump._outlet import Detour, Outlet
from fastpump.messages import Credential, Token

AUTHENTICATED = b"\x01"
"""The flag that says that an auth block follows (protocol document, section 1.1)."""


class ActingClient(Operating):
    """The operations of a client with credentials of their own; `Client.acting_as` makes one.

    Connection, limits and lifetime are the client's: there is nothing to close, and when the client
    is closed its operations fail with ClientClosed.
    """

    def __init__(self, client: Operating, outlet: Outlet, credential: Credential | Token) -> None:
        self._client = client
        self._credential = credential
        self._outlet = _ActingOutlet(outlet, credential.auth_block)
        self._loop = client._loop
        self._futures = client._futures
        self._writes = client._writes
        self._timeout = client._timeout
        self._require_master = client._require_master

    def __repr__(self) -> str:
        return f"<ActingClient as {self._credential!r} on {self._client!r}>"


class _ActingOutlet(Detour):
    """Puts an auth block into whatever goes out without one. Sent again it is still there."""

    def __init__(self, outlet: Outlet, auth_block: bytes) -> None:
        super().__init__(outlet)
        self._auth_block = auth_block

    def start(self, operation: Operation) -> None:
        operation.frame = _with_auth_block(operation.frame, self._auth_block)
        super().start(operation)

    def send_now(self, frame: bytes) -> None:
        # Ending a subscription takes no rights, and a password changed since must not prevent it.
        if frame[4] != Command.UnsubscribeFromStream:
            frame = _with_auth_block(frame, self._auth_block)
        super().send_now(frame)


def _with_auth_block(frame: bytes, auth_block: bytes) -> bytes:
    if frame[5:6] == AUTHENTICATED:
        return frame
    size = int.from_bytes(frame[:4], "little") + len(auth_block)
    header = size.to_bytes(4, "little") + frame[4:5] + AUTHENTICATED + frame[6:22]
    return header + auth_block + frame[22:]
