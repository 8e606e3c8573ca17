"""The root: pivot_root, chroot, overlay thrown away and kept, read-only; the image is not written."""

from __future__ import annotations

import os

import pytest
from boxes import listing

import minictr as mc
from minictr.kernel import rootfs


def test_the_image_is_as_it_was(box, lab):
    before = listing(lab)
    box.run(["sh", "-c", "ls / /proc /dev > /dev/null"])
    assert listing(lab) == before


def test_pivot_root_leaves_no_way_back(box, mountinfo):
    """No mount of the host's is in the container's table: the old root is detached, not hidden."""
    table = mountinfo(box)
    assert "/" in table and table["/"][3].endswith(os.path.basename(box.rootfs))
    assert len(table) < 30 and all(not path.startswith("/tmp") for path in table)


def test_chroot_keeps_the_hosts_table(box, sh):
    """With it the host's mounts are still there, only not reachable by name: what chroot is."""
    changed = mc.Container(box.rootfs, features=[mc.Chroot() if f.name == "pivot_root" else f for f in box.features])
    assert {"bin", "etc", "usr"} <= set(sh(changed, "ls /").split())
    assert sh(changed, "head -1 /etc/passwd").startswith("root:")
    assert sh(changed, "stat -c %i /") == str(os.stat(box.rootfs).st_ino)


def test_bare_is_chroot_and_nothing_else(box, sh):
    bare = mc.Container(box.rootfs, features="bare")
    assert sh(bare, "pwd; ls /proc; echo $$").split()[0] == "/"


def test_without_a_root_it_is_the_hosts(sh):
    done = mc.Container(features=[mc.MountNamespace(), mc.Tmpfs("/mnt")]).run(["sh", "-c", "touch /mnt/x; ls /mnt"])
    assert done.returncode == 0
    assert not os.path.exists("/mnt/x")


def test_a_relative_root(box, sh, monkeypatch):
    monkeypatch.chdir(os.path.dirname(box.rootfs))
    assert sh(mc.Container("rootfs"), "ls -d /bin") == "/bin"
    monkeypatch.chdir(box.rootfs)
    assert sh(mc.Container("."), "ls -d /bin") == "/bin"


def test_a_root_with_every_kind_of_character(lab, tmp_path, sh):
    odd = tmp_path / "a b:c,d=é\\"
    odd.mkdir()
    os.rename(lab, odd / "rootfs")
    try:
        assert sh(mc.Container(odd / "rootfs"), "ls -d /bin") == "/bin"
        layered = mc.Container(odd / "rootfs").with_(mc.Overlay(upper=str(odd / "upper")))
        assert sh(layered, "touch /x; ls -d /x") == "/x"
    finally:
        os.rename(odd / "rootfs", lab)
    assert sorted(os.listdir(odd / "upper")) == ["x"]


# --- overlay ---


def test_overlay_is_thrown_away(box, lab, sh):
    before = listing(lab)
    layered = box.with_(mc.Overlay())
    assert (
        sh(layered, "rm -rf /home; mkdir /new; echo x > /etc/passwd; ls -d /new; ls -d /home 2>/dev/null; true")
        == "/new"
    )
    assert sh(layered, "ls -d /new 2>/dev/null; ls -d /home") == "/home"
    assert listing(lab) == before


def test_overlay_is_limited(box, sh):
    small = box.with_(mc.Overlay(size="1M"))
    told = sh(small, "head -c 5000000 /dev/zero 2>/dev/null > /big; stat -c %s /big")
    assert int(told) <= 1 << 20


def test_overlay_upper_is_kept(box, lab, sh, tmp_path):
    before = listing(lab)
    kept = box.with_(mc.Overlay(upper=str(tmp_path / "upper")))
    sh(kept, "echo kept > /new; rm /etc/hostname; mkdir -m 700 /dir")
    assert (tmp_path / "upper" / "new").read_text() == "kept\n"
    assert sh(kept, "cat /new; ls -d /etc/hostname 2>/dev/null; stat -c %a /dir") == "kept\n700"
    assert sorted(os.listdir(tmp_path)) == ["upper", "upper.work"]
    assert listing(lab) == before


