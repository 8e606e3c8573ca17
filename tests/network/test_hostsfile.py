"""A hosts file that is changed under its readers: what each of them sees is a file that was."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from minictr.runtime.network.hostsfile import ROOM, SLOT, beginning, entry, put

HEAD = ["127.0.0.1 localhost", "::1 localhost", "10.0.0.9 itself"]


def lines(path: Path) -> list[str]:
    """What counts of it."""
    return [" ".join(line.split()) for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]


def add(path: str, found: list[bytes]) -> None:
    put(path, found[0].split()[0].decode(), found)


def remove(path: str, address: str) -> bool:
    return put(path, address, [])


def made(path: Path) -> Path:
    path.write_bytes(beginning(HEAD))
    return path


def test_lines_come_and_go(tmp_path: Path) -> None:
    path = made(tmp_path / "hosts")
    add(str(path), entry("10.0.0.2", ["web", "www"]))
    add(str(path), entry("fd00::2", ["web"]))
    assert lines(path) == [*HEAD, "10.0.0.2 web www", "fd00::2 web"]
    assert path.stat().st_size % SLOT == 0
    assert remove(str(path), "10.0.0.2")
    assert not remove(str(path), "10.0.0.2")
    assert not remove(str(path), "10.0.0.9")  # of the beginning
    assert lines(path) == [*HEAD, "fd00::2 web"]
    os.utime(path, (time.time() - 60, time.time() - 60))
    size = path.stat().st_size
    add(str(path), entry("10.0.0.3", ["db"]))  # the free line, now that nobody can be amid reading it
    assert path.stat().st_size == size
    remove(str(path), "10.0.0.3")
    add(str(path), entry("10.0.0.4", ["db"]))  # it was free a moment ago only
    assert path.stat().st_size == size + SLOT
    assert lines(path) == [*HEAD, "fd00::2 web", "10.0.0.4 db"]


def test_many_names_are_several_lines(tmp_path: Path) -> None:
    names = [f"{'n' * 60}{number}" for number in range(9)]
    found = entry("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", names)
    assert {len(line) for line in found} == {SLOT}
    assert [word for line in found for word in line.split()[1:]] == [name.encode() for name in names]
    assert entry("10.0.0.2", []) == []
    path = made(tmp_path / "hosts")
    add(str(path), found)
    assert len(lines(path)) == len(HEAD) + len(found)
    assert remove(str(path), "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff")
    assert lines(path) == HEAD


def test_spoilt_files_are_no_trap(tmp_path: Path) -> None:
    """Cut short, grown, of another form: what is added counts, and nothing is lost but what was spoilt."""
    path = made(tmp_path / "hosts")
    add(str(path), entry("10.0.0.2", ["web"]))
    with path.open("ab") as file:
        file.write(b"10.0.0.77 mine")
    add(str(path), entry("10.0.0.3", ["db"]))
    assert "10.0.0.3 db" in lines(path)[-1]
    path.write_bytes(b"\t" * (ROOM + 1))
    assert not remove(str(path), "10.0.0.3")
    path.write_bytes(b"")
    add(str(path), entry("10.0.0.3", ["db"]))
    assert lines(path) == ["10.0.0.3 db"]


def test_readers_see_each_line_or_none(tmp_path: Path) -> None:
    """While names come and go, a reader in blocks as libc's never sees a line that nobody wrote, nor misses one that
    stays."""
    path = made(tmp_path / "hosts")
    add(str(path), entry("10.0.0.2", ["stays"]))
    known = {*HEAD, "10.0.0.2 stays"} | {f"10.0.1.{n} name{n} {'x' * n}" for n in range(1, 30)}
    wrong: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            fd, data = os.open(path, os.O_RDONLY), b""
            while block := os.read(fd, 1024):
                data += block
            os.close(fd)
            found = [" ".join(line.split()) for line in data.decode().splitlines() if line.strip() and line[0] != "#"]
            wrong.extend(line for line in found if line not in known)
            if "10.0.0.2 stays" not in found or not data.endswith(b"\n"):
                wrong.append(f"missing in {len(data)}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(300):
        number = 1 + turn % 29
        add(str(path), entry(f"10.0.1.{number}", [f"name{number}", "x" * number]))
        remove(str(path), f"10.0.1.{1 + (turn + 20) % 29}")
    over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert path.stat().st_size <= ROOM + SLOT
