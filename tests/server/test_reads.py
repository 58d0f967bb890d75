"""Reading events, pages of streams and of `$all`. Names are rows of the acceptance list."""

from __future__ import annotations

import time

import pytest
from nodelib import (
    ADMIN,
    MAX,
    OPS,
    Fields,
    Page,
    RawClient,
    event,
    link,
    original,
    position_of,
)

from fastpump._commands import Command
from fastpump.server import _asking

SUCCESS, NOT_FOUND, NO_STREAM, DELETED, DENIED = 0, 1, 2, 3, 5
"""Results of ReadEvent."""
PAGE_NO_STREAM, PAGE_DELETED, PAGE_ERROR, PAGE_DENIED = 1, 2, 4, 5
"""Results of a page of a stream."""
ALL_ERROR, ALL_DENIED = 2, 3
"""Results of a page of `$all`."""

OPEN, END = False, True


@pytest.fixture
def five(client: RawClient, stream: str) -> str:
    """A stream of five events."""
    client.write_some(stream, 5)
    return stream


# --- one event ---


@pytest.mark.parametrize("fields", [{"event_number": -2}, {"event_stream_id": ""}])
def test_read_01_invalid_requests(client: RawClient, five: str, fields: Fields) -> None:
    request: Fields = {"event_stream_id": five, "event_number": 0, **fields}
    assert client.ask(Command.ReadEvent, **request)[0] == Command.BadRequest


@pytest.mark.parametrize("number", [5, -1])
def test_read_02_missing_stream(client: RawClient, stream: str, number: int) -> None:
    assert client.read_event(stream, number) == {"result": NO_STREAM, "event": {}}


def test_read_03_what_cannot_be_read(client: RawClient, five: str) -> None:
    assert client.read_event(five, 5) == {"result": NOT_FOUND, "event": {}}
    client.delete(five)
    assert client.read_event(five, 0)["result"] == NO_STREAM
    client.delete(five, hard=True)
    assert client.read_event(five, 0)["result"] == DELETED


def test_read_04_and_05_an_event(client: RawClient, five: str) -> None:
    written = event(data=b'{"n":5}', metadata=b"m", type="sixth")
    client.write(five, [written])
    for number in (5, -1):
        found = client.read_event(five, number)["event"]
        assert found["event"]["event_number"] == 5
        assert {**found["event"], **written, "metadata_content_type": 1} == found["event"]
        assert "link" not in found


def test_read_06_metastream_without_metadata(client: RawClient, five: str, stream: str) -> None:
    assert client.read_event(f"$${five}", -1) == {"result": SUCCESS, "event": {}}
    assert client.read_event(f"$${stream}-never", -1)["result"] == NO_STREAM


# --- pages ---


@pytest.mark.parametrize(
    ("start", "count", "reply"),
    [(0, 0, PAGE_ERROR), (0, -1, PAGE_ERROR), (-1, 5, PAGE_ERROR), (0, 4097, PAGE_ERROR)],
)
def test_read_07_bad_forward_pages(
    client: RawClient, five: str, start: int, count: int, reply: int
) -> None:
    page = client.forward(five, start, count)
    assert (page.result, page.window, page.last) == (reply, ([], -1, END), -1)
    assert page.fields["error"]
    assert client.forward(five, 0, 4096).result == SUCCESS


@pytest.mark.parametrize("count", [0, -1, 4097])
def test_read_08_bad_backward_pages(client: RawClient, five: str, count: int) -> None:
    assert client.backward(five, -1, count).result == PAGE_ERROR


@pytest.mark.parametrize("command", [0xB2, 0xB4])
def test_read_08_start_below_minus_one(client: RawClient, five: str, command: int) -> None:
    reply, _ = client.ask(command, event_stream_id=five, from_event_number=-2, max_count=1)
    assert reply == Command.BadRequest


def test_read_09_missing_and_deleted(client: RawClient, five: str, stream: str) -> None:
    client.delete(five, hard=True)
    for read in (client.forward, client.backward):
        page = read(f"{stream}-never")
        assert (page.result, page.window, page.last) == (PAGE_NO_STREAM, ([], -1, END), -1)
        page = read(five)
        assert (page.result, page.window, page.last) == (PAGE_DELETED, ([], -1, END), MAX)


