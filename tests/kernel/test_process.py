"""Attributes of a process, by /proc and by what the kernel then does."""

from __future__ import annotations

import os
import signal
import stat
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import mounts, namespaces, process, procfs


def forked(function: Any) -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(int(function()))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_names_of_a_namespace(in_child: Any) -> None:
    def body() -> tuple[str, ...]:
        with namespaces.unshare("uts"):
            process.sethostname("lab-1")
            process.setdomainname("plain")
            inside = process.gethostname(), process.getdomainname()
        return *inside, process.gethostname(), process.getdomainname()

    outside = process.gethostname(), process.getdomainname()
    assert in_child(body) == ("lab-1", "plain", *outside)


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33, "a\0b"])
def test_names_that_cannot_be(name: str) -> None:
    for call in (process.sethostname, process.setdomainname):
        with pytest.raises(SpecError, match="not 1 to 64 bytes"):
            call(name)


def test_the_longest_name(in_child: Any) -> None:
    def body() -> str:
        with namespaces.unshare("uts"):
            process.sethostname("x" * 64)
            return process.gethostname()

    assert in_child(body) == "x" * 64


def test_an_ordinary_user_renames_nothing(as_nobody: Any) -> None:
    def body() -> int:
        with pytest.raises(StepFailed) as caught:
            process.sethostname("mine")
        return caught.value.errno or 0

    assert as_nobody(body) == 1


@pytest.mark.parametrize("pid", ["self", 0])
def test_oom_score_adj(in_child: Any, pid: Any) -> None:
    def body() -> int:
        process.set_oom_score_adj(pid, 321)
        return int(procfs.read("self", "oom_score_adj"))

    assert in_child(body) == 321


def test_oom_score_adj_of_another_and_below(as_nobody: Any) -> None:
    def body() -> tuple[int, list[int]]:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        process.set_oom_score_adj(pid, 500)
        there = process.get_oom_score_adj(pid)
        codes = []
        for value in (-500, 1001):
            with pytest.raises(StepFailed) as caught:
                process.set_oom_score_adj(pid, value)
            codes.append(caught.value.errno or 0)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return there, codes

    assert as_nobody(body) == (500, [13, 22])


def test_oom_score_adj_of_nobody_there() -> None:
    with pytest.raises(StepFailed, match="ENOENT"):
        process.set_oom_score_adj(4194305, 0)


def test_pdeathsig(in_child: Any) -> None:
    """A grandchild dies with its parent, and not without the setting."""

    def survives(setting: int) -> bool:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            grandchild = os.fork()
            if grandchild == 0:
                process.set_pdeathsig(setting)
                os.write(writer, b"%d %d\n" % (os.getpid(), process.get_pdeathsig()))
                time.sleep(0.4)
                os.write(writer, b"alive\n")
                os._exit(0)
            time.sleep(0.15)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            first, *rest = file.read().splitlines()
        os.waitpid(pid, 0)
        assert first.endswith(f" {setting}")
        return rest == ["alive"]

    def body() -> tuple[bool, bool]:
        process.set_subreaper()
        answers = survives(0), survives(signal.SIGKILL)
        while True:
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return answers

    assert in_child(body) == (True, False)
    with pytest.raises(StepFailed, match="EINVAL"):
        process.set_pdeathsig(99)


def test_subreaper(in_child: Any) -> None:
    def body() -> tuple[bool, bool]:
        found = []
        for on in (False, True):
            process.set_subreaper(on)
            reader, writer = os.pipe()
            me, pid = os.getpid(), os.fork()
            if pid == 0:
                if os.fork() == 0:
                    time.sleep(0.1)
                    os.write(writer, b"y" if os.getppid() == me else b"n")
                os._exit(0)
            os.waitpid(pid, 0)
            found.append(os.read(reader, 1) == b"y")
        os.waitpid(-1, 0)
        return found[0], found[1]

    assert in_child(body) == (False, True)


