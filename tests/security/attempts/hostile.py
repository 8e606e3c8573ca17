"""Fixtures around the attempts: a container with them inside, and what is said of one that ran."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import compiled
import pytest
from compiled import Verdict

import minictr as mc

__all__ = ["hostile", "powerful", "tried", "walls"]


@pytest.fixture(scope="session")
def hostile(lab: Path, requires) -> mc.Container:
    """The default container, with /bin/attempt in it. A test weakens it by what it is about, and by no more."""
    compiled.install(lab, requires("gcc"))
    return mc.Container(lab)


def powerful(box: mc.Container, *names: str) -> mc.Container:
    """With more capabilities than the profile gives, and so with more system calls."""
    kept = next(f for f in box.features if f.name == "capabilities").bounding
    return box.with_(mc.Capabilities((*kept, *names)))


@pytest.fixture(scope="session")
def tried() -> Callable[..., Verdict]:
    """``tried(box, "NAME", FACT=VALUE)``: the verdict of tests/security/attempts on that class."""

    def run(box: mc.Container, name: str, /, *, stdin: object = None, **facts: object) -> Verdict:
        words = [f"{key}={value}" for key, value in facts.items()]
        done = box.run(["attempt", name, *words], capture_output=True, text=True, timeout=60, stdin=stdin)
        assert name in compiled.verdicts(done.stdout), done
        return compiled.verdicts(done.stdout)[name]

    return run


@pytest.fixture(scope="session")
def walls(tried) -> Callable[..., None]:
    """``walls(box, weak, "NAME", "EPERM")``: the class is blocked so in BOX and succeeds in WEAK.

    Where WEAK cannot have it either, because this kernel has not got it, nothing is proven: the test is skipped.
    """

    def check(box: mc.Container, weak: mc.Container, name: str, how: str = "EPERM", /, **facts: object) -> None:
        blocked, succeeded = tried(box, name, **facts), tried(weak, name, **facts)
        assert blocked.result != compiled.SUCCEEDED, blocked
        if succeeded.result == compiled.NOT_EXERCISABLE:
            pytest.skip(f"not exercisable here: {succeeded.how}")
        assert succeeded.result == compiled.SUCCEEDED, succeeded
        assert how in blocked.how, blocked

    return check
