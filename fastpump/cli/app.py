"""The command group; each command has a file of its own."""

from __future__ import annotations

import click

import fastpump
from fastpump.cli.ingest import ingest
from fastpump.cli.replay import replay
from fastpump.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fastpump.__version__, package_name="fastpump")
def app() -> None:
    """Publish events into Event Store and read them back, as fast as the socket allows."""


app.add_command(serve)
app.add_command(ingest)
app.add_command(replay)
