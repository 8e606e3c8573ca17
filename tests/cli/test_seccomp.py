"""``--security-opt seccomp=...`` and ``--seccomp-log``, by what the kernel says of the program and what it may do."""

from __future__ import annotations

import json
import os

import pytest

MKDIR = "mkdir /tmp/x 2>&1 && echo made"


@pytest.fixture
def run(run_cli, rootfs, requires):
    requires.root()

    def shell(script, *options, code=0):
        done = run_cli("run", "--rootfs", rootfs, "--tmpfs", "/tmp", *options, "--", "sh", "-c", script)
        assert done.returncode == code, done
        return done.stdout

    return shell


@pytest.fixture
def profile(tmp_path):
    """A profile in Docker's manner: mkdir is denied to those without SYS_ADMIN."""
    path = tmp_path / "no-mkdir.json"
    path.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
                "syscalls": [
                    {
                        "names": ["mkdir", "mkdirat"],
                        "action": "SCMP_ACT_ERRNO",
                        "errnoRet": 122,
                        "excludes": {"caps": ["CAP_SYS_ADMIN"]},
                    }
                ],
            }
        )
    )
    return str(path)


def mode(text):
    rows = dict(line.split(":\t") for line in text.splitlines() if line.startswith("Seccomp"))
    return rows["Seccomp"], rows["Seccomp_filters"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], ("2", "1")),
        (["--security-opt", "seccomp=unconfined"], ("0", "0")),
        (["--without", "seccomp"], ("0", "0")),
        (["--privileged"], ("0", "0")),
        (["--privileged", "--security-opt", "seccomp=docker"], ("2", "1")),
        (["--profile", "docker"], ("2", "1")),
        (["--profile", "lxc", "--seccomp-log"], ("2", "1")),
        (["--profile", "lxc", "--security-opt", "seccomp=default"], ("2", "1")),
    ],
)
def test_modes(run, options, wanted):
    assert mode(run("cat /proc/self/status", *options)) == wanted


def test_a_profile_from_a_file(run, profile):
    assert run(MKDIR).endswith("made\n")
    assert "quota" in run(MKDIR, "--security-opt", f"seccomp={profile}", code=1)
    able = ("--cap-add", "SYS_ADMIN")
    assert run(MKDIR, "--security-opt", f"seccomp={profile}", *able).endswith("made\n")


def test_strict_kills_what_is_more_than_four_calls(run_cli, rootfs, requires):
    requires.root()
    done = run_cli("run", "--rootfs", rootfs, "--security-opt", "seccomp=strict", "--", "true")
    assert done.returncode == 128 + 31
    assert done.stderr.startswith("minictr run: killed by its seccomp filter: ")
    alone = run_cli("run", "--rootfs", rootfs, "--without", "seccomp", "--", "sh", "-c", "kill -SYS $$")
    assert (alone.returncode, alone.stderr) == (128 + 31, "")


def test_exec_is_filtered_as_its_container(started, run_cli):
    started("filtered", profile="default")
    assert mode(run_cli("exec", "filtered", "cat", "/proc/self/status").stdout) == ("2", "1")
    bare = run_cli("exec", "--without", "seccomp", "filtered", "cat", "/proc/self/status")
    assert mode(bare.stdout) == ("0", "0")


def test_inspect_shows_it(detached, run_cli):
    detached("shown")
    (told,) = json.loads(run_cli("inspect", "shown").stdout)
    (feature,) = (row for row in told["Features"] if row["feature"] == "seccomp")
    assert feature["source"] == "default"
    assert feature["program"]["instructions"] > 500
    assert len(feature["program"]["sha256"]) == 64


def test_plan_tells_it(run_cli, rootfs):
    done = run_cli("plan", "--rootfs", rootfs, "--security-opt", "seccomp=docker", "--", "true")
    (line,) = (line for line in done.stdout.splitlines() if " docker, " in line)
    assert line.split()[-2:] == ["instructions", "seccomp"]


@pytest.mark.parametrize("value", ["", "nothing.json", "/", "/dev/null"])
def test_what_is_no_profile(run_cli, rootfs, value):
    done = run_cli("run", "--rootfs", rootfs, "--security-opt", f"seccomp={value}", "--", "true")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "--security-opt seccomp=" in done.stderr


@pytest.mark.parametrize("verb", ["run", "create", "plan"])
def test_a_profile_that_notifies(run_cli, rootfs, tmp_path, verb):
    """There is no function to ask: the reason, and where one can be given."""
    path = tmp_path / "asks.json"
    rule = {"names": ["mknod"], "action": "SCMP_ACT_NOTIFY"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    done = run_cli(verb, "--rootfs", rootfs, "--security-opt", f"seccomp={path}", "--", "true")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert f"seccomp={path}: SCMP_ACT_NOTIFY: a Python function" in done.stderr
    assert "on_syscall=" in done.stderr


def test_without_a_cache(run_cli, rootfs, requires, tmp_path, monkeypatch):
    """A place that cannot be written costs time, and nothing else."""
    requires.root()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINICTR_CACHE", str(tmp_path / "file"))
    done = run_cli("run", "--rootfs", rootfs, "--", "cat", "/proc/self/status", env=dict(os.environ))
    assert mode(done.stdout) == ("2", "1")
