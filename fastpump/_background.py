"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar

from fastpump._run import run
from fastpump.exceptions import ClientClosed, UsageError

P = ParamSpec("P")
T = TypeVar("T")

# A signal that comes just before a thread begins to wait for a lock does not end that wait.
LONGEST_DEAF_WAIT = 0.1


def closed() -> ClientClosed:
    return ClientClosed("The client was closed")


class Latch:
    """What one thread waits for and another one opens, once.

    Neither threading.Event nor concurrent.futures.Future: what they lock, they lock in Python code,
    and a Ctrl-C in the middle of it leaves it locked, to the one who would have opened it as well.
    """

    def __init__(self) -> None:
        self._closed = threading.Lock()
        self._closed.acquire()

    def open(self) -> None:
        self._closed.release()

    def wait(self) -> bool:
        """Whether it was opened in the next 0.1 seconds."""
        return self._closed.acquire(timeout=LONGEST_DEAF_WAIT)


class Call(Generic[T]):
    """A coroutine that one thread has another one's loop run.

    The loop's thread calls `begin` and `cancel`; the one that waits calls `result` as soon as
    `ended` is open.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.ended = Latch()
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._error: BaseException | None = None
        self._result: T

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()

    def result(self) -> T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # which would hold the traceback that holds this frame
        return self._result

    def _end(self, task: asyncio.Task[T]) -> None:
        self._task = None  # so that it is this thread that lets go of it
        if task.cancelled():
            self._error = closed()
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._result = task.result()
        self.ended.open()


class BackgroundLoop:
    """The fastest loop there is, running in a daemon thread until `stop()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._is_running = Latch()
        self._has_ended = False  # Thread.is_alive, interrupted, says ever after that it is not
        self._thread = threading.Thread(target=self._main, name="fastpump", daemon=True)
        self._thread.start()
        self._wait_for(self._is_running)

    def run(
        self,
        operation: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a coroutine on the loop and wait for its result, in any thread but the loop's own.

        If the wait is interrupted, by Ctrl-C for instance, the coroutine is cancelled.

        Raises:
            ClientClosed: the loop has ended, or belongs to the process this one was forked from.
            UsageError: called in the loop's thread, which would wait for itself.
        """
        self._check()
        call = Call(operation(*args, **kwargs))
        try:
            self._soon(call.begin)
            self._wait_for(call.ended)
        except BaseException:
            with suppress(ClientClosed):
                self._soon(call.cancel)
            raise
        return call.result()

    def post(
        self,
        operation: Callable[P, Coroutine[Any, Any, Any]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run a coroutine whose end nobody waits for, if there is still a loop to run it.

        Unlike `run` this is possible wherever the garbage collector may be at work.
        """
        if self.pid == os.getpid() and not self._has_ended:
            with suppress(ClientClosed):
                self._soon(Call(operation(*args, **kwargs)).begin)

    def stop(self) -> None:
        """Cancel what still runs and end the thread. For the thread that holds the last client."""
        if self.pid == os.getpid() and not self._has_ended:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def _check(self) -> None:
        if self.pid != os.getpid():
            raise ClientClosed("The client was connected before this process was forked from it")
        if threading.current_thread() is self._thread:
            raise UsageError("client", "is blocking, and was called in a callback of its own loop")
        if self._has_ended:
            raise closed()

    def _soon(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # it has ended since the check
            raise closed() from None

    def _wait_for(self, latch: Latch) -> None:
        while not latch.wait():
            # Asked once more, since to open it may have been the last thing that the loop did.
            if self._has_ended and not latch.wait():
                raise closed()

    def _main(self) -> None:
        try:
            run(self._until_stopped())
        finally:
            self._has_ended = True

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._is_running.open()
        await self._stopped.wait()


class SharedLoop:
    """One background loop for all who hold it; it runs from the first to the last of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: BackgroundLoop | None = None
        self._holders = 0

    def hold(self) -> BackgroundLoop:
        with self._lock:
            if self._loop is None or self._loop.pid != os.getpid():
                self._loop = BackgroundLoop()
                self._holders = 0
            self._holders += 1
            return self._loop

    def release(self, loop: BackgroundLoop) -> None:
        with self._lock:
            if loop is not self._loop:
                return  # that of the process this one was forked from
            self._holders -= 1
            if self._holders > 0:
                return
            self._loop = None
        loop.stop()
