"""Copy files between the host and the inside of a container, through descriptors only.

The semantics are those of ``docker container cp`` (docs/copying.md has the table, and where we knowingly differ). A
container's files are hostile and change while they are copied: CVE-2018-15664 (a link put in the way between check and
use), CVE-2019-14271 (a library of the image loaded by the copier), CVE-2024-1753 (a mount source that is a link).
Here a path inside is resolved once, by openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS) from the descriptor of the root;
below that, every name is opened by itself and never followed; content goes from descriptor to descriptor.

A regular file appears under its name when it is whole. A copy that fails leaves what was already copied, and no half
file.
"""

from __future__ import annotations

import contextlib
import os
import stat

from minictr.errors import SpecError, StepFailed
from minictr.images.archive import Archive
from minictr.images.staging import explain
from minictr.images.tarball import Unpack
from minictr.images.tree import Meta, show
from minictr.runtime.copying import places
from minictr.runtime.copying.merge import Merge
from minictr.runtime.copying.owners import NO_MAP, IdMap, inward, outward, recorded, unpacked
from minictr.runtime.copying.places import Host, Inside
from minictr.runtime.copying.roots import live_root, merged_root, stopped_root
from minictr.runtime.copying.tarout import TarWriter
from minictr.runtime.copying.walk import Content, Notes, Walk
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import IO, Protocol

    from minictr.images.tree import Parts
    from minictr.runtime.copying.owners import Rule
    from minictr.runtime.copying.places import Destination, Side, Source
    from minictr.runtime.copying.walk import Entry

    Progress = Callable[[int, int], None]

    class Sink(Protocol):
        """What takes a copy: a tree, or an archive."""

        def directory(self, parts: Parts, meta: Meta) -> None: ...
        def file(self, parts: Parts, meta: Meta, content: Content) -> None: ...
        def symlink(self, parts: Parts, target: str, meta: Meta) -> None: ...
        def hardlink(self, parts: Parts, source: Parts, meta: Meta) -> None: ...
        def node(self, parts: Parts, kind: int, device: int, meta: Meta) -> None: ...
        def finish(self) -> None: ...


__all__ = [
    "Copied",
    "IdMap",
    "copy_in",
    "copy_out",
    "live_root",
    "merged_root",
    "stopped_root",
    "tar_in",
    "tar_out",
    "transfer",
]

CURES = {  # errno(3)
    1: "only root may",
    13: "only root, or the owner, may",
    24: "raise the limit of open files: ulimit -n",
    28: "the disk is full: make room",
    30: "it cannot be written there",
    116: "something else took its place meanwhile: try again, or pause the container",
    122: "the quota is used up",
}


class Copied(Value):
    """A finished copy. ``files``: regular files; ``bytes``: their sizes added up; ``notes``: lines worth telling."""

    files: int
    bytes: int
    notes: tuple[str, ...] = ()


class Count:
    """What is done so far, told to PROGRESS (files, bytes of data)."""

    def __init__(self, progress: Progress | None) -> None:
        self.files = self.bytes = self._moved = 0
        self._progress = progress

    def moved(self, data: int) -> None:
        self._moved += data
        if self._progress is not None:
            self._progress(self.files, self._moved)

    def file(self, size: int) -> None:
        self.files += 1
        self.bytes += size
        self.moved(0)


def copy_in(
    source_path: str,
    root_fd: int,
    dest: str,
    *,
    follow_link: bool = False,
    archive: bool = False,
    id_map: IdMap = NO_MAP,
    name: str = "container",
    progress: Progress | None = None,
) -> Copied:
    """Copy SOURCE_PATH of the host to DEST inside the root ROOT_FD, which stays the caller's.

    ``follow_link``: a link as source means its target. ``archive``: owners keep their numbers; without, everything is
    root's of the container. ``id_map``: that of its user namespace. ``name``: the container's, for messages.

    Raises SpecError where the rules forbid it, StepFailed for the kernel's refusals.
    """
    with (
        _between(source_path, f"{name}:{dest}"),
        _ends(Host(), source_path, Inside(root_fd, name), dest, follow_link) as (
            what,
            where,
        ),
    ):
        notes = Notes()
        with roots_files(id_map), Merge(where.fd, root=id_map.outside(0, 0), notes=notes) as tree:
            return _copy(what, where, tree, inward(id_map, archive=archive), notes, progress, devices=True)


def roots_files(id_map: IdMap) -> contextlib.AbstractContextManager[object]:
    """What is made belongs to root of the container that has ID_MAP: other ids may not exist where it is made."""
    if not id_map or os.geteuid():
        return contextlib.nullcontext()
    from minictr.kernel.users import file_ids

    return file_ids(*id_map.outside(0, 0))


def copy_out(
    root_fd: int,
    source: str,
    dest_path: str,
    *,
    follow_link: bool = False,
    archive: bool = False,
    id_map: IdMap = NO_MAP,
    name: str = "container",
    progress: Progress | None = None,
) -> Copied:
    """Copy SOURCE inside the root ROOT_FD to DEST_PATH of the host. Arguments and errors as :func:`copy_in`.

    Everything becomes the caller's. ``archive``: owners keep the numbers they have inside, and set-ID bits,
    capabilities and device nodes come along: without, a container could leave them on the host.
    """
    with (
        _between(f"{name}:{source}", dest_path),
        _ends(Inside(root_fd, name), source, Host(), dest_path, follow_link) as (
            what,
            where,
        ),
    ):
        notes = Notes()
        if stat.S_ISLNK(os.fstat(what.fd).st_mode):  # docker follows a link at DEST_PATH, and so do we
            notes.add("copied as a link: a later copy to that name goes where it leads", where.parts)
        with Merge(where.fd, root=(os.geteuid(), os.getegid()), notes=notes) as tree:
            return _copy(what, where, tree, outward(id_map, archive=archive), notes, progress, devices=archive)


