"""Explicit transactions. Names are rows of the acceptance list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import goldenlib
import pytest
from nodelib import (
    ADMIN,
    ANY,
    DELETED,
    DENIED,
    INVALID,
    MAX,
    NO_STREAM,
    SUCCESS,
    WRONG_VERSION,
    Auth,
    Fields,
    NodeThread,
    RawClient,
    event,
    frame,
    new_id,
    original,
    position_of,
)

from fastpump._commands import Command
from fastpump.server import _transactions
from fastpump.server._transaction_table import TransactionTable
from fastpump.server.errors import StoreFailed
from fastpump.server.store import Store

REFUSED = {
    "first_event_number": INVALID,
    "last_event_number": INVALID,
    "prepare_position": 0,
    "commit_position": 0,
}


def start(client: RawClient, stream: str, expected: int = ANY, auth: Auth = None) -> Fields:
    return client.expect(
        Command.TransactionStartCompleted,
        Command.TransactionStart,
        auth,
        event_stream_id=stream,
        expected_version=expected,
        require_leader=True,
    )


def begin(client: RawClient, stream: str, expected: int = ANY, auth: Auth = None) -> int:
    reply = start(client, stream, expected, auth)
    assert reply["result"] == SUCCESS
    return int(reply["transaction_id"])


def add(client: RawClient, transaction: int, events: Sequence[Fields]) -> None:
    reply = client.expect(
        Command.TransactionWriteCompleted,
        Command.TransactionWrite,
        transaction_id=transaction,
        events=events,
        require_leader=True,
    )
    assert reply == {"transaction_id": transaction, "result": SUCCESS}


def commit(client: RawClient, transaction: int, auth: Auth = None) -> Fields:
    return client.expect(
        Command.TransactionCommitCompleted,
        Command.TransactionCommit,
        auth,
        transaction_id=transaction,
        require_leader=True,
    )


def transact(client: RawClient, stream: str, expected: int, events: Sequence[Fields]) -> Fields:
    """A whole transaction with one write; the reply to its commit."""
    transaction = begin(client, stream, expected)
    add(client, transaction, events)
    return commit(client, transaction)


def numbers(reply: Fields) -> tuple[int, int]:
    assert reply["result"] == SUCCESS, reply
    return reply["first_event_number"], reply["last_event_number"]


# --- TX ---


@pytest.mark.parametrize("expected", [NO_STREAM, ANY])
def test_tx_01_one_event(client: RawClient, stream: str, expected: int) -> None:
    reply = transact(client, stream, expected, [event(data=b"1")])
    assert numbers(reply) == (0, 0)
    assert reply["commit_position"] == reply["prepare_position"] > reply["transaction_id"]
    assert client.forward(stream).items[0]["event"]["data"] == b"1"


def test_tx_02_nothing_is_visible_before_the_commit(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    with node.client() as subscriber:
        subscriber.ask(Command.SubscribeToStream, event_stream_id=stream)
        transaction = begin(client, stream)
        add(client, transaction, [event(), event()])
        last = client.all_backward(count=1).ids
        add(client, transaction, [event()])
        assert client.forward(stream).result != SUCCESS
        assert client.all_backward(count=1).ids == last
        with pytest.raises(TimeoutError):
            subscriber.receive(0.03)
        reply = commit(client, transaction)
        assert numbers(reply) == (0, 2)
        page = client.forward(stream)
        assert page.numbers == [0, 1, 2]
        pushed = [goldenlib.decode_fields(*subscriber.receive()[::2])["event"] for _ in range(3)]
    assert [original(item)["event_id"] for item in pushed] == page.ids
    assert client.all_backward(count=3).items[::-1] == pushed


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (1, NO_STREAM), (1, 7)])
def test_tx_03_wrong_version(client: RawClient, stream: str, count: int, expected: int) -> None:
    if count:
        client.write_some(stream, count)
    reply = transact(client, stream, expected, [event()])
    assert reply == {
        "transaction_id": reply["transaction_id"],
        "result": WRONG_VERSION,
        "message": "Wrong expected version.",
        **REFUSED,
    }
    assert len(client.forward(stream).items) == count


def test_tx_04_the_version_counts_at_the_commit(client: RawClient, stream: str) -> None:
    transaction = begin(client, stream, NO_STREAM)
    add(client, transaction, [event()])
    client.write_some(stream, 1)
    assert commit(client, transaction)["result"] == WRONG_VERSION

    transaction = begin(client, f"{stream}-b", 0)
    add(client, transaction, [event()])
    client.write_some(f"{stream}-b", 1)
    assert numbers(commit(client, transaction)) == (1, 1)


def test_tx_05_empty_commits(client: RawClient, stream: str) -> None:
    assert numbers(commit(client, begin(client, stream))) == (0, -1)
    assert numbers(transact(client, stream, NO_STREAM, [])) == (0, -1)
    assert client.forward(stream).last == -1
    client.write_some(stream, 3)
    assert numbers(commit(client, begin(client, stream, 2))) == (3, 2)


def test_tx_06_writes_after_an_empty_commit(client: RawClient, stream: str) -> None:
    events = client.write_some(stream, 3)
    commit(client, begin(client, stream, 2))
    assert client.write(stream, [event(), event()], 2)["last_event_number"] == 4
    assert client.forward(stream).numbers == [0, 1, 2, 3, 4]
    assert client.write(stream, events[:1], NO_STREAM)["last_event_number"] == 0
    assert client.write(stream, [event()], NO_STREAM)["result"] == WRONG_VERSION


def test_tx_07_many_writes_among_others(client: RawClient, stream: str) -> None:
    count = 500
    transaction = begin(client, stream)
    mine, others = [event() for _ in range(count)], [event() for _ in range(count)]
    fields: Fields = {"transaction_id": transaction}
    other: Fields = {"event_stream_id": stream, "expected_version": ANY}
    for one, two in zip(mine, others, strict=True):
        for command, content, written in (
            (Command.TransactionWrite, fields, one),
            (Command.WriteEvents, other, two),
        ):
            payload = goldenlib.encode_fields(command, {**content, "events": [written]})
            client.send(command, payload)
    for _ in range(2 * count):
        client.receive()
    assert numbers(commit(client, transaction)) == (count, 2 * count - 1)
    page = client.forward(stream, count=4096)
    assert page.ids == [item["event_id"] for item in [*others, *mine]]


def test_tx_08_deleted_meanwhile(client: RawClient, stream: str) -> None:
    transaction = begin(client, stream)
    add(client, transaction, [event()])
    client.delete(stream, hard=True)
    reply = commit(client, transaction)
    assert (reply["result"], reply["message"]) == (DELETED, "Stream is deleted.")
    assert begin(client, stream) > transaction  # a deleted stream is no reason not to start


def test_tx_10_from_other_connections(node: NodeThread, client: RawClient, stream: str) -> None:
    transaction = begin(client, stream)
    with node.client() as other:
        add(other, transaction, [event()])
    add(client, transaction, [event()])
    with node.client() as other:
        assert numbers(commit(other, transaction)) == (0, 1)


def test_tx_10_ids_that_never_were(client: RawClient) -> None:
    add(client, 10**15, [event()])
    reply = commit(client, 10**15)
    assert reply == {
        "transaction_id": 10**15,
        "result": DENIED,
        "message": "Access denied.",
        **REFUSED,
    }
    assert commit(client, 0, ADMIN)["result"] == DENIED
    for command in (Command.TransactionWrite, Command.TransactionCommit):
        assert client.ask(command, transaction_id=-1)[0] == Command.BadRequest


def test_tx_11_a_restart(tmp_path: Path, stream: str) -> None:
    path = tmp_path / "events.db"
    with NodeThread(path) as node, node.client() as client:
        transaction = begin(client, stream, NO_STREAM)
        add(client, transaction, [event() for _ in range(5)])
    with NodeThread(path) as node, node.client() as client:
        # What was reserved for the transaction is not given to anybody else.
        assert client.write(f"{stream}-b", [event()])["commit_position"] > transaction + 5
        add(client, transaction, [event() for _ in range(5)])
    with NodeThread(path) as node, node.client() as client:
        committed = commit(client, transaction)
        assert numbers(committed) == (0, 9)
        page = client.all_backward(count=11)
    with NodeThread(path) as node, node.client() as client:
        again = commit(client, transaction)
        assert numbers(again) == (0, 9)
        assert again["commit_position"] == -1
        assert client.all_backward(count=11).items == page.items
        assert client.write(stream, [event()], 9)["commit_position"] > committed["commit_position"]


@pytest.mark.parametrize("expected", [-3, -4, -5])
def test_tx_12_versions_to_start_with(client: RawClient, stream: str, expected: int) -> None:
    reply, _ = client.ask(
        Command.TransactionStart, event_stream_id=stream, expected_version=expected
    )
    assert reply == Command.BadRequest


# --- IDEM ---


def written_one_by_one(client: RawClient, stream: str, count: int) -> list[Fields]:
    events = [event() for _ in range(count)]
    for number, one in enumerate(events):
        assert client.write(stream, [one], number - 1)["result"] == SUCCESS
    return events


def test_idem_37_to_42_over_six_events(client: RawClient, stream: str) -> None:
    assert numbers(transact(client, stream, NO_STREAM, [event() for _ in range(6)])) == (0, 5)
    six = f"{stream}-six"
    (first, *_) = written_one_by_one(client, six, 6)
    assert numbers(transact(client, six, NO_STREAM, [first])) == (0, 0)
    assert numbers(transact(client, six, ANY, [first])) == (0, 0)
    assert transact(client, six, 6, [first])["result"] == WRONG_VERSION
    assert transact(client, six, 4, [first])["result"] == WRONG_VERSION
    assert len(client.forward(six).items) == 6
    assert numbers(transact(client, six, 5, [first])) == (6, 6)


@pytest.mark.parametrize(("expected", "number"), [(0, 1), (ANY, 0), (NO_STREAM, 0)])
def test_idem_43_over_one_event(client: RawClient, stream: str, expected: int, number: int) -> None:
    events = written_one_by_one(client, stream, 1)
    assert numbers(transact(client, stream, expected, events))[1] == number
    assert len(client.forward(stream).items) == number + 1


def test_idem_44_the_same_event_twice(client: RawClient, stream: str) -> None:
    events = written_one_by_one(client, stream, 3)
    transaction = begin(client, stream)
    add(client, transaction, events[1:2])
    add(client, transaction, events[1:2])
    assert numbers(commit(client, transaction)) == (1, 1)


def test_idem_45_known_events_and_a_new_one(client: RawClient, stream: str) -> None:
    events = client.write_some(stream, 2)
    assert transact(client, stream, NO_STREAM, [*events, event()])["result"] == WRONG_VERSION


def test_idem_46_two_transactions_with_one_event(client: RawClient, stream: str) -> None:
    transactions = [begin(client, stream), begin(client, stream)]
    same = event()
    for transaction in transactions:
        add(client, transaction, [same])
    for transaction in transactions:
        assert numbers(commit(client, transaction)) == (0, 0)
    assert len(client.forward(stream).items) == 1


# --- positions, and what else is not in the rows ---


def read_both_ways(client: RawClient, since: tuple[int, int], size: int) -> list[list[Fields]]:
    """Everything since a position in pages of a size, forwards and backwards."""
    forward, position = [], since
    while (page := client.all_forward(position, size)).items:
        forward += page.items
        position = page.next_position
    backward: list[Fields] = []
    position = (-1, -1)
    while len(backward) < len(forward):
        page = client.all_backward(position, size)
        backward += page.items
        position = page.next_position
    return [forward, backward[: len(forward)][::-1]]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_all_05_positions_of_a_transaction(client: RawClient, stream: str, size: int) -> None:
    before = client.write(f"{stream}-b", [event()])["commit_position"]
    transaction = begin(client, stream)
    add(client, transaction, [event(), event()])
    client.write(f"{stream}-b", [event()])
    add(client, transaction, [event()])
    committed = commit(client, transaction)["commit_position"]
    client.write(f"{stream}-b", [event()])

    forward, backward = read_both_ways(client, (before, before), size)
    assert forward == backward
    assert [original(item)["event_stream_id"] for item in forward] == [
        f"{stream}-b",
        f"{stream}-b",
        stream,
        stream,
        stream,
        f"{stream}-b",
    ]
    positions = [position_of(item) for item in forward]
    assert positions == sorted(set(positions))
    assert {commit for commit, _ in positions[2:5]} == {committed}
    for index, position in enumerate(positions):
        assert client.all_forward(position, 1).items == [forward[index]]
    # The positions of a transaction's events are before its commit, which ends all of them.
    for index, before_it in ((1, 0), (2, 1), (3, 1), (4, 1), (5, 4)):
        assert client.all_backward(positions[index], 1).items == [forward[before_it]]


def test_all_07_the_end_behind_a_transaction(client: RawClient, stream: str) -> None:
    """A reader that waits for the position of a confirmation reaches it."""
    reply = transact(client, stream, ANY, [event(), event()])
    page = client.all_backward(count=1)
    ended = client.all_forward(page.position)
    assert not ended.items
    last = client.all_forward(position_of(page.items[0]))
    assert len(last.items) == 1
    after = client.all_forward(last.next_position)
    assert not after.items
    assert after.next_position >= (reply["commit_position"],) * 2


def test_a_large_transaction(client: RawClient, stream: str) -> None:
    """Larger than a segment of the log, and its events not of one size."""
    events = [event(data=bytes([number % 251]) * (number * 7 % 900)) for number in range(1000)]
    transaction = begin(client, stream)
    for first in range(0, 1000, 250):
        add(client, transaction, events[first : first + 250])
    assert numbers(commit(client, transaction)) == (0, 999)
    page = client.forward(stream, count=4096)
    assert page.ids == [one["event_id"] for one in events]
    assert [item["event"]["data"] for item in page.items] == [one["data"] for one in events]
    everything = client.all_backward(count=1000)
    assert everything.ids[::-1] == page.ids
    assert client.backward(stream, 500, 3).numbers == [500, 499, 498]


def test_too_large_a_transaction(
    client: RawClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not even read: one of that size would fill the memory."""
    monkeypatch.setattr(_transactions, "MAX_SIZE", 1000)
    monkeypatch.setattr(TransactionTable, "writes", None)
    reply = transact(client, stream, ANY, [event(data=bytes(1001))])
    assert (reply["result"], reply["message"]) == (6, "Invalid transaction.")


