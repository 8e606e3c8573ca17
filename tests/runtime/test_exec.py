"""``exec``: one more program in a container that runs, confined as its own program is."""

from __future__ import annotations

import os
import signal

import pytest
from joined import namespaces, said, status, target_of, text

import minictr as mc
from minictr.runtime import join
from minictr.runtime.join import exec_popen

MAPS = ((0, 100_000, 65_536),)
# a filter of one instruction: everything is allowed, and Seccomp: 2 tells that it is there
ALLOW = mc.Seccomp(bytes((0x06, 0, 0, 0, 0, 0, 0xFF, 0x7F)))
NAMESPACES = ("mnt", "net", "ipc", "uts", "cgroup", "time", "user", "pid")


def main_program(process: mc.Process) -> int:
    """The pid of a container's program: init's only child, or the first process itself."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return int((file.read().split() or [process.pid])[0])


def all_of(pid: int) -> dict[str, object]:
    """What a process is confined by, as the host sees it."""
    root = os.stat(f"/proc/{pid}/root/.")
    return {
        "namespaces": namespaces(pid),
        "status": status(pid),
        "cgroup": text(pid, "cgroup"),
        "root": (root.st_dev, root.st_ino),
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
        "limits": text(pid, "limits"),
        "oom_score_adj": text(pid, "oom_score_adj"),
        "personality": text(pid, "personality"),
        "environ": sorted(text(pid, "environ").split("\0")),
        "maps": text(pid, "uid_map") + text(pid, "gid_map"),
    }


# --- the same as the container's own program ---

KINDS = {
    "default": lambda box: box,
    "docker": lambda box: mc.Container(box.rootfs, features="docker"),
    "lxc": lambda box: mc.Container(box.rootfs, features="lxc"),
    "bare": lambda box: mc.Container(box.rootfs, features="bare"),
    "nothing": lambda box: mc.Container("", features=()),
    "chroot in a mount namespace": lambda box: mc.Container(
        box.rootfs, features=[mc.MountNamespace(), mc.Chroot(), mc.Proc(), mc.Env()]
    ),
    "userns": lambda box: box.with_(mc.UserNamespace(uid_map=MAPS, gid_map=MAPS)),
    "userns and a user": lambda box: box.with_(mc.UserNamespace(uid_map=MAPS, gid_map=MAPS), mc.Identity("alice")),
    "userns of one id": lambda box: box.with_(mc.UserNamespace()),
    "no pid": lambda box: box.without("pid"),
    "timens": lambda box: box.with_(mc.TimeNamespace(monotonic=1_000_000)),
    "timens without init": lambda box: box.with_(mc.TimeNamespace(monotonic=1_000_000)).without("init"),
    "no init": lambda box: box.without("init"),
    "user": lambda box: box.with_(mc.Identity("alice")),
    "attributes": lambda box: box.with_(
        mc.Cwd("/var/tmp"),
        mc.Umask(0o077),
        mc.Rlimits((("nofile", 100, 200), ("core", 0, 0))),
        mc.OomScoreAdj(321),
        mc.Personality(aslr=False),
        mc.Env((("COLOUR", "green"),)),
        ALLOW,
    ),
    "seccomp without no_new_privs": lambda box: box.with_(ALLOW).without("no_new_privs"),
    "capabilities": lambda box: box.with_(
        mc.Capabilities(("CHOWN", "NET_RAW"), inheritable=("CHOWN",), ambient=("CHOWN",))
    ),
}


@pytest.mark.parametrize("at_once", [True, False], ids=["pidfd", "files"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_is_as_in_the_containers_own_program(box, monkeypatch, kind, at_once):
    """By one setns on the pidfd (Linux 5.8), and by the files of the namespaces."""
    monkeypatch.setattr(join, "at_once", lambda: at_once)
    monkeypatch.setattr(join, "_programs", {})
    container = KINDS[kind](box)
    with container.popen(["sleep", "100"]) as process:
        with exec_popen(target_of(process, container), ["sleep", "100"]) as joined:
            assert all_of(joined.pid) == all_of(main_program(process))
        assert joined.returncode == -signal.SIGKILL
        assert process.poll() is None, "killing one program is not killing the container"


def test_it_sees_the_container_from_inside(inside, box):
    target = inside(box.with_(mc.Tmpfs("/run/only-here")), ("sleep", "4321"))
    assert "sleep 4321" in said(target, "ps ax")
    assert said(target, "uname -n; ls -d /run/only-here").split() == ["minictr", "/run/only-here"]
    assert said(target, "test $$ -gt 2; readlink /proc/self/ns/pid") == namespaces(target.pid)["pid"]


def test_a_filter_is_in_force(inside, box):
    """mkdir fails, for the container's filter says so: struct sock_filter, mkdir is 83 on x86_64, 1030 elsewhere."""
    number = 83 if os.uname().machine == "x86_64" else 34
    rows = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000))
    program = b"".join(
        code.to_bytes(2, "little") + bytes((yes, no)) + value.to_bytes(4, "little") for code, yes, no, value in rows
    )
    filtered = box.with_(mc.Seccomp(program))
    script = "mkdir /tmp/x 2>&1 || true"
    assert "not implemented" in said(inside(filtered), script)
    assert said(inside(filtered), script, without=("seccomp",)) == ""


