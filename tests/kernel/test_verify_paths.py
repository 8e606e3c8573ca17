"""Masked and read-only paths are looked at once all is mounted: what does not hold ends the start."""

from __future__ import annotations

import os
import subprocess

import pytest

import minictr as mc
from minictr.errors import StepFailed
from minictr.features.mounts import fresh
from minictr.kernel import ops
from minictr.plan import plan
from minictr.runtime.resolve import resolve

EPERM = 1


def refused(masked: int, *paths: str) -> bool:
    try:
        ops.execute("verify_paths", masked=masked, paths=list(paths))
    except StepFailed as err:
        return err.errno == EPERM
    return False


def look(directory: str) -> list[bool]:
    """Of masks of ours, of others', and of none."""
    for name in ("a", "b", "c"):
        os.mkdir(f"{directory}/{name}")
    with open(f"{directory}/file", "w") as file:
        file.write("secret")
    answers = [refused(1, f"{directory}/a"), refused(0, f"{directory}/a")]
    for name in ("a", "file"):
        ops.execute("mask", path=f"{directory}/{name}")
    ops.execute("readonly_path", path=f"{directory}/b")
    answers += [
        refused(1, f"{directory}/a", f"{directory}/file"),
        refused(0, f"{directory}/a", f"{directory}/b"),
        refused(1, f"{directory}/nothing", f"{directory}/file/below"),
        refused(1, f"{directory}/a", f"{directory}/b"),
        refused(0, f"{directory}/b", f"{directory}/c"),
    ]
    subprocess.run(["mount", "-t", "tmpfs", "none", f"{directory}/a"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", f"{directory}/b"], check=True)
    return [*answers, refused(1, f"{directory}/a"), refused(0, f"{directory}/b")]


def test_what_holds_and_what_does_not(in_child, tmp_path):
    assert in_child(look, str(tmp_path)) == [True, True, False, False, False, True, True, True, True]


def test_a_bind_that_something_lies_over_ends_the_start(lab, tmp_path, monkeypatch):
    """verify_mount: what another step mounts over a bind's target is seen, whatever it is."""
    box = mc.Container(lab).with_(mc.Bind(str(tmp_path), "/mnt"))
    assert box.run(["true"]).returncode == 0
    original = mc.Bind.steps

    def steps(self, ctx):
        yield from original(self, ctx)
        yield fresh(self, "tmpfs", "/mnt/.", "over it")

    monkeypatch.setattr(mc.Bind, "steps", steps)
    with pytest.raises(StepFailed, match=r"verify mount /mnt: EPERM"):
        mc.Container(lab).with_(mc.Bind(str(tmp_path), "/mnt")).run(["true"])


def test_every_path_of_the_default_is_looked_at(lab):
    made = plan(resolve(mc.Container(lab).spec()))
    steps = [step for step in made if step.call == "verify_paths"]
    wanted = {feature.name: feature.paths for feature in made.spec.features if feature.name.endswith("_paths")}
    assert {step.feature: tuple(step.args["paths"]) for step in steps} == wanted
    mounting = ("mount", "attach", "mask", "readonly_path", "remount")
    last = max(place for place, step in enumerate(made) if step.call in mounting)
    assert all(place > last for place, step in enumerate(made) if step.call == "verify_paths")


def test_a_mask_that_is_undone_before_the_program_ends_the_start(lab, monkeypatch):
    """Something in between makes a read-only path writable: a remount that nobody asked for."""
    box = mc.Container(lab)
    with_hole = type(box.features[0])  # any feature class will do to carry one more step
    original = with_hole.steps

    def steps(self, ctx):
        yield from original(self, ctx)
        yield self.step("remount", 3, "/proc/sys rw", path="/proc/sys", set=0, clear=1, flags=8)

    monkeypatch.setattr(with_hole, "steps", steps)
    with pytest.raises(StepFailed, match=r"verify paths 5 readonly paths.*mounted over a masked or"):
        box.run(["true"])
