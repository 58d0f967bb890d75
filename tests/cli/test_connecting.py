"""Where the commands connect to: a node, over TLS, a cluster's leader; and what cannot be."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from clilib import ENVIRONMENT, Run, Served

import fastpump.server
from fastpump.cli.app import app

NAMES = ["--stream", "s", "--type", "t"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.ndjson"
    path.write_text('{"n": 0}\n{"n": 1}\n')
    return path


def numbers(output: str) -> list[int]:
    return [json.loads(line)["data"]["n"] for line in output.splitlines()]


class TestTls:
    @pytest.mark.parametrize("as_url", [False, True])
    def test_with_the_nodes_authority(
        self, secure_node: Served, run: Run, lines: Path, as_url: bool
    ) -> None:
        options = [*secure_node.options, "--ca-file", secure_node.ca_file]
        if as_url:
            address = f"tcp://admin:changeit@{secure_node.address}"
            options = ["--connection-string", f"{address}?tls=true&ca_file={secure_node.ca_file}"]
        done = run("ingest", str(lines), *options, *NAMES)
        assert done.returncode == 0, done.stderr
        done = run("replay", *options, "--stream", "s")
        assert (done.returncode, numbers(done.stdout)) == (0, [0, 1])

    def test_a_certificate_that_does_not_verify(self, secure_node: Served, run: Run) -> None:
        done = run("replay", *secure_node.options, "--tls", "--stream", "s")
        assert (done.returncode, done.stdout) == (1, "")
        assert "certificate verify failed" in done.stderr


async def test_the_leader_of_a_cluster(run: Run, lines: Path) -> None:
    async def output(*arguments: str) -> str:
        done = await asyncio.to_thread(run, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async with fastpump.server.run_cluster() as cluster:
        seeds = ",".join(f"{node.host}:{node.http_port}" for node in cluster.nodes)
        options = [
            "--connection-string",
            f"GossipSeeds={seeds}; NodePreference=Follower; RequireMaster=true",
            "--username",
            "admin",
        ]
        await output("ingest", str(lines), *options, *NAMES)
        assert numbers(await output("replay", *options)) == [0, 1]


@pytest.mark.parametrize("width", [[], ["--connections", "3", "--chunk-size", "1"]])
def test_what_is_unknown_in_a_connection_string_is_told_once(
    node: Served, run: Run, width: list[str]
) -> None:
    string = f"ConnectTo=tcp://admin:changeit@{node.address}; HeartbeatTimout=1500"
    done = run("replay", "--connection-string", string, "--format", "none", *width)
    assert done.returncode == 0
    assert done.stderr.count("ignored: HeartbeatTimout") == 1


@pytest.mark.parametrize("command", [["replay"], ["ingest", "-", *NAMES]])
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--connection-string", "tcp://a", "--host", "b"], "--host"),
        (["--connection-string", "tcp://a", "--port", "1"], "--port"),
        (["--connection-string", "http://a"], "--connection-string: the address must begin with"),
        (["--connection-string", "ConnectTo=tcp://a; MaxRetries=x"], "MaxRetries must be"),
        (["--ca-file", "missing.pem"], "missing.pem"),
        (["--ca-file", __file__], "--ca-file"),
        (["--username", "a" * 256], "--username"),
    ],
)
def test_wrong_usage(command: list[str], options: list[str], problem: str) -> None:
    result = CliRunner(env=ENVIRONMENT).invoke(app, [*command, *options])
    assert result.exit_code == 2
    assert problem in result.stderr
