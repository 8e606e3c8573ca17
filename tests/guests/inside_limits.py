"""Runs inside guests, and only there: limits of what is the test's own (disk, pages, processors), and who is told."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "kernel"))

import cgrouptools
from cgrouptools import outcome

import minictr as mc
from minictr.images.minimal import minimal
from minictr.kernel import cgroups, pressure

# the empty disk of every guest: nothing but this file writes to it
DISK = next(path for path in ("/dev/vda", "/dev/ubda") if os.path.exists(path))
WRITE = f"""
import mmap, os, sys, time
page = mmap.mmap(-1, 1 << 18)
page.write(b"x" * (1 << 18))
fd = os.open({DISK!r}, os.O_WRONLY | os.O_DIRECT)
began = time.monotonic()
for _ in range(12):
    os.write(fd, page)
print(time.monotonic() - began)
"""
PAGES = """
import mmap, sys
page = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)  # MAP_HUGETLB, 2 MiB each
for offset in (0, 2 << 20):
    page[offset] = 1
    print("touched", flush=True)
"""


@pytest.fixture
def group(requires: Any) -> Iterator[Any]:
    requires.root()
    with cgrouptools.groups() as groups:
        yield groups


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> mc.Container:
    rootfs = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(rootfs), ["bash", "sh", "cat", "sleep", "true", "dd", "tail"])
    return mc.Container(rootfs)


def test_the_disk_is_as_fast_as_it_may_be(group: Any) -> None:
    """3 MiB at 1 MiB a second; the kernel counts what was written. Without the limit there is no such wait."""
    disk = os.stat(DISK).st_rdev
    pair = (os.major(disk), os.minor(disk))
    free = group("io", "free")
    returncode, quick = outcome(WRITE, free)
    assert returncode == 0, quick
    limited = group("io", "limited", write_bps=((pair, 1 << 20),))
    returncode, slow = outcome(WRITE, limited)
    assert returncode == 0, slow
    assert float(slow) > 1.5  # the kernel lets some of the first second through at once
    assert float(slow) > float(quick)
    # v1 counts where there is a limit
    for place in (free, limited) if limited.version == 2 else (limited,):
        used = cgroups.usage([place]).io
        assert used is not None and used.write_bytes >= 3 << 20


def test_one_huge_page_and_no_more(group: Any) -> None:
    """Two cannot be reserved: ENOMEM (before Linux 5.7 a bus error at the second). Without the limit both are there."""
    assert outcome(PAGES, group("hugetlb", "free")) == (0, "touched\ntouched\n")
    place = group("hugetlb", "limited", limits=(("2MB", 2 << 20),))
    returncode, output = outcome(PAGES, place)
    assert returncode != 0 and output.count("touched") <= 1, output
    (row,) = (row for row in cgroups.usage([place]).hugetlb or () if row.page_size == "2MB")
    assert row.limit_hits


def test_one_processor_of_two(group: Any) -> None:
    """What it may use is what it used: the other's counter stands still."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("this guest has one processor")
    place = group("cpuset", cpus="1")
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    assert outcome(code, place) == (0, "[1]\n")
    refused = "import os\ntry: os.sched_setaffinity(0, {0})\nexcept OSError as err: print(err.errno)"
    assert outcome(refused, place) == (0, "22\n")


def test_pressure_is_there(group: Any) -> None:
    """Of the host always; of a group on v2 alone."""
    if not pressure.available():
        pytest.skip("this kernel has no PSI")
    found = pressure.pressure("cpu").some
    assert found is not None and found.total > 0
    place = group("memory")
    has = os.path.exists(f"{place.directory}/memory.pressure")
    assert has == (place.version == 2)


# --- the command line says what bit ---


