"""docs/clients.md and docs/migrating.md: fastpump has something in every row, which exists."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastpump
from fastpump import exceptions

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "clients.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| What", "| ---"))
]
NOTHING = "\N{EN DASH}"
NAME = re.compile(r"`(?P<path>[\w.]+)(?:\((?P<arguments>[\w=, ]+)\))?`")


def named(path: str) -> Any:
    """The object that `path` names from the package on, modules included."""
    found: Any = fastpump
    for name in path.split("."):
        if inspect.ismodule(found) and not hasattr(found, name):
            found = importlib.import_module(f"{found.__name__}.{name}")
        else:
            found = getattr(found, name)
    return found


def test_there_are_rows() -> None:
    assert len(ROWS) > 80
    assert all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_fastpump_has_exists(row: list[str]) -> None:
    ours = row[-1]
    assert ours not in ("", NOTHING)
    for match in NAME.finditer(ours):
        thing = named(match["path"]) if match["path"] not in ("logging", "fastpump") else None
        if match["arguments"]:
            wanted = {name.strip(" =") for name in match["arguments"].split(",")}
            assert wanted <= set(inspect.signature(thing).parameters), match[0]


def test_errors_that_have_another_name_here() -> None:
    text = DOCS.joinpath("migrating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `\w+Exception`.*? \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) > 15
    for ours in rows:
        names = re.findall(r"`([A-Z]\w+)`", ours)
        assert names
        for name in names:
            assert issubclass(getattr(exceptions, name), exceptions.FastpumpError)
