"""A container of an ordinary user: no root anywhere, one user namespace, a single-id map."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# What is imported late is imported first: an interpreter below /root cannot be read any more by then.
PROGRAM = """
import json, os, sys
import minictr as mc
import fcntl, minictr.runtime.diagnose, minictr.kernel.users, minictr.kernel.cgroup_cures
root, script = sys.argv[1:]
box = mc.Container(root).without("pids")  # there is no group that he may make one in
mapped = box.with_(mc.UserNamespace(), mc.Overlay())
mapped.run(["true"])
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
done = mapped.run(["sh", "-c", script], capture_output=True, text=True)
try:
    box.run(["true"])
    refused = ""
except mc.StepFailed as error:
    refused = str(error)
try:
    mapped.with_(mc.Pids(64)).run(["true"])
    limited = ""
except mc.StepFailed as error:
    limited = str(error)
print(json.dumps([done.returncode, done.stdout, done.stderr, refused, limited]))
"""


@pytest.fixture
def open_root(rootfs: Path) -> Iterator[Path]:
    """A copy of the root where everybody may go: pytest's own directories are for root only."""
    with tempfile.TemporaryDirectory(prefix="minictr-test-") as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "state").mkdir()
        os.chown(Path(directory) / "state", 1000, 1000)
        copy = Path(directory) / "root"
        shutil.copytree(rootfs, copy, symlinks=True)
        copy.chmod(0o755)
        yield copy


