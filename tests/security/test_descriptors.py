"""What the host has open is not open inside: descriptors, working directories, roots (CVE-2024-21626), environments."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import minictr as mc
from minictr.runtime import join

PROOF = str(Path(__file__).resolve())


@pytest.fixture
def leaked():
    """The host's root open as 63, not to be closed at an exec: what a careless caller, or a runtime itself, leaves."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, 63, inheritable=True)
    os.close(fd)
    yield 63
    os.close(63)


def test_a_leaked_directory_is_not_there(den, attempt, leaked):
    """No descriptor, directory or root of a process inside leads out of the root. CVE-2024-21626.

    Weakened: with preserve_fds, which hands descriptors in because somebody asked for it, the same program gets out.
    """
    box = mc.Container(den)
    assert "No such" in attempt(box, f"reach {PROOF}", program="files")
    with box.popen(["sleep", "100"]) as process:  # init and a program of another start to look at
        target = join.Target(process.pid, box.spec(), process.pidfd)
        told = join.exec_run(target, ["files", "reach", PROOF], capture_output=True, text=True)
        assert (told.returncode, told.stdout) == (1, "nothing: No such file or directory\n")
    filled = [os.dup(leaked) for _ in range(3, 63)]
    try:
        assert attempt(box, f"reach {PROOF}", program="files", preserve_fds=61) == ""
    finally:
        for fd in filled:
            os.close(fd)


def test_the_command_line_closes_what_its_caller_left(den, run_cli, leaked):
    """`minictr run` from a shell that has the host's root open. CVE-2024-21626."""
    done = run_cli("run", "--rootfs", den, "--", "probe", "left-open", pass_fds=(leaked,))
    assert done.stdout.split() == ["0", "1", "2"], done


def working_directory(box: mc.Container, path: str) -> str:
    try:
        return str(box.with_(mc.Cwd(path)).run(["pwd"], capture_output=True, text=True).stdout)
    except mc.StepFailed as error:
        return str(error)


def test_a_leaked_directory_as_working_directory(box, leaked):
    """A working directory by a name of /proc leads to no directory of the host's. CVE-2024-21626."""
    for number in (*range(3, 14), leaked):
        for path in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", f"/proc/thread-self/fd/{number}"):
            told = working_directory(box, path)
            assert any(word in told for word in ("ELOOP", "ENOENT", "ESTALE", "ENOTDIR", "EXDEV", "EACCES")), told


def test_a_working_directory_outside_is_a_way_out(den, leaked):
    """Weakened: with a working directory outside a program in a root reads a file of the host's. CVE-2024-21626."""

    def into_it() -> None:
        os.chroot(den)
        os.fchdir(leaked)

    told = subprocess.run(["/bin/cat", f".{PROOF}"], preexec_fn=into_it, capture_output=True, text=True)
    assert told.stdout == Path(PROOF).read_text()


def test_a_preserved_directory_is_the_callers_own_doing(box, leaked):
    """--preserve-fds hands it in, and the program can then go there: but not the start itself. CVE-2024-21626."""
    with pytest.raises(mc.StepFailed):
        box.with_(mc.Cwd(f"/proc/self/fd/{leaked}")).run(["true"])


# --- the caller's environment and command line ---

SECRET = "token-of-the-caller"


@pytest.fixture
def secretive(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CALLERS_SECRET", SECRET)
    return SECRET


LOOK = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'; env"


def test_the_callers_environment_stays_outside(box, sh, secretive):
    """No variable of the caller's is in the environment or command line of any process inside. CWE-526.

    Weakened: without the feature `env` the program has the caller's environment, and shows it.
    """
    assert secretive not in sh(box, LOOK)
    assert secretive in sh(box.without("env"), LOOK)


def test_init_and_the_monitor_hold_no_secret(den, run_cli, tmp_path, secretive):
    """A secret that a program was given with -e is in no command line, and in its own environment alone. CWE-214.

    Weakened: as an argument of the program it is in the command line, for everybody's ps.
    """
    root = {"env": {**os.environ, "MINICTR_ROOT": str(tmp_path / "state")}}

    def known(*command: str) -> set[str]:
        """Which processes, but for the tests' own, show the secret, and where."""
        run_cli("run", "-d", "--name", "quiet", "-e", "CALLERS_SECRET", "--rootfs", den, "--", *command, **root)
        try:
            return {told for pid in others() for told in shows(pid, secretive)}
        finally:
            run_cli("rm", "-f", "quiet", **root)

    assert known("sleep", "100") == {"environ of sleep"}
    assert known("sh", "-c", f"sleep 100 # {secretive}") >= {"cmdline of sh"}


def others() -> list[str]:
    """Every process but this one and those above it, which have the variable themselves."""
    above, pid = set(), os.getpid()
    while pid:
        above.add(str(pid))
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.partition("PPid:")[2].split()[0])
    return [name for name in os.listdir("/proc") if name.isdecimal() and name not in above]


def shows(pid: str, secret: str) -> list[str]:
    found = []
    for name in ("environ", "cmdline"):
        try:
            if secret.encode() in Path(f"/proc/{pid}/{name}").read_bytes():
                found.append(f"{name} of {Path(f'/proc/{pid}/comm').read_text().strip()}")
        except OSError:
            continue
    return found


def test_the_state_on_disk_is_the_owners_alone(den, run_cli, tmp_path, secretive):
    """What is written down of a container, its environment included, can be read by nobody else. CWE-276."""
    root = {"env": {**os.environ, "MINICTR_ROOT": str(tmp_path / "state")}}
    run_cli("create", "--name", "kept", "-e", "CALLERS_SECRET", "--rootfs", den, "--", "true", **root)
    try:
        holding = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and holds(path, secretive)]
        assert holding
        for path in holding:
            ways = [path, *path.parents[: len(path.relative_to(tmp_path / "state").parts)]]
            assert any(way.stat().st_mode & 0o077 == 0 for way in ways), path
    finally:
        run_cli("rm", "-f", "kept", **root)


def holds(path: Path, secret: str) -> bool:
    return secret.encode() in path.read_bytes()
