"""Every row of the acceptance list has a test that is named after it.

A name tells its rows in the form `test_app_09_to_12_…`, `test_link_03_and_04_and_all_11_…` or
`test_csub_16_pp_13_…`; rows of a table are keys or ids of the form "IDEM-05".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = TESTS.joinpath("acceptance_ids.txt").read_text(encoding="ascii").split()
AREAS = {row.partition("-")[0] for row in ROWS}


def rows_of_name(name: str) -> Iterator[str]:
    """The rows that a test function is named after."""
    words = iter([*name.split("_")[1:], ""])
    area, number = "", 0
    for word in words:
        if word == "and":
            continue
        if word.upper() in AREAS:
            area = word.upper()
        elif word == "to" and area:
            last = next(words)
            if not last.isdecimal():
                return
            yield from (f"{area}-{n:02}" for n in range(number + 1, int(last) + 1))
        elif word.isdecimal() and area:
            number = int(word)
            yield f"{area}-{number:02}"
        else:
            return


def rows_in(source: str) -> Iterator[str]:
    """The rows that a module of tests is about."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("test_"):
                yield from rows_of_name(node.name)
        # Recorded scenarios are called alike, but have numbers of their own.
        elif isinstance(node, ast.Constant) and node.value in ROWS:
            yield str(node.value)


def covered() -> set[str]:
    paths = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    return {row for path in paths for row in rows_in(path.read_text(encoding="utf-8"))}


def test_every_row_has_a_test() -> None:
    assert sorted(set(ROWS) - covered()) == []


def test_tests_are_named_after_rows_there_are() -> None:
    assert sorted(covered() - set(ROWS)) == []


def test_how_names_are_read() -> None:
    for name, rows in {
        "test_app_09_to_12_stream_exists": ["APP-09", "APP-10", "APP-11", "APP-12"],
        "test_link_03_and_04_and_all_11_broken": ["LINK-03", "LINK-04", "ALL-11"],
        "test_csub_16_pp_13_cut": ["CSUB-16", "PP-13"],
        "test_conn_13_to_the_leader": ["CONN-13"],
        "test_read_page_12": [],
        "test_all_02_03": ["ALL-02", "ALL-03"],
        "test_all": [],
    }.items():
        assert list(rows_of_name(name)) == rows
