"""Connection strings to arguments of `connect`, in both spellings.

* The reference client's: `ConnectTo=tcp://user:pass@host:1113; HeartBeatTimeout=1500`. The keys are
  those of the protocol document, section 12.1, in any case and with spaces between the words; times
  are milliseconds.
* A URL: `esdb+tcp://user:pass@host:1113?operation_timeout=7`. The options are arguments of
  `connect`, by their names and in their units; several hosts, with commas between them, are gossip
  seeds.

What a string says is not repeated in errors or logs, since a password may be anywhere in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote

from fastpump.discovery import (
    prefer_master,
    prefer_read_only_replica,
    prefer_replica,
    select_random,
)
from fastpump.exceptions import UsageError
from fastpump.messages import Credential

LOG = logging.getLogger("fastpump.connection_string")

NODE_SCHEMES = ("tcp", "esdb+tcp")
CLUSTER_SCHEMES = ("discover", "esdb+tcp+discover")

Arguments = dict[str, Any]
"""Of `connect`."""


def parse(connection_string: str) -> Arguments:
    """The arguments of `connect` that a connection string stands for.

    Raises:
        UsageError: it is not well-formed, or asks for what there is not; says where.
    """
    if not isinstance(connection_string, str):
        _refuse(f"must be a str, not {type(connection_string).__name__}")
    if re.match(r"\s*[A-Za-z][\w+.-]*://", connection_string):
        return _from_url(connection_string.strip())
    return _from_keys(connection_string)


def _refuse(problem: str) -> NoReturn:
    raise UsageError("connection_string", problem) from None


def _from_url(url: str) -> Arguments:
    address, _, options = url.partition("?")
    arguments = _address("the address", address)
    known: Known = {name: (name, convert) for name, convert in OPTIONS.items()}
    return _converted(parse_qsl(options, keep_blank_values=True), known) | arguments


def _from_keys(text: str) -> Arguments:
    pairs = {key.replace(" ", "").lower(): (key, value) for key, value in _pairs(text)}
    where = [
        key for key in ("connectto", "gossipseeds", "clusterdns") if pairs.get(key, ("", ""))[1]
    ]
    if len(where) != 1:
        _refuse("needs one of ConnectTo, GossipSeeds and ClusterDns, and not more")
    _, connect_to = pairs.pop("connectto", ("", ""))
    known = {key.lower(): meaning for key, meaning in KEYS.items()}
    arguments = _converted(pairs.values(), known)
    if connect_to:
        arguments |= _address("ConnectTo", connect_to)
    if not arguments.get("tls"):
        # Their values are of no account without TLS, and the defaults of some servers' tools.
        arguments.pop("target_host", None)
        arguments.pop("validate_server", None)
    return arguments


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """The keys and values of `key=value;key="v;alue"`; a quote inside is doubled."""
    at = 0
    while at < len(text):
        if text[at] == ";" or text[at].isspace():
            at += 1
            continue
        end = text.find("=", at)
        key = text[at:end].strip()
        if end < 0 or ";" in key:
            _refuse("has a part without '='; an address is written as tcp://host:port")
        at = end + 1
        while text[at : at + 1].isspace():
            at += 1
        if text[at : at + 1] in ('"', "'"):
            value, at = _quoted(text, at)
        else:
            end = text.find(";", at)
            begin, at = at, end if end >= 0 else len(text)
            value = text[begin:at].strip()
        yield key, value


def _quoted(text: str, at: int) -> tuple[str, int]:
    """The value that begins with the quote at `at`, and where it ends."""
    quote, begin = text[at], at + 1
    end = text.find(quote, begin)
    while end >= 0 and text[end + 1 : end + 2] == quote:
        end = text.find(quote, end + 2)
    if end < 0 or text[end + 1 :].lstrip()[:1] not in ("", ";"):
        _refuse("has quotes that do not end, or something behind them")
    return text[begin:end].replace(quote * 2, quote), end + 1


Converter = Callable[[str], Any]
"""Raises a ValueError that says what the value must be."""

Known = dict[str, tuple[str | None, Converter]]
"""By key in lower case: the argument, and what makes it of the text. None: nothing to set."""


def _converted(pairs: Iterable[tuple[str, str]], known: Known) -> Arguments:
    arguments: Arguments = {}
    unknown: list[str] = []
    for key, text in pairs:
        meaning = known.get(key.replace(" ", "").lower())
        if meaning is None:
            unknown.append(key)
            continue
        argument, convert = meaning
        try:
            value = convert(text)
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            _refuse(f"{key} {error}")
        if argument is not None:
            arguments[argument] = value
    if unknown:
        # Part of a password that was not quoted might be taken for a key: such are not shown.
        names = [key if re.fullmatch(r"[A-Za-z][A-Za-z_ ]{2,40}", key) else "?" for key in unknown]
        LOG.warning("Unknown in a connection string, and ignored: %s", ", ".join(names))
    return arguments


def _address(place: str, address: str) -> Arguments:
    """What `scheme://user:password@host:port` asks for."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.strip().lower()
    if not separator or scheme not in (*NODE_SCHEMES, *CLUSTER_SCHEMES):
        _refuse(f"{place} must begin with one of {', '.join((*NODE_SCHEMES, *CLUSTER_SCHEMES))}")
    userinfo, at, hosts = rest.removesuffix("/").rpartition("@")
    if re.search(r"[/?#\s]", hosts) or re.search(r"[/?#\s]", userinfo):
        _refuse(
            f"{place} has '/', '?', '#' or a space where it must not: write those as %2F, %3F …"
        )
    arguments: Arguments = {"credential": _decoded_credential(userinfo)} if at else {}
    services = [_service(place, host) for host in hosts.split(",")]
    if len(services) > 1:
        if scheme not in NODE_SCHEMES:
            _refuse(f"{place} with {scheme} takes one name")
        return arguments | {"gossip_seeds": [(host, port or 2113) for host, port in services]}
    prefix = "" if scheme in NODE_SCHEMES else "discovery_"
    ((host, port),) = services
    arguments[f"{prefix}host"] = host
    if port is not None:
        arguments[f"{prefix}port"] = port
    return arguments