@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (0, 3, ([0, 1, 2], 3, OPEN)),
        (1, 4, ([1, 2, 3, 4], 5, END)),
        (1, 5, ([1, 2, 3, 4], 5, END)),
        (0, 5, ([0, 1, 2, 3, 4], 5, END)),
        (6, 2, ([], 5, END)),
        (5, 1, ([], 5, END)),
        (MAX - 1, 10, ([], 5, END)),
    ],
)
def test_read_10_and_16_forward_windows(
    client: RawClient, five: str, start: int, count: int, window: object
) -> None:
    page = client.forward(five, start, count)
    assert (page.window, page.last) == (window, 4)


def test_read_12_ten_events(client: RawClient, five: str) -> None:
    client.write(five, [event() for _ in range(5)])
    for start, count, numbers in ((9, 5, [9]), (11, 5, []), (5, 1, [5]), (5, 2, [5, 6])):
        assert client.forward(five, start, count).window[0] == numbers
    backward = ((1, 5, [1, 0]), (0, 1, [0]), (-1, 1, [9]), (3, 2, [3, 2]), (7, 1, [7]))
    for start, count, numbers in backward:
        assert client.backward(five, start, count).window[0] == numbers


@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (4, 3, ([4, 3, 2], 1, OPEN)),
        (2, 3, ([2, 1, 0], -1, END)),
        (2, 5, ([2, 1, 0], -1, END)),
        (6, 5, ([4, 3, 2], 1, OPEN)),
        (10, 3, ([], 4, OPEN)),
        (0, 1, ([0], -1, END)),
        (-1, 2, ([4, 3], 2, OPEN)),
    ],
)
def test_read_11_backward_windows(
    client: RawClient, five: str, start: int, count: int, window: object
) -> None:
    page = client.backward(five, start, count)
    assert (page.window, page.last) == (window, 4)


def test_read_13_paging_both_ways(client: RawClient, five: str) -> None:
    def numbers(page: Page, step: object) -> list[int]:
        found = page.numbers
        while not page.is_end:
            page = step(five, page.next, 2)  # type: ignore[operator]
            found += page.numbers
        return found

    assert numbers(client.forward(five, 0, 2), client.forward) == [0, 1, 2, 3, 4]
    assert numbers(client.backward(five, -1, 2), client.backward) == [4, 3, 2, 1, 0]


def test_read_14_the_end_moves(client: RawClient, five: str) -> None:
    assert client.forward(five, 3, 2).window == ([3, 4], 5, END)
    assert client.forward(five, 5, 2).window == ([], 5, END)
    client.write_some(five, 1)
    assert client.forward(five, 5, 2).window == ([5], 6, END)


def test_read_17_many_streams_at_once(client: RawClient, stream: str) -> None:
    names = [f"{stream}-{n}" for n in range(100)]
    for name in names:
        client.write_some(name, 1)
    found = [original(client.forward(name).items[0])["event_stream_id"] for name in names]
    assert found == names


def test_read_21_only_the_newest_metadata(client: RawClient, stream: str) -> None:
    for version in range(3):
        client.set_metadata(stream, b'{"v":%d}' % version)
    assert client.forward(f"$${stream}").window == ([2], 3, END)
    assert client.backward(f"$${stream}").window == ([2], -1, END)
    assert client.read_event(f"$${stream}", 1)["result"] == NOT_FOUND


def test_long_streams_in_every_page_size(client: RawClient, stream: str) -> None:
    """Pages that begin and end inside batches and stored segments."""
    for size in (1, 300, 2, 1, 96):
        client.write_some(stream, size)
    for start in (0, 1, 299, 300, 301, 303, 304, 399):
        for size in (1, 2, 7, 150, 500):
            wanted = list(range(start, min(start + size, 400)))
            assert client.forward(stream, start, size).numbers == wanted
            wanted = list(range(start, max(start - size, -1), -1))
            assert client.backward(stream, start, size).numbers == wanted


# --- truncation ---

TRUNCATIONS = [b'{"$maxCount":3}', b'{"$tb":2}']


@pytest.mark.parametrize("metadata", TRUNCATIONS)
@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (0, 2, ([], 2, OPEN)),
        (0, 4, ([2, 3], 4, OPEN)),
        (1, 2, ([2], 3, OPEN)),
        (1, 4, ([2, 3, 4], 5, END)),
        (7, 2, ([], 5, END)),
    ],
)
def test_trunc_01_forward(
    client: RawClient, five: str, metadata: bytes, start: int, count: int, window: object
) -> None:
    client.set_metadata(five, metadata)
    page = client.forward(five, start, count)
    assert (page.window, page.last) == (window, 4)


