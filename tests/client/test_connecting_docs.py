"""The examples of docs/connecting.md run, and its tables are complete."""

from __future__ import annotations

import inspect

import pytest
from docslib import Document

from fastpump import connection_events, discovery
from fastpump.connection_events import ConnectionEvent
from fastpump.discovery import DiscoveryRetryPolicy

DOCUMENT = Document("connecting.md")


@DOCUMENT.every_example
async def test_example(example: int) -> None:
    pytest.importorskip("aiohttp")
    await DOCUMENT.run(example)


def test_every_event_is_described() -> None:
    for kind in ConnectionEvent.__subclasses__():
        assert kind.__name__ in connection_events.__all__
        arguments = ", ".join(inspect.signature(kind).parameters)
        assert f"| `{kind.__name__}({arguments})` |" in DOCUMENT.text


def test_every_selector_is_described() -> None:
    selectors = [
        name
        for name in discovery.__all__
        if inspect.isfunction(getattr(discovery, name))
        and list(inspect.signature(getattr(discovery, name)).parameters) == ["nodes"]
    ]
    assert len(selectors) == 4
    for name in selectors:
        assert f"| `{name}` |" in DOCUMENT.text


def test_the_policys_defaults_are_right() -> None:
    arguments = ", ".join(
        f"{parameter.name}={parameter.default}"
        for parameter in inspect.signature(DiscoveryRetryPolicy).parameters.values()
    )
    assert f"`DiscoveryRetryPolicy({arguments})`" in DOCUMENT.text.replace("\n", " ")
