"""Appending: expected versions, idempotency, validation. Names are rows of the acceptance list."""

from __future__ import annotations

import time

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
    STREAM_EXISTS,
    SUCCESS,
    WRONG_VERSION,
    Fields,
    NodeThread,
    RawClient,
    event,
    frame,
    new_id,
    original,
)

from fastpump._commands import Command


def next_version(reply: Fields) -> int:
    assert reply["result"] == SUCCESS, reply
    return int(reply["last_event_number"])


def is_wrong_version(reply: Fields, actual: int) -> bool:
    return bool(reply["result"] == WRONG_VERSION and reply["current_version"] == actual)


def count(client: RawClient, stream: str) -> int:
    return len(client.forward(stream, count=4096).items)


def test_app_01_no_stream_then_exact_version(client: RawClient, stream: str) -> None:
    assert next_version(client.write(stream, [event()], NO_STREAM)) == 0
    assert next_version(client.write(stream, [event()], 0)) == 1
    assert client.forward(stream, 0, 2).numbers == [0, 1]


def test_app_02_any(client: RawClient, stream: str) -> None:
    assert next_version(client.write(stream, [event()])) == 0
    assert next_version(client.write(stream, [event()])) == 1


def test_app_03_a_hundred_events_in_one_call(client: RawClient, stream: str) -> None:
    events = [event(data=b'{"n":%d}' % n) for n in range(100)]
    reply = client.write(stream, events, NO_STREAM)
    assert (reply["first_event_number"], reply["last_event_number"]) == (0, 99)
    assert client.forward(stream).ids == [e["event_id"] for e in events]


def test_app_04_positions_increase_over_all_streams(client: RawClient, stream: str) -> None:
    replies = [client.write(f"{stream}-{n % 2}", [event(), event()]) for n in range(4)]
    positions = [reply["commit_position"] for reply in replies]
    assert positions == [reply["prepare_position"] for reply in replies]
    assert positions == sorted(set(positions))
    assert positions[0] > 0


@pytest.mark.parametrize("versions", [(ANY, NO_STREAM) * 2, (NO_STREAM, ANY) * 2])
def test_app_05_empty_writes_do_not_make_a_stream(
    client: RawClient, stream: str, versions: tuple[int, ...]
) -> None:
    assert [next_version(client.write(stream, [], v)) for v in versions] == [-1] * 4
    assert client.forward(stream).result == 1


def test_app_06_empty_writes_to_a_stream(client: RawClient, stream: str) -> None:
    client.write_some(stream, 3)
    assert [next_version(client.write(stream, [], v)) for v in (ANY, 2)] == [2, 2]
    assert all(is_wrong_version(client.write(stream, [], v), 2) for v in (0, 1, 7, NO_STREAM))
    assert count(client, stream) == 3


def test_app_07_exact_version_of_nothing(client: RawClient, stream: str) -> None:
    assert is_wrong_version(client.write(stream, [event()], 1), -1)
    assert client.forward(stream).result == 1


