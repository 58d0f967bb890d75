"""The examples of docs/node.md run, and its tables are complete."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import fastpump.server
from fastpump.server import Faults

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "node.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def compiled(example: str) -> CodeType:
    code: CodeType = compile(example, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_example(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[number]
    if "development" in example:
        pytest.importorskip("cryptography")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"fastpump": fastpump}
    result = eval(compiled(example), scope)
    assert inspect.isawaitable(result)
    await result


def test_every_option_is_described() -> None:
    for option in inspect.signature(fastpump.server.run).parameters:
        assert re.search(rf"^\| .*`{option}`.* \|", TEXT, re.MULTILINE), option


def test_every_fault_is_described() -> None:
    for name, member in vars(Faults).items():
        takes_part = name in ("wrap", "disturb_http", "refuses_connections")
        if callable(member) and not name.startswith("_") and not takes_part:
            assert f"| `{name}(" in TEXT, name
