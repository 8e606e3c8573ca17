"""``minictr run --profile landlock``: as root, as an ordinary user, in a container; and the options in a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minictr

# What is imported late is imported first: an interpreter below /root cannot be read any more by then.
AS_USER = """
import os, sys
import minictr.cli.entry as entry
from minictr.cli import run, build, landlock
import fcntl, resource, minictr.kernel.landlock, minictr.runtime.diagnose, minictr.runtime.sweep, minictr.runtime.launch
import minictr.parse.landlock, minictr.runtime.effort, minictr.plan, minictr.runtime.program, minictr.runtime.resolve
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
sys.exit(entry.main(sys.argv[1:]))
"""
SCRIPT = (
    "echo made >out/made; cat out/made; { echo >beside; } 2>&- || echo denied; id -u; grep NoNewPrivs /proc/self/status"
)


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.root()
    requires.landlock(7)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for everybody, with ``out`` in it: pytest's own are for root only."""
    with tempfile.TemporaryDirectory(prefix="minictr-test-") as directory:
        top = Path(directory)
        for name, mode in ((".", 0o777), ("out", 0o777), ("state", 0o755)):
            (top / name).mkdir(exist_ok=True)
            (top / name).chmod(mode)
        os.chown(top / "state", 1000, 1000)
        yield top


def restricted(place: Path, script: str = SCRIPT, *options: str) -> list[str]:
    """The words of the command: ``out`` of the working directory may be written, all else be read."""
    return [
        "run",
        "--rootfs",
        "/",
        "--profile",
        "landlock",
        "--ro",
        "/",
        "--rw",
        "./out",
        *options,
        "--",
        "sh",
        "-c",
        script,
    ]


def expected(uid: int) -> str:
    return f"made\ndenied\n{uid}\nNoNewPrivs:\t1\n"


def test_as_root(run_cli: Any, place: Path) -> None:
    done = run_cli(*restricted(place), cwd=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected(0), "")
    assert sorted(os.listdir(place)) == ["out", "state"]
    free = run_cli(*restricted(place, SCRIPT, "--without", "landlock"), cwd=place)
    assert "denied" not in free.stdout and (place / "beside").exists()


