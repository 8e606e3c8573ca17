"""Hosts that keep user namespaces from ordinary users: seen by what the kernel answers, and told with the cure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from lab import UID, Lab

from minictr.kernel import users
from minictr.kernel.restricted import cure_of_clone, cure_of_privilege

EPERM, ENOSPC, ENOSYS = 1, 28, 38


def test_none_are_allowed(lab: Lab) -> None:
    """user.max_user_namespaces is 0, in a user namespace of the test's own: the machine's is not touched."""
    every = "0 0 65536\n"
    with users.user_namespace(uid_map=every, gid_map=every) as userns:
        os.set_inheritable(userns.fileno(), True)
        script = (
            f'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --reuid={UID} --regid={UID} --clear-groups "$@"'
        )
        words = [*lab.cli, "run", *map(str, lab.box("--userns", "private")), "--", "true"]
        inner = ["nsenter", f"--user=/proc/self/fd/{userns.fileno()}", "sh", "-ec", script, "sh", *words]
        done = subprocess.run(
            lab.inside(lab.host, inner),
            env=lab.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            pass_fds=[userns.fileno()],
        )
    assert done.returncode == 125, done
    assert "ENOSPC" in done.stderr and "sysctl user.max_user_namespaces=" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_filter_refuses_them(lab: Lab, requires: Any) -> None:
    """An outer container's: here our own, by --disable-userns in a sandbox without a container."""
    requires.landlock()
    words = [*lab.cli, "run", *map(str, lab.box("--userns", "private")), "--", "true"]
    outer = ["run", "--profile", "landlock", "--with", "disable_userns", "--rw", "/", "--clearenv"]
    outer += [f"--env={key}={value}" for key, value in lab.env.items()]
    done = lab.user(*outer, "--", *words)
    assert done.returncode == 125, done
    assert "seccomp filter over this process refuses it" in done.stderr


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for place in ("sys/kernel", "sys/user", "self"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "sys/user/max_user_namespaces").write_text("1000\n")
    (tmp_path / "self/status").write_text("Name:\tx\nSeccomp:\t0\n")
    return tmp_path


def test_switches_of_other_kernels(proc: Path) -> None:
    """Debian's and Ubuntu's, which this kernel has not."""
    assert cure_of_clone(EPERM, str(proc)) == cure_of_privilege(EPERM, str(proc)) == ""
    assert "32 nested" in cure_of_clone(ENOSPC, str(proc))
    (proc / "self/status").write_text("Seccomp:\t2\n")
    assert "seccomp" in cure_of_clone(ENOSYS, str(proc))
    (proc / "sys/kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert "apparmor_restrict_unprivileged_userns=0" in cure_of_clone(EPERM, str(proc))
    assert "apparmor_restrict_unprivileged_userns=0" in cure_of_privilege(EPERM, str(proc))
    assert cure_of_privilege(2, str(proc)) == ""
    (proc / "sys/kernel/unprivileged_userns_clone").write_text("0\n")
    assert "sysctl kernel.unprivileged_userns_clone=1" in cure_of_clone(EPERM, str(proc))