def test_rlimits(in_child: Any) -> None:
    def body() -> tuple[tuple[int, int], str, int]:
        process.set_rlimit("nofile", 64, 128)
        process.set_rlimit("core", 0)
        row = next(line for line in procfs.read("self", "limits").splitlines() if line.startswith("Max open files"))
        opened = []
        try:
            while True:
                opened.append(os.open("/", os.O_PATH))
        except OSError:
            highest = opened[-1]
            for fd in opened:
                os.close(fd)
        return process.get_rlimit("nofile"), " ".join(row.split()[3:5]), highest

    assert in_child(body) == ((64, 128), "64 128", 63)


def test_rlimits_of_another_process(in_child: Any) -> None:
    def body() -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        process.set_rlimit("nofile", 99, pid=pid)
        found = process.get_rlimit("nofile", pid=pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return found

    assert in_child(body) == (99, 99)


def test_every_limit_has_a_name_the_kernel_shares() -> None:
    import resource

    for name, number in process.LIMITS.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", number)
        assert known == number, name
        process.get_rlimit(name)
    assert len(process.LIMITS) == len(procfs.read("self", "limits").splitlines()) - 1


def test_rlimit_mistakes(as_nobody: Any) -> None:
    def body() -> list[str]:
        process.set_rlimit("nofile", 64, 128)
        said = []
        for soft, hard in ((64, 256), (128, 64)):
            with pytest.raises(StepFailed) as caught:
                process.set_rlimit("nofile", soft, hard)
            said.append(str(caught.value))
        return said

    first, second = as_nobody(body)
    assert "EPERM" in first
    assert "CAP_SYS_RESOURCE" in first
    assert "EINVAL" in second
    with pytest.raises(SpecError, match="not one of cpu"):
        process.get_rlimit("files")


def test_umask(in_child: Any, place: Any) -> None:
    def body() -> tuple[int, int, int]:
        process.set_umask(0o027)
        (place / "file").touch()
        return process.get_umask(), (place / "file").stat().st_mode & 0o777, process.set_umask(0)

    assert in_child(body) == (0o027, 0o640, 0o027)


def test_personality(in_child: Any) -> None:
    def stack() -> str:
        reader, writer = os.pipe()
        pid = os.posix_spawn(
            "/bin/cat", ["cat", "/proc/self/maps"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)]
        )
        os.close(writer)
        with os.fdopen(reader) as file:
            found = next(line.split("-")[0] for line in file if "[stack]" in line)
        os.waitpid(pid, 0)
        return found

    def body() -> Any:
        assert process.get_personality() == ("linux", True)
        moving = len({stack() for _ in range(4)})
        process.set_personality(aslr=False)
        fixed = len({stack() for _ in range(4)})
        shown = process.get_personality()
        process.set_personality(persona="linux32")
        return moving > 1, fixed, shown, os.uname().machine, process.get_personality()

    moving, fixed, shown, machine, after = in_child(body)
    assert (moving, fixed, shown, after) == (True, 1, ("linux", False), ("linux32", True))
    assert machine in ("i686", "armv8l")
    with pytest.raises(SpecError, match="not one of linux"):
        process.set_personality(persona="bsd")


def test_boot_id(in_child: Any) -> None:
    path = "/proc/sys/kernel/random/boot_id"

    def body() -> list[str]:
        namespaces.unshare("mnt").keep()
        mounts.propagation("/", "rprivate")
        mounts.tmpfs("/mnt").keep()
        found = [Path(path).read_text()]
        for name in ("a", "b"):
            os.umask(0o777)
            process.set_boot_id(f"/mnt/{name}")
            found.append(Path(path).read_text())
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
        with pytest.raises(StepFailed, match="EEXIST"):
            process.set_boot_id("/mnt/a")
        with pytest.raises(OSError, match="Read-only"):
            os.open(path, os.O_WRONLY)
        return found

    found = in_child(body)
    assert len(set(found)) == 3
    assert all(str(uuid.UUID(text.strip())) == text.strip() for text in found)
    assert Path(path).read_text() == found[0]


