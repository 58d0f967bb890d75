"""The comparison's ratios as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from report import CLIENTS, LIMIT, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rows import Row

BAR, MARK = "#2f6f9f", "#b3541e"
LIMIT_IN_WORDS = "the limit: a program in C that only walks the frames"
INCHES_PER_BAR = 0.42


def draw(results: Results, rows: list[Row], path: Path) -> None:
    """Write an SVG: a bar per row, times photon-pump, and a mark where the limit is."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same numbers give the same file; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "fastpump", "svg.fonttype": "none"})
    compared = [row for row in rows if results.median(CLIENTS[1], row.name)]
    figure = Figure(figsize=(9, 1.4 + INCHES_PER_BAR * len(compared)), layout="constrained")
    fill(figure.add_subplot(), results, compared)
    figure.savefig(path, metadata={"Date": None})


def fill(axes: Axes, results: Results, rows: list[Row]) -> None:
    places = range(len(rows))
    theirs = [results.median(CLIENTS[1], row.name) or 1.0 for row in rows]
    ratios = [
        (results.median(CLIENTS[0], row.name) or 0.0) / each
        for row, each in zip(rows, theirs, strict=True)
    ]
    bars = axes.barh(places, ratios, color=BAR, height=0.62)
    labels = [f"{ratio:.2g} ×" if ratio < 10 else f"{ratio:.0f} ×" for ratio in ratios]
    axes.bar_label(bars, labels, label_type="center", color="white", weight="bold")
    limits = [
        (limit / each, place)
        for row, each, place in zip(rows, theirs, places, strict=True)
        if (limit := results.median(LIMIT, row.limit))
    ]
    marks = axes.plot(*zip(*limits, strict=True), "|", color=MARK, markersize=15, markeredgewidth=2)
    axes.set_yticks(places, [row.title.replace("`", "") for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=1, right=3 * max([*ratios, *(ratio for ratio, _ in limits)]))
    axes.set_xticks([1, 10, 100], ["1 ×", "10 ×", "100 ×"])
    axes.set_xlabel("events per second, as a multiple of photon-pump's")
    axes.legend(marks, [LIMIT_IN_WORDS], frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
