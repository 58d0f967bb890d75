"""Deletes, re-creation and stream metadata. Names are rows of the acceptance list."""

from __future__ import annotations

import json

import pytest
from nodelib import (
    ADMIN,
    ANY,
    DELETED,
    DENIED,
    MAX,
    NO_STREAM,
    SUCCESS,
    WRONG_VERSION,
    RawClient,
    event,
    original,
)

from fastpump._commands import Command

PAGE_NO_STREAM, PAGE_DELETED, PAGE_DENIED = 1, 2, 5


@pytest.fixture
def two(client: RawClient, stream: str) -> str:
    """A stream of two events."""
    client.write_some(stream, 2)
    return stream


def metadata(client: RawClient, stream: str) -> tuple[int, bytes]:
    """Version and content of the stream's metadata."""
    record = client.read_event(f"$${stream}", -1)["event"]["event"]
    return record["event_number"], record["data"]


@pytest.mark.parametrize("expected", [NO_STREAM, ANY])
def test_del_01_hard_delete_of_nothing(client: RawClient, stream: str, expected: int) -> None:
    reply = client.delete(stream, expected, hard=True)
    assert reply["result"] == SUCCESS
    assert reply["commit_position"] == reply["prepare_position"] > 0
    assert client.forward(stream).result == PAGE_DELETED


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("expected", [1, 7])
def test_del_02_wrong_version_of_nothing(
    client: RawClient, stream: str, hard: bool, expected: int
) -> None:
    assert client.delete(stream, expected, hard=hard)["result"] == WRONG_VERSION


def test_del_03_hard_delete(client: RawClient, stream: str) -> None:
    last = client.write(stream, [event()])["commit_position"]
    assert client.delete(stream, 1, hard=True)["result"] == WRONG_VERSION
    assert client.delete(stream, 0, hard=True)["commit_position"] > last


@pytest.mark.parametrize("hard", [True, False])
def test_del_04_and_05_it_stays_deleted(client: RawClient, two: str, hard: bool) -> None:
    client.delete(two, hard=True)
    for expected in (ANY, NO_STREAM, 1):
        assert client.delete(two, expected, hard=hard)["result"] == DELETED
    assert client.write(two, [event()])["result"] == DELETED
    assert client.forward(f"$${two}").result == PAGE_DELETED
    assert client.backward(two).last == MAX


def test_del_06_the_tombstone_in_the_log(client: RawClient, two: str) -> None:
    client.delete(two, hard=True)
    (item,) = client.all_backward(count=1).items
    record = item["event"]
    assert record["event_stream_id"] == two
    assert (record["event_type"], record["event_number"]) == ("$streamDeleted", MAX)
    assert (record["data"], record["metadata"]) == (b"", b"")


def test_del_07_soft_delete(client: RawClient, two: str) -> None:
    assert client.delete(two, 1)["result"] == SUCCESS
    page = client.forward(two)
    assert (page.result, page.window, page.last) == (PAGE_NO_STREAM, ([], -1, True), 1)
    assert [client.read_event(two, number)["result"] for number in (0, 1, -1)] == [2, 2, 2]


@pytest.mark.parametrize("expected", [0, 2, NO_STREAM])
def test_del_08_soft_delete_at_a_wrong_version(client: RawClient, two: str, expected: int) -> None:
    assert client.delete(two, expected)["result"] == WRONG_VERSION
    assert client.forward(two).numbers == [0, 1]


def test_del_09_soft_delete_replaces_metadata(client: RawClient, two: str) -> None:
    client.set_metadata(two, b'{"custom":1,"$acl":{"$r":"$all"}}')
    client.delete(two)
    assert metadata(client, two) == (1, b'{"$tb":%d}' % MAX)


def test_del_10_soft_delete_twice(client: RawClient, two: str) -> None:
    assert [client.delete(two)["result"] for _ in range(2)] == [SUCCESS, SUCCESS]
    assert metadata(client, two)[0] == 1


@pytest.mark.parametrize("expected", [ANY, NO_STREAM])
def test_del_11_soft_delete_of_nothing(client: RawClient, stream: str, expected: int) -> None:
    assert client.delete(stream, expected)["result"] == SUCCESS
    assert metadata(client, stream)[0] == 0


@pytest.mark.parametrize("expected", [-3, -4, -5])
def test_del_12_impossible_versions(client: RawClient, two: str, expected: int) -> None:
    reply, _ = client.ask(Command.DeleteStream, event_stream_id=two, expected_version=expected)
    assert reply == Command.BadRequest


def test_del_13_hard_after_soft(client: RawClient, two: str) -> None:
    client.delete(two)
    assert client.delete(two, hard=True)["result"] == SUCCESS
    assert client.forward(two).result == PAGE_DELETED


@pytest.mark.parametrize("expected", [ANY, NO_STREAM, 1])
def test_del_14_to_16_recreation(client: RawClient, two: str, expected: int) -> None:
    client.delete(two)
    reply = client.write(two, [event(), event(), event()], expected)
    assert reply["last_event_number"] == 4
    page = client.forward(two)
    assert (page.numbers, page.last, page.is_end) == ([2, 3, 4], 4, True)
    assert metadata(client, two) == (1, b'{"$tb":2}')
    assert client.write(two, [event()], NO_STREAM)["current_version"] == 4
    assert client.write(two, [event(), event()])["last_event_number"] == 6
    assert client.forward(two).numbers == [2, 3, 4, 5, 6]
    assert metadata(client, two)[0] == 1


