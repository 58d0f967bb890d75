"""The streams in which groups keep what has to survive (section 9.1)."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import orjson

from fastpump.server._links import LINK_TYPE
from fastpump.server._messages import decode_write_events, encode_fields
from fastpump.server._streams import Stream, metastream_of
from fastpump.server._versions import ANY
from fastpump.server._writer import NOBODY
from fastpump.server._writes import take_effect
from fastpump.server.groups.settings import STRATEGIES, GroupSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastpump.server._asking import Sources
    from fastpump.server._links import Resolved
    from fastpump.server._messages import WriteRequest
    from fastpump.server._writer import Client, Group
    from fastpump.server.groups.messages import Message

log = logging.getLogger("fastpump.server")

CONFIG_STREAM = "$persistentSubscriptionConfig"
CONFIG_TYPE = "PersistentConfig1"
CONFIG_VERSION = "2"
CONFIG_METADATA = orjson.dumps({"$maxCount": 2})
CHECKPOINT_TYPE = "SubscriptionCheckpoint"


class GroupName(NamedTuple):
    """Whose events a group gets, and what it is called."""

    stream: str
    group: str

    @property
    def key(self) -> str:
        """What clients call it once they are connected.

        Two groups with "::" in their names may have the same one; then only one of them can be.
        """
        return f"{self.stream}::{self.group}"

    @property
    def checkpoint_stream(self) -> str:
        return f"$persistentsubscription-{self.key}-checkpoint"

    @property
    def parked_stream(self) -> str:
        return f"$persistentsubscription-{self.key}-parked"


class NewEvent(NamedTuple):
    """An event that the node writes."""

    event_type: str
    data: bytes
    metadata: bytes = b""
    is_json: bool = True


class OwnWrite:
    """An event that the node writes of its own accord.

    Args:
        stream: its name.
        is_wanted: asked when its turn has come; if it is not, nothing is written or called.
        done: called with whether it is stored.
    """

    client: Client = NOBODY

    def __init__(
        self,
        stream: str,
        event: NewEvent,
        *,
        is_wanted: Callable[[], bool],
        done: Callable[[bool], None],
    ) -> None:
        self._request = request_of(stream, event)
        self._is_wanted = is_wanted
        self._done = done
        self.size = self._request.size

    def execute(self, group: Group) -> bool:
        if not self._is_wanted():
            return True
        is_stored = write_own(group, self._request)
        group.on_committed(partial(self._done, is_stored))
        return True

    def fail(self, problem: str) -> bytes:
        log.warning("An event was not written to %s: %s", self._request.stream, problem)
        self._done(False)
        return b""


def request_of(stream: str, event: NewEvent) -> WriteRequest:
    """The write of one event, with an id of its own."""
    fields = encode_fields(
        uuid4().bytes_le, event.event_type, event.is_json, 0, event.data, event.metadata
    )
    return decode_write_events(encode_fields(stream, ANY, [fields], True))


def write_own(group: Group, request: WriteRequest) -> bool:
    """Write to a stream of the node; False if somebody has deleted it for good."""
    stream = group.store.stream(request.stream)
    if stream.deleted:
        return False
    first = stream.last + 1
    was_deleted = group.metadata.of(stream).soft_deleted
    group.append(stream, request)
    take_effect(group, stream, first, request, was_deleted)
    return True


# --- the list of groups ---


def write_config(group: Group, groups: Iterable[tuple[GroupName, GroupSettings]], by: str) -> None:
    """Append the list of all groups, as it is after a change that the user `by` made."""
    config = {
        "version": CONFIG_VERSION,
        "updated": _now(),
        "updatedBy": by,
        "entries": [
            {"stream": name.stream, "group": name.group, **settings.to_stored()}
            for name, settings in groups
        ],
    }
    metastream = metastream_of(CONFIG_STREAM)
    if group.store.stream(metastream).last < 0:
        write_own(group, request_of(metastream, NewEvent("$metadata", CONFIG_METADATA)))
    write_own(group, request_of(CONFIG_STREAM, NewEvent(CONFIG_TYPE, _indented(config))))


def read_config(sources: Sources) -> dict[GroupName, GroupSettings]:
    """All groups there are. What is not understood is left out, with a word in the log."""
    found: dict[GroupName, GroupSettings] = {}
    config = _last_json(sources, CONFIG_STREAM)
    entries = config.get("entries") if isinstance(config, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            name = GroupName(entry["stream"], entry.get("group", ""))
            settings = GroupSettings.from_stored(entry)
        except (AttributeError, KeyError, TypeError):
            log.warning("%s has an entry that makes no sense: %r", CONFIG_STREAM, entry)
            continue
        if settings.strategy in STRATEGIES:
            found[name] = settings
    return found


# --- checkpoints ---


def checkpoint_event(number: int) -> NewEvent:
    return NewEvent(CHECKPOINT_TYPE, b"%d" % number)


def read_checkpoint(sources: Sources, name: GroupName) -> int | None:
    """The number up to which everything was done, or None if that was never written."""
    value = _last_json(sources, name.checkpoint_stream)
    # Version 21.10 and later write a string.
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


# --- parked events ---


def parked_event(message: Message, reason: str) -> NewEvent:
    """A link to the event, with why it was put aside."""
    metadata: dict[str, object] = {"added": _now(), "reason": reason}
    if message.number:
        metadata["subscriptionEventNumber"] = message.number
    return NewEvent(LINK_TYPE, _link_to(message.content), _indented(metadata), is_json=False)


def truncation(number: int) -> NewEvent:
    """Metadata that makes what is before this number invisible."""
    return NewEvent("$metadata", orjson.dumps({"$tb": number}))


def _link_to(content: Resolved) -> bytes:
    if content.event is None:
        assert content.link is not None
        return content.link.data
    return f"{content.event.number}@{content.event.stream}".encode()


# --- JSON ---


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()


def _indented(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def _last_json(sources: Sources, name: str) -> Any:
    """The content of a stream's last visible event; None if there is none or it is not JSON."""
    stream: Stream = sources.store.stream(name)
    entry = sources.visibility.event(stream, -1)
    if entry is None:
        return None
    try:
        return orjson.loads(entry.data)
    except orjson.JSONDecodeError:
        log.warning("The last event of %s is not JSON", name)
        return None
