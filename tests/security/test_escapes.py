"""What a hostile program tries inside, each with the feature that stands against it on and, where that is safe, off."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

import minictr as mc

DENIED = ("not permitted", "ermission denied", "Read-only", "No such", "Text file busy")


@pytest.fixture(scope="session")
def attempt(sh):
    """``attempt(box, "VERB ARGUMENT")``: what tests/security/probe.c says; "" when it succeeded."""

    def run(box: mc.Container, words: str, **options: object) -> str:
        done = box.run(["probe", *words.split()], capture_output=True, text=True, timeout=20, **options)
        if done.returncode == 0:
            assert done.stdout.startswith("ok"), done
            return ""
        assert any(word in done.stdout for word in DENIED), done
        return str(done.stdout).strip()

    return run


def powerful(box: mc.Container, *names: str) -> mc.Container:
    """With more capabilities than the profile gives."""
    kept = next(f for f in box.features if f.name == "capabilities").bounding
    return box.with_(mc.Capabilities((*kept, *names)))


# --- the runtime itself (CVE-2019-5736) ---


@pytest.mark.parametrize("path", ["/proc/1/exe", "/proc/self/exe", "/proc/1/mem", "/proc/1/environ"])
def test_nobody_writes_to_the_runtime(box, attempt, path):
    assert attempt(box, f"write {path}")


@pytest.mark.parametrize("path", ["/proc/1/exe", "/proc/self/exe"])
def test_not_even_with_every_capability(box, attempt, path):
    """The start program is a sealed memory file: a file of the host's is nowhere in it."""
    assert attempt(box.without("capabilities", "no_new_privs"), f"write {path}")
    assert attempt(box.without("capabilities", "no_new_privs").with_(mc.Overlay()), f"write {path}")


