"""ScavengeDatabase: there is never anything to do, but not everybody may ask for it."""

from __future__ import annotations

import pytest
from nodelib import ADMIN, OPS, WRONG, Auth, RawClient, event

from fastpump._commands import Command


@pytest.mark.parametrize("auth", [ADMIN, OPS])
def test_those_who_may(client: RawClient, stream: str, auth: Auth) -> None:
    client.write(stream, [event()])
    client.delete(stream, hard=True)
    before = client.all_backward(count=5).items
    reply = client.ask(Command.ScavengeDatabase, auth)
    assert reply == (
        Command.ScavengeDatabaseCompleted,
        {"result": 0, "total_time_ms": 0, "total_space_saved": 0},
    )
    assert client.all_backward(count=5).items == before


def test_those_who_may_not(client: RawClient) -> None:
    reply, fields = client.ask(Command.ScavengeDatabase)
    assert reply == Command.ScavengeDatabaseCompleted
    assert (fields["result"], fields["error"]) == (2, "Access denied.")
    assert client.ask(Command.ScavengeDatabase, WRONG)[0] == Command.NotAuthenticated
    assert client.exchange(Command.ScavengeDatabase, b"\x0a\xff")[0] == Command.BadRequest
