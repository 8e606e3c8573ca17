"""What is mounted where, with which flags; each mount on and off, as /proc/self/mountinfo has it."""

from __future__ import annotations

import os
import subprocess

import pytest
from boxes import listing

import minictr as mc

PLAIN = {"nosuid", "nodev", "noexec"}


@pytest.mark.parametrize(
    ("name", "path", "kind", "flags"),
    [
        ("proc", "/proc", "proc", {"rw", *PLAIN}),
        ("sysfs", "/sys", "sysfs", {"ro", *PLAIN}),
        ("dev", "/dev", "tmpfs", {"rw", "nosuid"}),
        ("devpts", "/dev/pts", "devpts", {"rw", "nosuid", "noexec"}),
        ("shm", "/dev/shm", "tmpfs", {"rw", *PLAIN}),
        ("mqueue", "/dev/mqueue", "mqueue", {"rw", *PLAIN}),
    ],
)
def test_the_kernels_file_systems(box, mountinfo, name, path, kind, flags):
    fields = mountinfo(box)[path]
    assert fields[fields.index("-") + 1] == kind
    assert set(fields[5].split(",")) - {"relatime"} == flags
    if name != "proc":  # without /proc there is no mountinfo to read
        assert path not in mountinfo(box.without(name))


def test_proc_off(box, sh):
    assert sh(box.without("proc"), "ls /proc") == ""


def test_nothing_else_is_mounted(box, mountinfo):
    masks = {path for f in box.features if f.name == "masked_paths" for path in f.paths}
    readonly = {path for f in box.features if f.name == "readonly_paths" for path in f.paths}
    known = {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    found = {path for path in mountinfo(box) if not path.startswith("/sys/fs/cgroup")}  # see test_cgroups.py
    assert found <= known | masks | readonly
    assert set(mountinfo(mc.Container(box.rootfs, features=[mc.MountNamespace(), mc.PivotRoot(), mc.Proc()]))) == {
        "/", "/proc"
    }  # fmt: skip


def test_devices(box, sh):
    listed = sh(box, "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty").splitlines()
    assert listed == [
        f"{name} character special file {numbers} 666"
        for name, numbers in (
            ("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")
        )
    ]  # fmt: skip
    assert sh(box, "cd /dev; LC_ALL=C; echo *") == (
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    )
    assert sh(box, "echo x > /dev/null; head -c 3 /dev/zero | od -An -tx1; readlink /dev/fd /dev/ptmx") == (
        "00 00 00\n/proc/self/fd\npts/ptmx"
    )


def test_devices_in_a_user_namespace(box, sh):
    rows = ((0, 100_000, 65_536),)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows))
    assert (
        sh(mapped, "echo x > /dev/null; head -c 2 /dev/zero | od -An -tx1; test -c /dev/tty && echo tty")
        == "00 00\ntty"
    )


def test_shm_is_limited(box, mountinfo, sh):
    assert "size=65536k" in mountinfo(box)["/dev/shm"][-1]
    small = box.with_(mc.Shm(size="1M", inodes=10))
    assert int(sh(small, "head -c 2000000 /dev/zero 2>/dev/null > /dev/shm/x; stat -c %s /dev/shm/x")) == 1 << 20
    assert "No space" in sh(small, "for i in 1 2 3 4 5 6 7 8 9 10; do : > /dev/shm/$i; done 2>&1; true")


def test_masked_paths(box, sh, mountinfo):
    assert sh(box, "cat /proc/timer_list /proc/keys /proc/interrupts; ls -A /sys/firmware") == ""
    assert sh(box.without("masked_paths"), "cat /proc/interrupts") != ""
    shown = box.with_(mc.MaskedPaths(("/etc/passwd", "/home", "/no/such/path", "/etc/passwd/below")))
    assert sh(shown, "cat /etc/passwd; ls -A /home; ls -d /no 2>/dev/null; true") == ""
    assert set(mountinfo(shown)) >= {"/etc/passwd", "/home"}
    assert set(mountinfo(shown)["/etc/passwd"][5].split(",")) >= {"ro", *PLAIN}


def test_masks_leave_no_trace_at_the_root(box, mountinfo, sh):
    """They are cut from a tmpfs that lies over / for a moment: it must be gone, and .. of /proc must be the root."""
    lines = sh(box, "cat /proc/self/mountinfo").splitlines()
    assert sum(line.split()[4] == "/" for line in lines) == 1
    assert sh(box, "cd /proc/..; echo *") == sh(box.without("masked_paths"), "cd /; echo *")


