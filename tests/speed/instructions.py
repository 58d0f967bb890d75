"""The instructions of pieces of work, counted by callgrind; `python instructions.py` records them.

A count does not depend on what else the machine does, so a slow-down can fail a build. It does
depend on the interpreter and the compiler. So counts are kept as multiples of those of a loop in
Python, counted in the same run, and per minor version of Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MARK = "getppid"
PATIENCE = 110


def counted() -> dict[str, float]:
    """How many times the instructions of the calibration each piece of work takes."""
    from speed.work import WORK

    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}", "--dump-line=no"]
        command += [f"--callgrind-out-file={folder}/out", sys.executable, str(HERE / "work.py")]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
        # The first part is what came before the first mark; the last one what came behind all.
        parts = [Path(folder, f"out.{n}") for n in range(2, 2 + len(WORK))]
        counts = [total(part.read_text()) for part in parts]
    calibration = counts[0]
    return {
        work.__name__: round(count / calibration, 3)
        for work, count in zip(WORK[1:], counts[1:], strict=True)
    }


def total(part: str) -> int:
    for line in part.splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise ValueError("no totals in what callgrind wrote")


def expected() -> dict[str, float] | None:
    """What was recorded for this Python, if anything."""
    recorded: dict[str, dict[str, float]] = json.loads(EXPECTED.read_text())
    return recorded.get(PYTHON)


def record() -> None:
    recorded = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    recorded[PYTHON] = counted()
    EXPECTED.write_text(json.dumps(recorded, indent=4, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    record()
