"""A kept container with ids of its own, through all of its life: exec, cp, diff, commit, stop, start, rm."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from minictr.kernel import mounts
from minictr.kernel.users import read_map
from minictr.runtime.store import Store

AUTO = ("--userns", "auto", "--overlay")


@pytest.fixture
def pid_of(run_cli: Any) -> Callable[[str], int]:
    return lambda name: int(run_cli("inspect", "-f", "{{.State.Pid}}", name).stdout)


@pytest.fixture
def told(run_cli: Any) -> Callable[..., str]:
    """``told("exec", "web", "id")``: what it prints; its failure is ours."""

    def run(*words: object, **options: Any) -> str:
        done = run_cli(*words, **options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    return run


def leases(store: Store) -> list[str]:
    return sorted(os.listdir(f"{store.path}/ids"))


def owner(path: str | Path) -> tuple[int, int]:
    stat = os.lstat(path)
    return stat.st_uid, stat.st_gid


def test_what_is_told_of_it(detached: Any, store: Store, told: Any, pid_of: Any) -> None:
    detached("web", options=AUTO)
    pid = pid_of("web")
    ((_, first, count),) = read_map(pid)
    assert leases(store) == [f"{first}-{read_map(pid, kind='gid')[0][1]}-{count}"]
    assert json.loads(told("inspect", "-f", "{{json .IDMappings}}", "web"))["UidMap"] == [f"0:{first}:{count}"]
    effective = json.loads(told("inspect", "--effective", "--format", "json", "web"))[0]
    assert effective["user"]["uid_map"] == [[0, first, count]]
    assert effective["user"]["root_is_root"] is False
    assert str(first) in told("top", "web")
    assert "web" in told("stats", "--no-stream")


def test_a_whole_life(detached: Any, store: Store, told: Any, pid_of: Any, tmp_path: Path) -> None:
    detached("web", options=AUTO)
    pid = pid_of("web")
    ((_, first, count),) = read_map(pid)

    # exec: in the same user namespace, as its root
    script = "cat /proc/self/uid_map; id -u; echo x > /new; chown 5:6 /new; rm -r /home; mkdir /home; touch /home/there"
    assert told("exec", "web", "sh", "-c", script).split() == ["0", str(first), str(count), "0"]
    assert owner(f"/proc/{pid}/root/new") == (first + 5, first + 6)
    assert told("exec", "-u", "nobody", "web", "id", "-u").strip() == "65534"

    # cp: owners by number inside, or root's; nothing can be given to an id that is not there
    (tmp_path / "in").write_text("in\n")
    os.chown(tmp_path / "in", 7, 8)
    told("cp", "-a", tmp_path / "in", "web:/kept")
    told("cp", tmp_path / "in", "web:/roots")
    with open(tmp_path / "in.tar", "wb") as file:
        subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "in"], stdout=file, check=True)
    with open(tmp_path / "in.tar", "rb") as file:
        told("cp", "-", "web:/tmp", stdin=file)
    listed = told("exec", "web", "stat", "-c", "%u:%g", "/kept", "/roots", "/tmp/in").split()
    assert listed == ["7:8", "0:0", "7:8"]
    told("cp", "-a", "web:/new", tmp_path / "out")
    assert owner(tmp_path / "out") == (5, 6)

    # diff and commit: by the layer, in which ids are inside ones
    assert told("diff", "web").split("\n")[:2] == ["C /home", "A /home/there"]
    told("commit", "web", tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as archive:
        rows = {member.name: (member.uid, member.gid) for member in archive}
    assert rows["new"] == (5, 6)
    assert rows["kept"] == (7, 8)
    assert rows["home/.wh..wh..opq"] == rows["roots"] == (0, 0)
    told("commit", "--whole", "web", tmp_path / "whole")
    assert owner(tmp_path / "whole/new") == (5, 6)
    assert os.listdir(tmp_path / "whole/home") == ["there"]

    # over: the ids are given back, and what is looked at is the disk
    told("stop", "-t", "1", "web")
    assert leases(store) == []
    assert told("inspect", "-f", "{{json .IDMappings}}", "web").strip() == "{}"
    told("cp", "-a", "web:/kept", tmp_path / "out2")
    assert owner(tmp_path / "out2") == (7, 8)
    told("cp", "-a", tmp_path / "in", "web:/later")
    assert "A /later" in told("diff", "web")

    # once more, with whatever ids there are
    told("start", "web")
    ((_, again, _),) = read_map(pid_of("web"))
    assert leases(store)[0].startswith(f"{again}-")
    seen = told("exec", "web", "stat", "-c", "%u:%g", "/new", "/kept", "/roots", "/later", "/home/there").split()
    assert seen == ["5:6", "7:8", "0:0", "7:8", "0:0"]
    told("rm", "-f", "web")
    assert leases(store) == []


def test_created_and_two_beside_each_other(detached: Any, store: Store, told: Any, pid_of: Any) -> None:
    detached("one", options=("--userns", "auto:size=2000", "--overlay"), verb=("create",))
    detached("two", options=AUTO)
    rows = [read_map(pid_of(name))[0] for name in ("one", "two")]
    assert [count for *_, count in rows] == [2000, 65536]
    (_, a, n), (_, b, m) = rows
    assert a + n <= b or b + m <= a
    told("start", "one")
    assert told("exec", "one", "id", "-u").strip() == "0"
    told("rm", "-f", "one", "two")
    assert leases(store) == []


def test_a_killed_monitor_and_container_are_swept(
    detached: Any, store: Store, run_cli: Any, told: Any, pid_of: Any
) -> None:
    detached("web", options=AUTO)
    pid, monitor = pid_of("web"), int(told("inspect", "-f", "{{.Monitor.Pid}}", "web"))
    os.kill(monitor, 9)
    os.kill(pid, 9)
    eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert len(leases(store)) == 1
    assert "ids " in told("gc")
    assert leases(store) == []


def test_exhausted(in_own_mounts: Any, store: Store, rootfs: Path, run_cli: Any, tmp_path: Path) -> None:
    """The ranges are of a /etc/subuid of the test's own: room for one container of 1000 ids."""

    def body() -> list[str]:
        for kind, first in (("uid", 1900000000), ("gid", 1910000000)):
            (tmp_path / kind).write_text(f"containers:{first}:1500\nalice:{first + 1200}:9\n")
            mounts.bind(str(tmp_path / kind), f"/etc/sub{kind}").keep()
        words = ("--userns", "auto:size=1000", "--overlay", "--rootfs", rootfs, "--")
        first = run_cli("run", "-d", "--name", "one", *words, "sleep", "100")
        second = run_cli("run", *words, "true")
        smaller = run_cli("run", "--userns", "auto:size=200", "--rootfs", rootfs, "--", "cat", "/proc/self/gid_map")
        run_cli("rm", "-f", "one")
        third = run_cli("run", *words, "cat", "/proc/self/uid_map")
        return [first.stderr, str(second.returncode), second.stderr, smaller.stdout, third.stdout]

    first, code, words, smaller, third = in_own_mounts(body)
    assert first == ""
    assert code == "125"
    assert words.startswith("minictr run: find 1000 free uids in a row within 1900000000-1900001499: ENOSPC")
    assert words.count("\n") == 1
    assert smaller.split()[1:] in (["1910001000", "200"], ["1910001209", "200"])  # beside the nine of alice's
    assert third.split()[1:] == ["1900000000", "1000"]
    assert leases(store) == []


