"""minictr on other Pythons and another C library, and minictr in minictr: its own tests in containers that it runs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import pythons

Make = Callable[[str], tuple[pythons.Inside, list[str]]]

# Needs no kernel: text, values, plans. Needs one: what the C core and its bindings do. Nested: whole containers.
PURE = ("tests/unit",)
KERNEL = (
    *("tests/kernel/test_namespaces.py", "tests/kernel/test_mounts.py", "tests/kernel/test_rootfs.py"),
    *("tests/kernel/test_process.py", "tests/kernel/test_child.py", "tests/kernel/test_capabilities.py"),
    *("tests/kernel/test_seccomp.py", "tests/kernel/test_landlock.py", "tests/kernel/test_users.py"),
    *("tests/kernel/test_links.py", "tests/kernel/test_nftables.py"),
)
NESTED = (
    *("tests/runtime/test_run.py", "tests/runtime/test_exit.py", "tests/runtime/test_streams.py"),
    *("tests/runtime/test_async.py", "tests/runtime/test_exec.py", "tests/cli/test_run.py"),
    *("tests/cli/test_life_end.py", "tests/cli/test_hot_path.py"),
)
SAMPLE = ("tests/unit/test_values.py", "tests/kernel/test_child.py", "tests/runtime/test_run.py")
# On v1 each of these is a hierarchy in the container, for the containers inside: what it has a group of, it can limit.
GROUPS = ("--with", "freezer", "--with", "named_cgroup", "--with", "cpuset", "--with", "io", "-m", "4g", "--cpus", "2")
# every device, as --privileged gives them, but by a list: then there is a group for it
DEVICES = ("--device-cgroup-rule", "c *:* rwm", "--device-cgroup-rule", "b *:* rwm")
OUTER = ("--privileged", "--pids-limit", "4000", *GROUPS, *DEVICES)

pytestmark = pytest.mark.slow
PYTEST = ("/venv/bin/python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:beside", "--color=no")
CONTAINER = """
import sys
import minictr as mc
from minictr.images.minimal import minimal
minimal("/tmp/root", ["sh"])
done = mc.Container("/tmp/root").run(["sh", "-c", "echo $$; exit 7"], capture_output=True, text=True)
print("%d.%d" % sys.version_info[:2], done.returncode, done.stdout.strip())
"""
Done = subprocess.CompletedProcess[str]
Runs = dict[str, Future[tuple[Done, Done]]]


def passed(done: Done) -> None:
    """pytest ran something, and nothing failed."""
    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-3000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, make: Make) -> Runs:
    """For each Python that this session asks for: a container, and the tests. As many at once as processors."""

    def run(version: str) -> tuple[Done, Done]:
        inside, options = make(version)
        options = [*OUTER, *options]
        one = inside.run("/venv/bin/python", "-P", "-c", CONTAINER, options=options)
        return one, inside.run(*PYTEST, *PURE, *KERNEL, *NESTED, options=options, seconds=700)

    items = (item for item in request.session.items if item.path == request.path and item.get_closest_marker("matrix"))
    versions = dict.fromkeys(item.callspec.params["version"] for item in items if isinstance(item, pytest.Function))
    with ThreadPoolExecutor(min(len(versions), os.cpu_count() or 1)) as pool:
        return {version: pool.submit(run, version) for version in versions}


def had(runs: Runs, version: str) -> tuple[Done, Done]:
    try:
        return runs[version].result()
    except pythons.NoPython as err:
        pytest.skip(str(err))


@pytest.mark.matrix
@pytest.mark.timeout(1800)  # the first time on a machine, roots and environments are made: 10 minutes
@pytest.mark.parametrize("version", pythons.PYTHONS)
def test_a_container_in_a_container(version: str, runs: Runs) -> None:
    """The interpreter is the one that was asked for, and a container that it starts is one."""
    done, _ = had(runs, version)
    assert (done.stdout, done.stderr, done.returncode) == (f"{version} 7 2\n", "", 0)


@pytest.mark.matrix
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", pythons.PYTHONS)
def test_the_projects_tests_in_its_own_containers(version: str, runs: Runs) -> None:
    passed(had(runs, version)[1])


@pytest.mark.timeout(600)  # the first time on a machine the root is made: two minutes
def test_a_sample_in_a_container_of_debian_12(make: Make) -> None:
    """Of what the matrix runs."""
    try:
        inside, options = make("3.11")
    except pythons.NoPython as err:
        pytest.skip(str(err))
    passed(inside.run(*PYTEST, *SAMPLE, options=[*OUTER, *options], seconds=200))
