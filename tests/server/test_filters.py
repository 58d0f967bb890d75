"""Filtered reads of `$all` and filtered subscriptions. Names are rows of the acceptance list."""

from __future__ import annotations

import goldenlib
import pytest
from nodelib import (
    ADMIN,
    OPS,
    Auth,
    Fields,
    NodeThread,
    Page,
    RawClient,
    event,
    link,
    new_id,
    original,
    position_of,
)

from fastpump._commands import Command
from fastpump.server import _filtered_reads, _filters
from fastpump.server.errors import InvalidRequest

STREAM, TYPE = 0, 1
REGEX, PREFIX = 0, 1
START, END = (0, 0), (-1, -1)

FORWARD = Command.FilteredReadAllEventsForward
BACKWARD = Command.FilteredReadAllEventsBackward
COMPLETED = {
    FORWARD: Command.FilteredReadAllEventsForwardCompleted,
    BACKWARD: Command.FilteredReadAllEventsBackwardCompleted,
}
UNFILTERED = {
    FORWARD: Command.ReadAllEventsForwardCompleted,
    BACKWARD: Command.ReadAllEventsBackwardCompleted,
}
BOTH_WAYS = pytest.mark.parametrize("command", [FORWARD, BACKWARD])


def by(context: int, kind: int, *data: str) -> Fields:
    """A Filter."""
    return {"context": context, "type": kind, "data": list(data)}


def ask(
    client: RawClient,
    command: int,
    position: tuple[int, int],
    wanted: Fields | None,
    count: int = 4096,
    window: int | None = None,
    *,
    resolve: bool = False,
    auth: Auth = ADMIN,
) -> tuple[int, Fields]:
    fields: Fields = {
        "commit_position": position[0],
        "prepare_position": position[1],
        "max_count": count,
        "resolve_link_tos": resolve,
        "require_leader": False,
    }
    if window is not None:
        fields["max_search_window"] = window
    if wanted is not None:
        fields["filter"] = wanted
    return client.exchange(command, goldenlib.encode_fields(command, fields), auth)


class FilteredPage(Page):
    @property
    def is_end(self) -> bool:
        return bool(self.fields["is_end_of_stream"])

    @property
    def types(self) -> list[str]:
        return [original(item)["event_type"] for item in self.items]


def read(
    client: RawClient,
    command: int,
    position: tuple[int, int],
    wanted: Fields | None,
    count: int = 4096,
    window: int | None = None,
    *,
    resolve: bool = False,
) -> FilteredPage:
    reply, fields = ask(client, command, position, wanted, count, window, resolve=resolve)
    assert reply == COMPLETED[Command(command)], (hex(reply), fields)
    return FilteredPage(fields)


def before_now(client: RawClient) -> tuple[int, int]:
    return client.all_forward(END, 1).next_position


@pytest.fixture
def twenty(client: RawClient, stream: str) -> tuple[int, int]:
    """Ten events AEvent in …-a and ten BEvent in …-b, in turns; the position before them."""
    position = before_now(client)
    for _ in range(10):
        for letter in "ab":
            client.write(f"{stream}-{letter}", [event(type=f"{letter.upper()}Event{stream}")])
    return position


# --- reads ---


@pytest.mark.parametrize(
    ("context", "kind", "data", "letter"),
    [
        (STREAM, PREFIX, "{stream}-a", "a"),
        (TYPE, PREFIX, "AEvent{stream}", "a"),
        (STREAM, REGEX, "^.*{half}-b.*$", "b"),
        (TYPE, REGEX, "^.*BEvent{stream}.*$", "b"),
        (TYPE, REGEX, "BEvent{stream}", "b"),
    ],
)
def test_filt_01_both_ways(
    client: RawClient,
    stream: str,
    twenty: tuple[int, int],
    context: int,
    kind: int,
    data: str,
    letter: str,
) -> None:
    wanted = by(context, kind, data.format(stream=stream, half=stream[16:]))
    expected = client.forward(f"{stream}-{letter}").ids
    page = read(client, FORWARD, twenty, wanted)
    assert (page.ids, page.is_end) == (expected, True)
    back = read(client, BACKWARD, END, wanted, 10, 20)
    assert back.ids == expected[::-1]
    assert back.items == page.items[::-1]


def test_filt_01_as_the_whole_log_has_them(
    client: RawClient, stream: str, twenty: tuple[int, int]
) -> None:
    everything = client.all_forward(twenty)
    page = read(client, FORWARD, twenty, by(STREAM, PREFIX, stream))
    assert page.items == everything.items
    assert page.next_position == everything.next_position


