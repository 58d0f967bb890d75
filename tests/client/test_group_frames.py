"""Persistent subscriptions against a scripted server: what they say to it, and what it can say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import pytest
from client.pages import record
from client.peer import Link, Peer, Request, connected, eventually, frame, outcome, reply_to, soon

import fastpump
from fastpump import (
    Client,
    Credential,
    Event,
    NakAction,
    PersistentSubscriptionSettings,
    _answers,
)
from fastpump._dispatcher import Dispatcher
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    ClientClosed,
    ConnectFailed,
    FastpumpError,
    MaximumSubscribersReached,
    NotAuthenticated,
    NotHandled,
    NotReady,
    OperationTimedOut,
    PayloadUnreadable,
    PersistentSubscriptionAlreadyExists,
    PersistentSubscriptionCommandFailed,
    PersistentSubscriptionDeleted,
    PersistentSubscriptionNotFound,
    RetriesLimitReached,
    SubscriptionCreationFailed,
    SubscriptionFailed,
    UnexpectedCommand,
    UsageError,
)
from fastpump.persistent import PersistentSubscription

CONNECT = "ConnectToPersistentSubscription"
CREATE = "CreatePersistentSubscription"
UPDATE = "UpdatePersistentSubscription"
DELETE = "DeletePersistentSubscription"
PUSH = "PersistentSubscriptionStreamEventAppeared"
ACK = "PersistentSubscriptionAckEvents"
NAK = "PersistentSubscriptionNakEvents"
LEAVE = "UnsubscribeFromStream"
DROPPED = "SubscriptionDropped"

REFERENCE_DEFAULTS = {
    "subscription_group_name": "g",
    "event_stream_id": "s",
    "resolve_link_tos": False,
    "start_from": -1,
    "message_timeout_milliseconds": 30000,
    "record_statistics": False,
    "live_buffer_size": 500,
    "read_batch_size": 20,
    "buffer_size": 500,
    "max_retry_count": 10,
    "prefer_round_robin": True,
    "checkpoint_after_time": 2000,
    "checkpoint_max_count": 1000,
    "checkpoint_min_count": 10,
    "subscriber_max_count": 0,
    "named_consumer_strategy": "RoundRobin",
}
PHOTON_PUMPS_DEFAULTS = {
    **REFERENCE_DEFAULTS,
    "resolve_link_tos": True,
    "read_batch_size": 500,
    "buffer_size": 1000,
    "prefer_round_robin": False,
    "subscriber_max_count": 10,
}


def push(request: Request, *numbers: int, retry_count: int = 0) -> bytes:
    """Events n of the stream, pushed to the consumer that connected with the request."""
    return b"".join(
        reply_to(request, PUSH, event={"event": record("s", number)}, retryCount=retry_count)
        for number in numbers
    )


def answered(request: Request) -> list[int]:
    """The numbers of the events that an ack or nak names."""
    assert request.fields["subscription_id"] == "s::g"
    return [int.from_bytes(event_id, "big") for event_id in request.fields["processed_event_ids"]]


async def confirm(link: Link, last: int = -1) -> Request:
    request = await link.expect(CONNECT)
    link.reply(request, last_commit_position=7, subscription_id="s::g", last_event_number=last)
    return request


@asynccontextmanager
async def consuming(
    *, in_flight: int = 10, auto_ack: bool = False, **options: Any
) -> AsyncIterator[tuple[PersistentSubscription, Request, Link, Peer]]:
    """A confirmed consumer of the persistent subscription "g" to "s"."""
    async with connected(**options) as (client, link, peer):
        connecting = soon(
            client.connect_subscription("g", "s", in_flight=in_flight, auto_ack=auto_ack)
        )
        request = await confirm(link)
        yield await connecting, request, link, peer


async def take(subscription: PersistentSubscription, count: int = 1) -> list[Event]:
    return [await anext(subscription.events) for _ in range(count)]


async def read_into(seen: list[int], subscription: PersistentSubscription) -> None:
    async for event in subscription.events:
        seen.append(event.event_number)


async def come_back(link: Link, peer: Peer) -> tuple[Request, Link]:
    """Cut the connection, and let the consumer connect again."""
    await link.cut()
    link = await peer.accept_and_greet()
    return await confirm(link), link


# --- create, update, delete ---


async def test_psub_08_default_settings() -> None:
    async with connected() as (client, link, _):
        creating = soon(client.create_subscription("g", "s"))
        request = await link.expect(CREATE)
        assert request.fields == PHOTON_PUMPS_DEFAULTS
        link.reply(request, result=0, reason="")
        assert await creating is None
        creating = soon(
            client.create_subscription("g", "s", settings=PersistentSubscriptionSettings())
        )
        request = await link.expect(CREATE)
        assert request.fields == REFERENCE_DEFAULTS
        link.reply(request, result=0)
        await creating
        updating = soon(client.update_subscription("g", "s", PersistentSubscriptionSettings()))
        request = await link.expect(UPDATE)
        assert request.fields == REFERENCE_DEFAULTS
        link.reply(request, result=0)
        assert await updating is None
        deleting = soon(client.delete_subscription("g", "s"))
        request = await link.expect(DELETE)
        assert request.fields == {"subscription_group_name": "g", "event_stream_id": "s"}
        link.reply(request, result=0)
        assert await deleting is None


OTHER_FIELDS = {
    "subscription_group_name": "g",
    "event_stream_id": "s",
    "resolve_link_tos": False,
    "start_from": 7,
    "message_timeout_milliseconds": 1,
    "record_statistics": True,
    "live_buffer_size": 2,
    "read_batch_size": 3,
    "buffer_size": 4,
    "max_retry_count": 5,
    "prefer_round_robin": True,
    "checkpoint_after_time": 6,
    "checkpoint_max_count": 8,
    "checkpoint_min_count": 9,
    "subscriber_max_count": 11,
    "named_consumer_strategy": "Pinned",
}


async def test_pp_14_photon_pumps_positions() -> None:
    wanted = uuid4()
    login = Credential("ada", "secret")
    async with connected() as (client, link, _):
        positional = (7, 1, True, 2, 3, 4, 5, True, 6, 8, 9, 11, login, wanted, fastpump.PINNED)
        creating = soon(client.create_subscription("g", "s", False, *positional))
        request = await link.expect(CREATE)
        assert request.fields == OTHER_FIELDS
        assert request.id == wanted.bytes_le
        assert (request.login, request.password) == ("ada", "secret")
        link.reply(request, result=0)
        await creating
        acting = client.acting_as(("bob", "other"))
        creating = soon(acting.create_subscription("g", "s", credential=login))
        request = await link.expect(CREATE)
        assert (request.login, request.fields) == ("ada", PHOTON_PUMPS_DEFAULTS)
        link.reply(request, result=0)
        await creating


async def test_settings_in_seconds() -> None:
    settings = PersistentSubscriptionSettings(
        resolve_links=False,
        start_from=7,
        message_timeout=0.0001,  # not 0, which means never
        record_statistics=True,
        live_buffer_size=2,
        read_batch_size=3,
        buffer_size=4,
        max_retry_count=5,
        checkpoint_after=0.006,
        checkpoint_max_count=8,
        checkpoint_min_count=9,
        subscriber_max_count=11,
        consumer_strategy=fastpump.PINNED,
        prefer_round_robin=True,
    )
    async with connected() as (client, link, _):
        updating = soon(client.update_subscription("g", "s", settings))
        request = await link.expect(UPDATE)
        assert request.fields == OTHER_FIELDS
        link.reply(request, result=0)
        await updating
        settings = PersistentSubscriptionSettings(
            message_timeout=0, checkpoint_after=2147483.647, consumer_strategy=""
        )
        updating = soon(client.update_subscription("g", "s", settings))
        request = await link.expect(UPDATE)
        assert request.fields["message_timeout_milliseconds"] == 0
        assert request.fields["checkpoint_after_time"] == 2147483647
        assert request.fields["named_consumer_strategy"] == ""
        link.reply(request, result=0)
        await updating


def change(name: str) -> Callable[[Client], Awaitable[None]]:
    return {
        CREATE: lambda client: client.create_subscription("g", "s"),
        UPDATE: lambda client: client.update_subscription(
            "g", "s", PersistentSubscriptionSettings()
        ),
        DELETE: lambda client: client.delete_subscription("g", "s"),
    }[name]


@pytest.mark.parametrize(
    ("command", "result", "kind", "text"),
    [
        (CREATE, 1, PersistentSubscriptionAlreadyExists, "'s::g' exists already"),
        (CREATE, 2, SubscriptionCreationFailed, "'s::g' was not created: because"),
        (CREATE, 3, AccessDenied, "CreateGroup: access denied on s::g"),
        (CREATE, 77, SubscriptionCreationFailed, "because"),
        (UPDATE, 1, PersistentSubscriptionNotFound, "'s::g' does not exist"),
        (UPDATE, 2, PersistentSubscriptionCommandFailed, "'s::g': because"),
        (UPDATE, 3, AccessDenied, "UpdateGroup: access denied on s::g"),
        (UPDATE, 77, PersistentSubscriptionCommandFailed, "because"),
        (DELETE, 1, PersistentSubscriptionNotFound, "'s::g' does not exist"),
        (DELETE, 2, PersistentSubscriptionCommandFailed, "'s::g': because"),
        (DELETE, 3, AccessDenied, "DeleteGroup: access denied on s::g"),
    ],
)
async def test_pp_14_psub_01_refused(
    command: str, result: int, kind: type[FastpumpError], text: str
) -> None:
    async with connected() as (client, link, _):
        changing = soon(change(command)(client))
        link.reply(await link.expect(command), result=result, reason="because")
        error = await outcome(changing)
        assert type(error) is kind
        assert text in str(error)
        if hasattr(error, "subscription"):
            assert error.subscription == "s::g"
        if command == CREATE and result != 3:
            assert isinstance(error, SubscriptionCreationFailed), "what photon-pump raises"


@pytest.mark.parametrize("command", [CREATE, UPDATE, DELETE])
async def test_refused_without_a_reason(command: str) -> None:
    async with connected() as (client, link, _):
        changing = soon(change(command)(client))
        link.reply(await link.expect(command), result=2)
        assert "result 2" in str(await outcome(changing))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("name", ""),
        ("name", None),
        ("stream", ""),
        ("stream", None),
        ("start_from", -2),
        ("start_from", 2**63),
        ("timeout_ms", -1),
        ("timeout_ms", 2**31),
        ("timeout_ms", 0.5),
        ("live_buffer_size", -1),
        ("read_batch_size", -1),
        ("buffer_size", 2**31),
        ("max_retry_count", -1),
        ("checkpoint_after_ms", -1),
        ("checkpoint_after_ms", 2**31),
        ("checkpoint_max_count", -1),
        ("checkpoint_min_count", -1),
        ("subscriber_max_count", -1),
        ("resolve_links", 1),
        ("name", "\ud800"),
        ("stream", "\ud800"),
        ("consumer_strategy", None),
        ("consumer_strategy", "\ud800"),
        ("conversation_id", "7"),
        ("credential", "admin"),
        ("settings", {}),
    ],
)
async def test_psub_03_05_arguments_of_create(argument: str, value: Any) -> None:
    async with connected() as (client, link, _):
        arguments = {"name": "g", "stream": "s", argument: value}
        with pytest.raises(UsageError, match=f"^{argument}: ") as caught:
            await client.create_subscription(**arguments)
        assert caught.value.argument == argument
        await link.nothing_more()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("message_timeout", -1),
        ("message_timeout", 2147483.648),
        ("message_timeout", float("nan")),
        ("message_timeout", "30"),
        ("checkpoint_after", -0.001),
        ("checkpoint_after", 2147483.648),
        ("start_from", -2),
        ("buffer_size", -1),
        ("max_retry_count", 1.5),
        ("prefer_round_robin", "yes"),
    ],
)
def test_psub_05_settings_are_checked_by_name(argument: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{argument}: "):
        PersistentSubscriptionSettings(**{argument: value})


async def test_settings_one_by_one_or_all_at_once() -> None:
    async with connected() as (client, link, _):
        with pytest.raises(UsageError, match="settings: takes the place of single ones"):
            await client.create_subscription(
                "g", "s", start_from=0, settings=PersistentSubscriptionSettings()
            )
        with pytest.raises(UsageError, match="settings: "):
            await client.update_subscription("g", "s", {})  # type: ignore[arg-type]
        await link.nothing_more()


# --- connect ---


async def test_pp_14_connect() -> None:
    async with connected() as (client, link, _):
        wanted = uuid4()
        connecting = soon(client.connect_subscription("g", "s", wanted))
        request = await confirm(link, last=4)
        assert request.fields == {
            "subscription_id": "g",
            "event_stream_id": "s",
            "allowed_in_flight_messages": 10,
        }
        assert request.id == wanted.bytes_le
        async with await connecting as subscription:
            assert (subscription.name, subscription.stream) == ("s::g", "s")
            assert (subscription.last_event_number, subscription.initial_commit_position) == (4, 7)
            assert (subscription.in_flight, subscription.buffer_size) == (10, 10)
            assert subscription.conversation_id == wanted
            assert subscription.auto_ack is False
            assert repr(subscription) == "<PersistentSubscription s::g, connected>"
        assert subscription.conversation_id is None
        assert repr(subscription) == "<PersistentSubscription s::g, over>"


async def test_in_flight_is_not_fixed_at_ten() -> None:
    async with consuming(in_flight=321) as (subscription, request, _, _):
        assert request.fields["allowed_in_flight_messages"] == 321
        assert subscription.in_flight == 321


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("subscription", ""),
        ("subscription", None),
        ("subscription", "\ud800"),
        ("stream", ""),
        ("in_flight", 0),
        ("in_flight", -1),
        ("in_flight", 2**31),
        ("in_flight", 1.5),
        ("conversation_id", UUID(int=0)),
    ],
)
async def test_psub_12_arguments_of_connect(argument: str, value: Any) -> None:
    async with connected() as (client, link, _):
        arguments = {"subscription": "g", "stream": "s", argument: value}
        with pytest.raises(UsageError, match=f"^{argument}: "):
            await client.connect_subscription(**arguments)
        await link.nothing_more()


async def test_not_connected() -> None:
    client = fastpump.connect()
    for call in (
        client.create_subscription("g", "s"),
        client.update_subscription("g", "s", PersistentSubscriptionSettings()),
        client.delete_subscription("g", "s"),
        client.connect_subscription("g", "s"),
    ):
        with pytest.raises(ClientClosed):
            await call


@pytest.mark.parametrize(
    ("command", "fields", "kind"),
    [
        (DROPPED, {"reason": 0}, SubscriptionCreationFailed),
        (DROPPED, {"reason": 1}, AccessDenied),
        (DROPPED, {"reason": 2}, PersistentSubscriptionNotFound),
        (DROPPED, {"reason": 3}, SubscriptionCreationFailed),
        (DROPPED, {"reason": 4}, MaximumSubscribersReached),
        (DROPPED, {"reason": 77}, SubscriptionCreationFailed),
        ("BadRequest", {}, BadRequest),
        ("NotAuthenticated", {}, NotAuthenticated),
        ("NotHandled", {"reason": 9}, NotHandled),
        ("Pong", {}, UnexpectedCommand),
        (PUSH, {"event": {"event": {}}}, UnexpectedCommand),
    ],
)
async def test_psub_09_pp_15_refused(
    command: str, fields: dict[str, Any], kind: type[FastpumpError]
) -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        link.reply(await link.expect(CONNECT), command, **fields)
        error = await outcome(connecting)
        assert type(error) is kind
        assert getattr(error, "subscription", "s::g") == "s::g"
        await link.nothing_more()  # nothing to unsubscribe from


@pytest.mark.parametrize(
    ("command", "fields", "kind"),
    [
        (DROPPED, {"reason": 0}, None),
        (DROPPED, {}, None),
        (DROPPED, {"reason": 1}, AccessDenied),
        (DROPPED, {"reason": 2}, SubscriptionFailed),
        (DROPPED, {"reason": 3}, PersistentSubscriptionDeleted),
        (DROPPED, {"reason": 4}, SubscriptionFailed),
        (DROPPED, {"reason": 77}, SubscriptionFailed),
    ],
)
async def test_psub_06_07_pp_15_dropped(
    command: str, fields: dict[str, Any], kind: type[FastpumpError] | None
) -> None:
    async with consuming() as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, 0, 1))
            [first] = await take(subscription)
            link.reply(request, command, **fields)
            await eventually(lambda: "over" in repr(subscription))
            seen: list[int] = []
            error = await outcome(read_into(seen, subscription))
            assert type(error) is (type(None) if kind is None else kind)
            assert seen == [], "what waits could not be acknowledged any more"
            await subscription.ack(first)
            assert [event async for event in subscription.events] == []
        await link.nothing_more()  # nothing to unsubscribe from, nothing to acknowledge


@pytest.mark.parametrize(
    ("command", "fields", "kind"),
    [
        ("BadRequest", {}, BadRequest),
        ("NotAuthenticated", {}, NotAuthenticated),
        ("NotHandled", {"reason": 0}, NotReady),
        ("Pong", {}, UnexpectedCommand),
    ],
)
async def test_failed_while_the_server_keeps_the_consumer(
    command: str, fields: dict[str, Any], kind: type[FastpumpError]
) -> None:
    """An answer that the server does not like comes back to the subscription's id."""
    async with consuming() as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, 0, 1, 2))
            await subscription.ack((await take(subscription))[0])
            link.reply(request, command, **fields)
            assert type(await outcome(take(subscription, 3))) is kind
        assert answered(await link.expect(ACK)) == [0]
        assert (await link.expect(LEAVE)).id == request.id
        await link.nothing_more()


