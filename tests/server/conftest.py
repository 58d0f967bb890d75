"""A node per module, in memory and on a file; a connection, a stream, a group for it per test."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from grouplib import Group
from nodelib import NodeThread, RawClient


@pytest.fixture(scope="module", params=["memory", "file"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeThread]:
    path = tmp_path_factory.mktemp("node") / "events.db" if request.param == "file" else None
    with NodeThread(path) as running:
        yield running


@pytest.fixture
def client(node: NodeThread) -> Iterator[RawClient]:
    with node.client() as connected:
        yield connected


@pytest.fixture
def stream() -> str:
    return f"s-{uuid.uuid4().hex}"


@pytest.fixture
def group(node: NodeThread, stream: str) -> Group:
    """A name for a group of the test's stream."""
    return Group(node, stream)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How the recorded scenarios went, by area; a test tells of them in its properties."""
    passed, failed, deviations = (
        Counter(areas_of(terminalreporter, outcome, kind))
        for outcome, kind in (
            ("passed", "replayed"),
            ("failed", "replayed"),
            ("passed", "deviates"),
        )
    )
    areas = sorted({*passed, *failed, *deviations})
    if areas:
        terminalreporter.section("replayed recordings, by area")
        terminalreporter.write_line(f"{'':14}{'passed':>8}{'failed':>8}{'known deviations':>18}")
    for area in areas:
        numbers = f"{passed[area]:8}{failed[area]:8}{deviations[area]:18}"
        terminalreporter.write_line(f"{area:14}{numbers}")


def areas_of(reporter: pytest.TerminalReporter, outcome: str, kind: str) -> Iterator[str]:
    """The area of every scenario in tests that ended so."""
    for report in reporter.getreports(outcome):
        yield from (area for name, area in report.user_properties if name == kind)
