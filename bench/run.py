"""Compare fastpump with photon-pump and with the limit: `python bench/run.py`, see README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

import tools
from report import CLIENTS, LIMIT, Results, markdown
from rows import QUICK, ROWS, Load, Row

WINDOW = 4
"""Pages the limit asks for ahead; on a quiet machine more of them make it no faster."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    names = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, help="rounds, interleaved (default 5)")
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
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def selection(text: str) -> list[Row]:
    rows = {row.name: row for row in ROWS}
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in rows]:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)}")
    return [rows[name] for name in names]


def measure_limit(port: int, rows: list[Row], load: Load, results: Results) -> None:
    sizes = {"pages": (load.events, load.page, WINDOW), "live": (load.events,), "writes": ()}
    for mode in sorted({row.limit for row in rows if row.limit}):
        command = [str(tools.compiled("limit")), mode, str(port), str(load.seconds)]
        command += [str(size) for size in sizes[mode]]
        rate = tools.call(command, f"the limit of {mode}")
        results.rates[LIMIT, mode].append(float(rate))


def measure_client(client: str, port: int, rows: list[Row], load: Load, results: Results) -> None:
    worker = [sys.executable, str(tools.BENCH / "worker.py"), client, str(port)]
    printed = tools.call(
        [*worker, json.dumps(asdict(load)), *(row.name for row in rows)], f"measuring {client}"
    )
    measured = json.loads(printed)
    results.versions.update(measured["versions"])
    for name, rate in measured["rates"].items():
        results.rates[client, name].append(rate)
    for name, error in measured["errors"].items():
        results.errors[client, name] = error


def measure(chosen: argparse.Namespace, load: Load, rounds: int) -> Results:
    results = Results()
    participants = chosen.only or [*CLIENTS, LIMIT]
    if "photon-pump" in participants:
        tools.install_photonpump()
    tools.compiled("limit")
    with tools.answering_server(load.events) as port:
        for number in range(1, rounds + 1):
            for who in participants:
                print(f"round {number} of {rounds}: {who}", file=sys.stderr, flush=True)
                if who == LIMIT:
                    measure_limit(port, chosen.rows, load, results)
                else:
                    measure_client(who, port, chosen.rows, load, results)
    return results


def default_output(chosen: argparse.Namespace, failed: bool) -> Path:
    """A complete run becomes one of the results kept; no part, smoke run or failure does."""
    complete = not (failed or chosen.quick or chosen.only or chosen.rows != list(ROWS))
    folder = tools.BENCH / "results" if complete else tools.BUILD
    return folder / f"comparison-{date.today().isoformat()}.md"


def main() -> int:
    chosen = parse()
    load = QUICK if chosen.quick else Load()
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    before = os.getloadavg()[0]
    try:
        results = measure(chosen, load, rounds)
        report = markdown(results, chosen.rows, load, rounds, before)
    except tools.ToolError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted, nothing written", file=sys.stderr)
        return 130
    print(report)
    output = chosen.output or default_output(chosen, bool(results.errors))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(report, encoding="utf-8")
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
