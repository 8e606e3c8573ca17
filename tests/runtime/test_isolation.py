"""What truly confines a process: read back of containers with a feature and without it, of other tools, of anybody."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import eventually

import minictr as mc
from minictr.errors import SpecError, StepFailed, WeakerIsolation
from minictr.features import PROFILES
from minictr.runtime.identity import ProcessIdentity

ROOT = "/sys/fs/cgroup"
# feature of the default profile -> the fields that change without it, and where else something may change with it
KERNEL = ("kernel_files.", "masked", "readonly", "mounts.")
WITHOUT = {
    "pid": (("namespaces.pid.own", "init.inside"), ("init.",)),
    "net": (("namespaces.net.own", "links"), ()),
    "ipc": (("namespaces.ipc.own",), ()),
    "uts": (("namespaces.uts.own",), ()),
    "cgroupns": (("namespaces.cgroupns.own",), ("readonly", f"mounts.{ROOT}", "kernel_files./sys/fs/cgroup")),
    "proc": (("kernel_files./proc/sys", "mounts./proc"), KERNEL),
    "sysfs": (("kernel_files./sys", "mounts./sys"), KERNEL),
    "dev": (("mounts./dev",), ("mounts./dev/",)),
    "devpts": (("mounts./dev/pts",), ()),
    "shm": (("mounts./dev/shm",), ()),
    "mqueue": (("mounts./dev/mqueue",), ()),
    "nodev": (("root.nodev", "mounts./"), ()),
    "masked_paths": (("masked", "kernel_files./proc/interrupts"), KERNEL),
    "readonly_paths": (("readonly", "kernel_files./proc/sys"), KERNEL),
    "rlimits": (("rlimits.core",), ()),
    "session": (("session.own",), ()),
    "capabilities": (("capabilities.effective", "capabilities.permitted", "capabilities.bounding"), ()),
    "no_new_privs": (("no_new_privs",), ()),
    "seccomp": (("seccomp.mode", "seccomp.filters"), ()),
    "init": (("init.reaper", "init.inside", "init.name"), ()),
    "pids": (("cgroups.pids.own", "limits.pids.max"), ("readonly", "mounts.", "kernel_files./sys/fs/cgroup")),
    "cgroupfs": ((f"mounts.{ROOT}",), ("readonly", "mounts.", "kernel_files./sys/fs/cgroup")),
}
# what the kernel shows of no other process, or is no isolation (docs/features/isolation.md)
UNSEEN = frozenset("hostname sysctl loopback env umask keyring user landlock".split())
ROOTS = frozenset(("mnt", "pivot_root"))  # gone together: a container on a root must enter it
ALLOW = bytes.fromhex("060000000000ff7f")  # BPF_RET|BPF_K, SECCOMP_RET_ALLOW

# feature put in -> what must be said of it then
WITH = {
    "memory": (mc.Memory("64M"), {"limits.memory.max": 64 << 20, "cgroups.memory.own": True}),
    "cpu": (mc.Cpu(cpus=0.5), {"limits.cpu.cpus": 0.5, "cgroups.cpu.own": True}),
    "cpuset": (mc.Cpuset(cpus="0"), {"limits.cpuset.cpus": "0", "cpus": "0"}),
    "devices": (mc.Devices(), {"devices.restricted": True}),
    "freezer": (mc.Freezer(), {"cgroups.freezer.own": True}),
    "oom_score_adj": (mc.OomScoreAdj(300), {"oom_score_adj": 300}),
    "personality": (mc.Personality(aslr=False), {"personality": 0x0040000}),
    "timens": (mc.TimeNamespace(), {"namespaces.timens.own": True}),
    "overlay": (mc.Overlay(), {"root.fstype": "overlay", "mounts./": "overlay rw,nodev"}),
    "readonly": (mc.ReadonlyRoot(), {"root.readonly": True, "mounts./": "ext4 ro,nodev"}),
    "tmpfs": (mc.Tmpfs("/mnt"), {"mounts./mnt": "tmpfs rw,nosuid,nodev,noexec"}),
    "seccomp": (mc.Seccomp(ALLOW), {"seccomp.mode": "filter"}),
    "user": (mc.Identity("1000:1000"), {"user.uid": 1000, "dumpable": True}),
    "umask": (mc.Umask(0o077), {"umask": 0o077}),
    "masked_paths": (mc.MaskedPaths(("/etc/passwd", "/var")), {"masked": ("/etc/passwd", "/var")}),
    "rlimits": (mc.Rlimits((("nofile", 32, 64),)), {"rlimits.nofile": (32, 64)}),
}


@pytest.fixture(scope="module")
def plain(lab: Path) -> mc.Container:
    """The default profile without a filter, so that each test puts in its own."""
    return mc.Container(lab).without("seccomp")


def of(box: mc.Container) -> mc.Isolation:
    """The isolation of a program in BOX."""
    with box.popen(["sleep", "1000"]) as process:
        return mc.isolation(process)


@pytest.fixture(scope="module")
def whole(lab: Path) -> mc.Isolation:
    return of(mc.Container(lab))


# --- ablation: each field changes with its feature, and with no other ---


def test_every_feature_of_the_default_is_in_one_of_the_tables():
    assert {feature.name for feature in PROFILES["default"]} <= {*WITHOUT, *UNSEEN, *ROOTS}


@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_feature(lab, whole, name):
    box = mc.Container(lab)
    if name not in box.spec().names:
        pytest.skip(f"{name} is not in the default profile")
    other = of(box.without(name))
    must, may = WITHOUT[name]
    changed = {row.name for row in whole.diff(other)}
    assert set(must) <= changed
    assert [field for field in changed if field not in must and not field.startswith(may or "\0")] == []
    if name in (
        "dev",
        "devpts",
        "shm",
        "mqueue",
        "proc",
        "sysfs",
        "cgroupfs",
    ):  # no order: these give, they do not take
        return
    with pytest.raises(WeakerIsolation) as caught:
        other.assert_at_least("default")
    assert {point.partition(":")[0] for point in caught.value.points} & {*must, "kernel_files./sys/fs/cgroup"}


def test_the_unseen_are_not_seen(lab, whole):
    box = mc.Container(lab)
    for name in UNSEEN & box.spec().names:
        assert whole.diff(of(box.without(name))) == (), name


def test_without_a_mount_namespace(lab, whole):
    other = of(mc.Container(lab).without("mnt").with_(mc.Chroot()))
    assert {"namespaces.mnt.own"} <= {row.name for row in whole.diff(other)}
    assert other.root.own and not other.namespaces["mnt"].own
    assert set(other.kernel_files.values()) == {"absent"}


@pytest.mark.parametrize("name", WITH)
def test_with_a_feature(plain, name):
    feature, expected = WITH[name]
    box = plain.with_(feature)
    with box.popen(["sleep", "1000"]) as process:
        found = mc.isolation(process)
    rows = {row.name: row.mine for row in found.diff(mc.isolation())}
    for field, value in expected.items():
        top, _, rest = field.partition(".")
        seen = getattr(found, top)
        for part in filter(None, [rest] if isinstance(seen, dict) and rest in seen else rest.split(".")):
            seen = seen[part] if isinstance(seen, dict) else getattr(seen, part)
        assert seen == value, (field, rows.get(field))
    if name not in ("personality", "masked_paths"):
        found.assert_at_least(box.features)


# --- whose ---


def test_two_of_the_same_do_not_differ(lab, whole):
    assert whole.diff(of(mc.Container(lab))) == ()
    whole.assert_at_least("default")
    whole.assert_at_least(whole)
    assert {row.name for row in whole.diff(of(mc.Container(lab)), identity=True)} >= {"pid", "namespaces.net.id"}


def test_this_process():
    mine = mc.isolation()
    assert (mine.pid, mine.command) == (os.getpid(), Path(f"/proc/{os.getpid()}/comm").read_text().strip())
    assert not any(one.own for one in mine.namespaces.values())
    assert mine.user.uids == (*os.getresuid(), os.geteuid())
    assert mine.diff(mc.isolation(os.getpid())) == ()
    assert mine.root.own is False
    with pytest.raises(WeakerIsolation, match="namespaces.pid.own: no, wanted yes"):
        mine.assert_at_least("default")
    json.dumps(mine.to_dict())


def test_the_program_is_meant_not_its_init(lab):
    with mc.Container(lab).popen(["sleep", "1000"]) as process:
        program, init = mc.isolation(process), mc.isolation(process.pid)
        assert (program.command, init.command) == ("sleep", "minictr-init")
        assert program.init.name == "minictr-init" and program.init.reaper
        assert init.capabilities.effective == ("KILL",) and init.seccomp.mode == "filter"
        assert (init.init.inside, init.init.reaper) == (1, False)
    with pytest.raises(StepFailed, match="it is over"):
        mc.isolation(process)


def test_without_init_the_first_process_is_the_program(lab):
    """Whatever it calls itself."""
    script = "sleep 1000 & printf minictr-init > /proc/self/comm; wait"
    with mc.Container(lab).without("init").popen(["bash", "-c", script]) as process:
        deadline = time.monotonic() + 10
        while mc.isolation(process).command != "minictr-init" and time.monotonic() < deadline:
            time.sleep(0.01)
        found = mc.isolation(process)
    assert (found.pid, found.command, found.init.inside) == (process.pid, "minictr-init", 1)


def test_the_program_with_children(lab):
    """The eldest is the program, whoever else init has taken in."""
    script = "(sleep 1000 &) ; (sleep 1000 &) ; exec tail -f /dev/null"
    with mc.Container(lab).popen(["bash", "-c", script]) as process:
        eventually(lambda: mc.isolation(process).command == "tail", 5)


def test_a_user_namespace(lab):
    maps = ((0, 100000, 65536),)
    found = of(mc.Container(lab).with_(mc.UserNamespace(maps, maps)))
    assert found.user.uid_map == maps == found.user.gid_map
    assert (found.user.uid, found.user.root_mapped, found.user.root_is_root) == (100000, True, False)
    assert found.namespaces["userns"].own


def test_all_threads_are_looked_at():
    """One thread may have less or more than the first: what holds for the process is what holds for all."""
    from minictr.kernel import capabilities

    pid = os.fork()
    if pid == 0:
        threading.Thread(target=lambda: (capabilities.no_new_privs(), time.sleep(100)), daemon=True).start()
        time.sleep(100)
        os._exit(0)
    try:
        deadline = time.monotonic() + 10
        while not mc.isolation(pid).thread_differences and time.monotonic() < deadline:
            time.sleep(0.01)
        found = mc.isolation(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert (found.threads, found.thread_differences) == (2, ("NoNewPrivs",))


# --- who is not there ---


def test_nobody():
    for word in (-1, True, "1"):
        with pytest.raises((SpecError, AttributeError)):
            mc.isolation(word)
    free = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
    with pytest.raises(StepFailed, match=f"process {free}: ESRCH .*no such process"):
        mc.isolation(free)


def test_a_zombie():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(StepFailed, match="it is a zombie"):
        mc.isolation(child)
    child.wait()


def test_a_kernel_thread():
    if "Kthread:\t1" not in Path("/proc/2/status").read_text() and "kthreadd" not in Path("/proc/2/comm").read_text():
        pytest.skip("process 2 is no kernel thread here")
    with pytest.raises(SpecError, match="process 2 is a kernel thread"):
        mc.isolation(2)


def test_a_number_that_is_used_again():
    from minictr.kernel.isolation import read_isolation

    with subprocess.Popen(["sleep", "1000"]) as child:
        start = ProcessIdentity.of(child.pid).start
        assert read_isolation(child.pid, start=start)["pid"] == child.pid
        with pytest.raises(StepFailed, match="its number is another process's now"):
            read_isolation(child.pid, start=start - 1)
        child.kill()


def test_one_that_ends_meanwhile():
    """All that is read is read through one descriptor: what follows the end is ESRCH, never another process."""
    from minictr.kernel.isolation_target import Target

    child = subprocess.Popen(["sleep", "1000"])
    with Target(child.pid) as target:
        assert target.text("comm") == "sleep\n"
        child.kill()
        child.wait()
        for read in (lambda: target.text("status"), lambda: target.link("ns/net"), target.check):
            with pytest.raises(StepFailed, match="it ended meanwhile"):
                read()
    with pytest.raises(StepFailed):
        mc.isolation(child.pid)


def test_processes_that_end_while_they_are_read():
    """A hundred short lives, read from beginning to end: a whole answer, or ESRCH; never another error, or a half."""
    whole = errors = 0
    for number in range(100):
        with subprocess.Popen(["sleep", f"0.{number % 10:03}"]) as child:
            for _ in range(3):
                try:
                    found = mc.isolation(child.pid)
                except StepFailed as err:
                    errors += err.errno == errno.ESRCH
                    assert err.errno == errno.ESRCH, err  # noqa: PT017
                else:
                    whole += 1
                    assert found.pid == child.pid and found.command in ("sleep", mc.isolation().command)
                    assert found.limits and found.rlimits and found.root
    assert whole + errors == 300 and whole


def test_one_that_changes_is_read_again(monkeypatch):
    """An execve or a dropped privilege between two readings: never half of each."""
    from minictr.kernel import isolation as reader

    readings = []

    def restless(target):
        readings.append(target)
        return {**signature(target)[0], "Name": str(len(readings) if len(readings) < 4 else 0)}, ""

    signature = reader._signature
    monkeypatch.setattr(reader, "_signature", restless)
    assert mc.isolation().pid == os.getpid()
    assert len(readings) == 6
    monkeypatch.setattr(reader, "_signature", lambda target: (signature(target)[0], str(time.monotonic_ns())))
    with pytest.raises(StepFailed, match="EAGAIN.*it changes while it is read"):
        mc.isolation()


def test_the_descriptors_are_closed():
    before = os.listdir("/proc/self/fd")
    mc.isolation()
    with pytest.raises(SpecError):
        mc.isolation(2)
    assert len(os.listdir("/proc/self/fd")) == len(before)


# --- what a hostile root holds ---


def test_links_of_the_root_lead_nowhere_else(own_rootfs):
    """/proc/PID/root is followed below that root: what its links name on the host is not looked at."""
    for name in ("proc", "sys"):
        shutil.rmtree(own_rootfs / name, ignore_errors=True)
        (own_rootfs / name).symlink_to(f"/../../../{name}")
    box = mc.Container(own_rootfs, features=(mc.MountNamespace(), mc.PivotRoot(), mc.PidNamespace()))
    found = of(box)
    assert found.root.own
    assert set(found.kernel_files.values()) <= {"absent", None}, found.kernel_files


def test_something_that_only_looks_like_a_mask(lab, own_rootfs):
    """A tmpfs with something in it, or one that can be written, hides nothing for good."""
    box = mc.Container(own_rootfs).with_(mc.Tmpfs("/srv"), mc.Tmpfs("/opt", options=("ro",)))
    found = of(box)
    assert "/srv" not in found.masked and "/opt" in found.masked


def test_example(requires):
    requires.root()
    example = Path(__file__).resolve().parents[2] / "examples" / "isolation.py"
    environment = {**os.environ, "PYTHONPATH": str(Path(mc.__path__[0]).parent)}
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    for words in ("no_new_privs", "confined less than wanted", "as asserted", "differ in nothing"):
        assert words in done.stdout, done.stdout