def test_a_next_start_that_finds_no_ids(
    in_own_mounts: Any, store: Store, rootfs: Path, run_cli: Any, tmp_path: Path
) -> None:
    """The container is over as before, with its layer and how it ended, and can be started when there are ids again."""

    def body() -> list[str]:
        for kind in ("uid", "gid"):
            (tmp_path / kind).write_text("containers:1900000000:1000\n")
            mounts.bind(str(tmp_path / kind), f"/etc/sub{kind}").keep()
        words = ("--userns", "auto:size=1000", "--overlay", "--rootfs", rootfs, "--")
        run_cli("run", "-d", "--name", "one", *words, "sh", "-c", "echo x >> /new; exit 5")
        ended = run_cli("wait", "one").stdout
        run_cli("run", "-d", "--name", "two", *words, "sleep", "100")
        refused = run_cli("start", "one").stderr
        after = run_cli("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one").stdout
        run_cli("rm", "-f", "two")
        run_cli("start", "one")
        run_cli("wait", "one")
        changed = run_cli("diff", "one").stdout
        run_cli("rm", "-f", "one")
        return [ended, refused, after, changed]

    ended, refused, after, changed = in_own_mounts(body)
    assert ended == "5\n"
    assert "find 1000 free uids" in refused
    assert after == "exited 5\n"
    assert "A /new" in changed
    assert leases(store) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--userns auto:size=0", "userns auto size: 0 is not between 1 and 16777216"),
        ("--userns auto:sise=5", "'sise=5' is not size=N"),
        ("--userns auto:uidmapping=0:1:1", "uidmapping is not built"),
        ("--userns keep-id", "keep-id is not built"),
        ("--userns auto --uidmap 0:1:1", "are maps, and --userns auto chooses some"),
        ("--userns auto --without idmap --upper /tmp/x", "add idmap"),
        ("--with idmap", "idmap needs userns"),
        ("--userns auto --user 70000", "user 70000 is not in the uid_map"),
        ("--userns auto --disable-userns --cap-add SYS_RESOURCE", "--cap-drop SYS_RESOURCE"),
    ],
)
def test_bad_wishes_touch_nothing(run_cli: Any, rootfs: Path, store: Store, options: str, words: str) -> None:
    done = run_cli("run", *options.split(), "--rootfs", rootfs, "--", "true")
    assert done.returncode == 125
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not os.path.exists(f"{store.path}/ids")


def test_the_hosts_own_root_is_not_mapped(told: Any) -> None:
    """Root inside would be root of all of its files."""
    script = "stat -c %u /etc/shadow; cat /etc/shadow 2>&1 | head -c 300"
    assert "denied" in told("run", "--userns", "auto", "--rootfs", "/", "--", "sh", "-c", script)