def test_overlay_layers(box, sh, tmp_path):
    """Those named in ``lower`` lie below the root file system, nearest first."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
        (tmp_path / name / f"only-{name}").touch()
        (tmp_path / name / "bin").mkdir()
    layered = box.with_(mc.Overlay(lower=(str(tmp_path / "one"), str(tmp_path / "two"))))
    assert sh(layered, "cat /which; ls -d /only-one /only-two /bin/bash | wc -l") == "one3"


@pytest.fixture
def layers(tmp_path):
    def make(count: int) -> tuple[str, ...]:
        for number in range(count):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / f"layer-{number}").touch()
            (tmp_path / str(number) / "which").write_text(f"{number}\n")
        return tuple(str(tmp_path / str(number)) for number in range(count))

    return make


@pytest.mark.parametrize("count", [12, 13, 31, 499])
def test_many_more_layers(box, sh, layers, requires, count):
    """Up to twelve by one option, which every kernel has; more by one each, up to the kernel's limit."""
    if count > 12 and (why := rootfs.many_layers()):
        pytest.skip(f"overlayfs here takes no lowerdir+ (Linux 6.5): {why}")
    layered = box.with_(mc.Overlay(lower=layers(count)))
    assert sh(layered, "ls -d /layer-* | wc -l; cat /which; echo mine >/which; cat /which").split() == [
        str(count),
        "0",
        "mine",
    ]


def test_many_layers_that_are_id_mapped(box, sh, layers, requires):
    requires.root()
    if why := rootfs.many_layers():
        pytest.skip(f"overlayfs here takes no lowerdir+ (Linux 6.5): {why}")
    maps = ((0, 100_000, 65_536),)
    mapped = box.with_(mc.UserNamespace(uid_map=maps, gid_map=maps), mc.Idmap(), mc.Overlay(lower=layers(20)))
    if not mc.support(mc.Idmap()):
        pytest.skip("no id-mapped mounts in this kernel")
    assert sh(mapped, "ls -d /layer-* | wc -l; stat -c %u /layer-19").split() == ["20", "0"]
    with pytest.raises(mc.SpecError, match=r"^overlay lower: 100 layers, at most \d+ go below the root with idmap"):
        box.with_(*mapped.features, mc.Overlay(lower=tuple(f"/{number}" for number in range(100)))).plan(["true"])


def test_more_layers_than_the_kernel_takes_are_refused_before_anything_is_touched(box, layers, monkeypatch, tmp_path):
    with pytest.raises(mc.SpecError, match=r"^overlay lower: 500 layers, at most 499 go below the root$"):
        mc.Overlay(lower=tuple(f"/{number}" for number in range(500)))
    upper = tmp_path / "upper"
    thirteen, words = layers(13), "fsmount: EINVAL (Invalid argument)"
    monkeypatch.setattr(rootfs, "many_layers", lambda: words)  # Linux before 6.5
    with pytest.raises(mc.Unsupported) as caught:
        box.with_(mc.Overlay(lower=thirteen, upper=str(upper))).run(["true"])
    assert str(caught.value).startswith(f"overlay: 14 layers: more than 13 need Linux 6.5 ({words}); merge layers")
    assert not upper.exists()
    assert box.with_(mc.Overlay(lower=thirteen[:12])).run(["true"]).returncode == 0, "one option names these"


def test_a_failed_start_takes_its_directories_back(box, tmp_path):
    failing = box.with_(mc.Overlay(upper=str(tmp_path / "upper")), mc.Bind("/no/such/source", "/mnt"))
    with pytest.raises(mc.StepFailed):
        failing.run(["true"])
    assert os.listdir(tmp_path) == []


def test_overlay_in_a_user_namespace(box, sh, lab):
    rows = ((0, 0, 65_536),)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.Overlay())
    assert sh(mapped, "touch /x; ls /x; stat -c %u /x") == "/x\n0"
    assert not (lab / "x").exists()


# --- read-only ---


def test_readonly(box, sh, lab):
    fixed = box.with_(mc.ReadonlyRoot(), mc.Tmpfs("/tmp"))
    assert "Read-only file system" in sh(fixed, "touch /x 2>&1", code=1)
    assert sh(fixed, "touch /tmp/x /dev/shm/x; echo y > /dev/null; ls /tmp") == "x"
    assert "ro" in mountinfo_root(fixed, sh) and "rw" in mountinfo_root(box, sh)


def mountinfo_root(box: mc.Container, sh) -> list[str]:
    line = next(line for line in sh(box, "cat /proc/self/mountinfo").splitlines() if line.split()[4] == "/")
    return line.split()[5].split(",")


def test_readonly_and_overlay(box, sh):
    assert "Read-only file system" in sh(box.with_(mc.Overlay(), mc.ReadonlyRoot()), "touch /x 2>&1", code=1)


def test_the_root_is_a_mount_of_its_own_at_the_hosts_root(sh):
    """rootfs "/" is a directory like any other: the host's files, under a table of the container's."""
    host = mc.Container("/").with_(mc.Overlay())
    assert sh(host, "ls -d /etc; cat /proc/1/comm") == "/etc\nminictr-init"
