"""Compare fastpump with photon-pump and with the limit: `python bench/run.py`, see README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

import node
import tools
from chart import draw
from latency import LATENCIES
from node_process import NodeProcess
from report import CLIENTS, LIMIT, Results, markdown
from rows import QUICK, ROWS, Load, Row

SERVERS = ("answering", "node")
"""The one in C, which answers from memory; and the embedded node, in memory as well."""

WINDOW = 4
"""Pages the limit asks for ahead; on a quiet machine more of them make it no faster."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=tools.positive, help="rounds, interleaved (default 5)")
    parser.add_argument("--rows", type=selection, default=list(ROWS), help=f"some of {names}")
    parser.add_argument(
        "--only",
        action="append",
        choices=(*CLIENTS, LIMIT),
        help="measure only this one; may be given again",
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that everything runs; the numbers mean nothing"
    )
    parser.add_argument("--output", type=Path, help="the Markdown file to write")
    chosen = parser.parse_args(arguments)
    chosen.is_whole = not chosen.only and chosen.rows == list(ROWS)
    return chosen


def selection(text: str) -> list[Row]:
    rows = {row.name: row for row in ROWS}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in rows]:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)}")
    return [rows[name] for name in names]


def measure_limit(port: int, rows: list[Row], load: Load, results: Results) -> None:
    # Of each limit the mode of the program, and its arguments behind port and time.
    limits: dict[str, tuple[str, tuple[int, ...]]] = {
        "page": ("pages", (load.events, load.page, 1)),
        "pages": ("pages", (load.events, load.page, WINDOW)),
        "live": ("live", (load.events,)),
        "writes": ("writes", ()),
        "polls": ("polls", ()),
    }
    for name in sorted({row.limit for row in rows if row.limit}):
        mode, sizes = limits[name]
        rate = tools.limit(mode, port, load.seconds, *sizes)
        results.rates[LIMIT, name].append(rate)


def measure_client(client: str, port: int, names: list[str], load: Load, results: Results) -> None:
    if not names:
        return
    worker = [sys.executable, str(tools.BENCH / "worker.py"), client, str(port)]
    measured = json.loads(
        tools.call([*worker, json.dumps(asdict(load)), *names], f"measuring {client}")
    )
    results.versions.update(measured["versions"])
    for name, rate in measured["rates"].items():
        results.rates[client, name].append(rate)
    for name, percentiles in measured["latencies"].items():
        results.latencies[client, name].append(percentiles)
    for name, error in measured["errors"].items():
        results.errors[client, name] = error


def measure(chosen: argparse.Namespace, load: Load, rounds: int) -> Results:
    results = Results()
    participants = chosen.only or [*CLIENTS, LIMIT]
    if "photon-pump" in participants:
        tools.install_photonpump()
    tools.compiled("limit")
    names = {server: names_of(server, chosen.rows) for server in SERVERS}
    with (
        NodeProcess() as node_in_memory,
        tools.answering_server(load.events, on_its_core=True) as port,
    ):
        ports = {"answering": port, "node": node_in_memory.port}
        for number in range(1, rounds + 1):
            for who in participants:
                print(f"round {number} of {rounds}: {who}", file=sys.stderr, flush=True)
                if who == LIMIT:
                    measure_limit(port, chosen.rows, load, results)
                    continue
                for server in SERVERS:
                    measure_client(who, ports[server], names[server], load, results)
    return results


def names_of(server: str, rows: list[Row]) -> list[str]:
    """What is measured against a server; latencies only where all rows are."""
    latencies = LATENCIES if rows == list(ROWS) else ()
    return [row.name for row in rows if server == "answering"] + [
        latency.name for latency in latencies if latency.server == server
    ]


def node_section(quick: bool, rounds: int) -> str:
    """How fast the embedded node is, so that a user sees which side is the limit."""
    with tempfile.TemporaryDirectory() as folder:
        load = node.QUICK if quick else node.Load()
        lines = node.speed_report(Path(folder), load, rounds)
    return "\n".join(["", "## The embedded node", "", *lines, ""])


def write(chosen: argparse.Namespace, results: Results, report: str) -> None:
    """A complete run becomes one of the results kept; no part, smoke run or failure does."""
    complete = chosen.is_whole and not (results.errors or chosen.quick)
    folder = tools.BENCH / "results" if complete else tools.BUILD
    output = chosen.output or folder / f"comparison-{date.today().isoformat()}.md"
    output.parent.mkdir(parents=True, exist_ok=True)
    if chosen.is_whole and not results.errors:
        picture = output.with_suffix(".svg")
        draw(results, chosen.rows, picture)
        report += f"\n![The ratios as bars]({picture.name})\n"
    output.write_text(report, encoding="utf-8")


def main() -> int:
    chosen = parse()
    load = QUICK if chosen.quick else Load()
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    before = os.getloadavg()[0]
    try:
        results = measure(chosen, load, rounds)
        report = markdown(results, chosen.rows, load, rounds, before)
        if chosen.is_whole:
            report += node_section(chosen.quick, rounds)
    except tools.ToolError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted, nothing written", file=sys.stderr)
        return 130
    print(report)
    write(chosen, results, report)
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
