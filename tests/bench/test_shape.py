"""The shape holds with minictr's default profile."""

from __future__ import annotations

import minictr as mc
from bench.lifecycle import shape


def test_every_feature_of_the_default_profile_is_asked_of_every_arm() -> None:
    """A feature more in the profile is a system call more for the floor: add it there, then here."""
    names = {feature.name for feature in mc.profiles.DEFAULT}
    assert names - {*shape.APART} <= shape.COVERED
    assert names >= {*shape.APART}
    assert shape.COVERED - names <= {"seccomp"}  # the bench brings its own


def test_the_shape_says_what_the_profile_says() -> None:
    found, features = shape.from_minictr(), {feature.name: feature for feature in mc.profiles.DEFAULT}
    assert found.capabilities == features["capabilities"].bounding
    assert found.masks == features["masked_paths"].paths
    assert found.readonlys == features["readonly_paths"].paths
    assert found.sysctls == features["sysctl"].settings
    assert found.hostname == features["hostname"].hostname
    assert found.shm_inodes == features["shm"].inodes
    assert features["shm"].size in ("64M", found.shm_bytes)
    assert features["rlimits"].limits == (("core", 0, 0),)


def test_the_capability_mask_is_the_kernels() -> None:
    # linux/capability.h: CHOWN 0, KILL 5, NET_BIND_SERVICE 10, CHECKPOINT_RESTORE 40
    small = shape.Shape(("CHOWN", "KILL", "NET_BIND_SERVICE", "CHECKPOINT_RESTORE"), (), ())
    assert small.capability_mask == 1 | 1 << 5 | 1 << 10 | 1 << 40


def test_without_minictr_there_is_a_fallback(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minictr", None)
    assert shape.from_minictr() is shape.FALLBACK


def test_only_paths_of_this_kernel_are_present() -> None:
    found = shape.FALLBACK.present(("/proc/self", "/proc/no-such-thing"))
    assert found == ("/proc/self",)
