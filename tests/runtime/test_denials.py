"""What a program was denied, and by what: each layer made to deny, told, and its cure tried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minictr as mc

HERE = Path(__file__).resolve().parent
UNSHARE, GETPID, MKDIR, UNSHARE32, CLONE_NEWNS = 272, 39, 83, 310, 0x20000


# Root without a capability, and none to be had by execve: as good as any user, but for an interpreter below /root.
UNPRIVILEGED = """
import minictr as mc
from minictr.kernel import capabilities
import sys
secret, = sys.argv[1:]
capabilities.drop_bounding(*capabilities.get().bounding)
capabilities.set(effective=(), permitted=(), inheritable=())
box = mc.Container(features=[mc.NoNewPrivs(), mc.Landlock(ro=("/usr", "/bin", "/lib", "/lib64", "/etc", secret))])
found = box.run(["cat", secret, "/proc/version"], explain_denials=True, capture_output=True).denials
print([(one.path, one.layer) for one in found if one.path in (secret, "/proc/version")])
"""


@pytest.fixture(scope="module", autouse=True)
def _there(requires):
    requires.root()


@pytest.fixture(scope="module")
def calls(lab, requires):
    """The name of a program in ``lab`` that makes one system call: ABI, number, arguments."""
    if os.uname().machine != "x86_64":
        pytest.skip("numbers and ABIs of x86_64")
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static", "-no-pie")
    subprocess.run([requires("gcc"), *flags, "-o", lab / "bin" / "calls", HERE / "calls.c"], check=True)
    return "calls"


@pytest.fixture
def denied(lab, run_cli, tmp_path):
    """``denied(options, script)``: the JSON rows of a shell's run with these options of ``minictr run``."""

    def run(options, script):
        path = tmp_path / "denials.json"
        explain = f"--explain-denials={path}"
        layer = [] if "--uidmap" in options else ["--overlay"]  # its root may not search the way to the image
        answer = run_cli("run", "--rootfs", lab, *layer, *options, explain, "--", "bash", "-c", script)
        assert answer.returncode != 125, answer.stderr
        return json.loads(path.read_text())["denials"]

    return run


def observed(box, args, **options):
    result = box.run(args, explain_denials=True, capture_output=True, text=True, timeout=60, **options)
    return result, result.denials


