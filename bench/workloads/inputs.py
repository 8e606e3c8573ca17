"""What the workloads work on, made anew for every sample: the same bytes each time, on every machine.

All of it is cut from a few MiB of seeded pseudo-random bytes by C code of the standard library, so that making it takes
little of the time that using it takes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Iterator

SEED = 1  # of the inputs; the seed of a run orders its blocks and has no say here
CHUNK = 1 << 20
MIB = 1 << 20

WORDS = 1 << 13  # distinct ones of a binary
PICKS = 1 << 16  # as many as two random bytes can name
NOISE_EVERY = 8  # one chunk of so many is incompressible, as pictures and compressed sections of binaries are


def binary(path: str, size: int) -> str:
    """Write SIZE bytes that compress as programs do (xz -6: to less than half). The answer is their SHA-256."""
    return _write(path, _binary(size))


def noise(path: str, size: int) -> str:
    """Write SIZE incompressible bytes, no two MiB of them alike. The answer is their SHA-256."""
    return _write(path, _noise(size))


def _write(path: str, chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for chunk in chunks:
            digest.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
    return digest.hexdigest()


def _vocabulary(words: list[bytes]) -> list[bytes]:
    """PICKS of the WORDS, the early ones far more often than the late ones."""
    return [words[int(len(words) * (at / PICKS) ** 3)] for at in range(PICKS)]


def _sentences(rng: random.Random, table: list[bytes], size: int) -> bytes:
    """SIZE bytes of random words."""
    mean = sum(map(len, table)) / len(table)
    text = bytearray()
    while len(text) < size:
        count = int((size - len(text)) / mean) + 16
        text += b"".join(map(table.__getitem__, memoryview(rng.randbytes(2 * count)).cast("H")))
    return bytes(text[:size])


def _binary(size: int) -> Iterator[bytes]:
    rng = random.Random(SEED)
    table = _vocabulary([rng.randbytes(2 + at % 11) for at in range(WORDS)])
    for number, start in enumerate(range(0, size, CHUNK)):
        length = min(CHUNK, size - start)
        if number % NOISE_EVERY == NOISE_EVERY - 1:
            yield rng.randbytes(length)
        else:
            yield _sentences(rng, table, length)


def _noise(size: int) -> Iterator[bytes]:
    pool = random.Random(SEED).randbytes(CHUNK)
    for number, start in enumerate(range(0, size, CHUNK)):
        place = number * 4099 % CHUNK  # odd, so that as many chunks differ as a chunk has bytes
        yield (pool[place:] + pool[:place])[: size - start]


@dataclasses.dataclass(frozen=True)
class Site:
    """A static site: how many files, their bytes, and what ``digest`` must answer for a faithful copy."""

    files: int
    size: int
    digest: str


FILES_A_DIRECTORY = 40
KINDS = ("html", "jpg", "png", "jpg", "css", "html", "js", "jpg", "svg", "png")
TEXT = {"html", "css", "js", "svg"}
SMALLEST = 64  # bytes of a file
SIGMA = 1.4  # of the logarithm of sizes: a few large files hold most of the bytes, as sites have it
POOL = 4 * MIB


def site(directory: str, files: int, size: int) -> Site:
    """Write a site of FILES files with SIZE bytes in all into DIRECTORY; every file is linked from ``index.html``.

    Sizes are log-normal. Raises ValueError where SIZE is too small for so many files.
    """
    rng = random.Random(SEED)
    content = _names(files)
    pages = _indexes(content)
    lengths = _lengths(rng, len(content), size - sum(map(len, pages.values())))
    words = [bytes(97 + byte % 26 for byte in rng.randbytes(1 + at % 9)) + b" " for at in range(WORDS)]
    pools = {True: _sentences(rng, _vocabulary(words), POOL), False: rng.randbytes(POOL)}
    digests = {}
    for name, length in zip(content, lengths, strict=True):
        pages[name] = _cut(pools[name.rpartition(".")[2] in TEXT], rng.randrange(POOL), length)
        digests[name] = _page(directory, name, pages.pop(name))
    for name, text in pages.items():
        digests[name] = _page(directory, name, text)
    return Site(len(digests), size, _over(digests))


def _page(directory: str, name: str, text: bytes) -> str:
    path = os.path.join(directory, name)
    try:
        file = open(path, "xb", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))
        file = open(path, "xb", buffering=0)  # noqa: SIM115
    with file:
        file.write(text)
    return hashlib.sha256(text).hexdigest()


def _names(files: int) -> list[str]:
    """The names of all files but the indexes, of which every directory has one, and so has the root."""
    found, directories = [], max(1, (files - 1) // FILES_A_DIRECTORY)
    for number in range(files - 1 - directories):
        directory = number % directories
        found.append(f"{directory // 20:02}/{directory % 20:02}/{number:05}.{KINDS[number % len(KINDS)]}")
    return found


def _indexes(content: list[str]) -> dict[str, bytes]:
    by_directory: dict[str, list[str]] = {}
    for name in content:
        by_directory.setdefault(os.path.dirname(name), []).append(os.path.basename(name))
    pages = {f"{directory}/index.html": _index(names) for directory, names in by_directory.items()}
    pages["index.html"] = _index(list(pages))
    return pages


def _index(names: list[str]) -> bytes:
    links = "\n".join(f'<li><a href="{name}">{name}</a>' for name in names)
    return f"<!doctype html>\n<title>index</title>\n<ul>\n{links}\n</ul>\n".encode()


def _lengths(rng: random.Random, count: int, total: int) -> list[int]:
    if total < count * SMALLEST:
        raise ValueError(f"{total} bytes are too few for {count} files of at least {SMALLEST}")
    drawn = [rng.lognormvariate(0.0, SIGMA) for _ in range(count)]
    scale = (total - count * SMALLEST) / sum(drawn)
    lengths = [SMALLEST + int(length * scale) for length in drawn]
    lengths[0] += total - sum(lengths)
    return lengths


def _cut(pool: bytes, start: int, length: int) -> bytes:
    whole, rest = divmod(length, len(pool))
    piece = pool[start : start + rest]
    return pool * whole + piece + pool[: rest - len(piece)]


def _over(digests: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def digest(path: str) -> str:
    """The SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(directory: str) -> str:
    """One digest of the names and bytes of all files below DIRECTORY."""
    digests = {}
    for where, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(where, name)
            digests[os.path.relpath(path, directory)] = digest(path)
    return _over(digests)


def read(directory: str) -> None:
    """Read every file below DIRECTORY once: it is in the page cache then."""
    buffer = bytearray(MIB)
    for where, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(where, name)
            if os.path.isfile(path):
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
