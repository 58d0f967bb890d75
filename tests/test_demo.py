"""The demo on a small file: what it shows is what happened, and it fails when something differs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "demo" / "flights.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_flights(folder: Path, count: int) -> Path:
    lines = ["year,carrier,tailnum\n"]
    lines += [f"2013,C{n},{'NA' if n % 9 == 0 else f'N{n % 5}'}\n" for n in range(count)]
    path = folder / "flights.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flights.csv", "".join(lines))
    return path


@pytest.mark.skipif(
    os.environ.get("FASTPUMP_TEST_WHEEL") != "1", reason="runs the installed command"
)
def test_a_small_run(tmp_path: Path) -> None:
    write_flights(tmp_path, 1000)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = [line.split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    steps = {cells[1].strip(): cells[2].strip() for cells in table[2:]}
    assert steps == {"ingest": "1,000", "the same again": "1,000", "replay": "1,000"}
    assert "Checked: 1,000 events in 6 streams" in done.stdout


def test_the_checksum_of_the_input(demo: ModuleType, tmp_path: Path) -> None:
    checksum = demo.checksum_of_input(write_flights(tmp_path, 20))
    streams = checksum.streams()
    assert {name: count for name, (count, _) in streams.items()} == {
        "aircraft-unknown": 3,
        "aircraft-N0": 3,
        "aircraft-N1": 4,
        "aircraft-N2": 4,
        "aircraft-N3": 3,
        "aircraft-N4": 3,
    }


@pytest.mark.parametrize(
    "events",
    [
        [("s", {"n": 1})],
        [("s", {"n": 2}), ("s", {"n": 1})],
        [("s", {"n": 1}), ("t", {"n": 2})],
        [("s", {"n": 1}), ("s", {"n": 2}), ("s", {"n": 2})],
        [("s", {"n": 1}), ("s", {"n": 3})],
    ],
    ids=["lost", "swapped", "elsewhere", "doubled", "changed"],
)
def test_a_difference_is_found(demo: ModuleType, events: list[tuple[str, object]]) -> None:
    expected, found = demo.Checksum(), demo.Checksum()
    for stream, content in [("s", {"n": 1}), ("s", {"n": 2})]:
        expected.add(stream, content)
    demo.compare(expected, expected)
    for stream, content in events:
        found.add(stream, content)
    with pytest.raises(demo.Failed, match="streams differ"):
        demo.compare(expected, found)
    assert expected.hexdigest() != found.hexdigest()
