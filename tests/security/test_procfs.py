"""procfs and sysfs: what a start writes goes to the real ones, and what they give of the host is out of reach."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from traps import listing

import minictr as mc
from minictr.plan import plan

KNOB = "net/ipv4/ping_group_range"


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A directory that looks like a part of /proc/sys, and of /proc/self, to who goes by names."""
    path = tmp_path / "fakes"
    for name in (KNOB, "ipv4/ping_group_range", "ping_group_range", "sys/" + KNOB, "self/attr/exec", "attr/exec"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("fake\n")
    return path


def answer(box: mc.Container) -> str:
    """What the setting is inside; or the error's name."""
    try:
        done = box.run(["/bin/cat", f"/proc/sys/{KNOB}"], capture_output=True, text=True)
    except mc.StepFailed as error:
        return os.strerror(error.errno or 0)
    return str(done.stdout).strip().replace("\t", " ")


def test_settings_go_to_the_real_procfs(own_rootfs, fakes):
    """Files of the image below /proc, and links to them, get no sysctl written. CVE-2025-52881, CVE-2019-16884."""
    own_rootfs.joinpath("proc/sys/net/ipv4").mkdir(parents=True)
    (own_rootfs / "proc/sys" / KNOB).write_text("fake\n")
    before = listing(own_rootfs / "proc")
    assert answer(mc.Container(own_rootfs)) == "0 2147483647"
    assert answer(mc.Container(own_rootfs).without("proc", "masked_paths", "readonly_paths", "sysctl")) == "fake"
    assert listing(own_rootfs / "proc") == before


@pytest.mark.parametrize("place", ["/proc/sys", "/proc/sys/net", "/proc/sys/net/ipv4", "/proc/self"])
def test_settings_under_a_volume(own_rootfs, fakes, place):
    """A volume or tmpfs over a part of /proc gets no sysctl written. CVE-2019-16884, CVE-2025-52881."""
    before = listing(fakes)
    inner = fakes / place.removeprefix("/proc/sys").removeprefix("/proc/").lstrip("/")
    for feature in (mc.Bind(str(inner if inner.is_dir() else fakes), place), mc.Tmpfs(place)):
        told = answer(mc.Container(own_rootfs).with_(feature))
        if place == "/proc/self":  # what it covers is the start's own process, and no setting is below it
            assert told == "0 2147483647"
        else:
            assert told in ("Wrong medium type", "No such file or directory")
    assert listing(fakes) == before


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "proc/sys/net", "/proc/self/attr", "/proc/thread-self/attr"])
def test_settings_under_a_volume_that_a_link_brings(own_rootfs, fakes, target):
    """The image leads a volume to /proc by a link: the start ends, or the real one is written. CVE-2019-19921."""
    (own_rootfs / "way").symlink_to(target)
    before = listing(fakes)
    told = answer(mc.Container(own_rootfs).with_(mc.Bind(str(fakes), "/way")))
    assert told in ("0 2147483647", "Operation not permitted", "No such file or directory")
    assert listing(fakes) == before


def test_a_write_by_name_goes_to_the_fake(own_rootfs, fakes):
    """Weakened: a setting that is written by its name in the image, before anything is verified. CVE-2019-19921."""
    (own_rootfs / "proc").rmdir()
    (own_rootfs / "proc").symlink_to(fakes)
    with open(own_rootfs / "proc/sys" / KNOB, "w") as knob:
        knob.write("0 2147483647")
    assert (fakes / "sys" / KNOB).read_text() == "0 2147483647"


def test_labels_are_written_before_the_root_changes(own_rootfs):
    """A label goes by the caller's /proc, where no image has put anything. CVE-2019-16884, CVE-2025-52881.

    What lies over a part of /proc is tried in tests/kernel/test_labels.py.
    """
    wish = mc.AppArmor("docker-default")
    calls = [step.call for step in plan(mc.Container(own_rootfs).with_(wish).spec(("true",)))]
    assert calls.index("exec_label") < min(calls.index(call) for call in ("open_tree", "root_attach", "pivot_root"))


def test_a_label_in_force(not_exercisable):
    """A live module confines whatever an image has at /proc: tests/guests/inside_apparmor.py. CVE-2019-16884."""
    not_exercisable("it needs AppArmor live and a profile of its own; tests/guests boots a kernel with both")


# --- masks ---


@pytest.mark.parametrize("kind", ["tmpfs", "proc", "sysfs", "cgroup", "devtmpfs", "binfmt_misc", "debugfs"])
def test_mounting(box, attempt, kind):
    """Nothing can be mounted inside. CVE-2022-0185."""
    assert "not permitted" in attempt(box, f"mount {kind}")


def test_mounting_with_the_capability(box, attempt, powerful):
    """Weakened: with CAP_SYS_ADMIN it can; what it mounts stays in the container's own table. CVE-2022-0185."""
    assert attempt(powerful(box, "SYS_ADMIN"), "mount tmpfs") == ""
    with open("/proc/self/mountinfo") as table:
        assert not [line for line in table if line.split()[4] == "/tmp" and " tmpfs tmpfs " in line]


