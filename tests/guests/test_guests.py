"""The same tests on other machines: each of guest.MODES is booted once; what pytest found in it is one test here.

User-mode Linux is for every `make test`; the kernels of Debian that QEMU boots, and more tests on User-mode Linux, are
for `make test-matrix`. As many guests run at once as there are processors.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

import absent
import guest
import pytest

INSIDE = ("tests/guests/inside.py", "tests/guests/inside_limits.py")
EXAMINED = tuple(  # the rest of inside.py is in `unified` the same, and here in the matrix
    f"tests/guests/inside.py::test_{name}"
    for name in ("controllers_are_where_they_were_asked_for", "the_doctor_says_what_this_kernel_has")
)
RUNGS = ("bridge", "conntrack_is_a_wall", "nat", "publish")
NETWORK = tuple(f"tests/network/test_rungs.py::test_{name}" for name in RUNGS)
# overlays and id-mapped mounts as kernels before 6.15 make them, on ext4; the time namespace
TIME = "tests/runtime/test_namespaces.py::test_time_offsets"
OLDER = ("tests/runtime/test_root.py", "tests/kernel/test_idmap.py", TIME)
ORDINARY = ("tests/rootless/test_limits.py", "tests/network/test_ipvlan.py")
USERS = ("tests/guests/inside_users.py",)
ROOTLESS = ("tests/rootless/test_hosts.py", "tests/rootless/test_life.py")
LANDLOCK = ("tests/guests/inside_landlock.py", "tests/kernel/test_landlock*.py")
# What runs in which guest; each row names a file, or several, that must be there. A file that runs on this machine as
# well asks the kernel what it has, as on any machine. v2 is nowhere else; v1 is on most machines that run these tests.
GUEST_TESTS = {
    "unified": (*INSIDE, "tests/kernel/test_cgroup*.py", "tests/kernel/test_isolation.py", *ORDINARY),
    "v1": (*INSIDE, "tests/kernel/test_cgroups.py", "tests/security/test_calls.py"),
    "hybrid": (*INSIDE, "tests/runtime/test_cgroups.py"),
    "apparmor": (*EXAMINED, "tests/guests/inside_apparmor.py", "tests/kernel/test_labels.py"),
    # in this order: the second loads a policy, for the rest of the guest's life
    "selinux": (*EXAMINED, "tests/guests/inside_selinux.py", "tests/kernel/test_labels.py"),
}
# In `make test-matrix`, in the order in which they are begun: those that take longest first.
MATRIX_TESTS = {
    "bookworm": (*INSIDE, *LANDLOCK, *USERS, "tests/kernel/test_cgroup_[delp]*.py", *OLDER, *NETWORK),
    "bookworm-backports": (*INSIDE, *LANDLOCK, "tests/guests/inside_apparmor.py"),
    "trixie-backports": (*INSIDE, *LANDLOCK, "tests/kernel/test_namespaces.py"),
    "bookworm-v1": (*INSIDE, "tests/kernel/test_cgroup_limits.py", "tests/kernel/test_cgroup_tasks.py"),
    "bookworm-hybrid": (*INSIDE, "tests/kernel/test_cgroup_limits.py"),
    "unified": (
        *GUEST_TESTS["unified"],
        *(*USERS, *ROOTLESS),
        "tests/runtime/test_cgroups.py",
        "tests/runtime/test_ordinary_user.py",
    ),
    "v1": (*INSIDE, "tests/kernel/test_cgroup*.py", "tests/runtime/test_cgroups.py", "tests/security/test_calls.py"),
    "hybrid": (*INSIDE, "tests/kernel/test_cgroup*.py", "tests/runtime/test_cgroups.py"),
    "apparmor": ("tests/guests/inside.py", *GUEST_TESTS["apparmor"][2:]),
    "selinux": ("tests/guests/inside.py", *GUEST_TESTS["selinux"][2:]),
}
DEADLINES = {"uml": 900, "qemu": 1500}  # seconds for pytest in a guest: many times what an idle machine takes
EACH = {"uml": 180, "qemu": 400}  # and for each test there, unless it says more itself

Runs = dict[str, "Future[guest.Outcome]"]


def kind(mode: str) -> str:
    return "qemu" if guest.MODES[mode].suite else "uml"


def files(patterns: tuple[str, ...]) -> list[str]:
    """Files, or tests of one, each once, in the row's order."""
    named: dict[str, None] = {}
    for pattern in patterns:
        file, *rest = pattern.split("::")
        found = sorted(map(str, guest.ROOT.glob(file)))
        assert found, f"no file: {pattern}"
        named.update(dict.fromkeys("::".join((path, *rest)) for path in found))
    return list(named)


