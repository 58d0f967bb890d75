"""The embedded node: Event Store for development and tests, in a Python process, on SQLite.

General layout, from the socket to the disk:

    app, cluster
              one node, or several on one database: `run`, `run_cluster`
    _node     the sockets of a node; `_tls`, `faults`
    http      gossip, users, groups: by `_http_routes` and what it names
    _engine   what the nodes of a cluster share: everything below
    session   one connection; `_heartbeat`
    _writes, _transactions
              the operations that change something, executed by `_writer` in groups
              by the rules of `_versions`
    _subscriptions
              what is pushed as soon as it is committed; `_pushes`, `_unsent`
    groups    persistent subscriptions
    _event_reads, _stream_reads, _all_reads, _filtered_reads
              the requests that don't, by those of `_visibility`, `_links` and `_filters`
    _access, _metadata, _users
              what events say about who may do what and what is visible, and who there is
              (`_accounts`, `_user_streams`; `_user_changes`)
    store     the log and its indexes in SQLite (`_database`, `_idindex`, `_nameindex`,
              `_membership`, `_streams`, `_transaction_table`)
    _messages, _records, _log_writer, _ids
              bytes: requests and replies, stored events, the table of event ids
"""

from fastpump.server.app import Node, run
from fastpump.server.cluster import Cluster, ClusterNode, run_cluster
from fastpump.server.errors import (
    CertificateUnusable,
    DatabaseInUse,
    DatabaseTooNew,
    MissingExtra,
    NodeError,
    NoLeader,
    NotOurDatabase,
    PortInUse,
    StoreDamaged,
    StoreError,
    StoreFailed,
)
from fastpump.server.faults import Fault, Faults

__all__ = [
    "CertificateUnusable",
    "Cluster",
    "ClusterNode",
    "DatabaseInUse",
    "DatabaseTooNew",
    "Fault",
    "Faults",
    "MissingExtra",
    "NoLeader",
    "Node",
    "NodeError",
    "NotOurDatabase",
    "PortInUse",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "run",
    "run_cluster",
]
