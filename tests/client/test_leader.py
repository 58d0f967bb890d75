"""A node that is not the leader says who is: whether that is followed, and how often."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from client.pages import events_of, stream_page
from client.peer import Link, Peer, connected, eventually, leader_info, outcome, soon

import fastpump
import fastpump.server
from fastpump import NewEvent, _connector
from fastpump.discovery import DiscoveryRetryPolicy, NodeService
from fastpump.exceptions import (
    ConnectFailed,
    ConnectionLost,
    NotMaster,
    OperationExpired,
    RetriesLimitReached,
)


async def refer(link: Link, command: str, info: bytes) -> None:
    """Refuse the next request and name the leader."""
    link.reply(await link.expect(command), "NotHandled", reason=2, additional_info=info)


async def test_conn_13_all_requests_go_to_the_leader_once() -> None:
    async with connected() as (client, link, peer), Peer() as leader:
        writing = [soon(client.publish_event("s", "t")) for _ in range(3)]
        reading = soon(client.get("s"))
        requests = [await link.expect("WriteEvents") for _ in range(3)]
        await link.expect("ReadStreamEventsForward")
        for request in requests[:2]:
            info = leader_info(leader.port)
            link.reply(request, "NotHandled", reason=2, additional_info=info)
        await link.closed()
        link = await leader.accept_and_greet()
        again = [await link.receive() for _ in range(4)]
        writes = [request for request in again if request.command == "WriteEvents"]
        assert sorted(each.event_ids for each in writes) == sorted(
            each.event_ids for each in requests
        )
        for request in again:
            if request in writes:
                link.reply(request, last_event_number=1)
            else:
                link.send_raw(stream_page(request, events_of("s", 1)))
        await asyncio.gather(*writing, reading)
        assert (peer.connections, leader.connections) == (1, 1)
        await client.close()


async def test_conn_13_a_node_that_is_left_has_not_failed() -> None:
    policy = DiscoveryRetryPolicy()
    async with connected(retry_policy=policy) as (client, link, peer), Peer() as leader:
        asking = soon(client.ping())
        await refer(link, "Ping", leader_info(leader.port))
        link = await leader.accept_and_greet()
        link.reply(await link.expect("Ping"))
        await asking
        for node in (peer, leader):
            stats = policy.stats[NodeService(node.host, node.port)]
            assert (stats.successes, stats.failures) == (1, 0)
        await client.close()


async def test_conn_13_the_node_names_itself() -> None:
    async with connected(max_attempts=3) as (client, link, peer):
        asking = soon(client.get("s"))
        for _ in range(3):
            await refer(link, "ReadStreamEventsForward", leader_info(peer.port))
        error = await outcome(asking)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, NotMaster)
        assert f"127.0.0.1:{peer.port}" in str(error)
        assert "Sent 3 times" in str(error)
        assert peer.connections == 1
        ping = soon(client.ping())
        link.reply(await link.expect("Ping"))
        await ping


async def test_conn_13_the_node_names_itself_by_address() -> None:
    async with Peer() as peer:  # connected to by name
        client = fastpump.connect("localhost", peer.port, max_attempts=2, reconnect_delay=0.01)
        link, _ = await asyncio.gather(peer.accept_and_greet(), client.connect())
        asking = soon(client.get("s"))
        for _ in range(2):
            await refer(link, "ReadStreamEventsForward", leader_info(peer.port))
        error = await outcome(asking)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, NotMaster)
        assert peer.connections == 1
        await client.close()


async def test_conn_13_two_nodes_that_name_each_other() -> None:
    async with Peer() as first, Peer() as second:
        client, link = await first.connect(max_attempts=5)
        asking = soon(client.get("s"))
        await refer(link, "ReadStreamEventsForward", leader_info(second.port))
        link = await second.accept_and_greet()
        for _ in range(4):  # it stays here for a while
            await refer(link, "ReadStreamEventsForward", leader_info(first.port))
        error = await outcome(asking)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, NotMaster)
        assert "Sent 5 times" in str(error)
        assert (first.connections, second.connections) == (1, 1)
        await client.close()


async def test_conn_13_to_and_fro_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connector, "SETTLING_TIME", 0)
    async with Peer() as first, Peer() as second:
        client, link = await first.connect(max_attempts=6)
        asking = soon(client.get("s"))
        for leader in (second, first, second, first, second):
            await refer(link, "ReadStreamEventsForward", leader_info(leader.port))
            link = await leader.accept_and_greet()
        await refer(link, "ReadStreamEventsForward", leader_info(first.port))
        error = await outcome(asking)
        assert isinstance(error, RetriesLimitReached)
        assert isinstance(error.last_error, NotMaster)
        assert (first.connections, second.connections) == (3, 3)
        await client.close()


@pytest.mark.parametrize(
    "info",
    [
        b"",
        leader_info(0),
        leader_info(70_000),
        leader_info(-1),
        leader_info(1113, host=""),
        leader_info(1113, host="a b"),
        leader_info(1113, host="a" * 256),
        leader_info(0, secure_port=1115),  # and we speak plainly
    ],
)
async def test_conn_13_an_address_that_is_none(info: bytes) -> None:
    async with connected() as (client, link, peer):
        asking = soon(client.get("s"))
        await refer(link, "ReadStreamEventsForward", info)
        request = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(request, events_of("s", 1)))
        assert len(await asking) == 1
        assert peer.connections == 1


async def test_conn_13_a_leader_that_is_gone() -> None:
    async with Peer() as gone:
        port = gone.port
    async with connected() as (client, link, peer):
        asking = soon(client.get("s"))
        await refer(link, "ReadStreamEventsForward", leader_info(port))
        link = await peer.accept_and_greet()  # back where it came from
        request = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(request, events_of("s", 1)))
        assert len(await asking) == 1


async def test_conn_13_followed_also_where_reconnecting_is_not_wanted() -> None:
    async with connected(max_reconnects=0) as (client, link, _), Peer() as leader:
        asking = soon(client.ping())
        await refer(link, "Ping", leader_info(leader.port))
        link = await leader.accept_and_greet()
        link.reply(await link.expect("Ping"))
        await asking
        await link.cut()
        await eventually(lambda: client.ping().close() or "closed" in repr(client))
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{leader.port} was lost"):
            await client.ping()


async def test_conn_13_a_transactions_write_follows_too() -> None:
    """The one that was answered: what had no answer may be in the transaction already."""
    async with connected() as (client, link, _), Peer() as leader:
        transaction = client.transaction("s", transaction_id=7)
        told, untold = (soon(transaction.write([NewEvent("t")])) for _ in range(2))
        requests = [await link.expect("TransactionWrite") for _ in range(2)]
        info = leader_info(leader.port)
        link.reply(requests[0], "NotHandled", reason=2, additional_info=info)
        link = await leader.accept_and_greet()
        again = await link.expect("TransactionWrite")
        assert again.payload == requests[0].payload
        link.reply(again, transaction_id=7)
        await told
        assert isinstance(await outcome(untold), ConnectionLost)
        await link.nothing_more()
        await client.close()


async def test_conn_13_a_transactions_write_is_repeated_when_the_node_is_ready() -> None:
    async with connected() as (client, link, peer):
        writing = soon(client.transaction("s", transaction_id=7).write([NewEvent("t")]))
        link.reply(await link.expect("TransactionWrite"), "NotHandled", reason=0)
        await link.cut()
        link = await peer.accept_and_greet()
        link.reply(await link.expect("TransactionWrite"), transaction_id=7)
        await writing


async def test_conn_13_a_leader_that_is_gone_where_reconnecting_is_not_wanted() -> None:
    async with Peer() as gone:
        port = gone.port
    async with connected(max_reconnects=0) as (client, link, _):
        asking = soon(client.ping())
        await refer(link, "Ping", leader_info(port))
        error = await outcome(asking)
        assert isinstance(error, ConnectFailed)
        assert f"the last one to 127.0.0.1:{port} failed" in str(error)


async def test_conn_13_a_leader_that_does_not_answer() -> None:
    async with connected(queue_timeout=0.3) as (client, link, _), Peer() as leader:
        asking = soon(client.ping())
        await refer(link, "Ping", leader_info(leader.port))
        await leader.accept()
        assert isinstance(await outcome(asking), OperationExpired)
        await client.close()


async def test_conn_13_cancelled_calls_do_not_follow() -> None:
    async with connected() as (client, link, peer):
        asking = soon(client.ping())
        request = await link.expect("Ping")
        asking.cancel()
        await asyncio.wait({asking})
        info = leader_info(1)
        link.reply(request, "NotHandled", reason=2, additional_info=info)
        await link.nothing_more()
        assert peer.connections == 1


async def test_conn_15_nothing_of_the_old_connection_answers_on_the_new_one() -> None:
    async with connected() as (client, link, _), Peer() as leader:
        asking = soon(client.get("s"))
        old = await link.expect("ReadStreamEventsForward")
        info = leader_info(leader.port)
        link.reply(old, "NotHandled", reason=2, additional_info=info)
        link.send_raw(stream_page(old, events_of("s", 1)))  # in the same packet, or too late
        link = await leader.accept_and_greet()
        new = await link.expect("ReadStreamEventsForward")
        link.send_raw(stream_page(old, events_of("s", 1)))
        await link.nothing_more()
        assert not asking.done()
        link.send_raw(stream_page(new, events_of("s", 2)))
        assert len(await asking) == 2
        await client.close()


async def test_conn_13_to_the_leaders_secure_port() -> None:
    pytest.importorskip("cryptography")
    async with (
        fastpump.server.run_cluster(nodes=2, tls="development") as cluster,
        fastpump.connect(
            cluster.nodes[1].host,
            cluster.nodes[1].port,
            tls=ssl.create_default_context(cafile=cluster.ca_file),
        ) as client,
    ):
        await client.publish_event("s", "t", require_master=True)
        assert cluster.nodes[0].connection_count == 1
        assert len(await client.get("s", require_master=True)) == 1
