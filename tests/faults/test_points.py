"""Each system call of a command fails, one at a time, in the process that makes it and in those it starts.

docs/faults.md tells what is hit, and what is looked at afterwards. In the session's table are the figures.
"""

from __future__ import annotations

import pytest
from drives import DRIVES
from other_starts import OTHERS
from suite import FAILS, tiny, told, wrong

__all__ = ["tiny"]

SAMPLE = 16  # points of each command
OTHER = 400  # of each other runtime's


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DRIVES)
def test_every_call_fails(tiny, name):
    lines = wrong(DRIVES[name], tiny, FAILS)
    assert not lines, told(lines, tiny.directory)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DRIVES)
def test_some_calls_of_all_phases(tiny, name):
    lines = wrong(DRIVES[name], tiny, FAILS, SAMPLE)
    assert not lines, told(lines, tiny.directory)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OTHERS)
def test_another_runtime(tiny, requires, name):
    """For the table; a fault of theirs is no failure of ours."""
    if not requires.has(name):
        pytest.skip(f"{name} is not installed")
    print(told(wrong(OTHERS[name], tiny, FAILS, OTHER), tiny.directory))  # shown with -rP
