"""What clients send about groups, and what they get (sections 3.5 and 9)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from fastpump._commands import Command
from fastpump.server._asking import encode_record
from fastpump.server._messages import decode_message, encode_fields, encode_reply
from fastpump.server.errors import InvalidRequest
from fastpump.server.groups.machine import NakAction
from fastpump.server.groups.settings import GroupSettings, strategy_for
from fastpump.server.groups.storage import GroupName

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server.groups.messages import Message

ID_SIZE = 16


class ChangeResult(IntEnum):
    """Of a create, update or delete."""

    SUCCESS = 0
    UNSUITED = 1
    """Create: there is one already. Update, delete: there is none."""
    FAIL = 2
    ACCESS_DENIED = 3


class Connect(NamedTuple):
    """A ConnectToPersistentSubscription.

    Attributes:
        slots: how many events may be unanswered at a time.
    """

    name: GroupName
    slots: int


class Answer(NamedTuple):
    """What a consumer did with events: an ack if there is no action.

    Attributes:
        key: of the group, see `GroupName.key`.
    """

    key: str
    event_ids: list[bytes]
    action: NakAction | None = None
    reason: str = ""


def decode_settings(frame: Frame, offset: int) -> tuple[GroupName, GroupSettings]:
    """A CreatePersistentSubscription or UpdatePersistentSubscription.

    The name of the strategy need not be one there is.

    Raises:
        InvalidRequest: it cannot be decoded.
    """
    (
        group,
        stream,
        resolve_links,
        start_from,
        message_timeout,
        extra_statistics,
        live_buffer_size,
        read_batch_size,
        buffer_size,
        max_retry_count,
        prefer_round_robin,
        checkpoint_after,
        checkpoint_max,
        checkpoint_min,
        max_subscribers,
        strategy,
    ) = decode_message(frame, offset, "ssbqibiiiibiiiis")
    settings = GroupSettings(
        resolve_links=resolve_links,
        start_from=start_from,
        message_timeout=message_timeout,
        extra_statistics=extra_statistics,
        live_buffer_size=live_buffer_size,
        read_batch_size=read_batch_size,
        buffer_size=buffer_size,
        max_retry_count=max_retry_count,
        checkpoint_after=checkpoint_after,
        checkpoint_max=checkpoint_max,
        checkpoint_min=checkpoint_min,
        max_subscribers=max_subscribers,
        strategy=strategy_for(strategy, prefer_round_robin=prefer_round_robin),
    )
    return GroupName(stream or "", group or ""), settings


def decode_delete(frame: Frame, offset: int) -> GroupName:
    """A DeletePersistentSubscription. Raises InvalidRequest."""
    group, stream = decode_message(frame, offset, "ss")
    return GroupName(stream or "", group or "")


def decode_connect(frame: Frame, offset: int) -> Connect:
    """A ConnectToPersistentSubscription, checked as in section 5.6. Raises InvalidRequest."""
    group, stream, slots = decode_message(frame, offset, "ssi")
    if not group:
        raise InvalidRequest("no group name")
    if slots < 0:
        raise InvalidRequest(f"{slots} messages in flight")
    return Connect(GroupName(stream or "", group), slots)


def decode_ack(frame: Frame, offset: int) -> Answer:
    """A PersistentSubscriptionAckEvents. Raises InvalidRequest."""
    key, event_ids = decode_message(frame, offset, "sY")
    _require_ids(key, event_ids)
    return Answer(key, event_ids)


def decode_nak(frame: Frame, offset: int) -> Answer:
    """A PersistentSubscriptionNakEvents. Raises InvalidRequest."""
    key, event_ids, reason, action = decode_message(frame, offset, "sYsi")
    _require_ids(key, event_ids)
    try:
        return Answer(key, event_ids, NakAction(action), reason or "")
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _require_ids(key: str | None, event_ids: list[bytes]) -> None:
    if not key or not event_ids:
        raise InvalidRequest("no subscription id, or no event ids")
    if any(len(event_id) != ID_SIZE for event_id in event_ids):
        raise InvalidRequest("an event id is not a uuid")


def change_completed(
    command: int, correlation_id: bytes, result: ChangeResult, reason: str = ""
) -> bytes:
    """The reply to a create, update or delete, which is the command after the request's."""
    return encode_reply(command + 1, correlation_id, encode_fields(result, reason))


def confirmation(
    correlation_id: bytes, last_position: int, name: GroupName, last_number: int
) -> bytes:
    payload = encode_fields(last_position, name.key, last_number)
    return encode_reply(Command.PersistentSubscriptionConfirmation, correlation_id, payload)


def appeared(correlation_id: bytes, message: Message, *, is_narrow: bool) -> bytes:
    """The push of an event; `is_narrow`: to a client of protocol version 0."""
    records = [encode_record(part, is_narrow) for part in message.content]
    payload = encode_fields(encode_fields(*records), message.retry_count)
    return encode_reply(Command.PersistentSubscriptionStreamEventAppeared, correlation_id, payload)
