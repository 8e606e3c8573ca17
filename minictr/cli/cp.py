"""``minictr cp``: files between a container and the host."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from minictr.cli import files
from minictr.cli.lasting import Meter, ends_cleanly
from minictr.errors import SpecError
from minictr.runtime import files as reach


@click.command()
@click.option("-a", "--archive", is_flag=True, help="Keep owners (from a container also set-ID bits and devices).")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link at SRC leads to, not the link.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary, which only a terminal gets anyway.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DEST")
def cp(archive: bool, follow_link: bool, quiet: bool, source: str, destination: str) -> None:
    """Copy files between a container, running or not, and the host.

    One of SRC and DEST is NAME:PATH, the other a path of the host, or '-': a tar archive on standard input or output.
    PATH is taken from the container's root. A directory goes into DEST if that is there, and becomes DEST if not; with
    SRC/. its contents do. Parents of DEST are not made. Everything copied in is root's, everything copied out yours.
    """
    (name_in, path_in), (name_out, path_out) = split(destination, "destination"), split(source, "source")
    if name_in and name_out:
        raise SpecError(
            "copying from one container to another is not supported: by way of the host, or piped through -"
        )
    if not name_in and not name_out:
        raise SpecError("one of SRC and DEST must be in a container: NAME:PATH")
    meter = Meter(quiet)
    options: dict[str, Any] = {"archive": archive, "follow_link": follow_link, "progress": meter}
    with ends_cleanly():
        try:
            if name_in:
                copy_in(name_in, path_out, path_in, destination, meter, options)
            else:
                copy_out(name_out, path_out, path_in, meter, options)
        finally:
            meter.clear()


def split(word: str, what: str) -> tuple[str, str]:
    """(container, path) of an argument, the container "" for the host: as docker, a path that has a colon in it says by
    a / or . in front that it is one."""
    if not word:
        raise SpecError(f"the {what} is empty")
    name, colon, path = word.partition(":")
    if word.startswith(("/", ".")) or not colon:
        return "", word
    if not name:
        raise SpecError(f"{word!r} has no container's name before its colon; a file of that name is ./{word}")
    return name, path or "/"


def copy_in(name: str, path: str, dest: str, told: str, meter: Meter, options: dict[str, Any]) -> None:
    """From the host, or standard input, into container NAME."""
    from minictr.runtime import copying

    instance = files.find(name)
    with reach.root(instance) as root:
        options |= {"name": name, "id_map": reach.id_map(instance)}
        if path == "-":
            for option in ("archive", "follow_link"):
                del options[option]
            done = copying.tar_in(sys.stdin.buffer, root, dest, **options)
        else:
            done = copying.copy_in(path, root, dest, **options)
    meter.done("cp", done, told)


def copy_out(name: str, path: str, dest: str, meter: Meter, options: dict[str, Any]) -> None:
    """From container NAME to the host, or to standard output."""
    from minictr.runtime import copying

    if dest == "-" and os.isatty(sys.stdout.fileno()):
        raise SpecError("a tar archive is not written to a terminal: redirect it, or pipe it into tar")
    instance = files.find(name)
    with reach.root(instance) as root:
        options |= {"name": name, "id_map": reach.id_map(instance)}
        if dest == "-":
            del options["archive"]  # an archive always has the owners
            done = copying.tar_out(root, path, sys.stdout.buffer, **options)
            meter.quiet = True
        else:
            done = copying.copy_out(root, path, dest, **options)
    meter.done("cp", done, dest)