@pytest.mark.parametrize("reason", [0, 1])
async def test_not_handled_before_the_confirmation(reason: int) -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        first = await link.expect(CONNECT)
        link.reply(first, "NotHandled", reason=reason)
        request = await confirm(link)
        assert request.id != first.id
        subscription = await connecting
        assert subscription.conversation_id == UUID(bytes_le=request.id)
        link.send_raw(push(request, 0))
        await subscription.ack(await take(subscription))
        assert (await link.expect(ACK)).id == request.id
        await subscription.unsubscribe()
        assert (await link.expect(LEAVE)).id == request.id


async def test_confirmed_twice() -> None:
    async with consuming() as (subscription, request, link, _):
        link.reply(request, last_commit_position=9, subscription_id="other", last_event_number=9)
        link.send_raw(push(request, 0))
        assert [event.event_number for event in await take(subscription)] == [0]
        assert (subscription.name, subscription.last_event_number) == ("s::g", -1)


async def test_no_confirmation_in_time() -> None:
    options = {"operation_timeout": 0.2, "fail_on_no_response": True}
    async with connected(**options) as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        request = await link.expect(CONNECT)
        assert isinstance(await outcome(connecting), OperationTimedOut)
        assert (await link.expect(LEAVE)).id == request.id, "it may have been heard"
        await link.nothing_more()


