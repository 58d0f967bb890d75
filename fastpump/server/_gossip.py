"""What gossip says of the nodes, in the words of old and of new servers (section 11.3)."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpump.server._engine import Engine
    from fastpump.server._node import BaseNode

GossipShape = Literal["v5", "v20"]
"""Whose names gossip uses: those of Event Store up to 5.x, or from 20.x on."""

ORIGINAL_VERSION = "4.1.4.0"
"""The Event Store whose behaviour the node has."""

EPOCH_ID = "f0e5b7a2-3c1d-4e8f-9a6b-7d2c5e1f0a34"
"""There is one history only, so there is one epoch."""


class Role(Enum):
    LEADER = "leader"
    FOLLOWER = "follower"
    UNKNOWN = "unknown"


_STATES: dict[GossipShape, dict[Role, str]] = {
    "v5": {Role.LEADER: "Master", Role.FOLLOWER: "Slave", Role.UNKNOWN: "Unknown"},
    "v20": {Role.LEADER: "Leader", Role.FOLLOWER: "Follower", Role.UNKNOWN: "Unknown"},
}
SHAPES = tuple(_STATES)


def state_name(role: Role, shape: GossipShape) -> str:
    return _STATES[shape][role]


def gossip(
    answering: BaseNode, members: Sequence[BaseNode], engine: Engine, shape: GossipShape
) -> dict[str, Any]:
    """The answer of one node to `GET /gossip`."""
    return {
        "members": [_member(node, engine, shape) for node in members],
        "serverIp": answering.host,
        "serverPort": answering.http_port,
    }


def _member(node: BaseNode, engine: Engine, shape: GossipShape) -> dict[str, Any]:
    plain, secure = (0, node.port) if node.is_secure else (node.port, 0)
    http = node.http_port or 0
    member: dict[str, Any] = {
        "instanceId": str(node.instance_id),
        "timeStamp": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
        "state": state_name(node.role, shape),
        "isAlive": node.is_alive,
        "internalTcpIp": node.host,
        "internalTcpPort": plain,
        "internalSecureTcpPort": secure,
        "externalTcpIp": node.host,
        "externalTcpPort": plain,
        "externalSecureTcpPort": secure,
    }
    if shape == "v5":
        member |= {
            "internalHttpIp": node.host,
            "internalHttpPort": http,
            "externalHttpIp": node.host,
            "externalHttpPort": http,
        }
    else:
        member |= {"httpEndPointIp": node.host, "httpEndPointPort": http}
    member |= {
        "lastCommitPosition": engine.store.last_position,
        "writerCheckpoint": engine.store.end,
        "chaserCheckpoint": engine.store.end,
        "epochPosition": 0,
        "epochNumber": 0,
        "epochId": EPOCH_ID,
        "nodePriority": 0,
    }
    if shape == "v20":
        member |= {"isReadOnlyReplica": False, "esVersion": ORIGINAL_VERSION}
    return member
