"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, ParamSpec, TypeVar

from fastpump._run import run
from fastpump.exceptions import ClientClosed, UsageError

P = ParamSpec("P")
T = TypeVar("T")


class BackgroundLoop:
    """The fastest loop there is, running in a daemon thread until `stop()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._is_running = threading.Event()
        self._thread = threading.Thread(target=self._main, name="fastpump", daemon=True)
        self._thread.start()
        self._is_running.wait()

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
        future = asyncio.run_coroutine_threadsafe(operation(*args, **kwargs), self._loop)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosed("The client was closed") from None
        finally:
            future.cancel()

    def post(
        self,
        operation: Callable[P, Coroutine[Any, Any, Any]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run a coroutine whose end nobody waits for, if there is still a loop to run it.

        Unlike `run` this is possible wherever the garbage collector may be at work.
        """
        if self.pid == os.getpid() and self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(operation(*args, **kwargs), self._loop)

    def stop(self) -> None:
        """Cancel what still runs and end the thread. For the thread that holds the last client."""
        if self.pid == os.getpid() and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def _check(self) -> None:
        if self.pid != os.getpid():
            raise ClientClosed("The client was connected before this process was forked from it")
        if threading.current_thread() is self._thread:
            raise UsageError("client", "is blocking, and was called in a callback of its own loop")
        if not self._thread.is_alive():
            raise ClientClosed("The client was closed")

    def _main(self) -> None:
        run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._is_running.set()
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
