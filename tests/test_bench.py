"""The bench runs: what nobody runs rots. Its numbers are looked at by people."""

from __future__ import annotations

import importlib
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


def test_what_misses_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    report, rows = importlib.import_module("report"), importlib.import_module("rows")
    both, rate = rows.Floor(40, 0.9), rows.Floor(rate=1_200_000)
    assert (report.floors(both), report.floors(rate)) == ("40, 0.9", "1,200,000")
    assert not report.is_missed(both, 40.0, 1.0, 44.0)
    assert report.is_missed(both, 40.0, 1.0, 45.0)
    assert report.is_missed(both, 39.9, 1.0, 40.0)
    assert not report.is_missed(both, 40.0, None, None)
    assert not report.is_missed(both, None, 1.0, 44.0)
    assert report.is_missed(rate, 1_199_999.0, None, None)
    assert not report.is_missed(rows.Floor(), 1.0, 2.0, 2.0)


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
