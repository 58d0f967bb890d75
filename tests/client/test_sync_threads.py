"""Clients with calls that wait, and threads: sharing, interrupting, closing, forking."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import pytest
from client.running import PATIENCE
from client.waiting import (  # noqa: F401  # fixtures
    client_of_node,
    group_of_stream,
    node_of_module,
    stream_of_test,
)

import fastpump
import fastpump.server
from fastpump import sync
from fastpump._background import BackgroundLoop
from fastpump.exceptions import ClientClosed, ConnectFailed, UsageError


def threads_of_clients() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fastpump"]


# --- threads ---


def test_many_threads_share_a_client(client: sync.Client, stream: str) -> None:
    def publish(thread: int) -> None:
        for n in range(20):
            client.publish_event(f"{stream}-{thread}", "t", {"n": n})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(8)))
    for thread in range(8):
        assert [event.json()["n"] for event in client.iter(f"{stream}-{thread}")] == list(range(20))


def test_the_thread_ends_with_the_last_client(node: fastpump.server.Node) -> None:
    before = len(threads_of_clients())
    with sync.connect(node.host, node.port) as first:
        with sync.connect(node.host, node.port) as second:
            assert len(threads_of_clients()) == before + 1
            second.ping()
        first.ping()
    assert len(threads_of_clients()) == before


def test_closing_ends_what_waits_in_other_threads(node: fastpump.server.Node, stream: str) -> None:
    client = sync.connect(node.host, node.port)
    client.connect()
    subscription = client.subscribe_to(stream)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, subscription.events)
        client.ping()
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(PATIENCE)


def test_closing_ends_what_waits_for_something_else(node: fastpump.server.Node) -> None:
    client = sync.connect(node.host, node.port)
    client.connect()
    subscription = client.subscribe_to("s", start_from=0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(subscription.caught_up)  # nobody loops over its events
        client.ping()
        client.close()
        with pytest.raises(ClientClosed):
            waiting.result(PATIENCE)


class Interrupt(BaseException):
    """What the signal of a timer raises, as Ctrl-C raises KeyboardInterrupt."""


@contextmanager
def interrupted_by(signalling: Callable[[], object]) -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupt):
            signalling()
            yield
    finally:
        signal.signal(signal.SIGALRM, before)


def interrupted_while_waiting() -> AbstractContextManager[None]:
    return interrupted_by(lambda: signal.setitimer(signal.ITIMER_REAL, 0.1))


def interrupted_at(moment: int, call: Callable[[], object]) -> bool:
    """Whether a call is so long, in all that a tracer is told of; it is interrupted there."""
    left = moment

    def trace(frame: FrameType, *_: object) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        left -= 1
        if left == 0:
            raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


has_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this platform has no such timer"
)


@has_timers
def test_an_interrupted_wait_leaves_the_client_usable(client: sync.Client, stream: str) -> None:
    subscription = client.subscribe_to(stream)
    with interrupted_while_waiting():
        next(subscription.events)
    client.publish_event(stream, "t")
    assert next(subscription.events).event_number == 0
    subscription.unsubscribe()


@has_timers
def test_what_an_interrupted_wait_waited_for_is_cancelled() -> None:
    loop, ended = BackgroundLoop(), threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with interrupted_while_waiting():
        loop.run(work)
    assert ended.wait(PATIENCE)
    loop.stop()


@has_timers
def test_a_signal_that_does_not_end_the_wait_is_seen_all_the_same() -> None:
    """As one that comes just before the wait; here another thread is the one that it wakes."""
    loop, waited = BackgroundLoop(), threading.Event()

    async def work() -> None:
        await asyncio.sleep(PATIENCE)
        waited.set()

    def signalled() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    thread = threading.Timer(0.1, signalled)
    with interrupted_by(thread.start):
        loop.run(work)
    assert not waited.is_set()
    thread.join()
    loop.stop()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize("seconds", [0, 0.001])
def test_an_interrupt_at_any_instruction_leaves_the_loop_usable(seconds: float) -> None:
    loop = BackgroundLoop()
    moment = 1
    with ThreadPoolExecutor(1) as pool:
        while interrupted_at(moment, lambda: loop.run(asyncio.sleep, seconds)):
            pool.submit(loop.run, asyncio.sleep, 0).result(PATIENCE)
            moment += 1
    assert moment > 100
    loop.stop()


@contextmanager
def interrupted_on_arrival() -> Iterator[None]:
    """A Ctrl-C that comes when the wait is over already, but has not returned."""
    run = BackgroundLoop.run

    def interrupted(self: BackgroundLoop, *args: Any) -> None:
        run(self, *args)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackgroundLoop, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize("kind", ["events", "slices", "of a group", "slices of a group"])
def test_what_arrives_at_an_interrupt_is_given_out_next(
    client: sync.Client, stream: str, group: str, kind: str
) -> None:
    subscription: sync.Subscription | sync.PersistentSubscription
    if "group" in kind:
        subscription = client.connect_subscription(group, stream, in_flight=1, auto_ack=True)
    else:
        subscription = client.subscribe_to(stream, start_from=0, batch_size=1)
    with subscription:
        items: Iterator[Any] = subscription.slices() if "slices" in kind else subscription.events
        for number in range(3):
            with interrupted_on_arrival():
                next(items)
            item = next(items)
            event = item[0] if "slices" in kind else item
            assert event.event_number == number


CTRL_C = """
import signal
import sys
import fastpump
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
with fastpump.sync.connect(sys.argv[1], int(sys.argv[2])) as client:
    with client.subscribe_to(sys.argv[3]) as subscription:
        try:
            print("waiting", flush=True)
            next(subscription.events)
        except KeyboardInterrupt:
            client.publish_event(sys.argv[3], "t")
            print(next(subscription.events).event_number, flush=True)
            next(subscription.events)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_ctrl_c(node: fastpump.server.Node, stream: str) -> None:
    """The first one is caught, and the client goes on; the second one ends the program."""
    program = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, node.host, str(node.port), stream],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    try:
        for line in ("waiting\n", "0\n"):
            assert program.stdout.readline() == line
            program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert program.returncode == -signal.SIGINT


