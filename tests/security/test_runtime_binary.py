"""The runtime's own executable: it is never a file of the host's that a container could write (CVE-2019-5736)."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from joins import Weaken, as_it_is, dumpable, join_again
from waiting import eventually

import minictr as mc
from minictr.errors import MinictrError
from minictr.kernel import stub
from minictr.runtime import join

ROUNDS = 40


def overwritten(box: mc.Container, prepare=lambda: None, weaken: Weaken = as_it_is) -> dict[str, int]:
    """What files' "overwrite" got of ROUNDS programs that joined BOX. PREPARE: done when the container runs already."""
    with box.popen(["files", "overwrite", "/bin/true"], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
        assert process.stdout.readline() == "ok waiting\n"
        prepare()
        join_again(box, process, ROUNDS, weaken)
        process.stdin.close()
        return {name: int(count) for name, _, count in (word.partition("=") for word in process.stdout.read().split())}


@pytest.fixture
def plain_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``plain_file()``: from now on the start program is a file of the host's, as runc's was. Its path."""

    def switch() -> Path:
        path = tmp_path / "runtime"
        path.write_bytes(stub._PROGRAMS[stub.STUB]())
        path.chmod(0o755)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        monkeypatch.setitem(stub._sealed, stub.STUB, (fd, os.fstat(fd).st_ino))
        return path

    before = stub.sealed_stub()
    yield switch
    now = stub._sealed[stub.STUB][0]
    if now != before:
        os.close(now)


def test_who_joins_is_not_overwritten(den, plain_file):
    """The runtime's executable is not overwritten through /proc/PID/exe of who joins. CVE-2019-5736.

    Not even if it were a file of the host's: it cannot be opened, as a process that joins is not dumpable.
    """
    runtime = []
    told = overwritten(mc.Container(den), lambda: runtime.append(plain_file()))
    assert told["seen"] > 0, "it never saw a joining process: this proves nothing"
    assert (told["opened"], told["written"]) == (0, 0)
    assert b"owned" not in runtime[0].read_bytes()[:5]


def test_the_seal_holds_where_it_can_be_opened(den):
    """An executable that a container got hold of cannot be written, for it is a sealed memory file. CVE-2019-5736."""
    told = overwritten(mc.Container(den), weaken=dumpable)
    assert told["opened"] > 0 and told["written"] == 0


def test_without_both_it_is_overwritten(den, plain_file):
    """Weakened: a dumpable process that executes a file of the host's loses it, as runc 1.0-rc6 did. CVE-2019-5736."""
    runtime = []
    told = overwritten(mc.Container(den), lambda: runtime.append(plain_file()), dumpable)
    assert told["written"] > 0
    assert runtime[0].read_bytes()[:5] == b"owned"


@pytest.mark.parametrize("path", ["/proc/1/exe", "/proc/self/exe", "/proc/1/mem", "/proc/1/environ"])
def test_nobody_writes_to_the_runtime(box, attempt, path):
    """init's files in /proc cannot be written by the container's root. CVE-2019-5736."""
    assert attempt(box, f"write {path}")


@pytest.mark.parametrize("path", ["/proc/1/exe", "/proc/self/exe"])
def test_not_even_with_every_capability(box, attempt, path):
    """The start program is a sealed memory file: a file of the host's is nowhere in it. CVE-2019-5736."""
    assert attempt(box.without("capabilities", "no_new_privs"), f"write {path}")
    assert attempt(box.without("capabilities", "no_new_privs").with_(mc.Overlay()), f"write {path}")


def test_the_runtime_is_sealed_on_the_host_too(box):
    """Its executable has all seals, whoever looks. CVE-2019-5736."""
    with box.popen(["sleep", "100"]) as process:
        assert os.readlink(f"/proc/{process.pid}/exe") == "/memfd:minictr-init (deleted)"
        with pytest.raises(OSError, match="Text file busy|not permitted"):
            os.close(os.open(f"/proc/{process.pid}/exe", os.O_WRONLY))
        fd = os.open(f"/proc/{process.pid}/exe", os.O_RDONLY)
        try:
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & 0xF == 0xF
        finally:
            os.close(fd)


def test_no_process_of_the_container_runs_the_hosts_python(box, sh):
    """No file of the host's is mapped in init. CVE-2019-5736."""
    with box.popen(["sleep", "100"]) as process, open(f"/proc/{process.pid}/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split()) > 5}
    assert not [name for name in files if "python" in name or name.startswith(("/usr", "/opt", "/lib"))]


# --- a program that is /proc/self/exe ---


@pytest.fixture
def image(own_rootfs: Path) -> mc.Container:
    return mc.Container(own_rootfs)


def harmless(done: mc.Result) -> None:
    """The start program without a start to make says nothing and leaves: without a word that could be its region's
    descriptor with 125, and with one that is no region with the errno of mapping that."""
    no_region = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENODEV)
    assert done.returncode in (125, *no_region) and (done.stdout, done.stderr) == (b"", b"")


def runs_harmlessly(box: mc.Container, program: str) -> None:
    try:
        harmless(box.run([program], capture_output=True))
    except mc.StepFailed as error:
        if f"exec {program}" not in str(error):
            raise


def test_a_program_that_is_a_link_to_proc_self_exe(image):
    """What is executed is the sealed start program once more, never the host's interpreter. CVE-2019-5736."""
    (Path(image.rootfs) / "bin" / "me").symlink_to("/proc/self/exe")
    runs_harmlessly(image, "/bin/me")


def test_a_script_whose_interpreter_is_proc_self_exe(image):
    """ "#!/proc/self/exe" executes the sealed start program, never the host's interpreter. CVE-2019-5736."""
    script = Path(image.rootfs) / "bin" / "script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    runs_harmlessly(image, "/bin/script")
    runs_harmlessly(image.with_(mc.Tmpfs("/tmp")), "/bin/script")


# --- the loader and libraries of the image ---

EVIL = r"""
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void) {
    char exe[256];
    long n = readlink("/proc/self/exe", exe, sizeof(exe) - 2);
    int fd = open("/loaded", O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (n <= 0) { exe[0] = '?'; n = 1; }
    exe[n] = '\n';
    write(fd, exe, n + 1);
    close(fd);
}
"""


@pytest.fixture
def poisoned(own_rootfs: Path, requires, tmp_path: Path) -> Path:
    """A root whose every program loads a library that writes down, in /loaded, in which executable it is."""
    (tmp_path / "evil.c").write_text(EVIL)
    library = own_rootfs / "evil.so"
    subprocess.run([requires("gcc"), "-w", "-shared", "-fPIC", "-o", library, tmp_path / "evil.c"], check=True)
    (own_rootfs / "etc/ld.so.preload").write_text("/evil.so\n")
    return own_rootfs


def loaded_in(root: Path) -> set[str]:
    path = root / "loaded"
    found = set(path.read_text().split()) if path.exists() else set()
    path.unlink(missing_ok=True)
    return found


def test_libraries_of_the_image(poisoned, requires):
    """/etc/ld.so.preload of the image, and LD_PRELOAD for the program, are loaded by the program alone. CVE-2019-5736.

    Weakened: nsenter(1), by which a process of the host (in no /proc of the container) loads it with all privilege.
    """
    box = mc.Container(poisoned)
    for how in (box, box.with_(mc.Env((("LD_PRELOAD", "/evil.so"), ("LD_LIBRARY_PATH", "/"))))):
        with how.popen(["sleep", "100"]) as process:
            eventually((poisoned / "loaded").exists, 5)
            target = join.Target(process.pid, how.spec(), process.pidfd)
            assert join.exec_run(target, ["true"]).returncode == 0
            assert loaded_in(poisoned) == {"/usr/bin/sleep", "/usr/bin/true"}
            subprocess.run([requires("nsenter"), "-t", str(process.pid), "-m", "/usr/bin/false"], check=False)
            assert loaded_in(poisoned) == {"?"}


def test_a_loader_of_the_image(poisoned):
    """A hostile ld.so is run for programs of the image, confined, and not for the start program. CVE-2019-5736."""
    loader = next(path for path in (poisoned / "lib64").glob("ld-linux*"))
    loader = (
        Path(os.path.realpath(loader)) if loader.is_symlink() and not os.readlink(loader).startswith("/") else loader
    )
    target = loader.resolve() if poisoned in loader.resolve().parents else loader
    target.unlink()
    target.write_text("#!/proc/self/exe\n")
    target.chmod(0o755)
    with pytest.raises(MinictrError):
        mc.Container(poisoned).run(["true"])