async def test_cancelled_before_the_confirmation() -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        request = await link.expect(CONNECT)
        connecting.cancel()
        await asyncio.wait({connecting})
        assert (await link.expect(LEAVE)).id == request.id
        link.reply(request, subscription_id="s::g")
        link.send_raw(push(request, 0))
        link.reply(request, DROPPED, reason=0)
        await link.nothing_more()
        assert isinstance(client._dispatcher, Dispatcher)
        assert client._dispatcher.unknown_frames == 0


@pytest.mark.parametrize("garbage", [b"\x0a\xff", b"", b"\x0a\x00", b"\x10\x01"])
async def test_unreadable_push(garbage: bytes) -> None:
    async with consuming() as (subscription, request, link, peer):
        link.send(PUSH, request.id, garbage)
        assert isinstance(await outcome(take(subscription)), PayloadUnreadable)
        await (await peer.accept_and_greet()).nothing_more()


@pytest.mark.parametrize("garbage", [b"\x0a\xff", b"", b"\x08\x07\x12\x00"])
async def test_unreadable_confirmation(garbage: bytes) -> None:
    """Without the name that events are answered under it is of no use."""
    async with connected() as (client, link, peer):
        connecting = soon(client.connect_subscription("g", "s"))
        request = await link.expect(CONNECT)
        link.send("PersistentSubscriptionConfirmation", request.id, garbage)
        assert isinstance(await outcome(connecting), PayloadUnreadable)
        await (await peer.accept_and_greet()).nothing_more()


# --- answers ---


async def test_acks_go_in_few_frames() -> None:
    """photon-pump sends one for each event."""
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(100)))
        for event in await take(subscription, 100):
            await subscription.ack(event)
        ack = await link.expect(ACK)
        assert ack.id == request.id
        assert answered(ack) == list(range(100))
        await link.nothing_more()


async def test_acks_in_a_loop_that_does_not_wait() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(100)))
        async for event in subscription.events:
            await subscription.ack(event)
            if event.event_number == 99:
                break
        assert answered(await link.expect(ACK)) == list(range(100))
        await link.nothing_more()


async def test_acks_in_a_loop_that_waits() -> None:
    """Those of half the limit go together: the server should not run out of slots."""
    async with consuming(in_flight=8) as (subscription, request, link, _):
        link.send_raw(push(request, *range(8)))
        frames = []
        async for event in subscription.events:
            await subscription.ack(event)
            await asyncio.sleep(0)
            if event.event_number == 7:
                break
        while sum(map(len, frames)) < 8:
            frames.append(answered(await link.expect(ACK)))
        assert list(chain(*frames)) == list(range(8))
        assert len(frames) <= 3


async def test_acks_of_half_the_limit_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_answers, "LONGEST_DELAY", 3600.0)
    async with consuming(in_flight=8) as (subscription, request, link, _):
        link.send_raw(push(request, *range(8)))
        for event in await take(subscription, 3):
            await subscription.ack(event)
        await link.nothing_more()
        await subscription.ack(await take(subscription, 1))
        assert answered(await link.expect(ACK)) == [0, 1, 2, 3]


async def test_ack_that_waits_for_others_is_sent_all_the_same() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await subscription.ack(await take(subscription, 1))
        assert answered(await link.expect(ACK)) == [0]


async def test_psub_25_at_most_2000_ids_in_a_frame() -> None:
    async with consuming(in_flight=5000) as (subscription, request, link, _):
        link.send_raw(push(request, *range(4500)))
        events = await take(subscription, 4500)
        for start in range(0, 4500, 1500):
            await subscription.ack(events[start : start + 1500])
        frames = [answered(await link.expect(ACK)) for _ in range(3)]
        assert [len(ids) for ids in frames] == [2000, 2000, 500]
        assert list(chain(*frames)) == list(range(4500))
        await link.nothing_more()


async def test_ack_of_one_of_many_of_ids_and_of_a_generator() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, *range(7)))
        events = await take(subscription, 7)
        await subscription.ack(events[0])
        await subscription.ack(events[1].id)
        await subscription.ack([events[2], events[3].id])
        await subscription.ack(event for event in events[4:6])
        await subscription.ack(events[6].detach())
        await subscription.ack([])
        assert answered(await link.expect(ACK)) == list(range(7))
        await link.nothing_more()


async def test_pp_14_psub_17_the_link_is_acknowledged() -> None:
    async with consuming() as (subscription, request, link, _):
        resolved = {"event": record("target", 5), "link": record("s", 1)}
        broken = {"link": record("s", 2)}
        for event in (resolved, broken):
            link.reply(request, PUSH, event=event, retryCount=0)
        first, second = await take(subscription, 2)
        assert (first.stream, first.event_number, first.is_resolved) == ("target", 1, True)
        assert (second.event_number, second.is_resolved) == (2, False)
        await subscription.ack([first, second])
        assert answered(await link.expect(ACK)) == [1, 2]


@pytest.mark.parametrize("action", list(NakAction))
async def test_nak(action: NakAction) -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        await subscription.nak(await take(subscription, 2), action, "größer")
        nak = await link.expect(NAK)
        assert nak.id == request.id
        assert answered(nak) == [0, 1]
        assert (nak.fields["action"], nak.fields["message"]) == (action, "größer")


async def test_naks_go_in_a_frame_for_each_reason() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, *range(6)))
        for event in await take(subscription, 6):
            if event.event_number == 5:
                await subscription.ack(event)
            else:
                await subscription.nak(event, NakAction.Park, f"odd {event.event_number % 2}")
        even = await link.expect(NAK)
        odd = await link.expect(NAK)
        assert (answered(even), even.fields["message"]) == ([0, 2, 4], "odd 0")
        assert (answered(odd), odd.fields["message"]) == ([1, 3], "odd 1")
        assert answered(await link.expect(ACK)) == [5]
        await link.nothing_more()


async def test_nak_retries_unless_told_otherwise() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0))
        await subscription.nak(await take(subscription))
        nak = await link.expect(NAK)
        assert (nak.fields["action"], nak.fields["message"]) == (NakAction.Retry, "")


async def test_psub_25_what_cannot_be_answered() -> None:
    async with consuming(in_flight=3000) as (subscription, request, link, _):
        link.send_raw(push(request, *range(2001)))
        events = await take(subscription, 2001)
        stranger = Event(events[0].event)
        for wrong in (None, 7, "an id", events[0].event, [events[0], None], stranger, events):
            with pytest.raises(UsageError, match="events: "):
                await subscription.ack(wrong)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="events: "):
                await subscription.nak(wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="action: "):
            await subscription.nak(events[0], 9)  # type: ignore[arg-type]
        for message in (None, "\ud800", "x" * 65_537):
            with pytest.raises(UsageError, match="message: "):
                await subscription.nak(events[0], NakAction.Park, message)  # type: ignore[arg-type]
        await link.nothing_more()


# --- leaving ---


async def test_pp_15_answers_are_sent_before_it_leaves() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        async with subscription:
            link.send_raw(push(request, *range(4)))
            first, second, _ = await take(subscription, 3)
            await subscription.ack(first)
            await subscription.nak(second, NakAction.Skip)
        assert answered(await link.expect(ACK)) == [0]
        assert answered(await link.expect(NAK)) == [1]
        assert (await link.expect(LEAVE)).id == request.id
        await subscription.unsubscribe()
        await subscription.ack(first)
        await subscription.ack(first.id)
        link.send_raw(push(request, 9))
        link.reply(request, DROPPED, reason=0)
        await link.nothing_more()
        assert [event async for event in subscription.events] == []


async def test_answers_are_sent_before_the_client_closes() -> None:
    async with consuming(in_flight=100) as (subscription, request, link, _):
        link.send_raw(push(request, *range(4)))
        await subscription.ack((await take(subscription, 3))[:2])
    # Leaving the block above has closed the client.
    assert answered(await link.receive()) == [0, 1]
    await link.closed()


async def test_client_closed_while_it_is_open() -> None:
    async with connected() as (client, link, _):
        connecting = soon(client.connect_subscription("g", "s"))
        await confirm(link)
        subscription = await connecting
        waiting = soon(read_into([], subscription))
        await link.nothing_more()
        await client.close()
        assert isinstance(await outcome(waiting), ClientClosed)
        assert [event async for event in subscription.events] == []
        await subscription.unsubscribe()
        await subscription.ack(uuid4())
        assert isinstance(await outcome(client.connect_subscription("g", "s")), ClientClosed)


async def test_waiting_loop_ends_by_unsubscribe() -> None:
    async with consuming() as (subscription, _, link, _):
        reading = soon(read_into([], subscription))
        await link.nothing_more()
        await subscription.unsubscribe()
        await reading
        await link.expect(LEAVE)


async def test_one_loop_at_a_time() -> None:
    async with consuming() as (subscription, request, link, _):
        waiting = soon(read_into([], subscription))
        await link.nothing_more()
        with pytest.raises(UsageError, match="another loop"):
            await take(subscription)
        with pytest.raises(UsageError, match="has a loop"):
            await anext(subscription.slices())
        waiting.cancel()
        await asyncio.wait({waiting})
        link.send_raw(push(request, 0))
        assert [event.event_number for event in await take(subscription)] == [0]


async def test_slices_are_what_waits() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await link.nothing_more()
        batch = await anext(subscription.slices())
        assert [event.event_number for event in batch] == [0, 1, 2]
        await subscription.ack(batch)
        assert answered(await link.expect(ACK)) == [0, 1, 2]


# --- acknowledging automatically ---


async def test_auto_ack_when_the_next_one_is_asked_for() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        assert subscription.auto_ack
        link.send_raw(push(request, 0, 1))
        await take(subscription)
        await link.nothing_more()
        await take(subscription)
        assert answered(await link.expect(ACK)) == [0]
        await link.nothing_more()
        waiting = soon(take(subscription))
        assert answered(await link.expect(ACK)) == [1]
        waiting.cancel()


async def test_auto_ack_of_slices() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        await link.nothing_more()
        await subscription.nak((await anext(subscription.slices()))[1])
        waiting = soon(anext(subscription.slices()))  # type: ignore[arg-type]
        assert answered(await link.expect(NAK)) == [1]
        assert answered(await link.expect(ACK)) == [0, 2]
        waiting.cancel()


@pytest.mark.parametrize("by_id", [False, True])
async def test_auto_ack_not_of_what_was_answered(by_id: bool) -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        async for event in subscription.events:
            if event.event_number == 0:
                await subscription.nak(event.id if by_id else event, NakAction.Park)
            else:
                break
        assert answered(await link.expect(NAK)) == [0]
        await link.nothing_more()


async def test_psub_26_auto_ack_not_of_what_failed() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2))
        for failing in (0, 1):
            with pytest.raises(ZeroDivisionError):
                async for event in subscription.events:
                    assert event.event_number == failing
                    1 / 0  # noqa: B018
        async for event in subscription.events:
            assert event.event_number == 2
            break
        await link.nothing_more()  # none was acknowledged, though another one was asked for
        await subscription.unsubscribe()
        await link.expect(LEAVE)


async def test_auto_ack_not_of_what_was_cancelled() -> None:
    async with consuming(auto_ack=True) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1))
        reached = asyncio.Event()

        async def consume() -> None:
            async with subscription:
                async for event in subscription.events:
                    if event.event_number == 1:
                        reached.set()
                        await asyncio.Event().wait()

        consumer = soon(consume())
        await reached.wait()
        consumer.cancel()
        await asyncio.wait({consumer})
        assert answered(await link.expect(ACK)) == [0]
        await link.expect(LEAVE)
        await link.nothing_more()


# --- bounded memory ---


async def test_memory_is_bounded_by_the_limit() -> None:
    """Of more events than the limit the server has given up the oldest, and sends them again."""
    async with consuming(in_flight=4) as (subscription, request, link, _):
        link.send_raw(push(request, 0, 1, 2, 3))
        for retry in range(1, 100):
            link.send_raw(push(request, 0, 1, 2, 3, retry_count=retry))
        link.send_raw(push(request, 4, 5))
        await link.nothing_more()
        events = await take(subscription, 4)
        assert [(e.event_number, e.retry_count) for e in events] == [
            (2, 99),
            (3, 99),
            (4, 0),
            (5, 0),
        ]
        waiting = soon(take(subscription))
        await link.nothing_more()
        assert not waiting.done()
        waiting.cancel()


async def test_other_operations_go_on_beside_a_consumer_that_stands_still() -> None:
    async with consuming(in_flight=2) as (_, request, link, peer):
        link.send_raw(push(request, *range(1000)))
        await link.nothing_more()
        assert peer.connections == 1


# --- reconnects ---


async def test_psub_31_pp_14_it_connects_again_by_itself() -> None:
    async with consuming() as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1))
        seen: list[tuple[int, int]] = []

        async def consume() -> None:
            async for event in subscription.events:
                seen.append((event.event_number, event.retry_count))
                if event.retry_count == 1:
                    await subscription.ack(event)

        consumer = soon(consume())
        await eventually(lambda: len(seen) == 2)
        second, link = await come_back(link, peer)
        assert second.fields == first.fields
        assert second.id != first.id
        link.send_raw(push(second, 0, 1, retry_count=1))
        ack = await link.expect(ACK)
        assert (ack.id, answered(ack)) == (second.id, [0, 1])
        assert seen == [(0, 0), (1, 0), (0, 1), (1, 1)]
        assert subscription.conversation_id == UUID(bytes_le=second.id)
        await subscription.unsubscribe()
        await consumer
        assert (await link.expect(LEAVE)).id == second.id


async def test_psub_31_acks_of_the_old_connection_are_not_sent() -> None:
    async with consuming(in_flight=100) as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1, 2))
        old = await take(subscription, 2)
        await link.cut()
        await subscription.ack(old[0])  # gathered, or too late
        link = await peer.accept_and_greet()
        await subscription.ack(old)
        await subscription.nak(old[1].id)
        second = await confirm(link)
        await link.nothing_more()
        link.send_raw(push(second, 0, 1, retry_count=1))
        new = await take(subscription, 2)
        await subscription.ack(old)
        await subscription.nak(old)
        await link.nothing_more()
        await subscription.ack(new[0])
        await subscription.ack(new[1].id)
        ack = await link.expect(ACK)
        assert (ack.id, answered(ack)) == (second.id, [0, 1])
        await link.nothing_more()


async def test_what_waited_is_not_given_out_after_a_cut() -> None:
    async with consuming() as (subscription, first, link, peer):
        link.send_raw(push(first, 0, 1))
        await link.nothing_more()
        second, link = await come_back(link, peer)
        link.send_raw(push(second, 0, 1, 2, retry_count=1))
        events = await take(subscription, 3)
        assert [(event.event_number, event.retry_count) for event in events] == [
            (0, 1),
            (1, 1),
            (2, 1),
        ]


async def test_auto_ack_over_a_cut() -> None:
    async with consuming(auto_ack=True) as (subscription, first, link, peer):
        link.send_raw(push(first, 0))
        await take(subscription)
        second, link = await come_back(link, peer)
        link.send_raw(push(second, 0, 1, retry_count=1))
        await take(subscription, 2)
        assert answered(await link.expect(ACK)) == [0]  # of the second delivery
        await link.nothing_more()


async def test_many_cuts_while_it_connects() -> None:
    async with consuming(max_attempts=2) as (subscription, _, link, peer):
        for _ in range(5):
            await link.cut()
            link = await peer.accept_and_greet()
            await link.expect(CONNECT)
        request, link = await come_back(link, peer)
        link.send_raw(push(request, 7))
        assert [event.event_number for event in await take(subscription)] == [7]


async def test_cut_before_the_first_confirmation() -> None:
    async with connected() as (client, link, peer):
        connecting = soon(client.connect_subscription("g", "s"))
        first = await link.expect(CONNECT)
        await link.cut()
        link = await peer.accept_and_greet()
        second = await confirm(link)
        assert first.id != second.id
        assert (await connecting).conversation_id == UUID(bytes_le=second.id)


async def test_psub_07_deleted_while_it_was_away() -> None:
    async with consuming() as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept_and_greet()
        link.reply(await link.expect(CONNECT), DROPPED, reason=2)
        assert isinstance(await outcome(waiting), PersistentSubscriptionNotFound)
        assert [event async for event in subscription.events] == []


async def test_its_own_ghost_takes_its_place_for_a_while() -> None:
    """The server may not have noticed yet that the old connection is gone."""
    async with consuming() as (subscription, _, link, peer):
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(3):
            link.reply(await link.expect(CONNECT), DROPPED, reason=4)
        request = await confirm(link)
        link.send_raw(push(request, 0))
        assert [event.event_number for event in await take(subscription)] == [0]
        link.reply(request, DROPPED, reason=0)
        assert [event async for event in subscription.events] == []
        await subscription.unsubscribe()
        await link.nothing_more()


async def test_its_place_is_taken_by_another_one() -> None:
    async with consuming(max_attempts=2) as (subscription, _, link, peer):
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(2):
            link.reply(await link.expect(CONNECT), DROPPED, reason=4)
        error = await outcome(take(subscription))
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, MaximumSubscribersReached)


async def test_no_way_back() -> None:
    async with consuming(max_reconnects=1) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        peer._server.close()
        await link.cut()
        assert isinstance(await outcome(waiting), ConnectFailed)


async def test_outage_longer_than_an_operation_may_take() -> None:
    async with consuming(operation_timeout=0.2, max_reconnects=-1) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept()  # and no handshake
        await asyncio.sleep(0.5)
        await link.cut()
        link = await peer.accept_and_greet()
        link.send_raw(push(await confirm(link), 3))
        assert [event.event_number for event in await waiting] == [3]


async def test_no_confirmation_after_a_cut() -> None:
    async with consuming(operation_timeout=0.2, max_attempts=2) as (subscription, _, link, peer):
        waiting = soon(take(subscription))
        await link.cut()
        link = await peer.accept_and_greet()
        for _ in range(2):
            request = await link.expect(CONNECT)
            assert (await link.expect(LEAVE)).id == request.id, "it may have been heard"
        error = await outcome(waiting)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, OperationTimedOut)
        await link.nothing_more()


async def test_unsubscribed_while_the_connection_is_gone() -> None:
    async with consuming() as (subscription, request, link, peer):
        link.send_raw(push(request, 0))
        [event] = await take(subscription)
        await link.cut()
        link = await peer.accept()
        assert subscription.conversation_id is None
        assert repr(subscription) == "<PersistentSubscription s::g, connecting>"
        await subscription.ack(event)
        await subscription.unsubscribe()
        await link.handshake()
        await link.nothing_more()


async def test_pushes_cut_at_every_byte() -> None:
    whole = push(Request(CONNECT, 0, bytes(16), b""), 0, 1)
    async with consuming() as (subscription, request, link, peer):
        for cut in range(0, len(whole), 7):
            link.send_raw(push(request, 0, 1)[:cut])
            request, link = await come_back(link, peer)
        link.send_raw(push(request, 8, 9))
        seen = [event.event_number for event in await take(subscription, 2)]
        while seen[-2:] != [8, 9]:
            seen += [event.event_number for event in await take(subscription)]
        assert set(seen[:-2]) <= {0, 1}


async def test_push_in_single_bytes() -> None:
    async with consuming() as (subscription, request, link, _):
        for byte in push(request, 0, 1, retry_count=2):
            link.send_raw(bytes([byte]))
            await asyncio.sleep(0)
        events = await take(subscription, 2)
        assert [(event.event_number, event.retry_count) for event in events] == [(0, 2), (1, 2)]


async def test_heartbeats_beside_it() -> None:
    async with consuming() as (subscription, request, link, _):
        link.send_raw(frame("HeartbeatRequest", bytes(16)) + push(request, 0))
        assert (await link.receive(heartbeats=True)).command == "HeartbeatResponse"
        await take(subscription)
