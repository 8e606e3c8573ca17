"""``minictr commit``: a container's layer, or all that it sees, as a directory or a tarball."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

from minictr.cli import files
from minictr.cli.lasting import Meter, ends_cleanly
from minictr.errors import SpecError


@click.command()
@click.option("--whole", is_flag=True, help="Everything the container sees, not its layer alone.")
@click.option("--pause/--no-pause", default=True, show_default=True, help="Freeze the container meanwhile.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary, which only a terminal gets anyway.")
@click.argument("name", metavar="NAME")
@click.argument("destination", metavar="DEST")
def commit(whole: bool, pause: bool, quiet: bool, name: str, destination: str) -> None:
    """Keep the layer of container NAME, running or not, as DEST, which is absent.

    DEST is a directory; a tarball if it ends in .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst; or '-', a tar archive on
    standard output. A layer's directory is as overlayfs has it, its tarball has the whiteouts of OCI images. With
    --whole the directory is for --rootfs, the tarball for 'minictr rootfs import'. What is mounted is not in it.
    """
    from minictr.runtime.files import commit as commit_files

    target: str | IO[bytes] = destination
    if destination == "-":
        if os.isatty(sys.stdout.fileno()):
            raise SpecError("a tar archive is not written to a terminal: redirect it, or name a file")
        target = sys.stdout.buffer
    meter = Meter(quiet)
    with ends_cleanly():
        try:
            done = commit_files(files.find(name), target, whole=whole, pause=pause, progress=meter)
        finally:
            meter.clear()
    meter.quiet |= destination == "-"
    meter.done("commit", done, destination)
