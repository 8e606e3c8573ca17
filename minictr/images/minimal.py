"""A small root file system from the host's own files, without network: the classic minimal chroot, done properly.

Libraries are found as the dynamic loader finds them (loader.py), scripts bring their interpreters, links stay links.
What a program opens by itself while it runs (dlopen(3), modules, data files) cannot be seen: name it in ``include``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minictr.errors import MinictrError, SpecError
from minictr.images import skeleton
from minictr.images.closure import Closure
from minictr.images.hostfiles import HostFiles
from minictr.images.staging import Built, check_target, explain, silent, staging
from minictr.images.tree import Meta, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minictr.images.staging import Progress


def minimal(
    directory: str,
    programs: Sequence[str],
    *,
    include: Sequence[str] = (),
    owners: bool | None = None,
    progress: Progress = silent,
) -> Built:
    """Make DIRECTORY, absent or empty, a root file system with PROGRAMS and all they need to start.

    A program is a name in PATH, an absolute path, or ``@PACKAGE``: all programs of an installed Debian package.
    ``include``: further files and directories, kept at their paths. ``owners``: keep numeric owners and set-ID bits;
    None means as root only. ``progress`` is given one line per stage of the work.

    Raises SpecError, naming in one line everything that is missing; StepFailed if the host cannot be read or DIRECTORY
    not be written. Nothing is left of a failure.
    """
    parent, name = check_target(directory)
    for path in include:
        _check_include(path, os.path.join(parent, name))
    if isinstance(programs, str) or not programs:
        raise SpecError("minimal: name at least one program")
    files = HostFiles()
    closure = Closure(files)
    progress("looking for programs, their libraries and interpreters")
    closure.add(programs)
    for path in include:
        closure.tree(path)
    closure.finish()
    if closure.missing:
        raise SpecError("; ".join(dict.fromkeys(closure.missing)))
    skeleton.select(files)
    progress(f"copying {len(files.entries)} files, links and directories")
    keep = os.geteuid() == 0 if owners is None else owners
    with staging(directory) as stage, Tree(stage.fd, owners=keep) as tree:
        try:
            count, size = files.copy(tree)
        except MinictrError:
            raise
        except OSError as error:
            raise explain(error, f"read {error.filename or 'a file of the host'}") from error
        count += skeleton.write(tree, closure)
        tree.directory((), Meta(0o755, mtime_ns=os.stat("/").st_mtime_ns))
        tree.finish()
    return Built(os.path.join(parent, name), count, size, tuple(closure.notes))


def _check_include(path: str, target: str) -> None:
    """Refuse what cannot be meant: a relative path, the whole host, a tree that the target is in."""
    if not path.startswith("/"):
        raise SpecError(f"--include {path}: give an absolute path")
    real = os.path.realpath(path)
    if real == "/":
        raise SpecError(f"--include {path}: this is the host's whole root; name what is needed")
    if os.path.isdir(real) and (target + "/").startswith(real + "/"):
        raise SpecError(f"--include {path}: the target {target} is in it; build somewhere else")