def test_del_17_recreation_keeps_the_rest(client: RawClient, two: str) -> None:
    content = {"$tb": MAX, "$maxCount": 100, "$acl": {"$d": "user"}, "custom": {"a": [1]}}
    client.set_metadata(two, json.dumps(content).encode())
    assert client.forward(two).result == PAGE_NO_STREAM
    assert client.write(two, [event()], 1)["last_event_number"] == 2
    version, data = metadata(client, two)
    assert (version, json.loads(data)) == (1, {**content, "$tb": 2})


def test_del_18_metadata_on_an_empty_deleted_stream(client: RawClient, stream: str) -> None:
    client.delete(stream)
    reply = client.write(f"$${stream}", [event(data=b'{"$maxCount":10}', type="$metadata")], 0)
    assert reply["last_event_number"] == 1
    assert metadata(client, stream) == (2, b'{"$maxCount":10,"$tb":0}')
    page = client.forward(stream)
    assert (page.result, page.last) == (PAGE_NO_STREAM, -1)


def test_del_19_metadata_undeletes(client: RawClient, two: str) -> None:
    client.delete(two)
    client.set_metadata(two, b'{"custom":1}')
    assert metadata(client, two) == (2, b'{"custom":1,"$tb":2}')
    assert client.forward(two).window == ([], 2, True)


def test_del_20_metadata_that_is_not_json_undeletes(client: RawClient, two: str) -> None:
    client.delete(two)
    content = bytes(range(256))
    client.write(f"$${two}", [event(data=content, type="$metadata", is_json=False)], 0)
    assert metadata(client, two) == (1, content)
    assert client.forward(two).numbers == [0, 1]


@pytest.mark.parametrize("expected", [1, ANY])
def test_del_21_an_empty_write_undeletes(client: RawClient, two: str, expected: int) -> None:
    client.delete(two)
    assert client.write(two, [], expected)["last_event_number"] == 1
    assert client.forward(two).window == ([], 2, True)
    assert metadata(client, two) == (1, b'{"$tb":2}')


def test_del_22_what_nobody_may_delete(client: RawClient, two: str) -> None:
    client.set_metadata(two, b"{}")
    for name in (f"$${two}", "$all"):
        for hard in (True, False):
            assert client.delete(name, hard=hard, auth=ADMIN)["result"] == DENIED


def test_meta_04_and_05_versions(client: RawClient, two: str) -> None:
    assert client.write(f"$${two}", [event(data=b"{}")], NO_STREAM)["last_event_number"] == 0
    assert client.write(f"$${two}", [event(data=b"{}")], 0)["last_event_number"] == 1
    assert client.write(f"$${two}", [event(data=b"{}")])["last_event_number"] == 2
    for wrong in (5, NO_STREAM):
        assert client.write(f"$${two}", [event()], wrong)["result"] == WRONG_VERSION


def test_meta_12_no_metadata_of_metadata(client: RawClient, two: str) -> None:
    assert client.set_metadata(f"$${two}", b"{}", auth=ADMIN)["result"] == DENIED
    assert client.read_event(f"$$$${two}", -1, auth=ADMIN)["result"] == 5


def test_meta_14_metadata_makes_no_stream(client: RawClient, stream: str) -> None:
    client.set_metadata(stream, b"{}")
    assert client.forward(stream).result == PAGE_NO_STREAM
    assert client.write(stream, [event()], -4)["last_event_number"] == 0


def test_meta_16_the_json_flag_counts(client: RawClient, two: str) -> None:
    content = b'{"$maxCount":1}'
    client.write(f"$${two}", [event(data=content, is_json=False)])
    assert client.forward(two).numbers == [0, 1]
    client.write(f"$${two}", [event(data=content, type="anything")])
    assert client.forward(two).numbers == [1]
    assert original(client.forward(f"$${two}").items[0])["event_number"] == 1


def test_meta_03_after_a_hard_delete(client: RawClient, two: str) -> None:
    client.set_metadata(two, b"{}")
    client.delete(two, hard=True)
    assert client.read_event(f"$${two}", -1)["result"] == 3
    page = client.forward(f"$${two}")
    assert (page.result, page.last) == (PAGE_DELETED, MAX)
    # As recorded (DEL-37), although nobody will ever read it.
    assert client.set_metadata(two, b"{}")["result"] == SUCCESS
    assert client.forward(f"$${two}").result == PAGE_DELETED


@pytest.mark.parametrize("data", [b"", b"{}", b"{", bytes(range(256))])
def test_meta_06_and_15_any_bytes(client: RawClient, two: str, data: bytes) -> None:
    assert client.set_metadata(two, data)["last_event_number"] == 0
    assert metadata(client, two) == (0, data)
    assert client.forward(two).numbers == [0, 1]


def test_meta_07_and_08_everything_at_once(client: RawClient, stream: str) -> None:
    content = {
        "$maxCount": 17,
        "$maxAge": 123321,
        "$tb": 23,
        "$cacheControl": 7654321,
        "$acl": {"$r": "r", "$w": ["w", "$all"], "$d": "d", "$mr": "$all", "$mw": "$all"},
        "text": "a",
        "number": 123123123123123123,
        "nested": {"subProperty": [999, None, True, -1.7]},
    }
    data = json.dumps(content).encode()
    assert client.set_metadata(stream, data)["last_event_number"] == 0
    assert metadata(client, stream) == (0, data)
    client.write_some(stream, 30)
    assert client.forward(stream).result == PAGE_DENIED
    assert client.forward(stream, auth=ADMIN).numbers == list(range(23, 30))
    assert client.delete(stream)["result"] == DENIED
