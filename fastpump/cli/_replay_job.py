"""A replay as a whole: the log divided, read by one process or by several, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import fastpump
from fastpump.cli._pieces import pieces_of, put_together
from fastpump.cli._processes import Processes, shared
from fastpump.cli._progress import Figures
from fastpump.cli._replay import Plan, Reader, Report
from fastpump.exceptions import ReplayFailed


class Job:
    """Does what a plan says, the log still in one range, over several connections and processes.

    With an `output`, the plan's one piece is that file. `chunk_size` is that of the server's log,
    and `tell` gets messages for the user.

    Attributes:
        failures: streams that could not be read, and why.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        processes: int,
        chunk_size: int,
        output: Path | None,
        tell: Callable[[str], object],
    ) -> None:
        self._plan = plan
        self._processes = processes
        self._chunk_size = chunk_size
        self._output = output
        self._tell = tell
        self._engine: Reader | Processes = Reader(plan)
        self._seconds = 0.0
        self.failures: Mapping[str, Exception] = {}

    def report(self) -> Report:
        """How far it is."""
        return self._engine.report()

    def figures(self) -> Figures:
        """What was read, and how long that took."""
        sample = self.report().sample
        return Figures(sample.events, sample.bytes, self._seconds)

    def rest(self) -> str:
        """For the user: what is left when it was stopped."""
        report, count = self.report(), len(self._plan.streams)
        if count > 1:
            return f"{report.streams:,} of {count:,} streams are complete"
        where = report.places[report.reached].next
        text = where if isinstance(where, int) else f"{where.commit}/{where.prepare}"
        return f"go on with --from {text}"

    async def run(self) -> None:
        """Read to the end, and write it; it may be cancelled.

        Stopped or failed, it leaves whole lines in the output: those of the log up to where the
        rest begins, and of several streams whatever was read. Only where writing itself fails the
        last line may be incomplete.

        Raises:
            FastpumpError: nothing more could be read; nothing at all of the only stream.
            OSError: nothing more could be written.
        """
        plan = self._plan if self._plan.streams else await self._divided(self._plan)
        processes = min(self._processes, len(plan.streams or plan.ranges))
        started = time.perf_counter()
        try:
            if self._output is None:
                await self._read(plan, processes)
            else:
                await self._write(plan, processes, self._output)
        finally:
            self._seconds = time.perf_counter() - started

    async def _divided(self, plan: Plan) -> Plan:
        """The plan with as many ranges of the log as there are connections, if that can be."""
        client = plan.server.connect()
        async with fastpump.Replay(lambda: client) as replay:
            newest = await client.get_all(
                direction=fastpump.StreamDirection.Backward,
                from_position=fastpump.End,
                max_count=1,
                resolve_links=False,
            )
            ranges = await replay.ranges(
                plan.connections,
                from_position=plan.ranges[0].start,
                chunk_size=self._chunk_size,
            )
        if len(ranges) < plan.connections:
            parts = "one range" if len(ranges) == 1 else f"{len(ranges)} ranges"
            self._tell(f"The log can be divided no further: it is read in {parts}")
        return replace(plan, ranges=ranges, end=newest.start_position.commit)

    async def _write(self, plan: Plan, processes: int, output: Path) -> None:
        with pieces_of(output, len(plan.ranges) or processes) as pieces:
            try:
                await self._read(replace(plan, pieces=pieces), processes)
            finally:
                report = self.report()
                whole = report.places[: report.reached + 1]
                put_together(pieces, [place.size for place in whole])

    async def _read(self, plan: Plan, processes: int) -> None:
        plan = replace(plan, connections=min(plan.connections, len(plan.streams or plan.ranges)))
        self._engine = Reader(plan) if processes == 1 else Processes(shared(plan, processes))
        try:
            await self._engine.run()
        except ReplayFailed as failed:
            if len(plan.streams) == 1:
                raise next(iter(failed.failures.values())) from None
            self.failures = failed.failures
