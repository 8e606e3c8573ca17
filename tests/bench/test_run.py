"""``python -m bench run`` from the outside: its files read back, resumed, interrupted, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import one_daemon

from bench import __main__ as front
from bench import samples

ROOT = str(Path(front.__file__).parent.parent)
TINY = ("--size", "tiny", "--own-programs", "--rest", "0.02")


@pytest.fixture(autouse=True)
def _root(requires) -> None:
    requires.root()
    requires("cc", "make", "xz", "openssl")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench", "run", *arguments]


def bench(*arguments: str, cwd: str = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=110)


def of(path: Path, kind: type) -> list:
    return [it for it in samples.read(str(path)) if isinstance(it, kind)]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory on a disk; what a run makes in it must be gone with the run."""
    with tempfile.TemporaryDirectory(prefix="minictr-test-bench-", dir="/var/tmp") as path:
        yield Path(path)


def test_a_run_leaves_every_sample_and_can_be_gone_on_with(tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "r.jsonl"
    chosen = ("--workloads", "encrypt", "--environments", "minictr", "--seed", "5", "--blocks", "2")
    done = bench(*chosen, *TINY, "--out", str(out), "--scratch", str(scratch))
    assert done.returncode == 0, done.stderr
    (run,) = of(out, samples.Run)
    assert (run.verb, run.seed, run.arguments["workloads"]) == ("run", 5, "encrypt")
    found = of(out, samples.Sample)
    assert [it.block for it in found] == [0, 0, 0, 1, 1, 1]
    assert {it.arm for it in found} == {"bare", "bare-again", "minictr"}
    for it in found:
        assert it.run == run.id
        assert it.experiment == "workload/encrypt/tiny"
        assert it.discarded == ""
        assert it.values["wall_s"] > 0 and it.values["input_bytes"] == 4 << 20
        assert it.state["namespaces"]["pid"] == ("own" if it.arm == "minictr" else "host")
        assert {"load_before", "rest_busy", "steal", "noisy"} <= it.noise.keys()
    planned = {it.name: it for it in of(out, samples.Arm)}
    assert planned["minictr"].planned["namespaces"]["pid"] == "own"
    assert "seccomp" in planned["minictr"].features
    (end,) = of(out, samples.End)
    assert end.failed == ()
    assert "workload/encrypt/tiny: wall_s, 2 blocks" in done.stdout
    assert "2 blocks of 5" in done.stdout, "so few blocks have no verdict"
    assert list(scratch.iterdir()) == []

    again = bench("--resume", str(out), "--blocks", "3", "--scratch", str(scratch))
    assert again.returncode == 0, again.stderr
    assert len(of(out, samples.Run)) == 1
    assert [it.block for it in of(out, samples.Sample)][6:] == [2, 2, 2]
    assert "3 blocks" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_but_its_samples(number: int, tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "r.jsonl"
    arguments = ("--workloads", "compress", "--environments", "minictr", "--blocks", "500", "--scratch", str(scratch))
    with subprocess.Popen(
        command(*arguments, *TINY, "--out", str(out)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 90
        while not (out.exists() and len(of(out, samples.Sample)) >= 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (130, 128 + number)
    assert f"bench run: interrupted; --resume {out} goes on" in said
    assert list(scratch.iterdir()) == []
    assert of(out, samples.End) == []
    assert not strays(str(out))


@pytest.mark.parametrize("verb", [(), ("lifecycle",), ("count", "--workloads", "encrypt"), ("run",), ("all",)])
def test_ctrl_c_is_one_line_from_the_first_moment(verb: tuple[str, ...], tmp_path: Path) -> None:
    """While the verbs' own modules are still read, too."""
    code = (
        "import os, signal, sys; from bench import __main__ as front\n"
        "front.importlib = type('Slow', (), {'import_module': lambda name: os.kill(os.getpid(), signal.SIGINT)})\n"
        "sys.exit(front.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *verb],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    named = f"bench {verb[0]}" if verb else "bench"
    assert (done.returncode, done.stderr, done.stdout) == (130, f"{named}: interrupted\n", "")


@pytest.mark.bench
@pytest.mark.timeout(900)  # waiting for the lock is in it
def test_a_killed_daemon_costs_one_arm(tmp_path: Path, scratch: Path, requires) -> None:
    requires("dockerd", "docker")
    out = tmp_path / "r.jsonl"
    chosen = ("--workloads", "encrypt", "--environments", "docker,minictr", "--blocks", "6", "--scratch", str(scratch))
    words = command(*chosen, *TINY, "--out", str(out))
    with (
        one_daemon(),
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        deadline = time.monotonic() + 300
        while not (out.exists() and any(it.arm == "docker" for it in of(out, samples.Sample))):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(daemon_of(process.pid), signal.SIGKILL)
        told, warned = process.communicate(timeout=300)
    assert process.returncode == 1, warned
    found = of(out, samples.Sample)
    assert len([it for it in found if it.arm == "minictr" and not it.discarded]) == 6
    broken = [it.discarded for it in found if it.arm == "docker" and it.discarded]
    assert len(broken) == 2 and all(line.startswith("failed: docker: ") for line in broken)
    (line,) = of(out, samples.End)[0].failed
    assert line.startswith("workload/encrypt/tiny: docker: failed: ") and line in told
    assert list(scratch.iterdir()) == []


def daemon_of(pid: int) -> int:
    """The dockerd among the descendants of PID."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = (name, int(rest.split()[1]))
    for found, (name, parent) in parents.items():
        while name == "dockerd" and parent > 1:
            if parent == pid:
                return found
            parent = parents[parent][1] if parent in parents else 0
    raise AssertionError(f"no dockerd below {pid}")


def strays(word: str) -> list[str]:
    """The processes whose command line has WORD in it, or that run where benches run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--workloads", "bake"), "no workload bake"),
        (("--workloads", "encrypt,encrypt"), "asked for twice"),
        (("--workloads", ""), "no workload is asked for"),
        (("--environments", "vmware"), "no environment vmware; there are bare"),
        (("--own-programs", "--workloads", "serve"), "serve needs Debian's packages"),
        (("--out", "/proc/nothing/r.jsonl"), "cannot write /proc/nothing/r.jsonl"),
        (("--resume", "/nowhere/r.jsonl"), "cannot go on with /nowhere/r.jsonl: No such file"),
    ],
)
def test_what_cannot_be_is_one_line_and_touches_nothing(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    given = arguments if {"--out", "--resume"} & {*arguments} else (*arguments, "--out", str(tmp_path / "r.jsonl"))
    done = bench(*given)
    assert done.returncode == 2
    assert done.stderr.startswith("bench run: ") and words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("text", ["0", "120%", "much", "-1%"])
def test_a_precision_is_a_share(text: str) -> None:
    done = bench(f"--precision={text}")
    assert done.returncode == 2 and "is no share such as 0.5%" in done.stderr


def test_without_root_it_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from bench.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    inner = [
        sys.executable,
        "-c",
        code,
        ROOT,
        "run",
        "--out",
        "open/r.jsonl",
        "--own-programs",
        "--workloads",
        "encrypt",
    ]
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *inner],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "root" in done.stderr and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path / "open") == []
