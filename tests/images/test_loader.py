"""ELF files, the loader's cache, and the search for libraries, compared with what the loader itself does."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from minictr.errors import SpecError
from minictr.images import elf, ldcache
from minictr.images.loader import Search

PROGRAMS = ("bash", "ls", "mount", "perl", "dpkg", "gpgv", "ssh", "git", "python3", "ps")


def build(directory: Path, name: str, needs: tuple[str, ...], *flags: str) -> Path:
    """A shared library (lib*) or a program that needs others in DIRECTORY, made by gcc."""
    source = directory / f"{name}.c"
    path = directory / name
    shared = name.startswith("lib")
    source.write_text(f"int {name[:4]}_it = 1;" if shared else "int main(void) { return 0; }")
    libraries = [str(directory / need) for need in needs]
    kind = ["-shared", "-fPIC", f"-Wl,-soname,{name}"] if shared else []
    command = [
        "gcc",
        "-o",
        path,
        source,
        *kind,
        "-Wl,--no-as-needed",
        *libraries,
        "-Wl,--allow-shlib-undefined",
        *flags,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return path


def traced(path: str) -> set[str]:
    """Real paths of the libraries of a program as the loader lists them."""
    listed = subprocess.run(["/usr/bin/ldd", path], check=True, capture_output=True, text=True).stdout
    return {os.path.realpath(match[1]) for match in re.finditer(r"=> (/\S+)", listed)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_libraries_are_those_the_loader_takes(program: str) -> None:
    path = f"/usr/bin/{program}"
    if not os.path.exists(path):
        path = "/usr/bin/env"
    found, missing = Search().libraries(os.path.realpath(path))
    assert missing == []
    assert {os.path.realpath(library) for library in found} == traced(path)


def test_not_elf_is_none_and_damaged_is_an_error(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("#!/bin/sh\n")
    assert elf.read(str(text)) is None
    whole = Path("/usr/bin/env").read_bytes()
    for length in (16, 40, 80, 900):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:length])
        with pytest.raises(SpecError, match=r"cut: a damaged ELF file"):
            elf.read(str(cut))


def test_every_byte_of_the_headers_may_be_wrong(tmp_path: Path) -> None:
    """Whatever a header says, the answer is a value or SpecError."""
    whole = Path("/usr/bin/env").read_bytes()
    path = tmp_path / "wrong"
    for offset in range(4, 64 + 56 * 4):
        data = bytearray(whole)
        data[offset] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(SpecError):
            elf.read(str(path))


def test_runpath_with_origin(tmp_path: Path, requires) -> None:
    requires("gcc")
    (tmp_path / "lib").mkdir()
    build(tmp_path / "lib", "libinner.so", ())
    outer = build(tmp_path / "lib", "libouter.so", ("libinner.so",), "-Wl,--enable-new-dtags,-rpath,$ORIGIN")
    program = build(tmp_path, "main", ("lib/libouter.so",), "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib")
    found, missing = Search().libraries(str(program))
    assert missing == []
    assert str(outer) in found
    assert {os.path.realpath(path) for path in found} == traced(str(program))


def test_rpath_counts_for_libraries_below_and_runpath_does_not(tmp_path: Path, requires) -> None:
    """DT_RPATH of the program is used for what its libraries need; DT_RUNPATH only for its own."""
    requires("gcc")
    build(tmp_path, "libinner.so", ())
    build(tmp_path, "libouter.so", ("libinner.so",))
    old = build(tmp_path, "old", ("libouter.so",), "-Wl,--disable-new-dtags,-rpath,$ORIGIN")
    new = build(tmp_path, "new", ("libouter.so",), "-Wl,--enable-new-dtags,-rpath,${ORIGIN}")
    assert Search().libraries(str(old))[1] == []
    assert Search().libraries(str(new))[1] == ["libinner.so"]
    assert subprocess.run([old], check=False).returncode == 0
    assert subprocess.run([new], check=False, capture_output=True).returncode == 127


def test_lib_token(tmp_path: Path, requires) -> None:
    requires("gcc")
    system = Search().loader(elf.read("/usr/bin/env")).lib  # type: ignore[arg-type]
    (tmp_path / system).mkdir(parents=True)
    library = build(tmp_path / system, "libtoken.so", ())
    program = build(tmp_path, "main", (f"{system}/libtoken.so",), f"-Wl,-rpath,{tmp_path}/$LIB")
    assert str(library) in Search().libraries(str(program))[0]
    assert subprocess.run([program], check=False).returncode == 0


def test_another_machines_library_is_passed_over(tmp_path: Path, requires) -> None:
    """The loader goes on when the file it meets first is of another class or machine."""
    requires("gcc")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "right").mkdir()
    right = build(tmp_path / "right", "libmine.so", ())
    data = bytearray(right.read_bytes())
    struct.pack_into("<H", data, 18, 8)  # e_machine: EM_MIPS
    (tmp_path / "wrong" / "libmine.so").write_bytes(data)
    program = build(tmp_path, "main", ("right/libmine.so",), f"-Wl,-rpath,{tmp_path}/wrong:{tmp_path}/right")
    assert str(right) in Search().libraries(str(program))[0]


def test_hwcaps_variants_come_along(tmp_path: Path, requires) -> None:
    requires("gcc")
    better = tmp_path / "glibc-hwcaps" / "x86-64-v3"
    better.mkdir(parents=True)
    plain, fast = build(tmp_path, "libfast.so", ()), build(better, "libfast.so", ())
    program = build(tmp_path, "main", ("libfast.so",), f"-Wl,-rpath,{tmp_path}")
    found = Search().libraries(str(program))[0]
    assert [path for path in found if "libfast" in path] == [str(plain), str(fast)]


def test_cache_is_read_and_written_as_ldconfig_does(tmp_path: Path) -> None:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    rows = [line for line in listed.split("\n") if "=>" in line]
    cache = ldcache.load()
    assert len(cache.entries) == len(rows)
    path = tmp_path / "cache"
    path.write_bytes(ldcache.dump(cache))
    again = subprocess.run(["/sbin/ldconfig", "-C", path, "-p"], check=True, capture_output=True, text=True).stdout
    assert [line for line in again.split("\n") if "=>" in line] == rows


def test_cache_keeps_hwcaps_names() -> None:
    entries = (
        ldcache.Entry("libb.so", "/x/glibc-hwcaps/x86-64-v3/libb.so", 0x303, 0, ldcache.HWCAP_EXTENSION | 1),
        ldcache.Entry("libb.so", "/x/libb.so", 0x303, 0, 0),
        ldcache.Entry("liba.so", "/x/liba.so", 0x303, 0, 0),
    )
    for order in "<>":
        cache = ldcache.Cache(entries, ("x86-64-v2", "x86-64-v3"), order)
        assert ldcache.parse(ldcache.dump(cache)) == cache
        assert ldcache.parse(ldcache.dump(cache.only(lambda path: "hwcaps" not in path))).entries == entries[1:]


def test_cache_behind_the_old_format_and_damaged(tmp_path: Path) -> None:
    new = ldcache.dump(ldcache.Cache((ldcache.Entry("liba.so", "/x/liba.so", 3, 0, 0),)))
    old = ldcache.OLD_MAGIC + struct.pack("<I", 1) + b"\0" * 12
    old += b"\0" * (-len(old) % 8)
    assert ldcache.parse(old + new).entries[0].path == "/x/liba.so"
    path = tmp_path / "cache"
    for length in range(len(new)):
        path.write_bytes(new[:length])
        ldcache.load(str(path))  # an empty or a shorter cache, never an exception
