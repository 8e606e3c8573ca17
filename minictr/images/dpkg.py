"""Which programs an installed Debian package has, read from dpkg's own files (no dpkg is run)."""

from __future__ import annotations

import os
import re

from minictr.errors import SpecError

DATABASE = "/var/lib/dpkg"
PROGRAM_DIRECTORIES = re.compile(r"/(?:usr/(?:local/)?)?s?bin/[^/]+|/usr/games/[^/]+")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?")  # deb-control(5), Package


def programs(package: str, database: str = DATABASE) -> list[str]:
    """The programs of PACKAGE (``name`` or ``name:architecture``) in the usual directories, alternatives included.

    Raises SpecError if there is no such package, or it has no programs.
    """
    if not os.path.isdir(os.path.join(database, "info")):
        raise SpecError(f"@{package}: no dpkg database on this host; name the programs themselves")
    if not PACKAGE.fullmatch(package):
        raise SpecError(f"@{package}: not a package name")
    diverted = _diversions(database, package.split(":")[0])
    paths = [diverted.get(path, path) for path in _files(package, database)]
    found = [path for path in paths if PROGRAM_DIRECTORIES.fullmatch(path) and _executable(path)]
    found += _alternatives({os.path.realpath(path) for path in found}, database)
    if not found:
        raise SpecError(f"@{package}: this package has no programs")
    return list(dict.fromkeys(found))


def _files(package: str, database: str) -> list[str]:
    """The lines of PACKAGE.list, or PACKAGE:ARCH.list for packages that may be installed for several architectures."""
    info = os.path.join(database, "info")
    names = [package]
    if ":" not in package:
        architectures = re.compile(re.escape(package) + r":\w[\w-]*\.list")
        names += sorted(name[:-5] for name in os.listdir(info) if architectures.fullmatch(name))
    native = _native(database)
    names.sort(key=lambda name: name.endswith(f":{native}"), reverse=True)
    for name in names:
        try:
            with open(os.path.join(info, f"{name}.list"), errors="surrogateescape") as lines:
                return lines.read().split("\n")
        except FileNotFoundError:
            continue
    base, _, architecture = package.partition(":")
    if architecture and architecture == native:  # bash:amd64 is kept as bash.list
        return _files(base, database)
    raise SpecError(f"@{package}: this package is not installed on this host")


def _native(database: str) -> str:
    """The architecture of dpkg itself, from its own entry in the database of packages."""
    try:
        with open(os.path.join(database, "status"), errors="surrogateescape") as status:
            match = re.search(r"^Package: dpkg\n(?:.+\n)*?Architecture: (\S+)$", status.read(), re.M)
    except OSError:
        return ""
    return match[1] if match else ""


def _diversions(database: str, package: str) -> dict[str, str]:
    """Where files of PACKAGE were moved to by dpkg-divert(1): records of three lines, from, to, who keeps the name."""
    try:
        with open(os.path.join(database, "diversions"), errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return {}
    records = zip(lines[0::3], lines[1::3], lines[2::3], strict=False)
    return {source: to for source, to, keeper in records if keeper != package}


def _alternatives(targets: set[str], database: str) -> list[str]:
    """The generic names (awk, vi, ...) that update-alternatives(1) leads to one of TARGETS at present."""
    found: list[str] = []
    try:
        names = sorted(os.listdir(os.path.join(database, "alternatives")))
    except FileNotFoundError:
        return found
    for name in names:
        with open(os.path.join(database, "alternatives", name), errors="surrogateescape") as file:
            link = file.read().split("\n", 2)[1:2]
        if link and PROGRAM_DIRECTORIES.fullmatch(link[0]) and os.path.realpath(link[0]) in targets:
            found.append(link[0])
    return found


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)