def test_the_runtime_is_sealed_on_the_host_too(box):
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
    with box.popen(["sleep", "100"]) as process, open(f"/proc/{process.pid}/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split()) > 5}
    assert not [name for name in files if "python" in name or name.startswith(("/usr", "/opt", "/lib"))]


# --- init ---


def test_init_cannot_be_traced(box, attempt):
    assert attempt(box, "ptrace 1")
    # with the capability, and what is gained is a process that may do nothing: see the next test
    assert attempt(powerful(box, "SYS_PTRACE"), "ptrace 1") == ""


def test_who_traces_init_gains_nothing(box, status):
    init = status(box.without("capabilities", "no_new_privs"), "/proc/1/status")
    assert int(init["CapEff"], 16) == 1 << 5 and init["Seccomp"] == "2" and init["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", ["KILL", "STOP", "TERM", "SEGV"])
def test_init_cannot_be_killed_from_inside(box, sh, name):
    """kill -9 and -STOP of PID 1 do nothing; what has a default action is passed on, to the program itself."""
    script = f"trap 'echo mine' TERM; (kill -{name} 1; true); sleep 0.1; echo lives"
    done = box.run(["bash", "-c", script], stdout=mc.PIPE, text=True, timeout=10)
    if name == "SEGV":
        assert done.signal in (0, signal.SIGSEGV)
    else:
        assert done.stdout.split() == (["mine", "lives"] if name == "TERM" else ["lives"])


# --- mounts ---


@pytest.mark.parametrize("kind", ["tmpfs", "proc", "sysfs", "cgroup", "devtmpfs"])
def test_mounting(box, attempt, kind):
    assert "not permitted" in attempt(box, f"mount {kind}")


def test_mounting_with_the_capability(box, attempt):
    """Off: CAP_SYS_ADMIN is what stands in the way; what it mounts stays in the container's own table."""
    assert attempt(powerful(box, "SYS_ADMIN"), "mount tmpfs") == ""
    with open("/proc/self/mountinfo") as table:
        assert not [line for line in table if line.split()[4] == "/tmp" and " tmpfs tmpfs " in line]


@pytest.mark.parametrize("path", ["/proc/sys", "/proc/interrupts", "/sys/firmware", "/proc", "/"])
def test_taking_a_mask_away(box, attempt, path):
    assert "not permitted" in attempt(box, f"umount {path}")


def test_taking_a_mask_away_with_the_capability(box, sh):
    admin = powerful(box, "SYS_ADMIN")
    assert sh(admin, "probe umount /proc/interrupts; head -c 3 /proc/interrupts | wc -c").endswith("3")


def test_a_new_user_namespace_gives_no_masked_path_back(box, sh):
    """unshare -Ur makes everybody root of a new world: its copies of our mounts are locked (mount_namespaces(7))."""
    script = (
        "unshare -Urm bash -c 'probe umount /proc/interrupts; cat /proc/interrupts; probe mount proc; cat /tmp/kcore'"
    )
    told = sh(box, f"{script} 2>&1; true")
    assert "ok" not in told and "CPU0" not in told


def test_mounts_of_the_host_cannot_be_reached(box, sh):
    """Not by name, by .., by /proc/PID/root of PID 1, nor by its mountinfo."""
    host = Path(__file__).resolve()
    assert not os.path.exists(f"{box.rootfs}{host}")
    for path in (host, f"/../../../..{host}", f"/proc/1/root{host}", f"/proc/self/root/..{host}", f"/proc/1/cwd{host}"):
        assert sh(box, f"test -e {path} && echo reached; true") == ""
    assert str(box.rootfs) not in sh(box, "cut -d' ' -f5 /proc/self/mountinfo")


# --- the root ---


def test_walking_out_of_the_root(box, attempt):
    """The classic way out of chroot(2): it works with chroot alone, and ends at the root with pivot_root.

    With a mount table of its own even chroot is closed to it: the root is mounted over "/", so .. leads to itself.
    """
    proof = str(Path(__file__).resolve())
    assert "No such" in attempt(box, f"walk-out {proof}")
    assert "No such" in attempt(powerful(box, "SYS_ADMIN", "DAC_READ_SEARCH"), f"walk-out {proof}")
    changed = mc.Container(box.rootfs, features=[mc.Chroot() if f.name == "pivot_root" else f for f in box.features])
    assert "No such" in attempt(changed, f"walk-out {proof}")
    bare = mc.Container(box.rootfs, features="bare")
    assert attempt(bare, f"walk-out {proof}") == ""
    assert "not permitted" in attempt(bare.with_(mc.Capabilities(("CHOWN", "SETUID"))), f"walk-out {proof}")


def test_files_by_handle(box, attempt):
    """ "Shocker": with CAP_DAC_READ_SEARCH any file of the file system by its number; the profile does not have it."""
    assert "not permitted" in attempt(box, "handle")


def test_a_leaked_directory_as_working_directory(box, lab):
    """CVE-2024-21626: a descriptor of a host's directory, and a working directory by its /proc name."""
    leak = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.set_inheritable(leak, True)
    try:
        for number in range(3, 14):
            for path in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", f"/proc/thread-self/fd/{number}"):
                with pytest.raises(mc.StepFailed, match=r"ELOOP|ENOENT|ESTALE|ENOTDIR|EXDEV|EACCES"):
                    box.with_(mc.Cwd(path)).run(["true"])
    finally:
        os.close(leak)


def test_a_preserved_directory_is_the_callers_own_doing(box):
    """--preserve-fds hands it in, and the program can then go there: but not the start itself."""
    leak = os.open("/etc", os.O_PATH | os.O_DIRECTORY)
    os.dup2(leak, 63, inheritable=True)
    try:
        with pytest.raises(mc.StepFailed):
            box.with_(mc.Cwd("/proc/self/fd/63")).run(["true"])
    finally:
        os.close(leak)
        os.close(63)


# --- devices ---


@pytest.mark.parametrize("node", ["b 254 0", "c 1 1", "c 10 229", "b 8 0"])
def test_making_devices(box, sh, node):
    assert "not permitted" in sh(box.with_(mc.Tmpfs("/tmp", options=("dev",))), f"mknod /tmp/node {node} 2>&1", code=1)


def test_making_devices_with_the_capability(box, sh):
    """Off: the node is made, and on a nodev tmpfs it still cannot be opened."""
    may = powerful(box, "MKNOD").with_(mc.Tmpfs("/tmp"))
    assert "ermission denied" in sh(may, "mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero 2>&1", code=1)
    may = powerful(box, "MKNOD").with_(mc.Tmpfs("/tmp", options=("dev",)))
    assert sh(may, "mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c") == "1"


def test_device_files_of_the_host_are_not_there(box, sh):
    assert sh(box, "ls /dev/[svh]d* /dev/mem /dev/kmsg /dev/fuse /dev/kvm /dev/net 2>/dev/null; true") == ""


# --- terminal ---


def test_typing_into_the_callers_terminal(box, attempt):
    """TIOCSTI wants a controlling terminal: a session of its own has none (CVE-2017-5226)."""
    master, slave = pty.openpty()
    try:
        assert attempt(box, "sti", stdin=slave)
    finally:
        os.close(master)
        os.close(slave)


# --- processes ---


def test_processes_of_the_host(box, sh):
    """None is seen, and none can be signalled; without the namespace both are possible."""
    with subprocess.Popen(["sleep", "987"]) as victim:
        try:
            assert sh(box, "ps ax | while read a b c d e f; do case $f in 987) echo seen;; esac; done") == ""
            assert "No such process" in sh(box, f"kill -9 {victim.pid} 2>&1", code=1)
            assert victim.poll() is None
            sh(box.without("pid"), f"kill -9 {victim.pid}")
            assert victim.wait(10) == -9
        finally:
            victim.kill()


def test_kill_everything(box):
    with subprocess.Popen(["sleep", "987"]) as bystander:
        box.run(["bash", "-c", "kill -9 -1; sleep 0.1"], timeout=10)
        assert bystander.poll() is None
        bystander.kill()


def test_joining_the_hosts_namespaces(box, attempt):
    """/proc/1/ns is the container's own; there is no other file to join by."""
    assert attempt(box, "setns /proc/1/ns/mnt")
    assert attempt(box, "setns /proc/self/ns/net")


# --- files of the kernel ---


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/irq/default_smp_affinity",
    ],
)
def test_settings_of_the_host(box, attempt, path):
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert attempt(box, f"write {path}")


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/timer_list", "/proc/keys", "/sys/firmware", "/proc/interrupts"])
def test_secrets_of_the_host(box, sh, path):
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    assert sh(box, f"if test -d {path}; then ls -A {path}; else cat {path}; fi") == ""


