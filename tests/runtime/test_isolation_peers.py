"""Isolation read back of what other tools start: unshare, bwrap, runc, crun and LXC, where they are installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import minictr as mc
from minictr.errors import WeakerIsolation


def named(pid: int, name: str) -> int:
    """The first process called NAME among PID and those below it."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        waiting = [pid]
        while waiting:
            one = waiting.pop()
            try:
                if Path(f"/proc/{one}/comm").read_text().strip() == name:
                    return one
                for task in os.listdir(f"/proc/{one}/task"):
                    waiting += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
            except OSError:
                continue
        time.sleep(0.02)
    raise AssertionError(f"no {name} below {pid}")


def peer(requires, command: list[str], program: str = "sleep") -> mc.Isolation:
    """The isolation of PROGRAM as COMMAND runs it; skips where that tool is not installed."""
    if not requires.has(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            return mc.isolation(named(process.pid, program))
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_of_unshare(requires):
    found = peer(requires, ["unshare", "-n", "-i", "sleep", "1000"])
    assert [kind for kind, one in found.namespaces.items() if one.own] == ["ipc", "net"]
    assert found.links == ("lo",)
    assert not found.root.own


def test_of_bwrap(requires, rootfs):
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--bind", str(rootfs), "/", "--proc", "/proc"]
    found = peer(requires, [*command, "--cap-drop", "ALL", "sleep", "1000"])
    own = [kind for kind, one in found.namespaces.items() if one.own]
    assert {"mnt", "uts", "ipc", "pid", "net"} <= set(own)
    assert found.root.own and found.no_new_privs and found.capabilities.effective == ()
    assert found.kernel_files["/proc/sys"] == "rw" and found.kernel_files["/sys"] == "absent"
    with pytest.raises(WeakerIsolation) as caught:
        found.assert_at_least("default")
    assert "readonly: /proc/sys is rw" in caught.value.points


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_of_an_oci_runtime(requires, runtime, rootfs, tmp_path):
    if not requires.has(runtime):
        pytest.skip(f"{runtime} is not installed")
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"] |= {"args": ["sleep", "1000"], "terminal": False}
    config["root"] = {"path": str(rootfs), "readonly": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    name = f"isolation-{os.getpid()}-{runtime}"
    command = [runtime, "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), name]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            try:
                found = mc.isolation(named(process.pid, "sleep"))
            except AssertionError:
                process.kill()
                pytest.skip(f"{runtime} does not start here: {process.communicate()[0].decode()[-200:].strip()}")
        finally:
            subprocess.run(
                [*command[:3], "delete", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
    assert {"mnt", "uts", "ipc", "pid", "net"} <= {kind for kind, one in found.namespaces.items() if one.own}
    assert found.root.own and found.root.readonly and found.no_new_privs
    assert found.capabilities.bounding == tuple(
        name for name in found.capabilities.bounding if f"CAP_{name}" in config["process"]["capabilities"]["bounding"]
    )
    present = {path for path in config["linux"]["maskedPaths"] if found.kernel_files.get(path) != "absent"}
    assert present & set(found.kernel_files) <= set(found.masked)
    for path in config["linux"]["readonlyPaths"]:
        assert found.kernel_files[path] in ("ro", "absent")
    limits = {row["type"].removeprefix("RLIMIT_").lower(): row for row in config["process"]["rlimits"]}
    assert found.rlimits["nofile"] == (limits["nofile"]["soft"], limits["nofile"]["hard"])


def test_of_lxc(requires, rootfs, tmp_path):
    if not requires.has("lxc-execute"):
        pytest.skip("lxc-execute is not installed")
    name = f"minictr-isolation-{os.getpid()}"
    config = tmp_path / "config"
    config.write_text(
        f"lxc.rootfs.path = dir:{rootfs}\nlxc.autodev = 1\nlxc.console.path = none\nlxc.net.0.type = empty\n"
        "lxc.mount.auto = proc:mixed sys:ro\nlxc.no_new_privs = 1\nlxc.cap.drop = mknod sys_module\n"
        f"lxc.cgroup.relative = 1\nlxc.cgroup.dir.monitor = {name}/monitor\nlxc.cgroup.dir.container = {name}/payload\n"
        f"lxc.cgroup.dir.monitor.pivot = {name}/pivot\nlxc.prlimit.nofile = 100\n"
    )
    command = ["lxc-execute", "-n", name, "-P", str(tmp_path), "-f", str(config), "-o", str(tmp_path / "log")]
    try:
        found = peer(requires, [*command, "--", "sleep", "1000"])
    finally:
        for directory in Path("/sys/fs/cgroup").glob(f"**/{name}"):
            for group in (*sorted(directory.glob("**/"), reverse=True), directory):
                _gone(group)
    assert {"mnt", "uts", "ipc", "pid", "net"} <= {kind for kind, one in found.namespaces.items() if one.own}
    assert found.root.own and found.no_new_privs
    assert not {"MKNOD", "SYS_MODULE"} & set(found.capabilities.bounding)
    assert found.rlimits["nofile"] == (100, 100)
    assert found.cgroups["pids"].path.endswith(f"/{name}/payload")
    assert (found.kernel_files["/proc/sys"], found.kernel_files["/sys"]) == ("ro", "ro")
    assert found.init.reaper and found.init.name
    with pytest.raises(WeakerIsolation, match="masked: /proc/interrupts is rw"):
        found.assert_at_least("default")


def _gone(group: Path) -> None:
    """Remove a cgroup once those in it, which were killed, have left."""
    deadline = time.monotonic() + 5
    while group.exists():
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
