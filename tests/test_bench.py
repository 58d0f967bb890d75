"""The bench runs: what nobody runs rots. Its numbers are looked at by people."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="the bench needs a C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="the answering server is for Linux"),
]


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_comparison(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    report = run(
        "run.py", "--quick", "--only", "fastpump", "--only", "limit", "--output", str(output)
    )
    assert output.read_text(encoding="utf-8") == report.removesuffix("\n")
    assert "Failed" not in report
    rows = [line for line in report.splitlines() if line.startswith("| `get()`")]
    assert len(rows) == 1
    assert "| from publish to the subscriber's loop |" in report


def test_the_node() -> None:
    assert "| batches of 100 |" in run("node.py", "--quick")


def test_the_memory() -> None:
    report = run("memory.py", "--quick")
    assert "| all events, detached |" in report
    assert "Replay of 1 million events" in report


def test_the_replays() -> None:
    report = run("replays.py", "--quick")
    assert "| 20 streams of 1,000 events, as NDJSON |" in report
    assert "| the log of 1,000 events, counted, far away |" in report


def test_the_stages() -> None:
    assert "| JSON: `event.json()` |" in run("stages.py", "--quick")


def test_the_ways_of_receiving() -> None:
    assert "| uvloop |" in run("receive.py", "--quick", "--rounds", "1")
