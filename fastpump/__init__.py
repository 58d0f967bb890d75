"""fastpump: an asyncio client for Event Store as fast as the socket allows.

General layout, from the top down; a module imports only from those below it, or beside it:

    cli/, __main__     the command line
    sync               the client for threads and scripts: calls that wait (`_blocking`),
                       on a loop in a thread of its own (`_background`)
    server/            the embedded development node (knows nothing of the client)
    replay             many streams, or the log in ranges, over several connections
    connection         connect() and Client
    users              who may use a server, managed over HTTP
    persistent_manager    what persistent subscriptions do, asked over HTTP (`_http_manager`)
    _connection_string what a connection string says, as arguments of connect()
    _acting            all of this with credentials of its own
    _operating         all operations in one class
    _writing, _reading, _following, _grouping, _administering, _transacting
                       the operations of a client: arguments in, operations out
    telemetry          what is started on its way to the dispatcher, as OpenTelemetry's spans
    subscriptions, _logs, persistent, transactions, publisher
                       events as they come, from history into live; events that the server hands
                       out until they are answered (`_group_consumer`, `_answers`); events that
                       appear together; many events to many streams
    _connector         which connection is current: connect, identify, reconnect, follow the leader
    _discoverers       which node to connect to: one, or a cluster's by gossip (`_gossip`)
    discovery          a cluster's members, selectors that choose one, retry policies
    _protocol          the asyncio side of one connection: receive, heartbeats, write flow
    _reads, _read_ahead    what is read, page by page; pages asked for before they are needed
    _dispatcher        frames to operations, by correlation id
    _subscribing, _group_operations, _operations, _operation
                       one class per request: its frame, its replies, how it ends; where they are
                       started (`_outlet`)
    _settings          how a client connects: time limits, counts, TLS
    _statistics        what a client tells of itself in numbers
    guard              at which versions a publisher writes
    connection_events  what a client tells of its connection
    messages, filters  the vocabulary: events, slices, positions, enums; which events are wanted
    _events, _event_feed, _replies, _requests, …    bytes (Cython); _cold: rare messages (protobuf)
    exceptions
"""

import logging

from fastpump import (
    connection,
    connection_events,
    discovery,
    exceptions,
    filters,
    guard,
    messages,
    metadata,
    publisher,
    replay,
    sync,
)
from fastpump._run import run
from fastpump.connection import *  # noqa: F403
from fastpump.exceptions import *  # noqa: F403
from fastpump.filters import *  # noqa: F403
from fastpump.messages import *  # noqa: F403
from fastpump.metadata import Acl, StreamMetadata, StreamMetadataResult
from fastpump.persistent_settings import PersistentSubscriptionSettings
from fastpump.publisher import *  # noqa: F403
from fastpump.replay import *  # noqa: F403

__version__ = "0.1.0"

# What is logged is shown where the program wants it, and nowhere if it says nothing.
logging.getLogger("fastpump").addHandler(logging.NullHandler())

__all__ = [
    "Acl",
    "PersistentSubscriptionSettings",
    "StreamMetadata",
    "StreamMetadataResult",
    "__version__",
    "connection_events",
    "discovery",
    "exceptions",
    "filters",
    "guard",
    "messages",
    "metadata",
    "publisher",
    "replay",
    "run",
    "sync",
]
__all__ += connection.__all__
__all__ += exceptions.__all__
__all__ += filters.__all__
__all__ += messages.__all__
__all__ += publisher.__all__
__all__ += replay.__all__
