"""The recordings themselves, and the replayer that holds other servers against them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import goldenlib
import pytest
from goldenlib.replay import Renaming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from goldenlib import Reply, Request, Scenario

SHIFT = 5_000_000
POSITIONS = {"commit_position", "prepare_position", "transaction_id"}


def by_id(wanted: str) -> Scenario:
    area = {"WRITE": "write", "TX": "transaction", "READALL": "read_all", "AUTH": "auth"}
    scenarios = goldenlib.scenarios(area[wanted.partition("-")[0]])
    return next(scenario for scenario in scenarios if scenario.id == wanted)


def is_plain(scenario: Scenario) -> bool:
    """One connection, requests only, nothing about time: what `RecordedServer` can play."""
    return not scenario.closed and all(
        step.requests and step.conn == "A" and not step.wait for step in scenario.steps
    )


PLAIN = [s for s in goldenlib.scenarios("read_all", "transaction", "links") if is_plain(s)]


def same_run(scenario: Scenario) -> tuple[list[list[Reply]], list[frozenset[str]]]:
    """Replies and closed connections of a run that is the recording itself."""
    closed: list[frozenset[str]] = []
    gone: frozenset[str] = frozenset()
    for step in scenario.steps:
        gone |= step.closed
        closed.append(gone)
    return [list(step.replies) for step in scenario.steps], closed


def change(reply: Reply, **fields: Any) -> Reply:
    """A reply with other values in some of its fields; None takes a field out."""
    changed = {name: v for name, v in {**reply.fields, **fields}.items() if v is not None}
    payload = goldenlib.encode_fields(reply.command, changed)
    return dataclasses.replace(reply, payload=payload, fields=changed)


def compare_changed(
    scenario: Scenario, step: int, alter: Callable[[list[Reply]], list[Reply]]
) -> list[str]:
    """The differences found when the replies of one step are altered."""
    replies, closed = same_run(scenario)
    replies[step] = alter(replies[step])
    return goldenlib.compare(scenario, replies, closed)


class TestRecordings:
    def test_all_scenarios_are_there_once(self) -> None:
        ids = [scenario.id for scenario in goldenlib.scenarios()]
        assert len(ids) == len(set(ids)) == 522

    def test_fields_of_replies_are_what_their_payloads_say(self) -> None:
        for scenario in goldenlib.scenarios():
            for reply in scenario.replies:
                decoded = goldenlib.decode_fields(reply.command, reply.payload)
                assert decoded == reply.fields, scenario.id
                assert goldenlib.encode_fields(reply.command, decoded) == reply.payload

    def test_fields_of_requests_encode_to_their_payloads(self) -> None:
        for scenario in goldenlib.scenarios():
            for request in scenario.requests:
                if not request.noncanonical:
                    encoded = goldenlib.encode_fields(request.command, request.fields)
                    assert encoded == request.payload, scenario.id

    def test_request_frames_are_the_captured_bytes(self) -> None:
        capture = goldenlib.capture("mixed50")
        frames, rest = goldenlib.split_frames(capture.requests)
        assert rest == b""
        requests = capture.description["requests"]
        # The capture starts with the IdentifyClient that the description leaves out.
        for (command, flags, identifier, body), request in zip(
            frames[-len(requests) :], requests, strict=True
        ):
            assert command == request["command"]
            assert flags == (1 if request["auth"] else 0)
            payload = goldenlib.encode_fields(
                command, goldenlib.parse_fields(command, request["fields"])
            )
            assert body.endswith(payload)
            frame = goldenlib.build_frame(command, flags, identifier, body)
            assert frame in capture.requests

    def test_selection_by_commands(self) -> None:
        only_ping = goldenlib.scenarios_using_only({0x03, 0xF5}, "handshake")
        assert only_ping
        assert all(scenario.commands <= {0x03, 0xF5} for scenario in only_ping)
        everything = goldenlib.scenarios_using_only(range(256))
        assert len(everything) == 522 - 2  # two read inside of records of the original's log

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("utf8:ä:b", "ä:b".encode()),
            ("hex:00ff", b"\x00\xff"),
            ("repeat:6162*3", b"ababab"),
            (
                "00112233-4455-6677-8899-aabbccddeeff",
                bytes.fromhex("33221100554477668899aabbccddeeff"),
            ),
        ],
    )
    def test_notation_of_bytes(self, text: str, value: bytes) -> None:
        assert goldenlib.parse_bytes(text) == value

    def test_unknown_notation_of_bytes(self) -> None:
        with pytest.raises(ValueError, match="base64"):
            goldenlib.parse_bytes("base64:AAAA")


class TestComparing:
    def test_a_recording_equals_itself(self) -> None:
        for scenario in goldenlib.scenarios():
            assert goldenlib.compare(scenario, *same_run(scenario)) == []

    def test_order_counts_within_a_label_only(self) -> None:
        scenario = next(s for s in goldenlib.scenarios("subscribe") if len(self._mixed_step(s)) > 1)
        replies, closed = same_run(scenario)
        replies = [sorted(step, key=lambda reply: reply.correlation) for step in replies]
        assert goldenlib.compare(scenario, replies, closed) == []

    @staticmethod
    def _mixed_step(scenario: Scenario) -> set[str]:
        return max(
            ({reply.correlation for reply in step.replies} for step in scenario.steps), key=len
        )

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("result", 1),
            ("first_event_number", 1),
            ("commit_position", 0),
            ("commit_position", None),
            ("current_version", None),
            ("message", "surprise"),
        ],
    )
    def test_differing_field(self, field: str, value: object) -> None:
        differences = compare_changed(
            by_id("WRITE-01"), 1, lambda replies: [change(replies[0], **{field: value})]
        )
        assert any(f".{field}:" in difference for difference in differences)

    def test_positions_differ_by_rank(self) -> None:
        scenario = by_id("WRITE-01")
        moved = compare_changed(
            scenario,
            1,
            lambda r: [change(r[0], commit_position=7_000_000, prepare_position=7_000_000)],
        )
        assert moved == []
        apart = compare_changed(
            scenario,
            1,
            lambda r: [change(r[0], commit_position=r[0].fields["commit_position"] + 1)],
        )
        assert apart != []

    def test_missing_and_extra_frames(self) -> None:
        scenario = by_id("WRITE-01")
        assert compare_changed(scenario, 1, lambda replies: []) != []
        assert compare_changed(scenario, 1, lambda replies: replies * 2) != []

    def test_unknown_field(self) -> None:
        def add_field(replies: list[Reply]) -> list[Reply]:
            return [dataclasses.replace(replies[0], payload=replies[0].payload + b"\xf8\x01\x01")]

        assert len(compare_changed(by_id("WRITE-01"), 1, add_field)) == 1

    def test_closed_connection(self) -> None:
        scenario = by_id("WRITE-01")
        replies, closed = same_run(scenario)
        closed[-1] = frozenset({"A"})
        assert len(goldenlib.compare(scenario, replies, closed)) == 1

    def test_close_race_may_lose_the_last_frame(self) -> None:
        scenario = by_id("AUTH-06")
        assert compare_changed(scenario, 1, lambda replies: []) == []

    def test_wording_of_refusals_is_free_but_not_their_kind(self) -> None:
        scenario = next(
            s for s in goldenlib.scenarios("auth") if any(r.command == 0xF4 for r in s.replies)
        )
        step, replies = next(
            (number, step.replies)
            for number, step in enumerate(scenario.steps)
            if any(reply.command == 0xF4 for reply in step.replies)
        )
        reworded = [change(r, text="No.") if r.command == 0xF4 else r for r in replies]
        assert compare_changed(scenario, step, lambda _: reworded) == []
        silent = [change(r, text="") if r.command == 0xF4 else r for r in replies]
        assert compare_changed(scenario, step, lambda _: silent) != []


class RecordedServer:
    """Plays the server's part of a plain scenario, as another run of it could have been.

    All positions lie `SHIFT` further, times differ, names and ids follow the client's renaming.
    """

    def __init__(self, scenario: Scenario, renaming: Renaming) -> None:
        self._scenario = scenario
        self._renaming = renaming
        self.failure: BaseException | None = None

    async def __aenter__(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return host, port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        if self.failure is not None:
            raise self.failure

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ids = {"empty": bytes(16)}
            for step in self._scenario.steps:
                for request in step.requests:
                    ids[request.correlation] = await self._expect(reader, request)
                if step is self._scenario.steps[0]:
                    await self._ping_pong(reader, writer)
                for reply in sorted(step.replies, key=lambda r: r.correlation, reverse=True):
                    payload = goldenlib.encode_fields(reply.command, shifted(reply.fields))
                    body = self._renaming.apply(payload)
                    identifier = ids.get(reply.correlation, reply.correlation.encode())
                    writer.write(goldenlib.build_frame(reply.command, 0, identifier, body))
            assert await reader.read() == b""
        except BaseException as failure:
            self.failure = failure
            raise
        finally:
            writer.close()

    async def _expect(self, reader: asyncio.StreamReader, request: Request) -> bytes:
        """Read a request and check that it is the recorded one, as it has to be in this run."""
        prefix = await reader.readexactly(4)
        frame = prefix + await reader.readexactly(int.from_bytes(prefix, "little"))
        [(command, flags, identifier, body)], _ = goldenlib.split_frames(frame)
        assert (command, flags) == (request.command, request.flags)
        payload = body[len(request.auth_block) :]
        expected = request.payload
        if request.refs:
            moved = shifted({name: request.fields[name] for name in request.refs})
            expected = goldenlib.encode_fields(command, {**request.fields, **moved})
        assert payload == self._renaming.apply(expected)
        return identifier

    @staticmethod
    async def _ping_pong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heartbeat = goldenlib.build_frame(0x01, 0, b"server heartbeat", b"")
        answer = goldenlib.build_frame(0x02, 0, b"server heartbeat", b"")
        writer.write(heartbeat)
        assert await reader.readexactly(len(answer)) == answer


def shifted(fields: dict[str, Any]) -> dict[str, Any]:
    """These fields in a run at another time, in another place of the log."""

    def shift(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return shifted(value)
        if isinstance(value, list):
            return [shift(name, item) for item in value]
        if name.removeprefix("next_") in POSITIONS and value > 0:
            return value + SHIFT
        return value + 1 if name in {"created", "created_epoch", "last_commit_position"} else value

    return {name: shift(name, value) for name, value in fields.items()}


class TestReplaying:
    @pytest.mark.parametrize("scenario", PLAIN, ids=lambda scenario: scenario.id)
    def test_another_run_of_the_same_server(self, scenario: Scenario) -> None:
        # A position near the top of the numbers cannot be shifted; such a scenario has no refs.
        if any(v > 2**62 for r in scenario.requests for v in r.fields.values() if type(v) is int):
            scenario = dataclasses.replace(scenario, steps=scenario.steps[:1])
        salt = "another run"

        async def run() -> list[str]:
            server = RecordedServer(scenario, Renaming.of(scenario, salt))
            async with server as (host, port):
                return await goldenlib.replay(
                    scenario, host, port, salt=salt, timeout=2, longest_quiet=0
                )

        assert asyncio.run(run()) == []

    def test_a_server_that_says_nothing(self) -> None:
        async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        differences = asyncio.run(replay_against(listen_only))
        assert len(differences) == 3
        assert all("got nothing" in difference for difference in differences)

    def test_a_server_that_hangs_up(self) -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        differences = asyncio.run(replay_against(hang_up))
        assert any("closed connections are ['A']" in difference for difference in differences)


async def replay_against(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> list[str]:
    """The differences of a server that handles each connection in this way."""
    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        return await goldenlib.replay(by_id("WRITE-01"), host, port, timeout=0.05)
