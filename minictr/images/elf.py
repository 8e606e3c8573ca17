"""What the dynamic loader reads of an ELF file: class, machine, interpreter, needed libraries, search paths.

Source: elf(5), and glibc's elf/dl-load.c. Every offset comes from the file and is checked against it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from minictr.errors import SpecError
from minictr.values import Value

if TYPE_CHECKING:
    from typing import BinaryIO

# elf.h
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 14, 15, 29
DT_FLAGS_1, DT_FILTER = 0x6FFFFFFB, 0x7FFFFFFF
DF_1_NODEFLIB = 0x800
MAX_TABLE = 1 << 20  # a dynamic section or a string read from it; the largest real ones are a few KiB


class Kind(Value):
    """What must agree between a program and its libraries: bits of a word, byte order, e_machine."""

    bits: int
    order: str
    machine: int


class Elf(Value):
    """The loader's view of one file. ``rpath`` and ``runpath`` are unexpanded directory lists."""

    kind: Kind
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    soname: str = ""
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    nodeflib: bool = False
    dynamic: bool = False


def read(path: str) -> Elf | None:
    """The ELF file at PATH; None for a file that is no ELF program or library.

    Raises SpecError for one that says it is and cannot be, OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        ident = file.read(16)
        if ident[:4] != b"\x7fELF":
            return None
        try:
            return _parse(file, ident)
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            raise SpecError(f"{path}: a damaged ELF file ({error})") from error


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    """SIZE bytes at OFFSET; ValueError when the file has fewer, or the header asks for the absurd."""
    if not 0 <= size <= MAX_TABLE:
        raise ValueError(f"a table of {size} bytes")
    if offset + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"it ends before offset {offset + size}")
    file.seek(offset)
    return file.read(size)


def _parse(file: BinaryIO, ident: bytes) -> Elf | None:
    wide, order = ident[4] == 2, "<" if ident[5] == 1 else ">"
    if ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise ValueError("unknown class or byte order")
    header = struct.unpack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), _at(file, 16, 48 if wide else 36))
    kind = Kind(64 if wide else 32, order, header[1])
    if header[0] not in (ET_EXEC, ET_DYN):
        return None  # an object file or a core dump: the loader has nothing to do with it
    phoff, phentsize, phnum = header[4], header[8], header[9]
    # p_type, p_offset, p_vaddr, p_filesz: their places differ between the classes
    layout, take = (order + "IIQQQQQQ", (0, 2, 3, 5)) if wide else (order + "IIIIIIII", (0, 1, 2, 4))
    segments = []
    for index in range(phnum):
        fields = struct.unpack(layout, _at(file, phoff + index * phentsize, struct.calcsize(layout)))
        segments.append(tuple(fields[place] for place in take))
    interpreter = ""
    for kind_of, offset, _address, size in segments:
        if kind_of == PT_INTERP:
            interpreter = os.fsdecode(_at(file, offset, size).split(b"\0")[0])
    for kind_of, offset, _address, size in segments:
        if kind_of == PT_DYNAMIC:
            return _dynamic(file, kind, interpreter, _at(file, offset, size), segments)
    return Elf(kind, interpreter)


def _dynamic(file: BinaryIO, kind: Kind, interpreter: str, table: bytes, segments: list[tuple[int, ...]]) -> Elf:
    layout = struct.Struct(kind.order + ("qQ" if kind.bits == 64 else "iI"))
    entries = []
    for tag, value in layout.iter_unpack(table[: len(table) - len(table) % layout.size]):
        if tag == 0:
            break
        entries.append((tag, value))
    address = next((value for tag, value in entries if tag == DT_STRTAB), None)
    if address is None:
        return Elf(kind, interpreter, dynamic=True)
    strings = next((o + address - a for t, o, a, size in segments if t == PT_LOAD and a <= address < a + size), None)
    if strings is None:
        raise ValueError("its string table is in no segment")

    def text(tags: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(_string(file, strings + value) for tag, value in entries if tag in tags)

    def paths(tag: int) -> tuple[str, ...]:
        return tuple(part for value in text((tag,)) for part in value.split(":"))

    return Elf(
        kind,
        interpreter,
        text((DT_NEEDED, DT_FILTER)),
        "".join(text((DT_SONAME,))[:1]),
        paths(DT_RPATH),
        paths(DT_RUNPATH),
        any(tag == DT_FLAGS_1 and value & DF_1_NODEFLIB for tag, value in entries),
        True,
    )


def _string(file: BinaryIO, offset: int) -> str:
    _at(file, offset, 1)
    file.seek(offset)
    data = b""
    while b"\0" not in data:
        more = file.read(4096)
        if not more or len(data) > MAX_TABLE:
            raise ValueError("a string without an end")
        data += more
    return os.fsdecode(data.split(b"\0")[0])
