"""Whether a group of each controller can be made here: one is made below the own group, and removed."""

from __future__ import annotations

import os

from minictr.errors import MinictrError, StepFailed, Unsupported, errno_name
from minictr.kernel.cgroup_files import get, put
from minictr.kernel.cgroup_places import locate
from minictr.kernel.cgroups import create, remove, tree
from minictr.steps import Support

__all__ = ["CONTROLLERS", "probe", "support"]

CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "io", "devices", "hugetlb", "rdma", "misc", "freezer", "raw")


def probe() -> dict[str, Support]:
    """By controller."""
    return {controller: support(controller) for controller in CONTROLLERS}


def support(controller: str, parent: str = "") -> Support:
    """Make a group, remove it; below PARENT as :func:`cgroups.locate` takes it."""
    try:
        place = locate(controller, f"minictr-probe-{os.getpid()}", parent)
        before = given(place.base)
        made = create(place)
        if made:
            remove(place.directory, recorded=True)
        # as it was; but a group made by somebody else meanwhile may need what we gave
        for name in given(place.base) - before if not [*tree(place.base)][1:] else ():
            try:
                put(place.base, "cgroup.subtree_control", f"-{name}")
            except OSError:
                continue
    except Unsupported as err:
        return Support(False, err.reason, err.cure)
    except StepFailed as err:
        number = err.errno or 0
        return Support(False, f"{err.what}: {errno_name(number)} ({os.strerror(number)})", err.cure, number)
    except MinictrError as err:
        return Support(False, str(err))
    return Support(True)


def given(directory: str) -> frozenset[str]:
    """The controllers that a v2 group gives to those below it; none on v1."""
    try:
        return frozenset(get(directory, "cgroup.subtree_control").split())
    except OSError:
        return frozenset()
