"""How one client connects: the settings, what each may be, and the TLS context they ask for."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastpump._framing import MAX_FRAME_SIZE
from fastpump.exceptions import UsageError

SHORTEST_FRAME, LONGEST_FRAME = 18, 0x7FFFFFFF
"""Bytes behind the length prefix: a header alone, and what the prefix can say."""


@dataclass(frozen=True)
class ConnectionSettings:
    """How one client connects; `connect` says what each means. Seconds throughout."""

    connect_timeout: float = 5.0
    operation_timeout: float = 7.0
    heartbeat_interval: float = 0.75
    heartbeat_timeout: float = 1.5
    busy_poll: float = 0.0
    reconnect_delay: float = 0.1
    max_reconnects: int = 10
    max_attempts: int = 11
    max_in_flight: int = 5000
    max_queue: int = 5000
    queue_timeout: float | None = None
    fail_on_no_response: bool = False
    max_frame_size: int = MAX_FRAME_SIZE
    gossip_timeout: float = 1.0
    max_discover_attempts: int = 10
    ssl_context: ssl.SSLContext | None = None
    target_host: str | None = None
    require_master: bool = False

    def __post_init__(self) -> None:
        for name, (accepts, wanted) in _RULES.items():
            value = getattr(self, name)
            if not accepts(value):
                raise UsageError(name, f"must be {wanted}, not {value!r:.80}")


Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _is_whole(value: Any) -> bool:
    """Not too large for what counts in C."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.maxsize


_TIME: Rule = (lambda value: _is_number(value) and value > 0, "above 0 seconds")
_DELAY: Rule = (lambda value: _is_number(value) and value >= 0, "0 seconds or more")
_TIME_OR_NO_LIMIT: Rule = (
    lambda value: value is None or _TIME[0](value),
    "above 0 seconds, or None for no limit",
)
_FLAG: Rule = (lambda value: isinstance(value, bool), "True or False")
_COUNT: Rule = (lambda value: _is_whole(value) and value >= 1, f"1 to {sys.maxsize}")
_COUNT_OR_NO_LIMIT: Rule = (
    lambda value: _is_whole(value) and (value >= 1 or value == -1),
    f"1 to {sys.maxsize}, or -1 for no limit",
)

_RULES: dict[str, Rule] = {
    "connect_timeout": _TIME,
    "operation_timeout": _TIME,
    "fail_on_no_response": _FLAG,
    "queue_timeout": _TIME_OR_NO_LIMIT,
    "heartbeat_interval": _TIME,
    "heartbeat_timeout": _DELAY,
    "busy_poll": _DELAY,
    "reconnect_delay": _DELAY,
    "max_reconnects": (
        lambda value: _is_whole(value) and value >= -1,
        f"0 to {sys.maxsize}, or -1 for no limit",
    ),
    "gossip_timeout": _TIME,
    "max_discover_attempts": _COUNT_OR_NO_LIMIT,
    "max_attempts": _COUNT_OR_NO_LIMIT,
    "max_in_flight": _COUNT,
    "max_queue": _COUNT,
    "max_frame_size": (
        lambda value: _is_whole(value) and SHORTEST_FRAME <= value <= LONGEST_FRAME,
        f"{SHORTEST_FRAME} to {LONGEST_FRAME} bytes",
    ),
    "require_master": _FLAG,
    "target_host": (
        lambda value: value is None or (isinstance(value, str) and value != ""),
        "a name, or None for that of the node",
    ),
}


def context_for(
    tls: bool | ssl.SSLContext,
    ca_file: str | os.PathLike[str] | None,
    target_host: str | None,
    validate_server: bool = True,
) -> ssl.SSLContext | None:
    """The context that these arguments of `connect` ask for; None to speak plainly."""
    if not isinstance(tls, (bool, ssl.SSLContext)):
        raise UsageError("tls", f"must be True, False or an ssl.SSLContext, not {tls!r:.80}")
    if not isinstance(validate_server, bool):
        raise UsageError("validate_server", f"must be True or False, not {validate_server!r:.80}")
    details = {"ca_file": ca_file is not None, "validate_server": not validate_server}
    if isinstance(tls, ssl.SSLContext):
        _refuse_details(details, "belongs into the context that is given as tls")
        return tls
    if not tls:
        _refuse_details({**details, "target_host": target_host is not None}, "needs tls=True")
        return None
    if ca_file is not None and not validate_server:
        raise UsageError("ca_file", "has no effect with validate_server=False")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, TypeError) as error:
        raise UsageError("ca_file", f"{ca_file} cannot be used: {error}") from error
    if not validate_server:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refuse_details(given: dict[str, bool], problem: str) -> None:
    for argument, is_given in given.items():
        if is_given:
            raise UsageError(argument, problem)