@pytest.mark.parametrize("metadata", TRUNCATIONS)
@pytest.mark.parametrize(
    ("start", "count", "window"),
    [
        (4, 2, ([4, 3], 2, OPEN)),
        (4, 3, ([4, 3, 2], -1, END)),
        (3, 3, ([3, 2], -1, END)),
        (1, 2, ([], -1, END)),
        (10, 3, ([], 4, OPEN)),
    ],
)
def test_trunc_02_and_03_backward(
    client: RawClient, five: str, metadata: bytes, start: int, count: int, window: object
) -> None:
    client.set_metadata(five, metadata)
    assert client.backward(five, start, count).window == window


@pytest.mark.parametrize("metadata", TRUNCATIONS)
def test_trunc_04_single_events(client: RawClient, five: str, metadata: bytes) -> None:
    client.set_metadata(five, metadata)
    results = [client.read_event(five, number)["result"] for number in range(5)]
    assert results == [NOT_FOUND, NOT_FOUND, SUCCESS, SUCCESS, SUCCESS]
    assert client.read_event(five, -1)["event"]["event"]["event_number"] == 4


def test_trunc_05_nothing_is_removed(client: RawClient, five: str) -> None:
    for metadata, visible in [
        (b'{"$maxCount":3}', 3),
        (b'{"$maxCount":4}', 4),
        (b'{"$maxCount":2}', 2),
        (b'{"$tb":2}', 3),
        (b'{"$tb":1}', 4),
    ]:
        client.set_metadata(five, metadata)
        assert len(client.forward(five).items) == visible


@pytest.mark.parametrize(("max_count", "visible"), [(4, [2, 3, 4]), (2, [3, 4])])
def test_trunc_06_both(client: RawClient, five: str, max_count: int, visible: list[int]) -> None:
    client.set_metadata(five, b'{"$tb":2,"$maxCount":%d}' % max_count)
    assert client.forward(five).numbers == visible
    assert client.read_event(five, visible[0])["result"] == SUCCESS
    assert client.read_event(five, visible[0] - 1)["result"] == NOT_FOUND


def test_trunc_07_metadata_before_events(client: RawClient, stream: str) -> None:
    client.set_metadata(stream, b'{"$maxCount":3}')
    client.write_some(stream, 5)
    assert client.forward(stream).numbers == [2, 3, 4]
    client.write_some(stream, 1)
    assert client.forward(stream).numbers == [3, 4, 5]


def test_trunc_11_max_age(client: RawClient, five: str) -> None:
    client.set_metadata(five, b'{"$maxAge":1}')
    assert len(client.forward(five).items) == 5
    time.sleep(1.2)
    assert client.forward(five).window == ([], 5, END)
    assert client.backward(five, 4, 2).numbers == []
    assert client.read_event(five, -1)["result"] == NOT_FOUND
    mine = client.all_backward(count=50).items
    assert sum(original(item)["event_stream_id"] == five for item in mine) == 5


@pytest.mark.parametrize(
    "metadata",
    [
        b'{"$maxCount":1.5}',
        b'{"$maxCount":9223372036854775808}',
        b'{"$maxCount":"x"}',
        b'{"$maxCount":1,"$acl":3}',
        b'{"$maxCount":1',
        b'{"$maxCount":0}',
        b'{"$maxCount":-1}',
        b'{"$maxAge":0}',
        b"[1]",
        b"",
    ],
)
def test_trunc_13_unusable_metadata(client: RawClient, five: str, metadata: bytes) -> None:
    client.set_metadata(five, metadata)
    assert len(client.forward(five).items) == 5


@pytest.mark.parametrize(
    ("metadata", "visible"), [(b'{"$tb":4294967296}', 0), (b'{"$maxCount":4294967296}', 5)]
)
def test_trunc_14_limits_of_64_bits(
    client: RawClient, five: str, metadata: bytes, visible: int
) -> None:
    client.set_metadata(five, metadata)
    page = client.forward(five)
    assert (page.result, len(page.items)) == (SUCCESS, visible)


# --- links ---


def test_link_01_and_02_resolution(client: RawClient, five: str, stream: str) -> None:
    links = f"{stream}-links"
    client.write(links, [link(3, five), event()])
    pages = [
        read(links, resolve=resolve).items
        for read in (client.forward, client.backward)
        for resolve in (True, False)
    ]
    resolved, plain, resolved_back, _ = pages
    assert resolved == resolved_back[::-1]
    assert resolved[0]["event"]["event_stream_id"] == five
    assert resolved[0]["event"]["event_number"] == 3
    assert resolved[0]["link"] == plain[0]["event"]
    assert "link" not in resolved[1]
    assert client.read_event(links, 0, resolve=True)["event"] == resolved[0]


