"""Runs inside the guest with SELinux live, and only there, on a policy of its own (lab.cil), enforcing.

Everything here is done by root: what is denied is denied by the policy alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minictr as mc
from minictr.errors import StepFailed, Unsupported
from minictr.images.minimal import minimal
from minictr.kernel import selinux

POLICY = Path(__file__).resolve().parent / "lab.cil"
SELINUXFS = Path("/sys/fs/selinux")
KERNEL = "lab_u:lab_r:kernel_t:s0-s0:c0.c2"
LAB = "lab_u:lab_r:lab_t:s0:c1"
STUCK = "lab_u:lab_r:stuck_t:s0"
FILES = "lab_u:object_r:lab_file_t:s0"
CURRENT = "cat /proc/self/attr/current | tr -d '\\0'; echo"
APPEND = "echo a >/run/file && echo b >>/run/file"


def told(function: Callable[..., Any], *args: Any) -> str:
    """What FUNCTION answers, or the error it raises, in words."""
    try:
        return str(function(*args))
    except (StepFailed, Unsupported) as err:
        return str(err)


@pytest.fixture(scope="session", autouse=True)
def without_policy(requires: Any, box: mc.Container, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Loads the policy for all tests; what was answered before it was there."""
    before = {
        "enabled": str(selinux.enabled()),
        "check": told(selinux.check, LAB),
        "set": told(selinux.exec_context, LAB),
        "support": str(mc.support("selinux")),
        "start": told(run, box.with_(mc.SELinux(LAB)), CURRENT),
    }
    with pytest.MonkeyPatch.context() as patch:  # nobody asks first: it is written, and does not take
        patch.setattr(selinux, "check", lambda *names: None)
        before["label"] = told(run, box.with_(mc.SELinux(LAB)), CURRENT)
    binary = tmp_path_factory.mktemp("policy") / "policy"
    version = min(int((SELINUXFS / "policyvers").read_text()), 31)
    command = [requires("secilc"), "-c", str(version), "-o", binary, "-f", os.devnull, POLICY]
    subprocess.run(command, check=True, timeout=60)
    (SELINUXFS / "load").write_bytes(binary.read_bytes())
    (SELINUXFS / "enforce").write_text("1")
    return before


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> mc.Container:
    rootfs = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(rootfs), ["sh", "cat", "tr", "true", "sleep"])
    return mc.Container(rootfs).with_(mc.Tmpfs("/run"))


def run(box: mc.Container, script: str) -> Any:
    return box.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)


def test_without_a_policy_no_label_is_believed(without_policy: dict[str, str]) -> None:
    """The kernel then takes any context, and gives its own instead: what is read back tells."""
    assert without_policy["enabled"] == "False"
    assert without_policy["check"].startswith("selinux: SELinux has no policy")
    assert without_policy["support"].startswith("no: SELinux has no policy")
    assert "EPERM" in without_policy["set"]
    assert "what was read back is not what was asked for" in without_policy["set"]
    assert without_policy["start"].startswith("selinux: SELinux has no policy")


def test_a_start_ends_when_the_label_did_not_take(without_policy: dict[str, str]) -> None:
    """The kernel says yes, and would leave the program in kernel_t."""
    assert without_policy["label"].startswith(f"exec label selinux {LAB}: ")
    assert "EPERM" in without_policy["label"]
    assert "what was read back is not the label that was asked for" in without_policy["label"]


def test_the_module_is_live_and_enforces() -> None:
    assert selinux.enabled()
    assert selinux.enforcing()
    assert selinux.current() == selinux.current(os.getpid()) == KERNEL
    assert mc.support("selinux")
    assert not mc.support("apparmor")