def test_setsid(in_child: Any) -> None:
    def body() -> tuple[bool, bool, int]:
        before = os.getsid(0)
        process.setsid()
        with pytest.raises(StepFailed) as caught:
            process.setsid()
        return os.getsid(0) == os.getpid(), before != os.getsid(0), caught.value.errno or 0

    assert in_child(body) == (True, True, 1)


def test_controlling_terminal(in_child: Any) -> None:
    def body() -> tuple[bool, str]:
        master, slave = os.openpty()
        process.setsid()
        with pytest.raises(OSError, match="No such device or address"):
            os.open("/dev/tty", os.O_RDWR)
        process.set_controlling_terminal(slave)
        fd = os.open("/dev/tty", os.O_RDWR)
        same = os.tcgetpgrp(fd) == os.getpgrp()
        pid = os.fork()
        if pid == 0:
            process.setsid()
            try:
                process.set_controlling_terminal(slave)
            except StepFailed as err:
                os._exit(err.errno or 0)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for end in (fd, slave, master):
            os.close(end)
        return same, str(code)

    # with privilege a terminal may be stolen only by another request: ours is refused
    assert in_child(body) == (True, "1")


def test_keyring(in_child: Any) -> None:
    def body() -> tuple[int, int, int]:
        first, second = process.join_keyring(), process.join_keyring()
        named = process.join_keyring(f"minictr-test-{os.getpid()}")
        return first, second, named

    first, second, named = in_child(body)
    assert len({first, second, named}) == 3
    assert min(first, second, named) > 0


def test_sysctl_of_a_namespace(in_child: Any) -> None:
    name = "net.ipv4.ip_unprivileged_port_start"

    def body() -> tuple[str, str]:
        with namespaces.unshare("net"):
            process.set_sysctl(name, "7")
            inside = process.get_sysctl(name.replace(".", "/"))
        return inside, process.get_sysctl(name)

    assert in_child(body) == ("7", process.get_sysctl(name))


def test_sysctl_mistakes(in_child: Any) -> None:
    def body() -> list[str]:
        said = []
        with namespaces.unshare("net"):
            for name, value in (("net.ipv4.none", "1"), ("net.ipv4.ip_unprivileged_port_start", "many")):
                with pytest.raises(StepFailed) as caught:
                    process.set_sysctl(name, value)
                said.append(str(caught.value))
        return said

    first, second = in_child(body)
    assert "net.ipv4.none = 1" in first
    assert "ENOENT" in first
    assert "EINVAL" in second
    for wrong in ("", "net..x", "net/../../etc/passwd", "a\0b"):
        with pytest.raises(SpecError, match="not a setting's name"):
            process.set_sysctl(wrong, "1")


def test_chdir(in_child: Any, place: Any) -> None:
    def body() -> str:
        process.chdir(str(place))
        with pytest.raises(StepFailed, match="ENOENT"):
            process.chdir("nowhere")
        return os.getcwd()

    assert in_child(body) == str(place)


def test_chdir_out_of_the_root(in_child: Any, place: Any) -> None:
    """CVE-2024-21626: a descriptor that leads out of the root is no working directory."""

    def body() -> int:
        from minictr.kernel import mounts, rootfs

        outside = os.open("/usr", os.O_PATH)
        (place / "proc").mkdir()
        mounts.bind(str(place), str(place)).keep()
        mounts.proc(str(place / "proc")).keep()
        rootfs.pivot_root(str(place))
        with pytest.raises(StepFailed) as caught:
            process.chdir(f"/proc/self/fd/{outside}")
        return caught.value.errno or 0

    assert in_child(body) == 116  # ESTALE


def test_no_new_privs(in_child: Any) -> None:
    def body() -> tuple[bool, bool, str]:
        before = process.has_no_new_privs()
        process.no_new_privs()
        return before, process.has_no_new_privs(), procfs.status()["NoNewPrivs"]

    assert in_child(body) == (False, True, "1")


def test_forked_children_inherit_what_was_set(in_child: Any) -> None:
    def body() -> int:
        process.set_umask(0o077)
        process.no_new_privs()
        return forked(lambda: process.get_umask() == 0o077 and process.has_no_new_privs())

    assert in_child(body) == 1
