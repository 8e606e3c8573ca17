"""What is looked at in a program that stands still at a system call: its arguments, itself, the files it named.

Everything is read from outside and at that very moment: a container's mounts and files are gone with it. Files are
reached below /proc/PID/root with openat2(RESOLVE_IN_ROOT), Linux 5.6, so no link of the program's leads to the host's.
"""

from __future__ import annotations

import os
import stat

from minictr.kernel.core import lib
from minictr.kernel.mountinfo import parse
from minictr.kernel.procfs import rows
from minictr.kernel.ptrace import memory, text
from minictr.runtime.observed.calls import OPENS, SHAPES, open_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fact = dict[str, Any]

__all__ = ["Look", "real_paths", "signed"]

RESOLVE_IN_ROOT = 0x10  # linux/openat2.h
AT_FDCWD = -100
AT_EXECFN = 31  # linux/auxvec.h
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
FAMILIES = {AF_UNIX: "unix", AF_INET: "inet", AF_INET6: "inet6"}
AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = 0x100, 0x1000
NOFOLLOW_AT = {
    "newfstatat": 3,
    "fstatat64": 3,
    "statx": 2,
    "fchownat": 4,
    "utimensat": 3,
    "execveat": 4,
    "fchmodat2": 3,
}
SHOWN = 64  # bytes of a string that is no path
INITIAL_USERNS = 0xEFFFFFFD  # PROC_USER_INIT_INO, linux/proc_ns.h
_last: dict[str, Any] = {}  # what was read last, as text and understood


