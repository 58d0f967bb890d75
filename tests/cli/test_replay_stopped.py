"""A wide replay that is stopped: what it has written, where it can go on, what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from client.pages import all_page
from client.peer import Link, Peer, Request, eventually, reply_to, serving, soon
from clilib import ENVIRONMENT, PATIENCE, Run, Served, Start

import fastpump
from fastpump.cli import _processes, _replay_job
from fastpump.cli._interrupt import SIGNALS
from fastpump.cli._options import Server
from fastpump.cli._processes import Processes, ProcessFailed, shared
from fastpump.cli._progress import INTERVAL
from fastpump.cli._replay import Plan
from fastpump.cli.app import app
from fastpump.exceptions import ReadError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

COUNT = 2_000
"""Events in the log; the one with number n is at position n + 1."""
WIDTHS = [
    ["--connections", "1"],
    ["--connections", "3"],
    ["--processes", "2"],
    ["--processes", "2", "--connections", "5"],
]
every_width = pytest.mark.parametrize("width", WIDTHS, ids=" ".join)
processes_only = pytest.mark.parametrize("width", WIDTHS[3:], ids=" ".join)


class Log:
    """A server of a log that answers so many requests to read it, and then none any more."""

    def __init__(self, peer: Peer, answers: int | None) -> None:
        self.host, self.port = peer.host, peer.port
        self.options = ["--host", peer.host, "--port", str(peer.port), "--username", "admin"]
        self.options += ["--chunk-size", "1", "--batch-size", "10"]
        self.answers = answers
        self.requests = 0
        self.links: list[Link] = []

    @property
    def is_silent(self) -> bool:
        return self.answers is not None and self.requests > self.answers

    def answer(self, request: Request) -> bytes | None:
        self.requests += 1
        return None if self.is_silent else all_page(request, COUNT)


@asynccontextmanager
async def serving_log(answers: int | None) -> AsyncIterator[Log]:
    async def accept() -> None:
        async with AsyncExitStack() as stack:
            while True:
                link = await peer.accept()
                # It may have been made by a process that is stopped already.
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    await link.handshake()
                    log.links.append(link)
                    await stack.enter_async_context(serving(link, log.answer))

    async with Peer() as peer:
        log = Log(peer, answers)
        accepting = soon(accept())
        try:
            yield log
        finally:
            accepting.cancel()
            await asyncio.wait({accepting})


class Command:
    """A replay as if typed in at a terminal: it and what it starts are a group of processes."""

    def __init__(self, start: Start, output: Path, *arguments: str) -> None:
        self.output = output
        self.process = start("replay", *arguments, "-o", str(output), start_new_session=True)

    def signal_all(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    @property
    def workers(self) -> list[int]:
        """The ids of its processes, the first one first."""
        return sorted(
            pid
            for pid, command in processes_of(self.process.pid)
            if b"multiprocessing.spawn" in command
        )

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it said, once nothing of it runs or lies about any more."""
        _, errors = await asyncio.to_thread(self.process.communicate, timeout=PATIENCE)
        await eventually(lambda: not list(processes_of(self.process.pid)))
        assert {path.name for path in self.output.parent.iterdir()} <= {self.output.name}
        assert "Traceback" not in errors
        return self.process.returncode, errors