def test_sysfs_is_read_only(box, attempt, sh):
    assert "ro" in sh(box, "cat /proc/self/mounts").split(" /sys sysfs ")[1].split()[0].split(",")


# --- privilege ---


def test_a_set_user_id_program(box, sh):
    alice = box.with_(mc.Identity("alice"))
    assert sh(alice, "suid user") == "ok 1000 1000"
    assert sh(alice.without("no_new_privs"), "suid user") == "ok 1000 0"
    on_tmpfs = alice.with_(mc.Bind(f"{box.rootfs}/bin", "/mnt", nosuid=True)).without("no_new_privs")
    assert sh(on_tmpfs, "/mnt/suid user") == "ok 1000 1000"


@pytest.mark.parametrize("verb", ["raw-socket", "mount tmpfs", "umount /proc/sys", "handle"])
def test_root_inside_is_not_root(box, attempt, verb):
    assert "not permitted" in attempt(box, verb)


def test_root_of_a_user_namespace_is_nobody_outside(box, sh, tmp_path):
    """A file it makes in a shared directory belongs to the mapped id, and root's own files are closed to it."""
    rows = ((0, 200_000, 1000),)
    tmp_path.chmod(0o777)
    (tmp_path / "roots").write_text("secret")
    (tmp_path / "roots").chmod(0o600)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.Bind(str(tmp_path), "/mnt"))
    assert "ermission denied" in sh(mapped, "touch /mnt/mine; cat /mnt/roots 2>&1", code=1)
    assert os.stat(tmp_path / "mine").st_uid == 200_000
    assert sh(box.with_(mc.Bind(str(tmp_path), "/mnt")), "cat /mnt/roots") == "secret"
