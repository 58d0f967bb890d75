"""Programs written for photon-pump 0.9.5.2 run with fastpump in its place.

Its public callables are those of its documentation and what these return and raise; what moves
bytes inside it (Connector, MessageReader, InboundMessage, …) is not among them. Only two of its
errors are made in another way, PayloadUnreadable and UnexpectedCommand; nobody but the client does.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from acceptance.scenes import node_and_admin

import fastpump as photonpump
import fastpump.server
from fastpump import exceptions, messages
from fastpump.messages import NewEvent, StreamDirection

# --- signatures ---

# Facts from photon-pump's source archive, by its modules: parameters in their order, with their
# defaults. 0 as a direction is StreamDirection.Forward.
SIGNATURES = {
    "connection.connect": "host='localhost', port=1113, discovery_host=None, discovery_port=2113,"
    "username=None, password=None, loop=None, name=None, selector='select_random',"
    "retry_policy=None",
    "connection.Client.connect": "",
    "connection.Client.close": "",
    "connection.Client.ping": "conversation_id=None",
    "connection.Client.publish_event": "stream, type, body=None, id=None, metadata=None,"
    "expected_version=-2, require_master=False",
    "connection.Client.publish": "stream, events, expected_version=-2, require_master=False",
    "connection.Client.get_event": "stream, event_number, resolve_links=True,"
    "require_master=False, correlation_id=None",
    "connection.Client.get": "stream, direction=0, from_event=0, max_count=100,"
    "resolve_links=True, require_master=False, correlation_id=None",
    "connection.Client.get_all": "direction=0, from_position=None, max_count=100,"
    "resolve_links=True, require_master=False, correlation_id=None",
    "connection.Client.iter": "stream, direction=0, from_event=None, batch_size=100,"
    "resolve_links=True, require_master=False, correlation_id=None",
    "connection.Client.iter_all": "direction=0, from_position=None, batch_size=100,"
    "resolve_links=True, require_master=False, correlation_id=None",
    "connection.Client.subscribe_to": "stream, start_from=-1, resolve_link_tos=True,batch_size=100",
    "connection.Client.create_subscription": "name, stream, resolve_links=True, start_from=-1,"
    "timeout_ms=30000, record_statistics=False, live_buffer_size=500, read_batch_size=500,"
    "buffer_size=1000, max_retry_count=10, prefer_round_robin=False, checkpoint_after_ms=2000,"
    "checkpoint_max_count=1000, checkpoint_min_count=10, subscriber_max_count=10, credential=None,"
    "conversation_id=None, consumer_strategy='RoundRobin'",
    "connection.Client.connect_subscription": "subscription, stream, conversation_id=None",
    "discovery.prefer_master": "nodes",
    "discovery.prefer_replica": "nodes",
    "discovery.select_random": "nodes",
    "discovery.select": "gossip, selector=None",
    "discovery.NodeService": "address, port, secure_port",
    "discovery.DiscoveredNode": "state, is_alive, internal_tcp, external_tcp, internal_http,"
    "external_http",
    "discovery.DiscoveryStats": "node, attempts, successes, failures, consecutive_failures",
    "discovery.Stats.record_success": "node",
    "discovery.Stats.record_failure": "node",
    "discovery.DiscoveryRetryPolicy": "retries_per_node=3, retry_interval=0.5, jitter=0.5,"
    "multiplier=1.5, max_interval=60",
    "discovery.DiscoveryRetryPolicy.should_retry": "node",
    "discovery.DiscoveryRetryPolicy.record_success": "node",
    "discovery.DiscoveryRetryPolicy.record_failure": "node",
    "messages.Credential": "username, password",
    "messages.Header": "size, cmd, flags, correlation_id, username=None, password=None",
    "messages.NewEvent": "type, id=None, data=None, metadata=None",
    "messages.Position": "commit, prepare",
    "messages.Position.for_direction": "direction, pos",
    "exceptions.ConversationException": "conversation_id, message",
    "exceptions.StreamNotFound": "conversation_id, stream",
    "exceptions.StreamDeleted": "conversation_id, stream",
    "exceptions.ReadError": "conversation_id, stream, error",
    "exceptions.AccessDenied": "conversation_id, type, error",
    "exceptions.EventNotFound": "conversation_id, stream, event_number",
    "exceptions.MessageUnhandled": "conversation_id, message, reason",
    "exceptions.NotReady": "conversation_id",
    "exceptions.TooBusy": "conversation_id",
    "exceptions.NotMaster": "conversation_id",
    "exceptions.NotHandled": "conversation_id, reason",
}


SAME_BY_ANOTHER_DEFAULT = {
    # photon-pump took 0 for "not given": when reading backwards that is the end.
    ("from_event", 0): None,
    # What the client was made with, which is False by default.
    ("require_master", False): None,
    ("secure_port", inspect.Parameter.empty): None,
    ("selector", "select_random"): fastpump.discovery.select_random,
}


def parameters_in(text: str) -> list[tuple[str, Any]]:
    """Names and defaults; a parameter without a default has `inspect.Parameter.empty`."""
    (function,) = ast.parse(f"def f({text}): ...").body
    assert isinstance(function, ast.FunctionDef)
    names = [argument.arg for argument in function.args.args]
    defaults = [ast.literal_eval(default) for default in function.args.defaults]
    required = len(names) - len(defaults)
    return list(zip(names, [inspect.Parameter.empty] * required + defaults, strict=True))


def named(path: str) -> Any:
    found: Any = photonpump
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_pp_01_parameters_their_order_and_defaults(path: str) -> None:
    """What fastpump has beyond them comes behind them, or by name only, and need not be given."""
    wanted = [
        (name, SAME_BY_ANOTHER_DEFAULT.get((name, default), default))
        for name, default in parameters_in(SIGNATURES[path])
    ]
    ours = list(inspect.signature(named(path)).parameters.values())
    if ours and ours[0].name == "self":
        del ours[0]
    shared, more = ours[: len(wanted)], ours[len(wanted) :]
    assert [(parameter.name, parameter.default) for parameter in shared] == wanted
    assert all(parameter.kind == parameter.POSITIONAL_OR_KEYWORD for parameter in shared)
    for parameter in more:
        assert parameter.default != parameter.empty or parameter.kind == parameter.VAR_POSITIONAL


ID = UUID(int=7)
RECORD = messages.EventRecord("s", ID, 3, "t", b"data", b"metadata", None)
EVENT = messages.Event(RECORD, None, messages.Position(5, 4))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (messages.NewEventData, {"id": ID, "type": "t", "data": {"n": 1}, "metadata": None}),
        (
            messages.EventRecord,
            {
                "stream": "s",
                "id": ID,
                "event_number": 3,
                "type": "t",
                "data": b"data",
                "metadata": b"metadata",
                "created": None,
            },
        ),
        (messages.Event, {"event": RECORD, "link": RECORD, "position": (5, 4)}),
        (
            messages.StreamSlice,
            {
                "events": [EVENT],
                "next_event_number": 4,
                "last_event_number": 9,
                "prepare_position": None,
                "commit_position": 17,
                "is_end_of_stream": True,
            },
        ),
        (
            messages.AllStreamSlice,
            {"events": [EVENT], "position": (5, 5), "next_position": (6, 6)},
        ),
    ],
)
def test_pp_16_parameters_and_attributes_of_what_comes_back(
    kind: Callable[..., Any], values: dict[str, Any]
) -> None:
    """They are made in C, where signatures are not to be seen: given by place and by name."""
    renamed = {"position": "start_position"} if kind is messages.AllStreamSlice else {}
    for made in (kind(*values.values()), kind(**values)):
        for name, value in values.items():
            found = getattr(made, renamed.get(name, name))
            assert (list(found) if name == "events" else found) == value, name


# --- names ---

NAMES = {
    "connection": "Client connect",
    "discovery": "DiscoveredNode DiscoveryFailed DiscoveryRetryPolicy DiscoveryStats KEEP_RETRYING"
    " NodeService NodeState Stats prefer_master prefer_replica select_random",
    "exceptions": "AccessDenied BadRequest ConversationException EventNotFound MessageUnhandled"
    " NotAuthenticated NotHandled NotMaster NotReady PayloadUnreadable PhotonPumpException"
    " ReadError StreamDeleted StreamNotFound SubscriptionCreationFailed SubscriptionFailed TooBusy"
    " UnexpectedCommand",
    "messages": "AllStreamSlice Beginning ContentType Credential DISPATCH_TO_SINGLE End Event"
    " EventRecord ExpectedVersion Header NewEvent NewEventData NotHandledReason OperationFlags"
    " OperationResult PINNED Position ROUND_ROBIN ReadAllResult ReadEventResult ReadStreamResult"
    " StreamDirection StreamSlice SubscriptionDropReason SubscriptionResult TcpCommand",
}


@pytest.mark.parametrize("module", NAMES)
def test_what_can_be_imported(module: str) -> None:
    """From the module, and but for discovery from the package itself as well."""
    for name in NAMES[module].split():
        found = getattr(named(module), name)
        if module != "discovery":
            assert getattr(photonpump, name) is found


def test_errors_are_caught_by_the_names_above_them() -> None:
    for name in NAMES["exceptions"].split():
        kind = getattr(exceptions, name)
        assert issubclass(kind, exceptions.PhotonPumpException)
        if name != "PhotonPumpException":
            assert issubclass(kind, exceptions.ConversationException)


# --- programs ---


async def jump(conn: photonpump.Client) -> int:
    """One event there and back."""
    result = await conn.publish_event(
        "ponies", "PonyJumped", body={"Pony": "Derpy Hooves", "Height": 10, "Distance": 13}
    )
    event = await conn.get_event("ponies", result.last_event_number)
    assert event is not None
    assert event.json()["Pony"] == "Derpy Hooves"
    assert (result.commit_position, result.prepare_position) == result.position
    return result.last_event_number


async def test_a_client_in_a_with_block_and_one_of_its_own_lifetime() -> None:
    async with fastpump.server.run() as node:
        async with photonpump.connect(node.host, node.port) as conn:
            await conn.ping()
            assert await jump(conn) == 0
        client = photonpump.connect(host=node.host, port=node.port, name="event-writer")
        await client.connect()
        await client.ping(uuid4())
        assert await jump(client) == 1
        await client.close()


async def test_the_deprecated_loop() -> None:
    with pytest.warns(DeprecationWarning, match="loop"):
        client = photonpump.connect(loop=asyncio.get_running_loop())
    await client.close()


async def test_slices_from_both_ends() -> None:
    async with node_and_admin() as (_, conn):
        names = ["Peculiar Hooves", "Sparkly Hooves", "Sparkly Hooves"]
        jumps = [
            NewEvent("PonyJumped", data={"Pony": name, "Height": 9 + n})
            for n, name in enumerate(names)
        ]
        await conn.publish("more_ponies", jumps)
        all_events = await conn.get("more_ponies")
        assert len(all_events) == 3
        first_event = (await conn.get("more_ponies", max_count=1))[0].json()
        assert first_event["Pony"] == "Peculiar Hooves"
        second_event = (await conn.get("more_ponies", max_count=1, from_event=1))[0].json()
        assert second_event["Pony"] == "Sparkly Hooves"
        backwards = await conn.get("more_ponies", direction=StreamDirection.Backward)
        assert backwards[2].json() == first_event
        assert (backwards.next_event_number, backwards.last_event_number) == (-1, 2)
        assert backwards.is_end_of_stream
        assert list(backwards.events) == list(all_events)[::-1]


async def test_a_ticker_published_from_a_generator() -> None:
    async def ticker(count: int) -> AsyncIterator[messages.NewEventData]:
        for tick in range(count):
            await asyncio.sleep(0)
            yield NewEvent("tick", data={"tick": tick})

    async with node_and_admin() as (_, conn):
        await conn.publish("ticker_stream", ticker(10))
        ticks = [event.json()["tick"] async for event in conn.iter("ticker_stream")]
        assert ticks == list(range(10))


async def test_asynchronous_comprehensions() -> None:
    async def feet_to_metres(jumps: AsyncIterator[photonpump.Event]) -> AsyncIterator[float]:
        async for event in jumps:
            yield event.json()["Height"] * 0.3048

    async with node_and_admin() as (_, conn):
        heights = [NewEvent("PonyJumped", data={"Height": feet}) for feet in (10, 20)]
        await conn.publish("ponies", [*heights, NewEvent("PonySlept")])
        jumps = (event async for event in conn.iter("ponies") if event.type == "PonyJumped")
        assert [metres async for metres in feet_to_metres(jumps)] == [3.048, 6.096]


async def test_no_host_is_this_one() -> None:
    assert "localhost:1113" in repr(photonpump.connect(None))


async def test_every_parameter_by_its_place() -> None:
    forward, backward = StreamDirection.Forward, StreamDirection.Backward
    async with fastpump.server.run() as node:
        conn = photonpump.connect(
            node.host, node.port, None, 2113, "admin", "changeit", None, "by place", None, None
        )
        async with conn:
            event_id = uuid4()
            await conn.publish_event("s", "t", {"n": 0}, event_id, {"m": 1}, -1, True)
            await conn.publish("s", [NewEvent("t", uuid4(), {"n": 1}, None)], 0, True)
            event = await conn.get_event("s", 0, False, True, uuid4())
            assert event is not None
            assert (event.id, event.metadata) == (event_id, b'{"m":1}')
            page = await conn.get("s", backward, 1, 10, False, True, uuid4())
            assert [e.event_number for e in page] == [1, 0]
            log = await conn.get_all(forward, event.position, 10, False, True, uuid4())
            assert len(log) >= 2
            for events in (
                conn.iter("s", forward, 0, 1, False, True, uuid4()),
                conn.iter_all(forward, log.start_position, 1, False, True, uuid4()),
            ):
                assert [e.json() async for e in events if e.stream == "s"] == [{"n": 0}, {"n": 1}]
            async with await conn.subscribe_to("s", 1, False, 10) as subscription:
                assert (await anext(subscription.events)).event_number == 1


async def test_volatile_and_catching_up_subscriptions() -> None:
    async with node_and_admin() as (_, conn):
        await conn.publish_event("prices", "changed", {"price": 1})
        volatile = await conn.subscribe_to("prices")
        catching_up = await conn.subscribe_to("prices", start_from=0)
        assert volatile.stream == catching_up.stream == "prices"
        await conn.publish_event("prices", "changed", {"price": 2})
        seen = []
        async for event in catching_up.events:
            seen.append(event.json()["price"])
            if len(seen) == 2:
                await catching_up.unsubscribe()
        assert seen == [1, 2]
        async with volatile:
            assert (await anext(volatile.events)).json() == {"price": 2}


async def test_persistent_subscriptions() -> None:
    async def take(conn: photonpump.Client, count: int) -> list[int]:
        prices = []
        subscription = await conn.connect_subscription("pricing", "prices")
        assert (subscription.name, subscription.stream) == ("prices::pricing", "prices")
        async for event in subscription.events:
            prices.append(event.json()["price"])
            await subscription.ack(event)
            if len(prices) == count:
                await subscription.unsubscribe()
        return prices

    async with node_and_admin() as (_, conn):
        await conn.create_subscription("pricing", "prices", start_from=0)
        for price in range(4):
            await conn.publish_event("prices", "changed", {"price": price})
        assert await take(conn, 3) == [0, 1, 2]
        assert await take(conn, 1) == [3]
        with pytest.raises(exceptions.SubscriptionCreationFailed):
            await conn.create_subscription("pricing", "prices")


async def test_the_log_from_its_ends() -> None:
    async with node_and_admin() as (_, conn):
        for n in range(3):
            await conn.publish_event("s", "t", {"n": n})
        newest = await conn.get_all(
            direction=StreamDirection.Backward, from_position=photonpump.End, max_count=2
        )
        assert [event.json()["n"] for event in newest] == [2, 1]
        known = newest[1].position
        later = [event.json()["n"] async for event in conn.iter_all(from_position=known)]
        assert later == [1, 2]
        assert len([e async for e in conn.iter_all(from_position=photonpump.Beginning)]) > 3


async def test_errors_with_their_attributes() -> None:
    async with node_and_admin() as (_, conn):
        with pytest.raises(exceptions.StreamNotFound) as caught:
            await conn.get("missing")
        assert (caught.value.stream, type(caught.value.conversation_id)) == ("missing", UUID)
        with pytest.raises(exceptions.PhotonPumpException):
            await conn.get_event("missing", 0)
        with pytest.raises(exceptions.AccessDenied) as denied:
            await conn.publish_event("$all", "t")
        assert denied.value.conversation_type == "WriteEvents"
