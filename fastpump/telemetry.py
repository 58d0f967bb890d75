"""OpenTelemetry for a client: a span for each operation, and how many events in what time.

    from fastpump.telemetry import Telemetry

    async with fastpump.connect(telemetry=Telemetry()) as client:
        ...

It needs the extra `opentelemetry`. Names are those of OpenTelemetry's conventions for clients of
databases where they have one. Without it a client has no trace of it, and pays nothing.

A span reaches from the start of the operation, which is its call unless that waits for room, to its
end, over reconnects; that of a subscription to its confirmation. An operation that its caller gave
up ends when its reply is let go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fastpump._commands import name_of
from fastpump._events import AllStreamSlice, Event, Events, StreamSlice
from fastpump._operation import Operation, Waiter
from fastpump._outlet import Detour, Outlet
from fastpump._replies import WriteResult
from fastpump._subscribing import Confirmation, Subscribe, Subscriber
from fastpump.exceptions import UsageError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["Telemetry"]

LOG = logging.getLogger("fastpump.telemetry")

P = ParamSpec("P")
T = TypeVar("T")

SYSTEM = {"db.system.name": "eventstoredb"}

Address = Callable[[], "tuple[str, int]"]
"""Tells host and port of the node the client is connected to."""


def harmless(note: Callable[P, T]) -> Callable[P, T | None]:
    """What a program's span processors and samplers raise is logged: the operation goes on."""

    @wraps(note)
    def noted(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return note(*args, **kwargs)
        except Exception:
            LOG.exception("An operation could not be noted")
            return None

    return noted


class Telemetry:
    """Where spans and metrics of clients go; give it to `connect(telemetry=…)`.

    Metrics, each with the operation's name, and the error's type where there was one:

    * `db.client.operation.duration`: a histogram in seconds;
    * `fastpump.client.events.read`, `fastpump.client.events.written`: counters of events.

    Args:
        tracer_provider, meter_provider: OpenTelemetry's global ones by default.

    Raises:
        UsageError: OpenTelemetry's API is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise UsageError(
                "telemetry", "needs OpenTelemetry: pip install 'fastpump[opentelemetry]'"
            ) from error
        self._tracer = trace.get_tracer("fastpump", tracer_provider=tracer_provider)
        self._kind = trace.SpanKind.CLIENT
        self._failed = trace.StatusCode.ERROR
        meter = metrics.get_meter("fastpump", meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "db.client.operation.duration", "s", "Time from an operation's start to its end"
        )
        self._read = meter.create_counter(
            "fastpump.client.events.read", "{event}", "Events received"
        )
        self._written = meter.create_counter(
            "fastpump.client.events.written", "{event}", "Events whose write was acknowledged"
        )

    def observe(self, outlet: Outlet, address: Address) -> Outlet:
        """An outlet that notes what is started on its way to `outlet`."""
        return _ObservedOutlet(outlet, self, address)

    @harmless
    def begin(self, operation: Operation, host: str, port: int) -> Observation:
        name = name_of(operation.frame[4])
        attributes: dict[str, Any] = {
            **SYSTEM,
            "db.operation.name": name,
            "server.address": host,
            "server.port": port,
        }
        if operation.stream:
            attributes["db.collection.name"] = operation.stream
        span = self._tracer.start_span(name, kind=self._kind, attributes=attributes)
        return Observation(self, span, name)

    @harmless
    def count(self, name: str, result: Any) -> None:
        """Count the events that an operation ended with, or was pushed."""
        labels = {**SYSTEM, "db.operation.name": name}
        if isinstance(result, WriteResult):
            written = result.last_event_number - result.first_event_number + 1
            self._written.add(written, labels)
        elif isinstance(result, (StreamSlice, AllStreamSlice, Events)):
            self._read.add(len(result), labels)
        elif isinstance(result, Event):
            self._read.add(1, labels)

    @harmless
    def end(self, span: Span, name: str, seconds: float, error: BaseException | None) -> None:
        labels = {**SYSTEM, "db.operation.name": name}
        if error is not None:
            labels["error.type"] = type(error).__name__
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._failed, str(error))
        self._duration.record(seconds, labels)
        span.end()


class Observation:
    """One operation under way."""

    __slots__ = ("_begin", "_loop", "_name", "_span", "_telemetry")

    def __init__(self, telemetry: Telemetry, span: Span, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._telemetry = telemetry
        self._span: Span | None = span
        self._name = name
        self._begin = time.perf_counter()

    def count(self, result: Any) -> None:
        self._telemetry.count(self._name, result)

    def end(self, error: BaseException | None = None) -> None:
        """The first call counts."""
        if self._span is not None:
            self._telemetry.end(*self._taken(), error)

    def __del__(self) -> None:
        # The dispatcher has let the operation go, and nobody had waited for its end any more. It
        # may be the collector's doing, in any thread and inside a lock of OpenTelemetry's.
        if self._span is not None:
            error = asyncio.CancelledError("the caller gave it up")
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._telemetry.end, *self._taken(), error)

    def _taken(self) -> tuple[Span, str, float]:
        span, self._span = self._span, None
        assert span is not None
        return span, self._name, time.perf_counter() - self._begin


class _ObservedOutlet(Detour):
    def __init__(self, outlet: Outlet, telemetry: Telemetry, address: Address) -> None:
        super().__init__(outlet)
        self._telemetry = telemetry
        self._address = address

    def start(self, operation: Any) -> None:
        observation = self._telemetry.begin(operation, *self._address())
        if observation is None:
            super().start(operation)
            return
        if isinstance(operation, Subscribe):
            operation.waiter.subscriber = _ObservedSubscriber(
                operation.waiter.subscriber, observation
            )
        else:
            operation.waiter = _ObservedWaiter(operation.waiter, observation)
        try:
            super().start(operation)
        except BaseException as error:
            observation.end(error)
            raise


class _ObservedWaiter:
    __slots__ = ("_observation", "_waiter")

    def __init__(self, waiter: Waiter, observation: Observation) -> None:
        self._waiter = waiter
        self._observation = observation

    def done(self) -> bool:
        return self._waiter.done()

    def set_result(self, result: Any) -> None:
        self._observation.count(result)
        self._observation.end()
        self._waiter.set_result(result)

    def set_exception(self, error: BaseException) -> None:
        self._observation.end(error)
        self._waiter.set_exception(error)


class _ObservedSubscriber:
    __slots__ = ("_observation", "_subscriber")

    def __init__(self, subscriber: Subscriber, observation: Observation) -> None:
        self._subscriber = subscriber
        self._observation = observation

    def on_confirmed(self, confirmation: Confirmation) -> None:
        self._observation.end()
        self._subscriber.on_confirmed(confirmation)

    def on_events(self, events: Events) -> None:
        self._observation.count(events)
        self._subscriber.on_events(events)

    def on_end(self, error: BaseException | None) -> None:
        self._observation.end(error)
        self._subscriber.on_end(error)