def test_readonly_paths(box, sh):
    assert "Read-only" in sh(box, "exec 2>&1; echo 1 > /proc/sys/net/ipv4/ip_default_ttl", code=1)
    writable = box.without("readonly_paths")
    assert sh(writable, "echo 9 > /proc/sys/net/ipv4/ip_default_ttl; cat /proc/sys/net/ipv4/ip_default_ttl") == "9"
    fixed = box.with_(mc.Tmpfs("/run/a"), mc.Tmpfs("/run/a/b"), mc.ReadonlyPaths(("/run",)))
    assert "Read-only" in sh(fixed, "touch /run/a/b/x 2>&1", code=1)


# --- tmpfs ---


def test_tmpfs(box, sh, mountinfo):
    made = box.with_(mc.Tmpfs("/run/x", size="1M", mode=0o750, options=("uid=1000", "gid=1001")))
    assert sh(made, "stat -c '%a %u %g' /run/x") == "750 1000 1001"
    fields = mountinfo(made)["/run/x"]
    assert set(fields[5].split(",")) >= PLAIN and "size=1024k" in fields[-1]
    lifted = box.with_(mc.Tmpfs("/run/x", options=("exec", "suid", "dev", "ro")))
    assert set(mountinfo(lifted)["/run/x"][5].split(",")) - {"relatime"} == {"ro"}


def test_tmpfs_is_gone_afterwards(box, sh):
    here = box.with_(mc.Tmpfs("/tmp"))
    assert sh(here, "touch /tmp/a; ls /tmp") == "a"
    assert sh(here, "ls /tmp") == ""


# --- binds ---


@pytest.fixture
def tree(tmp_path):
    """A directory with a file, and with a tmpfs mounted in it; unmounted at the end."""
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "file").write_text("content\n")
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "tree" / "below"], check=True)
    (tmp_path / "tree" / "below" / "deep").write_text("deep\n")
    yield tmp_path / "tree"
    subprocess.run(["umount", tmp_path / "tree" / "below"], check=True)


def test_bind(box, sh, tree):
    bound = box.with_(mc.Bind(str(tree), "/mnt"))
    assert sh(bound, "cat /mnt/file /mnt/below/deep; echo new > /mnt/new; echo changed > /mnt/file") == "content\ndeep"
    assert (tree / "new").read_text() == "new\n" and (tree / "file").read_text() == "changed\n"
    assert "below" not in sh(box, "ls /mnt")  # other tests of the session may have made mount points there


def test_bind_not_recursive(box, sh, tree):
    assert sh(box.with_(mc.Bind(str(tree), "/mnt", recursive=False)), "cd /mnt; echo * below/*") == (
        "below file below/*"
    )


@pytest.mark.parametrize(("readonly", "below"), [("ro", True), ("rro", False), ("", True)])
def test_bind_readonly(box, sh, tree, readonly, below):
    bound = box.with_(mc.Bind(str(tree), "/mnt", readonly=readonly))
    assert sh(bound, "touch /mnt/x 2>/dev/null && echo wrote; true") == ("" if readonly else "wrote")
    assert sh(bound, "touch /mnt/below/x 2>/dev/null && echo wrote; true") == ("wrote" if below else "")


def test_bind_flags(box, tree, mountinfo):
    bound = box.with_(mc.Bind(str(tree), "/mnt", nosuid=True, nodev=True, noexec=True))
    assert set(mountinfo(bound)["/mnt"][5].split(",")) >= PLAIN
    bound = box.without("nodev").with_(mc.Bind(str(tree), "/mnt"))
    assert not set(mountinfo(bound)["/mnt"][5].split(",")) & PLAIN