def _service(place: str, text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", text)
    if found is None or (found[3] and not 1 <= int(found[3]) <= 65535):
        _refuse(f"{place} must have a host, and if a port then 1 to 65535")
    return found[1] or found[2], int(found[3]) if found[3] else None


def _decoded_credential(userinfo: str) -> Credential:
    """Out of an address, where `%` stands before the number of a byte."""
    try:
        return _credential(userinfo, lambda text: unquote(text, errors="strict"))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        _refuse("has credentials that are not user:password, or not percent-encoded UTF-8")


def _credential(text: str, decode: Callable[[str], str] = str) -> Credential:
    username, separator, password = text.partition(":")
    if not separator or not username:
        raise ValueError("must be user:password")
    return Credential(decode(username), decode(password))


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _attempts(text: str) -> int:
    """Retries come on top of the first attempt."""
    retries = _whole(text)
    if retries < -1:
        raise ValueError("must be 0 or more, or -1 for no limit")
    return retries if retries == -1 else retries + 1


def _milliseconds(text: str) -> float:
    number = _whole(text)
    if number < 0:
        raise ValueError("must be 0 milliseconds or more")
    return number / 1000


def _milliseconds_or_none(text: str) -> float | None:
    return _milliseconds(text) or None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number of seconds") from None


def _seconds_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else _seconds(text)


def _flag(text: str) -> bool:
    value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        text.lower()
    )
    if value is None:
        raise ValueError("must be true or false")
    return value


def _seeds(text: str) -> list[str]:
    if "@" in text:
        raise ValueError("takes no credentials; use DefaultUserCredentials")
    return [seed.strip() for seed in text.split(",")]


def _one_of(choices: dict[str, Any]) -> Converter:
    def convert(text: str) -> Any:
        choice = choices.get(text.lower())
        if choice is None:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choice

    return convert


