"""The embedded node in a process of its own, as `fastpump serve` runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tools

sys.path.append(str(tools.ROOT))

import fastpump
from fastpump._commands import Command
from fastpump._framing import Framer, encode_frame

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
PATIENCE = 60.0
MEBIBYTE = 1 << 20

FASTPUMP = [sys.executable, "-m", "fastpump"]
SETTING: dict[str, Any] = {
    # `-m` looks into the current folder first, which may be the source folder.
    "cwd": tools.BENCH,
    # The package that is imported here is the one to be measured there.
    "env": {**os.environ, "PYTHONPATH": str(Path(fastpump.__file__).parents[1])},
}
"""How `FASTPUMP` is started."""


class NodeProcess:
    """A node while the `with` block runs; it ends like one told by Ctrl-C.

    Args:
        path: its database file, or None to keep everything in memory.

    Attributes:
        port: where it listens.
        start_up: seconds from starting the process to its first answer, a Pong.
    """

    def __init__(self, path: Path | None = None) -> None:
        started = time.perf_counter()
        file = [] if path is None else ["--path", str(path.absolute())]
        self._process = subprocess.Popen(
            [*FASTPUMP, "serve", "--port", "0", *file],
            stdout=subprocess.PIPE,
            text=True,
            **SETTING,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline()
        if not address:
            raise tools.ToolError("the node did not start")
        self.port = int(address.rpartition(":")[2])
        ping(self.port)
        self.start_up = time.perf_counter() - started

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)

    @property
    def memory(self) -> float:
        """Resident memory in MiB."""
        return self._status("VmRSS")

    @property
    def peak_memory(self) -> float:
        """The most resident memory it had so far, in MiB."""
        return self._status("VmHWM")

    def _status(self, name: str) -> float:
        """A size the kernel tells of a process (Linux only)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        sizes = dict(entry.split(":", 1) for entry in status.splitlines())
        return int(sizes[name].split()[0]) * 1024 / MEBIBYTE


def ping(port: int) -> None:
    """Connect, send a Ping and wait for the Pong."""
    framer = Framer()
    with socket.create_connection((HOST, port), PATIENCE) as connection:
        connection.sendall(encode_frame(Command.Ping, bytes(16)))
        while not (frames := framer.feed(connection.recv(4096))):
            pass
    if frames[0].command != Command.Pong:
        raise tools.ToolError(f"the node answered a Ping by command {frames[0].command:#x}")
