"""The examples of docs/persistent-subscriptions.md run, and its tables are right."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest
from docslib import Document

import fastpump
from fastpump import Client, NakAction, PersistentSubscriptionSettings

DOCUMENT = Document("persistent-subscriptions.md")
ROW = re.compile(r"^\| `(\w+)`(?: \(s\))? \| (\S+) \| `(\w+)` \| (\S+) \|$", re.MULTILINE)


@DOCUMENT.every_example
async def test_example(example: int, capsys: pytest.CaptureFixture[str]) -> None:
    if "persistent_manager" in DOCUMENT.examples[example]:
        pytest.importorskip("aiohttp")
    await DOCUMENT.run(example)
    if example == 0:
        printed = capsys.readouterr().out.splitlines()
        assert printed == ["{'id': 0} 0", "{'id': 1} 0", "{'id': 2} 0", "{'id': 1} 1"]


def test_settings_and_their_defaults() -> None:
    _, *rows = ROW.findall(DOCUMENT.text)  # below the heads
    assert [row[:2] for row in rows] == [
        (field.name, str(field.default)) for field in fields(PersistentSubscriptionSettings)
    ]
    parameters = inspect.signature(Client.create_subscription).parameters
    assert [row[3] for row in rows] == [str(parameters[row[2]].default) for row in rows]


def test_actions() -> None:
    for action in NakAction:
        assert f"NakAction.{action.name}" in DOCUMENT.text


def test_errors() -> None:
    section = DOCUMENT.text.partition("| Error |")[2].partition("## ")[0]
    for name in re.findall(r"`(\w+)`", section):
        assert hasattr(fastpump.exceptions, name)
