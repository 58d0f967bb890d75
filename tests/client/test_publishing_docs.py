"""The examples of docs/publishing.md run, and its table is complete."""

from __future__ import annotations

import inspect
import re

from docslib import Document

import fastpump

DOCUMENT = Document("publishing.md")


@DOCUMENT.every_example
async def test_example(example: int) -> None:
    await DOCUMENT.run(example)


def test_every_limit_is_described() -> None:
    parameters = inspect.signature(fastpump.Client.publisher).parameters
    limits = [name for name in parameters if name.startswith("max_")]
    assert len(limits) == 5
    for name in limits:
        assert re.search(rf"^\| `{name}` \|", DOCUMENT.text, re.MULTILINE), name
