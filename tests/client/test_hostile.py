"""A server that answers whatever it likes: every call ends, and the client is as well as before.

Replies that are damaged, that belong to other requests, that come twice, unasked or not at all,
whose fields say what cannot be. A call ends by a result or by an error that tells of the server;
what an answer brings can be looked at in every detail; a sound server is then served as ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from client.calls import CALLS, FILTER, answer
from client.peer import COMMANDS, REPLIES, Link, Peer, Request, frame, outcome, soon
from wire.reference import PAYLOADS, PROTO2
from wire.scrambling import damaged, scrambled, some_fields
from wire.views import event_values

from fastpump import Client, Event, NewEvent
from fastpump.exceptions import ConnectionLost, FastpumpError, OperationTimedOut, UsageError

ROUNDS = 40
PATIENCE = 10.0

PUSH = "StreamEventAppeared"
PUSHES = {
    "SubscribeToStream": [PUSH],
    "FilteredSubscribeToStream": [PUSH, "CheckpointReached"],
    "ConnectToPersistentSubscription": ["PersistentSubscriptionStreamEventAppeared"],
}
"""What may follow the answer to a request."""
ENDS = ["SubscriptionDropped", "NotHandled", "BadRequest", "NotAuthenticated"]


class Hostile:
    """Makes up answers, until it becomes sound."""

    def __init__(self, seed: int) -> None:
        self.link: Link | None = None
        self._is_sound = False
        self._rng = random.Random(seed)

    def become_sound(self) -> None:
        """On a new connection: on this one an endless frame may be under way."""
        self._is_sound = True
        if self.link is not None:
            self.link.abort()

    def answer(self, request: Request) -> bytes | None:
        if request.command not in REPLIES:
            return None
        sound, rng = answer(request), self._rng
        if self._is_sound or sound is None:
            return sound
        kind = rng.randrange(9)
        if kind == 0:
            return None
        if kind == 1:
            return sound + sound
        if kind == 2:
            return frame(sound[4], request.id, damaged(sound[22:], rng))
        if kind == 3:
            return damaged(sound, rng)
        if kind < 7:
            sound = self._frame(REPLIES[request.command], request)
        return sound + self._more(request)

    def _more(self, request: Request) -> bytes:
        rng = self._rng
        names = rng.choices(PUSHES.get(request.command, [PUSH]), k=rng.choice([0, 1, 5]))
        if rng.random() < 0.3:
            names.append(rng.choice(ENDS))
        if rng.random() < 0.1:
            names.append(rng.choice(list(COMMANDS)))
        return b"".join(self._frame(name, request) for name in names)

    def _frame(self, command: str, request: Request) -> bytes:
        rng, name = self._rng, PAYLOADS.get(COMMANDS[command])
        if name is None:
            return frame(command, request.id, rng.randbytes(rng.randrange(4)))
        fields = some_fields(name, rng)
        if command == "NotHandled":
            fields["additional_info"] = b""  # there is no other node to go to
        encoded = rng.choice([PROTO2.encode(name, fields), scrambled(name, fields, rng)])
        return frame(command, request.id, damaged(encoded, rng) if rng.random() < 0.1 else encoded)


async def subscribed(subscribing: Awaitable[Any]) -> None:
    """Take what comes in a moment, and see all that there is to it."""
    async with await subscribing as subscription:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(look_at_all(subscription), 0.02)


async def look_at_all(subscription: Any) -> None:
    async for event in subscription.events:
        event_values(event)
        if hasattr(subscription, "ack"):
            await subscription.ack(event)


async def publish(client: Client) -> None:
    async with client.publisher(max_delay=0) as publisher:
        for number in range(5):
            await publisher.send(f"s-{number % 2}", NewEvent("t", data={"n": number}))


async def page(reading: Awaitable[Any]) -> None:
    for event in await reading:
        assert isinstance(event, Event)
        event_values(event)


# In place of one that would wait for an event for as long as it takes, and beside the others.
MORE_CALLS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "events of all": lambda client: page(client.get_all()),
    "events of a filter": lambda client: page(client.get_all(filter=FILTER)),
    "events of a stream": lambda client: page(client.get("s")),
    "publisher": publish,
    "subscribe_to_from": lambda client: subscribed(client.subscribe_to("s", 0)),
    "subscription to all": lambda client: subscribed(client.subscribe_to_all()),
    "subscription with filter": lambda client: subscribed(client.subscribe_to_all(filter=FILTER)),
    "consumer": lambda client: subscribed(client.connect_subscription("g", "s")),
    "consumer with auto_ack": lambda client: subscribed(
        client.connect_subscription("g", "s", auto_ack=True)
    ),
}


async def serve(peer: Peer, hostile: Hostile) -> None:
    """Every connection, as long as it lasts."""
    links: set[asyncio.Task[None]] = set()
    try:
        while True:
            task = soon(serve_one(await peer.accept(), hostile))
            links.add(task)
            task.add_done_callback(links.discard)
    finally:
        for task in links:
            task.cancel()


async def serve_one(link: Link, hostile: Hostile) -> None:
    hostile.link = link
    try:
        await link.handshake()
        while True:
            reply = hostile.answer(await link.receive())
            if reply is not None:
                link.send_raw(reply)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass


@asynccontextmanager
async def client_of(hostile: Hostile) -> AsyncIterator[Client]:
    async with Peer() as peer:
        serving = soon(serve(peer, hostile))
        options = {"max_reconnects": -1, "operation_timeout": 0.03, "max_attempts": 3}
        async with peer.client(reconnect_delay=0, fail_on_no_response=True, **options) as client:
            yield client
        serving.cancel()
        await asyncio.wait({serving})


async def check(seed: int, rounds: int) -> None:
    calls = [*(CALLS | MORE_CALLS).items()]
    hostile, order = Hostile(seed), random.Random(seed)
    async with client_of(hostile) as client:
        for _ in range(rounds):
            name, call = order.choice(calls)
            error = await outcome(asyncio.wait_for(call(client), PATIENCE))
            is_told = error is None or isinstance(error, (FastpumpError, StopAsyncIteration))
            if not is_told or isinstance(error, UsageError):
                raise AssertionError(f"{name} ended with {error!r}") from error
        hostile.become_sound()
        while (error := await outcome(client.ping())) is not None:
            assert isinstance(error, ConnectionLost | OperationTimedOut), error
        assert await client.publish_event("s", "t")
        assert client.stats().in_flight == 0


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_a_server_answers(seed: int) -> None:
    await check(seed, ROUNDS)
