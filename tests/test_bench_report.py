"""What the comparison's report says of floors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
_, OF_PHOTONPUMP, _, FLOORS, *_, VERDICT = range(9)
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    for script in BENCH.glob("*.py"):  # not those of others, and gone again afterwards
        monkeypatch.setitem(sys.modules, script.stem, None)
        monkeypatch.delitem(sys.modules, script.stem)
    return importlib.import_module("report")


def row(report: ModuleType, rates: dict[str, float], **floor: float) -> list[str]:
    """The row of a report, from the rates of its participants."""
    rows: Any = importlib.import_module("rows")
    results = report.Results()
    for who, rate in rates.items():
        results.rates[who, "pages"] = [rate]
    cells: list[str] = report.cells(
        results, rows.Row("pages", "Pages", "pages", floor=rows.Floor(**floor))
    )
    assert len(cells) == len(report.HEADINGS)
    return cells


@pytest.mark.parametrize(
    ("ours", "verdict"), [(45.0, ""), (44.9, "missed"), (39.9, "missed"), (100.0, "")]
)
def test_a_row_is_measured_by_each_of_its_floors(
    report: ModuleType, ours: float, verdict: str
) -> None:
    rates = {"fastpump": ours, "photon-pump": 1.0, "limit": 50.0}
    cells = row(report, rates, photonpump=40, limit=0.9)
    assert (cells[FLOORS], cells[VERDICT]) == (f"40 {TIMES}, 0.9 {TIMES} limit", verdict)


def test_a_ratio_is_not_rounded_to_its_floor(report: ModuleType) -> None:
    cells = row(report, {"fastpump": 19.6, "photon-pump": 1.0}, photonpump=20)
    assert (cells[OF_PHOTONPUMP], cells[VERDICT]) == ("**19.6**", "missed")


def test_a_rate(report: ModuleType) -> None:
    assert row(report, {"fastpump": 1.2e6}, rate=1_200_000)[VERDICT] == ""
    assert row(report, {"fastpump": 1.1e6}, rate=1_200_000)[FLOORS:] == [
        *("1,200,000", "1,100,000", report.NOTHING, report.NOTHING, "0%", "missed"),
    ]


def test_what_could_not_be_looked_at_is_neither_reached_nor_missed(report: ModuleType) -> None:
    without_limit = {"fastpump": 50.0, "photon-pump": 1.0}
    assert row(report, without_limit, photonpump=40, limit=0.9)[VERDICT] == report.NOTHING
    assert row(report, {"photon-pump": 1.0}, photonpump=40)[VERDICT] == report.NOTHING


def test_a_row_without_floors(report: ModuleType) -> None:
    cells = row(report, {"fastpump": 1.0, "photon-pump": 2.0, "limit": 2.0})
    assert (cells[FLOORS], cells[VERDICT]) == (report.NOTHING, "")
