"""Root mapped to ids that nobody has, and a root shown through the maps: by /proc, and by stat from both sides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import eventually

import minictr as mc
from minictr.kernel import subids
from minictr.kernel.users import read_map
from minictr.runtime.ledger import close_ledger
from minictr.runtime.store import Store
from minictr.runtime.sweep import sweep

ALL = ((0, 0, 0xFFFFFFFF),)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    yield Store()
    close_ledger()


@pytest.fixture
def root(lab: Path, tmp_path: Path) -> Path:
    """A copy of the root to write to, with a file of alice's."""
    path = tmp_path / "rootfs"
    subprocess.run(["cp", "-a", "--reflink=auto", str(lab), str(path)], check=True)
    (path / "mine").write_text("root's\n")
    (path / "mine").chmod(0o600)
    (path / "alices").touch()
    os.chown(path / "alices", 1000, 1001)
    return path


@pytest.fixture
def auto(root: Path, store: Store) -> mc.Container:
    return mc.Container(root).with_(mc.UserNamespace(auto=65536), mc.Idmap())


def leases(store: Store) -> list[tuple[int, int, int]]:
    names = os.listdir(f"{store.path}/ids") if os.path.isdir(f"{store.path}/ids") else []
    return sorted(tuple(map(int, name.split("-"))) for name in names)  # type: ignore[misc]


def owner(path: Path) -> tuple[int, int]:
    stat = os.lstat(path)
    return stat.st_uid, stat.st_gid


def test_root_is_an_id_that_nobody_has(auto: mc.Container, store: Store) -> None:
    with auto.popen(["sleep", "60"]) as process:
        (uids,), (gids,) = (read_map(process.pid, kind=kind) for kind in ("uid", "gid"))
        assert (uids[0], uids[2], gids[0], gids[2]) == (0, 65536, 0, 65536)
        assert leases(store) == [(uids[1], gids[1], 65536)]
        first, count = subids.configured("uid")[0]
        assert first <= uids[1] < uids[1] + 65536 <= first + count
        assert os.stat(f"/proc/{process.pid}/cwd").st_uid in (uids[1], 0)
        assert Path(f"/proc/{process.pid}/setgroups").read_text() == "allow\n"
        process.kill()
    assert leases(store) == []


def test_off_it_is_the_hosts(auto: mc.Container, store: Store) -> None:
    with auto.without("userns").popen(["sleep", "60"]) as process:
        assert read_map(process.pid) == ALL
        assert leases(store) == []
        process.kill()


LAYERS = [(), (mc.Overlay(),), (mc.Overlay(("LOWER",), "UPPER"),)]


@pytest.fixture(params=LAYERS, ids=["plain", "overlay", "kept"])
def layered(request: pytest.FixtureRequest, auto: mc.Container, tmp_path: Path) -> mc.Container:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "deep").touch()
    os.chown(tmp_path / "low" / "deep", 7, 8)
    places = {"LOWER": str(tmp_path / "low"), "UPPER": str(tmp_path / "up")}
    layers = [mc.Overlay(tuple(places[one] for one in o.lower), places.get(o.upper, "")) for o in request.param]
    return auto.with_(*layers)


def test_nothing_is_chowned(layered: mc.Container, root: Path, tmp_path: Path, sh) -> None:
    """What is root's on disk is root's inside, and what root inside writes is root's on disk."""
    before = {path: owner(path) for path in root.rglob("*")}
    script = (
        "stat -c '%u:%g' /mine /alices /etc/passwd; cat /mine; echo new > /new; chown 33:34 /new; echo x >> /mine;"
        "mkdir -p /home/d; rm -r /home/d; mkdir /home/d; stat -c '%u:%g' /new /home/d"
    )
    assert sh(layered, script).split() == ["0:0", "1000:1001", "0:0", "root's", "33:34", "0:0"]
    overlay = layered.spec().get("overlay")
    assert {path: owner(path) for path in before} == before
    if overlay is None:
        assert owner(root / "new") == (33, 34)
        assert (root / "mine").read_text() == "root's\nx\n"
        return
    assert (root / "mine").read_text() == "root's\n"
    assert not (root / "new").exists()
    if overlay.upper:  # type: ignore[attr-defined]
        assert owner(tmp_path / "up" / "new") == (33, 34)
        assert owner(tmp_path / "up" / "mine") == (0, 0)
        assert sh(layered, "stat -c '%u:%g' /new /deep; cat /mine").split() == ["33:34", "7:8", "root's", "x"]


