"""The leak guard: a pytest plugin that proves that nothing was left on the host.

Around every test it looks at children, mounts, file descriptors and the state of the test process itself, and the test
that leaves something behind is in error. Around the session it looks at everything :mod:`hostview` knows, and the
session fails when something is left. Late is not left: a child that is about to be reaped is waited for a moment.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import hostview
import pytest

VARIABLE, ROOT = "MINICTR_TEST_SESSION", "MINICTR_ROOT"


class Guard:
    """The session's first look, and what the last one found."""

    def __init__(self, places: tuple[str, ...], patience: float, *, is_second: bool) -> None:
        # Told apart from an enclosing session, and found by it: the mark holds the outer mark.
        outer = os.environ.get(VARIABLE)
        self.mark = ":".join(filter(None, (outer, uuid.uuid4().hex)))
        self.places = places
        self.patience = patience
        self.is_second = is_second
        self.left: list[str] | None = None
        os.environ[VARIABLE] = self.mark
        os.environ[ROOT] = os.path.join(places[0], "state")  # containers of this session, and of no other
        self.before = self.look()

    def look(self) -> hostview.Look:
        if self.is_second:  # the first session's guard has the rest, when both are at their end (beside.py)
            return hostview.quick() | {"state files": hostview.state_files()}
        return hostview.whole(self.mark, self.places)


def settled(before: hostview.Look, look: Callable[[], hostview.Look], seconds: float) -> list[str]:
    """What differs from ``before`` and still does after ``seconds``."""
    deadline, pause = time.monotonic() + seconds, 0.002
    while found := hostview.difference(before, look()):
        gc.collect()  # an unreferenced handle warns by itself: here it must only not be taken for a kernel's leak
        if time.monotonic() > deadline:
            return found
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return []


GUARD = pytest.StashKey[Guard]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "leak_patience", "seconds the end of the session waits for what is late; a test waits a fifth", default="5"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    is_second = bool(session.config.getoption("beside_of", ""))
    patience = float(session.config.getini("leak_patience"))
    session.config.stash[GUARD] = Guard((str(base),), patience, is_second=is_second)


@pytest.fixture(autouse=True)
def _nothing_left_by_this_test(request: pytest.FixtureRequest) -> Iterator[None]:
    before = hostview.quick()
    yield
    if left := settled(before, hostview.quick, request.config.stash[GUARD].patience / 5):
        pytest.fail("this test left something behind\n" + "\n".join(left), pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    guard = session.config.stash.get(GUARD, None)
    if guard is None or session.config.option.collectonly:
        return
    if "minictr.runtime.ledger" in sys.modules:  # else it goes when the interpreter ends: after the last look
        sys.modules["minictr.runtime.ledger"].close_ledger()
    guard.left = settled(guard.before, guard.look, guard.patience)
    if guard.left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    guard = config.stash.get(GUARD, None)
    if guard is None or guard.left is None:
        return
    terminalreporter.section("left on the host", bold=True)
    for line in guard.left:
        terminalreporter.line(line, red=True)
    if not guard.left:
        looked = ", ".join(f"{kind} {len(lines)}" for kind, lines in guard.before.items() if kind != "state")
        terminalreporter.line(f"nothing; compared with before the first test: {looked}, and this process's own state")
