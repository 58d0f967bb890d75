from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from clilib import ADMIN, ENVIRONMENT, FASTPUMP, Run, Served, Start

import fastpump
from fastpump.cli._replay import to_line
from fastpump.cli.app import app

ID = UUID("6f9619ff-8b86-d011-b42d-00cf4fc964ff")


def publish(node: Served, stream: str, *events: fastpump.NewEventData) -> None:
    async def main() -> None:
        async with fastpump.connect(node.host, node.port) as client:
            for begin in range(0, len(events), 500):
                await client.publish(stream, events[begin : begin + 500])

    asyncio.run(main())


def numbered(count: int) -> list[fastpump.NewEventData]:
    return [fastpump.NewEvent("t", data={"n": number}) for number in range(count)]


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


class TestAStream:
    def test_every_event_is_a_line(self, node: Served, run: Run) -> None:
        publish(
            node,
            "s",
            fastpump.NewEvent("created", id=ID, data={"a": "ä"}, metadata={"by": "me"}),
            fastpump.NewEvent("raw", data=b"\x00\xff"),
            fastpump.NewEvent("empty"),
        )
        done = run("replay", *node.options, "--stream", "s")
        assert done.returncode == 0
        first, second, third = lines(done.stdout)
        assert first.pop("created").endswith("Z")
        assert first == {
            "stream": "s",
            "event_number": 0,
            "type": "created",
            "id": str(ID),
            "position": None,
            "data": {"a": "ä"},
            "metadata": {"by": "me"},
        }
        assert second["data_base64"] == "AP8="
        assert "data" not in second
        assert "metadata" not in second
        assert third["data_base64"] == ""
        assert "Read: 3 events" in done.stderr

    def test_from(self, node: Served, run: Run) -> None:
        publish(node, "s", *numbered(10))
        done = run("replay", *node.options, "--stream", "s", "--from", "7", "--batch-size", "2")
        assert [line["data"]["n"] for line in lines(done.stdout)] == [7, 8, 9]

    def test_format_none(self, node: Served, run: Run, tmp_path: Path) -> None:
        publish(node, "s", *numbered(10))
        summary = tmp_path / "summary.json"
        done = run(
            "replay", *node.options, "--stream", "s", "--format", "none", "--summary", str(summary)
        )
        assert (done.returncode, done.stdout) == (0, "")
        figures = json.loads(summary.read_bytes())
        assert (figures["events"], figures["bytes"]) == (10, 70)

    def test_into_a_file(self, node: Served, run: Run, tmp_path: Path) -> None:
        publish(node, "s", *numbered(3))
        path = tmp_path / "out.ndjson"
        done = run("replay", *node.options, "--stream", "s", "-o", str(path))
        assert (done.returncode, done.stdout) == (0, "")
        assert len(lines(path.read_text(encoding="utf-8"))) == 3

    def test_a_missing_stream(self, node: Served, run: Run) -> None:
        done = run("replay", *node.options, "--stream", "nothing")
        assert done.returncode == 1
        assert done.stderr == "Error: The stream 'nothing' does not exist\n"


class TestTheLog:
    def test_in_the_order_of_writing(self, node: Served, run: Run) -> None:
        publish(node, "a", *numbered(2))
        publish(node, "b", *numbered(1))
        publish(node, "a", *numbered(1))
        done = run("replay", *node.options, *ADMIN)
        found = lines(done.stdout)
        assert [(line["stream"], line["event_number"]) for line in found] == [
            ("a", 0),
            ("a", 1),
            ("b", 0),
            ("a", 2),
        ]
        commit, prepare = found[2]["position"]
        done = run("replay", *node.options, *ADMIN, "--from", f"{commit}/{prepare}")
        assert lines(done.stdout) == found[2:]

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (["--stream-prefix", "account-"], ["account-1", "account-2"]),
            (["--stream-prefix", "account-1", "--stream-prefix", "b"], ["account-1", "b"]),
            (["--type-prefix", "ot"], ["b"]),
            (["--type-prefix", "ot", "--type-prefix", "t"], ["account-1", "b", "account-2"]),
            (["--type-prefix", "nothing"], []),
        ],
    )
    def test_filtered(self, node: Served, run: Run, options: list[str], found: list[str]) -> None:
        publish(node, "account-1", *numbered(1))
        publish(node, "b", fastpump.NewEvent("other", data={}))
        publish(node, "account-2", *numbered(1))
        done = run("replay", *node.options, *ADMIN, *options, "--batch-size", "1")
        assert [line["stream"] for line in lines(done.stdout)] == found

    def test_system_events_on_request(self, node: Served, run: Run) -> None:
        publish(node, "a", *numbered(1))
        done = run("replay", *node.options, *ADMIN, "--system")
        assert any(line["type"].startswith("$") for line in lines(done.stdout))

    def test_nobody_may_read_it(self, node: Served, run: Run) -> None:
        done = run("replay", *node.options)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "denied" in line

    def test_ctrl_c_says_where_to_go_on(self, node: Served, start: Start, run: Run) -> None:
        publish(node, "a", *numbered(30_000))
        # A pipe that nobody reads holds the replay up, so that the signal meets it at work.
        process = start("replay", *node.options, *ADMIN, "--batch-size", "10")
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), 1000).decode()
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        _, _, where = errors.partition("Stopped; go on with --from ")
        done = run("replay", *node.options, *ADMIN, "--from", where.strip())
        found = lines(first + rest) + lines(done.stdout)
        assert [line["data"]["n"] for line in found] == list(range(30_000))


def test_a_reader_that_has_seen_enough(node: Served, tmp_path: Path) -> None:
    publish(node, "s", *numbered(20_000))
    process = subprocess.Popen(
        [*FASTPUMP, "replay", *node.options, "--stream", "s"],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--stream", "s", "--from", "x"],
        ["--stream", "s", "--from", "-1"],
        ["--stream", "s", "--from", "1/1"],
        ["--from", "1"],
        ["--from", "1/2/3"],
        ["--from", "a/b"],
        ["--from", "1/2"],
        ["--format", "xml"],
        ["--batch-size", "5000"],
        ["--stream", "s", "--stream-prefix", "t"],
        ["--stream", "s", "--type-prefix", "t"],
        ["--stream-prefix", "s", "--type-prefix", "t"],
        ["--stream-prefix", ""],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["replay", *arguments])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"n": 1.10}', b'"data":{"n": 1.10}'),
        (b'{"n":\n1}', b'"data":{"n":1}'),
        (b"not json", b'"data_base64":"bm90IGpzb24="'),
        (b"", b'"data_base64":""'),
    ],
)
def test_one_event_is_one_line(data: bytes, line: bytes) -> None:
    record = fastpump.EventRecord("s", ID, 0, "t", data)
    text = to_line(fastpump.Event(record))
    assert line in text
    assert text.count(b"\n") == 1
