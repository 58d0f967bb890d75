"""Faults of photon-pump 0.9.5.2 that must not come back; each has a test that fails on it.

Most of these tests stand with what they are about; ELSEWHERE tells where. The rest is here, and
named for the fault.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.pages import all_page, events_of, stream_page
from client.peer import connected, reply_to, serving, soon

import fastpump
from fastpump import Position, StreamDirection
from fastpump.server import _heartbeat

TESTS = Path(__file__).parents[1]

ELSEWHERE = {
    "awaiting another operation inside a loop over iter() waits for ever": [
        "client/test_iterating.py::test_awaiting_another_operation_inside",
    ],
    "after a reconnect iter() repeats an event": [
        "client/test_iterating.py::test_pp_11_cut_between_pages",
        "client/test_iterating.py::test_pp_11_cut_on_every_page",
    ],
    "after a reconnect iter_all() starts over": [
        "client/test_iterating.py::test_pp_11_cut_between_pages_of_the_log",
    ],
    "after a reconnect a catch-up subscription skips or repeats events": [
        "client/test_subscription_catching_up.py::test_csub_16_pp_13_cut_in_history",
        "client/test_subscription_catching_up.py::test_csub_16_pp_13_cut_between_history_and_live",
        "client/test_subscription_catching_up.py::test_csub_16_pp_13_cut_at_many_bytes_of_the_pushes",
    ],
    "backwards from event 0 reads from the end": [
        "client/test_iterating.py::test_from_event_0_backwards_asks_for_event_0",
    ],
    "an unknown command byte ends the reader": [
        "client/test_replies.py::test_proto_06_unknown_command",
    ],
    "event numbers have 32 bits": [
        "acceptance/test_big_numbers.py::test_big_02_reading",
        "acceptance/test_big_numbers.py::test_big_04_following",
    ],
    "queues without bounds": [
        "client/test_iterating.py::test_window_is_bounded_in_pages",
        "client/test_iterating.py::test_window_is_bounded_in_bytes",
        "client/test_sending.py::test_conn_10_more_callers_than_places",
        "client/test_sending.py::test_publishers_are_held_back_while_the_server_does_not_read",
        "client/test_subscription_loops.py::test_csub_13_vsub_12_slow_consumer",
    ],
    "two system writes for every message": [
        "client/test_sending.py::test_requests_of_one_turn_leave_in_one_write",
    ],
    "operations without a timeout": [
        "client/test_replies.py::test_conn_08_late_reply_of_a_call_that_timed_out",
    ],
    "after a reconnect everything is sent again": [
        "client/test_reconnecting.py::test_cancelled_calls_are_not_sent_again",
        "client/test_reconnecting.py::test_conn_07_sent_only_so_often",
    ],
    "dropped subscriptions are never forgotten": [
        "client/test_subscription_requests.py::test_what_is_under_way_after_unsubscribe_is_not_unknown",
    ],
    "a node that is not the leader is not left for the leader": [
        "client/test_leader.py::test_conn_13_all_requests_go_to_the_leader_once",
        "client/test_failover.py::test_disc_12_a_follower_serves_reads_and_leads_to_the_leader",
    ],
    "gossip only over http": [
        "client/test_gossip.py::test_disc_01_gossip_over_https",
        "client/test_failover.py::test_disc_01_over_tls",
    ],
    "gossip only in the words of old servers": [
        "client/test_discovery.py::test_disc_03_both_vocabularies",
        "client/test_discovery.py::test_disc_01_both_shapes_of_members",
        "client/test_failover.py::test_disc_01_finds_the_leader",
    ],
    "a persistent subscription loses the retry count": [
        "client/test_groups_consuming.py::test_psub_20_retry",
        "client/test_groups_consuming.py::test_psub_31_pp_14_cut_with_events_in_flight",
    ],
    "one ack for every message": [
        "client/test_group_answers.py::test_acks_go_in_few_frames",
        "client/test_group_answers.py::test_acks_in_a_loop_that_does_not_wait",
    ],
    "in flight are ten": [
        "client/test_group_requests.py::test_in_flight_is_not_fixed_at_ten",
        "client/test_groups_consuming.py::test_psub_19_in_flight",
    ],
    "acks go to the old connection after a reconnect": [
        "client/test_group_consumers.py::test_psub_31_pp_14_it_connects_again_by_itself",
        "client/test_group_consumers.py::test_psub_31_acks_of_the_old_connection_are_not_sent",
    ],
    "a strategy is misspelt": [
        "client/test_groups.py::test_psub_04_the_strategies_have_their_right_names",
    ],
    "local datetimes without a time zone": [
        "acceptance/test_appending.py::test_app_17_created",
    ],
}


@pytest.mark.parametrize("fault", ELSEWHERE)
def test_the_tests_named_here_are_there(fault: str) -> None:
    for place in ELSEWHERE[fault]:
        module, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / module).read_text(encoding="utf-8"), place


async def test_an_iterator_cut_behind_event_0_starts_over() -> None:
    """photon-pump took number 0, its last one, for no number at all."""
    events = events_of("s", 3)
    async with connected() as (client, link, peer):
        loop = client.iter("s", batch_size=1)
        first = soon(anext(loop))
        link.send_raw(stream_page(await link.expect("ReadStreamEventsForward"), events))
        seen = [(await first).event_number]
        await link.cut()
        async with serving(
            await peer.accept_and_greet(), lambda request: stream_page(request, events)
        ):
            seen += [event.event_number async for event in loop]
        assert seen == [0, 1, 2]


async def test_a_late_heartbeat_reply_ends_the_reader() -> None:
    """photon-pump set the result of a future that was done, inside its reader."""
    async with connected(heartbeat_interval=0.02, heartbeat_timeout=30) as (client, link, peer):
        heartbeat = await link.expect("HeartbeatRequest")
        for _ in range(3):
            link.send("HeartbeatResponse", heartbeat.id)
        link.send("HeartbeatResponse", b"nobody asked for")
        async with serving(link, reply_to):
            await client.ping()
        assert peer.connections == 1


async def test_a_denied_write_ends_the_reader() -> None:
    """photon-pump set the future of such a write twice, inside its reader."""
    async with connected() as (client, link, peer):
        denied, written = soon(client.publish_event("s", "t")), soon(client.publish_event("s", "t"))
        first, second = await link.expect("WriteEvents"), await link.expect("WriteEvents")
        link.reply(first, result=7, message="Access denied.")
        link.reply(second, first_event_number=3, last_event_number=3)
        with pytest.raises(fastpump.AccessDenied):
            await denied
        assert (await written).last_event_number == 3
        assert peer.connections == 1


def test_heartbeats_slower_than_the_patience_of_servers() -> None:
    """photon-pump sent one in 30 seconds; a server waits for a sign of life for 3."""
    ours = inspect.signature(fastpump.connect).parameters["heartbeat_interval"].default
    assert ours < _heartbeat.INTERVAL


@pytest.mark.parametrize("direction", StreamDirection)
async def test_get_all_swaps_where_a_page_starts_and_where_the_next_one_does(
    direction: StreamDirection,
) -> None:
    async with connected() as (client, link, _), serving(link, lambda r: all_page(r, 10)):
        page = await client.get_all(direction, Position(5, 5), 2)
        following = 7 if direction == StreamDirection.Forward else 3
        assert (page.start_position, page.next_position) == ((5, 5), (following, following))


def calls_of_print(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
            yield f"{module.name}:{node.lineno}"


def test_the_library_prints() -> None:
    modules = Path(fastpump.__file__).parent.rglob("*.py")
    assert [call for module in modules for call in calls_of_print(module)] == []