def processes_of(session: int) -> Iterator[tuple[int, bytes]]:
    """The processes of a session that run: their ids and command lines."""
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(status[3]) == session and status[0] != "Z":
                yield int(folder.name), (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            pass  # it has ended, or is no process


@asynccontextmanager
async def replaying(
    start: Start, output: Path, width: list[str], answers: int = 60
) -> AsyncIterator[tuple[Log, Command]]:
    """A replay that waits, because the server has become silent after so many answers."""
    async with serving_log(answers) as log:
        command = Command(start, output, *log.options, *width)
        await eventually(lambda: log.is_silent)
        yield log, command


def positions(path: Path) -> list[int]:
    return [json.loads(line)["position"][0] for line in path.read_bytes().splitlines()]


def place_in(errors: str, how: str) -> str:
    (line,) = [line for line in errors.splitlines() if line.startswith(f"{how}; go on with --from")]
    return line.rpartition(" ")[2]


async def assert_whole(log: Log, run: Run, output: Path, where: str) -> None:
    """What was written, and what is read from there on, is the log."""
    before = positions(output) if output.exists() else []
    log.answers = None
    done = await asyncio.to_thread(run, "replay", *log.options, "--from", where, "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert before + positions(output) == list(range(1, COUNT + 1))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "out.ndjson"


# --- Ctrl-C ---


@every_width
@pytest.mark.parametrize("answers", [0, 60])
async def test_ctrl_c_with_a_server_that_is_silent(
    start: Start, run: Run, output: Path, width: list[str], answers: int
) -> None:
    """While the log is divided, and while it is read."""
    async with replaying(start, output, width, answers) as (log, command):
        command.signal_all(signal.SIGINT)
        code, errors = await command.end()
        assert code == 130
        await assert_whole(log, run, output, place_in(errors, "Stopped"))


async def test_ctrl_c_while_it_connects(start: Start, output: Path) -> None:
    async with Peer() as peer:
        server = ["--host", peer.host, "--port", str(peer.port)]
        command = Command(start, output, *server, "--processes", "2")
        await peer.accept()
        command.signal_all(signal.SIGINT)
        code, errors = await command.end()
        assert (code, place_in(errors, "Stopped")) == (130, "0/0")


@processes_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_while_its_processes_start(
    start: Start, run: Run, output: Path, width: list[str], number: int
) -> None:
    async with serving_log(None) as log:
        command = Command(start, output, *log.options, *width)
        await eventually(lambda: command.workers)
        command.signal_all(number)
        code, errors = await command.end()
        assert code == 130
        await assert_whole(log, run, output, place_in(errors, "Stopped"))


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_the_pieces_are_put_together(
    node: Served, output: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The first one is too late to change anything, the second one is obeyed."""

    async def fill() -> None:
        async with fastpump.connect(node.host, node.port) as client:
            for number in range(20):
                await client.publish_event("s", "t", {"n": number})

    def put_together(*arguments: Any) -> None:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        whole(*arguments)

    # A shell's background jobs, and so what they start, ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    whole = _replay_job.put_together
    monkeypatch.setattr(_replay_job, "put_together", put_together)
    asyncio.run(fill())
    options = ["--username", "admin", "--chunk-size", "1", "--connections", "3", "-o", str(output)]
    try:
        result = CliRunner(env=ENVIRONMENT).invoke(app, ["replay", *node.options, *options])
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in output.parent.iterdir()] == ["out.ndjson"]
    if times == 1:
        assert result.exit_code == 130
        assert "Stopped; go on with --from " in result.stderr
        assert len(output.read_bytes().splitlines()) == 20
    else:
        assert result.exit_code == 1
        assert "Aborted!" in result.stderr


@processes_only
async def test_ctrl_c_with_a_process_that_hangs(
    start: Start, run: Run, output: Path, width: list[str]
) -> None:
    """What it told last is what it has done."""
    async with replaying(start, output, width) as (log, command):
        await asyncio.sleep(2 * INTERVAL)  # so that it has told something
        os.kill(command.workers[0], signal.SIGSTOP)
        command.process.send_signal(signal.SIGINT)
        code, errors = await command.end()
        assert code == 130
        await assert_whole(log, run, output, place_in(errors, "Stopped"))


async def test_ctrl_c_of_streams(start: Start, output: Path) -> None:
    names = ["--stream", "a", "--stream", "b", "--processes", "2"]
    async with replaying(start, output, names, 0) as (_, command):
        command.signal_all(signal.SIGINT)
        code, errors = await command.end()
        assert code == 130
        assert "Stopped; 0 of 2 streams are complete" in errors


def in_two_processes(log: Log) -> Processes:
    """A replay of both halves of the log, as the command has it done."""
    server = Server(None, log.host, log.port, False, None, None)
    parts = [fastpump.Position(n, n) for n in (0, COUNT // 2, COUNT + 1)]
    ranges = [fastpump.LogRange(*pair) for pair in itertools.pairwise(parts)]
    return Processes(shared(Plan(server, ranges=ranges, batch_size=10, connections=2), 2))


async def test_cancelled_once_processes_end_by_themselves() -> None:
    async with serving_log(60) as log:
        running = soon(in_two_processes(log).run())
        await eventually(lambda: log.is_silent)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()


@processes_only
async def test_signals_are_kept_from_processes(
    start: Start, output: Path, width: list[str]
) -> None:
    async with replaying(start, output, width) as (_, command):
        for pid in command.workers:
            status = Path(f"/proc/{pid}/status").read_text()
            (blocked,) = re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
            assert int(blocked, 16) == sum(1 << (number - 1) for number in SIGNALS)
        command.signal_all(signal.SIGINT)
        await command.end()


# --- processes that end otherwise ---


@processes_only
async def test_a_process_that_is_killed_is_reported(
    start: Start, run: Run, output: Path, width: list[str]
) -> None:
    async with replaying(start, output, width) as (log, command):
        await asyncio.sleep(2 * INTERVAL)  # so that it has told something
        os.kill(command.workers[0], signal.SIGKILL)
        code, errors = await command.end()
        assert code == 1
        assert errors.splitlines()[-1] == "Error: A process of the replay ended with exit code -9"
        if "Failed" in errors:
            await assert_whole(log, run, output, place_in(errors, "Failed"))
        else:
            assert not positions(output)


@pytest.mark.parametrize("failing", [0, 1], ids=["the first", "the second"])
async def test_a_process_that_hangs_while_another_fails(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: Request) -> bytes | None:
        if failing != (request.fields["commit_position"] >= COUNT // 2):
            return None
        children = sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0)
        os.kill(children[1 - failing].pid or 0, signal.SIGSTOP)
        return reply_to(request, result=2, error="the disk is full")

    monkeypatch.setattr(_processes, "GRACE", 0.2)
    async with serving_log(0) as log:
        log.answer = answer  # type: ignore[method-assign]
        with pytest.raises(ReadError, match="the disk is full"):
            await in_two_processes(log).run()
        assert not multiprocessing.active_children()


async def test_a_process_that_ends_without_a_word() -> None:
    async with serving_log(0) as log:
        running = soon(in_two_processes(log).run())
        await eventually(lambda: len(log.links) == 2)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(ProcessFailed, match="exit code -9"):
            await running
        assert not multiprocessing.active_children()


@processes_only
async def test_processes_end_with_who_started_them(
    start: Start, output: Path, width: list[str]
) -> None:
    async with replaying(start, output, width) as (_, command):
        assert len(command.workers) == 2
        command.process.kill()
        await eventually(lambda: not list(processes_of(command.process.pid)))
        _, errors = await asyncio.to_thread(command.process.communicate)
        assert errors == ""


@processes_only
async def test_what_processes_warn_of_is_shown(
    start: Start, output: Path, width: list[str]
) -> None:
    async with replaying(start, output, width) as (log, command):
        log.answers = None
        for link in log.links:
            link.abort()
        code, errors = await command.end()
        assert code == 0
        assert "connection" in errors.splitlines()[0]
        assert positions(output) == list(range(1, COUNT + 1))


@processes_only
async def test_no_password_is_in_a_command_line(
    start: Start, output: Path, width: list[str]
) -> None:
    async with replaying(start, output, width) as (_, command):
        found = list(processes_of(command.process.pid))
        command.signal_all(signal.SIGINT)
        _, errors = await command.end()
        secret = ENVIRONMENT["FASTPUMP_PASSWORD"]
        assert len(found) >= 3
        assert not [pid for pid, line in found if secret.encode() in line]
        assert secret not in errors
