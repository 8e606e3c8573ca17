"""Writing a tar archive as a stream: the same verbs as :class:`minictr.images.tree.Tree` has.

PAX (POSIX.1-2001), so that names, owners and times of any size fit; attributes as SCHILY.xattr.*, holes as GNU tar's
sparse format 1.0: what GNU tar, bsdtar, Go's archive/tar and Python read.
"""

from __future__ import annotations

import os
import stat
import tarfile

from minictr.errors import SpecError
from minictr.images.tarball import BLOCK, XATTR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from minictr.images.tree import Meta, Parts
    from minictr.runtime.copying.walk import Content

WORTH_HOLES = 1 << 16  # bytes of holes from which on the sparse format is used: other programs know plain files better
TYPES = {stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}


class TarWriter:
    """Writes to STREAM, which stays the caller's, until :meth:`finish`. Errors of the stream come as they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def _header(self, parts: Parts, meta: Meta, kind: bytes, size: int = 0, link: str = "", device: int = 0) -> None:
        info = tarfile.TarInfo("/".join(parts) or ".")
        if kind == tarfile.DIRTYPE:
            info.name += "/"
        info.type, info.size, info.linkname = kind, size, link
        info.mode, info.uid, info.gid = meta.mode, meta.uid, meta.gid
        seconds, nanoseconds = divmod(meta.mtime_ns, 10**9)
        info.mtime = seconds
        pax = {f"{XATTR}{_escaped(name)}": _text(value) for name, value in meta.xattrs}
        if nanoseconds:
            pax["mtime"] = _decimal(meta.mtime_ns)
        info.devmajor, info.devminor = os.major(device), os.minor(device)
        info.pax_headers = pax
        self._write(info)

    def _write(self, info: tarfile.TarInfo) -> None:
        try:
            self._put(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        except ValueError as err:
            raise SpecError(f"{info.name!r} does not fit into a tar header: {err}") from err

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]

    def directory(self, parts: Parts, meta: Meta) -> None:
        self._header(parts, meta, tarfile.DIRTYPE)

    def empty(self, parts: Parts, meta: Meta) -> None:
        """An empty regular file: the marks of an image's layer."""
        self._header(parts, meta.replace(xattrs=()), tarfile.REGTYPE)

    def symlink(self, parts: Parts, target: str, meta: Meta) -> None:
        self._header(parts, meta.replace(mode=0o777), tarfile.SYMTYPE, link=target)

    def hardlink(self, parts: Parts, source: Parts, meta: Meta) -> None:
        self._header(parts, meta.replace(xattrs=()), tarfile.LNKTYPE, link="/".join(source))

    def node(self, parts: Parts, kind: int, device: int, meta: Meta) -> None:
        self._header(parts, meta, TYPES[kind], device=device)

    def file(self, parts: Parts, meta: Meta, content: Content) -> None:
        extents = content.extents()
        held = sum(length for _, length in extents)
        if content.size - held < WORTH_HOLES:
            extents = [(0, content.size)] if content.size else []
            self._header(parts, meta, tarfile.REGTYPE, content.size)
            written = content.size
        else:
            written = self._sparse_header(parts, meta, content.size, extents, held)
        for start, length in extents:
            for offset in range(start, start + length, 1 << 20):
                self._put(content.read(offset, min(1 << 20, start + length - offset)))
        self._put(bytes(-written % BLOCK))

    def _sparse_header(self, parts: Parts, meta: Meta, size: int, extents: list[tuple[int, int]], held: int) -> int:
        """The header and the map of a file with holes; how many bytes follow a header, the map included.

        GNU tar manual, "Storing Sparse Files", format 1.0: decimal numbers, a line each, how many rows come first.
        """
        rows = [*extents, *([(size, 0)] if not extents or sum(extents[-1]) < size else [])]
        numbers = [len(rows), *(number for row in rows for number in row)]
        table = b"".join(b"%d\n" % number for number in numbers)
        table += bytes(-len(table) % BLOCK)
        info = tarfile.TarInfo("/".join((*parts[:-1], "GNUSparseFile.0", parts[-1])))
        info.size, info.mode, info.uid, info.gid = len(table) + held, meta.mode, meta.uid, meta.gid
        info.mtime = meta.mtime_ns // 10**9
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "/".join(parts),
            "GNU.sparse.realsize": str(size),
            **{f"{XATTR}{_escaped(name)}": _text(value) for name, value in meta.xattrs},
            "mtime": _decimal(meta.mtime_ns),
        }
        self._write(info)
        self._put(table)
        return len(table) + held

    def finish(self) -> None:
        """The two blocks of zeros that end an archive, filled up to a record as tar does."""
        self._put(bytes(2 * BLOCK))
        self._stream.flush()


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace("=", "%3D")  # as GNU tar: a pax keyword ends at "="


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _decimal(nanoseconds: int) -> str:
    sign, number = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{number // 10**9}.{number % 10**9:09d}"
