"""The same tests on other machines: cgroup v2 alone, v1 alone, both with controllers on either; AppArmor, SELinux.

One guest is booted for each (guest.py); what pytest found in it is one test here.
"""

from __future__ import annotations

import guest
import pytest

# What runs in which guest; each row names a file, or several, that must be there. A file that runs on this machine as
# well asks the kernel what it has, as on any machine. v2 is nowhere else; v1 is on most machines that run these tests.
GUEST_TESTS = {
    "unified": (
        "tests/guests/inside.py",
        "tests/kernel/test_cgroup*.py",
        "tests/kernel/test_isolation.py",
        "tests/rootless/test_limits.py",
        "tests/network/test_ipvlan.py",
    ),
    "v1": ("tests/guests/inside.py", "tests/kernel/test_cgroups.py", "tests/security/test_calls.py"),
    "hybrid": ("tests/guests/inside.py", "tests/runtime/test_cgroups.py"),
    "apparmor": ("tests/guests/inside_apparmor.py", "tests/kernel/test_labels.py"),
    "selinux": ("tests/guests/inside_selinux.py", "tests/kernel/test_labels.py"),
}

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(290)]


@pytest.mark.parametrize("mode", guest.MODES)
def test_in_guest(mode: str, guest_kernel: str, told: list[str]) -> None:
    files = []
    for pattern in GUEST_TESTS[mode]:
        found = sorted(map(str, guest.ROOT.glob(pattern)))
        assert found, f"GUEST_TESTS names no file: {pattern}"
        files += found
    outcome = guest.run(mode, guest.pytest_command([*files, "-q", "--timeout=30"]), deadline=210)
    if not outcome.junit:
        pytest.fail(
            f"pytest did not end in the guest ({outcome.code})\n{outcome.output}\n{outcome.console}", pytrace=False
        )
    inner = guest.report(outcome.junit)
    told.append(
        f"{mode}: {len(inner.passed)} passed, {len(inner.failed)} failed, {len(inner.skipped)} skipped "
        f"in {outcome.seconds:.1f} s, on {guest_kernel}"
    )
    told += [f"  skipped: {name}: {reason}" for name, reason in inner.skipped.items()]
    if inner.failed:
        parts = [f"--- {mode}: {name}\n{why}" for name, why in inner.failed.items()]
        pytest.fail("\n".join([f"{len(inner.failed)} failed in the guest", *parts]), pytrace=False)
    assert inner.passed, f"no test ran in the guest:\n{outcome.output}"
    assert outcome.code == 0, f"no test failed, but pytest ended with {outcome.code}:\n{outcome.output}"
