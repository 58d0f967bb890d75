"""The public interface from end to end, against the embedded node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from client.proxy import CuttingProxy

import fastpump
import fastpump.server
from fastpump import (
    Beginning,
    Client,
    End,
    ExpectedVersion,
    Json,
    NewEvent,
    Position,
    StreamDirection,
)
from fastpump.exceptions import (
    AccessDenied,
    NotAuthenticated,
    StreamNotFound,
    WrongExpectedVersion,
)

ANY, NO_STREAM = ExpectedVersion.Any, ExpectedVersion.StreamMustNotExist
BACKWARD = StreamDirection.Backward

# Every kind of character that some place might treat specially.
NAMES = [
    "with spaces",
    "a@b",
    "stream::group",
    "größe",
    "日本語",
    "🚀🚀",
    "a/b?c#d",
    "%41",
    "'\"\\",
]


@asynccontextmanager
async def node_and_client(**options: Any) -> AsyncIterator[Client]:
    options = {"username": "admin", "password": "changeit", **options}
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port, **options) as client:
            yield client


async def fill(client: Client, stream: str, count: int) -> list[fastpump.NewEventData]:
    events = [NewEvent("t", data={"n": n}) for n in range(count)]
    await client.publish(stream, events)
    return events


async def numbers(events: Any) -> list[int]:
    return [event.event_number async for event in events]


async def test_proto_04_ping() -> None:
    async with node_and_client() as client:
        seconds = await client.ping()
        assert 0 < seconds < 10
        assert await client.ping(uuid4()) > 0


async def test_app_01_02_expected_versions() -> None:
    async with node_and_client() as client:
        first = await client.publish_event("s", "t", expected_version=NO_STREAM)
        assert (first.first_event_number, first.last_event_number) == (0, 0)
        second = await client.publish_event("s", "t", expected_version=0)
        assert second.last_event_number == 1
        assert (await client.publish_event("s", "t")).last_event_number == 2
        assert (await client.publish_event("other", "t")).last_event_number == 0
        existing = await client.publish_event("s", "t", expected_version=-4)
        assert existing.last_event_number == 3


async def test_app_03_many_events_in_one_call() -> None:
    async with node_and_client() as client:
        events = [NewEvent(f"t{n}", data=n, metadata={"m": n}) for n in range(100)]
        written = await client.publish("s", events, NO_STREAM)
        assert (written.first_event_number, written.last_event_number) == (0, 99)
        page = await client.get("s")
        assert [(e.id, e.type, e.json()) for e in page] == [(e.id, e.type, e.data) for e in events]
        assert [e.metadata for e in page] == [b'{"m":%d}' % n for n in range(100)]
        assert {e.stream for e in page} == {"s"}


async def test_app_04_positions_increase() -> None:
    async with node_and_client() as client:
        positions = [(await client.publish_event(f"s{n}", "t")).position for n in range(5)]
        assert all(position.commit == position.prepare > 0 for position in positions)
        assert positions == sorted(set(positions))


async def test_app_05_no_events() -> None:
    async with node_and_client() as client:
        for version in (ANY, NO_STREAM, ANY, NO_STREAM):
            assert (await client.publish("s", [], version)).last_event_number == -1
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_app_08_pp_04_wrong_expected_version() -> None:
    async with node_and_client() as client:
        for stream, version, actual in (("new", 1, -1), ("s", 1, 0), ("s", -1, 0), ("s", 7, 0)):
            if actual == 0 and version == 1:
                await client.publish_event("s", "t")
            with pytest.raises(WrongExpectedVersion) as caught:
                await client.publish_event(stream, "t", expected_version=version)
            assert caught.value.expected_version == version
            assert caught.value.actual_version == actual
            assert caught.value.stream == stream
        assert len(await client.get("s")) == 1
        with pytest.raises(WrongExpectedVersion):
            await client.publish("new", [NewEvent("t")], ExpectedVersion.StreamMustExist)


@pytest.mark.parametrize(
    ("body", "data", "is_json"),
    [
        (None, b"", False),
        (b"\x00\xff", b"\x00\xff", False),
        (bytearray(b"b"), b"b", False),
        (memoryview(b"m"), b"m", False),
        (Json(b"[1]"), b"[1]", True),
        ({"a": "ü"}, b'{"a":"\xc3\xbc"}', True),
        ([1, None], b"[1,null]", True),
        ('{"as": "it is"}', b'{"as": "it is"}', True),
        (7, b"7", True),
    ],
)
async def test_app_15_16_pp_02_bodies(body: Any, data: bytes, is_json: bool) -> None:
    async with node_and_client() as client:
        await client.publish_event("s", "t", body)
        await client.publish_event("s", "t", body, metadata=body)
        await client.publish_event("s", "t", metadata=body)
        both, with_metadata, alone = await client.get("s")
        assert (both.data, both.metadata, both.is_json) == (data, b"", is_json)
        assert (with_metadata.data, with_metadata.metadata) == (data, data)
        assert with_metadata.is_json == is_json
        assert (alone.data, alone.metadata, alone.is_json) == (b"", data, False)


async def test_app_17_created() -> None:
    async with node_and_client() as client:
        await client.publish_event("s", "t")
        event = await client.get_event("s", 0)
        assert event is not None
        assert event.created is not None
        assert event.created.utcoffset() == timedelta(0)
        assert abs(datetime.now(timezone.utc) - event.created) < timedelta(minutes=1)


async def test_app_20_24_names_of_the_system() -> None:
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port) as anonymous:
            with pytest.raises(AccessDenied):
                await anonymous.publish_event("$mine", "t")
            with pytest.raises(AccessDenied):
                await anonymous.get_all()
            with pytest.raises(AccessDenied):
                await anonymous.iter_all().__anext__()
            await anonymous.publish_event("mine", "t")
        async with fastpump.connect(
            node.host, node.port, username="admin", password="changeit"
        ) as admin:
            assert (await admin.publish_event("$mine", "t")).last_event_number == 0
            with pytest.raises(AccessDenied):
                await admin.publish_event("$all", "t")


@pytest.mark.parametrize("name", NAMES)
async def test_app_21_names(name: str) -> None:
    async with node_and_client() as client:
        await client.publish_event(name, name, name)
        (event,) = await client.get(name)
        assert (event.stream, event.type, event.data.decode()) == (name, name, name)
        again = await client.get_event(name, 0)
        assert again is not None
        assert (again.stream, again.type) == (name, name)
        last = (await client.get_all(BACKWARD, max_count=1))[0]
        assert (last.stream, last.type) == (name, name)


async def test_app_22_order_of_writes_not_awaited_one_by_one() -> None:
    async with node_and_client() as client:
        await asyncio.gather(
            *(client.publish_event("s", "t", n, expected_version=n - 1) for n in range(100))
        )
        assert [event.json() async for event in client.iter("s")] == list(range(100))


async def test_app_23_five_hundred_at_once() -> None:
    async with node_and_client() as client:
        written = await asyncio.gather(*(client.publish_event("s", "t", n) for n in range(500)))
        assert sorted(result.last_event_number for result in written) == list(range(500))
        events = [event async for event in client.iter("s", batch_size=64)]
        assert [event.event_number for event in events] == list(range(500))
        assert {event.json() for event in events} == set(range(500))


async def test_idem_10_16_29_published_again() -> None:
    async with node_and_client() as client:
        events = await fill(client, "s", 3)
        for version in (ANY, NO_STREAM, ExpectedVersion.StreamMustExist):
            again = await client.publish("s", events, version)
            assert (again.first_event_number, again.last_event_number) == (0, 2)
        one = await client.publish_event("s", "other", {"other": 1}, id=events[1].id)
        assert one.last_event_number == 1
        page = await client.get("s")
        assert [event.json() for event in page] == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_read_02_05_pp_05_single_events() -> None:
    async with node_and_client() as client:
        with pytest.raises(StreamNotFound, match="missing"):
            await client.get_event("missing", 0)
        with pytest.raises(StreamNotFound):
            await client.get_event("missing", -1)
        events = await fill(client, "s", 5)
        for number in (0, 4):
            event = await client.get_event("s", number)
            assert event is not None
            assert (event.event_number, event.id) == (number, events[number].id)
        last = await client.get_event("s", -1)
        assert last is not None
        assert last.event_number == 4
        assert await client.get_event("s", 5) is None
        assert await client.get_event("s", 2**40) is None
        assert await client.get_event("$$s", -1) is None


async def test_read_09_missing_stream() -> None:
    async with node_and_client() as client:
        for direction in StreamDirection:
            with pytest.raises(StreamNotFound) as caught:
                await client.get("missing", direction)
            assert caught.value.stream == "missing"
            with pytest.raises(StreamNotFound):
                await client.iter("missing", direction).__anext__()


@pytest.mark.parametrize(
    ("start", "count", "expected", "following", "is_end"),
    [
        (0, 3, [0, 1, 2], 3, False),
        (1, 4, [1, 2, 3, 4], 5, True),
        (1, 5, [1, 2, 3, 4], 5, True),
        (0, 5, [0, 1, 2, 3, 4], 5, True),
        (6, 2, [], 5, True),
        (5, 1, [], 5, True),
    ],
)
async def test_read_10_15_forward(
    start: int, count: int, expected: list[int], following: int, is_end: bool
) -> None:
    async with node_and_client() as client:
        await fill(client, "s", 5)
        page = await client.get("s", from_event=start, max_count=count)
        assert [event.event_number for event in page] == expected
        assert (page.next_event_number, page.is_end_of_stream) == (following, is_end)
        assert (page.stream, page.from_event_number, page.last_event_number) == ("s", start, 4)
        assert page.direction is StreamDirection.Forward


@pytest.mark.parametrize(
    ("start", "count", "expected", "following", "is_end"),
    [
        (4, 3, [4, 3, 2], 1, False),
        (2, 3, [2, 1, 0], -1, True),
        (6, 5, [4, 3, 2], 1, False),
        (10, 3, [], 4, False),
        (0, 1, [0], -1, True),
        (-1, 2, [4, 3], 2, False),
        (None, 2, [4, 3], 2, False),
    ],
)
async def test_read_11_15_backward(
    start: int | None, count: int, expected: list[int], following: int, is_end: bool
) -> None:
    async with node_and_client() as client:
        await fill(client, "s", 5)
        page = await client.get("s", BACKWARD, start, count)
        assert [event.event_number for event in page] == expected
        assert (page.next_event_number, page.is_end_of_stream) == (following, is_end)
        assert page.direction is StreamDirection.Backward


async def test_read_17_a_hundred_streams_at_once() -> None:
    async with node_and_client() as client:
        await asyncio.gather(*(fill(client, f"s{n}", n % 7 + 1) for n in range(100)))
        pages = await asyncio.gather(*(client.get(f"s{n}") for n in range(100)))
        for n, page in enumerate(pages):
            assert [(event.stream, event.event_number) for event in page] == [
                (f"s{n}", number) for number in range(n % 7 + 1)
            ]


async def test_pp_08_read_13_iterating() -> None:
    async with node_and_client() as client:
        await fill(client, "s", 50)
        for batch in (2, 7, 100):
            assert await numbers(client.iter("s", batch_size=batch)) == list(range(50))
            backward = client.iter("s", BACKWARD, batch_size=batch)
            assert await numbers(backward) == list(range(50))[::-1]
            assert await numbers(client.iter("s", from_event=47, batch_size=batch)) == [47, 48, 49]
        assert await numbers(client.iter("s", BACKWARD, from_event=0)) == [0]
        sizes = [len(page) async for page in client.iter_slices("s", batch_size=20)]
        assert sizes == [20, 20, 10]
        sizes = [len(page) async for page in client.iter_slices("s", BACKWARD, batch_size=20)]
        assert sizes == [20, 20, 10]


async def test_read_14_goes_on_where_it_ended() -> None:
    async with node_and_client() as client:
        await fill(client, "s", 4)
        page = await client.get("s", max_count=4)
        assert (page.is_end_of_stream, page.next_event_number) == (True, 4)
        rest = await client.get("s", from_event=page.next_event_number)
        assert (len(rest), rest.is_end_of_stream) == (0, True)
        await client.publish_event("s", "t")
        (event,) = await client.get("s", from_event=rest.next_event_number)
        assert event.event_number == 4


async def test_writing_while_iterating() -> None:
    async with node_and_client() as client:
        await fill(client, "s", 20)
        seen = []
        async for event in client.iter("s", batch_size=5):
            await client.publish_event("copy", event.type, event.data)
            seen.append(event.event_number)
        assert seen == list(range(20))
        assert [e.data async for e in client.iter("copy")] == [
            e.data async for e in client.iter("s")
        ]


async def test_all_02_03_05_the_log() -> None:
    async with node_and_client() as client:
        for n in range(20):
            await client.publish_event(f"s{n % 3}", "known", n)
        whole = [event async for event in client.iter_all()]
        assert [event.json() for event in whole if event.type == "known"] == list(range(20))
        positions = [event.position for event in whole]
        assert all(position is not None for position in positions)
        assert positions == sorted(set(positions))  # type: ignore[type-var]
        for batch in (1, 5, 4096):
            assert [e async for e in client.iter_all(batch_size=batch)] == whole
            assert [e async for e in client.iter_all(BACKWARD, batch_size=batch)] == whole[::-1]
            pages = [page async for page in client.iter_all_slices(batch_size=batch)]
            assert [event for page in pages for event in page] == whole


async def test_all_01_04_07_positions() -> None:
    async with node_and_client() as client:
        assert len(await client.get_all(from_position=End)) == 0
        assert len(await client.get_all(BACKWARD, Beginning)) == 0
        end = (await client.get_all(from_position=End)).next_position
        written = await client.publish("s", [NewEvent("a"), NewEvent("b"), NewEvent("c")])
        page = await client.get_all(from_position=end)
        assert [event.type for event in page] == ["a", "b", "c"]
        assert page[2].position == written.position
        middle = page[1].position
        assert isinstance(middle, Position)
        forward = await client.get_all(from_position=middle)
        assert [event.type for event in forward] == ["b", "c"]
        backward = await client.get_all(BACKWARD, middle, max_count=1)
        assert [event.type for event in backward] == ["a"]
        rest = await client.get_all(from_position=page.next_position)
        assert rest.is_end_of_stream


async def test_auth_01_sec_01_credentials() -> None:
    async with fastpump.server.run() as node:
        client = fastpump.connect(
            node.host, node.port, username="admin", password="wrong", reconnect_delay=0.01
        )
        with pytest.raises(NotAuthenticated):
            await client.connect()
        async with fastpump.connect(
            node.host, node.port, username="admin", password="changeit"
        ) as client:
            await client.get_all(max_count=1)


async def test_size_01_large_events() -> None:
    async with node_and_client() as client:
        large = [NewEvent("t", metadata=bytes([n]) * 6_000_000) for n in range(2)]
        assert (await client.publish("s", large)).last_event_number == 1
        for page in (await client.get("s"), (await client.get("s", BACKWARD))[::-1]):
            assert [event.metadata for event in page] == [event.metadata for event in large]
        single = await client.get_event("s", 1)
        assert single is not None
        assert single.metadata == large[1].metadata
        (last,) = await client.get_all(BACKWARD, max_count=1)
        assert last.metadata == large[1].metadata


async def test_size_02_largest_event() -> None:
    async with node_and_client() as client:
        largest = fastpump.MAX_EVENT_SIZE - 2
        await client.publish_event("s", "t", bytes(largest))
        event = await client.get_event("s", 0)
        assert event is not None
        assert len(event.data) == largest


async def test_link_01_02_links() -> None:
    async with node_and_client() as client:
        await fill(client, "target", 3)
        for data in (b"1@target", b"9@target", b"0@missing"):
            await client.publish_event("links", "$>", data)
        resolved, unresolved, missing = await client.get("links")
        assert resolved.is_resolved
        assert (resolved.stream, resolved.json()) == ("target", {"n": 1})
        assert resolved.event_number == 0, "the link's"
        assert resolved.received_event.stream == "links"
        for event in (unresolved, missing):
            assert not event.is_resolved
            assert event.type == "$>"
        plain = await client.get("links", resolve_links=False)
        assert [event.data for event in plain] == [b"1@target", b"9@target", b"0@missing"]
        assert await numbers(client.iter("links", batch_size=1)) == [0, 1, 2]


async def test_conn_20_two_clients_of_one_node() -> None:
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port) as second:
            async with fastpump.connect(node.host, node.port) as first:
                await first.publish_event("s", "t")
            await second.publish_event("s", "t")
            assert len(await second.get("s")) == 2


async def test_conn_04_node_that_comes_back(tmp_path: Any) -> None:
    path = tmp_path / "events.db"
    async with fastpump.server.run(path=path) as node:
        client = fastpump.connect(node.host, node.port, max_reconnects=-1, reconnect_delay=0.01)
        await client.connect()
        await client.publish_event("s", "t", 0)
    writing = asyncio.ensure_future(client.publish_event("s", "t", 1, id=uuid4()))
    await asyncio.sleep(0.05)
    async with fastpump.server.run(port=node.port, path=path):
        assert (await writing).last_event_number == 1
        assert [event.json() async for event in client.iter("s")] == [0, 1]
        await client.close()


@pytest.mark.parametrize(
    "version", [fastpump.ExpectedVersion.Any, fastpump.ExpectedVersion.StreamMustNotExist, 1]
)
async def test_idem_34_cut_between_request_and_reply(version: int) -> None:
    stream = f"s-{uuid4()}"
    async with (
        fastpump.server.run() as node,
        CuttingProxy(node.host, node.port) as proxy,
        fastpump.connect(node.host, node.port) as direct,
        fastpump.connect(proxy.host, proxy.port, reconnect_delay=0.01) as client,
    ):
        if version >= 0:
            await direct.publish(stream, [fastpump.NewEvent("t"), fastpump.NewEvent("t")])
        before = max(version, -1) + 1
        proxy.cut_replies = 2
        events = [fastpump.NewEvent("t", data=n) for n in range(3)]
        written = await client.publish(stream, events, expected_version=version)
        assert proxy.cuts == 2
        assert (written.first_event_number, written.last_event_number) == (before, before + 2)
        page = await direct.get(stream)
        assert [event.id for event in page[before:]] == [event.id for event in events]
        assert len(page) == before + 3


async def test_idem_34_many_writes_and_several_cuts() -> None:
    async with (
        fastpump.server.run() as node,
        CuttingProxy(node.host, node.port) as proxy,
        fastpump.connect(proxy.host, proxy.port, reconnect_delay=0.01, max_attempts=100) as client,
    ):
        proxy.cut_replies = 5
        await asyncio.gather(*(client.publish_event("s", "t", n) for n in range(100)))
        assert proxy.cuts == 5
        numbers = [event.json() async for event in client.iter("s", batch_size=7)]
        assert sorted(numbers) == list(range(100))


def test_program_started_by_fastpump_run() -> None:
    async def main() -> tuple[str, list[UUID]]:
        async with node_and_client() as client:
            events = await fill(client, "s", 3)
            page = await client.get("s")
            assert [event.id for event in page] == [event.id for event in events]
            return type(asyncio.get_running_loop()).__module__, [event.id for event in page]

    module, ids = fastpump.run(main())
    assert len(ids) == 3
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return
    assert module.startswith("uvloop")


def test_run_passes_on_errors_and_cleans_up() -> None:
    cancelled = []

    async def forgotten() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        task = asyncio.ensure_future(forgotten())
        await asyncio.sleep(0)
        assert not task.done()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fastpump.run(main())
    assert cancelled == [True]


async def test_read_18_requiring_the_leader_changes_nothing_on_a_single_node() -> None:
    async with node_and_client() as client:
        await fill(client, "s", 3)
        for wanted in (False, True):
            page = await client.get("s", require_master=wanted)
            assert [event.event_number for event in page] == [0, 1, 2]
            event = await client.get_event("s", 1, require_master=wanted)
            assert event is not None
            assert event.event_number == 1
            assert len(await client.get_all(require_master=wanted)) >= 3