def run_as_user(root: Path, script: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(root), script],
        env={**os.environ, "MINICTR_ROOT": str(root.parent / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_root_inside_is_the_caller_outside(open_root: Path) -> None:
    script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x > /new; ls -n /new; cat /proc/self/status"
    code, out, err, refused, _ = run_as_user(open_root, script)
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert rows[0] == "0"
    assert rows[1].split() == ["0", "1000", "1"]
    assert rows[2] == "deny"
    assert rows[3].split()[2:4] == ["0", "0"]
    assert "CapEff:\t00000000000405fb" in rows  # over what is its own only
    assert not (open_root / "new").exists()
    assert "EPERM" in refused and "--userns private" in refused


def test_the_host_stays_closed(open_root: Path) -> None:
    """Capabilities inside are none outside: another user's file keeps its wall, and no device can be made."""
    (open_root / "secret").write_text("x")
    (open_root / "secret").chmod(0o600)
    code, out, *_ = run_as_user(open_root, "cat /secret; mknod /dev/x c 1 3; echo done")
    assert (code, out) == (0, "done\n")


def test_a_limit_needs_a_group_that_is_his(open_root: Path) -> None:
    """As root owns all groups here. Limits are never left out by themselves: the error says how to."""
    *_, limited = run_as_user(open_root, "true")
    assert "feature pids" in limited and "EACCES" in limited
    assert "delegated" in limited and "--without pids" in limited


DECIDES = """
import os, sys
import minictr as mc
import minictr.runtime.diagnose, minictr.kernel.users
root = sys.argv[1]
told = []

def handler(call):
    told.append(call.string(call.args[0]))
    return mc.CONTINUE if call.name == "execve" else mc.Errno("EXDEV")

flt = mc.SeccompFilter("allow").notify("mkdir", "execve")
box = mc.Container(root).without("pids").with_(mc.UserNamespace(), mc.Seccomp(flt))
box.run(["mkdir", "/x"], on_syscall=handler, stderr=mc.DEVNULL)
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
for which in (box, box.without("init"), box.without("no_new_privs")):
    told.clear()
    done = which.run(["mkdir", "/x"], on_syscall=handler, capture_output=True, text=True)
    assert "cross-device" in done.stderr and not done.handler_errors, done
    assert told[-2].endswith("/bin/mkdir") and told[-1] == "/x", told
    print("decided")
"""


def test_a_function_of_his_decides(open_root: Path) -> None:
    """The memory of the start itself, which nobody may trace from inside, is his to read: the user namespace is."""
    command = [sys.executable, "-P", "-c", DECIDES, str(open_root)]
    environment = {**os.environ, "MINICTR_ROOT": str(open_root.parent / "state")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["decided"] * 3), done.stderr


# --- with ids that are delegated to him ---

# The command line's verbs in one process, as user 1000, who has a name and such rows of subuid(5) as are given.
VERBS = """
import json, os, pkgutil, resource, sys, tempfile
import minictr, minictr.cli.entry as entry
from importlib import import_module
for module in pkgutil.walk_packages(minictr.__path__, "minictr."):
    if "__main__" not in module.name and "_core.build" not in module.name:
        import_module(module.name)
from minictr.kernel import core, mounts, namespaces
place, rows, commands = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
namespaces.unshare("mnt").keep()
def bound(path, text):
    name = os.path.join(place, os.path.basename(path))
    with open(name, "w") as file:
        file.write(text)
    mounts.bind(name, path).keep()
bound("/etc/passwd", "root:x:0:0::/root:/bin/sh\\nlab:x:1000:1000::/:/bin/sh\\n")
for kind in ("uid", "gid"):
    bound(f"/etc/sub{kind}", rows)
import pwd
pwd.getpwuid(1000)
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
core.lib.mc_prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
done = []
for verb, *args in commands:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = [os.dup(1), os.dup(2)]
        sys.stdout.flush(); sys.stderr.flush()
        os.dup2(out.fileno(), 1); os.dup2(err.fileno(), 2)
        try:
            code = entry.hot(verb, args)
        finally:
            sys.stdout.flush(); sys.stderr.flush()
            os.dup2(streams[0], 1); os.dup2(streams[1], 2)
        texts = [os.pread(file.fileno(), 1 << 16, 0).decode() for file in (out, err)]
        done.append([code, *texts])
print(json.dumps(done))
"""
UNGROUPED = tuple(word for name in ("pids", "memory", "cpu", "io", "freezer") for word in ("--without", name))
DELEGATED = "lab:300000:65536\n"


@pytest.fixture
def verbs(open_root: Path) -> Any:
    """``verbs(rows, [verb, word...], ...)``: (exit code, output, error) of each; RUN in a line are run's options."""

    def run(rows: str, *commands: list[str], **environment: str) -> list[Any]:
        (open_root.parent / "etc").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-P", "-c", VERBS, str(open_root.parent / "etc"), rows, json.dumps(commands)],
            env={**os.environ, "MINICTR_ROOT": str(open_root.parent / "state"), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    return run


MAPS = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups"


def test_his_delegated_ids(verbs: Any, open_root: Path, requires: Any) -> None:
    """``auto``: 0 is himself, 1 and up are his; asked for alone (``private``) there is one id, and no setgroups."""
    requires("newuidmap", "newgidmap")
    words = [*UNGROUPED, "--rootfs", str(open_root), "--"]
    auto, small, private = verbs(
        DELEGATED,
        ["run", "--userns", "auto", *words, "sh", "-c", MAPS],
        ["run", "--userns", "auto:size=10", *words, "sh", "-c", MAPS],
        ["run", "--userns", "private", *words, "sh", "-c", MAPS],
    )
    rows = ["0", "1000", "1", "1", "300000", "65535"]
    assert (auto[0], auto[1].split()) == (0, [*rows, *rows, "allow"]), auto
    assert small[1].split()[3:6] == ["1", "300000", "9"]
    assert private[1].split() == ["0", "1000", "1"] * 2 + ["deny"]


def test_without_delegation_or_newuidmap_it_says_so(verbs: Any, open_root: Path) -> None:
    words = [*UNGROUPED, "--rootfs", str(open_root), "--", "true"]
    ((code, out, err),) = verbs("somebody:300000:65536\n", ["run", "--userns", "auto", *words])
    assert (code, out) == (125, "")
    assert "/etc/subuid delegates no ids to you" in err
    assert "usermod --add-subuids" in err
    assert err.count("\n") == 1


def test_a_layer_with_files_of_his_other_ids(verbs: Any, open_root: Path, requires: Any) -> None:
    """They are owned by ids that he is not: rm takes them away all the same, as root of what is his."""
    requires("newuidmap", "newgidmap")
    state = open_root.parent / "state"
    script = "mkdir -p /d/e/f; touch /d/e/f/g; chown -R 33:34 /d; chmod -R go-rwx /d; id -u; exec sleep 100"
    start = ["run", "-d", "--name", "web", "--userns", "auto", "--overlay", *UNGROUPED, "--rootfs", str(open_root)]
    made = [
        "exec",
        "web",
        "sh",
        "-c",
        "until [ -e /d/e/f/g ] && [ $(stat -c %a /d) = 700 ]; do :; done; stat -c %u:%g /d",
    ]
    started, seen, removed = verbs(DELEGATED, [*start, "--", "sh", "-c", script], made, ["rm", "-f", "web"])
    assert started[0] == 0, started
    assert seen[:2] == [0, "33:34\n"], seen
    assert removed == [0, "web\n", ""]
    assert os.listdir(state / "containers") == []


def test_what_is_his_alone_cannot_be_shown(verbs: Any, open_root: Path) -> None:
    """id-mapped mounts want privilege over the file system: said, with the cure."""
    words = [*UNGROUPED, "--rootfs", str(open_root), "--", "true"]
    ((code, _, err),) = verbs(DELEGATED, ["run", "--userns", "auto", "--with", "idmap", *words])
    assert code == 125
    assert "idmap" in err and "privilege" in err