def test_nodev(box, tree, mountinfo, sh):
    """The root, an overlay, a bind with all that is mounted in it; not /dev, nor what is the host's /dev, nor `dev`."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "below"], check=True)
    try:
        for features in ((), (mc.Overlay(),)):
            found = mountinfo(box.with_(mc.Bind(str(tree), "/mnt"), *features))
            has = {path for path, fields in found.items() if "nodev" in fields[5].split(",")}
            assert {"/", "/mnt", "/mnt/below"} <= has and "/dev" not in has
        for bind in (mc.Bind(str(tree), "/mnt", dev=True), mc.Bind("/dev", "/mnt")):
            assert "nodev" not in mountinfo(box.with_(bind))["/mnt"][5].split(",")
        assert sh(box.with_(mc.Bind("/dev/null", "/etc/shadow")), "cat /etc/shadow") == ""
        found = mountinfo(box.without("nodev").with_(mc.Bind(str(tree), "/mnt")))
        assert not [path for path in ("/", "/mnt", "/mnt/below") if "nodev" in found[path][5].split(",")]
    finally:
        subprocess.run(["umount", tree / "below"], check=True)


@pytest.mark.parametrize("target", ["/dev", "/proc", "/sys", "/dev/shm"])
def test_a_bind_that_a_link_leads_below_ours(box, own_rootfs, tree, target):
    """/dev and its like are mounted after it, so nothing is made in it; and what is covered then ends the start."""
    (own_rootfs / "way").symlink_to(target)
    (own_rootfs / "dev/shm").mkdir(parents=True, exist_ok=True)
    before = listing(tree)
    for feature in (mc.Bind(str(tree), "/way"), mc.Tmpfs("/way")):
        with pytest.raises(mc.StepFailed, match=r"verify mount /way: EPERM .*a symbolic link led it"):
            mc.Container(own_rootfs).with_(feature).run(["true"])
    assert listing(tree) == before


def test_a_bind_that_a_link_leads_elsewhere(own_rootfs, tree, sh):
    (own_rootfs / "way").symlink_to("var/lib")
    box = mc.Container(own_rootfs).with_(mc.Bind(str(tree), "/way"), mc.Tmpfs("/var/lib/below"))
    assert sh(box, "cat /way/file; stat -fc %T /way/below") == "content\ntmpfs"


def test_bind_a_file(box, sh, tree, own_rootfs):
    """On a file that is there, and on one that is made: empty, in the image, as docker does."""
    assert sh(box.with_(mc.Bind(str(tree / "file"), "/etc/hostname", "ro")), "cat /etc/hostname") == "content"
    own = mc.Container(own_rootfs, features=box.features).with_(mc.Bind(str(tree / "file"), "/new/place/file"))
    assert sh(own, "cat /new/place/file") == "content"
    assert (own_rootfs / "new/place/file").read_text() == ""


def test_bind_over_one_another_in_depth(box, sh, tree, tmp_path):
    """Whatever order they are given in: parents are mounted first."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o").touch()
    binds = [mc.Bind(str(tmp_path / "other"), "/mnt/below"), mc.Bind(str(tree), "/mnt")]
    assert sh(box.with_(*binds), "ls /mnt/below") == sh(box.with_(*reversed(binds)), "ls /mnt/below") == "o"


def test_bind_what_is_not_there(box):
    with pytest.raises(mc.StepFailed, match=r"/no/such/source.*ENOENT.*feature bind.*does not exist on the host"):
        box.with_(mc.Bind("/no/such/source", "/mnt")).run(["true"])


def test_bind_a_directory_on_a_file(box, tree):
    with pytest.raises(mc.StepFailed, match="a directory can only be mounted on a directory"):
        box.with_(mc.Bind(str(tree), "/etc/passwd")).run(["true"])


def test_mounts_of_the_host_come_in_with_rslave_only(box, tree):
    """A mount that is made on the host while the container runs."""
    (tree / "later").mkdir()
    subprocess.run(["mount", "--bind", tree, tree], check=True)
    subprocess.run(["mount", "--make-shared", tree], check=True)
    script = "echo ready; read go; ls /mnt/later"
    try:
        for word, seen in (("", b""), ("rslave", b"came-in\n")):
            table = mc.MountNamespace(propagation="slave" if word else "private")
            bound = box.with_(table, mc.Bind(str(tree), "/mnt", propagation=word))
            with bound.popen(["sh", "-c", script], stdin=mc.PIPE, stdout=mc.PIPE) as process:
                assert process.stdout.readline() == b"ready\n"
                subprocess.run(["mount", "-t", "tmpfs", "later", tree / "later"], check=True)
                (tree / "later" / "came-in").touch()
                assert process.communicate(b"\n", timeout=10)[0] == seen
            subprocess.run(["umount", tree / "later"], check=True)
    finally:
        subprocess.run(["umount", tree], check=True)


def test_idmapped_bind(box, sh, tmp_path):
    rows = ((0, 100_000, 65_536),)
    tmp_path.chmod(0o755)
    (tmp_path / "mine").write_text("x")
    os.chown(tmp_path / "mine", 1000, 1000)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows))
    plain = sh(mapped.with_(mc.Bind(str(tmp_path), "/mnt")), "stat -c '%u %g' /mnt/mine")
    assert plain == "65534 65534"
    bound = mapped.with_(mc.Bind(str(tmp_path), "/mnt", idmap=True))
    assert sh(bound, "stat -c '%u %g' /mnt/mine; touch /mnt/made; stat -c %u /mnt/made") == "1000 1000\n0"
    assert os.stat(tmp_path / "made").st_uid == 0


def test_sixty_binds_and_too_many(box, sh, tmp_path):
    binds = [mc.Bind(str(tmp_path), f"/run/b{i}") for i in range(60)]
    assert sh(box.with_(mc.Tmpfs("/run"), *binds), "ls /run | wc -l") == "60"
    with pytest.raises(mc.SpecError, match="bind"):
        box.with_(*binds, *(mc.Bind(str(tmp_path), f"/run/c{i}") for i in range(60))).run(["true"])
