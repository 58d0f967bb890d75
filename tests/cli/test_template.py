from __future__ import annotations

from typing import Any

import pytest

from fastpump.cli._template import MissingField, compile_template


@pytest.mark.parametrize(
    ("template", "fields", "name"),
    [
        ("flights", {}, "flights"),
        ("aircraft-{tail}", {"tail": "N1"}, "aircraft-N1"),
        ("{tail}", {"tail": 7}, "7"),
        ("{a}-{b}", {"a": "x", "b": "y"}, "x-y"),
        ("{a}-{b}!", {"a": "x", "b": 0}, "x-0!"),
        ("aircraft-{tail:unknown}", {"tail": ""}, "aircraft-unknown"),
        ("aircraft-{tail:unknown}", {"tail": None}, "aircraft-unknown"),
        ("aircraft-{tail:unknown}", {}, "aircraft-unknown"),
        ("{tail:unknown}-{a}", {"a": 1}, "unknown-1"),
        ("{{{tail}}}", {"tail": "N1"}, "{N1}"),
        ("{{}}", {}, "{}"),
        ("{flag}", {"flag": False}, "False"),
    ],
)
def test_names(template: str, fields: dict[str, Any], name: str) -> None:
    assert compile_template(template)(fields) == name


@pytest.mark.parametrize("template", ["{tail}", "x-{tail}", "{tail}-{other}"])
@pytest.mark.parametrize("fields", [{}, {"tail": ""}, {"tail": None}])
def test_a_missing_field_is_named(template: str, fields: dict[str, Any]) -> None:
    with pytest.raises(MissingField, match="'tail' is missing or empty"):
        compile_template(template)(fields)


@pytest.mark.parametrize("template", ["", "{", "}", "{tail", "{}", "{tail!r}"])
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_template(template)
