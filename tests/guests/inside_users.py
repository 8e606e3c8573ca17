"""Runs inside guests, and only there: hosts that keep user namespaces from ordinary users, by switches of the guest's.

What a machine without such a switch can show is in tests/rootless/test_hosts.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "rootless"))

import lab as labs

# switch below /proc/sys -> what shuts it. Debian's kernels have the first, Ubuntu's the last
SWITCHES = {
    "kernel/unprivileged_userns_clone": "0",
    "user/max_user_namespaces": "0",
    "kernel/apparmor_restrict_unprivileged_userns": "1",
}


@pytest.fixture(scope="module")
def lab(rootfs: Path, requires: Any) -> Iterator[labs.Lab]:
    requires("ip", "nsenter", "setpriv", "unshare", "newuidmap", "newgidmap")
    with labs.lab(rootfs) as made:
        yield made


def doctor(lab: labs.Lab) -> dict[str, dict[str, Any]]:
    """What he is told, by name."""
    done = lab.user("doctor", "--json", timeout=300)
    assert done.returncode in (0, 1), done
    return {row["name"]: row for row in json.loads(done.stdout)["checks"]}


@pytest.mark.timeout(400)
def test_the_doctor_of_an_ordinary_user(lab: labs.Lab) -> None:
    """He has all that a user namespace gives, and no group: a limit is refused for want of a delegation."""
    rows = doctor(lab)
    assert rows["userns"]["works"] and rows["subordinate ids"]["works"]
    assert rows["mnt"]["told"] == "with a user namespace"
    assert (rows["pids"]["works"], rows["pids"]["refused_by"]) == (False, "delegation")
    assert rows["veth"]["refused_by"] == "user"
    assert rows["a container, profile default"]["told"].startswith("true ran in a user namespace without")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_is_shut_is_told_and_the_cure_cures(lab: labs.Lab, switch: str) -> None:
    """By the start that it refuses and by the doctor; the command that they name opens it."""
    path, name = Path("/proc/sys", switch), switch.replace("/", ".")
    if not path.exists():
        pytest.skip(f"this kernel has no {name}")
    before = path.read_text()
    start = ("run", *lab.box("--userns", "private"), "--", "true")
    try:
        path.write_text(SWITCHES[switch])
        told = lab.refused(*start)
        assert f"sysctl {name}=" in told
        row = doctor(lab)["userns"]
        assert (row["works"], row["refused_by"]) == (False, f"sysctl {name}")
        lab.run("sysctl", told.partition("sysctl ")[2].split()[0].strip(",;"))
        assert path.read_text() != f"{SWITCHES[switch]}\n"
        lab.ok(*start)
        assert doctor(lab)["userns"]["works"] is True
    finally:
        path.write_text(before)
