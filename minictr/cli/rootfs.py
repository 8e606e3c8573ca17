"""``minictr rootfs``: make a root file system, from the host's files, by mmdebstrap, or from a tarball."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import click

from minictr.cli.entry import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minictr.images.staging import Built

PATIENCE = 0.5  # seconds before progress is worth a line

quiet = click.option("-q", "--quiet", is_flag=True, help="Print neither progress nor the summary.")
same_owner = click.option(
    "--same-owner/--no-same-owner", default=None, help="Keep numeric owners and set-ID bits. [default: as root]"
)
directory = click.argument("directory", metavar="DIR", type=click.Path())


@click.group()
def rootfs() -> None:
    """Make a root file system in DIR, which is absent or empty. A failure leaves nothing."""


@rootfs.command()
@click.option(
    "--include",
    multiple=True,
    metavar="PATH",
    type=click.Path(),
    help="A file or directory that is needed too, with the libraries of what is in it. Repeatable.",
)
@same_owner
@quiet
@directory
@click.argument("programs", metavar="PROGRAM...", nargs=-1, required=True)
def minimal(
    include: tuple[str, ...], same_owner: bool | None, quiet: bool, directory: str, programs: tuple[str, ...]
) -> None:
    """Copy PROGRAMs of this host, and all they need to start.

    PROGRAM is a name in PATH, an absolute path, or @PACKAGE for all programs of an installed Debian package. What a
    program loads by itself (modules, plug-ins, data) is named with --include.
    """
    from minictr.images.minimal import minimal as build

    with _ends_cleanly():
        _tell(
            "minimal", quiet, build(directory, programs, include=include, owners=same_owner, progress=_Progress(quiet))
        )


@rootfs.command()
@click.option("--suite", default="bookworm", show_default=True, metavar="NAME", help="Release of Debian.")
@click.option("--include", multiple=True, metavar="PACKAGE[,...]", help="Further packages. Repeatable.")
@click.option("--variant", default="minbase", show_default=True, metavar="NAME", help="mmdebstrap's set of packages.")
@click.option("--mirror", metavar="URL", help="Where packages come from. [default: as this host's apt]")
@quiet
@directory
def debian(suite: str, include: tuple[str, ...], variant: str, mirror: str | None, quiet: bool, directory: str) -> None:
    """Install Debian with mmdebstrap. Needs root and a network."""
    from minictr.images.debian import debian as build

    packages = [name for names in include for name in re.split(r"[,\s]+", names) if name]
    progress = _Progress(quiet)
    with _ends_cleanly():
        built = build(directory, suite, include=packages, variant=variant, mirror=mirror, progress=progress)
    _tell("debian", quiet, built)


@rootfs.command("import")
@click.option("--devices", is_flag=True, help="Make the archive's device nodes. [default: left out]")
@same_owner
@click.option("--max-size", metavar="SIZE", help="Refuse an archive that unpacks to more, such as 2G.")
@quiet
@directory
@click.argument("tarball", metavar="TARBALL", type=click.Path(allow_dash=True))
def import_(
    devices: bool, same_owner: bool | None, max_size: str | None, quiet: bool, directory: str, tarball: str
) -> None:
    """Unpack TARBALL, a root file system ('-' is standard input).

    gzip, bzip2, xz and zstd are recognised. Nothing outside DIR is ever written, whatever the archive says.
    """
    from minictr.features.check import size
    from minictr.images.tarball import import_tarball

    limit = size(max_size, "--max-size") if max_size is not None else None
    with _ends_cleanly():
        built = import_tarball(
            directory, tarball, devices=devices, owners=same_owner, max_size=limit, progress=_Progress(quiet)
        )
    _tell("import", quiet, built)


class _Progress:
    """Lines on standard error once the work turns out to be long."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._start, self._held = quiet, time.monotonic(), ""

    def __call__(self, message: str) -> None:
        if self._quiet:
            return
        if time.monotonic() - self._start < PATIENCE:
            self._held = message
            return
        for line in filter(None, (self._held, message)):
            click.echo(printable(line), err=True)
        self._held = ""


def _tell(verb: str, quiet: bool, built: Built) -> None:
    for note in built.notes:
        click.echo(f"minictr rootfs {verb}: note: {printable(note)}", err=True)
    if not quiet:
        click.echo(f"{printable(built.directory)}: {built.files} files, {built.bytes / (1 << 20):.1f} MiB")


@contextlib.contextmanager
def _ends_cleanly() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind as Ctrl-C does, so that what was begun is removed."""

    def leave(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
