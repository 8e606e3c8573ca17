"""``minictr commit``: a container's layer, or all that it sees, as a directory or a tarball."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, TYPE_CHECKING, Any

import click

from minictr.cli import files
from minictr.cli.diff import kept_layer
from minictr.cli.lasting import Meter, ends_cleanly
from minictr.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    from minictr.runtime.commit import commit_layer

    target: str | IO[bytes] = destination
    if destination == "-":
        if os.isatty(sys.stdout.fileno()):
            raise SpecError("a tar archive is not written to a terminal: redirect it, or name a file")
        target = sys.stdout.buffer
    instance = files.find(name)
    found = files.layers(instance) if whole else kept_layer(instance)
    meter = Meter(quiet)
    options: dict[str, Any] = {"lowers": found.lowers, "whole": whole, "id_map": files.id_map(instance)}
    with ends_cleanly(), contextlib.ExitStack() as stack:
        if pause:
            stack.enter_context(frozen(instance))
        if whole and found.overlay and not found.upper:
            options["merged"] = stack.enter_context(live(instance))
        try:
            upper = found.upper if os.path.isdir(found.upper) else ""  # not there before its first start
            done = commit_layer(upper, target, progress=meter, **options)
        finally:
            meter.clear()
    meter.quiet |= destination == "-"
    meter.done("commit", done, destination)


@contextlib.contextmanager
def frozen(instance: Any) -> Iterator[None]:
    """INSTANCE stands still meanwhile, if it runs and is not paused already."""
    if instance.status != "running":
        yield
        return
    try:
        instance.pause()
    except SpecError as err:
        raise SpecError(f"{err}: commit with --no-pause") from err
    try:
        yield
    finally:
        instance.unpause()


@contextlib.contextmanager
def live(instance: Any) -> Iterator[int]:
    """The root of INSTANCE, whose layer no path leads to: it has to run for it."""
    if not instance.pid:
        raise SpecError(f"{instance.label}: its layer was thrown away with its end: run with --upper DIR to keep it")
    with files.root(instance) as fd:
        yield fd