@pytest.mark.parametrize(
    "spoil", ["soft delete", "hard delete", "$maxCount", "$tb", "missing", "no number", "no @"]
)
def test_link_03_to_06_unresolvable(client: RawClient, five: str, stream: str, spoil: str) -> None:
    target = link(1, five)
    if spoil == "soft delete":
        client.delete(five)
    elif spoil == "hard delete":
        client.delete(five, hard=True)
    elif spoil.startswith("$"):
        client.set_metadata(five, b'{"%s":2}' % spoil.encode())
    elif spoil == "missing":
        target = link(1, f"{stream}-never")
    elif spoil == "no number":
        target = link("xyz", five)
    else:
        target["data"] = b"5"
    links = f"{stream}-links"
    position = client.write(links, [target])["commit_position"]
    for item in (
        client.forward(links, resolve=True).items[0],
        client.backward(links, resolve=True).items[0],
        client.all_forward((position, position), 1, resolve=True).items[0],
        client.read_event(links, 0, resolve=True)["event"],
    ):
        assert "event" not in item
        assert item["link"]["event_stream_id"] == links


def test_link_05_target_name_with_at(client: RawClient, stream: str) -> None:
    client.write_some(f"{stream}@a@b", 1)
    client.write(stream, [link(0, f"{stream}@a@b")])
    assert client.forward(stream, resolve=True).items[0]["event"]["event_number"] == 0


def test_link_07_one_step_only(client: RawClient, five: str, stream: str) -> None:
    client.write(f"{stream}-inner", [link(0, five)])
    client.write(f"{stream}-outer", [link(0, f"{stream}-inner")])
    item = client.forward(f"{stream}-outer", resolve=True).items[0]
    assert item["event"]["event_stream_id"] == f"{stream}-inner"


def test_link_08_a_mixed_page(client: RawClient, five: str, stream: str) -> None:
    links = f"{stream}-mixed"
    client.write(links, [event(), link(0, five), link(9, five), event(), link(-1, five)])
    items = client.forward(links, resolve=True).items
    kinds = [("event" in item, "link" in item) for item in items]
    assert kinds == [(True, False), (True, True), (False, True), (True, False), (True, True)]
    assert items[4]["event"]["event_number"] == 4


def test_link_09_a_forbidden_target_denies_the_page(
    client: RawClient, five: str, stream: str
) -> None:
    links = f"{stream}-links"
    client.write(links, [event(), link(0, five)])
    client.set_metadata(five, b'{"$acl":{"$r":"$admins"}}')
    assert client.forward(links, resolve=True).result == PAGE_DENIED
    assert client.forward(links, 0, 1, resolve=True).result == SUCCESS
    assert client.read_event(links, 1, resolve=True)["result"] == DENIED
    assert len(client.forward(links, resolve=True, auth=ADMIN).items) == 2


# --- $all ---


def test_all_01_beyond_the_ends(client: RawClient) -> None:
    assert client.all_forward((-1, -1)).items == []
    assert client.all_backward((0, 0)).items == []


@pytest.mark.parametrize("count", [4096, 5, 1])
def test_all_02_and_03_both_ways(client: RawClient, stream: str, count: int) -> None:
    start = client.all_forward((-1, -1)).position
    ids = []
    for number in range(20):
        ids += [e["event_id"] for e in client.write_some(f"{stream}-{number % 3}", 1)]
    page = client.all_forward(start, count)
    found = page.ids
    while page.items:
        page = client.all_forward(page.next_position, count)
        found += page.ids
    assert found == ids
    page = client.all_backward((-1, -1), count)
    found = page.ids
    while len(found) < len(ids):
        page = client.all_backward(page.next_position, count)
        found += page.ids
    assert found[: len(ids)] == ids[::-1]


def test_all_04_and_05_positions_of_events(client: RawClient, stream: str) -> None:
    first = client.write(stream, [event(), event(), event()])
    assert first["first_event_number"] == 0
    items = client.all_backward(count=3).items[::-1]
    positions = [position_of(item) for item in items]
    assert all(commit == prepare for commit, prepare in positions)
    assert positions == sorted(set(positions))
    assert positions[-1][0] == first["commit_position"]
    for item, position in zip(items, positions, strict=True):
        assert client.all_forward(position, 1).items == [item]
        before = client.all_backward(position, 1).items
        assert position_of(before[0]) < position


@pytest.mark.parametrize("count", [0, -1])
def test_all_06_no_events_wanted(client: RawClient, count: int) -> None:
    for read in (client.all_forward, client.all_backward):
        page = read((7, 7), count)
        assert (page.items, page.next_position) == ([], (7, 7))