@pytest.mark.parametrize("path", ["/proc/sys", "/proc/interrupts", "/sys/firmware", "/proc", "/"])
def test_taking_a_mask_away(box, attempt, path):
    """A mask or a read-only mount cannot be unmounted. CVE-2014-5206."""
    assert "not permitted" in attempt(box, f"umount {path}")


def test_taking_a_mask_away_with_the_capability(box, sh, powerful):
    """Weakened: with CAP_SYS_ADMIN the mask goes, and what it hid is read. CVE-2014-5206."""
    admin = powerful(box, "SYS_ADMIN")
    assert sh(admin, "probe umount /proc/interrupts; head -c 3 /proc/interrupts | wc -c").endswith("3")


def test_a_new_user_namespace_gives_no_masked_path_back(den, attempt):
    """In new user, mount and pid namespaces masks are locked, and no new procfs is to be had. CVE-2015-4176.

    First by the filter; without that by the kernel (mount_too_revealing), as something hides a part of /proc already.
    Weakened: where nothing hides it, the new procfs shows all.
    """
    box = mc.Container(den)
    assert "unshare: Operation not permitted" in attempt(box, "nested-proc interrupts", program="files")
    unfiltered = box.without("seccomp")
    assert "mount: Operation not permitted" in attempt(unfiltered, "nested-proc interrupts", program="files")
    told = unfiltered.run(["files", "nested-umount", "/proc/interrupts"], stdout=mc.PIPE, text=True)
    assert told.stdout == "umount: Invalid argument\n"  # locked: mount_namespaces(7)
    bare = unfiltered.without("masked_paths", "readonly_paths")
    assert attempt(bare, "nested-proc interrupts", program="files") == ""


def test_a_new_procfs_beside_the_masked_one(den, attempt, powerful):
    """A second procfs elsewhere would have no masks: it cannot be mounted. CVE-2015-4176.

    Weakened: with CAP_SYS_ADMIN it can, and shows what is hidden.
    """
    box = mc.Container(den)
    assert "mount: Operation not permitted" in attempt(box, "new-proc interrupts", program="files")
    assert attempt(powerful(box, "SYS_ADMIN"), "new-proc interrupts", program="files") == ""


# --- the host's settings, by procfs and sysfs ---

SETTINGS = {
    "/proc/sysrq-trigger": "sysrq",
    "/proc/sys/kernel/core_pattern": "a program of its own as the host's core dump handler",
    "/proc/sys/kernel/modprobe": "a program as the host's module loader",
    "/proc/sys/kernel/hotplug": "a program for the host's events",
    "/proc/sys/kernel/sysrq": "sysctl",
    "/proc/sys/vm/panic_on_oom": "sysctl",
    "/proc/sys/fs/binfmt_misc/register": "a program as an interpreter (binfmt_misc)",
    "/proc/irq/default_smp_affinity": "interrupts",
    "/sys/kernel/uevent_helper": "a program for the host's events",
    "/sys/power/state": "sleep",
    "/sys/module/kernel/parameters/panic": "a parameter of a module",
}


@pytest.mark.parametrize("path", SETTINGS)
def test_settings_of_the_host(den, attempt, path, not_exercisable):
    """core_pattern, modprobe, binfmt_misc, sysctls, sysrq and sysfs cannot be opened for writing. CVE-2022-0811.

    Weakened: as --privileged has it they can, and whoever writes there is root on the host.
    """
    if not os.path.exists(path):
        not_exercisable(f"this kernel has no {path} ({SETTINGS[path]})")
    box = mc.Container(den)
    assert attempt(box, f"may-write {path}", program="files")
    weak = box.without("masked_paths", "readonly_paths", "capabilities", "seccomp").with_(mc.Sysfs("rw"))
    assert attempt(weak, f"may-write {path}", program="files") == ""


SECRETS = ("/proc/kcore", "/proc/timer_list", "/proc/keys", "/sys/firmware", "/proc/interrupts", "/proc/sched_debug")


@pytest.mark.parametrize("path", SECRETS)
def test_secrets_of_the_host(box, sh, path, not_exercisable):
    """What tells of the host is masked (moby's list). Weakened: without masked_paths it is there. CVE-2017-16539."""
    if not os.path.exists(path):
        not_exercisable(f"this kernel has no {path}")
    look = f"if test -d {path}; then ls -A {path}; else head -c 100 {path}; fi"
    assert sh(box, look) == ""
    if not (os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes()[:100]):
        not_exercisable(f"{path} is empty on this machine")
    assert sh(box.without("masked_paths"), look) != ""


def test_sysfs_is_read_only(box, sh):
    """/sys is mounted read-only. Weakened: with mode rw it is not. CVE-2022-0811."""
    for expected, which in (("ro", box), ("rw", box.with_(mc.Sysfs("rw")))):
        assert expected in sh(which, "cat /proc/self/mounts").split(" /sys sysfs ")[1].split()[0].split(",")