def test_the_doctor_knows_that_there_is_a_policy_now(minictr_cli: list[str]) -> None:
    """Before it was loaded the answer was no: inside.py."""
    done = subprocess.run([*minictr_cli, "doctor", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    (row,) = (row for row in found["checks"] if row["name"] == "selinux")
    assert row["works"] is True
    assert found["user"]["label"] == KERNEL


def test_the_program_has_the_context(box: mc.Container) -> None:
    assert run(box, CURRENT).stdout == f"{KERNEL}\n"
    assert run(box.with_(mc.SELinux(LAB)), CURRENT).stdout == f"{LAB}\n"


def test_a_mount_label_and_what_the_policy_says_of_it(box: mc.Container) -> None:
    labelled = box.with_(mc.SELinux(LAB, FILES))
    for free in (box, box.with_(mc.SELinux(LAB)), box.with_(mc.SELinux(KERNEL, FILES))):
        assert run(free, f"{APPEND}; cat /run/file").stdout == "a\nb\n"
    done = run(labelled, f"{APPEND}; cat /run/file")
    assert done.stdout == "a\n"
    assert "Permission denied" in done.stderr
    words = ("avc:", "{ append }", f"scontext={LAB}", f"tcontext={FILES}")
    end = time.monotonic() + 5
    while not any(all(word in row for word in words) for row in kernel_log()):
        assert time.monotonic() < end, kernel_log()[-5:]
        time.sleep(0.05)


def kernel_log() -> list[str]:
    return subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()


def test_all_that_is_made_for_the_container_has_the_mount_label(box: mc.Container) -> None:
    def labels(box: mc.Container) -> dict[str, str]:
        rows = (line.split() for line in run(box, "cat /proc/self/mounts").stdout.splitlines())
        return {row[1]: next((word for word in row[3].split(",") if word.startswith("context=")), "") for row in rows}

    wanted = f"context={FILES}"
    places = ("/", "/dev", "/dev/pts", "/dev/shm", "/run")
    found = labels(box.with_(mc.SELinux(LAB, FILES), mc.Overlay()))
    assert {place: found[place] for place in places} == dict.fromkeys(places, wanted)
    found = labels(box.with_(mc.SELinux(LAB), mc.Overlay()))
    assert not any(found.values())


def test_no_new_privs_needs_the_policys_leave(box: mc.Container) -> None:
    with pytest.raises(StepFailed, match="exec sh: EPERM.*the label may forbid it"):
        run(box.with_(mc.SELinux(STUCK)), "true")
    assert run(box.without("no_new_privs").with_(mc.SELinux(STUCK)), CURRENT).stdout == f"{STUCK}\n"


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("lab_u:lab_r:nowhere_t:s0", "the loaded policy has no such context"),
        ("lab_u:lab_r:lab_t", "the loaded policy has no such context"),
        ("lab_u:lab_r:lab_t:s0:c2,c1", "the kernel spells it lab_u:lab_r:lab_t:s0:c1,c2: give it so"),
    ],
)
def test_a_context_that_cannot_be_had(box: mc.Container, context: str, words: str) -> None:
    with pytest.raises(StepFailed, match=f"selinux context {context}: EINVAL.*step 1 of .*{words}"):
        run(box.with_(mc.SELinux(context)), "true")
    with pytest.raises(StepFailed, match=f"selinux context {context}: EINVAL.*step 2 of .*{words}"):
        run(box.with_(mc.SELinux(LAB, context)), "true")


@pytest.mark.timeout(400)
def test_exec_has_the_context_of_the_container(kept: Callable[..., Any], box: mc.Container) -> None:
    options = ("--security-opt", f"label={LAB}", "--security-opt", "label=filetype:lab_file_t")
    started = kept("run", "-d", "--name", "lab", "--rootfs", box.rootfs, *options, "--", "sleep", "100")
    assert started.returncode == 0, started.stderr

    def current(*more: str) -> str:
        done = kept("exec", *more, "lab", "cat", "/proc/self/attr/current")
        assert done.returncode == 0, done.stderr
        return str(done.stdout).rstrip("\0")

    assert current() == LAB
    assert current("--security-opt", "label=level:s0:c0,c2") == "lab_u:lab_r:lab_t:s0:c0,c2"
    assert current("--security-opt", "label=type:stuck_t", "--without", "no_new_privs") == f"{STUCK}:c1"
    for free in ("--security-opt=label=disable", "--privileged", "--without=selinux"):
        assert current(free) == KERNEL, free
    found = json.loads(kept("inspect", "lab").stdout)[0]
    assert (found["ProcessLabel"], found["MountLabel"]) == (LAB, f"{FILES}:c1")
    assert found["Labels"] == {"selinux": LAB}
