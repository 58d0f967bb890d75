"""The README's program runs as it stands there, and what README and docs point to exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent
PAGES = [SOURCE / "README.md", SOURCE / "bench" / "README.md", *(SOURCE / "docs").glob("*.md")]
LINK = re.compile(r"\]\((?!https?://)(?P<path>[^)#]+)[^)]*\)")


def test_the_first_program(tmp_path: Path) -> None:
    program = re.search(
        r"^```python\n(import fastpump\n.*?)^```",
        (SOURCE / "README.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert program is not None
    path = tmp_path / "program.py"
    path.write_text(program[1], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert lines[0] == "0 opened {'owner': 'Ada'}"
    assert lines[9] == "9 paid {'sum': 8}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(SOURCE)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / link["path"]).exists(), link["path"]
