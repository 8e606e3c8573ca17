"""What ``minictr run`` and ``minictr plan`` import, in a process without site, from the first word to the last."""

from __future__ import annotations

import pytest

# Measured cost of each on a cold start: docs/decisions.md
FORBIDDEN = frozenset(
    "argparse ast asyncio click collections contextlib copy ctypes dataclasses datetime difflib enum functools"
    " gettext importlib.metadata inspect json locale logging operator pathlib platform prctl psutil pyroute2 pyseccomp"
    " random re secrets selectors shlex shutil signal site socket string subprocess tempfile textwrap threading"
    " tokenize traceback types typing uuid warnings weakref".split()
)

# Of our own: what a plain run does not ask for. Each module costs 0.1 ms or more
UNASKED = frozenset(
    "cli.confinement cli.limits cli.landlock cli.mounts cli.namespaces cli.network cli.ordinary cli.show"
    " cli.verdict features.cgroup_devices features.cgroups features.egress features.filters features.landlock"
    " features.lsm features.names features.network features.pasta features.upon parse rights runtime.diagnose"
    " runtime.ended runtime.instance runtime.reclaim runtime.timeline".split()
)
SOME = ("loopback", "names", "cgroup_devices", "landlock")  # features of some profiles
MOST = 66  # modules of ours; who needs one more asks whether each start needs it


@pytest.fixture(scope="module", autouse=True)
def compiled_once(imported, requires, rootfs):
    """A filter is compiled the first time, and kept on disk."""
    imported("run", "--rootfs", rootfs, "--", "true")
    imported("run", "--rootfs", rootfs, "--cap-drop", "ALL", "--", "true")


def test_a_run_to_its_end(imported, rootfs, requires):
    requires.root()
    code, modules, output = imported("run", "--rootfs", rootfs, "--", "echo", "done")
    assert (code, output) == (0, "done\n")
    assert FORBIDDEN & modules == set()
    assert {f"minictr.{name}" for name in UNASKED} & modules == set()
    assert len([name for name in modules if name.partition(".")[0] == "minictr"]) <= MOST


def test_nothing_is_imported_when_the_program_is_over(imported_late, rootfs, requires):
    requires.root()
    code, modules, output = imported_late("run", "--rootfs", rootfs, "--", "echo", "done")
    assert (code, output) == (0, "done\n")
    assert modules == set()
    _, modules, _ = imported_late("run", "--rootfs", rootfs, "--pids-limit", "1", "--no-init", "--", "sh", "-c", "(:)")
    assert "minictr.cli.verdict" in modules  # what must be told is, and the test does see it


def test_a_profile_imports_no_feature_of_another(imported, rootfs, requires):
    requires.root()
    docker = {"loopback", "names", "cgroup_devices"}
    for profile, more in {"bare": set(), "default": {"loopback"}, "docker": docker}.items():
        _, modules, _ = imported("plan", "--profile", profile, "--rootfs", rootfs, "--", "true")
        there = {name for name in SOME if f"minictr.features.{name}" in modules}
        assert there == more


@pytest.mark.parametrize(
    "options",
    [
        ["-e", "A=1", "-v", "/tmp:/mnt", "--tmpfs", "/run", "-w", "/tmp", "-u", "1:1", "-h", "lab", "--timeout", "60"],
        ["--cap-drop", "ALL", "--ulimit", "nofile=64", "--sysctl", "net.ipv4.ip_forward=1", "--net", "private"],
        ["--overlay", "--read-only", "--init", "-i", "--rm", "--no-tty"],
    ],
)
def test_a_run_with_options(imported, rootfs, requires, options):
    requires.root()
    code, modules, _ = imported("run", "--rootfs", rootfs, *options, "--", "true")
    assert code == 0
    assert FORBIDDEN & modules == set()


def test_a_program_that_joins(imported, started):
    started("hot", profile="default")
    code, modules, output = imported("exec", "-e", "A=1", "-u", "1:1", "-w", "/tmp", "hot", "echo", "done")
    assert (code, output) == (0, "done\n")
    assert FORBIDDEN & modules == set()


@pytest.mark.parametrize(
    "words",
    ["ps -a", "inspect hot", "pause hot", "unpause hot", "update hot --pids-limit 9", "kill -s USR1 hot", "stop hot"],
)
def test_the_verbs_that_scripts_loop_over(imported, detached, run_cli, words):
    detached("hot")
    if words.startswith("unpause"):
        run_cli("pause", "hot")
    code, modules, output = imported(*words.split())
    assert code == 0
    assert "hot" in output
    assert FORBIDDEN & modules == set()


@pytest.mark.parametrize("words", ["wait hot", "stop hot", "rm hot", "start hot"])
def test_the_verbs_of_an_end(imported, detached, run_cli, words):
    detached("hot", "true")
    run_cli("wait", "hot")
    code, modules, _ = imported(*words.split())
    assert code == 0
    assert FORBIDDEN & modules == set()


@pytest.mark.parametrize("verb", [["run", "-d"], ["run", "-d", "-t"], ["create"]])
def test_a_container_in_the_background(imported, detached, rootfs, verb):
    detached("other")  # for its end: nothing stays of the one below either
    code, modules, _ = imported(*verb, "--name", "hot", "--rootfs", rootfs, "--", "sleep", "1000")
    assert code == 0
    assert FORBIDDEN & modules == set()


def test_a_failure_costs_no_more(imported, rootfs):
    code, modules, _ = imported("run", "--rootfs", "/nosuch", "--", "true")
    assert code == 125
    assert FORBIDDEN & modules == set()


def test_plan_as_text(imported, rootfs):
    code, modules, output = imported("plan", "--rootfs", rootfs, "--", "true")
    assert code == 0
    assert "mount" in output
    assert FORBIDDEN & modules == set()


def test_help_is_clicks(imported):
    code, modules, output = imported("run", "--help")
    assert code == 0
    assert "click" in modules
    assert output.startswith("Usage: minictr run ")
