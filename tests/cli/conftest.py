"""Nodes and commands as processes, ended with the test that started them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clilib import ENVIRONMENT, FASTPUMP, PATIENCE, Run, Served, Start


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start nodes; whatever still runs at the end is stopped."""
    running: list[Served] = []

    def start(path: Path | None = None, *options: str) -> Served:
        running.append(Served(tmp_path, path, *options))
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture
def node(serve: Callable[..., Served]) -> Served:
    """A node in memory."""
    return serve()


@pytest.fixture
def secure_node(serve: Callable[..., Served]) -> Served:
    """One that speaks TLS; its `ca_file` is what to verify it with."""
    return serve(None, "--development-tls")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run one command to its end."""

    def run_command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FASTPUMP, *arguments],
            **{"env": ENVIRONMENT, "cwd": tmp_path, "timeout": PATIENCE, **options},
            capture_output=True,
            text=True,
        )

    return run_command


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one command and go on; the test has to wait for it."""
    started: list[subprocess.Popen[str]] = []

    def start_command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*FASTPUMP, *arguments],
            **{"env": ENVIRONMENT, "cwd": tmp_path, **options},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_command
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
