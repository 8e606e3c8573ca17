"""minictr on other Pythons and another C library, and minictr in minictr: its own tests in containers that it runs."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import pythons

Find = Callable[[str], tuple[pythons.Inside, list[str]]]

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


def tests(found: tuple[pythons.Inside, list[str]], files: tuple[str, ...], seconds: float) -> str:
    """pytest's last line, of a session in which nothing failed."""
    inside, options = found
    command = ("/venv/bin/python", "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", *files)
    done = inside.run(*command, options=[*OUTER, *options], seconds=seconds)
    assert done.returncode == 0, f"{done.stdout[-12000:]}\n{done.stderr[-3000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    return str(done.stdout)


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", pythons.PYTHONS)
def test_the_projects_tests_in_its_own_containers(version: str, inside: Find) -> None:
    tests(inside(version), (*PURE, *KERNEL, *NESTED), seconds=600)


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", pythons.PYTHONS)
def test_a_container_in_a_container(version: str, inside: Find) -> None:
    """The interpreter is the one that was asked for, and a container that it starts is one."""
    found, options = inside(version)
    script = (
        "import minictr as mc, sys; from minictr.images.minimal import minimal;"
        "minimal('/tmp/root', ['sh', 'true']);"
        "r = mc.Container('/tmp/root').run(['sh', '-c', 'echo $$; exit 7'], capture_output=True, text=True);"
        "print('%d.%d' % sys.version_info[:2], r.returncode, r.stdout.strip())"
    )
    done = found.run("/venv/bin/python", "-P", "-c", script, options=[*OUTER, *options])
    assert (done.stdout, done.stderr, done.returncode) == (f"{version} 7 2\n", "", 0)


@pytest.mark.timeout(600)  # the first time on a machine the root is made: two minutes
def test_a_sample_in_a_container_of_this_release(inside: Find) -> None:
    """Of what the matrix runs; on the machine's own Debian the root is that of the tests/life."""
    tests(inside("3.11"), SAMPLE, seconds=200)
