"""What a client can tell of itself in numbers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientStats"]


class Traffic:
    """Bytes that went over a client's connections, one after the other."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0


@dataclass(frozen=True)
class ClientStats:
    """A client at one moment; `Client.stats` tells. What counts up does so since it connected.

    Attributes:
        in_flight: operations started and not ended: sent, or waiting for a connection.
        waiting: callers that wait for a place, in the queue and at its door.
        subscriptions: what the server has confirmed and may push to.
        queued_bytes: bytes of requests that the operating system has not taken yet.
        bytes_in, bytes_out: bytes received and sent, over all connections, as they are without TLS.
        reconnects: connections made in place of one that was lost or left.
        unknown_frames: replies to no operation that is known, or no more. Some are normal: after an
            operation was sent again, its first reply may come all the same.
    """

    in_flight: int = 0
    waiting: int = 0
    subscriptions: int = 0
    queued_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    reconnects: int = 0
    unknown_frames: int = 0
