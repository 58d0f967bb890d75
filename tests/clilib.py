"""Running the command line as a user does: as a process, against a node in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FASTPUMP = [sys.executable, "-m", "fastpump"]
PATIENCE = 60
"""Seconds after which a process is taken to hang."""

ENVIRONMENT = {
    **os.environ,
    "FASTPUMP_PASSWORD": "changeit",
    "COLUMNS": "200",
}
ADMIN = ["--username", "admin"]
"""Options that choose the user whose password the environment has."""

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


class Served:
    """A running `fastpump serve`."""

    def __init__(self, cwd: Path, path: Path | None = None, *options: str) -> None:
        file = [] if path is None else ["--path", str(path)]
        self.process = subprocess.Popen(
            [*FASTPUMP, "serve", "--port", "0", *file, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.host, _, port = self.address.rpartition(":")
        self.port = int(port)

        if "--development-tls" in options:
            _, _, self.ca_file = self.process.stdout.readline().strip().partition(" ")

    @property
    def options(self) -> list[str]:
        return ["--host", self.host, "--port", str(self.port)]

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """End it with a signal; its exit code and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors
