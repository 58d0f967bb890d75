"""Persistent subscriptions against a scripted server: what is asked of it, and what it can say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from client.groupwire import (
    ACK,
    CONNECT,
    CREATE,
    DELETE,
    DROPPED,
    LEAVE,
    PUSH,
    UPDATE,
    answered,
    confirm,
    consuming,
    push,
    take,
)
from client.peer import connected, eventually, outcome, soon
from client.subscribing import read_into

import fastpump
from fastpump import (
    Client,
    Credential,
    PersistentSubscriptionSettings,
)
from fastpump.exceptions import (
    AccessDenied,
    BadRequest,
    ClientClosed,
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
    SubscriptionCreationFailed,
    SubscriptionFailed,
    UnexpectedCommand,
    UsageError,
)

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
        assert client.stats().unknown_frames == 0


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
