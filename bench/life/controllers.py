"""What each controller of control groups adds to a start: with none, each by itself, all of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from bench.life.adding import AGAIN, ALL, NONE, Feature, arm, part
from bench.life.series import Part, Series, Tell, in_turn
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import APART

AT_MOST_MS = 0.3
TITLE = "What each controller adds to a start"

# controller -> (class of minictr, its arguments): a limit that this program does not feel
LIMITS: dict[str, Feature] = {
    "pids": ("Pids", (64,)),
    "memory": ("Memory", ("256M",)),
    "cpu": ("Cpu", (1.5,)),
    "cpuset": ("Cpuset", ("0",)),
    "io": ("Io", ()),
    "freezer": ("Freezer", ()),
    "devices": ("Devices", ()),
    "hugetlb": ("Hugetlb", ({"2MB": "64M"},)),
}


def commands(lab: Lab, limits: Mapping[str, Feature]) -> dict[str, Any]:
    """The default profile without its own limit and with each of LIMITS."""
    return {
        NONE: arm(lab, "the default profile without control groups", APART),
        AGAIN: arm(lab, "the same: the A/A check", APART),
        **{name: arm(lab, f"with {name} alone", APART, limit) for name, limit in limits.items()},
        ALL: arm(lab, "with all of them", APART, *limits.values()),
    }


def supported() -> tuple[dict[str, Feature], dict[str, str]]:
    """Those of LIMITS that this host has; and why it has not the others."""
    import minictr

    mc: Any = minictr
    found, missing = {}, {}
    for name, limit in LIMITS.items():
        answer = mc.support(getattr(mc, limit[0]))
        if answer:
            found[name] = limit
        else:
            missing[name] = str(answer)
    return found, missing


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Each in turn."""
    limits, missing = supported()
    found, orders = in_turn(
        lab,
        commands(lab, limits),
        rounds=options.rounds,
        warmup=options.warmup,
        seed=options.seed,
        pause=options.pause_ms / 1e3,
        tell=tell,
    )
    found |= {name: Series(name, failed=why) for name, why in missing.items()}
    return part(TITLE, found, orders, options.seed, single=tuple(LIMITS), at_most=AT_MOST_MS)
