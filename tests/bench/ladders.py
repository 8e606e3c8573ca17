"""A ladder of which some rungs cannot be had."""

from __future__ import annotations

import types

from bench.ablate.rows import Trial
from bench.samples import BARE


def serving(*rungs: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(rungs=rungs, NAME="minictr", KNOWN=(), unavailable=lambda: "")


def loopback_ladder() -> list[Trial]:
    """The end of the web server's ladder: two rungs that nobody reaches by 127.0.0.1, and the one that he does."""
    return [
        Trial(BARE, BARE, serving()),  # type: ignore[arg-type]
        Trial("+cgroups", BARE, serving(), on=("memory",)),  # type: ignore[arg-type]
        Trial("+veth", "+cgroups", serving("veth"), on=("memory", "veth")),  # type: ignore[arg-type]
        Trial("+bridge", "+veth", serving("veth", "bridge"), on=("memory", "veth", "bridge")),  # type: ignore[arg-type]
        Trial(
            "+publish",
            "+bridge",
            serving("veth", "bridge", "publish"),  # type: ignore[arg-type]
            on=("memory", "veth", "bridge", "publish"),
        ),
    ]
