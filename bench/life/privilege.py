"""What a seccomp filter and Landlock add to a start."""

from __future__ import annotations

import argparse
import os
from typing import Any

from bench.life.adding import AGAIN, NONE, Feature, arm, part
from bench.life.series import Part, Tell, in_turn
from bench.lifecycle.lab import Lab
from bench.lifecycle.shape import APART

AT_MOST_MS = 0.5
PATHS = 20  # of a Landlock ruleset
BOTH = "both"
TITLE = "What a filter and Landlock add to a start"
FILTERS: dict[str, Feature] = {
    "filter default": ("Seccomp", ("default",)),
    "filter docker": ("Seccomp", ("docker",)),
    "filter lxc": ("Seccomp", ("lxc",)),
}


def some_paths(rootfs: str, count: int = PATHS) -> list[str]:
    """COUNT paths that are there, "/" first: as a program sees them in ROOTFS. Fewer in a root that has fewer."""
    found = ["/"]
    for directory, directories, files in os.walk(rootfs):
        directories.sort()
        below = directory[len(rootfs) :]
        found += (f"{below}/{name}" for name in sorted((*directories, *files)))
        if len(found) >= count:
            break
    return found[:count]


def commands(lab: Lab) -> dict[str, Any]:
    """The default profile without a filter, with each, with Landlock, and with filter and Landlock."""
    out = (*APART, "seccomp")
    paths: Feature = ("Landlock", (some_paths(lab.rootfs),))
    return {
        NONE: arm(lab, "the default profile without control groups and filter", out),
        AGAIN: arm(lab, "the same: the A/A check", out),
        **{name: arm(lab, f"with {name}, from the cache", out, wish) for name, wish in FILTERS.items()},
        landlock(): arm(lab, f"with {PATHS} paths that may be read", out, paths),
        BOTH: arm(lab, "with the default filter and Landlock", out, FILTERS["filter default"], paths),
    }


def landlock() -> str:
    return f"landlock {PATHS}"


def measure(lab: Lab, options: argparse.Namespace, tell: Tell) -> Part:
    """Each in turn."""
    found, orders = in_turn(
        lab,
        commands(lab),
        rounds=options.rounds,
        warmup=options.warmup,
        seed=options.seed,
        pause=options.pause_ms / 1e3,
        tell=tell,
    )
    return part(TITLE, found, orders, options.seed, single=(*FILTERS, landlock()), at_most=AT_MOST_MS)
