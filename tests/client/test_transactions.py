"""Explicit transactions through the client, against the embedded node."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import fastpump
import fastpump.server
from fastpump import (
    Client,
    ExpectedVersion,
    NewEvent,
    StreamDeleted,
    StreamNotFound,
    UsageError,
    WrongExpectedVersion,
)


async def client_of_a_node(stack: AsyncExitStack) -> Client:
    node = await stack.enter_async_context(fastpump.server.run())
    return await stack.enter_async_context(fastpump.connect(node.host, node.port))


async def test_tx_01_and_02_events_appear_with_the_commit() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        async with client.transaction("s", ExpectedVersion.StreamMustNotExist) as transaction:
            await transaction.write([NewEvent("a"), NewEvent("b", data={"n": 1})])
            await transaction.write(NewEvent(kind) for kind in "cd")
            with pytest.raises(StreamNotFound):
                await client.get("s")
        result = transaction.result
        assert result is not None
        assert (result.first_event_number, result.last_event_number) == (0, 3)
        assert result.position.commit > 0
        assert [event.type for event in await client.get("s")] == ["a", "b", "c", "d"]


async def test_tx_03_a_wrong_version_shows_at_the_commit() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        transaction = client.transaction("s", 1)
        await transaction.start()
        await transaction.write([NewEvent("a")])
        with pytest.raises(WrongExpectedVersion) as caught:
            await transaction.commit()
        assert (caught.value.expected_version, caught.value.actual_version) == (1, None)


async def test_tx_05_an_empty_commit_makes_no_stream() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        async with client.transaction("s") as transaction:
            pass
        assert transaction.result is not None
        assert transaction.result.last_event_number == -1
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_tx_08_the_stream_is_deleted_before_the_commit() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        transaction = client.transaction("s")
        await transaction.start()
        await transaction.write([NewEvent("a")])
        await client.delete_stream("s", hard=True)
        with pytest.raises(StreamDeleted):
            await transaction.commit()


async def test_tx_09_what_is_over_is_over() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        with pytest.raises(ZeroDivisionError):
            async with client.transaction("s") as transaction:
                await transaction.write([NewEvent("a")])
                raise ZeroDivisionError
        for attempt in (transaction.write([NewEvent("b")]), transaction.commit()):
            with pytest.raises(UsageError, match="committed or rolled back"):
                await attempt
        with pytest.raises(UsageError, match="committed or rolled back"):
            transaction.rollback()
        with pytest.raises(StreamNotFound):
            await client.get("s")


async def test_a_transaction_that_was_not_started_says_how_to() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        with pytest.raises(UsageError, match="async with"):
            await client.transaction("s").write([NewEvent("a")])


async def test_tx_10_going_on_by_id_on_another_connection() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(fastpump.server.run())
        async with fastpump.connect(node.host, node.port) as client:
            transaction = client.transaction("s")
            await transaction.start()
            await transaction.write([NewEvent("a")])
        async with (
            fastpump.connect(node.host, node.port) as client,
            client.transaction("s", transaction_id=transaction.id) as continued,
        ):
            await continued.write([NewEvent("b")])
        assert continued.result is not None
        assert continued.result.last_event_number == 1


async def test_tx_12_arguments_are_checked() -> None:
    async with AsyncExitStack() as stack:
        client = await client_of_a_node(stack)
        with pytest.raises(UsageError, match="expected_version"):
            client.transaction("s", ExpectedVersion.StreamMustExist)
        with pytest.raises(UsageError, match="transaction_id"):
            client.transaction("s", transaction_id=-1)
        with pytest.raises(UsageError, match="stream"):
            client.transaction("")
