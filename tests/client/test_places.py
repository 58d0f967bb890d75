"""Places for operations while callers, replies and connections come and go at random."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from client.peer import eventually, frame, parse, reply_to, soon

from fastpump import _dispatcher
from fastpump._dispatcher import Dispatcher
from fastpump._framing import Framer
from fastpump._operations import Ping
from fastpump._settings import ConnectionSettings
from fastpump.exceptions import ClientClosed, ConnectionLost, FastpumpError

NOT_READY, TOO_BUSY = 0, 1


class Callers:
    """They call a dispatcher that a made-up server answers, or does not."""

    def __init__(self, chance: Random) -> None:
        self.limit = chance.choice([1, 2, 3, 8])
        self.dispatcher = Dispatcher(
            ConnectionSettings(
                max_in_flight=self.limit,
                max_queue=chance.choice([1, 2, 100]),
                queue_timeout=chance.choice([None, 5.0]),
                max_attempts=chance.choice([-1, 2, 11]),
                fail_on_no_response=chance.random() < 0.3,
            )
        )
        self.calls: list[asyncio.Task[Any]] = []
        self._chance = chance
        self._requests: list[bytes] = []
        self._is_connected = False

    async def call(self) -> None:
        dispatcher = self.dispatcher
        if dispatcher.is_full():
            await dispatcher.room()
        waiter, request_id = asyncio.Future[Any](), dispatcher.correlation_ids.next()
        dispatcher.start(Ping(request_id, frame("Ping", request_id), waiter, 1.0))
        assert dispatcher.in_flight <= self.limit
        await waiter

    def happen(self) -> None:
        """Anything that may happen next."""
        self._chance.choice(
            [
                self.begin,
                self.begin,
                self.begin,
                self.answer,
                self.answer,
                self.put_off,
                self.cancel,
                self.cut_or_connect,
                self.dispatcher.pause,
                self.dispatcher.resume,
                self.let_time_pass,
            ]
        )()

    def begin(self) -> None:
        self.calls.append(soon(self.call()))

    def answer(self) -> None:
        self.reply("Pong")

    def put_off(self) -> None:
        self.reply("NotHandled", reason=self._chance.choice([NOT_READY, TOO_BUSY]))

    def cancel(self) -> None:
        for call in self._chance.sample(self.calls, len(self.calls)):
            if call.cancel():
                break

    def let_time_pass(self) -> None:
        now = asyncio.get_running_loop().time()
        self.dispatcher.check_deadlines(now + self._chance.choice([0, 2, 10]))

    def cut_or_connect(self) -> None:
        if self._is_connected:
            self.disconnect()
        else:
            self.connect()

    def connect(self) -> None:
        self._is_connected = True
        self.dispatcher.connected(self._requests.append)

    def disconnect(self) -> None:
        self._is_connected = False
        self._requests.clear()
        self.dispatcher.disconnected(ConnectionLost("cut"))

    def reply(self, command: str, **fields: Any) -> None:
        if self._requests:
            request = self._requests.pop(self._chance.randrange(len(self._requests)))
            reply = reply_to(parse(request[4:]), command, **fields)
            self.dispatcher.dispatch(Framer().feed(reply))

    async def come_to_rest(self) -> None:
        """Everything is answered from now on."""
        if not self._is_connected:
            self.connect()
        self.dispatcher.resume()
        await eventually(self._is_at_rest)

    def _is_at_rest(self) -> bool:
        while self._requests:
            self.reply("Pong")
        self.dispatcher.check_deadlines(asyncio.get_running_loop().time())
        return all(call.done() for call in self.calls) and not self.dispatcher.in_flight


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_or_given_twice(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatcher, "RETRY_DELAY", 0.001)
    chance = Random(seed)
    callers = Callers(chance)
    for _ in range(300):
        callers.happen()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await callers.come_to_rest()
    for call in callers.calls:
        assert call.cancelled() or isinstance(call.exception(), (FastpumpError, type(None)))
    dispatcher = callers.dispatcher
    assert (dispatcher.waiting, dispatcher.is_full()) == (0, False)
    last = [soon(callers.call()) for _ in range(callers.limit)]
    await asyncio.sleep(0)
    assert (dispatcher.in_flight, dispatcher.is_full()) == (callers.limit, True)
    dispatcher.close(ClientClosed("closed"))
    outcomes = await asyncio.gather(*last, return_exceptions=True)
    assert all(isinstance(outcome, ClientClosed) for outcome in outcomes)
