"""A hosts file that is changed while others read it: a beginning that stays, and after it one line for each name.

It lies over a container's /etc/hosts as a mount of a single file, so another file cannot take its place by a rename: it
is changed in place, by steps of which a reader sees each or none. Every line of the changing part is SLOT bytes long
and begins at a multiple of that. A line that counts not begins with "#". To add one it is written with "#" first, and
then its first byte, and that alone, is; to take one back its first byte becomes "#". Readers read in blocks of which
SLOT is a divisor (glibc 4096 bytes, musl 1024), so no line is read in two parts. A line that was taken back is written
anew after RESTING seconds at the earliest: until then whoever was held up amid copying it would get half of each.

The file is the runtime's: the container has it read-only. What is read back here is looked at line by line all the
same, and never believed to be whole.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SLOT", "beginning", "entry", "put"]

SLOT = 128  # bytes of a line
RESTING = 1.0  # seconds
ROOM = 256 << 10  # bytes; a file of that length has its lines written anew however young they are
SIZE_MAX = 4 << 20


def beginning(lines: Iterable[str]) -> bytes:
    """LINES, which have no tab, filled up to a multiple of SLOT by a line of blanks."""
    text = "".join(f"{line}\n" for line in lines).encode()
    missing = -len(text) % SLOT
    return text + (b" " * (missing - 1) + b"\n" if missing else b"")


def entry(address: str, names: Iterable[str]) -> list[bytes]:
    """The lines for ADDRESS with its NAMES, each of at most 63 characters: as many as they need."""
    lines, line = [], f"{address}\t"
    for name in names:
        longer = f"{line} {name}" if not line.endswith("\t") else line + name
        if len(longer) >= SLOT:
            lines.append(line)
            longer = f"{address}\t{name}"
        line = longer
    return [one.encode().ljust(SLOT - 1) + b"\n" for one in (*lines, line) if not one.endswith("\t")]


def put(path: str, address: str, lines: list[bytes]) -> bool:
    """LINES, of :func:`entry`, count for ADDRESS from now on, and nothing else does; whether something did. ADDRESS
    "" and no LINES: nothing counts any more but the beginning. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = _read(fd)
        rested = bool(lines) and (len(data) >= ROOM or time.time() - os.fstat(fd).st_mtime > RESTING)
        free = _lines(data, b"#") if rested else []
        found = _lines(data, f"{address}\t".encode() if address else b"")
        for place in found:
            os.pwrite(fd, b"#", place)
        end = len(data) + -len(data) % SLOT
        places = [*free[: len(lines)], *range(end, end + SLOT * len(lines), SLOT)][: len(lines)]
        for place, line in zip(places, lines, strict=True):
            os.pwrite(fd, b"#" + line[1:], place)
        for place, line in zip(places, lines, strict=True):
            os.pwrite(fd, line[:1], place)
        return bool(found)
    finally:
        os.close(fd)


def _read(fd: int) -> bytes:
    data = os.pread(fd, ROOM, 0)
    while len(data) < SIZE_MAX and len(data) % ROOM == 0 and (block := os.pread(fd, ROOM, len(data))):
        data += block
    return data


def _lines(data: bytes, mark: bytes) -> list[int]:
    """The places of lines of the changing part that begin with MARK; with b"" of those that count.

    Such a line has a tab, and one line's end, which is the last of SLOT bytes."""
    if mark[:1] == b"#" or not mark:
        first = data[::SLOT]
        places = [at * SLOT for at in range(len(first)) if (first[at : at + 1] == b"#") == bool(mark)]
    else:
        places, at = [], data.find(mark)
        while at >= 0:
            if at % SLOT == 0:
                places.append(at)
            at = data.find(mark, at + 1)
    return [at for at in places if data.find(b"\n", at) == at + SLOT - 1 and data.find(b"\t", at, at + SLOT) > 0]
