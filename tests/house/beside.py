"""Two sessions at a time: a pytest plugin that runs the tests marked ``beside`` in a second process, beside the rest.

So marked is what uses nothing of the host that another test sees: no network, no state directory, no cgroup that
stays. The second session is a child of the first, in a mount namespace of its own, with the same options; each of its
reports is handed to the first one, which counts and shows it as its own. A test without a report has failed, and so has
a second session that ended otherwise than its reports say. What it left on the host is seen by the first one's guard.

One after the other it is for an ordinary user (the namespace), on one processor, with ``--pdb`` or ``-s``, where all
that was chosen is of one kind, and with ``-p no:beside``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import hostview
import pytest

OPTION = "--beside-of"  # the second session has it: the directory in which it is told its tests and leaves its reports
GRACE = 10.0  # seconds from SIGINT to SIGKILL
TESTS, REPORTS, SAID, FILES = "tests", "reports", "said", "files"
WHOLE = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, dest="beside_of", default="", help="of a session that another one starts (beside.py)")


def is_second(config: pytest.Config) -> bool:
    return bool(config.getoption("beside_of", ""))


# --- the first session ---


def in_two(session: pytest.Session) -> tuple[list[pytest.Item], list[pytest.Item]] | None:
    """The tests for the first session and for the second one; None when all of them are for this one."""
    option = session.config.option
    alone = is_second(session.config) or option.collectonly or option.usepdb or option.capture == "no"
    if alone or os.geteuid() != 0 or (os.cpu_count() or 1) < 2 or session.testsfailed:
        return None
    kinds: tuple[list[pytest.Item], list[pytest.Item]] = [], []
    for item in session.items:
        kinds[item.get_closest_marker("beside") is not None].append(item)
    return kinds if all(kinds) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    kinds = in_two(session)
    if kinds is None:
        return (yield)
    session.items, apart = kinds
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    terminal.write_line(f"{len(apart)} of them in a second session beside this one; their results come last")
    with second(session, apart) as (process, place):
        result = yield
        collect(session, apart, process, place)
    return result


@contextlib.contextmanager
def second(session: pytest.Session, apart: list[pytest.Item]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The second session and its directory; on leaving it is asked to end, if it has not, and waited for."""
    place = Path(session.config._tmp_path_factory.mktemp("beside"))  # type: ignore[attr-defined]
    (place / TESTS).write_text(json.dumps([(item.nodeid, str(item.path)) for item in apart]))
    (place / REPORTS).touch()
    (place / FILES).mkdir()
    # SIGINT, when the first session is killed as well: pytest takes down its fixtures. A shell's background has it off.
    prefix = ("env", "--default-signal=INT", "setpriv", "--pdeathsig", "INT", "unshare", "--mount")
    python = (sys.executable, "-P", "-m", "pytest", *session.config.invocation_params.args)
    own = (f"{OPTION}={place}", f"--basetemp={place / 'tmp'}", "-o", f"cache_dir={place / 'cache'}", "--color=no")
    where = session.config.invocation_params.dir
    with (
        open(place / SAID, "wb") as said,
        subprocess.Popen(
            [*prefix, *python, *own],
            cwd=where,
            env={**os.environ, "TMPDIR": str(place / FILES)},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            hostview.AWAITED.add(str(process.pid))
            yield process, place
        finally:
            if process.poll() is None:
                end(process)
            process.wait()
            hostview.AWAITED.clear()


def end(process: subprocess.Popen[bytes]) -> None:
    """Its fixtures have their time. One that waits for guests takes longer: those end by themselves."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
        return
    os.killpg(process.pid, signal.SIGKILL)


def collect(session: pytest.Session, apart: list[pytest.Item], process: subprocess.Popen[bytes], place: Path) -> None:
    """Shows every report as one of this session, while they come; then judges how the second session ended."""
    hook, config = session.config.hook, session.config
    missing = {item.nodeid: item for item in apart}
    failed = False
    for data in lines(process, place / REPORTS):
        report = config.hook.pytest_report_from_serializable(config=config, data=data)
        if isinstance(report.longrepr, list):  # a skip's place and reason: JSON has no tuples
            report.longrepr = tuple(report.longrepr)
        if report.when == "setup":
            hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
        hook.pytest_runtest_logreport(report=report)
        failed = failed or report.failed
        if report.when == "teardown":
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
            missing.pop(report.nodeid, None)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
    code = process.wait()
    wanted = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
    if missing or code != wanted:
        lost(session, list(missing.values()) or apart[-1:], code, (place / SAID).read_text(errors="replace"))


def lines(process: subprocess.Popen[bytes], path: Path) -> Iterator[dict[str, object]]:
    """The file's lines, those not yet written included: until the process has ended."""
    with open(path, encoding="utf-8") as file:
        part = ""
        while True:
            ended = process.poll() is not None
            while new := file.readline():
                part += new
                if part.endswith("\n"):
                    yield json.loads(part)
                    part = ""
            if ended:
                return
            time.sleep(0.05)


def lost(session: pytest.Session, items: list[pytest.Item], code: int, said: str) -> None:
    """An error for each of the tests: the second session ended with CODE."""
    why = f"the session beside this one ended with exit code {code}; it said:\n{said[-12000:]}"
    for item in items:
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "setup")
        session.config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        session.config.hook.pytest_runtest_logreport(report=report)
        why = "see above"


# --- the second session ---


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Collects the files of its tests only."""
    if is_second(config):
        config.stash[WHOLE] = Path(config.getoption("beside_of"))
        config.args = list(dict.fromkeys(path for _, path in told(config)))


def told(config: pytest.Config) -> list[list[str]]:
    return json.loads((config.stash[WHOLE] / TESTS).read_text())  # type: ignore[no-any-return]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if is_second(config):
        order = {nodeid: place for place, (nodeid, _) in enumerate(told(config))}
        items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])


class Reporter:
    """Writes each report of this session as a line."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.file = open(config.stash[WHOLE] / REPORTS, "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.file.write(json.dumps(data) + "\n")

    def pytest_unconfigure(self) -> None:
        self.file.close()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if is_second(session.config):
        session.config.pluginmanager.register(Reporter(session.config), "beside-reporter")
