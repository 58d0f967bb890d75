"""The examples of docs/replaying.md run, and what it says of options is right."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docslib import Document

import fastpump
import fastpump.server
from fastpump.replay import CHUNK_SIZE

DOCUMENT = Document("replaying.md")
PROGRAM = len(DOCUMENT.examples) - 1


@pytest.mark.parametrize("example", range(PROGRAM))
async def test_example(example: int) -> None:
    await DOCUMENT.run(example)


async def test_program(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(DOCUMENT.examples[PROGRAM], encoding="utf-8")
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port) as client:
            await client.publish("s", [fastpump.NewEvent("t", data={}) for _ in range(20)])
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(path), node.host, str(node.port)],
            capture_output=True,
            text=True,
        )
    assert done.stderr == ""
    assert "'t': 20" in done.stdout


def test_the_options_are_there() -> None:
    app = pytest.importorskip("fastpump.cli.app").app
    options = {name: option for option in app.commands["replay"].params for name in option.opts}
    rows = re.findall(r"^\| `(--.+?) \| (.+?) \|", DOCUMENT.text, re.MULTILINE)
    assert len(rows) == 5
    for names, default in rows:
        for name in re.findall(r"--[\w-]+", names):
            option = options[name]
            assert not default.isdecimal() or int(default) == option.default
    assert options["--chunk-size"].default == CHUNK_SIZE
