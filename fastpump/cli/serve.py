"""`fastpump serve`: the embedded node in a process of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

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
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="Also answer HTTP (gossip, ping, info, stats) on this port; 0 takes a free one.",
)
@click.option(
    "--certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PEM",
    help="Speak TLS with this certificate; --private-key goes with it.",
)
@click.option(
    "--private-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PEM",
    help="The certificate's key.",
)
@click.option(
    "--development-tls",
    is_flag=True,
    help="Speak TLS with a certificate made for the occasion.",
)
def serve(path: Path | None, development_tls: bool, **options: Any) -> None:
    """Run the embedded node until Ctrl-C.

    Prints HOST:PORT as soon as it accepts connections; with --http-port, then "http" and that
    address; with --development-tls, then "ca" and the file that clients verify it with. It is for
    development and tests, with the users that a fresh Event Store has (admin / changeit).

    \b
    Example: fastpump serve --port 0 --path events.db
    """
    logging.basicConfig(format="%(name)s: %(message)s")  # from warnings on, on standard error
    tls = "development" if development_tls else None
    node = fastpump.server.run(path=path, tls=tls, **options)
    try:
        fastpump.run(_serve(node))
    except (OSError, fastpump.exceptions.FastpumpError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(node: fastpump.server.Node) -> None:
    with Interrupt() as interrupt:
        async with node:
            click.echo(f"{node.host}:{node.port}")
            if node.http_port is not None:
                click.echo(f"http {node.host}:{node.http_port}")
            if node.ca_file is not None:
                click.echo(f"ca {node.ca_file}")
            await interrupt.wait()
