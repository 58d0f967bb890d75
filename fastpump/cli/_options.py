"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import click

import fastpump

PASSWORD_VARIABLE = "FASTPUMP_PASSWORD"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1113
"""The port Event Store listens on for TCP clients unless told otherwise."""


@dataclass(frozen=True)
class Server:
    """Where events go to or come from, and as whom: what the options say about it."""

    connection_string: str | None = field(repr=False)
    host: str | None
    port: int | None
    tls: bool
    ca_file: str | None
    username: str | None
    password: str | None = field(default=None, repr=False)

    def with_password(self) -> Server:
        """The same with the user's password; asks for it if the environment has none."""
        if self.username is None:
            return self
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            password = click.prompt(f"Password of {self.username}", hide_input=True, err=True)
        return replace(self, password=password)

    def connect(self) -> fastpump.Client:
        """A client; it connects when entered as a context manager.

        Raises:
            UsageError: what the options say cannot be.
        """
        given: dict[str, Any] = {}
        if self.tls or self.ca_file is not None:
            given |= {"tls": True, "ca_file": self.ca_file}
        if self.username is not None:
            given |= {"username": self.username, "password": self.password}
        if self.connection_string is not None:
            return fastpump.connect_to(self.connection_string, **given)
        return fastpump.connect(self.host or DEFAULT_HOST, self.port or DEFAULT_PORT, **given)


_SERVER_OPTIONS = (
    click.option("--host", metavar="HOST", help=f"The node's address. Default: {DEFAULT_HOST}."),
    click.option(
        "--port",
        type=click.IntRange(1, 65535),
        help=f"The node's TCP port. Default: {DEFAULT_PORT}.",
    ),
    click.option(
        "--connection-string",
        metavar="STRING",
        help="Instead of a host and a port: where to connect to and how, for instance "
        "discover://cluster.example:2113 for whichever node of a cluster may be used.",
    ),
    click.option("--tls", is_flag=True, help="Speak TLS, and verify the node's certificate."),
    click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False),
        metavar="PEM",
        help="Speak TLS, and verify it with these certificates instead of the system's.",
    ),
    click.option(
        "--username",
        metavar="NAME",
        help=f"Act as this user. The password is taken from the environment variable "
        f"{PASSWORD_VARIABLE}, or asked for.",
    ),
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where to connect to; the command gets a `Server` as `server`."""

    @functools.wraps(command)
    def with_server(**options: Any) -> Any:
        fields = {name: options.pop(name) for name in _FIELDS}
        if fields["connection_string"] is not None and (fields["host"] or fields["port"]):
            raise click.UsageError("--connection-string and --host or --port are one too many")
        return command(server=Server(**fields), **options)

    for option in reversed(_SERVER_OPTIONS):
        with_server = option(with_server)
    return with_server


_FIELDS = ("connection_string", "host", "port", "tls", "ca_file", "username")


@contextlib.contextmanager
def errors_reported() -> Iterator[None]:
    """Errors of the client end the command with one line, and name the option that is to blame."""
    try:
        yield
    except fastpump.UsageError as error:
        problem = str(error).removeprefix(f"{error.argument}: ")
        option = f"--{error.argument.replace('_', '-')}"
        raise click.BadParameter(problem, param_hint=option) from error
    except (OSError, fastpump.exceptions.FastpumpError) as error:
        raise click.ClickException(str(error)) from error