@pytest.mark.usefixtures("twenty")
def test_filt_02_no_system_events(client: RawClient, stream: str) -> None:
    client.set_metadata(stream, b"{}")
    client.write_some(stream, 1)
    page = read(client, FORWARD, START, by(TYPE, REGEX, r"^[^\$].*"))
    assert page.types
    assert not any(name.startswith("$") for name in page.types)
    assert page.types[-1] == "tested"


def test_filt_03_two_prefixes(client: RawClient, stream: str, twenty: tuple[int, int]) -> None:
    wanted = by(STREAM, PREFIX, f"{stream}-a", f"{stream}-b")
    assert len(read(client, FORWARD, twenty, wanted).items) == 20


@BOTH_WAYS
@pytest.mark.parametrize("window", [None, 0, -1])
def test_filt_04_the_window_is_the_count(
    client: RawClient, stream: str, twenty: tuple[int, int], command: int, window: int | None
) -> None:
    position = twenty if command == FORWARD else END
    page = read(client, command, position, by(STREAM, PREFIX, f"{stream}-a"), 6, window)
    assert len(page.items) == 3


@BOTH_WAYS
def test_filt_05_far_apart(client: RawClient, stream: str, command: int) -> None:
    position = before_now(client)
    wanted, other = ("CE", "AE") if command == FORWARD else ("AE", "CE")
    for name, count in (("AE", 10), ("BE", 2000), ("CE", 10)):
        client.write(stream, [event(type=f"{name}{stream}") for _ in range(count)])
    if command == BACKWARD:
        position = END
    pages = []
    while True:
        page = read(client, command, position, by(TYPE, PREFIX, f"{wanted}{stream}"), 50, 100)
        position = page.next_position
        pages.append(page)
        if page.items or page.is_end:
            break
    assert len(pages) == 21
    assert not any(page.is_end for page in pages[:-1])
    assert len(pages[-1].items) == 10
    assert {name[:2] for name in pages[-1].types} == {wanted} != {other}


def test_filt_06_count_and_window(client: RawClient, stream: str, twenty: tuple[int, int]) -> None:
    wanted = by(TYPE, PREFIX, f"BEvent{stream}")
    page = read(client, FORWARD, twenty, wanted, 15, 15)
    assert len(page.items) == 7
    assert not page.is_end
    rest = read(client, FORWARD, page.next_position, wanted, 15, 15)
    assert (len(rest.items), rest.is_end) == (3, True)