# --- overrides ---


def test_another_user(inside):
    target = inside()
    assert said(target, "id -u; id -g; id -G; echo $HOME", user="alice").split() == [
        "1000", "1001", "1001", "2001", "2002", "/home/alice"
    ]  # fmt: skip
    assert said(target, "id -u; id -g", user="7:8").split() == ["7", "8"]
    with pytest.raises(mc.SpecError, match=f"nobody-here: no such user in /proc/{target.pid}/root/etc/passwd"):
        said(target, "true", user="nobody-here")


def test_users_are_those_of_the_live_root(inside, own_rootfs):
    """As the container's files are now, and never the host's."""
    target = inside(mc.Container(own_rootfs))
    with pytest.raises(mc.SpecError):
        said(target, "true", user="late")
    said(target, "echo late:x:77:78::/late:/bin/sh >> /etc/passwd")
    assert said(target, "id -u; echo $HOME", user="late").split() == ["77", "/late"]
    said(target, "sed -i s/:77:/:99:/ /etc/passwd 2>/dev/null || echo late:x:99:78::/late:/bin/sh > /etc/passwd")
    assert said(target, "id -u", user="late") == "99"


def test_a_hostile_user_database(inside, own_rootfs):
    """Links in the container lead to the container's own files, whatever they name."""
    target = inside(mc.Container(own_rootfs))
    said(target, "rm /etc/passwd; ln -s /proc/1/root/etc/passwd /etc/passwd")
    with pytest.raises(mc.SpecError):
        said(target, "true", user="alice")
    said(target, "rm /etc/passwd; mkfifo /etc/passwd 2>/dev/null || mkdir /etc/passwd")
    with pytest.raises(mc.SpecError, match="not a regular file"):
        said(target, "true", user="alice")


def test_another_directory(inside):
    target = inside()
    assert said(target, "pwd", cwd="/usr/bin") == "/usr/bin"
    with pytest.raises(mc.StepFailed, match="chdir /no/such"):
        said(target, "true", cwd="/no/such")
    assert said(target, "ls -d /no 2>/dev/null || echo none") == "none"
    with pytest.raises(mc.SpecError, match="relative"):
        said(target, "true", cwd="usr")


def test_a_directory_that_is_closed_to_the_user(inside):
    with pytest.raises(mc.StepFailed, match="EACCES"):
        said(inside(), "true", cwd="/root", user="alice")


def test_more_environment(inside, box):
    target = inside(box.with_(mc.Env((("A", "1"), ("B", "2")))))
    script = "echo $A $B $C $HOSTNAME"
    assert said(target, script) == "1 2 minictr"
    assert said(target, script, env={"B": "two", "C": "3"}) == "1 two 3 minictr"


def test_privileged(inside, box):
    target = inside(box.with_(ALLOW))
    with exec_popen(target, ["sleep", "9"], privileged=True) as joined:
        found = status(joined.pid)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("0", "0")
    assert found["CapEff"] == status(os.getpid())["CapEff"]


def test_capabilities_added_and_dropped(inside):
    target = inside()

    def held(**options: object) -> set[int]:
        with exec_popen(target, ["sleep", "9"], **options) as joined:
            bits = int(status(joined.pid)["CapEff"], 16)
        return {bit for bit in range(64) if bits >> bit & 1}

    own = held()
    assert held(cap_add=["NET_RAW"]) == own | {13}
    assert held(cap_drop=["chown"]) == own - {0}
    assert held(cap_drop=["ALL"], cap_add=["CAP_KILL"]) == {5}
    assert held() == own


