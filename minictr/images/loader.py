"""Where the dynamic loader would find a library: ld.so(8), done by reading, nothing is executed.

The search of glibc (elf/dl-load.c, _dl_map_object): DT_RPATH of the object and of those that loaded it, up to the
program, unless DT_RUNPATH is there; DT_RUNPATH of the object; /etc/ld.so.cache; the loader's own directories. Files of
another class, byte order or machine are passed over. LD_LIBRARY_PATH and LD_PRELOAD belong to the caller's environment,
not to a root file system, and do not count. musl's loader has its own list of directories and no cache.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from minictr.errors import SpecError
from minictr.images import elf, ldcache
from minictr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The loader of libraries that name none themselves: e_machine (elf.h) and bits -> path.
LOADERS = {
    (62, 64): "/lib64/ld-linux-x86-64.so.2",
    (62, 32): "/libx32/ld-linux-x32.so.2",
    (3, 32): "/lib/ld-linux.so.2",
    (183, 64): "/lib/ld-linux-aarch64.so.1",
    (40, 32): "/lib/ld-linux-armhf.so.3",
    (243, 64): "/lib/ld-linux-riscv64-lp64d.so.1",
    (21, 64): "/lib64/ld64.so.2",
    (22, 64): "/lib/ld64.so.1",
    (258, 64): "/lib64/ld-linux-loongarch-lp64d.so.1",
}
PLATFORMS = {62: "x86_64", 3: "i686", 183: "aarch64", 40: "v7l", 21: "power8", 22: "z900"}  # AT_PLATFORM, getauxval(3)
USUAL = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
# How glibc keeps its directories: a run of NUL-terminated absolute names with a slash at the end (system_dirs).
SYSTEM_DIRS = re.compile(rb"(?:/[\w.+-]+(?:/[\w.+-]+)*/\0){2,}")


class Loader(Value):
    """One dynamic loader: its path, and the directories built into it, best first."""

    path: str
    directories: tuple[str, ...]
    musl: bool = False

    @property
    def lib(self) -> str:
        """What ``$LIB`` stands for."""
        return self.directories[0].strip("/").removeprefix("usr/")


class Loaded(Value):
    """An object in the chain of who needs whom: ``path`` as found, ``by`` the object that needed it."""

    path: str
    origin: str
    elf: elf.Elf
    by: Loaded | None = None


class Search:
    """Finds libraries on this host. Remembers every file it has read."""

    def __init__(self, cache: ldcache.Cache | None = None) -> None:
        self.cache = ldcache.load() if cache is None else cache
        self._listed: dict[str, list[str]] = {}
        for entry in sorted(self.cache.entries, key=lambda entry: bool(entry.hwcap)):  # hwcaps variants last
            self._listed.setdefault(entry.name, []).append(entry.path)
        self._files: dict[str, elf.Elf | None] = {}
        self._loaders: dict[str, Loader] = {}

    def file(self, path: str) -> elf.Elf | None:
        """The ELF view of PATH, None for anything else. Raises SpecError (damaged), OSError."""
        if path not in self._files:
            self._files[path] = elf.read(path)
        return self._files[path]

    def loader(self, program: elf.Elf) -> Loader:
        """The loader of a program, or the usual one of its machine for a library."""
        path = program.interpreter or LOADERS.get((program.kind.machine, program.kind.bits), "")
        if path not in self._loaders:
            musl = os.path.basename(path).startswith("ld-musl-")
            self._loaders[path] = Loader(path, _musl_directories(path) if musl else _system_directories(path), musl)
        return self._loaders[path]

    def libraries(self, path: str) -> tuple[list[str], list[str]]:
        """The paths of all libraries that the object at PATH loads at start, and the names that were not found.

        Breadth first, as the loader does: a name that is loaded once is not searched again.
        """
        program = self.file(path)
        if program is None or not program.dynamic:
            return [], []
        loader = self.loader(program)
        queue = [Loaded(path, os.path.dirname(os.path.realpath(path)), program)]
        known = {os.path.basename(loader.path)}
        found: list[str] = []
        missing: list[str] = []
        for object_ in queue:  # grows while it is walked
            for name in object_.elf.needed:
                if name in known or (loader.musl and re.fullmatch(r"libc\.(so|musl-\w+\.so\.1)", name)):
                    continue
                known.add(name)
                variants = self._find(name, object_, loader)
                if not variants:
                    missing.append(name)
                for variant in variants:
                    library = self.file(variant)
                    assert library is not None
                    known.add(library.soname)
                    found.append(variant)
                    queue.append(Loaded(variant, os.path.dirname(variant), library, object_))
        return found, missing

    def locate(self, name: str, path: str) -> str:
        """The path of library NAME as the program at PATH would find it with dlopen(3); "" if it is not there."""
        program = self.file(path)
        if program is None:
            return ""
        object_ = Loaded(path, os.path.dirname(os.path.realpath(path)), program)
        return next(iter(self._find(name, object_, self.loader(program))), "")

    def _find(self, name: str, object_: Loaded, loader: Loader) -> list[str]:
        """The library, and its glibc-hwcaps variants, which the loader prefers on a processor that has the features."""
        kind = object_.elf.kind
        if "/" in name:
            path = _expand(name, object_, loader)
            return [path] if self._fits(path, kind) else []
        for candidates in self._places(name, object_, loader):
            fitting = [path for path in dict.fromkeys(candidates) if self._fits(path, kind)]
            if fitting:
                return fitting
        return []

    def _places(self, name: str, object_: Loaded, loader: Loader) -> Iterator[Iterable[str]]:
        if not object_.elf.runpath or loader.musl:
            above: Loaded | None = object_
            while above is not None:
                if not above.elf.runpath or loader.musl:
                    paths = above.elf.rpath + (above.elf.runpath if loader.musl else ())
                    yield from _in_each(paths, name, above, loader)
                above = above.by
        if not loader.musl:
            yield from _in_each(object_.elf.runpath, name, object_, loader)
            listed = self._listed.get(name, [])
            if object_.elf.nodeflib:
                listed = [path for path in listed if os.path.dirname(path) not in loader.directories]
            yield listed
        if not object_.elf.nodeflib:
            for directory in loader.directories:
                yield _variants(directory, name)

    def _fits(self, path: str, kind: elf.Kind) -> bool:
        try:
            found = self.file(path)
        except (OSError, SpecError):
            return False
        return found is not None and found.kind == kind


def _in_each(directories: Iterable[str], name: str, object_: Loaded, loader: Loader) -> Iterator[list[str]]:
    for directory in directories:
        if directory.startswith(("/", "$")):  # a relative one depends on the working directory: nobody's root has it
            yield _variants(_expand(directory, object_, loader), name)


def _variants(directory: str, name: str) -> list[str]:
    """DIRECTORY/NAME, then those in the glibc-hwcaps subdirectories (glibc 2.33)."""
    better = os.path.join(directory, "glibc-hwcaps")
    try:
        subdirectories = sorted(os.listdir(better))
    except OSError:
        subdirectories = []
    return [os.path.join(directory, name), *(os.path.join(better, each, name) for each in subdirectories)]


def _expand(text: str, object_: Loaded, loader: Loader) -> str:
    """Dynamic string tokens: ``$ORIGIN``, ``$LIB``, ``$PLATFORM``, with or without braces."""
    values = {
        "ORIGIN": object_.origin,
        "LIB": loader.lib,
        "PLATFORM": PLATFORMS.get(object_.elf.kind.machine, os.uname().machine),
    }
    return re.sub(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM)\b)", lambda m: values[m[1] or m[2]], text)


def _system_directories(path: str) -> tuple[str, ...]:
    """The directories compiled into the glibc loader at PATH, found in its read-only data."""
    try:
        with open(path, "rb") as file:
            data = file.read(4 << 20)
    except OSError:
        return USUAL
    for match in SYSTEM_DIRS.finditer(data):
        names = [os.fsdecode(name).rstrip("/") for name in match[0].split(b"\0") if name]
        if all("lib" in name for name in names):
            return tuple(names)
    return USUAL


def _musl_directories(path: str) -> tuple[str, ...]:
    """musl: /etc/ld-musl-ARCH.path if it is there, otherwise three directories (ldso/dynlink.c)."""
    architecture = os.path.basename(path).removeprefix("ld-musl-").split(".")[0]
    try:
        with open(f"/etc/ld-musl-{architecture}.path") as file:
            return tuple(part for part in re.split(r"[:\n]", file.read()) if part)
    except OSError:
        return ("/lib", "/usr/local/lib", "/usr/lib")
