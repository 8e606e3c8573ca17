"""``inspect --effective`` and ``--diff``: what people see, what programs read, and what is said of who is not there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest


def rows(text: str) -> dict[str, str]:
    """A table's first column -> the rest of its line."""
    return {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines() if line.strip() and line[0] != " "}


def test_a_container_and_its_program(run_cli, detached):
    detached("web", options=("-m", "64m", "--pids-limit", "33"))
    done = run_cli("inspect", "--effective", "web")
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done.stdout)
    assert found["FIELD"] == "web"
    assert found["command"] == "sleep"  # the program, not its init
    assert found["namespaces.net"].startswith("own: net 4")
    assert found["namespaces.userns"].startswith("shared: userns 4")
    assert (found["limits.memory.max"], found["limits.pids.max"]) == ("64MiB", "33")
    assert found["no_new_privs"] == "yes"
    assert found["landlock"].startswith("? the kernel shows")
    assert found["kernel_files./proc/sys"] == "ro"


def test_json_has_every_field_by_its_name(run_cli, detached):
    import minictr as mc

    detached("web")
    done = run_cli("inspect", "--effective", "web", "--format", "json")
    (found,) = json.loads(done.stdout)
    assert tuple(found) == mc.Isolation._fields
    assert found["namespaces"]["net"]["own"] is True
    assert found["capabilities"]["ambient"] == []
    pid = found["pid"]
    (again,) = json.loads(run_cli("inspect", "--effective", pid, "-f", "json").stdout)
    assert again == found
    assert Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def test_several_and_one_that_is_nobody(run_cli, detached):
    detached("web")
    done = run_cli("inspect", "--effective", "web", "nosuch", str(os.getpid()))
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1 and "no container nosuch" in done.stderr
    assert done.stdout.count("FIELD") == 2


def test_diff_shows_what_differs_only(run_cli, detached):
    detached("web")
    detached("db", options=("--cap-add", "NET_RAW", "--security-opt", "no-new-privileges=false"))
    done = run_cli("inspect", "--diff", "web", "db")
    assert (done.returncode, done.stderr) == (0, "")
    found = rows(done.stdout)
    assert found["FIELD"].split() == ["web", "db"]
    assert found["no_new_privs"].split() == ["yes", "no"]
    assert found["capabilities.bounding"].split() == ["10:", "-", "11:", "+NET_RAW"]
    assert set(found) == {"FIELD", "no_new_privs", *(f"capabilities.{name}" for name in SETS)}
    whole = run_cli("inspect", "--diff", "web", "db", "--all").stdout
    assert "no_new_privs *" in whole and "umask" in whole
    told = json.loads(run_cli("inspect", "--diff", "web", "db", "--format", "json").stdout)
    assert {"name": "no_new_privs", "mine": True, "other": False} in told["differences"]
    assert {row["name"] for row in told["differences"]} == set(found) - {"FIELD"}


SETS = ("effective", "permitted", "bounding")


def test_diff_of_two_alike(run_cli, detached):
    detached("web")
    detached("db")
    done = run_cli("inspect", "--diff", "web", "db")
    assert (done.returncode, done.stdout) == (0, "nothing differs between web and db\n")


