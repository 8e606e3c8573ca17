"""An ordinary user's container through all of its life: every verb, with no root anywhere, and where its state is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from lab import UID, Lab

MAPS = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups"
DELEGATED = ["0", "1000", "1", "1", "300000", "65535"]


def test_maps(lab: Lab) -> None:
    """Without a word the ids that are delegated to him; with nothing delegated, or on demand, his own alone."""
    run = ["run", *lab.box()]
    assert lab.ok(*run, "--", "sh", "-c", MAPS).split() == [*DELEGATED, *DELEGATED, "allow"]
    nobody = "echo other:1:2 >{0}/etc/other; for k in uid gid; do mount --bind {0}/etc/other /etc/sub$k; done"
    single = ["0", "1000", "1"] * 2 + ["deny"]
    assert lab.ok(*run, "--", "sh", "-c", MAPS, before=nobody.format(lab.place)).split() == single
    assert lab.ok(*run, "--userns", "private", "--", "sh", "-c", MAPS).split() == single
    bare = ["run", "--profile", "bare", "--rootfs", lab.rootfs, "--", "readlink", "/proc/self/root"]
    assert lab.user(*bare).returncode in (0, 1)  # no procfs there, and no EPERM of chroot either
    refused = lab.refused(*run, "--userns", "host", "--", "true")
    assert "EPERM" in refused and "--userns private" in refused


def test_a_whole_life(lab: Lab) -> None:
    script = "echo begun; trap 'exit 7' TERM; while :; do sleep 0.05; done"
    pid = lab.up("web", "-p", "8080:80", "--env", "A=b", "--hostname", "lab", command=("sh", "-c", script))
    assert os.stat(f"/proc/{pid}").st_uid == UID
    assert lab.ok("ps", "-q", "--no-trunc") == lab.ok("inspect", "-f", "{{.Id}}", "web")
    inside = "id -u; uname -n; echo $A; echo new > /new; rm -r /home"
    assert lab.ok("exec", "web", "sh", "-c", inside).split() == ["0", "lab", "b"]
    assert lab.ok("logs", "web") == "begun"
    assert "trap" in lab.ok("top", "web")
    assert "web" in lab.ok("stats", "--no-stream", "web")
    told = json.loads(lab.ok("inspect", "web"))[0]
    assert told["IDMappings"]["UidMap"] == ["0:1000:1", "1:300000:65535"]
    assert told["StateDir"].startswith(f"{lab.place}/run/minictr/")
    effective = json.loads(lab.ok("inspect", "--effective", "--format", "json", "web"))[0]
    assert effective["user"]["root_is_root"] is False
    assert lab.ok("diff", "web").splitlines() == ["D /home", "A /new"]

    lab.ok("cp", "web:/new", f"{lab.place}/home/out")
    assert lab.run("stat", "-c", "%u", f"{lab.place}/home/out") == str(UID)
    lab.ok("cp", f"{lab.place}/home/out", "web:/in")
    assert lab.ok("exec", "web", "cat", "/in") == "new"
    lab.ok("commit", "--no-pause", "web", f"{lab.place}/home/layer.tar")
    with tarfile.open(f"/proc/{lab.host}/root{lab.place}/home/layer.tar") as archive:
        assert {"new", "in", ".wh.home"} <= set(archive.getnames())

    lab.ok("rename", "web", "site")
    lab.ok("kill", "-s", "TERM", "site")
    assert lab.ok("wait", "site") == "7"
    assert lab.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}").startswith("site Exited (7)")
    assert lab.ok("cp", "site:/in", f"{lab.place}/home/again") == ""
    lab.ok("start", "site")
    assert lab.ok("exec", "site", "cat", "/in") == "new"
    lab.ok("stop", "-t", "5", "site")
    actions = [line.split()[2] for line in lab.ok("events", "--until", "0s").splitlines()]
    assert actions[:2] == ["create", "start"]
    assert {"rename", "kill", "die", "stop"} <= set(actions)
    lab.ok("rm", "site")
    assert lab.ok("gc") == ""
    assert lab.ok("ps", "-aq") == ""


def test_attach_and_created(lab: Lab) -> None:
    lab.ok("create", "-i", "--name", "c", *lab.box(), "--", "cat")
    assert lab.ok("ps", "-a", "--format", "{{.Status}}").startswith("Created")
    assert lab.ok("start", "-ai", "c", stdin=None, input="hello\n") == "hello"
    lab.ok("rm", "c")


def test_limits_are_never_left_out_by_themselves(lab: Lab) -> None:
    """On this machine no group is his; groups that only count (kept containers) were asked for by nobody."""
    if os.access("/sys/fs/cgroup/pids", os.W_OK) and os.stat("/sys/fs/cgroup").st_uid == UID:
        pytest.skip("groups are this user's here")
    words = ["--rootfs", lab.rootfs, "--", "true"]
    told = lab.refused("run", *words)
    assert "feature pids" in told and "delegated" in told and "--without pids" in told
    assert "feature memory" in lab.refused("run", "--without", "pids", "-m", "64M", *words)
    done = lab.user("run", "--best-effort", "pids", *words)
    assert done.returncode == 0
    assert "pids" in done.stderr
    lab.up("web")
    for words, reason in {
        ("pause", "web"): "freezer",
        ("update", "-m", "64M", "web"): "memory",
        ("commit", "web", f"{lab.place}/home/x"): "--no-pause",
    }.items():
        assert reason in lab.refused(*words)


def test_privilege_is_taken_as_from_root(lab: Lab) -> None:
    """Seccomp, capabilities, no_new_privs, masked paths; all of it read back by the kernel's own files."""
    script = "cat /proc/self/status; wc -c < /proc/kcore; mknod /x c 1 3 || echo no"
    done = lab.ok("run", *lab.box(), "--", "sh", "-c", script)
    status = dict(line.split(":\t", 1) for line in done.splitlines() if ":\t" in line)
    assert (status["Seccomp"], status["NoNewPrivs"], status["CapEff"]) == ("2", "1", "00000000000405fb")
    assert done.splitlines()[-1] == "no"
    nested = lab.user("run", *lab.box("--disable-userns"), "--", "unshare", "-U", "true")
    assert nested.returncode != 0
    assert lab.ok("run", *lab.box("-u", "nobody"), "--", "id", "-u") == "65534"


