"""Writing compressed: the counterpart of what :mod:`minictr.images.archive` reads, by the ending of a name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import importlib
import lzma
import shutil
import subprocess
from typing import IO, TYPE_CHECKING, cast

from minictr.errors import StepFailed, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS = {
    ".tar": "",
    ".tar.gz": "gzip",
    ".tgz": "gzip",
    ".tar.bz2": "bzip2",
    ".tbz2": "bzip2",
    ".tar.xz": "xz",
    ".txz": "xz",
    ".tar.zst": "zstd",
    ".tzst": "zstd",
}
EIO = 5


def compression(name: str) -> str | None:
    """What a file of that NAME is compressed with: "" not at all, None when it is no tarball's name."""
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


@contextlib.contextmanager
def compressed(file: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    """A stream whose bytes reach FILE compressed, all of them when the block ends.

    KIND: "", gzip, bzip2, xz, zstd. The same bytes give the same file: no time and no name are written. Raises
    Unsupported for zstd where neither Python nor a program has it.
    """
    if not kind:
        yield file
        file.flush()
    elif kind == "gzip":
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as stream:
            yield cast("IO[bytes]", stream)
    elif kind == "bzip2":
        with bz2.BZ2File(file, "wb") as stream:
            yield cast("IO[bytes]", stream)
    elif kind == "xz":
        with lzma.LZMAFile(file, "wb") as stream:
            yield cast("IO[bytes]", stream)
    else:
        with _zstd(file) as stream:
            yield stream


@contextlib.contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The library of Python 3.14, or the zstd program."""
    with contextlib.suppress(ImportError):
        module = importlib.import_module("compression.zstd")
        with module.ZstdFile(file, "wb") as stream:
            yield cast("IO[bytes]", stream)
        return
    program = shutil.which("zstd")
    if program is None:
        raise Unsupported("zstd", "there is no zstd here", "install zstd, or write .tar.gz or .tar.xz")
    file.flush()
    process = subprocess.Popen([program, "-qc"], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stderr is not None
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # its own message says why
            yield process.stdin
        said = process.stderr.read().decode(errors="replace").strip()
        if process.wait() != 0:
            raise StepFailed(f"compress with zstd ({said})", EIO)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
