"""Programs of the host load nothing of a container's: no module, no library, no locale (CVE-2019-14271).

Traps first: files that would tell if anything of the host's read them as code. Then what strace(1) saw: from the moment
when a start is in the container's root to its execve there are only the calls and the paths listed here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minictr as mc

MODULES = ("encodings/__init__", "site", "sitecustomize", "usercustomize", "os", "json/__init__", "struct", "codecs")
MODULES += ("minictr/__init__", "click/__init__", "_cffi_backend", "psutil", "locale", "pwd", "fcntl", "signal")

Told = Callable[[], list[str]]


def telling(marker: Path, name: str) -> str:
    """A line of Python that needs no other module, not even one of encodings."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return f"import posix; posix.write(posix.open({str(marker)!r}, {flags}), b'{name}\\n')\n"


@pytest.fixture
def traps(own_rootfs: Path, tmp_path: Path) -> tuple[Path, Told]:
    """A root full of modules that tell in a file of the host when anybody imports them, and what they have told."""
    marker = tmp_path / "marker"
    for name in MODULES:
        path = own_rootfs / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(telling(marker, name))
    site = own_rootfs / f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    site.mkdir(parents=True)
    (site / "trap.pth").write_text(telling(marker, "pth"))

    def told() -> list[str]:
        found = marker.read_text().split() if marker.exists() else []
        marker.unlink(missing_ok=True)
        return found

    return own_rootfs, told


@pytest.fixture
def hostile(traps, tmp_path: Path) -> dict[str, object]:
    """Options of a call: in the container's root, with every variable that leads Python or the loader there."""
    root, _ = traps
    names = ("PYTHONPATH", "PYTHONUSERBASE", "HOME", "LOCPATH", "NLSPATH", "GCONV_PATH", "PYTHONPYCACHEPREFIX")
    state = str(tmp_path / "state")
    env = {**os.environ, **dict.fromkeys(names, str(root)), "MINICTR_ROOT": state, "PYTHONSTARTUP": f"{root}/site.py"}
    return {"cwd": root, "env": env}


def test_modules_of_the_root_are_not_imported(traps, hostile, run_cli, tmp_path):
    """No verb imports a module of a container's, whatever directory and environment it is called in. CVE-2019-14271.

    Weakened: an ordinary python3 there imports the first of them before it does anything.
    """
    root, told = traps
    (root / "etc/x").write_text("x")
    verbs = (
        f"run --rootfs {root} -- true",
        f"run --rootfs {root} --user nobody -w /etc -- true",
        f"run -d --name box --overlay --rootfs {root} -- sleep 100",
        "exec box true",
        "exec --user nobody box true",
        "cp box:/etc/x -",
        f"cp {root}/etc/x box:/etc/y",
        "top box",
        "inspect box",
        "inspect --effective box",
        "diff box",
        f"commit box {tmp_path}/layer",
        "stats --no-stream box",
        "logs box",
        "ps -a",
        "rm -f box",
    )
    for verb in verbs:
        done = run_cli(*verb.split(), **hostile)
        assert done.returncode == 0, (verb, done)
        assert told() == [], verb
    subprocess.run([sys.executable, "-c", "pass"], capture_output=True, check=False, **hostile)
    assert told() != []


NSS = r"""
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    close(open("/loaded", O_WRONLY | O_CREAT, 0666));
}
"""


def test_name_services_of_the_root_are_not_loaded(own_rootfs, requires, tmp_path):
    """A hostile nsswitch.conf and its library in the image: users are looked up without them. CVE-2019-14271.

    Weakened: who looks names up after chroot(2), as `docker cp` did, loads the library with the host's privilege.
    """
    (tmp_path / "nss.c").write_text(NSS)
    library = (
        own_rootfs / "lib/x86_64-linux-gnu" if (own_rootfs / "lib/x86_64-linux-gnu").is_dir() else own_rootfs / "lib"
    )
    made = library / "libnss_evil.so.2"
    subprocess.run([requires("gcc"), "-shared", "-fPIC", "-w", "-o", made, tmp_path / "nss.c"], check=True)
    (own_rootfs / "etc/nsswitch.conf").write_text("passwd: evil files\ngroup: evil files\n")
    with open(own_rootfs / "etc/passwd", "a") as passwd:
        passwd.write("alice:x:1000:1000::/:/bin/sh\n")
    box = mc.Container(own_rootfs).with_(mc.Identity("alice"))
    assert box.run(["true"]).returncode == 0
    assert not (own_rootfs / "loaded").exists()
    naive = f"import os, pwd; os.chroot({str(own_rootfs)!r}); pwd.getpwnam('alice')"
    subprocess.run([sys.executable, "-IS", "-c", naive], check=True)
    assert (own_rootfs / "loaded").exists()


# --- what is called between the root and execve ---