def told(run_cli: Any, box: mc.Container, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    done = run_cli("run", "--rootfs", box.rootfs, *words, **options)
    assert isinstance(done, subprocess.CompletedProcess)
    return done


def test_out_of_memory_is_told(run_cli: Any, box: mc.Container) -> None:
    fill = ("sh", "-c", "tail /dev/zero")
    done = told(run_cli, box, "-m", "24m", "--memory-swap", "24m", "--", *fill)
    assert done.returncode == 137, done
    assert "memory" in done.stderr and "24" in done.stderr, done.stderr
    done = told(run_cli, box, "-m", "24m", "--memory-swap", "24m", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")


def test_too_many_processes_are_told(run_cli: Any, box: mc.Container) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    done = told(run_cli, box, "--pids-limit", "5", "--", "bash", "-c", script)
    assert "pids" in done.stderr and "fork" in done.stderr, done.stderr


@pytest.mark.timeout(400)
def test_a_fifth_of_a_processor(kept: Callable[..., Any], box: mc.Container) -> None:
    """cpu.stat of the container's own group counts the periods in which it had to wait."""
    options = ("--cpus", "0.2", "--name", "lab", "--rootfs", str(box.rootfs))
    done = kept("run", "-d", *options, "--", "sh", "-c", "while :; do :; done")
    assert done.returncode == 0, done.stderr
    groups = json.loads(kept("inspect", "lab").stdout)[0]["Cgroups"]
    directory = groups.get("cpu") or next(iter(groups.values()))

    def throttled() -> int:
        rows = dict(line.split() for line in Path(directory, "cpu.stat").read_text().splitlines())
        return int(rows["nr_throttled"])

    end = time.monotonic() + 30
    while throttled() < 3:
        assert time.monotonic() < end
        time.sleep(0.2)


# --- an ordinary user, to whom a group was given ---

USER = 1000
ORDINARY = """
import os, subprocess, sys
for place in sys.argv[2].split(","):
    open(place + "/cgroup.procs", "w").write(str(os.getpid()))
os.setgroups([]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000)
cli, rootfs, script = sys.argv[1], sys.argv[3], sys.argv[4]
words = [cli, "run", "--userns", "private", "--rootfs", rootfs, *sys.argv[5:], "--", "sh", "-c", script]
done = subprocess.run(words, capture_output=True, text=True)
print(done.returncode); print(done.stdout, end=""); print(done.stderr, end="", file=sys.stderr)
"""


@pytest.mark.timeout(400)
def test_an_ordinary_user_limits_in_what_was_given(
    minictr_cli: list[str], box: mc.Container, tmp_path: Path, requires: Any
) -> None:
    """A delegated subtree (cgroups(7)), on v1 a directory of each hierarchy: the limit is in force there; where nothing
    was given he is told."""
    homes = {home.mount: home for home in map(cgroups.home, ("memory", "pids"))}
    open_to_all(tmp_path, Path(box.rootfs), Path(sys.executable), Path(os.path.realpath(sys.executable)))
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, USER, USER)
    show = "cat /proc/self/cgroup; id -u 2>/dev/null; tail /dev/zero"
    environment = {**os.environ, "MINICTR_ROOT": str(state), "HOME": str(state), "XDG_RUNTIME_DIR": str(state)}

    def run(places: Iterable[str | Path], *options: str) -> subprocess.CompletedProcess[str]:
        words = [minictr_cli[0], ",".join(map(str, places)), str(box.rootfs), show, *options]
        command = [sys.executable, "-c", ORDINARY, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90, check=False)

    with contextlib.ExitStack() as stack:
        inner = [stack.enter_context(given(home)) / "session" for home in homes.values()]
        limits = ("-m", "24m", "--memory-swap", "24m", "--pids-limit", "20")
        limited = run(inner, "--cgroup-parent", "/user/boxes", *limits)
        assert limited.stdout.startswith("137\n"), limited
        assert "memory" in limited.stderr and "24" in limited.stderr, limited
        if cgroups.home("memory").version == 2:  # v1 counts for each group by itself, and this one is gone
            (own,) = {place.parent for place in inner}
            events = dict(line.split() for line in (own / "memory.events").read_text().splitlines())
            assert int(events["oom_kill"]) >= 1
        refused = run(homes, "-m", "24m")
        assert refused.stdout == "125\n" and "EACCES" in refused.stderr, refused


@contextlib.contextmanager
def given(home: Any) -> Iterator[Path]:
    """The group ``user`` of a hierarchy, with one for his processes in it: his own, as systemd or an administrator
    gives it."""
    control = Path(home.mount, "cgroup.subtree_control")
    if home.version == 2:
        control.write_text("+memory +pids")
    own = Path(home.mount) / "user"
    inner = own / "session"
    try:
        own.mkdir()
        inner.mkdir()
        for path in (own, inner):
            for name in ("", "cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"):
                if (path / name).exists():
                    os.chown(path / name, USER, USER)
        yield own
    finally:
        for path in (inner, own):
            if path.is_dir():
                cgroups.kill([cgroups.Place(home.version, "memory", str(path))])
                path.rmdir()
        if home.version == 2:
            control.write_text("-memory -pids")


def open_to_all(*places: Path) -> None:
    """Everybody may walk there: this guest's files are a layer in memory."""
    for place in places:
        for directory in (place, *place.parents):
            if not directory.is_symlink():
                directory.chmod(directory.stat().st_mode | 0o055)
