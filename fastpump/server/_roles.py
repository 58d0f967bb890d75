"""What a node that does not lead answers (protocol document, sections 11.1 and 11.2).

A follower serves reads and forwards writes; the nodes of our cluster have one database, so it
executes both itself. What requires the leader, and groups always do, it hands on to the leader.
While there is none, reads are still served, and the rest is put off (`ClusterVNodeController` of
Event Store 4 and 5, state Unknown).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastpump._commands import Command
from fastpump.messages import NotHandledReason
from fastpump.server._gate import not_handled
from fastpump.server._messages import decode_message, encode_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump._framing import Frame
    from fastpump.server._node import BaseNode
    from fastpump.server.session import Session

_LEADER_ONLY = frozenset(
    (
        Command.CreatePersistentSubscription,
        Command.UpdatePersistentSubscription,
        Command.DeletePersistentSubscription,
        Command.ConnectToPersistentSubscription,
    )
)

# Which of its fields is "require_master", as a schema of decode_message (section 3).
_WRITES: dict[int, str] = {
    Command.WriteEvents: "---b",
    Command.DeleteStream: "--b",
    Command.TransactionStart: "--b",
    Command.TransactionWrite: "--b",
    Command.TransactionCommit: "-b",
}
_READS: dict[int, str] = {
    Command.ReadEvent: "---b",
    Command.ReadStreamEventsForward: "----b",
    Command.ReadStreamEventsBackward: "----b",
    Command.ReadAllEventsForward: "----b",
    Command.ReadAllEventsBackward: "----b",
    Command.FilteredReadAllEventsForward: "-----b",
    Command.FilteredReadAllEventsBackward: "-----b",
}
_SCHEMAS = {**_WRITES, **_READS}


class RoleCheck:
    """Sends clients to the leader.

    Args:
        node: whose requests are checked.
        leader: tells who leads at the moment, if anybody does.
    """

    def __init__(self, node: BaseNode, leader: Callable[[], BaseNode | None]) -> None:
        self._node = node
        self._leader = leader

    def __call__(self, session: Session, frame: Frame, offset: int) -> bytes | None:
        leader = self._leader()
        if leader is self._node:
            return None
        if leader is None:
            is_put_off = frame.command in _WRITES or _requires_leader(frame, offset)
            reason = NotHandledReason.NotReady
            return not_handled(frame.correlation_id, reason) if is_put_off else None
        if _requires_leader(frame, offset):
            reason = NotHandledReason.NotMaster
            return not_handled(frame.correlation_id, reason, leader_info(leader))
        return None


def _requires_leader(frame: Frame, offset: int) -> bool:
    if frame.command in _LEADER_ONLY:
        return True
    schema = _SCHEMAS.get(frame.command)
    return schema is not None and bool(decode_message(frame, offset, schema)[-1])


def leader_info(leader: BaseNode) -> bytes:
    """The address of the leader: a MasterInfo. A port of 0 is one it does not have."""
    http = (leader.host, leader.http_port or 0)
    if leader.is_secure:
        return encode_fields(leader.host, 0, *http, leader.host, leader.port)
    return encode_fields(leader.host, leader.port, *http)