def test_app_08_refusals_carry_the_actual_version(client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    assert all(is_wrong_version(client.write(stream, [event()], v), 0) for v in (1, NO_STREAM, 7))
    assert count(client, stream) == 1


def test_app_09_to_12_stream_exists(client: RawClient, stream: str) -> None:
    assert is_wrong_version(client.write(stream, [event()], STREAM_EXISTS), -1)
    client.set_metadata(stream, b"{}")
    assert next_version(client.write(stream, [event()], STREAM_EXISTS)) == 0
    assert next_version(client.write(stream, [event()], STREAM_EXISTS)) == 1
    client.delete(stream)
    assert client.write(stream, [event()], STREAM_EXISTS)["result"] == DELETED


@pytest.mark.parametrize("expected", [NO_STREAM, ANY, 5, STREAM_EXISTS])
def test_app_13_hard_deleted(client: RawClient, stream: str, expected: int) -> None:
    client.write_some(stream, 1)
    client.delete(stream, hard=True)
    reply = client.write(stream, [event()], expected)
    assert reply["result"] == DELETED
    assert reply["first_event_number"] == reply["last_event_number"] == INVALID


@pytest.mark.parametrize("expected", [-3, -5])
def test_app_14_impossible_expected_version(client: RawClient, stream: str, expected: int) -> None:
    command, _ = client.ask(
        Command.WriteEvents, event_stream_id=stream, expected_version=expected, events=[event()]
    )
    assert command == Command.BadRequest
    assert client.ask(Command.Ping)[0] == Command.Pong


def test_app_15_json_flag(client: RawClient, stream: str) -> None:
    client.write(stream, [event(is_json=True), event(is_json=False)])
    flags = [
        (item["event"]["data_content_type"], item["event"]["metadata_content_type"])
        for item in client.forward(stream).items
    ]
    assert flags == [(1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("data", "metadata"), [(b"d", None), (b"", b"m"), (b"d", b"m"), (b"", None), (b"\0\xff", b"\0")]
)
def test_app_16_data_and_metadata(
    client: RawClient, stream: str, data: bytes, metadata: bytes | None
) -> None:
    client.write(stream, [event(data=data, metadata=metadata)])
    record = original(client.forward(stream).items[0])
    assert (record["data"], record["metadata"]) == (data, metadata or b"")


def test_app_17_created(client: RawClient, stream: str) -> None:
    client.write_some(stream, 1)
    record = original(client.forward(stream).items[0])
    milliseconds = (record["created"] - 621355968000000000) // 10000
    assert milliseconds == record["created_epoch"]
    assert abs(milliseconds / 1000 - time.time()) < 5


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": bytes(16)},
        {"event_id": bytes(15)},
        {"event_id": b"x" * 17},
        {"event_type": ""},
    ],
)
def test_app_19_invalid_events(client: RawClient, stream: str, fields: Fields) -> None:
    command, _ = client.ask(
        Command.WriteEvents,
        event_stream_id=stream,
        expected_version=ANY,
        events=[event(), {**event(), **fields}],
    )
    assert command == Command.BadRequest
    assert client.forward(stream).result == 1


def test_app_20_nobody_writes_to_all(client: RawClient) -> None:
    assert client.write("$all", [event()], auth=ADMIN)["result"] == DENIED


@pytest.mark.parametrize("name", ["a b", "a@b", "a/b", "a::b", "žluť", "😀", "x" * 1000, "a\0b"])
def test_app_21_names(client: RawClient, stream: str, name: str) -> None:
    client.write(name + stream, [event(type=name)])
    record = original(client.forward(name + stream).items[0])
    assert (record["event_stream_id"], record["event_type"]) == (name + stream, name)


def test_app_22_pipelined_versions_keep_their_order(client: RawClient, stream: str) -> None:
    requests = [write_payload(stream, [event()], number - 1) for number in range(100)]
    client.send_bytes(
        b"".join(frame(Command.WriteEvents, payload, None, new_id()) for payload in requests)
    )
    replies = [goldenlib.decode_fields(*reply_parts(client)) for _ in requests]
    assert [next_version(reply) for reply in replies] == list(range(100))


def test_app_23_many_connections_to_one_stream(node: NodeThread, stream: str) -> None:
    clients = [node.client() for _ in range(10)]
    for _ in range(50):
        for client in clients:
            client.send(Command.WriteEvents, write_payload(stream, [event()], ANY))
    numbers = [
        next_version(goldenlib.decode_fields(*reply_parts(client)))
        for client in clients
        for _ in range(50)
    ]
    assert sorted(numbers) == list(range(500))
    assert clients[0].forward(stream, count=1000).numbers == list(range(500))
    for client in clients:
        client.close()


def test_app_24_system_streams(client: RawClient, stream: str) -> None:
    assert client.write(f"${stream}", [event()])["result"] == DENIED
    assert next_version(client.write(f"${stream}", [event()], auth=ADMIN)) == 0


def write_payload(stream: str, events: list[Fields], expected: int) -> bytes:
    return goldenlib.encode_fields(
        Command.WriteEvents,
        {"event_stream_id": stream, "expected_version": expected, "events": events},
    )


def reply_parts(client: RawClient) -> tuple[int, bytes]:
    command, _, payload = client.receive()
    return command, payload


# --- idempotency ---

