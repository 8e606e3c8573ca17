"""Reading a tar archive as a stream: decompression, members, data; every kind of damage is one SpecError.

:mod:`tarfile` reads the headers (ustar, GNU, PAX, sparse). By itself it takes an archive that stops in the middle for
one that ended, and a header of any size into memory; here the first is an error and the second has a limit.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from typing import IO, TYPE_CHECKING, Any, cast

from minictr.errors import MinictrError, SpecError, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    Tarball = str | os.PathLike[str] | IO[bytes]

CHUNK = 1 << 20
MAX_HEADER = 4 << 20  # of one extended header: 64 KiB for each attribute, and few attributes
MAX_TAIL = 64 << 20  # read after the end of the archive, for the checksum of the compression
EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAGICS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))


class _Head:
    """A stream that can be looked at before it is read: ``head`` is its first bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.head = b""
        while len(self.head) < 8:
            more = file.read(512)
            if not more:
                break
            self.head += more
        self._rest = self.head

    def read(self, size: int = -1) -> bytes:
        if self._rest:
            size = len(self._rest) if size < 0 else size
            data, self._rest = self._rest[:size], self._rest[size:]
            return data
        return self._file.read(size)


class _Forward:
    """What tarfile reads from: it can skip forwards only, and asking on after the end raises.

    Some loops of tarfile would otherwise never stop.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._at, self._ends = file, 0, 0

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        while 0 < len(data) < size and (more := self._file.read(size - len(data))):  # a pipe gives less than asked
            data += more
        self._at += len(data)
        if not data:
            self._ends += 1
            if self._ends > 4:
                raise EOFError("unexpected end of data")
        return data

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, to: int) -> int:
        if to < self._at:
            raise ValueError("it leads backwards")
        while self._at < to:
            if not self.read(min(to - self._at, CHUNK)):
                raise EOFError("unexpected end of data")
        return self._at


class Member(tarfile.TarInfo):
    """One member. Its header is complete, or reading it raised."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the block of zeros that ends every archive
                raise
            if tar.offset == 0:
                raise SpecError("not a tar archive") from error
            raise SpecError(f"damaged or cut off ({error})") from error

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in EXTENDED and self.size > MAX_HEADER:
            raise SpecError(f"an extended header of {self.size} bytes; {MAX_HEADER} are allowed")
        return super()._proc_member(tar)  # type: ignore[misc]