def as_user(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", AS_USER, *words],
        env={"PATH": os.environ["PATH"], "MINICTR_ROOT": str(place / "state")},
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_as_an_ordinary_user(place: Path) -> None:
    done = as_user(place, *restricted(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, expected(1000), "")
    assert (place / "out" / "made").stat().st_uid == 1000


def test_an_ordinary_user_needs_no_new_privs(place: Path) -> None:
    done = as_user(place, *restricted(place, "true", "--without", "no_new_privs"))
    assert done.returncode == 125
    assert "landlock: without no_new_privs it needs CAP_SYS_ADMIN; add no_new_privs" in done.stderr


def test_in_a_container(run_cli: Any, place: Path) -> None:
    """minictr in a container of the default profile, with the host's own files as its root."""
    library = str(Path(minictr.__path__[0]).parent)
    code = f"import sys; sys.path.append({library!r}); from minictr.cli.entry import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *restricted(place)]
    options = ["-v", f"{place}:{place}", "-w", str(place), "-e", "MINICTR_ROOT=/mnt/state", "--tmpfs", "/mnt"]
    done = run_cli("run", "--rootfs", "/", *options, "--", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, expected(0), "")


def test_ports(run_cli: Any, place: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"bash -c 'echo >/dev/tcp/127.0.0.1/{port}'"
        closed = run_cli(*restricted(place, script), cwd=place)
        named = run_cli(*restricted(place, script, "--landlock-connect", str(port)), cwd=place)
        left_out = run_cli(*restricted(place, script, "--without", "landlock:connect_tcp"), cwd=place)
    assert (closed.returncode != 0, named.returncode, left_out.returncode) == (True, 0, 0)
    assert "Permission denied" in closed.stderr


def test_scopes(run_cli: Any, place: Path) -> None:
    script = f"kill -0 {os.getpid()}"
    assert run_cli(*restricted(place, script), cwd=place).returncode != 0
    assert run_cli(*restricted(place, script, "--without", "landlock:signal"), cwd=place).returncode == 0


def test_access_and_rules_as_setpriv_has_them(run_cli: Any, place: Path) -> None:
    options = ["--landlock-access", "fs:make-dir,make-reg", "--landlock-rule", "path-beneath:make-reg:out"]
    script = "{ mkdir out/d; } 2>&- || echo no directory; echo >out/f && echo file; { echo >f; } 2>&- || echo nor here"
    done = run_cli("run", "--profile", "landlock", *options, "--", "sh", "-c", script, cwd=place)
    assert (done.returncode, done.stdout) == (0, "no directory\nfile\nnor here\n")


def test_in_a_container_of_its_own(run_cli: Any, rootfs: Path) -> None:
    words = [
        "run",
        "--rootfs",
        rootfs,
        "--tmpfs",
        "/run",
        "--ro",
        "/usr",
        "--ro",
        "/bin",
        "--ro",
        "/lib",
        "--ro",
        "/lib64",
    ]
    script = "{ echo >/run/a; } 2>&- || echo denied"
    assert run_cli(*words, "--landlock-ignore-missing", "--", "sh", "-c", script).stdout == "denied\n"
    assert run_cli(*words, "--rw", "/run", "--", "sh", "-c", script).stdout == ""


def test_what_is_missing(run_cli: Any, place: Path) -> None:
    words = ["run", "--profile", "landlock", "--ro", "/", "--rw", "nosuch"]
    done = run_cli(*words, "--", "true", cwd=place)
    assert done.returncode == 125
    assert f"landlock path {place}/nosuch: all: openat2: ENOENT" in done.stderr
    assert done.stderr.count("\n") == 1
    assert run_cli(*words, "--landlock-ignore-missing", "--", "true", cwd=place).returncode == 0


def test_nothing_may_be_executed(run_cli: Any, place: Path) -> None:
    done = run_cli("run", "--profile", "landlock", "--rw", "out", "--", "true", cwd=place)
    assert done.returncode == 126
    assert "no rule of landlock lets it" in done.stderr


def test_best_effort_on_an_older_kernel(place: Path) -> None:
    """A line for each right that is left out, and the rest is denied all the same."""
    code = AS_USER.replace("os.setgroups", "minictr.kernel.landlock_abi.abi = lambda: 4; os.setgroups")
    for options, code_wanted in (((), 125), (("--best-effort", "landlock"), 0)):
        words = [sys.executable, "-P", "-c", code, *restricted(place, SCRIPT, *options)]
        env = {"PATH": os.environ["PATH"], "MINICTR_ROOT": str(place / "state")}
        done = subprocess.run(words, env=env, cwd=place, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code_wanted, done.stderr
    assert done.stdout == expected(1000)
    lines = done.stderr.splitlines()
    assert [line.split()[2] for line in lines] == [
        f"landlock:{n}" for n in ("ioctl_dev", "abstract_unix_socket", "signal")
    ]
    assert all("this kernel has ABI 4" in line for line in lines)


def test_who_joins(run_cli: Any, detached: Any) -> None:
    """By what is written down of the container."""
    system = [word for path in ("/usr", "/bin", "/lib", "/lib64") for word in ("--ro", path)]
    detached("locked", options=(*system, "--tmpfs", "/run", "--rw", "/dev"))
    script = "{ echo >/run/a; } 2>&- || echo denied"
    assert run_cli("exec", "locked", "sh", "-c", script).stdout == "denied\n"
    assert run_cli("exec", "--without", "landlock", "locked", "sh", "-c", script).stdout == ""
    state = json.loads(run_cli("inspect", "locked").stdout)
    wishes = state[0]["Features"]
    assert {"feature": "landlock", "ro": ["/usr", "/bin", "/lib", "/lib64"], "rw": ["/dev"]} in wishes


def test_in_the_background_without_a_container(run_cli: Any, store: Any, place: Path) -> None:
    words = ["run", "-d", "--name", "alone", *restricted(place, "sleep 100")[1:]]
    done = run_cli(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    try:
        script = "{ echo >beside; } 2>&- || echo denied"
        joined = run_cli("exec", "alone", "sh", "-c", f"cd {place}; {script}")
        assert (joined.returncode, joined.stdout) == (0, "denied\n"), joined.stderr
    finally:
        removed = run_cli("rm", "-f", "alone")
    assert removed.returncode == 0
    assert not (place / "beside").exists()


def test_features_tells_the_abi(run_cli: Any) -> None:
    from minictr.kernel import landlock

    done = run_cli("features", "landlock")
    assert done.returncode == 0
    assert f"(ABI {landlock.abi()})" in " ".join(done.stdout.split())
    (row,) = json.loads(run_cli("features", "--format", "json", "landlock").stdout)
    assert (row["supported"], row["reason"], row["profiles"]) == (True, f"ABI {landlock.abi()}", ["landlock"])


def test_plan(run_cli: Any, place: Path) -> None:
    done = run_cli("plan", *restricted(place)[1:], cwd=place)
    assert f" landlock_path {place}/out: all landlock " in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-3].split()[1:3] == ["exec", "landlock_restrict"]
