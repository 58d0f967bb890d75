"""The examples of docs/subscriptions.md run, and what it says of defaults and errors is right."""

from __future__ import annotations

import inspect
import re

import pytest
from docslib import Document

import fastpump
from fastpump import Client

DOCUMENT = Document("subscriptions.md")


@DOCUMENT.every_example
async def test_example(example: int, capsys: pytest.CaptureFixture[str]) -> None:
    await DOCUMENT.run(example)
    if example == 0:
        printed = capsys.readouterr().out.splitlines()
        assert printed == [f"{number} {{'id': {number}}}" for number in range(4)]


def test_defaults() -> None:
    parameters = inspect.signature(Client.subscribe_to).parameters
    events, size = parameters["buffer_events"].default, parameters["buffer_bytes"].default
    assert f"{events:,} events and {size // 2**20} MiB by default" in DOCUMENT.text


def test_errors() -> None:
    names = re.findall(r"`(\w+)`", DOCUMENT.text.partition("| Error |")[2].partition("\n\n")[0])
    assert len(names) > 8
    for name in names:
        assert hasattr(fastpump.exceptions, name)