@pytest.mark.parametrize("left_out", ["net", "ipc", "uts", "cgroupns", "pid"])
def test_a_namespace_left_out_is_the_callers(inside, left_out):
    target = inside()
    word = "cgroup" if left_out == "cgroupns" else left_out
    with exec_popen(target, ["sleep", "9"], without=(left_out,)) as joined:
        theirs, found, ours = namespaces(target.pid), namespaces(joined.pid), namespaces(os.getpid())
    assert {name for name in NAMESPACES if found[name] != theirs[name]} == {word}
    assert found[word] == ours[word]


def test_the_mount_namespace_left_out(inside):
    """The container's root is entered all the same, by name; without that too, it is the host's."""
    target = inside()
    with exec_popen(target, ["sleep", "9"], without=("mnt",)) as joined:
        assert namespaces(joined.pid)["mnt"] == namespaces(os.getpid())["mnt"]
        assert os.path.samefile(f"/proc/{joined.pid}/root", f"/proc/{target.pid}/root")
    with exec_popen(target, ["sleep", "9"], without=("mnt", "pivot_root")) as joined:
        assert os.path.samefile(f"/proc/{joined.pid}/root", "/")


def test_a_user_namespace_left_out(inside, box):
    target = inside(box.with_(mc.UserNamespace(uid_map=MAPS, gid_map=MAPS)))
    with exec_popen(target, ["sleep", "9"], without=("userns",)) as joined:
        assert namespaces(joined.pid)["user"] == namespaces(os.getpid())["user"]


@pytest.mark.parametrize(
    ("left_out", "row", "value"), [("no_new_privs", "NoNewPrivs", "0"), ("seccomp", "Seccomp", "0"),
                                   ("user", "Uid", "0\t0\t0\t0"), ("umask", "Umask", "0027")]
)  # fmt: skip
def test_what_is_not_repeated(inside, box, left_out, row, value):
    target = inside(box.with_(ALLOW, mc.Identity("alice"), mc.Umask(0o077)))
    before = os.umask(0o027)
    try:
        with exec_popen(target, ["sleep", "9"], without=(left_out,)) as joined:
            found = status(joined.pid)
    finally:
        os.umask(before)
    theirs = status(target.pid)
    assert found[row] == value
    assert theirs["Seccomp"] == "2"


def test_capabilities_left_out(inside):
    with exec_popen(inside(), ["sleep", "9"], without=("capabilities",)) as joined:
        assert status(joined.pid)["CapBnd"] == status(os.getpid())["CapBnd"]


def test_limits_directory_and_environment_left_out(inside, box, monkeypatch):
    monkeypatch.setenv("OURS", "yes")
    target = inside(box.with_(mc.Cwd("/usr"), mc.Rlimits((("nofile", 100, 200),))))
    assert said(target, "pwd; ulimit -n; echo $OURS").split() == ["/usr", "100"]
    out = said(target, "pwd; ulimit -n; echo $OURS", without=("cwd", "rlimits", "env")).split()
    assert out[0] == "/" and out[1] != "100" and out[2] == "yes"


@pytest.mark.parametrize("name", ["nosuch", "proc", "hostname", "init"])
def test_what_cannot_be_left_out(inside, name):
    with pytest.raises(mc.SpecError, match=f"without {name}: .*no_new_privs"):
        said(inside(), "true", without=(name,))


# --- cgroups ---


def test_its_cgroups(inside, box):
    target = inside(box.with_(mc.Memory("64M"), mc.Cpu(weight=200)))
    assert {"memory", "cpu", "pids"} <= set(target.places)
    with exec_popen(target, ["sleep", "9"]) as joined:
        assert text(joined.pid, "cgroup") == text(target.pid, "cgroup")
    with exec_popen(target, ["sleep", "9"], without=("memory", "cpu")) as joined:
        theirs, found, ours = (text(pid, "cgroup").split("\n") for pid in (target.pid, joined.pid, os.getpid()))
    different = {row.split(":")[1] for row, other in zip(found, theirs) if row != other}
    assert different <= {"memory", "cpu", "cpuacct", "cpu,cpuacct", ""}
    assert different and all(row in ours for row, other in zip(found, theirs) if row != other)


def test_a_container_at_its_limit_of_processes(inside, box):
    target = inside(box.with_(mc.Pids(2)))
    with pytest.raises(mc.StepFailed, match="--without pids"):
        said(target, "true")
    assert said(target, "echo in", without=("pids",)) == "in"
