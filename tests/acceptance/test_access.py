"""SEC: who may do what.

A row names a stream, the roles in its list or in the system's settings, and who may by right. The
check has every caller try every operation on a stream of its own with that list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from acceptance.scenes import ANY, BACKWARD, connect, count, node_and_admin, write
from client.peer import outcome

from fastpump import (
    AccessDenied,
    Acl,
    Beginning,
    Client,
    End,
    NewEvent,
    NotAuthenticated,
    StreamMetadata,
)
from fastpump._operating import Operating

USERS = {"user1": "pw", "user2": "pw", "adm": ("pw", ["$admins"])}

EVERYONE = frozenset({"anonymous", "user2", "user1", "adm"})
USER1 = frozenset({"user1", "adm"})
USER2 = frozenset({"user2", "adm"})
ADM = frozenset({"adm"})
NOBODY: frozenset[str] = frozenset()

READ, WRITE, DELETE, META_READ, META_WRITE = RIGHTS = (
    "read",
    "write",
    "delete",
    "meta_read",
    "meta_write",
)

Callers = dict[str, Operating]

Allowed = dict[str, frozenset[str]]
"""Who may, by right; everyone where a right is not in it."""


def every(who: frozenset[str]) -> Allowed:
    return dict.fromkeys(RIGHTS, who)


def every_role(role: str) -> Acl:
    return Acl(**dict.fromkeys(RIGHTS, role))


@asynccontextmanager
async def admin_and_callers() -> AsyncIterator[tuple[Client, Callers]]:
    """A client of the node's own administrator, and all callers, on another one's connection."""
    async with node_and_admin(users=USERS) as (node, admin), connect(node, None) as client:
        callers = {login: client.acting_as((login, "pw")) for login in USERS}
        yield admin, {"anonymous": client, **callers}


async def transact(client: Operating, stream: str) -> None:
    async with client.transaction(stream) as transaction:
        await transaction.write([NewEvent("t")])


async def take_one(subscribing: Awaitable[Any]) -> None:
    async with await subscribing as subscription:
        await anext(subscription.events)


async def only_subscribe(subscribing: Awaitable[Any]) -> None:
    await (await subscribing).unsubscribe()


async def read_all_of(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass


def operations(
    client: Operating, stream: str, metadata: StreamMetadata
) -> Iterator[tuple[str, Awaitable[Any]]]:
    """All there are, with the right they need; each is made when the next one is asked for.

    What takes the metadata away, or the stream, comes last.
    """
    yield READ, client.get_event(stream, 0)
    yield READ, client.get(stream)
    yield READ, client.get(stream, BACKWARD)
    yield READ, read_all_of(client.iter(stream))
    yield READ, only_subscribe(client.subscribe_to(stream))
    yield READ, take_one(client.subscribe_to(stream, start_from=0))
    yield WRITE, client.publish_event(stream, "t")
    yield WRITE, client.publish_conditional(stream, [NewEvent("t")], ANY)
    yield WRITE, transact(client, stream)
    yield META_READ, client.get_stream_metadata(stream)
    yield META_WRITE, client.set_stream_metadata(stream, metadata)
    yield DELETE, client.delete_stream(stream)


WRITES = 3
"""How many of them add an event to the stream."""


def operations_on_all(client: Operating) -> Iterator[tuple[str, Awaitable[Any]]]:
    """The same for the log of all events, whose metadata is left as it is."""
    yield READ, client.get_all()
    yield READ, client.get_all(BACKWARD)
    yield READ, read_all_of(client.iter_all())
    yield READ, only_subscribe(client.subscribe_to_all(End))
    yield READ, take_one(client.subscribe_to_all(Beginning))
    yield META_READ, client.get_stream_metadata("$all")
    yield WRITE, client.publish_event("$all", "t")
    yield DELETE, client.delete_stream("$all")
    yield DELETE, client.delete_stream("$all", hard=True)


async def everything_is_refused(
    attempts: Iterator[tuple[str, Awaitable[Any]]], kind: type[Exception]
) -> None:
    for _, attempt in attempts:
        with pytest.raises(kind):
            await attempt


async def check_attempts(
    caller: str, attempts: Iterator[tuple[str, Awaitable[Any]]], allowed: Allowed
) -> None:
    for right, attempt in attempts:
        error = await outcome(attempt)
        what = (caller, right, attempt, error)
        if caller in allowed.get(right, EVERYONE):
            assert error is None, what
        else:
            assert isinstance(error, AccessDenied), what


class Row(NamedTuple):
    """The beginning of a stream's name, its list if it has one, and who may; settings that hold."""

    stream: str
    acl: Acl | None
    allowed: Allowed
    user_streams: Acl | None = None
    system_streams: Acl | None = None