def one_line(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 125
    assert done.stdout in ("", "[]\n")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("minictr inspect: ") and words in done.stderr, done.stderr


def test_who_is_not_there(run_cli, store):
    one_line(run_cli("inspect", "--effective", "4194305"), "process 4194305: ESRCH (No such process): no such process")
    one_line(run_cli("inspect", "--effective", "0"), "a process id is a number, 1 or more")
    one_line(run_cli("inspect", "--effective", "web"), "no container web")
    one_line(run_cli("inspect", "--diff", "web", "1"), "no container web")
    if Path("/proc/2/comm").read_text() == "kthreadd\n":
        one_line(run_cli("inspect", "--effective", "2"), "process 2 is a kernel thread (kthreadd)")


def test_a_zombie(run_cli, store):
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    one_line(run_cli("inspect", "--effective", child.pid, "--format", "json"), "it is a zombie")
    child.wait()


@pytest.mark.parametrize("options", [(), ("--no-init",)])
def test_one_that_waits_for_its_start(run_cli, detached, options):
    """All is done, and can be read, before anything of the program has run."""
    detached("web", options=options, verb=("create",))
    (held,) = json.loads(run_cli("inspect", "--effective", "web", "--format", "json").stdout)
    assert run_cli("start", "web").returncode == 0
    (running,) = json.loads(run_cli("inspect", "--effective", "web", "--format", "json").stdout)
    assert held["pid"] == running["pid"] and running["command"] == "sleep"
    for name in ("capabilities", "no_new_privs", "masked", "root", "namespaces", "cgroups", "rlimits"):
        assert held[name] == running[name], name


def test_a_container_that_is_over(run_cli, written):
    written("web", exit=0)
    one_line(run_cli("inspect", "--effective", "web"), "isolation of web: it is exited: minictr start web first")
    one_line(run_cli("inspect", "--diff", "web", os.getpid()), "it is exited")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--effective",), "no process: name containers or process ids"),
        (("--diff", "a"), "--diff takes two containers or process ids, not 1"),
        (("--diff", "a", "b", "c"), "not 3"),
        (("--all", "a"), "--all: it goes with --diff"),
        (("--effective", "--all", "a"), "--all: it goes with --diff"),
        (("--effective", "--format", "{{.Pid}}", "a"), "with --effective and --diff it is table or json"),
    ],
)
def test_mistakes(run_cli, store, words, said):
    one_line(run_cli("inspect", *words), said)


def test_systempaths_unconfined(run_cli, detached):
    """docker's word for: no masks, nothing read-only below /proc."""
    detached("web")
    detached("open", options=("--security-opt", "systempaths=unconfined"))
    (web,) = json.loads(run_cli("inspect", "--effective", "web", "--format", "json").stdout)
    (bare,) = json.loads(run_cli("inspect", "--effective", "open", "--format", "json").stdout)
    assert "/proc/interrupts" in web["masked"] and "/proc/sys" in web["readonly"]
    assert bare["masked"] == []
    assert [path for path in bare["readonly"] if path.startswith("/proc")] == []
    assert (web["kernel_files"]["/proc/sys"], bare["kernel_files"]["/proc/sys"]) == ("ro", "rw")
    assert (web["kernel_files"]["/proc/interrupts"], bare["kernel_files"]["/proc/interrupts"]) == ("masked", "rw")
    assert web["capabilities"] == bare["capabilities"] and bare["no_new_privs"]


def test_privileged_is_what_docker_means_by_it(run_cli, detached):
    """Every capability, no mask, no filter, the host's devices, /sys and cgroups writable; namespaces stay its own."""
    identity = detached("all", options=("--privileged", "--pids-limit", "20"))
    (found,) = json.loads(run_cli("inspect", "--effective", "all", "--format", "json").stdout)
    (mine,) = json.loads(run_cli("inspect", "--effective", os.getpid(), "--format", "json").stdout)
    assert found["capabilities"]["effective"] == mine["capabilities"]["bounding"]
    assert (found["masked"], found["no_new_privs"], found["seccomp"]["mode"]) == ([], False, "none")
    files = ("/proc/sys", "/sys", "/sys/fs/cgroup", "/proc/interrupts")
    assert {found["kernel_files"][path] for path in files} == {"rw"}
    assert found["readonly"] == [] and found["devices"]["restricted"] is False
    ours = {name for name in os.listdir("/dev") if stat.S_ISBLK(os.stat(f"/dev/{name}").st_mode)}
    there = set(run_cli("exec", "all", "ls", "/dev").stdout.split())
    assert ours | {"null", "kmsg"} & set(os.listdir("/dev")) <= there and "pts" in there
    assert (found["limits"]["pids.max"], found["cgroups"]["pids"]["own"]) == (20, True)
    assert identity[:12] in found["cgroups"]["pids"]["path"]
    assert found["root"]["own"] and found["namespaces"]["net"]["own"]
