"""Joining a container of an ordinary user's: by that user, who has no privilege outside, and by root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

# What is imported late is imported first: an interpreter below /root cannot be read any more by then.
PROGRAM = """
import fcntl, json, os, sys
import minictr as mc
import minictr.runtime.diagnose, minictr.kernel.users
from minictr.runtime.join import Target, exec_popen, exec_run
root, script = sys.argv[1:]
box = mc.Container(root).with_(mc.UserNamespace(), mc.Overlay())
groups = {step.feature for step in box.plan() if step.call == "cgroup"}  # not for an ordinary user to make
box = box.without(*groups)
with box.popen(["true"]) as process:
    process.wait()
told, tell = os.pipe()
done, ready = os.pipe()
child = os.fork()
if child == 0:
    os.close(ready)
    os.setgroups([4, 24]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
    with box.popen(["sleep", "100"]) as process:
        target = Target(process.pid, box.spec(), process.pidfd)
        found = exec_run(target, ["sh", "-c", script], capture_output=True, text=True)
        os.write(tell, json.dumps([process.pid, found.returncode, found.stdout, found.stderr]).encode())
        os.read(done, 1)
    os._exit(0)
pid, *users = json.loads(os.read(told, 65536))
os.setgroups([4, 24])  # groups of root's that must stay outside
found = exec_run(Target(pid, box.spec()), ["sh", "-c", script], capture_output=True, text=True)
os.close(ready)
os.waitpid(child, 0)
print(json.dumps([users, [found.returncode, found.stdout, found.stderr]]))
"""
SCRIPT = "id -u; id -g; readlink /proc/self/ns/user; cat /proc/self/status"


@pytest.fixture
def answers(rootfs: Path, requires: Any) -> Iterator[list[list[Any]]]:
    """What the script said to the user's exec, and to root's."""
    requires.root()
    with tempfile.TemporaryDirectory(prefix="minictr-test-") as directory:
        Path(directory).chmod(0o755)
        root = Path(directory) / "root"
        copytree(rootfs, root, symlinks=True)
        root.chmod(0o755)
        command = [sys.executable, "-P", "-c", PROGRAM, str(root), SCRIPT]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)


def test_the_user_and_root_get_the_same(answers):
    """Root inside, in the user's own namespace, with no group of the caller's where groups cannot be set."""
    (code, users, err), (root_code, roots, root_err) = answers
    assert (code, err, root_code, root_err) == (0, "", 0, "")
    for text in (users, roots):
        uid, gid, namespace, *status = text.splitlines()
        assert (uid, gid, namespace) == ("0", "0", users.splitlines()[2])
        assert namespace != os.readlink("/proc/self/ns/user")
        rows = {name: value.split() for name, _, value in (row.partition(":") for row in status)}
        assert rows["CapEff"] == ["00000000000405fb"]
        assert rows["NoNewPrivs"] == ["1"]
    assert "Groups:\t \n" in roots
