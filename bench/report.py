"""The comparison's results as one Markdown table, ratios first."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import tools
from latency import LATENCIES, PERCENTILES, of_rounds

if TYPE_CHECKING:
    from latency import Latency
    from rows import Floor, Load, Row

CLIENTS = ("fastpump", "photon-pump")
LIMIT = "limit"
NOTHING = "–"
HEADINGS = ("Work", "× photon-pump", "× limit", "floors", *CLIENTS, LIMIT, "spread", "")


class Results:
    """What the rounds measured, by participant and row (for the limit: by its mode).

    Rates are in events per second; of latencies there are the percentiles, in seconds.
    """

    def __init__(self) -> None:
        self.rates: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.latencies: defaultdict[tuple[str, str], list[list[float]]] = defaultdict(list)
        self.errors: dict[tuple[str, str], str] = {}
        self.versions: dict[str, str] = {}

    def median(self, who: str, what: str | None) -> float | None:
        rates = self.rates.get((who, what)) if what else None
        return median(rates) if rates else None

    def spread(self, who: str, what: str | None) -> float:
        """Distance of the fastest and the slowest round, as a part of the median."""
        rates = self.rates.get((who, what)) if what else None
        return (max(rates) - min(rates)) / median(rates) if rates else 0.0


def markdown(results: Results, rows: list[Row], load: Load, rounds: int, before: float) -> str:
    """The report. `before` is the machine's load average when the run began."""
    lines = [
        "# fastpump beside photon-pump and the limit",
        "",
        f"{date.today().isoformat()}, {machine()}; load average before the run {before:.2f}.",
        f"{versions(results)}.",
        f"Median of {rounds} interleaved rounds of {load.seconds:g} s a row; {load.events:,} "
        f"events of about 200 bytes of JSON, pages of {load.page}.",
        "",
        line(HEADINGS),
        line(["---"] + ["---:"] * (len(HEADINGS) - 2) + ["---"]),
        *(line(cells(results, row)) for row in rows),
        "",
        "Floors: what is to be reached at least, times photon-pump if nothing else is said. Behind "
        "them: events per second, and the distance of the fastest and the slowest round in the "
        "least steady of the three.",
    ]
    lines += latency_lines(results)
    if results.errors:
        lines += ["", "Failed:", ""]
        lines += [f"- {who}, {what}: {why}" for (who, what), why in results.errors.items()]
    return "\n".join(lines) + "\n"


def cells(results: Results, row: Row) -> list[str]:
    ours, theirs = (results.median(client, row.name) for client in CLIENTS)
    limit = results.median(LIMIT, row.limit)
    spread = max(
        *(results.spread(client, row.name) for client in CLIENTS),
        results.spread(LIMIT, row.limit),
    )
    return [
        row.title,
        ratio(ours, theirs),
        ratio(ours, limit),
        floors(row.floor),
        *(amount(rate) for rate in (ours, theirs, limit)),
        f"{spread:.0%}",
        verdict(row.floor, ours, theirs, limit),
    ]


def floors(floor: Floor) -> str:
    asked = (
        floor.photonpump and f"{floor.photonpump:g} ×",
        floor.limit and f"{floor.limit:g} × limit",
        floor.rate and amount(floor.rate),
    )
    return ", ".join(filter(None, asked)) or NOTHING


def verdict(floor: Floor, ours: float | None, theirs: float | None, limit: float | None) -> str:
    """Whether what was measured is below a floor; a dash where one could not be looked at."""
    reached = [
        None if ours is None or base is None else ours >= asked * base
        for asked, base in zip(floor, (theirs, limit, 1.0), strict=True)
        if asked is not None
    ]
    if False in reached:
        return "missed"
    return NOTHING if None in reached else ""


def latency_lines(results: Results) -> list[str]:
    """The table of latencies; nothing where none were measured."""
    measured = [latency for latency in LATENCIES if (CLIENTS[0], latency.name) in results.latencies]
    if not measured:
        return []
    names = [f"p{percentile:g}" for percentile in PERCENTILES]
    headings = ["Time taken", "p50, × photon-pump"]
    headings += [f"{client}, {name}" for client in CLIENTS for name in names]
    return [
        "",
        "## Latency",
        "",
        line(headings),
        line(["---"] + ["---:"] * (len(headings) - 1)),
        *(line(latency_cells(results, latency)) for latency in measured),
        "",
        "Milliseconds; medians of the rounds' percentiles. A ratio below 1: fastpump takes less.",
    ]


def latency_cells(results: Results, latency: Latency) -> list[str]:
    ours, theirs = (
        of_rounds(rounds) if (rounds := results.latencies.get((client, latency.name))) else None
        for client in CLIENTS
    )
    return [
        latency.title,
        ratio(ours and ours[0], theirs and theirs[0]),
        *milliseconds(ours),
        *milliseconds(theirs),
    ]


def milliseconds(percentiles: list[float] | None) -> list[str]:
    if percentiles is None:
        return [NOTHING] * len(PERCENTILES)
    return [f"{1000 * seconds:.3g}" for seconds in percentiles]


def ratio(ours: float | None, other: float | None) -> str:
    if ours is None or other is None:
        return NOTHING
    return f"**{ours / other:.3g}**"


def amount(rate: float | None) -> str:
    """Three significant digits, with thousands separated."""
    if rate is None:
        return NOTHING
    unit = 10 ** max(0, len(str(int(rate))) - 3)
    return f"{round(rate / unit) * unit:,}"


def line(columns: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(columns)} |"


def machine() -> str:
    release = platform.release().partition("-")[0]
    return f"{cpu_model()}, {os.cpu_count()} cores, {platform.system()} {release}"


def cpu_model() -> str:
    """The name the kernel gives the processor; without /proc, what Python knows of it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for entry in info.read_text(encoding="utf-8").splitlines():
            name, _, value = entry.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def versions(results: Results) -> str:
    compiler = tools.call([tools.compiler(), "--version"], "asking the compiler").splitlines()[0]
    named = {"Python": platform.python_version(), **results.versions}
    return ", ".join([f"{name} {value}" for name, value in named.items()] + [compiler])