def test_off_files_are_nobodys(layered: mc.Container, sh) -> None:
    unmapped = layered.without("idmap")
    if getattr(layered.spec().get("overlay"), "upper", ""):
        with pytest.raises(mc.SpecError, match="add idmap"):
            unmapped.run(["true"])
        return
    if "overlay" in layered.spec().names:
        with pytest.raises(mc.StepFailed, match="add idmap"):  # pytest's directories are closed to others
            unmapped.run(["true"])
        return
    assert sh(unmapped, "stat -c '%u:%g' /mine /alices").split() == ["65534:65534"] * 2


def test_the_hosts_view_of_a_running_one(auto: mc.Container, root: Path) -> None:
    with auto.popen(["sleep", "60"]) as process:
        ((_, first, _),) = read_map(process.pid)
        inside = Path(f"/proc/{process.pid}/root")
        assert owner(inside / "mine") == (first, first)
        assert owner(inside / "alices") == (first + 1000, first + 1001)
        assert owner(root / "mine") == (0, 0)
        process.kill()


def test_nothing_lies_over_the_root(layered: mc.Container, sh) -> None:
    """The layers hang over "/" for a moment: none of them, nor the host's root, may be left there."""
    same, *listed = sh(layered, "stat -c '%d:%i' / /.. /etc/.. | uniq; ls /..").split("\n")
    assert ":" in same
    assert listed == sh(layered, "ls /").split("\n")
    plain = layered.without("userns", "idmap")
    count = "wc -l < /proc/self/mountinfo"
    devices = 6  # bound one by one in a user namespace
    assert int(sh(layered, count)) == int(sh(plain, count)) + devices


def test_two_at_once_share_no_id(auto: mc.Container, store: Store) -> None:
    sizes = [65536, 1000, 65536, 1]
    running = [auto.with_(mc.UserNamespace(auto=size)).popen(["sleep", "60"]) for size in sizes]
    try:
        found = [(kind, *read_map(one.pid, kind=kind)[0]) for one in running for kind in ("uid", "gid")]
        for kind in ("uid", "gid"):
            rows = sorted((first, count) for which, _, first, count in found if which == kind)
            assert [count for _, count in sorted(rows, key=lambda row: row[1])] == sorted(sizes)
            assert all(first + count <= later for (first, count), (later, _) in zip(rows, rows[1:], strict=False))
        assert len(leases(store)) == 4
    finally:
        for one in running:
            one.kill()
            one.close()
    assert leases(store) == []


HOLDER = """
import sys
import minictr as mc
box = mc.Container(sys.argv[1]).with_(mc.UserNamespace(auto=65536), mc.Idmap())
process = box.popen(["sleep", "60"])
print(process.pid, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(store: Store, root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-c", HOLDER, str(root)]
    with subprocess.Popen(command, text=True, stdin=-1, stdout=-1) as process:
        yield process
        process.kill()
        process.wait()
    sweep(store)


def test_another_state_directory_is_heard(
    holder, auto: mc.Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the maps of its processes: its leases are not looked at."""
    ((_, first, _),) = read_map(int(holder.stdout.readline()))
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "another"))
    monkeypatch.setattr(subids, "configured", lambda _kind: ((first, 131072),))
    with auto.popen(["sleep", "60"]) as other:
        assert read_map(other.pid)[0][1] == first + 65536
        with pytest.raises(mc.StepFailed, match="ENOSPC"):
            auto.run(["true"])
        other.kill()


def test_a_killed_runtime_gives_back_with_the_sweep(holder, store: Store) -> None:
    pid = int(holder.stdout.readline())
    ((first, _, _),) = leases(store)
    assert read_map(pid)[0][1] == first
    assert not [line for line in sweep(store) if "ids" in line]  # its owner lives
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(leases(store)) == 1
    told = sweep(store)
    assert any(line.startswith("ids ") and str(first) in line for line in told), told
    assert leases(store) == []
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), 5)


def test_a_start_that_fails_gives_back(auto: mc.Container, store: Store) -> None:
    with pytest.raises(mc.MinictrError):
        auto.with_(mc.Bind("/nowhere", "/x")).run(["true"])
    assert leases(store) == []