@BOTH_WAYS
def test_filt_06_a_window_that_is_too_large(
    client: RawClient,
    stream: str,
    twenty: tuple[int, int],
    command: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No request keeps the node busy for long: it looks at so many events and says where it is."""
    monkeypatch.setattr(_filtered_reads, "MAX_WINDOW", 8)
    wanted = by(TYPE, PREFIX, f"AEvent{stream}")
    position = twenty if command == FORWARD else END
    found = []
    for _ in range(3):
        page = read(client, command, position, wanted, window=2**31 - 1)
        assert len(page.items) <= 4
        found += page.items
        position = page.next_position
    assert len(found) == 10


@BOTH_WAYS
@pytest.mark.parametrize("auth", [None, OPS])
def test_filt_07_no_right(client: RawClient, command: int, auth: Auth) -> None:
    reply, fields = ask(client, command, END, by(TYPE, PREFIX, "x"), auth=auth)
    assert (reply, fields["result"]) == (UNFILTERED[Command(command)], 3)


@BOTH_WAYS
def test_refused_reads(client: RawClient, command: int) -> None:
    for position, count in ((START, 4097), ((-1, 0), 1)):
        reply, fields = ask(client, command, position, by(TYPE, PREFIX, "x"), count)
        assert (reply, fields["result"]) == (UNFILTERED[Command(command)], 2)
        assert fields["error"]
    page = read(client, command, (0, 0), by(TYPE, PREFIX, "x"), 0)
    assert (page.items, page.next_position) == ([], (0, 0))


@BOTH_WAYS
def test_without_a_filter(client: RawClient, twenty: tuple[int, int], command: int) -> None:
    position = twenty if command == FORWARD else END
    for wanted in (None, by(STREAM, REGEX)):
        assert len(read(client, command, position, wanted, 20).items) == 20


@pytest.mark.parametrize("size", [1, 3])
def test_pages_of_transactions(client: RawClient, stream: str, size: int) -> None:
    start = before_now(client)
    transaction = client.ask(Command.TransactionStart, event_stream_id=stream, expected_version=-2)[
        1
    ]["transaction_id"]
    even = f"even-{stream}"
    events = [event(type=even if number % 2 == 0 else "odd") for number in range(7)]
    client.ask(Command.TransactionWrite, transaction_id=transaction, events=events)
    client.ask(Command.TransactionCommit, transaction_id=transaction)
    client.write(stream, [event(type=even)])
    wanted = by(TYPE, PREFIX, even)
    expected = [one["event_id"] for one in events[::2]] + client.forward(stream).ids[-1:]

    found, position, is_end = [], start, False
    while not is_end:
        page = read(client, FORWARD, position, wanted, size)
        found += page.ids
        position, is_end = page.next_position, page.is_end
    assert found == expected
    found, position = [], END
    while len(found) < len(expected):
        page = read(client, BACKWARD, position, wanted, size)
        found += page.ids
        position = page.next_position
    assert found == expected[::-1]


def test_links_are_filtered_by_themselves(client: RawClient, stream: str) -> None:
    start = before_now(client)
    client.write_some(stream, 1)
    client.set_metadata(stream, b'{"$acl":{"$r":"$admins"}}')
    client.write(f"{stream}-links", [link(0, stream)])
    page = read(client, FORWARD, start, by(STREAM, PREFIX, f"{stream}-links"), resolve=True)
    assert [(item["event"]["event_stream_id"], "link" in item) for item in page.items] == [
        (stream, True)
    ]


# --- patterns ---


@pytest.mark.parametrize(
    "pattern",
    ["(", "[a", "*a", "(a+)+", "(a*)*b", "((x|y+)z)*", r"(\w+\s?){2,}", "a" * 1001, r"\p{L}+"],
)
def test_patterns_that_are_not_taken(client: RawClient, pattern: str) -> None:
    reply, _ = ask(client, FORWARD, START, by(TYPE, REGEX, pattern))
    assert reply == Command.BadRequest


@pytest.mark.parametrize("filter_", [by(2, PREFIX, "x"), by(TYPE, 2, "x"), by(-1, REGEX, "x")])
def test_filters_that_are_none(client: RawClient, filter_: Fields) -> None:
    assert ask(client, FORWARD, START, filter_)[0] == Command.BadRequest


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("b", "abc"),
        ("^(?<first>a).*$", "abc"),
        (r"(?<c>.)\k<c>", "xaab"),
        (r"c\z", "abc"),
        ("(?<=a)b", "abc"),
        ("(?<!x)b", "abc"),
        ("(foo|bar)+", "xbar"),
        (r"[(+)]+(a)+\(b*\)+", "((aa(bb)"),
        ("(a{1,3})+", "aaa"),
        ("[]+]+x", "]+x"),
    ],
)
def test_patterns_mean_what_they_mean_in_dotnet(pattern: str, text: str) -> None:
    compiled = _filters.compile_pattern(pattern)
    assert compiled.search(text)
    assert not compiled.search("xyz")


def test_long_names_are_seen_in_part(client: RawClient, stream: str) -> None:
    start = before_now(client)
    long = "ab" * _filters.MAX_TEXT
    client.write(stream, [event(type=f"{long}c"), event(type=f"c{long}")])
    assert read(client, FORWARD, start, by(TYPE, REGEX, "a.*b.*c")).items == []
    assert len(read(client, FORWARD, start, by(TYPE, REGEX, "c.*a.*b")).items) == 1


def test_names_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_filters, "CACHED_TEXTS", 3)
    calls: list[str] = []

    def fits(text: str) -> bool:
        calls.append(text)
        return text > "c"

    filter_ = _filters.EventFilter(of_type=True, fits=fits)
    assert [filter_.fits(text) for text in "aadd"] == [False, False, True, True]
    assert calls == ["a", "d"]
    assert [filter_.fits(text) for text in "bcdea"] == [False, False, True, True, False]


def test_repetition_of_repetitions() -> None:
    for pattern in ("(a)+", "(a+)", "a+(b)*", "(a+)?", "(a+){3}", "(a?)+", r"(\+)+", "[(+]+"):
        assert not _filters.repeats_repetition(pattern), pattern
    for pattern in ("(a+)+", "(a{2,}b)*", "((a*))+", "(x(a*)y)+", "(?:a+)*"):
        assert _filters.repeats_repetition(pattern), pattern
    with pytest.raises(InvalidRequest):
        _filters.compile_pattern("(a+)+")


# --- subscriptions ---


class FilteredSubscriber:
    """A connection with one filtered subscription to `$all`."""

    def __init__(
        self, node: NodeThread, wanted: Fields, interval: int, stream: str = "", **how: bool
    ) -> None:
        self.client = node.client()
        fields: Fields = {"event_stream_id": stream, "filter": wanted, **how}
        fields["checkpoint_interval"] = interval
        command = Command.FilteredSubscribeToStream
        payload = goldenlib.encode_fields(command, fields)
        self.correlation_id = new_id()
        reply, self.confirmation = self.client.exchange(
            command, payload, ADMIN, self.correlation_id
        )
        assert reply == Command.SubscriptionConfirmation

    def __enter__(self) -> FilteredSubscriber:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()

    def take(self, count: int) -> list[tuple[int, Fields]]:
        """The next frames, which must be the only ones: (command, event or position)."""
        taken = []
        for _ in range(count):
            command, _, body = self.client.receive()
            fields = goldenlib.decode_fields(command, body)
            taken.append((command, fields.get("event", fields)))
        with pytest.raises(TimeoutError):
            self.client.receive(0.03)
        return taken


EVENT, CHECKPOINT = Command.StreamEventAppeared, Command.CheckpointReached


def test_filt_08_only_what_fits(node: NodeThread, client: RawClient, stream: str) -> None:
    with FilteredSubscriber(node, by(STREAM, PREFIX, f"{stream}-a"), -1) as subscriber:
        assert "last_event_number" not in subscriber.confirmation
        for letter in "abab":
            client.write_some(f"{stream}-{letter}", 5)
        taken = subscriber.take(10)
    assert {command for command, _ in taken} == {EVENT}
    assert [item["event"]["event_number"] for _, item in taken] == list(range(10))
    page = read(client, FORWARD, position_of(taken[0][1]), by(STREAM, PREFIX, f"{stream}-a"))
    assert [item for _, item in taken] == page.items


def test_filt_08_checkpoints(node: NodeThread, client: RawClient, stream: str) -> None:
    with FilteredSubscriber(node, by(STREAM, PREFIX, f"{stream}-a"), 2) as subscriber:
        for number in range(10):
            client.write_some(f"{stream}-{'ab'[number % 2]}", 1)
        taken = subscriber.take(10)
    assert [command for command, _ in taken] == [EVENT, CHECKPOINT] * 5
    positions = [position_of(item) for _, item in taken]
    assert positions == sorted(positions)
    written = [position_of(item) for item in client.all_backward(count=10).items[::-1]]
    assert positions == written


@pytest.mark.parametrize("interval", [0, 1])
def test_filt_08_a_checkpoint_after_every_event(
    node: NodeThread, client: RawClient, stream: str, interval: int
) -> None:
    with FilteredSubscriber(node, by(STREAM, PREFIX, f"{stream}-a"), interval) as subscriber:
        client.write_some(f"{stream}-a", 2)
        client.write_some(f"{stream}-b", 1)
        commands = [command for command, _ in subscriber.take(5)]
    assert commands == [EVENT, CHECKPOINT, EVENT, CHECKPOINT, CHECKPOINT]


def test_filtered_subscriptions_to_one_stream(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    with FilteredSubscriber(node, by(TYPE, PREFIX, "yes"), 2, stream) as subscriber:
        assert subscriber.confirmation["last_event_number"] == -1
        client.write(stream, [event(type="yes"), event(type="no"), event(type="yes")])
        client.write(f"{stream}-b", [event(type="yes")])
        commands = [command for command, _ in subscriber.take(3)]
    assert commands == [EVENT, CHECKPOINT, EVENT]


def test_filtered_subscriptions_resolve_links(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    client.write_some(stream, 1)
    wanted = by(STREAM, PREFIX, f"{stream}-links")
    with FilteredSubscriber(node, wanted, -1, resolve_link_tos=True) as subscriber:
        client.write(f"{stream}-links", [link(0, stream)])
        ((_, item),) = subscriber.take(1)
    assert item["event"]["event_stream_id"] == stream


def test_a_filtered_subscription_ends_as_others(
    node: NodeThread, client: RawClient, stream: str
) -> None:
    with FilteredSubscriber(node, by(STREAM, PREFIX, stream), -1) as subscriber:
        unsubscribe = Command.UnsubscribeFromStream
        reply = subscriber.client.exchange(unsubscribe, b"", None, subscriber.correlation_id)
        assert reply == (Command.SubscriptionDropped, {})
        client.write_some(stream, 1)
        assert subscriber.take(0) == []


@pytest.mark.parametrize("auth", [None, OPS])
def test_filtered_subscriptions_need_the_right(client: RawClient, auth: Auth) -> None:
    command = Command.FilteredSubscribeToStream
    payload = goldenlib.encode_fields(command, {"filter": by(TYPE, PREFIX, "x")})
    reply = client.exchange(command, payload, auth)
    assert reply == (Command.SubscriptionDropped, {"reason": 1})
    bad = goldenlib.encode_fields(command, {"filter": by(TYPE, REGEX, "(")})
    assert client.exchange(command, bad, ADMIN)[0] == Command.BadRequest