def test_nothing_is_added_after_a_commit(client: RawClient, stream: str) -> None:
    transaction = begin(client, stream)
    add(client, transaction, [event()])
    assert numbers(commit(client, transaction)) == (0, 0)
    add(client, transaction, [event()])
    assert numbers(commit(client, transaction)) == (0, 0)
    assert len(client.forward(stream).items) == 1


def test_write_and_commit_in_one_packet(client: RawClient, stream: str) -> None:
    transaction = begin(client, stream)
    write = {"transaction_id": transaction, "events": [event()]}
    client.send_bytes(
        b"".join(
            frame(command, goldenlib.encode_fields(command, fields), None, new_id())
            for command, fields in (
                (Command.TransactionWrite, write),
                (Command.TransactionWrite, {**write, "events": [event(), event()]}),
                (Command.TransactionCommit, {"transaction_id": transaction}),
                (Command.TransactionCommit, {"transaction_id": transaction}),
            )
        )
    )
    replies = [goldenlib.decode_fields(*client.receive()[::2]) for _ in range(4)]
    assert [numbers(reply) for reply in replies[2:]] == [(0, 2), (0, 2)]
    assert replies[3]["commit_position"] == -1


def test_metadata_and_recreation(client: RawClient, stream: str) -> None:
    client.write_some(stream, 3)
    client.delete(stream)
    assert numbers(transact(client, stream, NO_STREAM, [event()])) == (3, 3)
    assert client.forward(stream).numbers == [3]
    metadata = event(data=b'{"$maxCount":1}', type="$metadata")
    assert numbers(transact(client, f"$${stream}", ANY, [metadata])) == (2, 2)
    client.write_some(stream, 2)
    assert client.forward(stream).numbers == [5]