async def test_a_caller_with_a_loop_of_its_own(node: fastpump.server.Node) -> None:
    with sync.connect(node.host, node.port) as client:
        assert client.ping() > 0


# --- life ---


def test_before_connecting_and_after_closing(node: fastpump.server.Node) -> None:
    threads = threads_of_clients()
    client = sync.connect(node.host, node.port)
    with pytest.raises(ClientClosed, match="not connected"):
        client.ping()
    client.close()
    with client:
        with pytest.raises(ClientClosed, match="once"):
            client.connect()
        client.ping()
    client.close()
    for _ in range(2):
        with pytest.raises(ClientClosed):
            client.ping()
    with pytest.raises(ClientClosed):
        next(client.iter("s"))
    with pytest.raises(ClientClosed):
        client.connect()
    assert threads_of_clients() == threads


def test_a_failed_connect_leaves_no_thread() -> None:
    before = len(threads_of_clients())
    with pytest.raises(ConnectFailed), sync.connect("127.0.0.1", 1, connect_timeout=1):
        pass
    assert len(threads_of_clients()) == before


def test_a_call_in_the_loops_own_thread_is_refused() -> None:
    loop = BackgroundLoop()

    async def blocks() -> None:
        loop.run(asyncio.sleep, 0)

    with pytest.raises(UsageError, match="callback"):
        loop.run(blocks)
    loop.stop()
    with pytest.raises(ClientClosed):
        loop.run(asyncio.sleep, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_client_does_not_survive_a_fork(node: fastpump.server.Node) -> None:
    code = f"""
import os
import fastpump
from fastpump import exceptions, sync
with sync.connect({node.host!r}, {node.port}) as client:
    child = os.fork()
    if child == 0:
        try:
            client.ping()
        except exceptions.ClientClosed as error:
            with sync.connect({node.host!r}, {node.port}) as other:
                other.ping()
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(3)
    _, status = os.waitpid(child, 0)
    client.ping()
assert os.waitstatus_to_exitcode(status) == 0, status
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
