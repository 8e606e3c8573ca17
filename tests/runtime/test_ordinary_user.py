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
