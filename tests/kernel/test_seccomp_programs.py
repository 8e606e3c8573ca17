"""The cache of compiled filters: what is kept, and above all what is not believed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minictr.kernel import seccomp_compile, seccomp_programs

ONE, OTHER = bytes(range(8)), bytes(range(8, 24))
FILTER: tuple[Any, ...] = ("a filter's rules",)


class Compiler:
    """In the compiler's place: counts, and gives what it is told to."""

    def __init__(self) -> None:
        self.made = 0
        self.answer = ONE

    def __call__(self, plain: tuple[Any, ...]) -> bytes:
        assert plain == FILTER
        self.made += 1
        return self.answer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINICTR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "seccomp"


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(seccomp_compile, "compile_filter", made)
    return made


def ask(content: str = "content") -> bytes:
    seccomp_programs._memory.clear()
    return seccomp_programs.program(content, lambda: FILTER)


def kept(place: Path) -> Path:
    (path,) = place.iterdir()
    return path


def test_made_once(place: Path, compiler: Compiler) -> None:
    assert [ask(), ask(), seccomp_programs.program("content", lambda: FILTER)] == [ONE] * 3
    assert compiler.made == 1
    ask("another")
    assert compiler.made == 2
    assert (kept_mode := place.stat().st_mode & 0o777) == 0o700, kept_mode
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}


def test_library_and_compiler_are_in_the_key(place: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    ask()
    monkeypatch.setattr(seccomp_programs, "library_identity", lambda: "libseccomp.so.2.9.9 1 2")
    ask()
    monkeypatch.setattr(seccomp_programs, "COMPILER", 99)
    ask()
    assert compiler.made == 3
    monkeypatch.setattr(seccomp_programs, "library_identity", lambda: "")
    ask()
    ask()
    assert (compiler.made, len(list(place.iterdir()))) == (5, 3)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def another_program(path: Path) -> None:
    head = path.read_bytes().partition(b"\n")[0]
    path.write_bytes(head + b"\n" + OTHER)


def another_filters_program(path: Path) -> None:
    """Right in itself, under a name that is not its own: what a policy allows must not become another's."""
    seccomp_programs._memory.clear()
    seccomp_programs.write("f" * 64, OTHER)
    os.rename(path.parent / ("f" * 64), path)


def link_to_a_copy(path: Path) -> None:
    away = path.parent.parent / "away"
    os.rename(path, away)
    path.symlink_to(away)


def second_link(path: Path) -> None:
    os.link(path, path.parent.parent / "second")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def huge(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(bytes(1 << 20))


def writable_by_others(path: Path) -> None:
    path.chmod(0o622)


def directory_writable_by_others(path: Path) -> None:
    path.parent.chmod(0o777)


def directory_is_a_link(path: Path) -> None:
    os.rename(path.parent, path.parent.parent / "real")
    path.parent.symlink_to("real")


ATTACKS = [
    truncated, one_bit, another_program, another_filters_program, link_to_a_copy, second_link, fifo, directory, empty,
    huge, writable_by_others, directory_writable_by_others, directory_is_a_link,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_not_believed(place: Path, compiler: Compiler, attack: Any) -> None:
    ask()
    attack(kept(place))
    compiler.answer = bytes(8)
    assert ask() == compiler.answer
    assert compiler.made == 2
    if attack not in (directory, directory_writable_by_others, directory_is_a_link):
        assert ask() == compiler.answer  # and put right
        assert compiler.made == 2


@pytest.mark.parametrize("whose", ["file", "directory"])
def test_what_is_somebody_elses_is_not_believed(place: Path, compiler: Compiler, whose: str, requires: Any) -> None:
    requires.root()
    ask()
    os.chown(kept(place) if whose == "file" else place, 12345, 12345)
    compiler.answer = OTHER
    assert ask() == OTHER
    assert compiler.made == 2


def test_a_place_that_cannot_be_written(place: Path, compiler: Compiler) -> None:
    place.parent.write_text("a file where a directory should be")
    assert [ask(), ask()] == [ONE, ONE]
    assert compiler.made == 2


def test_nothing_is_left_of_a_write_that_fails(
    place: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    assert ask() == ONE
    assert list(place.iterdir()) == []


def test_old_ones_go(place: Path, compiler: Compiler) -> None:
    ask()
    for number in range(seccomp_programs.KEPT_FILES):
        (place / f"{number:064x}").write_bytes(b"")
    ask("one more")
    assert len(list(place.iterdir())) <= seccomp_programs.KEPT_FILES // 2 + 1


@pytest.mark.parametrize(
    ("environment", "uid", "wanted"),
    [
        ({}, 0, "/var/cache/minictr/seccomp"),
        ({"XDG_CACHE_HOME": "/x"}, 0, "/var/cache/minictr/seccomp"),
        ({"XDG_CACHE_HOME": "/x"}, 5, "/x/minictr/seccomp"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, 5, "/h/.cache/minictr/seccomp"),
        ({}, 5, ""),
        ({"HOME": "relative"}, 5, ""),
        ({"MINICTR_CACHE": "/y", "XDG_CACHE_HOME": "/x"}, 5, "/y/seccomp"),
    ],
)
def test_where(environment: dict[str, str], uid: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert seccomp_programs.cache_directory() == wanted


def test_the_real_thing(place: Path) -> None:
    """Compiled by libseccomp once, the same from the disk."""
    import minictr as mc

    flt = mc.SeccompFilter("allow").deny("mkdir")
    seccomp_programs._memory.clear()
    made = flt.program
    seccomp_programs._memory.clear()
    assert flt.program == made
    assert len(list(place.iterdir())) == 1
    shutil.rmtree(place)


def test_without_libseccomp(tmp_path: Path) -> None:
    """Said with its cure, and before anything is touched; what is kept on disk needs no library."""
    code = (
        "import sys; sys.path += {path!r}\n"
        "import minictr as mc\n"
        "flt = mc.SeccompFilter('allow').deny('mkdir')\n"
        "if {missing}: sys.modules['pyseccomp'] = None\n"
        "try: print(len(flt.program) % 8)\n"
        "except mc.Unsupported as err: print(err.feature, err.cure)\n"
    )
    environment = {"MINICTR_CACHE": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    said = []
    for missing in (True, False, True):
        program = code.format(path=[place for place in sys.path if "-packages" in place], missing=missing)
        command = [sys.executable, "-I", "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said.append(done.stdout.strip() or done.stderr)
    assert said == ["seccomp apt-get install libseccomp2", "0", "0"]
