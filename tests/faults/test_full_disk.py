"""Full disks and read-only ones: for state, for logs, for what is copied out and in.

A start that does not fit fails before its program runs, and says what did not fit; what is there already goes on, can
be looked at and done away with, and what was written of it stays whole.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import table
from remains import Place, cli
from waiting import eventually

DEADLINE = 20.0
PAGE = 4096
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
WHOLE, SAMPLE = range(9), (0, 2)
EXISTING = b"it was here before\n"


@pytest.fixture
def place(tmp_path: Path, lab: Path) -> Iterator[Place]:
    with Place(tmp_path, lab) as place:
        yield place


class Disk:
    """A small file system that can be filled up to so many pages, or so many files."""

    def __init__(self, place: Place, path: Path, *, size: str = "512k", inodes: int = 0) -> None:
        self.path, self.name = path, place.filler
        place.small_disk(path, size=size, inodes=inodes)

    def fill(self, *, pages: int = -1, inodes: int = -1) -> None:
        """Leave room for so many PAGES; for so many INODES."""
        self.clear()
        seen = os.statvfs(self.path)
        if pages >= 0:
            with open(self.path / self.name, "wb") as file:
                file.write(bytes(max(0, seen.f_bfree * seen.f_frsize - pages * PAGE)))
        for number in range(seen.f_ffree - inodes if inodes >= 0 else 0):
            (self.path / f"{self.name}{number}").touch()

    def clear(self) -> None:
        for path in self.path.glob(f"{self.name}*"):
            path.unlink()


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, (done.args, done.stderr)
    return done.stdout


def words_of(place: Place, name: str, script: str, *options: str) -> list[str]:
    return [*options, "--name", name, "--rootfs", str(place.rootfs), *place.options, "--", "sh", "-c", script]


def refused(done: subprocess.CompletedProcess[str], path: Path, *errnos: str) -> str:
    """What is wrong about a refusal: one line, naming a path below PATH and the errno, and nothing else."""
    lines = done.stderr.splitlines()
    if done.returncode != 125 or len(lines) != 1:
        return f"exit {done.returncode}, {done.stderr!r}"
    if str(path) not in lines[0] or not any(errno in lines[0] for errno in errnos):
        return f"names neither path nor errno: {lines[0]}"
    return "" if not done.stdout else f"it failed, and wrote {done.stdout!r}"


FULL = ("ENOSPC", "No space left on device")
RO = ("EROFS", "Read-only file system")


# --- the state directory ---


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "steps", [pytest.param(WHOLE, marks=pytest.mark.faults, id="whole"), pytest.param(SAMPLE, id="sample")]
)
@pytest.mark.parametrize("what", ["pages", "inodes"])
def test_a_start_fits_or_leaves_nothing(place: Place, what: str, steps: range) -> None:
    disk = Disk(place, place.root, inodes=60 if what == "inodes" else 0)
    must(place.run("run", "-d", *words_of(place, "keep", "exec sleep 600")))
    tolerated, failed, leaked, opened = 0, 0, [], []
    for verb in (["run"], ["run", "-d"], ["create"]):
        for step in steps:
            case = f"{' '.join(verb)}, {step} {what}"
            disk.fill(**{what: step})
            done = place.run(*verb, *words_of(place, "try", "echo it ran"), timeout=DEADLINE)
            if done.returncode == 0:
                tolerated += 1
                disk.clear()
                if verb != ["run"]:
                    if verb == ["create"]:
                        must(place.run("start", "try"))
                    assert must(place.run("wait", "try")) == "0\n"
                    done = place.run("logs", "try")
                    must(place.run("rm", "try"))
                lost = "minictr logs: try: 7 bytes of its output could not be logged: the disk was full\n"
                if done.stdout != "it ran\n" and not done.stderr.endswith(lost):
                    opened.append(f"{case}: exit 0, and it did not run: {done.stdout!r} {done.stderr!r}")
            elif wrong := refused(done, place.root, *FULL):
                opened.append(f"{case}: {wrong}")
            else:
                failed += 1
            if left := place.left(besides=["keep"]):
                leaked.append(f"{case}: {left}")
    disk.clear()
    assert must(place.run("inspect", "-f", "{{.State.Status}}", "keep")) == "running\n"
    tried = 3 * len(steps)
    table.add(table.Row(f"state on a full disk, {what}", tried, tolerated, failed, len(leaked), 0, len(opened)))
    assert not leaked + opened, "\n".join(leaked + opened)
    assert failed >= 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["pages", "inodes"])
def test_what_is_there_outlives_a_full_disk(place: Place, what: str) -> None:
    """Every verb that changes a record, with no room at all: refused with the old record whole, or done."""
    disk = Disk(place, place.root, inodes=90 if what == "inodes" else 0)
    must(place.run("run", "-d", *words_of(place, "runs", "trap 'exit 4' TERM; while :; do sleep 0.05; done")))
    must(place.run("create", *words_of(place, "held", "echo it ran")))
    # what its last life left goes first, and makes room: not so much
    must(place.run("run", "-d", *words_of(place, "over", "exit 3", *(f"-eBIG{i}={'x' * 9999}" for i in range(9)))))
    must(place.run("wait", "over"))
    disk.fill(**{what: 0})
    files = {name: place.root / "containers" / place.id_of(name) / "state.json" for name in ("runs", "held", "over")}
    before = {name: path.read_bytes() for name, path in files.items()}
    memory = must(place.run("inspect", "-f", "{{json .Limits.memory}}", "runs"))
    again = [["start", "over"]] if what == "pages" else []  # the files that its last life left make room for those
    for words in (["rename", "runs", "walks"], ["update", "-m", "64m", "runs"], ["start", "held"], *again):
        assert refused(place.run(*words), place.root, *FULL) == "", words
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert must(place.run("inspect", "-f", "{{json .Limits.memory}}", "runs")) == memory
    assert place.id_of("walks") == ""
    rows = json.loads(must(place.run("ps", "-a", "--format", "json")))
    assert {row["Names"]: row["State"] for row in rows} == {"runs": "running", "held": "created", "over": "exited"}
    assert must(place.run("wait", "over")) == "3\n"
    assert must(place.run("exec", "runs", "echo", "here")) == "here\n"
    for verb in ("pause", "unpause", "stop"):
        must(place.run(verb, "runs"))
    assert must(place.run("wait", "runs")) == "4\n"  # the room for it was made before it ran
    must(place.run("rm", "runs", "over"))  # and that makes room
    disk.fill(**{what: 0})
    must(place.run("gc"))
    disk.clear()
    must(place.run("start", "held"))
    assert must(place.run("wait", "held")) == "0\n"
    assert must(place.run("logs", "held")) == "it ran\n"
    must(place.run("rm", "held"))
    left = place.left()
    table.add(table.Row(f"what is there, no {what}", 10 + len(again), 7, 3 + len(again), len(left), 0, 0))
    assert left == []


@pytest.mark.timeout(120)
def test_a_read_only_state_directory(place: Place) -> None:
    """Read-only for the command alone, in a mount namespace of its own; the monitor has it as it was."""
    must(place.run("run", "-d", *words_of(place, "runs", "exec sleep 600")))
    must(place.run("run", "-d", *words_of(place, "over", "echo it ran; exit 3")))
    must(place.run("wait", "over"))

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "-m", "sh", "-c", READ_ONLY, str(place.root), *cli(), *words]
        with place.popen(command, stdout=-1, stderr=-1, text=True) as process:
            out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    for verb in (["run"], ["run", "-d"], ["create"]):
        assert refused(say(*verb, *words_of(place, "try", "echo it ran")), place.root, *RO) == "", verb
    rows = json.loads(must(say("ps", "-a", "--format", "json")))
    assert {row["Names"]: row["State"] for row in rows} == {"runs": "running", "over": "exited"}
    assert must(say("logs", "over")) == "it ran\n"
    assert must(say("wait", "over")) == "3\n"
    assert must(say("exec", "runs", "echo", "here")) == "here\n"
    must(say("gc"))
    for words in (["rm", "over"], ["rename", "over", "past"], ["start", "over"], ["update", "-m", "64m", "runs"]):
        assert refused(say(*words), place.root, *RO) == "", words
    assert must(place.run("wait", "over")) == "3\n"
    assert place.left(besides=["runs", "over"]) == []
    must(say("stop", "-t", "0", "runs"))
    must(place.run("start", "runs"))
    assert refused(say("rm", "-f", "runs"), place.root, *RO) == ""  # it is ended; what is written of it cannot go
    must(place.run("rm", "-f", "runs", "over"))
    left = place.left()
    table.add(table.Row("state read-only", 14, 6, 8, len(left), 0, 0))
    assert left == []


# --- logs ---

TALKS = """
i=0; while [ $i -lt 20000 ]; do echo "line $i"; i=$((i+1)); done
echo full > /t/said; until [ -e /t/go ]; do sleep 0.02; done
echo "it is over"; exit 7
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("room", [True, False], ids=["room again", "full to the end"])
def test_a_container_that_logs_to_a_full_disk_goes_on(place: Place, room: bool) -> None:
    disk = Disk(place, place.root)
    disk.fill(pages=24)
    must(place.run("run", "-d", *words_of(place, "talks", TALKS, "--tmpfs", "/t")))
    eventually(lambda: place.run("exec", "talks", "cat", "/t/said").stdout == "full\n", 30, "it does not go on")
    assert os.statvfs(place.root).f_bfree == 0
    if room:
        disk.clear()
    must(place.run("exec", "talks", "touch", "/t/go"))
    assert must(place.run("wait", "talks")) == "7\n"
    log = place.root / "containers" / place.id_of("talks") / "log"
    whole, seen, told = "".join(f"line {i}\n" for i in range(20000)) + "it is over\n", 0, 0
    for line in log.read_text().splitlines():  # what is there is whole, and where something is missing it is told
        _, stream, kind, text = line.split(" ", 3)
        if stream == "minictr":
            told += int(text.split("(")[1].split()[0])
        else:
            text += "\n" * (kind == "F")
            assert whole[seen + told :].startswith(text), (seen, told, line)
            seen += len(text)
    lost = int(dict(word.split("=") for word in (log.parent / "exit").read_text().split()[2:])["lost"])
    assert seen + lost == len(whole)
    assert told == lost > 0 if room else told <= lost > 0
    complaint = f"minictr logs: talks: {lost} bytes of its output could not be logged: the disk was full\n"
    assert place.run("logs", "talks").stderr.endswith(complaint)
    disk.clear()
    must(place.run("rm", "talks"))
    left = place.left()
    table.add(table.Row("log on a full disk" + ", room again" * room, 1, 1, 0, len(left), 0, 0))
    assert left == []


