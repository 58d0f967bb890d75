"""Creating, updating and deleting groups (section 9.3)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from fastpump._commands import Command
from fastpump.server._access import ALL
from fastpump.server._writes import soft_delete
from fastpump.server.groups.requests import (
    ChangeResult,
    change_completed,
    decode_delete,
    decode_settings,
)
from fastpump.server.groups.settings import STRATEGIES, GroupSettings
from fastpump.server.groups.storage import GroupName, write_config

if TYPE_CHECKING:
    from fastpump._framing import Frame
    from fastpump.server._access import User
    from fastpump.server._writer import Client, Group

BAD_STREAM = "Bad stream name."

_DENIED = {
    Command.CreatePersistentSubscription: "You do not have permissions to create streams",
    Command.UpdatePersistentSubscription: "You do not have permissions to update the subscription",
    # The original says it like this.
    Command.DeletePersistentSubscription: "You do not have permissions to create streams",
}


class Registry(Protocol):
    """The groups there are."""

    def settings(self) -> dict[GroupName, GroupSettings]:
        """All of them, in the order of their making."""

    def replace(self, name: GroupName, settings: GroupSettings | None) -> None:
        """Start a group, anew if it was there; None: it is deleted."""


class Change:
    """One request. It is executed with the writes, in their order, and takes effect as they do.

    Raises:
        InvalidRequest: it cannot be decoded.
    """

    def __init__(
        self, registry: Registry, client: Client, user: User | None, frame: Frame, offset: int
    ) -> None:
        self.client = client
        self.size = len(frame)
        self._registry = registry
        self._user = user
        self._command = Command(frame.command)
        self._correlation_id = frame.correlation_id
        self._name: GroupName
        self._settings: GroupSettings | None = None
        if self._command is Command.DeletePersistentSubscription:
            self._name = decode_delete(frame, offset)
        else:
            self._name, self._settings = decode_settings(frame, offset)

    def execute(self, group: Group) -> bool:
        if group.written:
            # These events would look new to a group that begins with their commit.
            return False
        result, reason = self._verdict()
        if result is ChangeResult.SUCCESS:
            self._write(group)
        group.reply(self.client, self._reply(result, reason))
        return True

    def fail(self, problem: str) -> bytes:
        return self._reply(ChangeResult.FAIL, problem)

    def _verdict(self) -> tuple[ChangeResult, str]:
        name, settings = self._name, self._settings
        is_create = self._command is Command.CreatePersistentSubscription
        if self._user is None or not self._user.is_admin:
            return ChangeResult.ACCESS_DENIED, _DENIED[self._command]
        if is_create and name.stream in ("", ALL):
            return ChangeResult.FAIL, BAD_STREAM
        known = self._registry.settings()
        if is_create and name.key in {other.key for other in known}:
            return ChangeResult.UNSUITED, f"Group '{name.group}' already exists."
        if not is_create and name not in known:
            return ChangeResult.UNSUITED, f"Group '{name.group}' does not exist."
        if settings is not None and settings.strategy not in STRATEGIES:
            return ChangeResult.FAIL, f"Consumer strategy {settings.strategy} does not exist."
        return ChangeResult.SUCCESS, ""

    def _write(self, group: Group) -> None:
        name, settings = self._name, self._settings
        assert self._user is not None
        groups = self._registry.settings()
        if settings is None:
            del groups[name]
            for stream in (name.checkpoint_stream, name.parked_stream):
                soft_delete(group, group.store.stream(stream))
        else:
            groups[name] = settings
        write_config(group, groups.items(), self._user.login)
        group.is_full = True
        group.on_committed(partial(self._registry.replace, name, settings))

    def _reply(self, result: ChangeResult, reason: str) -> bytes:
        return change_completed(self._command, self._correlation_id, result, reason)