def test_exhaustion_is_told_and_passes(auto: mc.Container, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranges of a tiny file's; the third start is an error that names it, until one of them is over."""
    monkeypatch.setattr(subids, "configured", lambda kind: ((1879100000 + 10000 * (kind == "gid"), 25),))
    small = auto.with_(mc.UserNamespace(auto=10))
    first, second = small.popen(["sleep", "60"]), small.popen(["sleep", "60"])
    try:
        assert [row[:2] for row in leases(store)] == [(1879100000, 1879110000), (1879100010, 1879110010)]
        with pytest.raises(mc.StepFailed) as caught:
            small.run(["true"])
        words = str(caught.value)
        assert "find 10 free uids in a row within 1879100000-1879100024: ENOSPC" in words
        assert "feature userns" in words
        assert "/etc/subuid" in words and "auto:size=N" in words
        first.kill()
        first.close()
        assert small.run(["true"]).returncode == 0
    finally:
        for one in (first, second):
            one.kill()
            one.close()


# --- what stays closed ---


def test_a_file_of_the_hosts_root_is_closed_to_root_inside(auto: mc.Container, tmp_path: Path, sh) -> None:
    """Bound without idmap it is nobody's; with idmap, as asked for, root's inside. Without userns root is root."""
    (tmp_path / "volume").mkdir()
    secret = tmp_path / "volume" / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    script = "stat -c %u /v/secret; cat /v/secret 2>&1; echo x >> /v/secret; touch /v/new; echo done"
    plain = auto.with_(mc.Bind(str(tmp_path / "volume"), "/v"))
    said = sh(plain, f"({script}) 2>&1")
    assert said.startswith("65534")
    assert said.count("ermission denied") == 3
    assert secret.read_text() == "secret\n"
    assert not (tmp_path / "volume" / "new").exists()
    assert sh(auto.with_(mc.Bind(str(tmp_path / "volume"), "/v", idmap=True)), script).split() == [
        "0",
        "secret",
        "done",
    ]
    assert secret.read_text() == "secret\nx\n"
    assert owner(tmp_path / "volume" / "new") == (0, 0)
    assert sh(plain.without("userns", "idmap"), script).split()[:2] == ["0", "secret"]


def test_ids_without_a_row_cannot_be_made(auto: mc.Container, sh) -> None:
    assert "nvalid argument" in sh(auto, "chown 65536 /mine 2>&1 || true")
    assert sh(auto, "chown 65535 /mine && stat -c %u /mine") == "65535"


def test_no_device_of_the_image_opens(root: Path, auto: mc.Container, sh) -> None:
    """In an overlay that is the user namespace's own the kernel lets none, with or without the feature ``nodev``."""
    os.mknod(root / "zero", 0o20666, os.makedev(1, 5))
    overlay = auto.with_(mc.Overlay())
    assert "denied" in sh(overlay, "head -c1 /zero 2>&1 | cat")
    overlay = overlay.without("nodev")
    assert "denied" in sh(overlay, "head -c1 /zero 2>&1 | cat")
    assert "denied" not in sh(overlay.without("userns", "idmap"), "head -c1 /zero 2>&1 | cat -v")


def test_a_file_system_that_cannot_be_mapped(auto: mc.Container, tmp_path: Path, store: Store) -> None:
    """An overlay of the host's as root; the error says which file system, and the cure."""
    from minictr.kernel import mounts

    for name in ("up", "work", "merged"):
        (tmp_path / name).mkdir()
    layers = {"upper": str(tmp_path / "up"), "work": str(tmp_path / "work")}
    with mounts.overlay(str(tmp_path / "merged"), lower=[auto.rootfs], **layers):
        with pytest.raises(mc.StepFailed) as caught:
            auto.replace(rootfs=tmp_path / "merged").run(["true"])
        words = str(caught.value)
        assert f"overlay (on {tmp_path}/merged) cannot be id-mapped" in words
        assert "feature idmap" in words and "--without idmap" in words
        assert leases(store) == []
        bare = auto.replace(rootfs=tmp_path / "merged").without("idmap")
        assert bare.run(["true"]).returncode == 0


def test_fixed_maps_show_the_root_as_well(root: Path, store: Store, sh) -> None:
    maps = ((0, 100000, 1000), (1000, 300000, 10))
    box = mc.Container(root).with_(mc.UserNamespace(maps, maps), mc.Idmap(), mc.Overlay())
    assert sh(box, "stat -c %u:%g /mine /alices").split() == ["0:0", "1000:1001"]
    assert leases(store) == []


def test_an_upper_that_is_a_mount_point(auto: mc.Container, tmp_path: Path) -> None:
    from minictr.kernel import mounts

    (tmp_path / "up").mkdir()
    with mounts.tmpfs(str(tmp_path / "up")), pytest.raises(mc.StepFailed, match="something is mounted there"):
        auto.with_(mc.Overlay((), str(tmp_path / "up"))).run(["true"])


def test_an_ordinary_user_is_told(store: Store, monkeypatch: pytest.MonkeyPatch, auto: mc.Container) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(mc.Unsupported, match="only root may take ids"):
        auto.without("pids", "idmap").run(["true"])