# What is tried, with which options; call, errno, layer and cure; and the options with which it is allowed.
CASES = {
    "seccomp, a capability opens it": (
        [], "unshare -m true", "unshare", "EPERM", "seccomp", "--cap-add SYS_ADMIN", ["--cap-add", "SYS_ADMIN"],
    ),
    "capability": (
        [], "mknod /tmp/x c 1 3", "mknodat", "EPERM", "capability", "--cap-add MKNOD", ["--cap-add", "MKNOD"],
    ),
    "capability over files": (
        ["--cap-drop", "DAC_OVERRIDE"], "cd /home/alice; echo >new", "openat", "EACCES", "capability",
        "--cap-add DAC_OVERRIDE", [],
    ),
    "capability over owners": (
        ["--cap-drop", "CHOWN"], "chown 5 /etc/passwd", "fchownat", "EPERM", "capability", "--cap-add CHOWN", [],
    ),
    "file permissions": (
        ["-u", "1000"], "echo >/etc/new", "openat", "EACCES", "file permissions", "", ["-u", "0"],
    ),
    "another's process": (["-u", "1000"], "kill -0 1", "kill", "EPERM", "capability", "-u 0", ["-u", "0"]),
    "read-only path": (
        [], "echo lab >/proc/sys/kernel/domainname", "openat", "EROFS", "read-only mount",
        "--security-opt systempaths=unconfined", ["--security-opt", "systempaths=unconfined"],
    ),
    "masked directory": (
        [], "ls /proc/acpi/x /proc/scsi/x", None, "ENOENT", "masked path",
        "--security-opt systempaths=unconfined", None,
    ),
    "masked file": (
        [], "cat /proc/interrupts", "openat", "", "masked path",
        "--security-opt systempaths=unconfined", ["--security-opt", "systempaths=unconfined"],
    ),
    "no user namespaces, by a filter": (
        ["--disable-userns", "--security-opt", "seccomp=unconfined", "--cap-add", "ALL"], "unshare -U true", "unshare",
        "EPERM", "disable_userns", "--without disable_userns", ["--security-opt", "seccomp=unconfined"],
    ),
    "no user namespaces, by a limit": (
        ["--disable-userns", "--security-opt", "seccomp=unconfined", "--userns", "auto"], "unshare -U true", "unshare",
        "ENOSPC", "disable_userns", "--without disable_userns",
        ["--security-opt", "seccomp=unconfined", "--userns", "auto"],
    ),
    "read-only root": (
        ["--read-only"], "echo >/etc/new", "openat", "EROFS", "read-only mount",
        "leave --read-only out, or --tmpfs /etc", ["--read-only", "--tmpfs", "/etc"],
    ),
    "read-only volume": (
        ["-v", "/usr:/mnt:ro"], "touch /mnt/bin", None, "EROFS", "read-only mount", "-v /usr:/mnt", None,
    ),
    "noexec": (["--tmpfs", "/t:noexec"], "cp /bin/true /t; /t/true", "execve", "EACCES", "mount option", "", []),
    "nodev": (
        ["--tmpfs", "/t:nodev", "--cap-add", "MKNOD"], "mknod /t/n c 1 3; cat /t/n", "openat", "EACCES", "mount option",
        "", None,
    ),
    "nodev of the profile": (
        ["--cap-add", "MKNOD"], "mknod /tmp/n c 1 3; cat /tmp/n", "openat", "EACCES", "mount option", "--without nodev",
        ["--cap-add", "MKNOD", "--without", "nodev"],
    ),
    "cgroup devices": (
        ["--with", "devices", "--cap-add", "MKNOD", "--without", "nodev"], "mknod /tmp/n c 240 7; cat /tmp/n", "openat",
        "EPERM", "cgroup devices", "--device-cgroup-rule 'c 240:7 r'",
        ["--with", "devices", "--cap-add", "MKNOD", "--device-cgroup-rule", "c 240:7 r"],
    ),
    "cgroup pids": (
        ["--pids-limit", "4"], "for n in 1 2 3 4 5 6; do sleep 0.3 & done 2>/dev/null; wait", None, "EAGAIN",
        "cgroup pids", "--pids-limit N", ["--pids-limit", "40"],
    ),
    "user namespace": (
        ["--uidmap", "0:100000:1000"], "cd /home/alice; echo >new", "openat", "EACCES", "user namespace", "", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_layer_is_told_and_its_cure_cures(denied, case):
    options, script, call, error, layer, cure, cured = CASES[case]
    rows = [row for row in denied(options, script) if row["errno"] == error and call in (None, row["call"])]
    assert {(row["layer"], row["cure"]) for row in rows} == {(layer, cure)}
    assert all(row["why"] and row["count"] >= 1 for row in rows)
    if cured is not None:
        left = denied(cured, script)
        assert not [row for row in left if row["errno"] == error and call in (None, row["call"])], left


@pytest.mark.parametrize(
    ("script", "call", "cure"),
    [
        ("cat /etc/passwd", "openat", "--ro /etc/passwd"),
        ("ls /etc", "openat", "--ro /etc"),
        ("echo >/etc/new", "openat", "--rw /etc"),
        ("mkdir /etc/new", "mkdir", "--rw /etc"),
        ("echo >/usr/new", "openat", "--rw /usr"),
        ("cat /proc/self/status", "openat", "--ro /proc"),
        ("mkdir /tmp/d; echo >/tmp/f; mv /tmp/f /usr/f", "renameat2", "--rw /usr"),
    ],
)
def test_landlock_is_told_with_the_path_that_a_rule_must_name(denied, requires, script, call, cure):
    requires.landlock(3)
    options = ["--ro", "/usr", "--ro", "/bin", "--ro", "/lib", "--ro", "/lib64", "--rw", "/tmp", "--rw", "/dev"]
    found = [row for row in denied(options, script) if row["layer"] == "landlock" and row["cure"] == cure]
    assert {row["call"] for row in found} == {call}
    left = denied([*options, *cure.split()], script)
    assert not [row for row in left if row["layer"] == "landlock" and row["cure"] == cure]


def test_ports_and_signals_of_landlock(requires):
    requires.landlock(6)
    box = mc.Container(features=[mc.NoNewPrivs(), mc.Landlock(connect=(), scopes=("signal",))])
    _, denials = observed(box, ["bash", "-c", "echo >/dev/tcp/127.0.0.1/9; kill -0 $PPID; true"])
    told = {(one.call, one.layer, one.cure) for one in denials}
    assert ("connect", "landlock", "--landlock-connect 9") in told
    assert ("kill", "landlock", "--without landlock:signal") in told


def test_a_low_port_and_a_raw_socket_on_the_host():
    code = """
import socket, threading
def tried(f):
    try: f()
    except PermissionError: pass
tried(lambda: socket.socket().bind(("127.0.0.1", 80)))
thread = threading.Thread(target=tried, args=(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),))
thread.start(); thread.join()
"""
    box = mc.Container(features=[mc.Capabilities(("CHOWN",))])
    _, denials = observed(box, [sys.executable, "-c", code])
    told = {(one.call, one.errno, one.layer, one.cure) for one in denials}
    assert ("socket", "EPERM", "capability", "--cap-add NET_RAW") in told
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        low = int(file.read()) > 80
    assert (("bind", "EACCES", "capability", "--cap-add NET_BIND_SERVICE") in told) is low


def filtered(lab, made):
    return mc.Container(lab).with_(mc.Seccomp(made))


def test_a_rule_is_named_with_its_arguments(lab, calls):
    made = mc.SeccompFilter("allow").deny("chmod").deny("mkdir", errno="EDQUOT", when=(1, "==", 0o755))
    box = filtered(lab, made)
    _, (denial,) = observed(box, [calls, "64", str(MKDIR), "0", str(0o755)])
    assert (denial.call, denial.errno, denial.layer) == ("mkdir", "EDQUOT", "seccomp")
    assert "rule 2 (if arg1 == 493)" in denial.why
    assert "allows mkdir" in denial.cure
    _, none = observed(box, [calls, "64", str(MKDIR), "0", str(0o700)])
    assert none == ()  # EFAULT is nobody's denial


@pytest.mark.parametrize(("how", "killed"), [("kill", -signal.SIGSYS), ("trap", -signal.SIGSYS)])
def test_a_death_by_the_filter_is_told(lab, calls, how, killed):
    made = getattr(mc.SeccompFilter("allow"), how)("getpid")
    result, (denial,) = observed(filtered(lab, made), [calls, "64", str(GETPID)])
    assert result.returncode == killed
    assert (denial.call, denial.errno, denial.layer) == ("getpid", "SIGSYS", "seccomp")
    assert f"{how}, by rule 1" in denial.why


def test_what_on_syscall_refuses_is_told(lab, calls):
    made = mc.SeccompFilter("allow").notify("mkdir")
    words = [calls, "64", str(MKDIR), "0", "0"]
    _, (denial,) = observed(filtered(lab, made), words, on_syscall=lambda call: mc.Errno("EACCES"))
    assert (denial.call, denial.errno, denial.layer) == ("mkdir", "EACCES", "seccomp")
    assert "on_syscall" in denial.why
    with pytest.raises(mc.SpecError, match="on_syscall"):
        filtered(lab, made).record(words)


def test_calls_of_i386_are_named_as_such(lab, calls, box):
    plain = box.without("seccomp").run([calls, "32", "20"], capture_output=True)
    if plain.returncode:
        pytest.skip("not exercisable here: this kernel runs no i386 system calls")
    _, (denial,) = observed(box, [calls, "32", str(UNSHARE32), str(CLONE_NEWNS)])
    assert (denial.call, denial.arch, denial.layer) == ("unshare", "x86", "seccomp")


def test_nothing_is_told_where_nothing_was_denied(box):
    result, denials = observed(box, ["true"])
    assert (result.returncode, denials) == (0, ())
    assert box.run(["unshare", "-m", "true"], capture_output=True).denials == ()  # not asked for


def test_the_same_many_times_is_one_row_with_a_count(box):
    _, denials = observed(box, ["bash", "-c", "for n in 1 2 3 4 5; do echo >/proc/sys/kernel/domainname; done"])
    (denial,) = denials
    assert (denial.count, denial.path) == (5, "/proc/sys/kernel/domainname")
    assert str(denial).startswith("5 x openat(/proc/sys/kernel/domainname, O_WRONLY|O_CREAT|O_TRUNC, 0666) EROFS")


def test_children_and_their_children_are_seen(box):
    _, denials = observed(box, ["bash", "-c", "(bash -c '(unshare -m true; true)'; true) & wait"])
    assert [one.call for one in denials] == ["unshare"]


def test_it_is_confined_and_ends_as_without(box):
    script = "cat /proc/self/status; wc -l </proc/self/mountinfo; ls /proc/self/fd; exit 7"
    fields = ("Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Umask")
    told = []
    for explain in (False, True):
        result = box.run(["bash", "-c", script], explain_denials=explain, capture_output=True, text=True)
        assert result.returncode == 7
        rows = result.stdout.splitlines()
        told.append([row for row in rows if row.startswith(fields) or row.isdecimal()])
    assert told[0] == told[1] and len(told[0]) > 15
    died, _ = observed(box, ["bash", "-c", "kill -9 $$"])
    assert (died.returncode, died.signal) == (-9, 9)


@pytest.mark.parametrize("init", [True, False])
def test_it_needs_no_init_and_what_stays_behind_goes_on(lab, init):
    """In the host's pid namespace children outlive the program: the observer leaves them alone, untraced."""
    box = mc.Container(lab).without("pid")
    box = box.with_(mc.Init()) if init else box.without("init")
    result, denials = observed(
        box, ["bash", "-c", "unshare -m true; setsid sleep 61 >/dev/null 2>&1 & echo $!; exit 3"]
    )
    left = int(result.stdout.split()[0])
    try:
        assert result.returncode == 3
        if not init:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{left}/status").read_text().splitlines())
            assert status["TracerPid"].strip() == "0"
    finally:
        try:
            os.kill(left, signal.SIGKILL)
        except ProcessLookupError:
            assert init  # an init's end is that of all below it only in a pid namespace; a subreaper's is not
    assert "unshare" in [one.call for one in denials] or not denials


def test_a_time_limit_tells_what_was_denied_until_then(box):
    with pytest.raises(mc.TimeoutExpired) as caught:
        box.run(["bash", "-c", "unshare -m true 2>/dev/null; sleep 60"], timeout=1.5, explain_denials=True)
    assert [one.call for one in caught.value.result.denials] == ["unshare"]


def test_jobs_can_be_stopped_and_go_on(box):
    script = "sleep 0.2 & kill -STOP $!; sleep 0.5; cat /proc/$!/status; kill -CONT $!; wait $!; echo $?"
    result, _ = observed(box, ["bash", "-c", script])
    (state,) = (line.split()[1] for line in result.stdout.splitlines() if line.startswith("State:"))
    assert state in ("T", "t")  # a stop that is traced is shown as one
    assert result.stdout.endswith("\n0\n")


def test_a_thread_that_executes_goes_on_as_the_leader():
    code = "import os, threading, time; argv = ['sh', '-c', 'exit 4']\n"
    code += "threading.Thread(target=os.execv, args=('/bin/sh', argv)).start(); time.sleep(60)"
    result, _ = observed(mc.Container(features=()), [sys.executable, "-c", code])
    assert result.returncode == 4


def test_an_observer_that_was_killed_is_told(box):
    """The program goes on; what it was denied is not known, and said not to be."""
    process = box.popen(["sleep", "1"], explain_denials=True)
    with process:
        os.kill(process.observer.pid, signal.SIGKILL)
        assert process.wait() == 0
        with pytest.raises(mc.StepFailed, match="observer was killed"):
            _ = process.denials


def test_a_start_that_fails_leaves_no_observer(lab):
    before = set(children())
    with pytest.raises(mc.CommandNotExecutable):
        mc.Container(lab).with_(mc.Overlay()).run(["/etc/passwd"], explain_denials=True)
    assert set(children()) == before


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_it_needs_no_privilege(requires, tmp_path):
    """In the host's own root, with Landlock. Yama may let ancestors trace alone."""
    requires.landlock(1)
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    refused = scope.exists() and scope.read_text().strip() != "0"
    secret = tmp_path / "secret"
    secret.write_text("of another user")
    secret.chmod(0o600)
    os.chown(secret, 1000, 1000)
    command = [sys.executable, "-c", UNPRIVILEGED, secret]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if refused:
        assert "kernel.yama.ptrace_scope" in done.stderr
    else:
        told = [(str(secret), "capability"), ("/proc/version", "landlock")]
        assert (done.stdout, done.stderr) == (f"{told}\n", "")


def test_many_forks_at_once_are_all_seen(box):
    script = "for n in $(seq 40); do (echo >/proc/sys/kernel/domainname) 2>/dev/null & done; wait"
    _, denials = observed(box, ["bash", "-c", script])
    assert [(one.call, one.count) for one in denials] == [("openat", 40)]


def test_the_cli_prints_a_table_and_keeps_the_exit_code(lab, run_cli):
    answer = run_cli("run", "--rootfs", lab, "--explain-denials", "--", "bash", "-c", "unshare -m true; exit 9")
    assert answer.returncode == 9
    lines = answer.stderr.splitlines()
    assert lines[-4].split()[:3] == ["n", "error", "layer"]
    assert lines[-3].split() == ["1", "EPERM", "seccomp", "unshare(0x20000)"]
    assert lines[-1].strip() == "=> --cap-add SYS_ADMIN"
    answer = run_cli("run", "--rootfs", lab, "--explain-denials", "--", "true")
    assert (answer.returncode, answer.stderr) == (0, "nothing was denied\n")


def test_the_cli_refuses_what_cannot_be(lab, run_cli, tmp_path):
    answer = run_cli("run", "--rootfs", lab, "-d", "--explain-denials", "--", "true")
    assert answer.returncode == 125 and "-d does not wait" in answer.stderr
    answer = run_cli("run", "--rootfs", lab, f"--explain-denials={tmp_path}/none/x", "--", "true")
    assert answer.returncode == 125 and "no directory" in answer.stderr
    began = time.monotonic()
    answer = run_cli("run", "--rootfs", lab, "--explain-denials", "--", "no-such-program")
    assert answer.returncode == 127 and time.monotonic() - began < 30
