"""What a server may answer, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from client.pages import events_of, record, stream_page
from client.peer import Peer, connected, frame, leader_info, outcome, reply_to, serving, soon
from wire.reference import PROTO3

import fastpump
from fastpump import exceptions as errors
from fastpump.messages import OperationResult, ReadAllResult, ReadEventResult, ReadStreamResult

Client = fastpump.Client
Call = Callable[[Client], Any]

CALLS: dict[str, Call] = {
    "Ping": lambda client: client.ping(),
    "WriteEvents": lambda client: client.publish_event("s", "t"),
    "ReadEvent": lambda client: client.get_event("s", 0),
    "ReadStreamEventsForward": lambda client: client.get("s"),
    "ReadStreamEventsBackward": lambda client: client.get("s", fastpump.StreamDirection.Backward),
    "ReadAllEventsForward": lambda client: client.get_all(),
    "ReadAllEventsBackward": lambda client: client.get_all(fastpump.StreamDirection.Backward),
}

every_call = pytest.mark.parametrize("command", CALLS)


async def ask(call: Call, command: str, reply: str | None = None, **fields: Any) -> Any:
    """The outcome of a call that gets this reply; the next call must work."""
    async with connected() as (client, link, peer):
        asking = soon(call(client))
        link.reply(await link.expect(command), reply, **fields)
        error = await outcome(asking)
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping
        assert peer.connections == 1
        return asking.result() if error is None else error


# --- results ---


async def test_write_result() -> None:
    written = await ask(
        CALLS["WriteEvents"],
        "WriteEvents",
        result=0,
        first_event_number=5_000_000_000,
        last_event_number=5_000_000_001,
        prepare_position=77,
        commit_position=78,
    )
    assert written.result == OperationResult.Success
    assert (written.first_event_number, written.last_event_number) == (5_000_000_000, 5_000_000_001)
    assert written.position == fastpump.Position(78, 77)


async def test_app_08_pp_04_wrong_expected_version() -> None:
    error = await ask(
        lambda client: client.publish_event("s", "t", expected_version=7),
        "WriteEvents",
        result=4,
        message="Wrong expected version.",
        first_event_number=-(2**31),
        last_event_number=-(2**31),
        current_version=3,
    )
    assert isinstance(error, errors.WrongExpectedVersion)
    assert (error.stream, error.expected_version, error.actual_version) == ("s", 7, 3)
    assert "7" in str(error)
    assert "3" in str(error)


async def test_wrong_expected_version_of_a_server_that_leaves_out_zeros() -> None:
    error = await ask(CALLS["WriteEvents"], "WriteEvents", result=4)
    assert isinstance(error, errors.WrongExpectedVersion)
    assert error.actual_version is None


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (OperationResult.StreamDeleted, errors.StreamDeleted),
        (OperationResult.AccessDenied, errors.AccessDenied),
        (OperationResult.InvalidTransaction, errors.InvalidTransaction),
        (99, errors.WriteFailed),
    ],
)
async def test_pp_04_refused_writes(result: int, kind: type[Exception]) -> None:
    error = await ask(CALLS["WriteEvents"], "WriteEvents", result=result, message="because")
    assert type(error) is kind
    assert isinstance(error, errors.ServerError)


async def test_app_25_server_timeouts_are_retried_with_the_same_ids() -> None:
    async with connected() as (client, link, _):
        events = [fastpump.NewEvent("t"), fastpump.NewEvent("t")]
        writing = soon(client.publish("s", events))
        requests = []
        for result in (
            OperationResult.PrepareTimeout,
            OperationResult.ForwardTimeout,
            OperationResult.CommitTimeout,
            OperationResult.Success,
        ):
            requests.append(await link.expect("WriteEvents"))
            link.reply(requests[-1], result=result, last_event_number=1)
        assert (await writing).last_event_number == 1
        assert [r.event_ids for r in requests] == [[e.id.bytes_le for e in events]] * 4
        assert len({r.id for r in requests}) == 4, "a late reply must not meet a later attempt"
        assert len({r.payload for r in requests}) == 1


async def test_server_timeouts_without_end() -> None:
    async with connected(max_attempts=3) as (client, link, _):
        writing = soon(client.publish_event("s", "t"))
        for _ in range(3):
            link.reply(await link.expect("WriteEvents"), result=1, message="Prepare phase timeout.")
        with pytest.raises(errors.RetriesLimitReached, match="Prepare phase timeout") as caught:
            await writing
        assert isinstance(caught.value.last_error, errors.WriteFailed)
        await link.nothing_more()


def found(number: int = 0) -> dict[str, Any]:
    return {"event": record("s", number)}


async def test_pp_05_event_found() -> None:
    event = await ask(CALLS["ReadEvent"], "ReadEvent", result=0, event=found(7))
    assert (event.stream, event.event_number, event.type) == ("s", 7, "t")


@pytest.mark.parametrize("result", [ReadEventResult.NotFound, ReadEventResult.Success])
async def test_pp_05_read_06_no_such_event(result: int) -> None:
    # Success without an event: a metastream of a stream without metadata (section 6.1).
    assert await ask(CALLS["ReadEvent"], "ReadEvent", result=result, event={}) is None


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (ReadEventResult.NoStream, errors.StreamNotFound),
        (ReadEventResult.StreamDeleted, errors.StreamDeleted),
        (ReadEventResult.AccessDenied, errors.AccessDenied),
        (ReadEventResult.Error, errors.ReadError),
        (99, errors.ReadError),
    ],
)
async def test_pp_05_refused_event(result: int, kind: type[Exception]) -> None:
    error = await ask(CALLS["ReadEvent"], "ReadEvent", result=result, event={}, error="because")
    assert type(error) is kind
    assert "s" in str(error)


@pytest.mark.parametrize("command", ["ReadStreamEventsForward", "ReadStreamEventsBackward"])
@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (ReadStreamResult.NoStream, errors.StreamNotFound),
        (ReadStreamResult.StreamDeleted, errors.StreamDeleted),
        (ReadStreamResult.NotModified, errors.ReadError),
        (ReadStreamResult.AccessDenied, errors.AccessDenied),
        (99, errors.ReadError),
    ],
)
async def test_pp_06_refused_page(command: str, result: int, kind: type[Exception]) -> None:
    error = await ask(CALLS[command], command, result=result, next_event_number=-1)
    assert type(error) is kind


@pytest.mark.parametrize("command", [name for name in CALLS if name.startswith("ReadStream")])
async def test_read_19_error_with_text(command: str) -> None:
    error = await ask(CALLS[command], command, result=ReadStreamResult.Error, error="disk on fire")
    assert isinstance(error, errors.ReadError)
    assert error.stream == "s"
    assert error.error == "disk on fire"


@pytest.mark.parametrize("command", ["ReadAllEventsForward", "ReadAllEventsBackward"])
async def test_pp_07_refused_log(command: str) -> None:
    error = await ask(CALLS[command], command, result=ReadAllResult.AccessDenied)
    assert isinstance(error, errors.AccessDenied)
    error = await ask(CALLS[command], command, result=ReadAllResult.Error, error="disk on fire")
    assert isinstance(error, errors.ReadError)
    assert "disk on fire" in str(error)


async def test_proto_07_page_of_a_server_that_leaves_out_zeros() -> None:
    async with connected() as (client, link, _):
        reading = soon(client.get("s"))
        request = await link.expect("ReadStreamEventsForward")
        payload = PROTO3.encode("ReadStreamEventsCompleted", {"is_end_of_stream": True})
        link.send("ReadStreamEventsForwardCompleted", request.id, payload)
        page = await reading
        assert (len(page), page.next_event_number, page.last_event_number) == (0, 0, 0)
        assert page.is_end_of_stream


# --- answers that every request may get ---


@every_call
async def test_conn_14_bad_request(command: str) -> None:
    async with connected() as (client, link, peer):
        asking = soon(CALLS[command](client))
        link.refuse(await link.expect(command), "BadRequest", "no idea what you mean")
        with pytest.raises(errors.BadRequest, match="no idea what you mean"):
            await asking
        await link.nothing_more()
        assert peer.connections == 1


async def test_conn_14_bad_request_about_the_connection() -> None:
    async with connected() as (client, link, peer):
        calls = [soon(client.ping()), soon(client.publish_event("s", "t"))]
        for _ in calls:
            await link.receive()
        link.send("BadRequest", bytes(16), b"Invalid TCP frame received.")
        for call in calls:
            with pytest.raises(errors.BadRequest, match="Invalid TCP frame received"):
                await call
        await link.closed()
        with pytest.raises(errors.BadRequest, match="Invalid TCP frame received"):
            await client.ping()
        assert peer.connections == 1


@every_call
async def test_sec_01_not_authenticated(command: str) -> None:
    async with connected() as (client, link, _):
        asking = soon(CALLS[command](client))
        link.refuse(await link.expect(command), "NotAuthenticated", "Not Authenticated")
        with pytest.raises(errors.NotAuthenticated, match="Not Authenticated"):
            await asking


@every_call
@pytest.mark.parametrize(("reason", "fields"), [("NotReady", {}), ("TooBusy", {"reason": 1})])
async def test_conn_13_not_ready_is_retried(command: str, reason: str, fields: Any) -> None:
    async with connected() as (client, link, peer):
        asking = soon(CALLS[command](client))
        first = await link.expect(command)
        link.reply(first, "NotHandled", **fields)
        second = await link.expect(command)
        assert second.payload == first.payload
        assert second.id != first.id
        link.reply(second)
        await asking
        assert peer.connections == 1


@pytest.mark.parametrize(("reason", "kind"), [(0, errors.NotReady), (1, errors.TooBusy)])
async def test_conn_13_never_ready(reason: int, kind: type[Exception]) -> None:
    async with connected(max_attempts=2) as (client, link, _):
        asking = soon(client.ping())
        for _ in range(2):
            link.reply(await link.expect("Ping"), "NotHandled", reason=reason)
        error = await outcome(asking)
        assert isinstance(error, errors.RetriesLimitReached)
        assert type(error.last_error) is kind
        assert kind.__name__ in str(error)


async def test_retry_of_a_cancelled_call_is_not_sent() -> None:
    async with connected() as (client, link, _):
        asking, other = soon(client.ping()), soon(client.get("s"))
        link.reply(await link.expect("Ping"), "NotHandled", reason=0)
        link.reply(await link.expect("ReadStreamEventsForward"))
        await other
        asking.cancel()
        await asyncio.sleep(0.2)
        await link.nothing_more()


@every_call
async def test_conn_13_not_master(command: str) -> None:
    async with connected() as (client, link, _), Peer() as leader:
        asking = soon(CALLS[command](client))
        first = await link.expect(command)
        link.reply(first, "NotHandled", reason=2, additional_info=leader_info(leader.port))
        await link.closed()
        link = await leader.accept_and_greet()
        second = await link.expect(command)
        assert second.payload == first.payload
        assert second.id != first.id
        link.reply(second)
        await asking
        await client.close()


async def test_conn_13_not_master_without_a_leader() -> None:
    async with connected(max_attempts=3) as (client, link, peer):
        asking = soon(client.get_event("s", 0))
        for _ in range(3):
            link.reply(await link.expect("ReadEvent"), "NotHandled", reason=2)
        error = await outcome(asking)
        assert isinstance(error, errors.RetriesLimitReached)
        assert isinstance(error.last_error, errors.NotMaster)
        assert error.last_error.leader is None
        assert "Sent 3 times" in str(error)
        assert peer.connections == 1


async def test_conn_13_not_supported_by_a_read_only_replica() -> None:
    error = await ask(CALLS["WriteEvents"], "WriteEvents", "NotHandled", reason=3)
    assert type(error) is errors.OperationNotSupported
    assert error.reason == 3
    assert not error.retriable


async def test_conn_13_refused_for_another_reason() -> None:
    error = await ask(CALLS["WriteEvents"], "WriteEvents", "NotHandled", reason=42)
    assert type(error) is errors.NotHandled
    assert error.reason == 42


@every_call
async def test_read_20_unexpected_command(command: str) -> None:
    error = await ask(CALLS[command], command, "SubscriptionConfirmation")
    assert isinstance(error, errors.UnexpectedCommand)
    assert error.actual == "SubscriptionConfirmation"
    assert error.expected in str(error)


async def test_errors_tell_the_conversation() -> None:
    correlation_id = uuid4()
    async with connected() as (client, link, _):
        asking = soon(client.get("s", correlation_id=correlation_id))
        request = await link.expect("ReadStreamEventsForward")
        assert UUID(bytes_le=request.id) == correlation_id
        link.reply(request, result=1)
        error = await outcome(asking)
        assert isinstance(error, errors.StreamNotFound)
        assert error.conversation_id == correlation_id


# --- replies that nobody waits for ---


async def test_reply_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connected() as (client, link, peer):
        for _ in range(3):
            asking = soon(client.ping())
            request = await link.expect("Ping")
            link.reply(request)
            link.reply(request)
            await asking
        await link.nothing_more()
        assert peer.connections == 1
        assert caplog.text.count("Pong") == 1, "logged once"
        assert client.stats().unknown_frames == 3


async def test_conn_08_late_reply_of_a_call_that_timed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    options: dict[str, Any] = {"operation_timeout": 0.05, "fail_on_no_response": True}
    async with connected(**options) as (client, link, peer):
        asking = soon(client.get("s"))
        request = await link.expect("ReadStreamEventsForward")
        with pytest.raises(errors.OperationTimedOut) as caught:
            await asking
        assert "ReadStreamEventsForward" in str(caught.value)
        assert "0.05 s" in str(caught.value)
        assert isinstance(caught.value, TimeoutError)
        link.send_raw(stream_page(request, events_of("s", 3)))
        await link.nothing_more()
        assert "ReadStreamEventsForwardCompleted" in caplog.text
        assert peer.connections == 1


async def test_pp_17_reply_of_a_cancelled_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connected() as (client, link, peer):
        asking, other = soon(client.get("s")), soon(client.get("other"))
        cancelled = await link.expect("ReadStreamEventsForward")
        wanted = await link.expect("ReadStreamEventsForward")
        asking.cancel()
        link.send_raw(stream_page(cancelled, events_of("s", 3)))
        link.send_raw(stream_page(wanted, events_of("other", 2)))
        assert [event.stream for event in await other] == ["other"] * 2
        assert asking.cancelled()
        assert "ignored" not in caplog.text, "it was expected, though not wanted any more"
        assert peer.connections == 1


async def test_replies_in_any_order() -> None:
    async with connected() as (client, link, _):
        calls = [soon(client.get(f"s{n}")) for n in range(100)]
        requests = [await link.expect("ReadStreamEventsForward") for _ in calls]
        for request in reversed(requests):
            stream = request.fields["event_stream_id"]
            link.send_raw(stream_page(request, events_of(stream, 2)))
        for number, page in enumerate(await asyncio.gather(*calls)):
            assert [event.stream for event in page] == [f"s{number}"] * 2


@pytest.mark.parametrize("command", [0x00, 0x05, 0x7F, 0xBD, 0xFF])
async def test_proto_06_unknown_command(command: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connected() as (client, link, peer):
        asking = soon(client.ping())
        request = await link.expect("Ping")
        for _ in range(3):
            link.send_raw(frame(command, b"nobody knows me!", b"\xff\xff\xff"))
        link.reply(request)
        await asking
        assert caplog.text.count(f"0x{command:02X}") == 1
        assert client.stats().unknown_frames == 3
        assert peer.connections == 1


async def test_proto_06_unknown_command_as_a_reply() -> None:
    async with connected() as (client, link, _):
        asking = soon(client.ping())
        request = await link.expect("Ping")
        link.send_raw(frame(0xBD, request.id))
        with pytest.raises(errors.UnexpectedCommand, match="0xBD"):
            await asking


# --- replies that cannot be read ---

BROKEN = {
    "varint without end": b"\x08" + b"\xff" * 11,
    "cut inside a varint": b"\x08\xff",
    "length past the end": b"\x12\x7fabc",
    "wrong wire type": b"\x0d1234",
    "field number 0": b"\x00\x00",
    "text that is not UTF-8": b"\x12\x02\xc3\x28",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_proto_06_broken_protobuf(body: bytes) -> None:
    async with connected() as (client, link, peer):
        victim = soon(client.publish_event("s", "t"))
        others = [soon(client.publish_event("other", "t")), soon(client.get("other"))]
        request = await link.expect("WriteEvents")
        sent = [await link.receive(), await link.receive()]
        link.send("WriteEventsCompleted", request.id, body)

        with pytest.raises(errors.PayloadUnreadable) as caught:
            await victim
        assert isinstance(caught.value, errors.ProtocolError)
        assert isinstance(caught.value, errors.ConversationException)
        assert caught.value.conversation_id == UUID(bytes_le=request.id)
        assert caught.value.offset is not None
        await link.closed()

        again = await peer.accept_and_greet()
        async with serving(again, reply_to) as requests:
            await asyncio.gather(*others)
        assert [r.payload for r in requests] == [r.payload for r in sent]
        assert {r.id for r in requests}.isdisjoint(r.id for r in sent)


@pytest.mark.parametrize(
    "body", [b"\x08\xff", b"\x08\x02\x12\x02\xff\xff"], ids=["reply", "leader"]
)
async def test_broken_not_handled(body: bytes) -> None:
    async with connected() as (client, link, peer):
        victim = soon(client.ping())
        request = await link.expect("Ping")
        link.send("NotHandled", request.id, body)
        with pytest.raises(errors.PayloadUnreadable):
            await victim
        await peer.accept_and_greet()


# In the reply to ReadEvent it means that there is no such event.
@pytest.mark.parametrize("command", [n for n in CALLS if n.startswith(("ReadStream", "ReadAll"))])
async def test_item_without_event_and_link(command: str) -> None:
    async with connected() as (client, link, peer):
        victim = soon(CALLS[command](client))
        request = await link.expect(command)
        items: list[dict[str, Any]] = [{"event": record("s", 0)}, {}]
        link.reply(request, events=items)
        with pytest.raises(errors.PayloadUnreadable, match="neither"):
            await victim
        await peer.accept_and_greet()


@pytest.mark.parametrize("garbage", [b"\x11\0\0\0", b"\0\0\0\x80", b"\x01\0\0\x04", b"HTTP/1.1"])
async def test_garbage_behind_a_good_reply(garbage: bytes) -> None:
    async with connected() as (client, link, peer):
        first, second = soon(client.ping()), soon(client.get("s"))
        ping = await link.expect("Ping")
        read = await link.expect("ReadStreamEventsForward")
        link.send_raw(reply_to(ping) + garbage)
        await first
        await link.closed()
        again = await peer.accept_and_greet()
        repeated = await again.expect("ReadStreamEventsForward")
        assert repeated.payload == read.payload
        assert repeated.id != read.id
        again.send_raw(stream_page(repeated, events_of("s", 3)))
        assert len(await second) == 3


async def test_reply_above_the_limit() -> None:
    async with connected(max_frame_size=1000, max_attempts=1) as (client, link, peer):
        asking = soon(client.get("s"))
        request = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(request, events_of("s", 1, bytes(1000))))
        with pytest.raises(errors.RetriesLimitReached, match="is not between 18 and 1000"):
            await asking
        await peer.accept_and_greet()
