"""Comparing two runs of a scenario: what may vary from run to run, and what may not."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from wire import reference

from .payloads import BAD_REQUEST, Fields, encode_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .recordings import Reply, Scenario, Step

_POSITIONS = frozenset(
    {
        "commit_position",
        "prepare_position",
        "next_commit_position",
        "next_prepare_position",
        "transaction_id",
    }
)
_VARIABLE = frozenset({"last_commit_position", "created", "created_epoch", "total_time_ms"})
_WORDING = frozenset({"text", "error"})
_TIMES = re.compile(rb'("(?:added|updated)"\s*:\s*)"[^"]*"')


def compare(
    scenario: Scenario,
    replies: Sequence[Sequence[Reply]],
    closed: Sequence[frozenset[str]],
) -> list[str]:
    """The differences between the recorded replies and those of another run, step by step.

    Args:
        scenario: the recording.
        replies: what arrived in each step.
        closed: the connections closed by the server until the end of each step.
    """
    recorded = _Normaliser(scenario, scenario.replies)
    actual = _Normaliser(scenario, (reply for step in replies for reply in step))
    differences: list[str] = []
    gone: frozenset[str] = frozenset()
    for number, (step, arrived, closed_now) in enumerate(
        zip(scenario.steps, replies, closed, strict=True)
    ):
        place = f"{scenario.id} step {number}"
        differences += _compare_step(place, scenario, step, arrived, recorded, actual)
        gone |= step.closed
        if gone != closed_now:
            differences.append(
                f"{place}: closed connections are {sorted(closed_now)}, recorded {sorted(gone)}"
            )
    return differences


def _compare_step(
    place: str,
    scenario: Scenario,
    step: Step,
    arrived: Iterable[Reply],
    recorded: _Normaliser,
    actual: _Normaliser,
) -> Iterator[str]:
    expected, got = _by_stream(step.replies), _by_stream(arrived)
    for stream in sorted(expected.keys() | got.keys()):
        where = f"{place}, {'/'.join(stream)}"
        wanted, found = expected[stream], got[stream]
        if step.close_race and len(found) < len(wanted) and wanted[-1].command == BAD_REQUEST:
            wanted = wanted[:-1]
        if not wanted and found and _is_never_answered(scenario, stream):
            continue
        if len(wanted) != len(found):
            yield f"{where}: got {_commands(found)}, recorded {_commands(wanted)}"
            continue
        for one, other in zip(wanted, found, strict=True):
            yield from _compare_frame(where, scenario, one, other, recorded, actual)


def _is_never_answered(scenario: Scenario, stream: tuple[str, str]) -> bool:
    """Whether this is the request to which only the original server owes the answer."""
    answered = any(reply.stream == stream for reply in scenario.replies)
    return "no-reply" in scenario.tags and not answered


def _compare_frame(
    where: str,
    scenario: Scenario,
    wanted: Reply,
    found: Reply,
    recorded: _Normaliser,
    actual: _Normaliser,
) -> Iterator[str]:
    if (wanted.command, wanted.flags) != (found.command, found.flags):
        yield f"{where}: got {_commands([found])}, recorded {_commands([wanted])}"
        return
    if "server-content" in scenario.tags:
        return
    if not _is_canonical(found):
        yield f"{where}: unknown, reordered or wastefully encoded fields in {found.payload.hex()}"
    name = _command_name(found.command)
    yield from _differences(
        f"{where} {name}", recorded.normalise(wanted.fields), actual.normalise(found.fields)
    )


def _is_canonical(reply: Reply) -> bool:
    """Whether the payload is, like every recorded one, what its known fields encode to."""
    known = (
        encode_fields(reply.command, reply.fields) if "undecodable" not in reply.fields else None
    )
    return known in (None, reply.payload)


def _differences(where: str, wanted: Any, found: Any) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in [*wanted, *(found.keys() - wanted.keys())]:
            yield from _differences(
                f"{where}.{name}", wanted.get(name, _ABSENT), found.get(name, _ABSENT)
            )
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(f"{where}[{index}]", one, other)
    elif wanted != found:
        yield f"{where}: got {_short(found)}, recorded {_short(wanted)}"


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


class _Normaliser:
    """Takes out of fields what legitimately varies from run to run, and nothing else."""

    def __init__(self, scenario: Scenario, replies: Iterable[Reply]) -> None:
        self._sent_ids = scenario.event_ids
        values = sorted({value for reply in replies for value in _positions(reply.fields)})
        self._ranks = {value: rank for rank, value in enumerate(values, start=1)}

    def normalise(self, fields: Fields) -> Fields:
        return {name: self._value(name, value) for name, value in fields.items()}

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return self.normalise(value)
        if isinstance(value, list):
            return [self._value(name, item) for item in value]
        if name in _POSITIONS:
            return f"position {self._ranks[value]}" if value > 0 else value
        if name in _VARIABLE:
            return "…"
        if name in _WORDING:
            return "some text" if value else ""
        if name == "event_id":
            return value if value in self._sent_ids else "the server's own id"
        if name in ("data", "metadata"):
            return _TIMES.sub(rb'\1"some time"', value)
        return value


def _positions(fields: Fields) -> Iterator[int]:
    """All positions after the log's start, at any depth."""
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from _positions(item)
            elif name in _POSITIONS and item > 0:
                yield item


def _by_stream(replies: Iterable[Reply]) -> dict[tuple[str, str], list[Reply]]:
    streams: dict[tuple[str, str], list[Reply]] = defaultdict(list)
    for reply in replies:
        streams[reply.stream].append(reply)
    return streams


def _commands(replies: Iterable[Reply]) -> str:
    return ", ".join(_command_name(reply.command) for reply in replies) or "nothing"


def _command_name(command: int) -> str:
    return f"{command:#04x} {reference.PAYLOADS.get(command, '')}".strip()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"