def signed(value: int) -> int:
    """An argument as the int that C has it for."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class Look:
    """One look at thread PID, which stands still."""

    def __init__(self, pid: int, call: str, args: tuple[int, ...]) -> None:
        self.pid, self.call, self.args = pid, call, args
        self.paths: list[tuple[str, bool]] = []  # in the container; whether a link at the end is followed
        self.extra: Fact = {}
        self.words: list[str] = []
        self._base = ""

    def arguments(self) -> str:
        """The arguments as a person reads them; fills ``paths`` and ``extra``."""
        shape = SHAPES.get(self.call)
        if shape is None:
            used = list(self.args)
            while used and used[-1] == 0:
                used.pop()
            return ", ".join(str(value) if value < 4096 else hex(value) for value in used[:4])
        for place, word in enumerate(shape):
            told = getattr(self, f"_{word.rstrip('!')}", self._int)(self.args[place], place, not word.endswith("!"))
            if told:
                self.words.append(told)
        return ", ".join(self.words)

    def _int(self, value: int, _place: int, _follow: bool) -> str:
        return "" if SHAPES[self.call][_place] == "-" else str(signed(value))

    def _hex(self, value: int, _place: int, _follow: bool) -> str:
        return hex(value)

    def _oct(self, value: int, _place: int, _follow: bool) -> str:
        creates = self.call not in OPENS or self.extra.get("flags", 0) & os.O_CREAT
        return f"0{value & 0o177777:o}" if creates else ""

    def _flags(self, value: int, _place: int, _follow: bool) -> str:
        self.extra["flags"] = value
        return open_words(value)

    def _how(self, value: int, place: int, follow: bool) -> str:
        return self._flags(int.from_bytes(memory(self.pid, value, 8), "little"), place, follow)

    def _str(self, value: int, _place: int, _follow: bool) -> str:
        found = text(self.pid, value, SHOWN) if value else None
        return "NULL" if found is None else quoted(os.fsdecode(found))

    def _path(self, value: int, place: int, follow: bool) -> str:
        return self._named(self._link("cwd"), value, place, follow)

    def _dirfd(self, value: int, _place: int, _follow: bool) -> str:
        number = signed(value)
        self._base = self._link("cwd") if number == AT_FDCWD else self._link(f"fd/{number}")
        return ""

    def _at(self, value: int, place: int, follow: bool) -> str:
        return self._named(self._base, value, place, follow)

    def _named(self, base: str, value: int, place: int, follow: bool) -> str:
        found = text(self.pid, value) if value else None
        if found is None:
            return "NULL"
        flag = NOFOLLOW_AT.get(self.call)
        if flag is not None and self.args[flag] & AT_SYMLINK_NOFOLLOW:
            follow = False
        flag = {"open": 1, "openat": 2}.get(self.call)
        if flag is not None and self.args[flag] & os.O_NOFOLLOW:
            follow = False
        name = os.fsdecode(found)
        path = base if not name else os.path.normpath(name if name.startswith("/") else f"{base}/{name}")
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        if path.startswith("/"):
            self.paths.append((path, follow))
        return quoted(path)

    def _fd(self, value: int, _place: int, _follow: bool) -> str:
        target = self._link(f"fd/{signed(value)}")
        if target.startswith("/"):
            self.paths.append((target.removesuffix(" (deleted)"), True))
        return f"{signed(value)}<{target}>" if target else str(signed(value))

    def _addr(self, value: int, place: int, _follow: bool) -> str:
        raw = memory(self.pid, value, min(self.args[place + 1], 128))
        if len(raw) < 2:
            return "NULL"
        family = int.from_bytes(raw[:2], "little")
        self.extra["family"] = family
        if family in (AF_INET, AF_INET6) and len(raw) >= 4:
            self.extra["port"] = int.from_bytes(raw[2:4], "big")
            return f"{FAMILIES[family]} port {self.extra['port']}"
        if family == AF_UNIX and len(raw) > 2:
            name = os.fsdecode(raw[2:].rstrip(b"\0")) if raw[2] == 0 else os.fsdecode(raw[2:].partition(b"\0")[0])
            if raw[2] == 0:
                return f"unix {quoted('@' + name[1:])}"
            path = name if name.startswith("/") else os.path.normpath(f"{self._link('cwd')}/{name}")
            self.paths.append((path, True))
            return f"unix {quoted(path)}"
        return f"family {family}"

    def executed(self) -> str:
        """What an execve that is done opened: the program, its loader, and the script whose interpreter it is.

        Its arguments were in memory that is gone; what the kernel mapped, and the name it was called by, are there.
        """
        self.paths = []
        try:
            with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
                mapped = [line.split(None, 5)[5].rstrip("\n") for line in file if len(line.split(None, 5)) == 6]
            with open(f"/proc/{self.pid}/auxv", "rb") as vector:
                words = vector.read()
        except OSError:
            return ""
        size = 4 if self.narrow() else 8
        numbers = [int.from_bytes(words[at : at + size], "little") for at in range(0, len(words), size)]
        address = dict(zip(numbers[::2], numbers[1::2])).get(AT_EXECFN, 0)
        name = os.fsdecode((text(self.pid, address) if address else b"") or b"")
        if name:
            mapped.append(os.path.normpath(name if name.startswith("/") else f"{self._link('cwd')}/{name}"))
        self.paths = [(path, True) for path in dict.fromkeys(mapped) if path.startswith("/")]
        return ", ".join(quoted(path) for path, _ in self.paths)

    def narrow(self) -> bool:
        """Whether it is a program of 32 bits: its auxiliary vector has shorter words."""
        try:
            with open(f"/proc/{self.pid}/exe", "rb") as file:
                return file.read(5)[4:] == b"\x01"  # ELFCLASS32
        except OSError:
            return False

    def _link(self, name: str) -> str:
        try:
            return os.readlink(f"/proc/{self.pid}/{name}")
        except OSError:
            return ""

    # --- the program itself ---

    def who(self) -> Fact:
        """Its credentials, in the numbers of the host; the maps tell those of its user namespace."""
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
                status = rows(file.read())
            own = tuple(status.get(name, "") for name in ("Uid", "Gid", "Groups", "CapEff"))
            told = (self.pid, own, self._map("uid_map"), self._map("gid_map"))  # maps are written later than made
            if _last.get("told") != told:
                _last.update(told=told, who=self._who(status))
            who: Fact = _last["who"]
            return who
        except (OSError, KeyError, ValueError):
            return {}

    def _who(self, status: dict[str, str]) -> Fact:
        return {
            "uids": [int(word) for word in status["Uid"].split()],
            "gids": [int(word) for word in status["Gid"].split()],
            "groups": [int(word) for word in status["Groups"].split()],
            "caps": int(status["CapEff"], 16),
            "initial": os.stat(f"/proc/{self.pid}/ns/user").st_ino == INITIAL_USERNS,
            "uid_map": self._map("uid_map"),
            "gid_map": self._map("gid_map"),
            "label": self._label(),
        }

    def _map(self, name: str) -> list[list[int]]:
        with open(f"/proc/{self.pid}/{name}", encoding="ascii") as file:
            return [[int(word) for word in line.split()] for line in file]

    def _label(self) -> str:
        try:
            with open(f"/proc/{self.pid}/attr/current", encoding="utf-8", errors="replace") as file:
                return file.read().rstrip("\n\0")
        except OSError:
            return ""  # EINVAL: no security module has one

    def owner_of(self, pid: int) -> list[int] | None:
        """The uids of another process that it named, by the number it has in its own pid namespace."""
        try:
            inside = f"/proc/{self.pid}/root/proc/{pid}/status"
            with open(inside, encoding="utf-8", errors="replace") as file:
                return [int(word) for word in rows(file.read())["Uid"].split()]
        except (OSError, KeyError, ValueError):
            return None

    # --- files ---

    def places(self) -> list[Fact]:
        """What is there at each of ``paths``."""
        try:
            root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return [{"path": path} for path, _ in self.paths]
        try:
            return [self._place(root, path, follow) for path, follow in self.paths]
        finally:
            os.close(root)

    def _place(self, root: int, path: str, follow: bool) -> Fact:
        """The file at PATH, the directories on the way to it, and the mount it is on, or would be made on."""
        fact: Fact = {"path": path, "there": False, "dirs": []}
        parts = [part for part in self._inside(path).split("/") if part]
        walked, deepest = "", -1
        try:
            for number in range(len(parts) + 1):
                last = number == len(parts)
                fd = self._open(root, walked or "/", follow or not last)
                if fd < 0:
                    break
                if deepest >= 0:
                    os.close(deepest)
                deepest = fd
                seen = os.fstat(fd)
                real = os.readlink(f"/proc/self/fd/{fd}")
                if last:
                    fact.update(there=True, real=real, kind=kind_of(seen), **mode_of(fd, seen))
                else:
                    fact["dirs"].append({"path": walked or "/", "real": real, **mode_of(fd, seen)})
                    walked += f"/{parts[number]}"
            if deepest >= 0:
                fact["mount"] = self._mount(deepest)
        finally:
            if deepest >= 0:
                os.close(deepest)
        return fact

    def _inside(self, path: str) -> str:
        """PATH without the links of procfs that mean who looks: "self" would be us."""
        for link, name in (("/proc/self", "NStgid"), ("/proc/thread-self", "NSpid")):
            if path == link or path.startswith(link + "/"):
                try:
                    with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
                        numbers = rows(file.read())
                except OSError:
                    return path
                own = numbers["NStgid"].split()[-1]
                task = f"/task/{numbers['NSpid'].split()[-1]}" if name == "NSpid" else ""
                return f"/proc/{own}{task}{path[len(link) :]}"
        return path

    def _open(self, root: int, path: str, follow: bool) -> int:
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return int(lib.mc_openat2(root, os.fsencode(path), flags, 0, RESOLVE_IN_ROOT))

    def _mount(self, fd: int) -> Fact:
        """The mount of FD, by its number: names may be covered."""
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            number = int(rows(file.read())["mnt_id"])
        try:
            with open(f"/proc/{self.pid}/mountinfo", "rb") as file:
                table = file.read()
        except OSError:
            return {}
        if _last.get("table") != table:  # the same a thousand times, and long to read
            _last.update(table=table, mounts={row.id: row for row in parse(table)})
        row = _last["mounts"].get(number)
        if row is None:
            return {}
        told = {"target": row.target, "fstype": row.fstype, "options": list(row.options)}
        return {**told, "super": list(row.super_options)}


def real_paths(pid: int, paths: list[str]) -> dict[str, str]:
    """PATHS in the root of PID, links followed; those that are not there are left out."""
    found = {}
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            fd = int(lib.mc_openat2(root, os.fsencode(path), os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT))
            if fd >= 0:
                found[path] = os.readlink(f"/proc/self/fd/{fd}")
                os.close(fd)
    finally:
        os.close(root)
    return found


def kind_of(seen: os.stat_result) -> str:
    """``dir``, ``file``, ``link``, ``c 1:3``."""
    for test, letter in ((stat.S_ISCHR, "c"), (stat.S_ISBLK, "b")):
        if test(seen.st_mode):
            return f"{letter} {os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"
    return "dir" if stat.S_ISDIR(seen.st_mode) else "link" if stat.S_ISLNK(seen.st_mode) else "file"


def mode_of(fd: int, seen: os.stat_result) -> Fact:
    """Mode and owner; whether an access control list decides."""
    try:
        acl = bool(os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access"))
    except OSError:
        acl = False
    return {
        "mode": stat.S_IMODE(seen.st_mode),
        "uid": seen.st_uid,
        "gid": seen.st_gid,
        **({"acl": True} if acl else {}),
    }


def quoted(text: str) -> str:
    """TEXT as one word, control characters escaped."""
    plain = text.isprintable() and not any(mark in text for mark in " ,\"'()")
    return text if plain and text else repr(text)
