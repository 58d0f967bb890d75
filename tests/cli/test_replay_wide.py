"""`fastpump replay` of many streams, and of the log in ranges, over connections and processes."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from clilib import ADMIN, ENVIRONMENT, FASTPUMP, Run, Served, Start

import fastpump
from fastpump.cli._options import Server
from fastpump.cli._pieces import pieces_of, put_together
from fastpump.cli._processes import shared, together
from fastpump.cli._progress import Sample
from fastpump.cli._replay import Place, Plan, Reader, Report, to_line
from fastpump.cli.app import app

resource = pytest.importorskip("resource")

ANYWHERE = ["--chunk-size", "1"]
STREAMS = {f"s-{number}": number * 7 % 40 + 1 for number in range(30)}
"""How many events each has."""

WIDE = [
    [],
    ["--connections", "4"],
    ["--processes", "2"],
    ["--processes", "3", "--connections", "5"],
]

every_width = pytest.mark.parametrize("width", WIDE, ids=" ".join)
one_or_two = pytest.mark.parametrize("width", [[], ["--processes", "2"]], ids=" ".join)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node with the events of all streams mixed in its log, and one stream that was deleted."""

    async def fill() -> None:
        async with fastpump.connect(node.host, node.port) as client:
            async with client.publisher(max_batch_events=3) as publisher:
                for number in range(max(STREAMS.values())):
                    for stream, count in STREAMS.items():
                        if number < count:
                            event = fastpump.NewEvent("t", data={"of": stream, "n": number})
                            await publisher.send(stream, event)
            await client.publish_event("deleted", "u")
            await client.delete_stream("deleted", hard=True)

    node = Served(tmp_path_factory.mktemp("node"))
    asyncio.run(fill())
    yield node
    node.stop()


