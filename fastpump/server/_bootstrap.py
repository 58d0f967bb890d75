"""The first events of a new database: its users, as a new Event Store has them (section 6.4)."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson

from fastpump.server._messages import decode_write_events, encode_fields
from fastpump.server._streams import metastream_of
from fastpump.server._versions import ANY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastpump.server._users import Account
    from fastpump.server._writer import Group

FULL_NAMES = {"admin": "Event Store Administrator", "ops": "Event Store Operations"}
ITERATIONS = 1000
"""Of PBKDF2 with SHA-1, the original's way of keeping passwords."""

_ONLY_ADMINS = {"$acl": {"$w": "$admins", "$d": "$admins", "$mw": "$admins"}}


def write_first_events(group: Group, accounts: Mapping[str, Account]) -> None:
    """Append the events that tell of the users with these logins."""
    for login, account in accounts.items():
        stream = f"$user-{login}"
        _append(group, metastream_of(stream), "$metadata", orjson.dumps(_ONLY_ADMINS), is_json=True)
        user = _user_created(login, account)
        _append(group, stream, "$UserCreated", orjson.dumps(user), is_json=True)
        _append(group, "$users", "$User", login.encode(), is_json=False)


def _user_created(login: str, account: Account) -> dict[str, object]:
    salt = os.urandom(16)
    hashed = hashlib.pbkdf2_hmac("sha1", account.password.encode(), salt, ITERATIONS, 20)
    return {
        "loginName": login,
        "fullName": FULL_NAMES.get(login, login),
        "salt": b64encode(salt).decode(),
        "hash": b64encode(hashed).decode(),
        "disabled": False,
        "groups": account.groups,
    }


def _append(group: Group, stream: str, event_type: str, data: bytes, *, is_json: bool) -> None:
    event = encode_fields(uuid4().bytes_le, event_type, is_json, 0, data, b"")
    request = decode_write_events(encode_fields(stream, ANY, [event], True))
    group.append(group.store.stream(stream), request)
