"""The embedded node: Event Store for development and tests, in a Python process, on SQLite.

General layout, from the socket to the disk:

    app       sockets and lifetime: `run`, `Node`
    session   one connection; `_heartbeat`
    _writes   the operations that change something, executed by `_writer` in groups
              by the rules of `_versions`
    _event_reads, _stream_reads, _all_reads
              the requests that don't, by those of `_visibility` and `_links`
    _access, _metadata
              what events say about who may do what and what is visible
    store     the log and its indexes in SQLite (`_database`, `_idindex`, `_streams`)
    _messages, _records, _ids
              bytes: requests and replies, stored events, the table of event ids
"""

from fastpump.server.app import Node, run
from fastpump.server.errors import (
    DatabaseInUse,
    DatabaseTooNew,
    NodeError,
    NotOurDatabase,
    PortInUse,
    StoreDamaged,
    StoreError,
    StoreFailed,
)

__all__ = [
    "DatabaseInUse",
    "DatabaseTooNew",
    "Node",
    "NodeError",
    "NotOurDatabase",
    "PortInUse",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "run",
]
