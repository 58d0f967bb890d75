"""The examples of docs/node.md run, and its tables are complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from docslib import Document

import fastpump.server
from fastpump.server import Faults

DOCUMENT = Document("node.md")
TEXT = DOCUMENT.text


@DOCUMENT.every_example
async def test_example(example: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await DOCUMENT.run(example)


def test_every_option_is_described() -> None:
    for option in inspect.signature(fastpump.server.run).parameters:
        assert re.search(rf"^\| .*`{option}`.* \|", TEXT, re.MULTILINE), option


def test_every_fault_is_described() -> None:
    for name, member in vars(Faults).items():
        takes_part = name in ("wrap", "disturb_http", "refuses_connections")
        if callable(member) and not name.startswith("_") and not takes_part:
            assert f"| `{name}(" in TEXT, name
