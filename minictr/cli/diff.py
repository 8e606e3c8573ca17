"""``minictr diff``: what changed in a container's layer."""

from __future__ import annotations

import json

import click

from minictr.cli import files
from minictr.cli.entry import printable


@click.command()
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="How it is printed.")
@click.argument("name", metavar="NAME")
def diff(shape: str, name: str) -> None:
    """List what changed in the layer of container NAME, running or not, sorted by path.

    A added, C changed (also a directory in which something did), D deleted.
    """
    rows = files.find(name).diff()
    if shape == "json":
        click.echo(json.dumps([{"kind": row.kind, "path": row.path} for row in rows], indent=1))
        return
    for row in rows:
        click.echo(printable(str(row)))
