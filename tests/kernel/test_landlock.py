"""Landlock: each right denied and allowed, by what the kernel then lets a child do."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minictr import rights
from minictr.errors import StepFailed
from minictr.kernel import capabilities, landlock

TCGETS = 0x5401  # asm-generic/ioctls.h


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.landlock()


def known() -> tuple[str, ...]:
    """The rights over files that this kernel can deny."""
    return tuple(name for name, (_, abi) in rights.ACCESS.items() if abi <= landlock.abi())


def execute(top: Path) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.execv(top / "true", ["true"])
        except OSError as err:
            os._exit(err.errno or 255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, "")


def opened(path: Path, flags: int) -> None:
    os.close(os.open(path, flags))


def listening(top: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "made"))


def device_control(top: Path) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        fcntl.ioctl(fd, TCGETS, bytes(64))
    except OSError as err:
        if err.errno != errno.ENOTTY:  # what /dev/null itself says
            raise
    finally:
        os.close(fd)


# right -> (what needs it, the errno of its denial)
ACTIONS: dict[str, tuple[Callable[[Path], object], int]] = {
    "execute": (execute, errno.EACCES),
    "write_file": (lambda top: opened(top / "file", os.O_WRONLY), errno.EACCES),
    "read_file": (lambda top: opened(top / "file", os.O_RDONLY), errno.EACCES),
    "read_dir": (lambda top: os.listdir(top / "full"), errno.EACCES),
    "remove_dir": (lambda top: os.rmdir(top / "empty"), errno.EACCES),
    "remove_file": (lambda top: os.unlink(top / "file"), errno.EACCES),
    # not 0:0, overlayfs' whiteout, which Linux 7 does not count as a device
    "make_char": (lambda top: os.mknod(top / "made", stat.S_IFCHR, os.makedev(1, 3)), errno.EACCES),
    "make_dir": (lambda top: os.mkdir(top / "made"), errno.EACCES),
    "make_reg": (lambda top: opened(top / "made", os.O_CREAT | os.O_WRONLY), errno.EACCES),
    "make_sock": (listening, errno.EACCES),
    "make_fifo": (lambda top: os.mkfifo(top / "made"), errno.EACCES),
    "make_block": (lambda top: os.mknod(top / "made", stat.S_IFBLK, os.makedev(8, 0)), errno.EACCES),
    "make_sym": (lambda top: os.symlink("x", top / "made"), errno.EACCES),
    "refer": (lambda top: os.rename(top / "file", top / "empty" / "file"), errno.EXDEV),
    "truncate": (lambda top: os.truncate(top / "file", 0), errno.EACCES),
    "ioctl_dev": (device_control, errno.EACCES),
}
LIBRARIES = tuple(path for path in ("/usr", "/lib", "/lib64") if os.path.exists(path))


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Something of every kind."""
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").write_text("x")
    (tmp_path / "true").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "true").chmod(0o755)
    return tmp_path


