"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

import fastpump

PASSWORD_VARIABLE = "FASTPUMP_PASSWORD"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1113
"""The port Event Store listens on for TCP clients unless told otherwise."""

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Server:
    """Which node to talk to, and as whom (nobody in particular if `username` is None)."""

    host: str
    port: int
    username: str | None
    password: str | None

    def connect(self) -> fastpump.Client:
        """A client for this node; it connects when entered as a context manager."""
        return fastpump.connect(
            self.host, self.port, username=self.username, password=self.password
        )


def server_options(command: Command) -> Command:
    """Add --host, --port and --username; `server_from` makes a `Server` of their values."""
    username = click.option(
        "--username",
        metavar="NAME",
        help=f"Act as this user. The password is taken from the environment variable "
        f"{PASSWORD_VARIABLE}, or asked for.",
    )
    port = click.option(
        "--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True
    )
    host = click.option("--host", default=DEFAULT_HOST, show_default=True)
    return host(port(username(command)))


def server_from(host: str, port: int, username: str | None) -> Server:
    """The node to talk to; asks for the user's password if the environment has none."""
    password = None
    if username is not None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            password = click.prompt(f"Password of {username}", hide_input=True, err=True)
    return Server(host, port, username, password)