# of the mount API, of descriptors, of identity; and what a start without libc cannot do without
CALLS = frozenset(
    "move_mount open_tree mount_setattr fsopen fsconfig fsmount umount2 mount statfs fstatfs statx openat openat2 close"
    " close_range fcntl dup3 fchdir chdir getcwd mkdirat mknodat symlinkat fchmodat fchmod fchownat read pread64 write"
    " sethostname setdomainname socket ioctl prlimit64 umask keyctl personality setsid rt_sigaction rt_sigprocmask"
    " prctl capget capset setgroups setresgid setresuid getresuid getresgid getgroups seccomp futex clone3 clone getpid"
    " getppid gettid ppoll clock_gettime wait4 rt_sigtimedwait kill exit_group execve madvise".split()
)
# every path that such a call may name: the kernel's own places, and what was asked for
PATHS = re.compile(
    r"|/|/\.\.|\.|/(proc|sys|dev)(/.*)?|/mnt|/usr/(local/)?s?bin/true|/s?bin/true|file|dir|pts/ptmx"
    r"|null|zero|full|random|urandom|tty|ptmx|pts|shm|mqueue|fd|stdin|stdout|stderr|pids"
)
NAMED = re.compile(r"^(?:openat2?|open_tree|execve|chdir|mount|statfs|statx|mkdirat|mknodat|symlinkat|fchmodat)\((.*)")
LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")


def calls_after(log: Path, mark: str) -> Iterator[tuple[str, str]]:
    """(call, its line) of all that is done from the call MARK on to each process's execve: by the process that made it,
    and by those that were born later."""
    older: set[str] = set()
    begun: set[str] = set()
    over: set[str] = set()
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        pid, call, rest = found.groups()
        if not begun:
            older.add(pid)
        if call == mark and "= 0" in rest:
            begun.add(pid)
            continue
        if not begun or pid in over or (pid in older and pid not in begun):
            continue
        yield call, f"{call}({rest}"
        if call == "execve" and rest.endswith("= 0"):
            over.add(pid)


def strange(log: Path, mark: str) -> set[str]:
    """What is done after MARK that is not in the lists."""
    found = set()
    for call, line in calls_after(log, mark):
        if call not in CALLS:
            found.add(call)
        named = NAMED.match(line)
        path = re.search(r'"([^"]*)"', named[1]) if named else None
        if path and not PATHS.fullmatch(path[1]):
            found.add(f"{call} {path[1]}")
    return found


@pytest.fixture
def traced(requires, tmp_path: Path) -> Callable[..., Path]:
    """``traced(*command)``: what strace saw of it."""

    def run(*command: str | Path, **options: object) -> Path:
        log = tmp_path / "strace"
        done = subprocess.run(
            [requires("strace"), "-f", "-qq", "-e", "signal=none", "-o", log, *command], capture_output=True, **options
        )
        assert done.returncode == 0, done
        return log

    return run


def test_only_these_calls_in_the_root_of_a_run(lab, traced, minictr_cli, tmp_path):
    """From pivot_root to execve `run` does what a list allows, and opens nothing of the image. CVE-2019-14271.

    Weakened: the same lists find what chroot(1) with a user does between chroot and execve.
    """
    (tmp_path / "volume").mkdir()
    options = ("--rootfs", lab, "-v", f"{tmp_path}/volume:/mnt", "-w", "/mnt", "--user", "alice", "--hostname", "a")
    log = traced(*minictr_cli, "run", *options, "--", "true")
    done = {call for call, _ in calls_after(log, "pivot_root")}
    assert {"move_mount", "seccomp", "capset", "execve"} <= done, "nothing was seen: this proves nothing"
    assert strange(log, "pivot_root") == set()
    naive = traced("chroot", "--userspec=alice", lab, "/bin/true")
    assert any(line.startswith("openat /etc/") for line in strange(naive, "chroot"))


def test_only_these_calls_of_who_joins(lab, traced, minictr_cli, tmp_path, run_cli):
    """From setns to execve `exec` does what the list allows, and opens nothing of the image. CVE-2019-14271.

    Weakened: the same lists find who looks a name up between setns and execve.
    """
    env = {**os.environ, "MINICTR_ROOT": str(tmp_path / "state")}
    run_cli("run", "-d", "--name", "box", "--rootfs", lab, "--", "sleep", "100", env=env)
    try:
        log = traced(*minictr_cli, "exec", "--user", "alice", "box", "true", env=env)
        done = {call for call, _ in calls_after(log, "setns")}
        assert {"seccomp", "capset", "execve"} <= done, "nothing was seen: this proves nothing"
        assert strange(log, "setns") == set()
        pid = run_cli("inspect", "-f", "{{.State.Pid}}", "box", env=env).stdout.strip()
        naive = "import os, pwd; from minictr.kernel.core import lib"
        naive += (
            f"; lib.mc_setns(os.open('/proc/{pid}/ns/mnt', 0), 0); pwd.getpwnam('alice'); os.execv('/bin/true', ['a'])"
        )
        log = traced(sys.executable, "-I", "-c", naive)
        assert any(line.startswith("openat /etc/") for line in strange(log, "setns"))
    finally:
        run_cli("rm", "-f", "box", env=env)


def test_the_parent_opens_nothing_by_name_below_the_root(lab, traced, minictr_cli):
    """The host's side reads passwd and programs of the root from its descriptor, and by openat2 alone. CVE-2021-30465.

    Weakened: a program that opens them by name is seen.
    """
    by_name = re.compile(rf'\b(?:open|openat|execve|mmap)\([^"]*"{re.escape(str(lab))}/')
    log = traced(*minictr_cli, "run", "--rootfs", lab, "--user", "alice", "--", "true")
    text = log.read_text(errors="replace")
    assert "RESOLVE_IN_ROOT" in text
    assert by_name.findall(text) == []
    assert by_name.findall(traced("cat", lab / "etc/passwd").read_text(errors="replace")) != []