def test_landlock(lab: Lab, requires: Any) -> None:
    requires.landlock()
    places = [word for place in ("/usr", "/lib", "/lib64", "/bin") for word in ("--ro", place)]
    denied = lab.user("run", *lab.box(*places), "--", "sh", "-c", "ls /etc")
    assert denied.returncode == 2 and "Permission denied" in denied.stderr


def test_networks(lab: Lab) -> None:
    devices = "cat /proc/net/dev | tail -n +3 | cut -d: -f1"
    assert lab.ok("run", *lab.box("--network", "none"), "--", "sh", "-c", devices).split() == ["lo"]
    assert set(lab.ok("run", *lab.box("--network", "host"), "--", "sh", "-c", devices).split()) == {"lo", "wire0"}
    lab.up("one", "--network", "none")
    told = lab.refused("run", *lab.box("--network", "container:one"), "--", "true")
    assert "user namespace" in told and "minictr exec one" in told


def test_where_state_lives(lab: Lab) -> None:
    """XDG base directories: the run-time one, else the state one, else below the home; never a path of root's."""
    home = lab.place / "home"
    run = ["run", "-d", "--name", "here", *lab.box(), "--", "sleep", "1000"]
    for env, place in (
        ({"XDG_RUNTIME_DIR": "", "XDG_STATE_HOME": f"{home}/kept"}, home / "kept/minictr"),
        ({"XDG_RUNTIME_DIR": "/", "XDG_STATE_HOME": ""}, home / ".local/state/minictr"),
        ({"XDG_RUNTIME_DIR": "", "MINICTR_ROOT": f"{home}/mine"}, home / "mine"),
    ):
        lab.ok(*run, env=env)
        assert lab.ok("inspect", "-f", "{{.StateDir}}", "here", env=env).startswith(f"{place}/containers/")
        assert lab.run("stat", "-c", "%a %u", place) == f"700 {UID}"
        lab.ok("rm", "-f", "here", env=env)
    refused = lab.user("run", *lab.box(), "--", "true", env={"MINICTR_ROOT": "/proc/nowhere"})
    assert refused.returncode == 125 and "--root or MINICTR_ROOT" in refused.stderr


def test_an_overlay_by_fuse(lab: Lab, requires: pytest.FixtureRequest) -> None:
    """What is given where a kernel lets ordinary users mount none: the directory is a root like any other."""
    if not requires.has("fuse-overlayfs") or not os.path.exists("/dev/fuse"):  # type: ignore[attr-defined]
        pytest.skip("fuse-overlayfs or /dev/fuse is not here")
    home = lab.place / "home"
    layers = f"lowerdir={lab.rootfs},upperdir={home}/upper,workdir={home}/work"
    script = f'mkdir -p {home}/upper {home}/work {home}/root; fuse-overlayfs -o {layers} {home}/root; exec "$@"'
    words = ["run", "--without", "pids", "--userns", "private", "--rootfs", str(home / "root"), "--", "sh", "-c"]
    command = [*lab.as_user(), "sh", "-ec", script, "sh", *lab.cli, *words, "echo new > /new; cat /new"]
    done = subprocess.run(
        lab.inside(lab.host, command), env=lab.env, capture_output=True, text=True, timeout=60, check=False
    )
    try:
        assert (done.returncode, done.stdout) == (0, "new\n"), done.stderr
        assert lab.run("cat", home / "upper/new") == "new"
    finally:
        lab.run("umount", home / "root", check=False)