class Archive:
    """A tar archive: a path, ``-`` for standard input, or a binary file. A context manager.

    ``label`` names it in messages. Raises SpecError (absent, unreadable, no tar archive, damaged), Unsupported (zstd
    without a program or library for it).
    """

    def __init__(self, tarball: Tarball) -> None:
        self._stack = contextlib.ExitStack()
        self._zstd: subprocess.Popen[bytes] | None = None
        if isinstance(tarball, (str, os.PathLike)):
            self.label = "standard input" if tarball == "-" else os.fspath(tarball)
        else:
            self.label = str(getattr(tarball, "name", "the archive"))
        try:
            with self._damage():
                self._source = _Forward(self._decompressed(_Head(self._opened(tarball))))
                file = cast("IO[bytes]", self._source)
                self._tar = tarfile.TarFile(fileobj=file, tarinfo=Member, encoding="utf-8", errors="surrogateescape")
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn whatever a hostile archive makes the readers raise into one SpecError."""
        try:
            yield
        except SpecError as error:
            raise SpecError(f"{self.label}: {self._zstd_error() or error}") from error
        except MinictrError:
            raise
        except Exception as error:
            reason = self._zstd_error() or f"damaged or cut off ({str(error) or type(error).__name__})"
            raise SpecError(f"{self.label}: {reason}") from error

    def _zstd_error(self) -> str:
        """What the zstd program said, if it ended in failure."""
        if self._zstd is None or self._zstd.stderr is None:
            return ""
        try:
            if self._zstd.wait(timeout=0.2) == 0:
                return ""
        except subprocess.TimeoutExpired:  # it is not the one who failed
            return ""
        return f"damaged or cut off ({self._zstd.stderr.read().decode(errors='replace').strip()})"

    def _opened(self, tarball: Tarball) -> IO[bytes]:
        if not isinstance(tarball, (str, os.PathLike)):
            return tarball
        if tarball == "-":
            return sys.stdin.buffer
        if os.path.isdir(tarball):
            raise SpecError("a directory, not an archive")
        try:
            return self._stack.enter_context(open(tarball, "rb"))
        except OSError as error:
            raise SpecError(error.strerror or str(error)) from error

    def _decompressed(self, stream: _Head) -> Any:
        if not stream.head:
            raise SpecError("empty: not a tar archive")
        kind = next((name for magic, name in MAGICS if stream.head.startswith(magic)), "")
        file = cast("IO[bytes]", stream)
        if kind == "gzip":
            return gzip.GzipFile(fileobj=file)
        if kind == "bzip2":
            return bz2.BZ2File(file)
        if kind == "xz":
            return lzma.LZMAFile(file)
        return self._zstandard(stream) if kind == "zstd" else stream

    def _zstandard(self, stream: _Head) -> Any:
        """The library of Python 3.14, the zstandard package, or the zstd program: whichever is there."""
        with contextlib.suppress(ImportError):
            return importlib.import_module("compression.zstd").ZstdFile(stream)
        with contextlib.suppress(ImportError):
            return (
                importlib.import_module("zstandard").ZstdDecompressor().stream_reader(stream, read_across_frames=True)
            )
        program = shutil.which("zstd")
        if program is None:
            raise Unsupported(
                "import", f"{self.label} is compressed with zstd, and there is no zstd here", "install zstd"
            )
        zstd = subprocess.Popen(
            [program, "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._zstd = zstd
        self._stack.callback(_end, zstd)
        threading.Thread(target=_pump, args=(stream, zstd.stdin), daemon=True).start()
        return zstd.stdout

    def __iter__(self) -> Iterator[Member]:
        while True:
            with self._damage():
                member = self._tar.next()
                self._tar.members = []  # type: ignore[attr-defined] # it would keep every one
            if member is None:
                break
            yield cast("Member", member)
        with self._damage():
            self._tail()

    def _tail(self) -> None:
        """Read to the end of the compressed stream: only there its checksum is verified."""
        left = MAX_TAIL
        while left > 0:
            data = self._source.read(CHUNK)
            if not data:
                break
            left -= len(data)
        if self._zstd is not None and left > 0 and self._zstd.wait() != 0:
            raise SpecError("damaged at its end")

    def data(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of a regular member, in order, without the holes of a sparse one."""
        with self._damage():
            file = self._tar.extractfile(member)
            assert file is not None
            for start, length in self._segments(member):
                file.seek(start)
                while length:
                    chunk = file.read(min(length, CHUNK))
                    if not chunk:
                        raise EOFError("unexpected end of data")
                    yield start, chunk
                    start, length = start + len(chunk), length - len(chunk)

    @staticmethod
    def _segments(member: Member) -> list[tuple[int, int]]:
        """Where the data of a member is. Raises SpecError for a map that runs backwards or over the end."""
        sparse = cast("list[tuple[int, int]] | None", member.sparse)
        at = 0
        segments = [(0, member.size)] if sparse is None else sparse
        segments = [(start, length) for start, length in segments if length]  # GNU pads the map with empty ones
        for start, length in segments:
            if start < at or length < 0 or start + length > member.size:
                raise SpecError(f"{member.name!r}: its map of holes contradicts itself")
            at = start + length
        return segments


def _pump(stream: _Head, pipe: Any) -> None:
    """Feed the decompressor; a broken pipe means that nobody reads its output any more."""
    with contextlib.suppress(OSError, ValueError), pipe:
        while data := stream.read(CHUNK):
            pipe.write(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the decompressor, whatever it is at, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
