"""`fastpump serve`: the embedded node in a process of its own."""

from __future__ import annotations

from pathlib import Path

import click

import fastpump
import fastpump.server
from fastpump.cli._interrupt import Interrupt
from fastpump.cli._options import DEFAULT_HOST, DEFAULT_PORT


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the events in this SQLite file, which is made if need be. Default: in memory.",
)
def serve(host: str, port: int, path: Path | None) -> None:
    """Run the embedded node until Ctrl-C.

    Prints HOST:PORT as soon as it accepts connections. It is for development and tests: one node,
    no TLS, the users that a fresh Event Store has (admin / changeit).

    \b
    Example: fastpump serve --port 0 --path events.db
    """
    try:
        fastpump.run(_serve(host, port, path))
    except (OSError, fastpump.exceptions.FastpumpError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(host: str, port: int, path: Path | None) -> None:
    with Interrupt() as interrupt:
        file = None if path is None else str(path)
        async with fastpump.server.run(host=host, port=port, path=file) as node:
            click.echo(f"{node.host}:{node.port}")
            await interrupt.wait()
