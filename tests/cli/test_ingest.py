from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from clilib import ENVIRONMENT, FASTPUMP, Run, Served, Start

import fastpump
from fastpump.cli.app import app

ROWS = 5_000
NAMES = ["--stream", "aircraft-{tail:unknown}", "--type", "flight"]


def flight(number: int) -> dict[str, str | None]:
    tail = None if number % 50 == 0 else f"N{number % 37}"
    return {"number": str(number), "tail": tail, "note": 'æøå, "quoted"\nand on two lines'}


def write_csv(path: Path, rows: Sequence[int]) -> Path:
    lines = ["number,tail,note\n"]
    for row in rows:
        fields = flight(row)
        lines.append(f'{row},{fields["tail"] or "NA"},"æøå, ""quoted""\nand on two lines"\n')
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_all(node: Served) -> dict[str, list[Any]]:
    """The data of all events by stream, in order; their numbers are checked on the way."""

    async def main() -> dict[str, list[Any]]:
        streams: dict[str, list[Any]] = {}
        async with fastpump.connect(
            node.host, node.port, username="admin", password="changeit"
        ) as client:
            async for event in client.iter_all(batch_size=500):
                if not event.type.startswith("$"):
                    events = streams.setdefault(event.stream, [])
                    assert event.event_number == len(events)
                    events.append(event.json())
        return streams

    return asyncio.run(main())


def expected(rows: Sequence[int]) -> dict[str, list[Any]]:
    streams: dict[str, list[Any]] = {}
    for row in rows:
        fields = flight(row)
        streams.setdefault(f"aircraft-{fields['tail'] or 'unknown'}", []).append(fields)
    return streams


