"""Names of streams and types made of an event's fields: `aircraft-{tailnum:unknown}`."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

Fields = Mapping[str, Any]
Namer = Callable[[Fields], str]


class MissingField(ValueError):
    """An event has no value for a field that its stream or its type is named after."""


class _Part(NamedTuple):
    literal: str
    field: str | None
    default: str


def compile_template(template: str) -> Namer:
    """Turn a template into a function from an event's fields to the name.

    `{field}` stands for the field's value, `{field:default}` for the default where the field is
    missing, null or empty; without a default the function raises `MissingField` then.
    `{{` and `}}` are literal braces. A template that cannot be read raises ValueError.
    """
    parts = [_part(*piece) for piece in string.Formatter().parse(template)]
    if not parts:
        raise ValueError("is empty")
    if all(part.field is None for part in parts):
        name = "".join(part.literal for part in parts)
        return lambda fields: name
    if len(parts) == 1:
        # The common case, one field at the end, without the loop: this runs once per event.
        return partial(_render, parts[0])
    return lambda fields: "".join(_render(part, fields) for part in parts)


def _part(literal: str, field: str | None, default: str | None, conversion: str | None) -> _Part:
    if conversion:
        raise ValueError(f"has a conversion, !{conversion}, where only {{field:default}} may be")
    if field == "":
        raise ValueError("has braces without the name of a field")
    return _Part(literal, field, default or "")


def _render(part: _Part, fields: Fields) -> str:
    literal, field, default = part
    if field is None:
        return literal
    value = fields.get(field)
    if value is None or value == "":
        if not default:
            raise MissingField(f"the field {field!r} is missing or empty")
        value = default
    return f"{literal}{value}"
