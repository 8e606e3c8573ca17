"""/etc/ld.so.cache: read the host's, and write one that lists only what a new root has.

Source: glibc, sysdeps/generic/dl-cache.h and elf/cache.c. The new format (glibc 2.2, 2000) is read alone or behind the
old one; written alone. The loader searches it by bisection, so what is kept keeps its order.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable

OLD_MAGIC, MAGIC = b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1"
HEADER, ENTRY = "20sIIB3xI12x", "iIIIQ"  # struct cache_file_new, struct file_entry_new
EXTENSION_MAGIC = 0xEAA42174  # cache_extension_magic
TAG_GENERATOR, TAG_HWCAPS = 0, 1
HWCAP_EXTENSION = 1 << 62  # DL_CACHE_HWCAP_EXTENSION: the low 32 bits of hwcap are an index into the subdirectories


class Entry(Value):
    """One library: ``name`` as in DT_NEEDED, ``path``, and the two numbers that tell variants of it apart."""

    name: str
    path: str
    flags: int
    osversion: int
    hwcap: int


class Cache(Value):
    """A parsed cache. ``subdirectories``: names of the glibc-hwcaps directories. ``order``: of its bytes."""

    entries: tuple[Entry, ...] = ()
    subdirectories: tuple[str, ...] = ()
    order: str = "<"

    def only(self, keep: Callable[[str], bool]) -> Cache:
        """The cache without the entries whose path ``keep`` refuses."""
        return Cache(tuple(entry for entry in self.entries if keep(entry.path)), self.subdirectories, self.order)


def load(path: str = "/etc/ld.so.cache") -> Cache:
    """The cache at PATH; an empty one if it is absent, or of no format we know: the loader then does without, too."""
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except (OSError, ValueError, struct.error, IndexError):
        return Cache()


def parse(data: bytes) -> Cache:
    """The cache in DATA. Raises ValueError, IndexError or struct.error if it is damaged."""
    if data.startswith(OLD_MAGIC):
        count = struct.unpack_from("<I", data, 12)[0]
        start = (16 + 12 * count + 7) & ~7  # struct cache_file, then entries of 12 bytes; aligned for the new one
        data = data[start:]
    if not data.startswith(MAGIC):
        raise ValueError("not a cache of the glibc-ld.so.cache1.1 format")
    order = ">" if data[28] == 3 else "<"  # cache_file_new_flags_endian_big
    _magic, count, _strings, _flags, extension = struct.unpack_from(order + HEADER, data)
    size, start = struct.calcsize(order + ENTRY), struct.calcsize(order + HEADER)
    entries = []
    for flags, key, value, osversion, hwcap in struct.iter_unpack(order + ENTRY, data[start : start + count * size]):
        entries.append(Entry(_text(data, key), _text(data, value), flags, osversion, hwcap))
    return Cache(tuple(entries), _subdirectories(data, order, extension), order)


def _subdirectories(data: bytes, order: str, extension: int) -> tuple[str, ...]:
    if not extension or struct.unpack_from(order + "I", data, extension)[0] != EXTENSION_MAGIC:
        return ()
    for index in range(struct.unpack_from(order + "I", data, extension + 4)[0]):
        tag, _flags, offset, size = struct.unpack_from(order + "IIII", data, extension + 8 + 16 * index)
        if tag == TAG_HWCAPS:
            places = struct.unpack_from(f"{order}{size // 4}I", data, offset)
            return tuple(_text(data, place) for place in places)
    return ()


def _text(data: bytes, offset: int) -> str:
    return os.fsdecode(data[offset : data.index(b"\0", offset)])


def dump(cache: Cache) -> bytes:
    """The bytes of /etc/ld.so.cache for CACHE."""
    order, strings = cache.order, bytearray()
    places: dict[str, int] = {}
    base = struct.calcsize(order + HEADER) + struct.calcsize(order + ENTRY) * len(cache.entries)

    def place(text: str) -> int:
        if text not in places:
            places[text] = base + len(strings)
            strings.extend(os.fsencode(text) + b"\0")
        return places[text]

    rows = b"".join(
        struct.pack(order + ENTRY, entry.flags, place(entry.name), place(entry.path), entry.osversion, entry.hwcap)
        for entry in cache.entries
    )
    subdirectories = b"".join(struct.pack(order + "I", place(name)) for name in cache.subdirectories)
    length, extension = len(strings), 0
    tail = b""
    if subdirectories:
        strings.extend(b"\0" * (-(base + len(strings)) % 4))
        extension = base + len(strings)
        tail = struct.pack(order + "II", EXTENSION_MAGIC, 1)
        tail += struct.pack(order + "IIII", TAG_HWCAPS, 0, extension + 24, len(subdirectories)) + subdirectories
    header = struct.pack(order + HEADER, MAGIC, len(cache.entries), length, 3 if order == ">" else 2, extension)
    return header + rows + bytes(strings) + tail
