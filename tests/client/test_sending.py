"""Writing: one write for each turn of the loop, and producers held back when it gets too much."""

from __future__ import annotations

import asyncio

from client.peer import connected, eventually, reply_to, serving, soon

MIB = 1024 * 1024


async def test_requests_of_one_turn_leave_in_one_write(writes: list[bytes]) -> None:
    async with connected() as (client, link, _), serving(link, reply_to) as requests:
        # The handshake's came one by one, and so may the first behind it: see test_outbox.
        for round_number, most in ((1, 2), (2, 1)):
            writes.clear()
            calls = [client.publish_event("s", "t", {"number": n}) for n in range(200)]
            calls += [client.get("s") for _ in range(20)]
            await asyncio.gather(*calls)
            assert len(requests) == round_number * 220
            assert len(writes) <= most
        writes.clear()
        await client.publish_event("s", "t")
        assert len(writes) == 1


async def test_app_22_writes_keep_their_order() -> None:
    async with connected() as (client, link, _), serving(link, reply_to) as requests:
        await asyncio.gather(
            *(client.publish_event("s", "t", expected_version=n) for n in range(100))
        )
        assert [request.fields["expected_version"] for request in requests] == list(range(100))


async def test_large_requests_do_not_wait_for_the_end_of_the_turn(writes: list[bytes]) -> None:
    async with connected() as (client, link, _), serving(link, reply_to):
        writes.clear()
        await asyncio.gather(*(client.publish_event("s", "t", bytes(100_000)) for _ in range(50)))
        assert max(map(len, writes)) < MIB


async def test_publishers_are_held_back_while_the_server_does_not_read(
    writes: list[bytes],
) -> None:
    body = bytes(100_000)
    async with connected(operation_timeout=60) as (client, link, _):
        writes.clear()
        calls = [soon(client.publish_event("s", "t", body)) for _ in range(400)]
        seen = -1
        while seen != len(writes):  # until nothing more is written
            seen = len(writes)
            await asyncio.sleep(0.05)
        assert sum(map(len, writes)) < 16 * MIB, "the server has read nothing of it"

        async with serving(link, reply_to) as requests:
            await asyncio.gather(*calls)
        assert len(requests) == 400


async def test_held_back_publishers_fail_when_the_client_is_closed() -> None:
    async with connected() as (client, _, _):
        calls = [soon(client.publish_event("s", "t", bytes(100_000))) for _ in range(400)]
        await asyncio.sleep(0.05)
        await client.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result).__name__ for result in results} == {"ClientClosed"}


async def test_held_back_publishers_go_on_over_a_new_connection() -> None:
    async with connected(operation_timeout=60) as (client, link, peer):
        calls = [soon(client.publish_event("s", "t", bytes(100_000))) for _ in range(400)]
        await asyncio.sleep(0.05)
        link.abort()
        async with serving(await peer.accept_and_greet(), reply_to):
            await asyncio.gather(*calls)


async def test_held_back_caller_can_be_cancelled() -> None:
    async with connected(max_in_flight=1) as (client, link, _):
        first = soon(client.ping())
        request = await link.expect("Ping")
        second, third = soon(client.ping()), soon(client.ping())
        await asyncio.sleep(0)
        second.cancel()
        link.reply(request)
        await first
        link.reply(await link.expect("Ping"))
        await third
        assert second.cancelled()


async def test_place_given_to_a_cancelled_caller_goes_to_the_next() -> None:
    async with connected(max_in_flight=1) as (client, link, _):

        async def ping_and_cancel() -> None:
            await client.ping()
            # Its place is free and was given to the second, which has not run yet.
            second.cancel()

        first = soon(ping_and_cancel())
        second, third = soon(client.ping()), soon(client.ping())
        link.reply(await link.expect("Ping"))
        await first
        link.reply(await link.expect("Ping"))
        await third
        assert second.cancelled()


async def test_conn_10_more_callers_than_places() -> None:
    async with connected(max_in_flight=1) as (client, link, _):
        calls = [soon(client.ping()) for _ in range(3)]
        for number in range(3):
            request = await link.expect("Ping")
            await link.nothing_more()
            assert sum(call.done() for call in calls) == number
            link.reply(request)
            await eventually(lambda wanted=number + 1: sum(c.done() for c in calls) == wanted)
        await asyncio.gather(*calls)
