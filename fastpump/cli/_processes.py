"""A replay shared among processes, so that several cores make lines of events.

Each process has a part of the plan and two pipes. In one it tells how far it is, several times a
second. The other one brings it the plan, and when that is closed it stops: whoever waited for its
work wants no more of it, or is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import NamedTuple

import fastpump
from fastpump.cli._interrupt import SIGNALS
from fastpump.cli._progress import INTERVAL, Sample
from fastpump.cli._replay import Place, Plan, Reader, Report
from fastpump.exceptions import FastpumpError, ReplayFailed

LOG = logging.getLogger("fastpump.cli")

GRACE = 5.0
"""Seconds that processes have to end in, once one of them has failed."""


class ProcessFailed(FastpumpError):
    """A process ended without a word."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"A process of the replay ended with exit code {exit_code}")


class End(NamedTuple):
    """The last thing a process says: what kept it from reading to the end, if anything did."""

    error: Exception | None


def shared(plan: Plan, processes: int) -> list[Plan]:
    """The plan in so many parts. Streams, ranges, pieces and connections are dealt out by turns."""
    shares = [slice(number, None, processes) for number in range(processes)]
    return [
        replace(
            plan,
            streams=plan.streams[share],
            ranges=plan.ranges[share],
            pieces=plan.pieces[share],
            connections=len(range(plan.connections)[share]),
        )
        for share in shares
    ]


def together(reports: Sequence[Report]) -> Report:
    """What the reports of a `shared` plan tell of the whole."""
    sample = Sample(*map(sum, zip(*(report.sample for report in reports), strict=True)))
    places = [Place(0)] * sum(len(report.places) for report in reports)
    for number, report in enumerate(reports):
        places[number :: len(reports)] = report.places
    return Report(sample, tuple(places), sum(report.streams for report in reports))


class Processes:
    """Reads what several plans say, each in a process of its own."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._workers = [_Worker(plan) for plan in plans]
        self._error: Exception | None = None  # the first one for which all were stopped

    def report(self) -> Report:
        """How far all of them are together."""
        return together([worker.report for worker in self._workers])

    async def run(self) -> None:
        """Read to the end.

        When it is cancelled the processes tell how far they are, and end. When it is cancelled
        again before that, they are killed, and what they told last has to do.

        Raises:
            ReplayFailed: some streams could not be read; the others were.
            ProcessFailed: a process ended without a word.
            FastpumpError, OSError: nothing more could be read, or written. For this and the one
                before, the other processes were stopped, and killed if they took over 5 seconds.
        """
        with ThreadPoolExecutor(len(self._workers), "fastpump-replay") as listeners:
            try:
                for worker in self._workers:
                    worker.start()
                for worker in self._workers:
                    worker.give_plan()
                await self._listen(listeners)
            finally:
                self._kill()
        self._raise_errors()

    async def _listen(self, listeners: Executor) -> None:
        """Take in what the processes say, until all have ended."""
        listening = asyncio.gather(*(self._follow(worker, listeners) for worker in self._workers))
        try:
            await asyncio.shield(listening)
        except asyncio.CancelledError:
            self._stop()
            await listening
            raise

    async def _follow(self, worker: _Worker, listeners: Executor) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(listeners, worker.listen)
        is_fatal = worker.error is not None and not isinstance(worker.error, ReplayFailed)
        if is_fatal and self._error is None:
            self._error = worker.error
            self._stop()
            loop.call_later(GRACE, self._kill)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _raise_errors(self) -> None:
        if self._error is not None:
            raise self._error
        failures: dict[str, FastpumpError] = {}
        for worker in self._workers:
            if isinstance(worker.error, ReplayFailed):
                failures |= worker.error.failures
        if failures:
            raise ReplayFailed(failures)


class _Worker:
    """A process, as its parent sees it.

    Attributes:
        report: what it told last.
        error: once it has ended, what kept it from reading to the end, if anything did.
    """

    def __init__(self, plan: Plan) -> None:
        self.report = Reader(plan).report()
        self.error: Exception | None = None
        self._plan = plan
        context = multiprocessing.get_context("spawn")
        self._reports, self._its_reports = context.Pipe(duplex=False)
        self._its_orders, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main, args=(self._its_reports, self._its_orders), daemon=True
        )

    def start(self) -> None:
        with _deaf_children():
            self._process.start()
        self._its_reports.close()
        self._its_orders.close()

    def give_plan(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, which `listen` finds out
            self._orders.send(self._plan)

    def listen(self) -> None:
        """Take in what it says until it has ended; waits, so it belongs in a thread."""
        end = None
        with contextlib.suppress(EOFError, OSError):
            while end is None:
                said = self._reports.recv()
                if isinstance(said, Report):
                    self.report = said
                elif isinstance(said, End):
                    end = said
                else:
                    LOG.warning("%s", said)
        self._process.join()
        self.error = end.error if end else ProcessFailed(self._process.exitcode)

    def stop(self) -> None:
        """Have it end soon, and tell before how far it is."""
        self._orders.close()

    def kill(self) -> None:
        """Have it end at once."""
        if self._process.is_alive():
            self._process.kill()


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """No signal to stop reaches what is started here: a terminal sends Ctrl-C to all processes."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # before the mask, which its start would take away
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# --- in the process ---


def _main(reports: Connection, orders: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where there is no mask of signals
    with contextlib.suppress(EOFError, OSError):  # nobody is left to do it for
        reader = Reader(orders.recv())
        error = None
        try:
            fastpump.run(_read(reader, reports, orders))
        except (OSError, FastpumpError) as failure:
            error = failure
        reports.send(reader.report())
        reports.send(End(error))


async def _read(reader: Reader, reports: Connection, orders: Connection) -> None:
    """Read to the end, or until it is said to stop, and tell how far it is."""
    logging.getLogger("fastpump").addHandler(_Teller(reports))
    reading = asyncio.ensure_future(reader.run())
    loop = asyncio.get_running_loop()
    stop = functools.partial(loop.call_soon_threadsafe, reading.cancel)
    obeying = threading.Thread(target=_wait_for_stop, args=(orders, stop), daemon=True)
    obeying.start()
    while not (await asyncio.wait({reading}, timeout=INTERVAL))[0]:
        reports.send(reader.report())
        if not obeying.is_alive():
            reading.cancel()  # again: before Python 3.12 `wait_for` may swallow a cancellation
    with contextlib.suppress(asyncio.CancelledError):
        await reading


def _wait_for_stop(orders: Connection, stop: Callable[[], object]) -> None:
    with contextlib.suppress(EOFError, OSError):
        orders.recv()
    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
        stop()


class _Teller(logging.Handler):
    """Hands warnings to the parent."""

    def __init__(self, reports: Connection) -> None:
        super().__init__(logging.WARNING)
        self._reports = reports

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            self._reports.send(record.getMessage())
