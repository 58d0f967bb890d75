from typing import Any
from uuid import UUID

from fastpump._events import Event
from fastpump._new_events import NewEventData
from fastpump._packing import Batch

def encode_write_event(
    correlation_id: bytes,
    stream: str,
    expected_version: int,
    type: str,
    data: Any,
    metadata: Any,
    id: UUID | None,
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_write_events(
    correlation_id: bytes,
    stream: str,
    expected_version: int,
    events: list[NewEventData],
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_batch(
    correlation_id: bytes,
    batch: Batch,
    expected_version: int,
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_transaction_write(
    correlation_id: bytes,
    transaction_id: int,
    events: list[NewEventData],
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_read_event(
    correlation_id: bytes,
    stream: str,
    event_number: int,
    resolve_links: bool,
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_read_stream(
    correlation_id: bytes,
    backward: bool,
    stream: str,
    from_event_number: int,
    max_count: int,
    resolve_links: bool,
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_read_all(
    correlation_id: bytes,
    backward: bool,
    commit_position: int,
    prepare_position: int,
    max_count: int,
    resolve_links: bool,
    require_master: bool = False,
    auth: bytes | None = None,
) -> bytes: ...
def encode_ack(
    correlation_id: bytes, subscription_id: str, event_ids: list[Event | UUID]
) -> bytes: ...
def encode_nak(
    correlation_id: bytes,
    subscription_id: str,
    event_ids: list[Event | UUID],
    action: int,
    message: str,
) -> bytes: ...
