"""Filters of `$all` by stream name or event type (protocol document, section 6.5)."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING

from fastpump.server._messages import decode_message
from fastpump.server._records import texts_of
from fastpump.server.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PATTERN = 1000
"""Characters of a regular expression."""
MAX_TEXT = 1024
"""Characters of a name that a regular expression sees: a bound for what a bad one costs."""
CACHED_TEXTS = 10_000
"""Names per filter whose outcome is remembered; a log has few event types."""


class Context(IntEnum):
    STREAM_ID = 0
    EVENT_TYPE = 1


class Kind(IntEnum):
    REGEX = 0
    PREFIX = 1


class EventFilter:
    """Which events of the log somebody wants: those whose stream or type fits.

    Attributes:
        of_type: it looks at event types, not at stream names.
    """

    def __init__(self, of_type: bool, fits: Callable[[str], bool]) -> None:
        self.of_type = of_type
        self._fits = fits
        self._known: dict[str, bool] = {}

    def fits(self, text: str) -> bool:
        """Whether an event with this stream name, or of this type, is wanted."""
        known = self._known.get(text)
        if known is not None:
            return known
        outcome = self._fits(text)
        if len(text) <= MAX_TEXT:
            if len(self._known) >= CACHED_TEXTS:
                self._known.clear()
            self._known[text] = outcome
        return outcome

    def consider(self, records: bytes, offset: int, count: int) -> list[tuple[int, bool]]:
        """(offset, whether it is wanted) of `count` entries of a segment at most."""
        texts = texts_of(records, offset, count, self.of_type)
        return [(place, self.fits(text)) for place, text in texts]


def decode_filter(message: bytes | None) -> EventFilter:
    """A filter as it comes in a request; without data everything fits.

    Raises:
        InvalidRequest: it is not one, or its pattern is not one that is taken.
    """
    context, kind, data = decode_message(message or b"", 0, "iiY")
    texts = [str(text, "utf-8", "replace") for text in data]
    try:
        of_type, kind = Context(context) is Context.EVENT_TYPE, Kind(kind)
    except ValueError as error:
        raise InvalidRequest(f"a filter with {error}") from None
    if not texts:
        return EventFilter(of_type, lambda text: True)
    if kind is Kind.PREFIX:
        prefixes = tuple(texts)
        return EventFilter(of_type, lambda text: text.startswith(prefixes))
    pattern = compile_pattern(texts[0])
    return EventFilter(of_type, lambda text: pattern.search(text[:MAX_TEXT]) is not None)


def compile_pattern(text: str) -> re.Pattern[str]:
    r"""A regular expression of .NET as one of Python.

    The two agree on all that names of streams and types call for. Named groups and `\z` are
    translated; what only .NET knows is an error. So is a repetition without limit of something that
    itself repeats without limit, as in `(a+)+`: such a pattern may take for ever, and nothing could
    stop it. There are others, which are not recognised, such as `(a|a)*b`.

    Raises:
        InvalidRequest: one of these errors, or the pattern is too long.
    """
    if len(text) > MAX_PATTERN:
        raise InvalidRequest(f"a pattern longer than {MAX_PATTERN} characters")
    if repeats_repetition(text):
        raise InvalidRequest(f"a pattern that may take for ever: {text}")
    translated = re.sub(r"\(\?<(?![=!])", "(?P<", text)
    translated = re.sub(r"\\k<(\w+)>", r"(?P=\1)", translated).replace(r"\z", r"\Z")
    try:
        return re.compile(translated)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"an invalid pattern ({error}): {text}") from None


_TOKEN = re.compile(
    r"""
    \\. | \[\^?\]?(?:\\.|[^\]\\])*\]       # an escaped character, a set of characters
    | (?P<open>\() | (?P<close>\))
    | (?P<unlimited>[*+]|\{[0-9]+,\})
    | .
    """,
    re.DOTALL | re.VERBOSE,
)


def repeats_repetition(pattern: str) -> bool:
    """Whether a group that contains `*`, `+` or `{n,}` is itself repeated by one of these."""
    contains = [False]
    closed = False
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "open":
            contains.append(False)
        elif kind == "unlimited":
            if closed:
                return True
            contains[-1] = True
        # What a quantifier would repeat now: a group that has one inside.
        closed = kind == "close" and len(contains) > 1 and contains.pop()
        if closed:
            contains[-1] = True
    return False
