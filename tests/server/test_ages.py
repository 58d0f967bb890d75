"""Events that are too old to be seen. Names are rows of the acceptance list."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from nodelib import ADMIN, SUCCESS, Fields, RawClient, event

from fastpump.server import _writer

MINUTE = 60
AGES = (50, 25, 15, 11, 3)
NOT_FOUND = 1


@pytest.fixture
def aged(client: RawClient, stream: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stream of five events, the oldest 50 minutes old, of which 20 minutes are visible."""
    for minutes in AGES:
        write_in_the_past(client, stream, event(), minutes, monkeypatch)
    client.set_metadata(stream, b'{"$maxAge":%d}' % (20 * MINUTE))
    return stream


def write_in_the_past(
    client: RawClient, stream: str, one: Fields, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write an event as if it had been that long ago."""
    then = time.time_ns() - round(minutes * MINUTE * 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(_writer, "time", SimpleNamespace(time_ns=lambda: then))
        assert client.write(stream, [one])["result"] == SUCCESS


@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (0, 2, ([], 2, False)),
        (0, 4, ([2, 3], 4, False)),
        (1, 2, ([2], 3, False)),
        (1, 4, ([2, 3, 4], 5, True)),
        (7, 2, ([], 5, True)),
    ],
)
def test_trunc_08_forward(
    client: RawClient, aged: str, start: int, count: int, window: tuple[list[int], int, bool]
) -> None:
    page = client.forward(aged, start, count)
    assert (page.window, page.last) == (window, 4)


@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (4, 2, ([4, 3], 2, False)),
        (4, 3, ([4, 3, 2], 1, False)),
        (3, 3, ([3, 2], -1, True)),
        (1, 2, ([], -1, True)),
    ],
)
def test_trunc_09_backward(
    client: RawClient, aged: str, start: int, count: int, window: tuple[list[int], int, bool]
) -> None:
    assert client.backward(aged, start, count).window == window


def test_trunc_10_single_events(client: RawClient, aged: str) -> None:
    results = [client.read_event(aged, number)["result"] for number in range(-1, 5)]
    assert results == [SUCCESS, NOT_FOUND, NOT_FOUND, SUCCESS, SUCCESS, SUCCESS]


def test_trunc_10_all_too_old(
    client: RawClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        write_in_the_past(client, stream, event(), 30, monkeypatch)
    client.set_metadata(stream, b'{"$maxAge":%d}' % (20 * MINUTE))
    assert client.read_event(stream, -1)["result"] == NOT_FOUND
    found, number, is_end = [], 0, False
    while not is_end:
        page = client.forward(stream, number, 2)
        found += page.items
        number, is_end = page.next, page.is_end
    assert (found, number) == ([], 5)
    assert len(client.all_backward(count=6, auth=ADMIN).items) == 6


def test_trunc_12_the_stricter_limit_decides(client: RawClient, aged: str) -> None:
    client.set_metadata(aged, b'{"$maxAge":%d,"$maxCount":2}' % (20 * MINUTE))
    assert client.forward(aged, 0, 10).numbers == [3, 4]
    client.set_metadata(aged, b'{"$maxAge":%d,"$maxCount":4}' % (20 * MINUTE))
    assert client.forward(aged, 1, 10).numbers == [2, 3, 4]
