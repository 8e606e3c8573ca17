"""A container's layer as a directory or a tarball of its own, or everything it sees as a new root.

===========  ==================================================  ==========================================
             a directory                                         a tarball (.tar, .tar.gz, .tar.xz, .tar.zst)
===========  ==================================================  ==========================================
the layer    as overlayfs keeps it: put it under --rootfs with   as OCI's image layers: ``.wh.NAME`` and
             its old root as a lower layer, and it is in force   ``.wh..wh..opq`` are deletions
the whole    what ``--rootfs`` takes                             what ``minictr rootfs import`` takes
===========  ==================================================  ==========================================

A directory keeps the kernel's own form because only a kernel reads it: nothing has to be converted, a renamed directory
stays one attribute instead of a copy. A tarball leaves the house, and OCI's form is what others read
(opencontainers/image-spec, layer.md).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from minictr.errors import SpecError, StepFailed
from minictr.images.compress import compressed, compression
from minictr.images.staging import MARK, explain, staging
from minictr.images.tarball import KEPT_XATTRS
from minictr.images.tree import Meta, Tree, show
from minictr.runtime.copying import CURES, Copied, Count, transfer
from minictr.runtime.copying.owners import NO_MAP, IdMap, recorded
from minictr.runtime.copying.roots import merged_root
from minictr.runtime.copying.tarout import TarWriter
from minictr.runtime.copying.walk import PINNED, Notes, Walk
from minictr.runtime.layerdiff import USER_MARKS, Marks, is_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from typing import IO

    from minictr.images.tree import Parts
    from minictr.runtime.copying import Progress
    from minictr.runtime.copying.walk import Content, Entry

__all__ = ["commit_layer"]

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"  # opencontainers/image-spec, layer.md
KEPT_MARKS = ("opaque", "redirect", "metacopy", "whiteout")  # the others are hints that hold for one place only

FOLLOW = ("redirect_dir=follow", "metacopy=on")  # by default the kernel may refuse what another mount has made


def following(marks: Marks) -> tuple[str, ...]:
    """The options with which layers are read as they were written: with userxattr there are neither of FOLLOW."""
    return ("userxattr",) if marks.prefix == USER_MARKS else FOLLOW


def commit_layer(
    upper: str,
    dest: str | IO[bytes],
    *,
    lowers: Sequence[str] = (),
    whole: bool = False,
    merged: int = -1,
    id_map: IdMap = NO_MAP,
    prefix: str = "",
    progress: Progress | None = None,
) -> Copied:
    """Keep the layer UPPER as DEST: a directory, a tarball by its ending, or an open file for an uncompressed one.

    ``lowers``: the layers below, topmost first; needed for ``whole`` and for directories that were renamed. ``whole``:
    everything that UPPER ("" for none) and LOWERS add up to, or what is at the descriptor ``merged``, without what is
    mounted in it. ``id_map``: undone; owners become inside numbers. ``prefix``: see :class:`Marks`.

    DEST is absent, or an empty directory; it appears when it is whole. Raises SpecError, StepFailed, Unsupported.
    """
    target = dest if isinstance(dest, str) else "standard output"
    if not upper and not whole:
        raise SpecError(f"commit to {target}: the container keeps no layer")
    kind = compression(dest) if isinstance(dest, str) else ""
    work = _Commit(upper, lowers, whole, merged, id_map, Marks(prefix), Count(progress))
    try:
        if not isinstance(dest, str):
            work.archive(dest)
        elif kind is None:
            with staging(dest) as stage, Tree(stage.fd, owners=os.geteuid() == 0) as tree:
                work.directory(tree)
        else:
            with _new_file(dest) as file, compressed(file, kind) as stream:
                work.archive(stream)
    except StepFailed as err:
        raise StepFailed(
            f"commit to {target}: {err.what}", err.errno or 0, cure=err.cure or CURES.get(err.errno or 0, "")
        ) from err
    return Copied(work.count.files, work.count.bytes, work.notes.lines())


class _Commit:
    def __init__(
        self,
        upper: str,
        lowers: Sequence[str],
        whole: bool,
        merged: int,
        id_map: IdMap,
        marks: Marks,
        count: Count,
    ) -> None:
        self._upper, self._lowers, self._whole, self._merged = upper, lowers, whole, merged
        self._rule, self._marks = recorded(id_map), marks
        self.count, self.notes = count, Notes()

    def _keep(self, name: str) -> bool:
        ours = name.startswith(self._marks.prefix) and name.removeprefix(self._marks.prefix) in KEPT_MARKS
        return ours or KEPT_XATTRS.fullmatch(name) is not None

    def directory(self, tree: Tree) -> None:
        """As a directory."""
        with self._top() as fd:
            walk = _OwnWalk(self.notes, stay=True) if self._whole else _OwnWalk(self.notes, keep=self._keep)
            walk.lowers = self._lowers
            transfer(walk.tree(fd, ()), _IntoTree(tree), self._rule, self.notes, self.count)

    def archive(self, stream: IO[bytes]) -> None:
        """As a tar archive."""
        writer = TarWriter(stream)
        with self._top() as fd:
            if self._whole:
                walk = _OwnWalk(self.notes, stay=True)
                walk.lowers = self._lowers
                transfer(walk.tree(fd, ()), writer, self._rule, self.notes, self.count)
                return
            layer = _LayerWalk(self.notes, self._marks, (self._upper, *self._lowers), self._keep)
            layer.lowers = self._lowers
            try:
                sink = _IntoLayer(writer, self._marks.prefix, self.notes)
                transfer(layer.tree(fd, ()), sink, self._rule, self.notes, self.count)
            finally:
                layer.close()

    @contextlib.contextmanager
    def _top(self) -> Iterator[int]:
        if self._whole and self._merged >= 0:
            yield self._merged
            return
        layers = [*filter(None, (self._upper,)), *(self._lowers if self._whole else ())]
        fd = merged_root(layers, readonly=False, options=following(self._marks))
        try:
            yield fd
        finally:
            os.close(fd)


class _IntoTree:
    """A :class:`Tree` as a sink."""

    def __init__(self, tree: Tree) -> None:
        self.directory, self.file, self.symlink = tree.directory, tree.file, tree.symlink
        self.node, self.finish = tree.node, tree.finish
        self._tree = tree

    def hardlink(self, parts: Parts, source: Parts, _meta: Meta) -> None:
        self._tree.hardlink(parts, source)


class _OwnWalk(Walk):
    """What the program made: not the empty files that a start made in the layer, for its own to lie over."""

    lowers: Sequence[str] = ()

    def _left_out(self, fd: int, parts: Parts, device: int) -> bool:
        if is_place(parts, os.fstat(fd)) and not any(os.path.lexists(os.path.join(top, *parts)) for top in self.lowers):
            return True
        return super()._left_out(fd, parts, device)


class _LayerWalk(_OwnWalk):
    """A layer, with what only the layers below can tell taken from the merged tree: renamed directories, and files of
    which the layer has no more than the metadata (metacopy)."""

    def __init__(self, notes: Notes, marks: Marks, layers: Sequence[str], keep: Callable[[str], bool]) -> None:
        super().__init__(notes, keep=keep)
        self._marks, self._layers, self._merged = marks, layers, -1

    def close(self) -> None:
        if self._merged >= 0:
            os.close(self._merged)

    def tree(self, fd: int, parts: Parts) -> Generator[Entry, None, None]:
        if not self._marks.redirect(fd) and self._marks.get(fd, "metacopy") is None:
            yield from super().tree(fd, parts)
            return
        if len(self._layers) < 2:
            raise SpecError(f"{show(parts)} was renamed, and is in the layers below: name them")
        if self._merged < 0:
            self._merged = merged_root(self._layers, options=following(self._marks))
        other = os.open(".", PINNED, dir_fd=self._merged)
        try:
            for name in parts:
                below = os.open(name, PINNED, dir_fd=other)
                os.close(other)
                other = below
            yield from super().tree(other, parts)
        finally:
            os.close(other)


class _IntoLayer:
    """An archive in the form of OCI's layers. A name that would be taken for a deletion is left out."""

    def __init__(self, writer: TarWriter, prefix: str, notes: Notes) -> None:
        self._writer, self._prefix, self._notes = writer, prefix, notes
        self._whiteouts: set[Parts] = set()
        self.finish = writer.finish

    def _split(self, meta: Meta) -> tuple[Meta, dict[str, bytes]]:
        marks = {name: value for name, value in meta.xattrs if name.startswith(self._prefix)}
        return meta.replace(xattrs=tuple(row for row in meta.xattrs if row[0] not in marks)), marks

    def _told(self, parts: Parts) -> bool:
        """Whether PARTS can be told in a layer."""
        bad = any(part.startswith(WHITEOUT) for part in parts)
        if bad:
            self._notes.add("left out, as their names mean a deletion in a layer", parts)
        return not bad

    def directory(self, parts: Parts, meta: Meta) -> None:
        if parts and self._told(parts):
            plain, marks = self._split(meta)
            self._writer.directory(parts, plain)
            if marks.get(f"{self._prefix}opaque") == b"y":
                self._writer.empty((*parts, OPAQUE), plain)

    def file(self, parts: Parts, meta: Meta, content: Content) -> None:
        plain, marks = self._split(meta)
        if f"{self._prefix}whiteout" in marks and not content.size:
            self._removed(parts, plain)
        elif self._told(parts):
            self._writer.file(parts, plain, content)

    def node(self, parts: Parts, kind: int, device: int, meta: Meta) -> None:
        if kind == stat.S_IFCHR and device == 0:
            self._removed(parts, meta)
        elif self._told(parts):
            self._writer.node(parts, kind, device, meta)

    def _removed(self, parts: Parts, meta: Meta) -> None:
        self._whiteouts.add(parts)
        if self._told(parts):
            self._writer.empty((*parts[:-1], WHITEOUT + parts[-1]), meta)

    def symlink(self, parts: Parts, target: str, meta: Meta) -> None:
        if self._told(parts):
            self._writer.symlink(parts, target, meta)

    def hardlink(self, parts: Parts, source: Parts, meta: Meta) -> None:
        plain, _ = self._split(meta)
        if source in self._whiteouts:  # the kernel makes one and gives it many names, Linux 5.8
            self._removed(parts, plain)
        elif self._told(parts) and self._told(source):
            self._writer.hardlink(parts, source, plain)


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """A file that gets the name PATH when the block ends well, and only if nothing has that name."""
    parent, name = os.path.split(os.path.abspath(path))
    if not name or "\0" in path:
        raise SpecError(f"{path!r} is not the name of a file")
    if os.path.lexists(path):
        raise SpecError(f"{path} is there already, and is not overwritten: name another")
    temporary = os.path.join(parent, f".{name[:200]}{MARK}{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as err:
        raise explain(err, f"make a file in {parent}") from err
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        os.link(temporary, path, follow_symlinks=False)  # link(2), unlike rename(2), replaces nothing
    except FileExistsError:
        raise SpecError(f"{path} was made by someone else meanwhile, and is not overwritten") from None
    except StepFailed:
        raise
    except OSError as err:
        raise explain(err, f"write {path}") from err
    finally:
        os.unlink(temporary)