@pytest.mark.parametrize(
    ("position", "count"), [((0, 0), 4097), ((0, -1), 1), ((-1, 0), 1), ((-2, -2), 1)]
)
def test_all_06_errors(client: RawClient, position: tuple[int, int], count: int) -> None:
    page = client.all_forward(position, count)
    assert (page.result, page.next_position) == (ALL_ERROR, (-1, -1))
    assert page.fields["error"]


def test_all_07_the_end_is_where_writing_goes_on(client: RawClient, stream: str) -> None:
    page = client.all_forward((-1, -1))
    assert client.all_forward(page.next_position).items == []
    events = client.write_some(stream, 2)
    again = client.all_forward(page.next_position)
    assert again.ids == [e["event_id"] for e in events]
    assert client.all_forward(again.next_position).items == []


def test_all_08_deleted_streams(client: RawClient, five: str, stream: str) -> None:
    client.write_some(f"{stream}-hard", 2)
    client.delete(f"{stream}-hard", hard=True)
    client.delete(five)
    tail = [original(item) for item in client.all_backward(count=4).items][::-1]
    assert [record["event_number"] for record in tail] == [0, 1, MAX, 0]
    assert tail[2]["event_type"] == "$streamDeleted"
    assert tail[3]["event_stream_id"] == f"$${five}"
    assert tail[3]["data"] == b'{"$tb":9223372036854775807}'


def test_all_09_hidden_events(client: RawClient, five: str) -> None:
    position = client.all_backward(count=5).next_position
    client.set_metadata(five, b'{"$tb":4,"$maxCount":1}')
    assert client.all_forward(position, 5).numbers == [0, 1, 2, 3, 4]


def test_all_10_access(client: RawClient) -> None:
    assert client.all_forward(auth=None).result == ALL_DENIED
    assert client.all_backward(auth=OPS).result == ALL_DENIED
    client.set_metadata("$all", b'{"$acl":{"$r":"$all"}}', auth=ADMIN)
    assert client.all_forward(auth=None).result == SUCCESS
    client.set_metadata("$all", b"{}", auth=ADMIN)
    assert client.all_forward(auth=None).result == ALL_DENIED


def test_all_11_links(client: RawClient, five: str, stream: str) -> None:
    position = client.write(f"{stream}-links", [link(2, five)])["commit_position"]
    for resolve in (True, False):
        for page in (
            client.all_forward((position, position), resolve=resolve),
            client.all_backward(count=1, resolve=resolve),
        ):
            assert position_of(page.items[0]) == (position, position)
            assert ("link" in page.items[0]) is resolve
            assert page.items[0]["event"]["event_number"] == (2 if resolve else 0)


FILTER = {"context": 0, "type": 1, "data": [""]}


@pytest.mark.parametrize("resolve", [False, True])
@pytest.mark.parametrize(
    ("command", "where"),
    [
        (Command.ReadStreamEventsForward, {"from_event_number": 0}),
        (Command.ReadStreamEventsBackward, {"from_event_number": -1}),
        (Command.ReadAllEventsForward, {"commit_position": 0, "prepare_position": 0}),
        (Command.ReadAllEventsBackward, {"commit_position": -1, "prepare_position": -1}),
        (
            Command.FilteredReadAllEventsForward,
            {"commit_position": 0, "prepare_position": 0, "filter": FILTER},
        ),
        (
            Command.FilteredReadAllEventsBackward,
            {"commit_position": -1, "prepare_position": -1, "filter": FILTER},
        ),
    ],
)
def test_a_page_that_would_not_fit_into_a_package(
    client: RawClient,
    stream: str,
    command: int,
    where: Fields,
    resolve: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_asking, "MAX_REPLY", 20_000)
    client.write(stream, [event(data=bytes(1000)) for _ in range(30)])
    client.write(stream, [link(0, stream) for _ in range(3)])
    if "from_event_number" in where:
        where = {**where, "event_stream_id": stream}
    where = {**where, "resolve_link_tos": resolve}
    reply, fields = client.ask(command, ADMIN, **where, max_count=4000)
    assert reply == Command.BadRequest
    assert "20000 bytes of events; ask for fewer" in fields["text"]
    reply, fields = client.ask(command, ADMIN, **where, max_count=5)
    assert len(fields["events"]) == 5


def test_a_new_database_has_the_users(client: RawClient) -> None:
    types = {original(item)["event_type"] for item in client.all_forward(count=6).items}
    assert types == {"$metadata", "$UserCreated", "$User"}
