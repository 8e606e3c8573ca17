"""Two sessions at a time (beside.py): the same counts, the same exit code, and nothing of the second one is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent
# One of each result, here and beside; the leak guard tells the second session's mark from the first one's.
HERE = """
import os, signal, time
import pytest

def test_passes(): open("pid-here", "w").write(str(os.getpid()))
"""
BESIDE = """
import os, subprocess, sys, time
import pytest
pytestmark = pytest.mark.beside

@pytest.fixture
def broken():
    yield
    raise OSError("at its end")

def test_passes(record_property):
    record_property("said", "to the first one")
    assert sys.flags.safe_path  # the sources beside pytest.ini do not hide what is installed
    open("pid-beside", "w").write(f"{os.getpid()} {os.getppid()} {os.readlink('/proc/self/ns/mnt')}")

def test_fails(): assert 1 == 2, "seen in the first one"
def test_is_skipped(): pytest.skip("for a reason")
@pytest.mark.xfail(strict=True)
def test_fails_as_it_should(): assert False
def test_is_in_error(broken): pass
@pytest.mark.parametrize("name", ["a b", "\\u00e4/::["])
def test_name(name): pass
"""


ALONE = 'mount -t tmpfs none /dev/shm && mount -t tmpfs none /var/tmp && "$@"; exit $?'  # pid 1 is not pytest


def command(where: Path, beside: str, *arguments: str, here: str = HERE) -> list[str]:
    (where / "test_a_beside.py").write_text(beside)
    (where / "test_here.py").write_text(here)
    (where / "pytest.ini").write_text("[pytest]\nleak_patience = 0.5\nmarkers = beside\n")
    plugins = ("-p", "leakguard", "-p", "beside", "-p", "no:cacheprovider")
    return [sys.executable, "-P", "-m", "pytest", "-rA", *plugins, f"--basetemp={where / 'base'}", *arguments]


def session(where: Path, beside: str, *arguments: str, here: str = HERE) -> subprocess.CompletedProcess[str]:
    """In namespaces of its own: what it leaves goes with them."""
    own = ("unshare", "--mount", "--net", "--propagation=private", "--pid", "--fork", "--mount-proc")
    words = [*own, "sh", "-c", ALONE, "sh", *command(where, beside, *arguments, here=here)]
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    return subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=100)


def summary(answer: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines with a test's result, and the last line's counts."""
    results = re.findall(r"^(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL) .*", answer.stdout, re.MULTILINE)
    return [*sorted(results), answer.stdout.splitlines()[-1].partition(" in ")[0].strip("= ")]


def test_all_is_told_as_in_one_session(tmp_path: Path) -> None:
    answer = session(tmp_path, BESIDE, f"--junitxml={tmp_path / 'junit.xml'}")
    pid, parent, namespace = (tmp_path / "pid-beside").read_text().split()
    assert parent == (tmp_path / "pid-here").read_text() != pid
    assert namespace != os.readlink("/proc/self/ns/mnt")
    alone = session(tmp_path, BESIDE, "-p", "no:beside")
    assert (tmp_path / "pid-beside").read_text().split()[0] == (tmp_path / "pid-here").read_text()
    assert summary(answer) == summary(alone)
    assert "5 passed, 1 skipped, 1 xfailed, 1 error" in answer.stdout.splitlines()[-1]
    assert answer.returncode == alone.returncode == 1
    assert "seen in the first one" in answer.stdout and "at its end" in answer.stdout
    assert 'value="to the first one"' in (tmp_path / "junit.xml").read_text()


# From before the second session's end until after it: for the guard around this test it has left nothing.
OUTLIVES = """
import os, time

def test_outlives_it():
    (pid,) = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    while " Z " not in open(f"/proc/{pid}/stat").read():
        time.sleep(0.01)
"""


@pytest.mark.parametrize("here", [HERE, OUTLIVES], ids=["short", "long"])
def test_all_is_well_when_all_is_well(here: str, tmp_path: Path) -> None:
    answer = session(tmp_path, "import pytest\n@pytest.mark.beside\ndef test_passes(): pass\n", here=here)
    assert "2 passed" in answer.stdout
    left = [line for line in answer.stdout.splitlines() if ": left behind: " in line]
    assert [line for line in left if ": /tmp/" not in line] == []  # there, others are at work
    assert answer.returncode == bool(left)


def test_options_and_choices_are_those_of_the_first(tmp_path: Path) -> None:
    """-k leaves out on both sides; -x ends both at a failure of the second one."""
    answer = session(tmp_path, BESIDE, "-k", "passes")
    assert summary(answer)[-1] == "2 passed, 6 deselected"
    answer = session(tmp_path, BESIDE, "-x")
    assert (answer.returncode, summary(answer)[-1]) == (1, "1 failed, 2 passed")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("os._exit(0)", "exit code 0"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
        ("pytest.exit('enough')", "Exit: enough"),
    ],
)
def test_a_second_session_that_dies_fails_what_it_had_not_done(body: str, says: str, tmp_path: Path) -> None:
    tests = f"def test_one(): pass\ndef test_two(): {body}\ndef test_three(): pass\n"
    answer = session(tmp_path, f"import os, pytest\npytestmark = pytest.mark.beside\n{tests}")
    assert answer.returncode == 1, answer.stdout
    assert "2 passed, 2 errors" in answer.stdout, answer.stdout
    assert says in answer.stdout


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("kept.append(os.open('/etc/passwd', 0))", "descriptors: left behind: "),
        ("os.makedirs(os.environ['MINICTR_ROOT'] + '/containers/x')", "state files: left behind: "),
        ("os.system('sleep 20 >/dev/null 2>&1 &')", "processes: left behind: pid "),
        ("open('/dev/shm/minictr-leak', 'w').close()", "temporary files: left behind: /dev/shm/minictr"),
    ],
)
def test_what_the_second_session_leaves_is_seen(body: str, says: str, tmp_path: Path) -> None:
    """By its own guard, or by the first one's when both are at their end."""
    tests = f"import os, pytest\nkept = []\n@pytest.mark.beside\ndef test_one(): {body}\n"
    answer = session(tmp_path, tests)
    assert answer.returncode == 1, answer.stdout
    assert says in answer.stdout, answer.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_second_session_ends_with_the_first(number: signal.Signals, tmp_path: Path) -> None:
    """And takes down its fixtures."""
    beside = """
        import os, pytest, time

        @pytest.fixture(scope="session")
        def made():
            open("made", "w").write(str(os.getpid()))
            yield
            os.rename("made", "taken-down")

        @pytest.mark.beside
        def test_long(made):
            time.sleep(50)
    """
    here = "import time\ndef test_waits(): time.sleep(50)\n"
    words = command(tmp_path, re.sub("^        ", "", beside, flags=re.MULTILINE), here=here)
    environment = {**os.environ, "PYTHONPATH": str(HOUSE)}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "made")
        process.send_signal(number)
    wait_for(tmp_path / "taken-down")


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert path.exists()