ROWS = {
    "SEC-02, no list": Row("s", None, {}),
    "SEC-02, everything to all": Row("s", every_role("$all"), {}),
    "SEC-03": Row("s", Acl(read="user1"), {READ: USER1}),
    "SEC-04": Row("s", Acl(write="user1"), {WRITE: USER1}),
    "SEC-06, read": Row("s", Acl(meta_read="user1"), {META_READ: USER1}),
    "SEC-06, write": Row("s", Acl(meta_write="user1"), {META_WRITE: USER1}),
    "SEC-07, user": Row("s", Acl(delete="user1"), {DELETE: USER1}),
    "SEC-07, administrators": Row("s", Acl(delete="$admins"), {DELETE: ADM}),
    "SEC-07, all": Row("s", Acl(delete="$all"), {DELETE: EVERYONE}),
    "SEC-08, user": Row("$s", Acl(delete="user1"), {**every(ADM), DELETE: USER1}),
    "SEC-08, administrators": Row("$s", Acl(delete="$admins"), every(ADM)),
    "SEC-08, all": Row("$s", Acl(delete="$all"), {**every(ADM), DELETE: EVERYONE}),
    "SEC-09, no list": Row("$s", None, every(ADM)),
    "SEC-09, administrators": Row("$s", every_role("$admins"), every(ADM)),
    "SEC-09, user": Row("$s", every_role("user1"), every(USER1)),
    "SEC-09, all": Row("$s", every_role("$all"), {}),
    "SEC-11": Row(
        "s",
        Acl(read=["user1", "user2"], write=["$admins", "user1"], delete=["user1", "$all"]),
        {READ: USER1 | USER2, WRITE: USER1},
    ),
    "SEC-12, user stream": Row("s", None, every(USER1), user_streams=every_role("user1")),
    "SEC-12, its own list": Row("s", every_role("$all"), {}, user_streams=every_role("user1")),
    "SEC-12, system stream": Row("$s", None, {}, system_streams=every_role("$all")),
    "SEC-13, one kind in the settings": Row(
        "s", None, {READ: USER1}, user_streams=Acl(read="user1")
    ),
    "SEC-13, one kind in the settings of system streams": Row(
        "$s", None, {**every(ADM), READ: USER1}, system_streams=Acl(read="user1")
    ),
    "SEC-13, one kind in the list": Row(
        "s",
        Acl(write="user1"),
        {READ: USER2, WRITE: USER1},
        user_streams=Acl(read="user2", write="user2"),
    ),
    "SEC-14, empty": Row("s", Acl(read=[], write=[]), {READ: ADM, WRITE: ADM}),
    "SEC-14, one": Row("s", Acl(read=["user1"]), {READ: USER1}),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_sec_02_to_14_who_may_by_the_lists(row: Row) -> None:
    metadata = StreamMetadata(acl=row.acl)
    async with admin_and_callers() as (admin, callers):
        await admin.set_system_settings(row.user_streams, row.system_streams)
        for caller, client in callers.items():
            stream = f"{row.stream}-of-{caller}"
            await write(admin, stream, 1)
            if row.acl is not None:
                await admin.set_stream_metadata(stream, metadata)
            await check_attempts(caller, operations(client, stream, metadata), row.allowed)
            is_deleted = caller in row.allowed.get(DELETE, EVERYONE)
            written = WRITES if caller in row.allowed.get(WRITE, EVERYONE) else 0
            assert await count(admin, stream) == (0 if is_deleted else 1 + written)


async def test_sec_01_a_wrong_password_is_always_refused() -> None:
    async with node_and_admin() as (node, admin), connect(node, None) as client:
        nobody = client.acting_as(("admin", "wrong"))
        for stream in ("s", "$s"):
            await write(admin, stream, 1)
            metadata = StreamMetadata(acl=every_role("$all"))
            await admin.set_stream_metadata(stream, metadata)
            await everything_is_refused(operations(nobody, stream, metadata), NotAuthenticated)
            assert await count(client, stream) == 1
        await everything_is_refused(operations_on_all(nobody), NotAuthenticated)


async def test_sec_05_a_transaction_goes_on_as_somebody_else() -> None:
    """Rights are looked at when it starts and when it is committed, as servers before 20 do.

    A wrong password is refused with every request, as was recorded, other than the row has it.
    """
    async with admin_and_callers() as (admin, callers):
        await admin.set_stream_metadata("s", StreamMetadata(acl=Acl(write="user1")))
        started = callers["user1"].transaction("s")
        await started.start()
        for caller in ("anonymous", "user2"):
            continued = callers[caller].transaction("s", transaction_id=started.id)
            await continued.write([NewEvent("t")])
            with pytest.raises(AccessDenied):
                await continued.commit()
        wrong = admin.acting_as(("user1", "wrong"))
        continued = wrong.transaction("s", transaction_id=started.id)
        for attempt in (continued.write([NewEvent("t")]), continued.commit()):
            with pytest.raises(NotAuthenticated):
                await attempt
        await started.write([NewEvent("t")])
        assert (await started.commit()).last_event_number == 2


async def test_sec_10_the_log_of_all_events() -> None:
    nobody_writes = {WRITE: NOBODY, DELETE: NOBODY}
    async with admin_and_callers() as (admin, callers):
        for acl, who in ((Acl(), ADM), (Acl(read="user1"), USER1)):
            metadata = StreamMetadata(acl=acl)
            await admin.set_stream_metadata("$all", metadata)
            for caller, client in callers.items():
                allowed = {READ: who, META_READ: ADM, META_WRITE: ADM, **nobody_writes}
                await check_attempts(caller, operations_on_all(client), allowed)
                setting = iter([(META_WRITE, client.set_stream_metadata("$all", metadata))])
                await check_attempts(caller, setting, allowed)


async def test_sec_15_credentials_of_the_connection_and_of_a_call() -> None:
    """Wrong ones of the connection end `connect`, so that no call is made with them."""
    async with node_and_admin(users=USERS) as (node, admin):
        await write(admin, "$s", 1)
        async with connect(node, "adm", "pw") as by_default:
            assert len(await by_default.get("$s")) == 1
            for login, password, kind in (
                ("user1", "pw", AccessDenied),
                ("adm", "wrong", NotAuthenticated),
            ):
                with pytest.raises(kind):
                    await by_default.acting_as((login, password)).get("$s")
            assert len(await by_default.get("$s")) == 1
        async with connect(node, "user1", "pw") as by_default:
            with pytest.raises(AccessDenied):
                await by_default.get("$s")
            assert len(await by_default.acting_as(("adm", "pw")).get("$s")) == 1
        with pytest.raises(NotAuthenticated):
            await connect(node, "adm", "wrong").connect()


async def test_sec_16_a_refusal_does_no_harm() -> None:
    """A client that must not reconnect would end with the first connection."""
    async with node_and_admin() as (node, admin):
        await write(admin, "$s", 1)
        async with connect(node, None, max_reconnects=0) as client:
            async with await client.subscribe_to("open") as subscription:
                attempts = operations(client, "$s", StreamMetadata())
                await everything_is_refused(attempts, AccessDenied)
                wrong = client.acting_as(("admin", "wrong"))
                await everything_is_refused(operations_on_all(wrong), NotAuthenticated)
                written = await client.publish_event("open", "t")
                event = await anext(subscription.events)
                assert event.position == written.position


async def test_sec_17_a_group_that_is_left() -> None:
    users = {"user1": ("pw", ["writers"])}
    async with node_and_admin(users=users) as (node, admin):
        await admin.set_stream_metadata("s", StreamMetadata(acl=Acl(write="writers")))
        user1 = admin.acting_as(("user1", "pw"))
        assert await write(user1, "s", 1) == 0
        node.users.set("user1", "pw")
        with pytest.raises(AccessDenied):
            await write(user1, "s", 1)