def test_system_streams(client: RawClient, stream: str) -> None:
    name = f"${stream}"
    reply = start(client, name)
    assert reply == {"transaction_id": -1, "result": DENIED, "message": "Access denied."}
    transaction = begin(client, name, auth=ADMIN)
    add(client, transaction, [event()])
    assert commit(client, transaction)["result"] == DENIED
    assert numbers(commit(client, transaction, ADMIN)) == (0, 0)


def test_the_position_of_an_event_is_no_transaction(client: RawClient, stream: str) -> None:
    position = client.write(stream, [event()])["commit_position"]
    add(client, position, [event()])
    assert numbers(commit(client, position)) == (0, 0)
    assert commit(client, position + 1)["result"] == DENIED
    client.delete(stream, hard=True)
    tombstone = client.all_backward(count=1).items[0]
    assert tombstone["event"]["event_number"] == MAX


def test_a_commit_that_is_not_stored(
    tmp_path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as if it had never been asked for."""

    def fail(self: Store) -> None:
        raise StoreFailed("the disk is on fire")

    with NodeThread(tmp_path / "events.db") as node, node.client() as client:
        transaction = begin(client, stream)
        add(client, transaction, [event(), event()])
        with monkeypatch.context() as patched:
            patched.setattr(Store, "commit", fail)
            reply, fields = client.ask(Command.TransactionCommit, transaction_id=transaction)
            assert (reply, "on fire" in fields["text"]) == (Command.BadRequest, True)
            reply, _ = client.ask(
                Command.TransactionWrite, transaction_id=transaction, events=[event()]
            )
            assert reply == Command.BadRequest
            reply, _ = client.ask(Command.TransactionStart, event_stream_id=stream)
            assert reply == Command.BadRequest
        assert client.forward(stream).last == -1
        assert numbers(commit(client, transaction)) == (0, 1)
