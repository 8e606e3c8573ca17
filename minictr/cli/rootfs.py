"""``minictr rootfs``: make a root file system, from the host's files, by mmdebstrap, or from a tarball."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from minictr.cli.entry import printable
from minictr.cli.lasting import Progress, ends_cleanly, notes

if TYPE_CHECKING:
    from minictr.images.staging import Built

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

    with ends_cleanly():
        _tell(
            "minimal", quiet, build(directory, programs, include=include, owners=same_owner, progress=Progress(quiet))
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
    progress = Progress(quiet)
    with ends_cleanly():
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
    with ends_cleanly():
        built = import_tarball(
            directory, tarball, devices=devices, owners=same_owner, max_size=limit, progress=Progress(quiet)
        )
    _tell("import", quiet, built)


def _tell(verb: str, quiet: bool, built: Built) -> None:
    notes(f"rootfs {verb}", built.notes)
    if not quiet:
        click.echo(f"{printable(built.directory)}: {built.files} files, {built.bytes / (1 << 20):.1f} MiB")