def outcome(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as err:
        return err.errno or -1
    return 0


def restricted(*paths: str | Path, access: tuple[str, ...] = (), **handled: Any) -> None:
    """This process denies itself ACCESS and what else is HANDLED, but on PATHS."""
    with landlock.ruleset(access, **handled) as rules:
        for path in paths:
            rules.allow_path(path)
        capabilities.no_new_privs()
        landlock.restrict(rules)


def test_every_right_is_tried() -> None:
    assert set(ACTIONS) == set(rights.ACCESS)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_right_off_and_on(requires: Any, in_child: Any, top: Path, name: str) -> None:
    requires.landlock(rights.ACCESS[name][1])
    action, denial = ACTIONS[name]
    place = Path("/dev/null") if name == "ioctl_dev" else top
    others = LIBRARIES if name == "execute" else ()

    def denied() -> int:
        restricted(*others, access=(name,))
        return outcome(lambda: action(top))

    def allowed() -> int:
        restricted(*others, place, access=(name,))
        return outcome(lambda: action(top))

    assert in_child(denied) == denial
    assert in_child(allowed) == 0


@pytest.mark.parametrize("name", ACTIONS)
def test_what_is_not_handled_stays_as_it_was(in_child: Any, top: Path, name: str) -> None:
    """All other rights are denied everywhere but below TOP, and this one is left alone."""

    def body() -> int:
        paths = (top, *LIBRARIES, "/dev/null")
        restricted(*paths, access=tuple(other for other in known() if other != name))
        return outcome(lambda: ACTIONS[name][0](top))

    # the kernel denies what refer allows to every domain that does not name it
    assert in_child(body) == (errno.EXDEV if name == "refer" else 0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_connecting(requires: Any, in_child: Any, listener: socket.socket) -> None:
    requires.landlock(4)
    port = listener.getsockname()[1]

    def body(ports: tuple[int, ...], network: tuple[str, ...]) -> int:
        with landlock.ruleset(network=network) as rules:
            for number in ports:
                rules.allow_port(number, ["connect_tcp"])
            capabilities.no_new_privs()
            landlock.restrict(rules)
        return outcome(lambda: connect(port))

    assert in_child(body, (), ("connect_tcp",)) == errno.EACCES
    assert in_child(body, (port ^ 1,), ("connect_tcp",)) == errno.EACCES
    assert in_child(body, (port,), ("connect_tcp", "bind_tcp")) == 0
    assert in_child(body, (), ("bind_tcp",)) == 0


def test_listening(requires: Any, in_child: Any) -> None:
    requires.landlock(4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # free once it is closed

    def body(ports: tuple[int, ...], wanted: int, network: tuple[str, ...]) -> int:
        with landlock.ruleset(network=network) as rules:
            for number in ports:
                rules.allow_port(number, ["bind_tcp"])
            capabilities.no_new_privs()
            landlock.restrict(rules)
        return outcome(lambda: socket.create_server(("127.0.0.1", wanted)).close())

    assert in_child(body, (), port, ("bind_tcp",)) == errno.EACCES
    assert in_child(body, (port,), port, ("bind_tcp",)) == 0
    assert in_child(body, (port,), 0, ("bind_tcp",)) == errno.EACCES
    assert in_child(body, (0,), 0, ("bind_tcp",)) == 0
    assert in_child(body, (), port, ("connect_tcp",)) == 0


def test_abstract_sockets(requires: Any, in_child: Any) -> None:
    requires.landlock(6)
    name = f"\0minictr-test-{os.getpid()}"

    def body(scopes: tuple[str, ...]) -> int:
        restricted(scopes=scopes)
        with socket.socket(socket.AF_UNIX) as client:
            return outcome(lambda: client.connect(name))

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        assert in_child(body, ("abstract_unix_socket",)) == errno.EPERM
        assert in_child(body, ("signal",)) == 0


def test_signals(requires: Any, in_child: Any) -> None:
    requires.landlock(6)
    outside = os.getpid()

    def body(scopes: tuple[str, ...]) -> tuple[int, int]:
        restricted(scopes=scopes)
        return outcome(lambda: os.kill(outside, 0)), outcome(lambda: os.kill(os.getpid(), 0))

    assert in_child(body, ("signal",)) == (errno.EPERM, 0)
    assert in_child(body, ("abstract_unix_socket",)) == (0, 0)


def test_a_file_narrows_what_is_allowed(in_child: Any, top: Path) -> None:
    def body() -> tuple[int, ...]:
        with landlock.ruleset(["read_file", "read_dir", "make_dir"]) as rules:
            rules.allow_path(top / "file", ["read_file", "read_dir"], narrow=True)
            rules.allow_path(top / "true", ["make_dir"], narrow=True)  # nothing is left of it: no rule
            with pytest.raises(StepFailed, match="EINVAL.*rights of a directory"):
                rules.allow_path(top / "file", ["read_dir"])
            capabilities.no_new_privs()
            landlock.restrict(rules)
        return tuple(outcome(lambda name=name: opened(top / name, os.O_RDONLY)) for name in ("file", "true"))

    assert in_child(body) == (0, errno.EACCES)


def test_a_relative_path_and_a_link(in_child: Any, top: Path) -> None:
    """The file is meant that a name leads to, and not the name."""
    (top / "link").symlink_to("file")

    def body() -> tuple[int, ...]:
        os.chdir(top / "empty")
        with landlock.ruleset(["read_file"]) as rules:
            rules.allow_path("../link")
            capabilities.no_new_privs()
            landlock.restrict(rules)
        first = outcome(lambda: opened(top / "file", os.O_RDONLY))
        os.rename(top / "file", top / "moved")
        (top / "file").symlink_to("true")
        return first, *(outcome(lambda name=name: opened(top / name, os.O_RDONLY)) for name in ("moved", "file"))

    assert in_child(body) == (0, 0, errno.EACCES)


def test_it_cannot_be_undone_and_adds_up(in_child: Any, top: Path) -> None:
    def body() -> tuple[int, int, str]:
        restricted(top, access=("read_file", "read_dir"))
        restricted("/", access=("read_file", "read_dir"))
        found = outcome(lambda: opened(top / "file", os.O_RDONLY)), outcome(lambda: os.listdir("/"))
        for _ in range(14):
            restricted("/", access=("read_file",))
        with pytest.raises(StepFailed) as caught:
            restricted("/", access=("read_file",))
        return *found, str(caught.value)

    kept, lost, words = in_child(body)
    assert (kept, lost) == (0, errno.EACCES)
    assert "E2BIG" in words and "16 rulesets" in words


def test_it_is_this_thread_and_its_children(in_child: Any) -> None:
    def body() -> tuple[int, int, int]:
        found = []

        def thread() -> None:
            restricted(access=("read_dir",))
            found.append(outcome(lambda: os.listdir("/")))
            pid = os.fork()
            if pid == 0:
                os._exit(outcome(lambda: os.listdir("/")))
            found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        other = threading.Thread(target=thread)
        other.start()
        other.join()
        return *found, outcome(lambda: os.listdir("/"))

    assert in_child(body) == (errno.EACCES, errno.EACCES, 0)


def test_what_is_open_stays_open(in_child: Any, top: Path) -> None:
    def body() -> tuple[bytes, int]:
        fd = os.open(top / "file", os.O_RDONLY)
        restricted(access=known())
        return os.read(fd, 9), outcome(lambda: opened(top / "file", os.O_RDONLY))

    assert in_child(body) == (b"x", errno.EACCES)


def test_without_privilege_no_new_privs_comes_first(as_nobody: Any) -> None:
    def body() -> tuple[str, int, int]:
        with landlock.ruleset(["read_dir"]) as rules:
            with pytest.raises(StepFailed) as caught:
                landlock.restrict(rules)
            before = outcome(lambda: os.listdir("/"))
            capabilities.no_new_privs()
            landlock.restrict(rules)
        return str(caught.value), before, outcome(lambda: os.listdir("/"))

    words, before, after = as_nobody(body)
    assert words.startswith("landlock restrict: landlock_restrict_self: EPERM")
    assert "no_new_privs" in words
    assert (before, after) == (0, errno.EACCES)


def test_privilege_is_enough(in_child: Any) -> None:
    def body() -> tuple[bool, int]:
        with landlock.ruleset(["read_dir"]) as rules:
            landlock.restrict(rules)
        return capabilities.has_no_new_privs(), outcome(lambda: os.listdir("/"))

    assert in_child(body) == (False, errno.EACCES)


def test_flags(requires: Any, in_child: Any) -> None:
    requires.landlock(7)
    flags = (landlock.LOG_SAME_EXEC_OFF, landlock.LOG_NEW_EXEC_ON, landlock.LOG_SUBDOMAINS_OFF)

    def body() -> str:
        for flag in (*flags, sum(flags)):
            with landlock.ruleset(["read_dir"]) as rules:
                landlock.restrict(rules, flags=flag)
        with landlock.ruleset(["read_dir"]) as rules, pytest.raises(StepFailed) as caught:
            landlock.restrict(rules, flags=1 << 30)
        return str(caught.value)

    words = in_child(body)
    assert "EINVAL" in words and "ABI 7" in words