def _text_or_none(text: str) -> str | None:
    return text or None


def _unless_true(remedy: str) -> Converter:
    """For what there is not."""

    def convert(text: str) -> None:
        if _flag(text):
            raise ValueError(f"is not possible: {remedy}")

    return convert


def _refused(remedy: str) -> Converter:
    def convert(text: str) -> NoReturn:
        raise ValueError(f"is not possible: {remedy}")

    return convert


_SELECTORS = {
    selector.__name__: selector
    for selector in (prefer_master, prefer_replica, prefer_read_only_replica, select_random)
}

_PREFERENCES = {
    "master": prefer_master,
    "leader": prefer_master,
    "slave": prefer_replica,
    "follower": prefer_replica,
    "readonlyreplica": prefer_read_only_replica,
    "random": select_random,
}

_INSTEAD_OF_SKIPPING = "give ValidateServer=false, which holds for gossip too"

KEYS: Known = {
    "GossipSeeds": ("gossip_seeds", _seeds),
    "ClusterDns": ("discovery_host", _text_or_none),
    "GossipPort": ("discovery_port", _whole),
    "ExternalGossipPort": ("discovery_port", _whole),
    "GossipTimeout": ("gossip_timeout", _milliseconds),
    "MaxDiscoverAttempts": ("max_discover_attempts", _whole),
    "NodePreference": ("selector", _one_of(_PREFERENCES)),
    "DefaultUserCredentials": ("credential", _credential),
    "UseSslConnection": ("tls", _flag),
    "TargetHost": ("target_host", _text_or_none),
    "ValidateServer": ("validate_server", _flag),
    "RequireMaster": ("require_master", _flag),
    "RequireLeader": ("require_master", _flag),
    "OperationTimeout": ("operation_timeout", _milliseconds),
    "FailOnNoServerResponse": ("fail_on_no_response", _flag),
    "MaxRetries": ("max_attempts", _attempts),
    "MaxConcurrentItems": ("max_in_flight", _whole),
    "MaxQueueSize": ("max_queue", _whole),
    "QueueTimeout": ("queue_timeout", _milliseconds_or_none),
    "MaxReconnections": ("max_reconnects", _whole),
    "ReconnectionDelay": ("reconnect_delay", _milliseconds),
    "HeartbeatInterval": ("heartbeat_interval", _milliseconds),
    "HeartbeatTimeout": ("heartbeat_timeout", _milliseconds),
    "ClientConnectionTimeout": ("connect_timeout", _milliseconds),
    # Nothing to set: what they ask for is so anyhow, or is the program's logging to decide.
    "OperationTimeoutCheckPeriod": (None, _milliseconds),
    "VerboseLogging": (None, _flag),
    "CompatibilityMode": (None, str),
    "RetryAuthenticationOnTimeout": (None, _flag),
    "SkipCertificateValidation": (None, _unless_true(_INSTEAD_OF_SKIPPING)),
    "CustomHttpMessageHandler": (None, _refused(_INSTEAD_OF_SKIPPING)),
}
"""Of the reference client, besides ConnectTo."""

OPTIONS: dict[str, Converter] = {
    "name": str,
    "connect_timeout": _seconds,
    "operation_timeout": _seconds,
    "fail_on_no_response": _flag,
    "max_attempts": _whole,
    "max_in_flight": _whole,
    "max_queue": _whole,
    "queue_timeout": _seconds_or_none,
    "heartbeat_interval": _seconds,
    "heartbeat_timeout": _seconds,
    "busy_poll": _seconds,
    "reconnect_delay": _seconds,
    "max_reconnects": _whole,
    "max_frame_size": _whole,
    "gossip_timeout": _seconds,
    "max_discover_attempts": _whole,
    "selector": _one_of(_SELECTORS),
    "tls": _flag,
    "ca_file": str,
    "target_host": str,
    "validate_server": _flag,
    "require_master": _flag,
}
"""Of a URL: arguments of `connect`."""
