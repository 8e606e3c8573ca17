"""The same tests on other machines: cgroup v2 alone, v1 alone, and both with controllers on either.

One guest is booted for each (guest.py); what pytest found in it is one test here.
"""

from __future__ import annotations

import guest
import pytest

# What runs in every guest. A file that runs on this machine as well asks the kernel what it has, as on any machine.
GUEST_TESTS = (
    "tests/guests/inside.py",
    "tests/kernel/test_cgroup*.py",
)

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.mark.parametrize("mode", guest.MODES)
def test_in_guest(mode: str, guest_kernel: str, told: list[str]) -> None:
    files = sorted(str(path.relative_to(guest.ROOT)) for pattern in GUEST_TESTS for path in guest.ROOT.glob(pattern))
    outcome = guest.run(mode, guest.pytest_command([*files, "-q", "--timeout=60"]), deadline=120)
    if not outcome.junit:
        pytest.fail(
            f"pytest did not end in the guest ({outcome.code})\n{outcome.output}\n{outcome.console}", pytrace=False
        )
    found = guest.report(outcome.junit)
    told.append(
        f"{mode}: {len(found.passed)} passed, {len(found.failed)} failed, {len(found.skipped)} skipped "
        f"in {outcome.seconds:.1f} s, on {guest_kernel}"
    )
    told += [f"  skipped: {name}: {reason}" for name, reason in found.skipped.items()]
    if found.failed:
        parts = [f"--- {mode}: {name}\n{why}" for name, why in found.failed.items()]
        pytest.fail("\n".join([f"{len(found.failed)} failed in the guest", *parts]), pytrace=False)
    assert found.passed, f"no test ran in the guest:\n{outcome.output}"
    assert outcome.code == 0, f"no test failed, but pytest ended with {outcome.code}:\n{outcome.output}"