def tar_in(
    stream: IO[bytes],
    root_fd: int,
    dest: str,
    *,
    id_map: IdMap = NO_MAP,
    name: str = "container",
    progress: Progress | None = None,
) -> Copied:
    """Unpack the tar archive STREAM, compressed or not, into the directory DEST inside the root ROOT_FD.

    Owners are those of the archive, as inside numbers, if the caller is root. No link is followed, neither of the
    archive nor of the container, and ``..`` is refused: see :mod:`minictr.images.tarball`.
    """
    privileged = os.geteuid() == 0
    with _between("standard input", f"{name}:{dest}"):
        fd = places.directory(Inside(root_fd, name), dest)
        try:
            rule, notes, root = unpacked(id_map), Notes(), id_map.outside(0, 0)
            if not privileged:
                rule = _mine(rule)
            with Archive(stream) as archive, roots_files(id_map), Merge(fd, rule=rule, root=root, notes=notes) as tree:
                work = Unpack(archive, tree, devices=True, privileged=privileged)
                work.run(lambda _line: progress(work.files, work.bytes) if progress is not None else None)
            return Copied(work.files, work.bytes, (*work.notes(), *notes.lines()))
        finally:
            os.close(fd)


def tar_out(
    root_fd: int,
    source: str,
    stream: IO[bytes],
    *,
    follow_link: bool = False,
    id_map: IdMap = NO_MAP,
    name: str = "container",
    progress: Progress | None = None,
) -> Copied:
    """Write SOURCE inside the root ROOT_FD to STREAM as a tar archive whose names begin with its base name.

    Owners are inside numbers; set-ID bits, capabilities and device nodes are in it.
    """
    with _between(f"{name}:{source}", "standard output"):
        what = places.source(Inside(root_fd, name), source, follow_link)
        try:
            notes, count = Notes(), Count(progress)
            parts = () if what.contents else (what.name,)
            transfer(Walk(notes).tree(what.fd, parts), TarWriter(stream), recorded(id_map), notes, count)
            return Copied(count.files, count.bytes, notes.lines())
        finally:
            os.close(what.fd)


def transfer(
    entries: Generator[Entry, None, None], sink: Sink, rule: Rule, notes: Notes, count: Count, *, devices: bool = True
) -> None:
    """Everything of ENTRIES to SINK with the metadata that RULE says. Raises SpecError, StepFailed naming the entry."""
    with contextlib.closing(entries):
        for entry in entries:
            try:
                _put(entry, sink, rule, notes, count, devices)
            except StepFailed:
                raise
            except OSError as err:
                raise explain(err, f"copy {show(entry.parts)}") from err
    try:
        sink.finish()
    except StepFailed:
        raise
    except OSError as err:
        raise explain(err, "finish") from err


def _put(entry: Entry, sink: Sink, rule: Rule, notes: Notes, count: Count, devices: bool) -> None:
    kind, parts = entry.kind, entry.parts
    if kind == stat.S_IFDIR:
        sink.directory(parts, rule(entry))
    elif kind == stat.S_IFSOCK:  # a name for a process's socket: a copy would be nobody's
        notes.add("sockets left out", parts)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK) and not devices:
        notes.add("devices left out, -a makes them", parts)
    elif entry.first is not None:
        sink.hardlink(parts, entry.first, rule(entry))
    elif kind == stat.S_IFLNK:
        sink.symlink(parts, entry.target, rule(entry))
    elif kind == stat.S_IFREG:
        with Content(entry, notes, count.moved) as content:
            sink.file(parts, rule(entry), content)
        count.file(content.size)
    else:
        sink.node(parts, kind, entry.stat.st_rdev, rule(entry))


def _copy(
    what: Source, where: Destination, tree: Merge, rule: Rule, notes: Notes, progress: Progress | None, devices: bool
) -> Copied:
    goes_to = os.fstat(where.fd)
    count, walk = Count(progress), Walk(notes, skip=frozenset({(goes_to.st_dev, goes_to.st_ino)}))
    transfer(walk.tree(what.fd, where.parts), tree, rule, notes, count, devices=devices)
    return Copied(count.files, count.bytes, notes.lines())


@contextlib.contextmanager
def _ends(
    from_side: Side, source: str, to_side: Side, dest: str, follow_link: bool
) -> Iterator[tuple[Source, Destination]]:
    """Both ends of a copy, open: every rule is checked before anything is made."""
    what = places.source(from_side, source, follow_link)
    try:
        where = places.destination(to_side, dest, what)
        try:
            yield what, where
        finally:
            os.close(where.fd)
    finally:
        os.close(what.fd)


@contextlib.contextmanager
def _between(one: str, other: str) -> Iterator[None]:
    """Errors of a copy name both of its ends."""
    try:
        yield
    except StepFailed as err:
        cure = err.cure or CURES.get(err.errno or 0, "")
        raise StepFailed(f"copy {one} to {other}: {err.what}", err.errno or 0, cure=cure) from err
    except SpecError as err:
        raise SpecError(f"copy {one} to {other}: {err}") from err


def _mine(rule: Callable[[Meta], Meta]) -> Callable[[Meta], Meta]:
    """RULE for an ordinary user, who cannot give files away."""
    uid, gid = os.geteuid(), os.getegid()
    return lambda meta: meta.replace(uid=uid, gid=gid, mode=meta.mode & ~(stat.S_ISUID | stat.S_ISGID))