IDS = {
    name: new_id() for name in ("e0", "e1", "e2", "e3", "e4", "e5", "n", "x", "a", "b", "c", "d")
}

Writes = list[tuple[tuple[str, ...], int]]

S6: Writes = [(("e0",), -1), (("e1",), 0), (("e2",), 1), (("e3",), 2), (("e4",), 3), (("e5",), 4)]
S3, S1 = S6[:3], S6[:1]
B2: Writes = [(("e0", "e1"), -1)]
NOTHING: Writes = []

WRONG = "wrong"

# acceptance row: first writes, [(ids, expected version, next version or WRONG)], events at the end
MATRIX: dict[str, tuple[Writes, list[tuple[tuple[str, ...], int, int | str]], int]] = {
    "IDEM-01": (S6, [(("e0",), -1, 0)], 6),
    "IDEM-02": (S6, [(("e0",), ANY, 0)], 6),
    "IDEM-03": (S6, [(("e0",), 5, 6)], 7),
    "IDEM-04": (S6, [(("e0",), 6, WRONG)], 6),
    "IDEM-05": (S6, [(("e0",), 4, WRONG)], 6),
    "IDEM-06": (S6, [(ids, version, version + 1) for ids, version in S6], 6),
    "IDEM-07": (S1, [(("e0",), 0, 1)], 2),
    "IDEM-08": (S1, [(("e0",), ANY, 0)], 1),
    "IDEM-09": (S1, [(("e0",), -1, 0)], 1),
    "IDEM-10": (S3, [(("e1",), ANY, 1)] * 2, 3),
    "IDEM-11": (B2, [(("e0",), -1, 0)], 2),
    "IDEM-12": (B2, [(("e0",), ANY, 0)], 2),
    "IDEM-13": (B2, [(("e1",), 0, 1)], 2),
    "IDEM-14": (B2, [(("e1",), ANY, 1)], 2),
    "IDEM-15": (B2, [(("e0", "e1", "n"), -1, WRONG)], 2),
    "IDEM-16": (B2, [(("e0", "e1"), version, 1) for version in (-1, ANY, STREAM_EXISTS)], 2),
    "IDEM-17": (B2, [(("e1",), -1, WRONG), (("e1", "e0"), -1, WRONG)], 2),
    "IDEM-18": (B2, [(("e1", "e0"), ANY, 0)], 2),
    "IDEM-19": (B2, [(("e0", "n"), version, WRONG) for version in (ANY, STREAM_EXISTS, -1)], 2),
    "IDEM-20": (B2, [(("n", "e0"), ANY, 3)], 4),
    "IDEM-21": (B2, [(("e0", "e1"), 1, 3)], 4),
    "IDEM-22": (B2, [((), -1, WRONG), ((), 0, WRONG)], 2),
    "IDEM-23": (NOTHING, [(("a", "b", "c", "d"), ANY, 3)] * 2, 4),
    "IDEM-24": (NOTHING, [(("x",) * 6, ANY, 5)], 6),
    "IDEM-25": (NOTHING, [(("x",) * 6, ANY, 5), (("x",) * 6, ANY, 0)], 6),
    "IDEM-26": (NOTHING, [(("x",) * 6, -1, 5)] * 2, 6),
}


@pytest.mark.parametrize("row", MATRIX)
def test_idem_matrix(node: NodeThread, stream: str, row: str) -> None:
    # The ids are known by themselves over all streams, so every row takes others.
    ids = {name: new_id() for name in IDS}
    first, then, events = MATRIX[row]
    with node.client() as client:
        for names, version in first:
            client.write(stream, [event(ids[name]) for name in names], version)
        actual = count(client, stream) - 1
        for names, version, wanted in then:
            reply = client.write(stream, [event(ids[name]) for name in names], version)
            if wanted == WRONG:
                assert is_wrong_version(reply, actual)
            else:
                assert next_version(reply) == wanted
        assert count(client, stream) == events


def test_idem_27_the_first_stream_of_an_id_wins(client: RawClient, stream: str) -> None:
    """Recorded as IDEM-56: a second stream with the same id is written again each time."""
    event_id = new_id()
    client.write(stream, [event(event_id)])
    for number in (0, 1):
        assert next_version(client.write(f"{stream}-b", [event(event_id)])) == number
    assert next_version(client.write(stream, [event(event_id)])) == 0