# --- what is copied ---


@pytest.mark.timeout(120)
def test_copies_that_do_not_fit(place: Place) -> None:
    """``cp`` in both directions, and ``commit``: the old file whole, nothing half made, and a line that says so."""
    disk = Disk(place, place.directory / "cache" / "disk", size="256k")
    before = disk.path / "before"
    before.write_bytes(EXISTING)
    script = "head -c 1000000 /dev/urandom > /big; mkdir /d; cp /big /d/a; echo mine > /t/small; exec sleep 600"
    must(place.run("run", "-d", *words_of(place, "c", script, "--overlay", "--tmpfs", "/t:size=64k")))
    eventually(lambda: place.run("exec", "c", "cat", "/t/small").stdout == "mine\n", 30, "it never comes up")
    wrong = []
    cases = {
        f"cp -q c:/big {before}": str(disk.path),
        f"cp -q c:/big {disk.path}/new": str(disk.path),
        f"cp -q c:/d {disk.path}/tree": str(disk.path),
        f"cp -q {place.rootfs}/bin/bash c:/t/small": "/t",
        f"cp -q {place.rootfs}/bin/bash c:/t/new": "/t",
        f"commit c {disk.path}/layer.tar": str(disk.path),
        f"commit c {disk.path}/layer": str(disk.path),
        f"commit --whole c {disk.path}/whole.tar.gz": str(disk.path),
        f"commit --whole c {disk.path}/whole": str(disk.path),
    }
    for words, named in cases.items():
        done = place.run(*words.split(), timeout=60)
        if text := refused(done, Path(named), *FULL):
            wrong.append(f"{words}: {text}")
        left = {path.name for path in disk.path.iterdir()} - {"before"}
        if left - ({"tree"} if " c:/d " in words else set()):  # a tree that fails half way leaves what was copied
            wrong.append(f"{words}: left {left}")
            subprocess.run(["rm", "-rf", *(disk.path / name for name in left)], check=True)
        (disk.path / "tree").is_dir() and subprocess.run(["rm", "-rf", disk.path / "tree"], check=True)
    for words in ("cp c:/big -", "commit c -"):
        with open("/dev/full", "w") as full:
            done = place.run(*words.split(), stdout=full)
        if done.returncode == 0 or len(done.stderr.splitlines()) != 1 or not any(word in done.stderr for word in FULL):
            wrong.append(f"{words} > /dev/full: {done.returncode} {done.stderr!r}")
    assert before.read_bytes() == EXISTING
    assert must(place.run("exec", "c", "cat", "/t/small")) == "mine\n"
    assert must(place.run("exec", "c", "ls", "/t")) == "small\n"
    must(place.run("rm", "-f", "c"))
    left = place.left()
    table.add(table.Row("cp, commit to a full disk", 11, 0, 11 - len(wrong), len(left), 0, 0))
    assert not wrong + left, "\n".join(wrong + left)
