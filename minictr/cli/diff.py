"""``minictr diff``: what changed in a container's layer."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from minictr.cli import files
from minictr.cli.entry import printable
from minictr.errors import SpecError


@click.command()
@click.option("--format", "shape", type=click.Choice(["text", "json"]), default="text", help="How it is printed.")
@click.argument("name", metavar="NAME")
def diff(shape: str, name: str) -> None:
    """List what changed in the layer of container NAME, running or not, sorted by path.

    A added, C changed (also a directory in which something did), D deleted.
    """
    from minictr.runtime.layerdiff import changes

    found = kept_layer(files.find(name))
    rows = list(changes(found.upper, found.lowers)) if os.path.isdir(found.upper) else []
    if shape == "json":
        click.echo(json.dumps([{"kind": row.kind, "path": row.path} for row in rows], indent=1))
        return
    for row in rows:
        click.echo(printable(str(row)))


def kept_layer(instance: Any) -> files.Layers:
    """Its layers, if one of them is kept. SpecError otherwise, with the cure."""
    found = files.layers(instance)
    if not found.overlay:
        raise SpecError(
            f"{instance.label}: it has no layer, it writes to {found.lowers[0]} itself: run with --upper DIR"
        )
    if not found.upper:
        raise SpecError(f"{instance.label}: its layer is thrown away and has no path: run with --upper DIR to keep it")
    return found
