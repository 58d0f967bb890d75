from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clilib import Run

Serve = Callable[..., Any]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_in_order(serve: Serve, number: int) -> None:
    served = serve()
    with socket.create_connection((served.host, served.port), timeout=10):
        pass
    assert served.stop(number) == (0, "")


def test_a_port_in_use(serve: Serve, run: Run) -> None:
    served = serve()
    done = run("serve", *served.options)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert str(served.port) in line


def test_a_file_that_is_no_database_of_ours(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Not a database.\n" * 1000)
    done = run("serve", "--port", "0", "--path", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "notes.txt" in line
    assert path.read_text() == "Not a database.\n" * 1000


def test_a_folder_that_does_not_exist(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--port", "0", "--path", str(tmp_path / "missing" / "events.db"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_events_outlive_the_process(serve: Serve, run: Run, tmp_path: Path) -> None:
    lines = tmp_path / "lines.ndjson"
    lines.write_text('{"a": 1}\n')
    names = ["--stream", "s", "--type", "t"]
    first = serve(tmp_path / "events.db")
    assert run("ingest", str(lines), *first.options, *names).returncode == 0
    assert first.stop() == (0, "")
    second = serve(tmp_path / "events.db")
    done = run("replay", *second.options, "--stream", "s")
    assert done.returncode == 0
    assert '"a": 1' in done.stdout
