"""Names over hostile images, and somebody else's: what is at these paths is covered, and never followed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import World, hosts, listing, mounts

FILES = ("hosts", "resolv.conf", "hostname")


@pytest.mark.parametrize("kind", ["missing", "dangling", "absolute", "proc", "outside", "fifo", "device", "empty_etc"])
@pytest.mark.parametrize("options", [(), ("--read-only",), ("--overlay",)], ids=["plain", "read-only", "overlay"])
def test_whatever_the_image_has(net: World, own_rootfs: Path, etc: Path, kind: str, options: tuple[str, ...]) -> None:
    """A file, a link to anywhere, nothing: the container reads ours, and what was there is as before."""
    outside = own_rootfs.parent / "outside"
    outside.write_text("the host's\n")
    for name in FILES:
        path = etc / name
        path.unlink(missing_ok=True)
        if kind == "dangling":
            path.symlink_to("../run/systemd/resolve/stub-resolv.conf")
        elif kind == "absolute":
            path.symlink_to("/etc/passwd")
        elif kind == "proc":
            path.symlink_to("/proc/self/mem")
        elif kind == "outside":
            path.symlink_to("../" * 20 + str(outside))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, 0o020600, os.makedev(1, 3))
    if kind == "empty_etc":
        for path in etc.iterdir():
            path.unlink()
    before = listing(own_rootfs)
    net.rootfs = own_rootfs
    pid = net.start("one", "--network", "bridge", *options)
    assert mounts(net, pid).keys() >= {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
    assert net.minictr("exec", "one", "cat", "/etc/hostname") == "one"
    assert hosts(net, "one")["one"] == {net.address("one")}
    assert Path(f"/proc/{pid}/root/etc/passwd").exists() == (kind != "empty_etc")
    if options != ("--read-only",):
        net.minictr("exec", "one", "sh", "-c", "echo x >/etc/new")
    net.minictr("rm", "-f", "one")
    (etc / "new").unlink(missing_ok=True)
    assert outside.read_text() == "the host's\n"
    after = listing(own_rootfs)
    if kind in ("missing", "empty_etc") and not options:  # a mount needs a place: an empty file
        made = [row for row in after if row not in before]
        assert {Path(row[0]).name for row in made} - {"etc"} == set(FILES)
        assert all(row[4] == b"" for row in made)
    else:
        assert [row[0] for row in after] == [row[0] for row in before]
        assert [row for row in after if row[0] != str(etc)] == [row for row in before if row[0] != str(etc)]


@pytest.mark.parametrize("target", ["/", "/proc", "../../../../etc", "nowhere"])
def test_etc_as_a_link_is_refused(net: World, own_rootfs: Path, etc: Path, target: str) -> None:
    etc.rename(own_rootfs / "was-etc")
    etc.symlink_to(target)
    told = net.minictr("run", "--rootfs", own_rootfs, "--network", "bridge", "--", "true", check=False)
    assert told.startswith("125 ") and "ELOOP" in told and "make it a directory" in told, told
    words = ("--no-hosts", "--no-hostname", "--dns", "none")
    assert net.minictr("run", "--rootfs", own_rootfs, "--network", "bridge", *words, "--", "true", check=False) == "0"


def test_a_directory_of_that_name_is_refused(net: World, own_rootfs: Path, etc: Path) -> None:
    (etc / "hosts").unlink()
    (etc / "hosts").mkdir()
    told = net.minictr("run", "--rootfs", own_rootfs, "--network", "bridge", "--", "true", check=False)
    assert told.startswith("125 ") and "/etc/hosts" in told and "make it a file" in told, told


def test_volumes_come_first(net: World, tmp_path: Path) -> None:
    """Somebody's own file at that path, or all of /etc, is what the container gets, and nothing is made in it."""
    mine = tmp_path / "mine"
    mine.write_text("192.0.2.7 mine\n")
    net.start("one", "--network", "bridge", "-v", f"{mine}:/etc/hosts")
    assert net.minictr("exec", "one", "cat", "/etc/hosts") == "192.0.2.7 mine"
    directory = tmp_path / "etc"
    directory.mkdir()
    net.start("two", "--network", "bridge", "-v", f"{directory}:/etc")
    assert list(directory.iterdir()) == []


def test_the_container_cannot_reach_the_kept_file(net: World) -> None:
    """With every capability it can mount over its own view; the file of the host, and what others read, stay."""
    net.start("bad", "--network", "bridge", "--privileged")
    net.start("good", "--network", "bridge")
    path = Path(json.loads(net.minictr("inspect", "bad"))[0]["HostsPath"])
    before = Path("/proc/self/mountinfo").read_text().count("hosts")
    net.minictr("exec", "bad", "sh", "-c", "echo evil >/etc/hosts || true; : >/tmp/h", check=False)
    pid = net.pid("bad")
    subprocess.run(["nsenter", "-t", str(pid), "-m", "mount", "--bind", "/tmp/h", "/etc/hosts"], check=False)
    assert Path("/proc/self/mountinfo").read_text().count("hosts") == before
    assert "evil" not in path.read_text()
    assert hosts(net, "good")["bad"] == {net.address("bad")}


ORDINARY = """
import fcntl, os, sys
import minictr as mc
f = mc.features
roots, state = sys.argv[1:3], sys.argv[3]
mc.Container(roots[0]).run(["true"])  # what is imported later this user may not read
boxes = [
    mc.Container(root).with_(mc.UserNamespace(), f.Hosts((("db", "192.0.2.5"),)), f.ResolvConf(("192.0.2.53",)),
                             f.HostnameFile()).without("pids", "cgroupfs")
    for root in roots
]
command = ["sh", "-c", "cat /etc/hosts /etc/resolv.conf /etc/hostname; echo x >>/etc/hosts"]
for box in boxes:
    box._program(command)
os.environ["MINICTR_ROOT"] = state
os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
for box in boxes:
    done = box.run(command, capture_output=True, text=True)
    print(done.returncode, done.stderr, "192.0.2.5 db" in done.stdout, done.stdout.splitlines()[-2:])
"""


def test_an_ordinary_user(net: World) -> None:
    """In a user namespace, from roots that are somebody else's, one without the files: neither is written."""
    with tempfile.TemporaryDirectory() as top:  # one that an ordinary user may reach
        places = [os.path.join(top, name) for name in ("root", "lacking", "state")]
        os.chmod(top, 0o755)
        for place in places[:2]:
            shutil.copytree(net.rootfs, place, symlinks=True)
        for name in FILES:
            (Path(places[1]) / "etc" / name).unlink(missing_ok=True)
        os.mkdir(places[2])
        os.chown(places[2], 65534, 65534)
        before = listing(Path(places[0])), listing(Path(places[1]))
        said = net.run(sys.executable, "-P", "-c", ORDINARY, *places).splitlines()
        assert (listing(Path(places[0])), listing(Path(places[1]))) == before
    assert said == ["0  True ['nameserver 192.0.2.53', 'minictr']"] * 2
