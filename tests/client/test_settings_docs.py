"""docs/settings.md: every argument and every key is there, with its default; the examples run."""

from __future__ import annotations

import inspect
import re

import pytest
from docslib import Document

import fastpump
from fastpump._connection_string import KEYS

PAGE = Document("settings.md")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.text.splitlines()
    if line.startswith("| `")
]
ARGUMENTS = inspect.signature(fastpump.connect).parameters
SETTINGS = {row[0].strip("`"): row for row in ROWS if len(row) == 5}


def default_of(argument: str) -> str:
    default = ARGUMENTS[argument].default
    return default.__name__ if callable(default) else repr(default)


@PAGE.every_example
async def test_examples(example: int) -> None:
    await PAGE.run(example)


def test_every_argument_is_there() -> None:
    assert set(SETTINGS) == set(ARGUMENTS)


@pytest.mark.parametrize("argument", sorted(ARGUMENTS))
def test_defaults(argument: str) -> None:
    assert SETTINGS[argument][2] == f"`{default_of(argument)}`"


@pytest.mark.parametrize("key", [*KEYS, "ConnectTo"])
def test_conn_17_every_key_is_there(key: str) -> None:
    argument = KEYS[key][0] if key in KEYS else "host"
    if argument is None:
        assert any(key in row[0] for row in ROWS if len(row) == 2)
    else:
        assert f"`{key}`" in SETTINGS[argument][3]


def test_no_key_is_there_that_is_not_known() -> None:
    named = {key for row in SETTINGS.values() for key in re.findall(r"`(\w+)`", row[3])}
    assert named <= {*KEYS, "ConnectTo"}
