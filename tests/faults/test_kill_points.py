"""Each process of a command is killed before each of its system calls, one at a time.

docs/faults.md tells what is hit, and what is looked at afterwards. In the session's table are the figures.
"""

from __future__ import annotations

import pytest
from drives import DRIVES
from other_starts import OTHERS
from suite import KILLED, tiny, told, wrong

__all__ = ["tiny"]

SAMPLE = 10  # points of each command
OTHER = 200  # of each other runtime's


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DRIVES)
def test_every_call_is_the_last(tiny, name):
    lines = wrong(DRIVES[name], tiny, KILLED)
    assert not lines, told(lines, tiny.directory)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DRIVES)
def test_some_calls_of_all_phases(tiny, name):
    lines = wrong(DRIVES[name], tiny, KILLED, SAMPLE)
    assert not lines, told(lines, tiny.directory)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OTHERS)
def test_another_runtime(tiny, requires, name):
    """For the table; a fault of theirs is no failure of ours."""
    if not requires.has(name):
        pytest.skip(f"{name} is not installed")
    print(told(wrong(OTHERS[name], tiny, KILLED, OTHER), tiny.directory))  # shown with -rP
