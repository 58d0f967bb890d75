"""The examples of a document, and how they are run: as if pasted into `python -m asyncio`."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastpump

DOCS = Path(__file__).resolve().parent.parent / "docs"


class Document:
    """A Markdown file in docs/; `examples` are its Python blocks."""

    def __init__(self, name: str) -> None:
        self.path = DOCS / name
        self.text = self.path.read_text(encoding="utf-8")
        self.examples: list[str] = re.findall(
            r"^```python\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE
        )

    @property
    def every_example(self) -> pytest.MarkDecorator:
        return pytest.mark.parametrize("example", range(len(self.examples)))

    async def run(self, number: int) -> None:
        example = self.examples[number]
        if "development" in example:
            pytest.importorskip("cryptography")
        code = compile(example, str(self.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        scope: dict[str, Any] = {"fastpump": fastpump}
        result = eval(code, scope)
        assert inspect.isawaitable(result)
        await result