@pytest.fixture(scope="module")
def log(filled: Served) -> bytes:
    """What a replay of the log is to be, with the server's own events."""

    async def read() -> bytes:
        credentials = {"username": "admin", "password": ENVIRONMENT["FASTPUMP_PASSWORD"]}
        async with fastpump.connect(filled.host, filled.port, **credentials) as client:
            return b"".join([to_line(e) async for e in client.iter_all(resolve_links=False)])

    return asyncio.run(read())


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Where to write; nothing else may be left there."""
    folder = tmp_path / "output"
    folder.mkdir()
    yield folder / "out.ndjson"
    assert [path.name for path in folder.iterdir()] in ([], ["out.ndjson"])


def by_stream(output: Path) -> dict[str, list[int]]:
    """The numbers of the events of each stream, in the order of the file."""
    found: dict[str, list[int]] = defaultdict(list)
    for line in output.read_bytes().splitlines():
        event = json.loads(line)
        found[event["stream"]].append(event["event_number"])
        assert event["data"] == {"of": event["stream"], "n": event["event_number"]}
    return found


EXPECTED = {stream: list(range(count)) for stream, count in STREAMS.items()}


# --- what is written ---


@every_width
def test_streams_are_complete_and_in_order(
    filled: Served, run: Run, tmp_path: Path, output: Path, width: list[str]
) -> None:
    names = tmp_path / "names"
    names.write_text("\n".join(STREAMS) + "\n\ns-1\n", encoding="utf-8-sig")
    summary = tmp_path / "summary.json"
    options = ["--streams-from", str(names), "--stream", "s-3", "--batch-size", "7", *width]
    done = run("replay", *filled.options, *options, "-o", str(output), "--summary", str(summary))
    assert (done.returncode, done.stdout) == (0, "")
    assert by_stream(output) == EXPECTED
    assert json.loads(summary.read_bytes())["events"] == sum(STREAMS.values())


@every_width
def test_streams_that_cannot_be_read_hold_up_no_others(
    filled: Served, run: Run, output: Path, width: list[str]
) -> None:
    names = "\n".join(["missing", *STREAMS, "deleted", "gone"])
    done = run(
        "replay",
        *filled.options,
        *["--streams-from", "-", "-o", str(output), "--batch-size", "7", *width],
        input=names,
    )
    assert done.returncode == 1
    assert by_stream(output) == EXPECTED
    assert sorted(done.stderr.splitlines()[:-1]) == [
        "The stream 'deleted' has been deleted",
        "The stream 'gone' does not exist",
        "The stream 'missing' does not exist",
    ]
    assert f"Read: {sum(STREAMS.values())} events" in done.stderr


@every_width
def test_the_log_is_in_its_order(
    filled: Served, run: Run, output: Path, log: bytes, width: list[str]
) -> None:
    output.write_bytes(b"from an earlier run\n" * 10_000)
    command = ["replay", *filled.options, *ADMIN, *ANYWHERE, *width, "-o", str(output)]
    done = run(*command, "--system", "--batch-size", "7")
    assert (done.returncode, done.stdout) == (0, "")
    assert output.read_bytes() == log
    lines = log.splitlines(keepends=True)
    half = len(lines) // 2
    commit, prepare = json.loads(lines[half])["position"]
    done = run(*command, "--from", f"{commit}/{prepare}")
    assert done.returncode == 0
    assert output.read_bytes().splitlines(keepends=True) == [
        line for line in lines[half:] if not json.loads(line)["type"].startswith("$")
    ]


@one_or_two
def test_prefixes(filled: Served, run: Run, output: Path, width: list[str]) -> None:
    command = ["replay", *filled.options, *ADMIN, *ANYWHERE, *width, "-o", str(output)]
    done = run(*command, "--stream-prefix", "s-1", "--stream-prefix", "s-22", "--batch-size", "7")
    assert done.returncode == 0
    assert by_stream(output) == {
        stream: numbers
        for stream, numbers in EXPECTED.items()
        if stream.startswith(("s-1", "s-22"))
    }
    assert run(*command, "--type-prefix", "nothing").returncode == 0
    assert output.read_bytes() == b""


@one_or_two
def test_nothing_is_written_to_measure(
    filled: Served, run: Run, tmp_path: Path, width: list[str]
) -> None:
    summary = tmp_path / "summary.json"
    for what in ([*ADMIN, *ANYWHERE, "--type-prefix", "t"], ["--streams-from", "-"]):
        options = [*what, *width, "--format", "none", "--summary", str(summary)]
        done = run("replay", *filled.options, *options, input="\n".join(STREAMS))
        assert (done.returncode, done.stdout) == (0, "")
        assert json.loads(summary.read_bytes())["events"] == sum(STREAMS.values())


def test_several_streams_to_standard_output(filled: Served, run: Run) -> None:
    options = ["--stream", "s-1", "--stream", "s-2", "--connections", "2"]
    done = run("replay", *filled.options, *options)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == STREAMS["s-1"] + STREAMS["s-2"]


def test_a_log_that_cannot_be_divided(filled: Served, run: Run, output: Path, log: bytes) -> None:
    options = ["--system", "--processes", "2", "-o", str(output)]
    done = run("replay", *filled.options, *ADMIN, *options)
    assert done.returncode == 0
    assert "The log can be divided no further: it is read in one range" in done.stderr
    assert output.read_bytes() == log


def test_started_by_the_console_script(
    filled: Served, tmp_path: Path, output: Path, log: bytes
) -> None:
    script = tmp_path / "fastpump"
    script.write_text(
        "import sys\n"
        "from fastpump.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main())\n"
    )
    options = [*ADMIN, *ANYWHERE, "--system", "--processes", "2", "-o", str(output)]
    subprocess.run(
        [sys.executable, str(script), "replay", *filled.options, *options],
        env=ENVIRONMENT,
        cwd=tmp_path,
        check=True,
    )
    assert output.read_bytes() == log


# --- what goes wrong ---


@one_or_two
def test_nobody_may_read_the_log(filled: Served, run: Run, output: Path, width: list[str]) -> None:
    output.write_bytes(b"from an earlier run\n")
    done = run("replay", *filled.options, *width, "-o", str(output))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "denied" in line
    assert output.read_bytes() == b"from an earlier run\n"


@one_or_two
def test_a_wrong_password(filled: Served, run: Run, output: Path, width: list[str]) -> None:
    options = [*ADMIN, "--stream", "s-1", "--stream", "s-2", "--stream", "s-3", *width]
    secret = {**ENVIRONMENT, "FASTPUMP_PASSWORD": "not-the-one"}
    done = run("replay", *filled.options, *options, "-o", str(output), env=secret)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "not-the-one" not in line


@one_or_two
def test_an_output_that_cannot_be(filled: Served, run: Run, width: list[str]) -> None:
    for what in ([*ADMIN, *ANYWHERE], ["--stream", "s-1", "--stream", "s-2", "--stream", "s-3"]):
        done = run("replay", *filled.options, *what, *width, "-o", "missing/out.ndjson")
        assert done.returncode == 1
        assert "No such file or directory: " in done.stderr
        assert "Traceback" not in done.stderr


@every_width
def test_a_disk_that_is_full(
    filled: Served, start: Start, output: Path, log: bytes, width: list[str]
) -> None:
    def limit() -> None:
        room = len(log) // 5
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    options = [*ADMIN, *ANYWHERE, "--system", "--batch-size", "7", *width, "-o", str(output)]
    process = start("replay", *filled.options, *options, preexec_fn=limit)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith("Error: ")
    assert "File too large" in errors
    assert log.startswith(output.read_bytes())


def test_an_output_that_is_no_file(filled: Served, run: Run) -> None:
    options = [*ADMIN, *ANYWHERE, "--processes", "2", "-o", "/dev/null"]
    done = run("replay", *filled.options, *options)
    assert done.returncode == 1
    assert "only a file can be written in pieces" in done.stderr


def test_a_reader_that_has_seen_enough(filled: Served, tmp_path: Path) -> None:
    names = [option for stream in STREAMS for option in ("--stream", stream)]
    process = subprocess.Popen(
        [*FASTPUMP, "replay", *filled.options, *names, "--connections", "2", "--batch-size", "1"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--connections", "0"], "--connections"),
        (["--connections", "65"], "--connections"),
        (["--processes", "0"], "--processes"),
        (["--processes", "33"], "--processes"),
        (["--processes", "3", "--connections", "2", "-o", "f"], "as many as --processes"),
        (["--chunk-size", "0"], "--chunk-size"),
        (["--connections", "2"], "--output"),
        (["--processes", "2"], "--output"),
        (["--processes", "2", "--stream", "a", "--stream", "b"], "--output"),
        (["--stream", "a", "--stream", "b", "--from", "1"], "for one stream"),
        (["--stream", "a", "--stream", "b", "--type-prefix", "t"], "prefixes are for the log"),
        (["--streams-from", "missing"], "missing"),
        (["--streams-from", "."], "--streams-from"),
        (["--streams-from", "empty"], "has no name in it"),
        (["--streams-from", "latin-1"], "is not UTF-8"),
    ],
)
def test_wrong_usage(
    options: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n\n")
    Path("latin-1").write_bytes("Käse\n".encode("latin-1"))
    result = CliRunner().invoke(app, ["replay", *options])
    assert result.exit_code == 2
    assert problem in result.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_process_may_not_be_told_is_named(run: Run, output: Path, processes: int) -> None:
    done = run(
        "replay",
        *["--stream", "a", "--stream", "b", "--username", "a" * 256],
        *["--processes", str(processes), "-o", str(output)],
    )
    assert done.returncode == 2
    assert "--username" in done.stderr


# --- the parts of it ---


def a_plan(**options: Any) -> Plan:
    server = Server("tcp://admin:hidden@host", None, None, False, None, "admin", "hidden")
    return Plan(server, **options)


def test_no_secret_is_shown() -> None:
    assert "hidden" not in repr(a_plan())


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_everything_of_a_plan_is_in_one_of_its_parts(processes: int) -> None:
    positions = [fastpump.Position(n * 10, n * 10) for n in range(8)]
    ranges = [fastpump.LogRange(*pair) for pair in itertools.pairwise(positions)]
    paths = [Path(str(number)) for number in range(len(ranges))]
    plan = a_plan(ranges=ranges, pieces=paths, connections=len(ranges))
    parts = shared(plan, processes)
    assert [part.connections for part in parts] == [len(part.ranges) for part in parts]
    pairs = [pair for part in parts for pair in zip(part.ranges, part.pieces, strict=True)]
    assert sorted(pairs, key=lambda pair: paths.index(pair[1])) == list(
        zip(ranges, paths, strict=True)
    )
    assert together([Reader(part).report() for part in parts]) == Reader(plan).report()
    names = [f"s-{number}" for number in range(10)]
    plan = a_plan(streams=names, pieces=paths[:processes], connections=9)
    parts = shared(plan, processes)
    assert sorted(name for part in parts for name in part.streams) == names
    assert [part.pieces for part in parts] == [[path] for path in paths[:processes]]
    assert sum(part.connections for part in parts) == plan.connections


def test_reports_are_put_together_in_the_order_of_the_pieces() -> None:
    places = tuple(Place(number, number, number < 3) for number in range(5))
    reports = [
        Report(Sample(1, 10, 5, 50), places[::2], 4),
        Report(Sample(2, 20, 6, 60), places[1::2], 5),
    ]
    whole = together(reports)
    assert whole == Report(Sample(3, 30, 11, 110), places, 9)
    assert whole.reached == 3
    assert together(reports[:1]).reached == 2


@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        ([4, 2, 0, 5], b"aaa\nbbdddd\n"),
        ([4, 2], b"aaa\nbb"),
        ([2], b"aa"),
        ([0], b""),
    ],
)
def test_of_pieces_only_what_is_finished_is_put_together(
    output: Path, sizes: list[int], whole: bytes
) -> None:
    with pieces_of(output, 5) as pieces:
        for path, content in zip(pieces, (b"aaa\n", b"bbb\n", None, b"dddd\n"), strict=False):
            if content is not None:
                path.write_bytes(content)
        put_together(pieces, sizes)
    assert output.read_bytes() == whole