def boot(mode: str, patterns: tuple[str, ...]) -> guest.Outcome:
    command = guest.pytest_command([*files(patterns), "-q", f"--timeout={EACH[kind(mode)]}"])
    return guest.run(mode, command, deadline=DEADLINES[kind(mode)])


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Runs:
    """All guests that this session asks for, run to their end: nothing of one is there while another test runs."""
    wanted = {}
    for item in request.session.items:
        if item.path == request.path and hasattr(item, "callspec"):
            table = MATRIX_TESTS if item.get_closest_marker("matrix") else GUEST_TESTS
            mode = item.callspec.params["mode"]
            wanted[mode] = (*table[mode], *wanted.get(mode, ()))
    with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1)) as pool:
        order = [mode for mode in MATRIX_TESTS if mode in wanted]
        return {mode: pool.submit(boot, mode, wanted[mode]) for mode in order}


def judge(mode: str, runs: Runs, told: list[str]) -> None:
    try:
        outcome = runs[mode].result()
    except guest.qemu.NoKernel as err:
        pytest.skip(str(err))
    if not outcome.junit:
        pytest.fail(
            f"pytest did not end in the guest ({outcome.code})\n{outcome.output}\n{outcome.console}", pytrace=False
        )
    inner = guest.report(outcome.junit)
    told.append(
        f"{mode}: {len(inner.passed)} passed, {len(inner.failed)} failed, {len(inner.skipped)} skipped "
        f"in {outcome.seconds:.1f} s, on {outcome.kernel}"
    )
    told += [f"  skipped: {name}: {reason}" for name, reason in inner.skipped.items()]
    if inner.failed:
        parts = [f"--- {mode}: {name}\n{why}" for name, why in inner.failed.items()]
        pytest.fail("\n".join([f"{len(inner.failed)} failed in the guest", *parts]), pytrace=False)
    assert not absent.unexpected(mode, inner.skipped), "skipped, though this guest is not known to lack it"
    assert inner.passed, f"no test ran in the guest:\n{outcome.output}"
    assert outcome.code == 0, f"no test failed, but pytest ended with {outcome.code}:\n{outcome.output}"


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.timeout(1500)  # the first one waits for all
@pytest.mark.parametrize("mode", GUEST_TESTS)
def test_in_guest(mode: str, guest_kernel: str, runs: Runs, told: list[str]) -> None:
    judge(mode, runs, told)


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MATRIX_TESTS)
def test_in_the_matrix(mode: str, guest_kernel: str, runs: Runs, told: list[str]) -> None:
    judge(mode, runs, told)


def test_every_mode_is_in_the_tables() -> None:
    assert set(MATRIX_TESTS) == set(guest.MODES)
    assert {mode for mode in guest.MODES if kind(mode) == "uml"} == set(GUEST_TESTS)
    assert set(absent.ABSENT) <= set(guest.MODES)


def test_a_skip_for_a_new_reason_is_told() -> None:
    known = {"a": "this kernel has no PSI", "b": "no hugetlb"}
    assert absent.unexpected("unified", known) == {}
    assert absent.unexpected("bookworm", known) == known
    assert absent.unexpected("unified", {"c": "virtiofsd not installed", "d": "no PSI here"}) != {}
