"""Spans and metrics of a client's operations, as OpenTelemetry's SDK exports them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from client.embedded import ADMIN
from client.peer import connected, eventually, frame, soon
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import fastpump
import fastpump.server
from fastpump import Client, NewEvent
from fastpump._operations import Ping
from fastpump.exceptions import ClientClosed, StreamNotFound, UsageError, WrongExpectedVersion
from fastpump.telemetry import Telemetry


class Exported:
    """A Telemetry and what came out of it."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.telemetry = Telemetry(self.tracer_provider, MeterProvider([self._metrics]))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.spans if span.name == name]
        return span

    def points(self, metric: str) -> dict[str, Any]:
        """The points of a metric, by operation and error."""
        data = self._metrics.get_metrics_data()
        return {
            ": ".join(
                str(point.attributes[name])
                for name in ("db.operation.name", "error.type")
                if name in point.attributes
            ): point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        }


@asynccontextmanager
async def observed_client() -> AsyncIterator[tuple[Client, Exported]]:
    exported = Exported()
    async with fastpump.server.run() as node:
        async with fastpump.connect(node.host, node.port, telemetry=exported.telemetry) as client:
            yield client, exported


async def test_a_span_tells_what_was_done() -> None:
    exported = Exported()
    async with (
        fastpump.server.run() as node,
        fastpump.connect(node.host, node.port, telemetry=exported.telemetry) as client,
    ):
        await client.publish_event("account-7", "opened")
        span = exported.span("WriteEvents")
        assert span.kind is SpanKind.CLIENT
        assert span.status.status_code is StatusCode.UNSET
        assert dict(span.attributes or {}) == {
            "db.system.name": "eventstoredb",
            "db.operation.name": "WriteEvents",
            "db.collection.name": "account-7",
            "server.address": node.host,
            "server.port": node.port,
        }


async def test_a_span_is_the_child_of_the_callers() -> None:
    async with observed_client() as (client, exported):
        with exported.tracer_provider.get_tracer("program").start_as_current_span("request") as own:
            await client.ping()
        assert exported.span("Ping").parent == own.get_span_context()


async def test_a_failure_is_on_the_span_and_on_the_metric() -> None:
    async with observed_client() as (client, exported):
        with pytest.raises(WrongExpectedVersion) as caught:
            await client.publish_event("s", "t", expected_version=5)
        span = exported.span("WriteEvents")
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == str(caught.value)
        assert (span.attributes or {})["error.type"] == "WrongExpectedVersion"
        durations = exported.points("db.client.operation.duration")
        assert durations["WriteEvents: WrongExpectedVersion"].count == 1


async def test_events_are_counted() -> None:
    async with observed_client() as (client, exported):
        await client.publish("s", [NewEvent("t") for _ in range(25)])
        await client.publish_event("s", "t")
        await client.get_event("s", 0)
        assert [event async for event in client.iter("s", batch_size=10)]
        assert exported.points("fastpump.client.events.written")["WriteEvents"].value == 26
        read = exported.points("fastpump.client.events.read")
        assert read["ReadStreamEventsForward"].value == 26
        assert read["ReadEvent"].value == 1
        durations = exported.points("db.client.operation.duration")
        assert durations["WriteEvents"].count == 2
        assert durations["WriteEvents"].sum > 0
        assert durations["ReadStreamEventsForward"].count == 3


async def test_a_subscriptions_span_ends_with_its_confirmation() -> None:
    async with observed_client() as (client, exported):
        async with await client.subscribe_to("s") as subscription:
            assert exported.span("SubscribeToStream").status.status_code is StatusCode.UNSET
            await client.publish("s", [NewEvent("t") for _ in range(3)])
            events = subscription.events
            assert [(await anext(events)).event_number for _ in range(3)] == [0, 1, 2]
        read = exported.points("fastpump.client.events.read")
        assert read["SubscribeToStream"].value == 3


async def test_a_subscription_that_is_refused() -> None:
    async with observed_client() as (client, exported):
        with pytest.raises(fastpump.exceptions.AccessDenied):
            await client.subscribe_to_all()
        assert (exported.span("SubscribeToStream").attributes or {})["error.type"] == "AccessDenied"


async def test_acting_as_somebody_else_is_observed_too() -> None:
    async with observed_client() as (client, exported):
        with pytest.raises(StreamNotFound):
            await client.acting_as(ADMIN).get("$missing")
        assert exported.span("ReadStreamEventsForward").status.status_code is StatusCode.ERROR


async def test_who_waits_for_room_has_no_span_yet() -> None:
    exported = Exported()
    async with connected(max_in_flight=1, telemetry=exported.telemetry) as (client, link, _):
        view = client.acting_as(ADMIN)
        first, given_up, last = (
            soon(each.publish_event("s", "t")) for each in (client, view, view)
        )
        request = await link.expect("WriteEvents")
        assert client.stats().waiting == 2
        given_up.cancel()
        link.reply(request)
        await first
        request = await link.expect("WriteEvents")
        assert request.login == ADMIN[0]
        link.reply(request)
        await last
        assert [span.name for span in exported.spans] == ["WriteEvents", "WriteEvents"]


async def test_what_its_caller_gave_up_ends_when_its_reply_is_let_go() -> None:
    exported = Exported()
    async with connected(telemetry=exported.telemetry) as (client, link, _):
        ping = soon(client.ping())
        request = await link.expect("Ping")
        ping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ping
        assert exported.spans == []
        link.reply(request)
        other = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await other
        first, second = exported.spans
        assert (first.attributes or {})["error.type"] == "CancelledError"
        assert second.status.status_code is StatusCode.UNSET


class Broken(SpanProcessor):
    """Raises when spans begin, or when they end."""

    def __init__(self, when: str) -> None:
        setattr(self, when, self.break_down)

    def break_down(self, *_: Any, **__: Any) -> NoReturn:
        raise ZeroDivisionError


@pytest.mark.parametrize("when", ["on_start", "on_end"])
async def test_a_processor_that_raises_disturbs_nothing(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(Broken(when))
    async with connected(telemetry=Telemetry(provider)) as (client, link, peer):
        for _ in range(2):
            ping = soon(client.ping())
            link.reply(await link.expect("Ping"))
            await ping
        subscribing = soon(client.subscribe_to("s"))
        request = await link.expect("SubscribeToStream")
        link.reply(request, last_commit_position=7, last_event_number=-1)
        await (await subscribing).unsubscribe()
        assert peer.connections == 1
    assert "ZeroDivisionError" in caplog.text


class Noting(SpanProcessor):
    """Notes in which thread spans end."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.threads.append(threading.current_thread())


async def test_what_is_given_up_ends_on_the_loop_wherever_the_collector_finds_it() -> None:
    noting, provider = Noting(), TracerProvider()
    provider.add_span_processor(noting)
    no_id = bytes(16)
    ping = Ping(no_id, frame("Ping", no_id), asyncio.Future(), 1.0)
    under_way = [Telemetry(provider).begin(ping, "", 0)]
    await asyncio.to_thread(under_way.clear)
    await eventually(lambda: noting.threads)
    assert noting.threads == [threading.current_thread()]


async def test_what_cannot_be_started() -> None:
    async with observed_client() as (client, exported):
        pass
    with pytest.raises(ClientClosed):
        await client.ping()
    assert (exported.span("Ping").attributes or {})["error.type"] == "ClientClosed"


def test_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(UsageError, match=r"fastpump\[opentelemetry\]"):
        Telemetry()


def test_a_client_without_telemetry_does_not_import_it() -> None:
    code = "import sys, fastpump; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