def test_idem_28_and_29_the_first_content_stays(client: RawClient, stream: str) -> None:
    event_id = new_id()
    client.write(stream, [event(event_id, b"first")], NO_STREAM)
    reply = client.write(stream, [event(event_id, b"second", type="other")], NO_STREAM)
    assert (next_version(reply), reply["commit_position"]) == (0, -1)
    assert original(client.forward(stream).items[0])["data"] == b"first"


@pytest.mark.parametrize("metadata", [b'{"$tb":2}', b'{"$maxCount":1}'])
def test_idem_30_hidden_events_are_known(client: RawClient, stream: str, metadata: bytes) -> None:
    events = client.write_some(stream, 2)
    client.set_metadata(stream, metadata)
    before = client.forward(stream).numbers
    assert next_version(client.write(stream, events, NO_STREAM)) == 1
    assert client.forward(stream).numbers == before


def test_idem_31_a_repetition_does_not_undelete(client: RawClient, stream: str) -> None:
    events = client.write_some(stream, 2)
    client.delete(stream)
    for version in (NO_STREAM, ANY):
        assert next_version(client.write(stream, events, version)) == 1
    assert client.forward(stream).result == 1
    assert next_version(client.write(stream, [event()], NO_STREAM)) == 2
    assert client.forward(stream).numbers == [2]


def test_idem_32_a_repetition_to_a_deleted_stream(client: RawClient, stream: str) -> None:
    events = client.write_some(stream, 2)
    client.delete(stream, hard=True)
    assert client.write(stream, events, NO_STREAM)["result"] == DELETED


@pytest.mark.parametrize("expected", [ANY, NO_STREAM])
def test_a_pipelined_repetition_is_one_write(client: RawClient, stream: str, expected: int) -> None:
    """The second is judged by a first that is not on disk yet (4.1.4 times out: IDEM-59)."""
    payload = write_payload(stream, [event(), event()], expected)
    client.send_bytes(frame(Command.WriteEvents, payload, None, new_id()) * 3)
    replies = [goldenlib.decode_fields(*reply_parts(client)) for _ in range(3)]
    assert [next_version(reply) for reply in replies] == [1, 1, 1]
    assert count(client, stream) == 2


# --- sizes ---


def test_size_01_large_metadata(client: RawClient, stream: str) -> None:
    metadata = [b"a" * 6_000_000, b"b" * 6_000_000]
    client.write(stream, [event(metadata=value) for value in metadata])
    assert [original(i)["metadata"] for i in client.forward(stream).items] == metadata
    assert [original(i)["metadata"] for i in client.backward(stream).items] == metadata[::-1]
    assert original(client.read_event(stream, 1)["event"])["metadata"] == metadata[1]
    page = client.all_backward(count=2)
    assert [original(i)["metadata"] for i in page.items] == metadata[::-1]


@pytest.mark.parametrize(("excess", "reply"), [(0, Command.WriteEventsCompleted), (1, 0xF0)])
def test_size_02_the_largest_event(client: RawClient, stream: str, excess: int, reply: int) -> None:
    data = bytes(16_767_216 - 2 * len("t") + excess)
    payload = write_payload(stream, [event(data=data, type="t")], ANY)
    assert client.exchange(Command.WriteEvents, payload)[0] == reply


def test_a_read_behind_a_write_sees_it(client: RawClient, stream: str) -> None:
    read = goldenlib.encode_fields(
        Command.ReadEvent, {"event_stream_id": stream, "event_number": -1}
    )
    for number in range(20):
        client.send_bytes(
            frame(Command.WriteEvents, write_payload(stream, [event()], ANY), None, new_id())
            + frame(Command.ReadEvent, read, None, new_id())
        )
        assert reply_parts(client)[0] == Command.WriteEventsCompleted
        found = goldenlib.decode_fields(*reply_parts(client))
        assert found["event"]["event"]["event_number"] == number


def test_numbers_of_a_deleted_stream_are_64_bit(client: RawClient, stream: str) -> None:
    client.delete(stream, hard=True)
    assert client.forward(stream).last == MAX