class TestWhatArrives:
    def test_csv_and_the_same_again(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "flights.csv", range(ROWS))
        command = ["ingest", str(path), *node.options, "--null", "NA", *NAMES]
        for extra in ([], ["--batch-size", "7"], ["--in-flight", "1"]):
            done = run(*command, *extra)
            assert done.returncode == 0, done.stderr
            assert f"Acknowledged: {ROWS:,} events" in done.stderr
            assert done.stdout == ""
        assert read_all(node) == expected(range(ROWS))

    def test_packed_is_the_same(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "flights.csv", range(100))
        packed = tmp_path / "flights.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        for file in (path, packed):
            assert run("ingest", str(file), *node.options, "--null", "NA", *NAMES).returncode == 0
        assert read_all(node) == expected(range(100))

    def test_more_later(self, node: Served, run: Run, tmp_path: Path) -> None:
        for count in (60, 200):
            path = write_csv(tmp_path / "flights.csv", range(count))
            assert run("ingest", str(path), *node.options, "--null", "NA", *NAMES).returncode == 0
        assert read_all(node) == expected(range(200))

    def test_several_files_into_one_stream(self, node: Served, run: Run, tmp_path: Path) -> None:
        rows = [{"n": n} for n in range(30)]
        files = [str(write_lines(tmp_path / f"{n}.ndjson", rows[n : n + 10])) for n in (0, 10, 20)]
        for _ in range(2):
            done = run("ingest", *files, *node.options, "--stream", "s", "--type", "t")
            assert done.returncode == 0
        assert read_all(node) == {"s": rows}

    def test_numbers_keep_their_digits(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "x.ndjson"
        path.write_text('{"price": 1.10, "n": 10000000000000000}\n')
        run("ingest", str(path), *node.options, "--stream", "s", "--type", "t")
        done = run("replay", *node.options, "--stream", "s")
        assert '"data":{"price": 1.10, "n": 10000000000000000}' in done.stdout

    def test_ids_of_fields(self, node: Served, run: Run, tmp_path: Path) -> None:
        rows = [{"id": n, "text": str(n)} for n in range(20)]
        options = [*node.options, "--stream", "s", "--type", "t", "--id-from", "id"]
        for order in (rows, rows):
            path = write_lines(tmp_path / f"{time.monotonic_ns()}.ndjson", order)
            assert run("ingest", str(path), *options).returncode == 0
        assert read_all(node) == {"s": rows}

    def test_standard_input(self, node: Served, run: Run) -> None:
        options = [*node.options, "--stream", "s", "--type", "t", "--source-name", "x"]
        for _ in range(2):
            done = run("ingest", "-", *options, input='{"a": 1}\n{"a": 2}\n')
            assert done.returncode == 0, done.stderr
        assert read_all(node) == {"s": [{"a": 1}, {"a": 2}]}

    def test_what_comes_through_a_pipe_is_sent_at_once(self, node: Served, start: Start) -> None:
        process = start(
            "ingest", "-", *node.options, "--stream", "s", "--type", "t", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write('{"a": 1}\n')
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while read_all(node) != {"s": [{"a": 1}]}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.stdin.close()
        assert process.wait(30) == 0

    def test_the_summary(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "x.ndjson", [{"a": 1}, {"a": 2}])
        summary = tmp_path / "summary.json"
        options = [*node.options, "--stream", "s", "--type", "t", "--summary", str(summary)]
        assert run("ingest", str(path), *options).returncode == 0
        figures = json.loads(summary.read_bytes())
        assert (figures["events"], figures["bytes"]) == (2, 16)
        assert 0 < figures["seconds"] < 60


class TestBadInput:
    def test_skip(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "x.ndjson"
        path.write_text('{"s": "a", "n": 1}\nnonsense\n{"n": 2}\n{"s": "a", "n": 3}\n')
        options = [*node.options, "--stream", "{s}", "--type", "t", "--on-error", "skip"]
        done = run("ingest", str(path), *options)
        assert done.returncode == 1
        bad, missing, count, acknowledged = done.stderr.splitlines()
        assert bad.startswith(f"{path}:2: not JSON: ")
        assert missing == f"{path}:3: the field 's' is missing or empty"
        assert count.startswith("2 could not be published")
        assert acknowledged.startswith("Acknowledged: 2 events")
        assert read_all(node) == {"a": [{"s": "a", "n": 1}, {"s": "a", "n": 3}]}

    def test_stop(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "x.ndjson"
        path.write_text('{"n": 1}\n{"n": 2}\nnonsense\n{"n": 4}\n')
        done = run("ingest", str(path), *node.options, "--stream", "s", "--type", "t")
        assert done.returncode == 1
        assert f"{path}:3: not JSON" in done.stderr
        assert f"Stopped at {path}, line 3" in done.stderr
        assert read_all(node) == {"s": [{"n": 1}, {"n": 2}]}

    def test_a_mended_line_is_added_and_nothing_twice(
        self, node: Served, run: Run, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.ndjson"
        options = [*node.options, "--stream", "s", "--type", "t", "--on-error", "skip"]
        path.write_text('nonsense\n{"n": 2}\n{"n": 3}\n')
        assert run("ingest", str(path), *options).returncode == 1
        path.write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n')
        for _ in range(2):
            assert run("ingest", str(path), *options).returncode == 0
        assert read_all(node) == {"s": [{"n": 2}, {"n": 3}, {"n": 1}]}

    def test_an_event_over_the_size_limit(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "x.ndjson", [{"n": 1}, {"n": "x" * (17 << 20)}, {"n": 3}])
        options = [*node.options, "--stream", "s", "--type", "t", "--on-error", "skip"]
        done = run("ingest", str(path), *options)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{path}:2: ")
        assert read_all(node) == {"s": [{"n": 1}, {"n": 3}]}

    def test_a_damaged_file(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "x.csv", range(ROWS))
        packed = tmp_path / "x.csv.gz"
        packed.write_bytes(gzip.compress(path.read_bytes())[:-100])
        done = run("ingest", str(packed), *node.options, *NAMES)
        assert done.returncode == 1
        assert f"{packed}: cannot be read any further" in done.stderr
        assert "Traceback" not in done.stderr

    def test_nobody_listens(self, run: Run, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "x.ndjson", [{}])
        done = run("ingest", str(path), "--port", "1", "--stream", "s", "--type", "t")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "127.0.0.1:1" in line

    def test_a_wrong_password(self, node: Served, run: Run, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "x.ndjson", [{}])
        done = run(
            "ingest", str(path), *node.options, "--username", "admin", *NAMES,
            env={**ENVIRONMENT, "FASTPUMP_PASSWORD": "wrong"},
        )  # fmt: skip
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "wrong" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["missing.csv", *NAMES], "does not exist"),
        (["x.csv", "--type", "t"], "--stream"),
        (["x.csv", "--stream", "{", "--type", "t"], "--stream"),
        (["x.txt", *NAMES], "--format"),
        (["x.csv", "y/x.csv", *NAMES], "same name"),
        (["x.csv", "z.csv", *NAMES, "--source-name", "n"], "--source-name"),
        (["x.csv", *NAMES, "--batch-size", "0"], "--batch-size"),
        (["x.csv", *NAMES, "--on-error", "maybe"], "--on-error"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "y").mkdir()
    for name in ("x.csv", "x.txt", "z.csv", "y/x.csv"):
        (tmp_path / name).touch()
    result = CliRunner().invoke(app, ["ingest", *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_the_password_is_asked_for_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTPUMP_PASSWORD", raising=False)
    path = write_lines(tmp_path / "x.ndjson", [{}])
    result = CliRunner().invoke(
        app,
        ["ingest", str(path), "--port", "1", "--username", "admin", *NAMES],
        input="geheim\n",
    )
    assert result.exit_code == 1
    assert "Password of admin" in result.output
    assert "geheim" not in result.output


class TestCtrlC:
    def interrupt(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def test_in_the_middle(self, node: Served, start: Start, run: Run, tmp_path: Path) -> None:
        path = write_csv(tmp_path / "flights.csv", range(20 * ROWS))
        command = ["ingest", str(path), *node.options, "--null", "NA", *NAMES]
        process = start(*command, "--in-flight", "100", "--batch-size", "10")
        deadline = time.monotonic() + 60
        while not read_all(node):
            assert time.monotonic() < deadline
        code, errors = self.interrupt(process)
        assert code == 130, errors
        assert "Stopped at" in errors
        acknowledged = int(errors.partition("Acknowledged: ")[2].split()[0].replace(",", ""))
        stored = read_all(node)
        assert 0 < sum(map(len, stored.values())) == acknowledged < 20 * ROWS
        assert run(*command).returncode == 0
        assert read_all(node) == expected(range(20 * ROWS))

    def test_while_it_waits_for_input(self, node: Served, start: Start) -> None:
        process = start(
            "ingest", "-", *node.options, "--stream", "s", "--type", "t", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write('{"a": 1}\n')
        process.stdin.flush()
        while not read_all(node):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        errors = process.stderr.read()
        assert "everything up to -, line 1 is published" in errors
        assert "Acknowledged: 1 events" in errors

    def test_while_it_connects(self, start: Start, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "x.ndjson", [{}])
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            process = start("ingest", str(path), "--port", str(port), *NAMES)
            connection, _ = silent.accept()
            with connection:
                code, errors = self.interrupt(process)
        assert code == 130
        assert "Traceback" not in errors

    def test_when_the_node_has_gone(self, serve: Callable[..., Served], start: Start) -> None:
        node = serve()
        process = start(
            "ingest", "-", *node.options, "--stream", "s", "--type", "t", stdin=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write('{"a": 1}\n')
        process.stdin.flush()
        while not read_all(node):
            time.sleep(0.05)
        node.process.kill()
        node.process.wait()
        process.stdin.write('{"a": 2}\n')
        process.stdin.flush()
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - begin < 20
        assert process.stderr is not None
        assert "everything up to -, line 1 is published" in process.stderr.read()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_the_bar_on_a_terminal(node: Served, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "flights.csv", range(ROWS))
    leader, follower = os.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            [*FASTPUMP, "ingest", str(path), *node.options, *NAMES],
            env={**ENVIRONMENT, "TERM": "xterm"},
            stderr=follower,
            cwd=tmp_path,
        )
        os.close(follower)
        shown = b""
        try:
            while piece := screen.read(65536):
                shown += piece
        except OSError:
            # What a terminal says on Linux when nobody is left on the other side.
            pass
        assert process.wait(60) == 0
    text = shown.decode()
    for word in ("ingest", f"{ROWS:,} events", "events/s", "MB/s"):
        assert word in text
