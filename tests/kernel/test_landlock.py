"""Landlock: each right denied and allowed, by what the kernel then lets a child do."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minictr import rights
from minictr.errors import SpecError, StepFailed
from minictr.kernel import capabilities, core, landlock, seccomp

TCGETS = 0x5401  # asm-generic/ioctls.h
CREATE_RULESET = 444  # asm-generic/unistd.h
HEADER = Path("/usr/include/linux/landlock.h")


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.landlock(7)


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
    # 0:0 is overlayfs' whiteout, which needs no privilege
    "make_char": (lambda top: os.mknod(top / "made", stat.S_IFCHR, 0), errno.EACCES),
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
def test_a_right_off_and_on(in_child: Any, top: Path, name: str) -> None:
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
        restricted(*paths, access=tuple(other for other in rights.ACCESS if other != name))
        return outcome(lambda: ACTIONS[name][0](top))

    # the kernel denies what refer allows to every domain that does not name it
    assert in_child(body) == (errno.EXDEV if name == "refer" else 0)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_connecting(in_child: Any, listener: socket.socket) -> None:
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


def test_listening(in_child: Any) -> None:
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


def test_abstract_sockets(in_child: Any) -> None:
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


def test_signals(in_child: Any) -> None:
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
        restricted(access=tuple(rights.ACCESS))
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


def test_flags(in_child: Any) -> None:
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


# --- what cannot be right ---


def test_mistakes(top: Path) -> None:
    for wrong in ({}, {"access": ["read"]}, {"network": ["udp"]}, {"scopes": ["net"]}, {"access": "execute"}):
        with pytest.raises(SpecError, match="landlock"):
            landlock.ruleset(**wrong)
    with landlock.ruleset(["read_file"], ["bind_tcp"]) as rules:
        with pytest.raises(StepFailed, match="landlock path /nosuch: read_file: openat2: ENOENT"):
            rules.allow_path("/nosuch")
        with pytest.raises(StepFailed, match="ELOOP.*magic links"):
            rules.allow_path("/proc/self/exe")
        with pytest.raises(StepFailed, match="landlock_add_rule: EINVAL.*not handled"):
            rules.allow_path(top, ["execute"])
        with pytest.raises(StepFailed, match="landlock port 80: connect_tcp.*EINVAL.*not handled"):
            rules.allow_port(80, ["connect_tcp"])
        for port in (-1, 65536, "80", True):
            with pytest.raises(SpecError, match="not between 0 and 65535"):
                rules.allow_port(port)
    for call in (lambda: rules.allow_path("/"), lambda: landlock.restrict(rules)):
        with pytest.raises(StepFailed, match="EBADF.*closed"):
            call()


def test_a_ruleset_dropped_unclosed_is_told() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.warns(ResourceWarning, match="Ruleset read_file"):
        landlock.ruleset(["read_file"])
    assert len(os.listdir("/proc/self/fd")) == before


# --- which kernel has what ---


def test_what_an_older_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 3)
    missing = landlock.lacking(rights.ACCESS, rights.NETWORK, rights.SCOPES, log=True)
    assert list(missing) == ["ioctl_dev", "bind_tcp", "connect_tcp", "abstract_unix_socket", "signal", "log"]
    assert missing["ioctl_dev"] == "ioctl_dev needs Landlock ABI 5 (Linux 6.10), this kernel has ABI 3"
    with pytest.raises(StepFailed, match="ioctl_dev needs Landlock ABI 5"):
        landlock.ruleset(["read_file", "ioctl_dev"])


def test_this_kernel_lacks_nothing() -> None:
    assert landlock.abi() >= 7
    assert landlock.lacking(rights.ACCESS, rights.NETWORK, rights.SCOPES, log=True) == {}


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.ENOSYS, "5.13"), (errno.EOPNOTSUPP, "lsm="), (errno.EPERM, "filter")]
)
def test_a_kernel_without_it(in_child: Any, refusing: Any, number: int, cure: str) -> None:
    def body() -> list[str]:
        capabilities.no_new_privs()
        seccomp.load(refusing(number, CREATE_RULESET))
        found = []
        for call in (landlock.abi, lambda: landlock.ruleset(["execute"])):
            with pytest.raises(StepFailed) as caught:
                call()
            found.append(str(caught.value))
        answer = landlock.probe()["landlock"]
        return [*found, f"{answer.ok} {answer.reason}; {answer.cure}"]

    first, second, probed = in_child(body)
    assert errno.errorcode[number] in first and cure in first
    assert second == first
    assert probed.startswith("False landlock ruleset: ")


def test_probe_tells_the_abi() -> None:
    answer = landlock.probe()["landlock"]
    assert answer
    assert str(answer) == f"yes (ABI {landlock.abi()})"


def test_the_table_is_the_kernels() -> None:
    """Bits that its header names, as far as the one installed here goes; and no bit beyond the table is known."""
    tables = {"ACCESS_FS": rights.ACCESS, "ACCESS_NET": rights.NETWORK, "SCOPE": rights.SCOPES}
    row = re.compile(r"^#define LANDLOCK_(ACCESS_FS|ACCESS_NET|SCOPE)_(\w+)\s+\(1ULL << (\d+)\)", re.MULTILINE)
    found = row.findall(HEADER.read_text()) if HEADER.exists() else []
    assert len(found) >= 13 or not HEADER.exists()
    for kind, name, bit in found:
        assert tables[kind][name.lower()][0] == int(bit)
    for mask in (rights.bits(rights.ACCESS, rights.ACCESS),):
        assert mask == (1 << 16) - 1
    assert core.lib.mc_landlock_abi() == landlock.abi()
