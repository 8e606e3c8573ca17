"""``minictr doctor``: what it says is what the kernel does, and who refuses is who was made to refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MINICTR = Path(sys.executable).parent / "minictr"
CLOSED = ("user.max_net_namespaces", "user.max_mnt_namespaces")


def examine(*before: str, code: int = 0, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The report of a doctor started by the words BEFORE."""
    command = [*before, str(MINICTR), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    row: dict[str, Any]
    (row,) = (row for row in found["checks"] if row["name"] == name)
    return row


def inside(*options: str) -> list[str]:
    """The words that start a command in a container whose root is this host's, below an overlay."""
    return [str(MINICTR), "run", "--rootfs", "/", "--overlay", *options, "--"]


@pytest.fixture(scope="module")
def here(requires: Any) -> dict[str, Any]:
    requires.root()
    return examine()


def test_a_host_for_containers_is_called_one(here: dict[str, Any]) -> None:
    assert here["ok"] is True
    assert here["profiles"]["default"] == {"ok": True, "missing": []}
    assert check(here, "a container, profile default")["told"].startswith("true ran")
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in status if line.startswith("CapEff"))
    assert len(here["user"]["effective"]) == int(effective, 16).bit_count()


def test_features_are_answered_as_the_library_answers(here: dict[str, Any]) -> None:
    import minictr as mc

    answers = {name: found.ok for name, found in mc.supports().items()}
    assert {row["name"]: row["works"] for row in here["checks"] if row["name"] in answers} == answers


def test_each_refusal_says_who_and_what_helps(here: dict[str, Any]) -> None:
    for row in here["checks"]:
        assert row["works"] or (row["refused_by"] and row["told"]), row


def test_a_filter_of_an_outer_container_is_found_by_performing() -> None:
    found = examine(*inside("--profile", "docker"), code=1)
    assert found["ok"] is False
    assert found["user"]["filters"] == 1
    assert {"unshare", "mount"} <= found["user"]["refused"].keys()
    assert check(found, "mnt")["refused_by"] == "seccomp filter"
    assert "unshare" in check(found, "mnt")["cure"]
    assert check(found, "a container, profile default")["works"] is False
    assert check(found, "env")["works"] is True


def test_without_the_filter_it_is_the_capability() -> None:
    found = examine(*inside("--profile", "docker", "--without", "seccomp"), code=1)
    assert found["user"]["refused"] == {}
    assert check(found, "veth")["refused_by"] == "capability NET_ADMIN"
    assert check(found, "mnt")["told"] == "with a user namespace"


def test_read_only_cgroups_are_a_mount() -> None:
    found = examine(*inside("--profile", "docker", "--without", "seccomp"), code=1)
    assert check(found, "pids")["refused_by"] == "mount"
    assert check(found, "pids")["errno"] == "EROFS"
    assert "without pids" in check(found, "a container, profile default")["told"]


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_limit_is_named(name: str) -> None:
    shut = f'echo 0 > /proc/sys/{name.replace(".", "/")}; exec "$@"'
    found = examine("unshare", "-Ur", "sh", "-c", shut, "sh", code=1)
    feature = name.split("_")[1]
    assert check(found, feature)["refused_by"] == f"sysctl {name}"
    assert check(found, feature)["cure"].endswith(f"as root: sysctl {name}=10000")
    assert check(found, name)["cure"] == f"sysctl {name}=10000"
    assert check(found, "uts")["works"] is True


def test_a_missing_program_is_a_package() -> None:
    assert check(examine(), "nft")["works"] is True
    found = examine(*inside("--tmpfs", "/usr/sbin"), code=1)
    assert check(found, "nft")["refused_by"] == "package nftables"
    assert check(found, "nft")["cure"] == "apt-get install nftables"
    assert check(found, "nft")["needed"] is False
    # found by ldconfig, which is gone as well; the rest is examined all the same
    assert check(found, "libseccomp")["refused_by"] == "package libseccomp2"


def test_a_state_directory_of_others_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    found = examine(code=1, env={"MINICTR_ROOT": str(tmp_path)})
    assert check(found, "state directory")["works"] is False
    assert "open to others" in check(found, "state directory")["told"]


def test_an_ordinary_user_with_no_new_privs() -> None:
    user = "setpriv --reuid 1234 --regid 1234 --clear-groups --no-new-privs"
    reach = f'chmod 755 /root && exec {user} "$@"'  # in the overlay; the interpreter may be below
    found = examine(*inside("--profile", "docker", "--without", "seccomp"), "sh", "-c", reach, "sh", code=1)
    assert found["user"]["uid"] == 1234
    assert check(found, "newuidmap")["told"].endswith("no_new_privs")
    assert check(found, "veth")["refused_by"] == "user"
    assert check(found, "subordinate ids")["refused_by"] == "delegation"
    assert check(found, "mnt")["told"] == "with a user namespace"
    assert check(found, "a container, profile default")["told"].startswith("true ran in a user namespace")


def test_the_table_is_for_people() -> None:
    env = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([MINICTR, "doctor"], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0
    assert done.stdout.endswith("containers of the default profile run here\n")
    assert max(map(len, done.stdout.splitlines())) < 80
    assert done.stderr == ""  # progress is for terminals
    every = subprocess.run([MINICTR, "doctor", "--all"], capture_output=True, text=True, timeout=120, env=env)
    assert len(every.stdout) > len(done.stdout)
