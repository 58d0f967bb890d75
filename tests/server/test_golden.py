"""Recorded conversations with Event Store 4.1.4, replayed against the node frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import goldenlib
import pytest
from nodelib import NodeThread

from fastpump._commands import Command

COMMANDS = {
    Command.HeartbeatRequest,
    Command.HeartbeatResponse,
    Command.Ping,
    Command.WriteEvents,
    Command.WriteEventsCompleted,
    Command.DeleteStream,
    Command.TransactionStart,
    Command.TransactionWrite,
    Command.TransactionCommit,
    Command.ReadEvent,
    Command.ReadStreamEventsForward,
    Command.ReadStreamEventsBackward,
    Command.ReadAllEventsForward,
    Command.ReadAllEventsBackward,
    Command.SubscribeToStream,
    Command.UnsubscribeFromStream,
    Command.CreatePersistentSubscription,
    Command.UpdatePersistentSubscription,
    Command.DeletePersistentSubscription,
    Command.ConnectToPersistentSubscription,
    Command.PersistentSubscriptionAckEvents,
    Command.PersistentSubscriptionNakEvents,
    Command.ScavengeDatabase,
    Command.BadRequest,
    Command.Authenticate,
    Command.IdentifyClient,
}

DEVIATIONS = {
    "READST-04": "version 4 overflows near int64 max; the node saturates, as version 5 does",
    "ERR-18": "version 4 knows no filtered reads and subscriptions (0xBA, 0xD2); the node does",
    "ERR-52": "the original never answers who connects to a group of no stream; the node does",
    "IDEM-59": "the original lets a repetition of a write under way run into a timeout",
}

QUIET = 0.02
"""Seconds: how long nothing may arrive where the recording waited longer."""

# Those send commands that the node does not know, which is what they are about.
UNKNOWN_COMMANDS = {"ERR-19", "ERR-20", "ERR-22"}

SCENARIOS = [
    scenario
    for scenario in goldenlib.scenarios()
    if not scenario.needs_original_server
    and (scenario.commands <= COMMANDS or scenario.id in UNKNOWN_COMMANDS)
    and scenario.id not in DEVIATIONS
]


Record = Callable[[str, object], None]
"""The fixture `record_property`; `conftest` makes a report of what it is told."""


def replay_all(node: NodeThread, scenarios: list[goldenlib.Scenario], quiet: float | None) -> None:
    """Replay scenarios together and report all differences at once."""

    async def replay() -> list[list[str]]:
        host, port = node.address
        tasks = [goldenlib.replay(s, host, port, longest_quiet=quiet) for s in scenarios]
        return await asyncio.gather(*tasks)

    differences = asyncio.run(replay())
    assert not any(differences), "\n".join(line for lines in differences for line in lines)


def is_slow(scenario: goldenlib.Scenario) -> bool:
    return bool(scenario.tags & {"timing", "heartbeats"})


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if not is_slow(s)], ids=str)
def test_scenario(node: NodeThread, scenario: goldenlib.Scenario, record_property: Record) -> None:
    record_property("replayed", scenario.area)
    replay_all(node, [scenario], QUIET)


def test_slow_scenarios(record_property: Record) -> None:
    """Heartbeats and ages, with the times of the recording; side by side, as they only wait.

    In the report all of them fail if one does.
    """
    slow = [scenario for scenario in SCENARIOS if is_slow(scenario)]
    for scenario in slow:
        record_property("replayed", scenario.area)
    with NodeThread() as node:
        replay_all(node, slow, None)


@pytest.mark.parametrize("scenario_id", DEVIATIONS)
def test_known_deviations_are_still_deviations(scenario_id: str, record_property: Record) -> None:
    scenario = next(s for s in goldenlib.scenarios() if s.id == scenario_id)
    record_property("deviates", scenario.area)
    with NodeThread() as node, pytest.raises(AssertionError):
        replay_all(node, [scenario], QUIET)
