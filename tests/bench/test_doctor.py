"""``python -m bench doctor`` and ``list``, from the outside and by their parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as front
from bench import doctor, listing, rootfs
from bench.environments import machine, registry
from bench.workloads.catalogue import WORKLOADS

ROOT = str(Path(front.__file__).parent.parent)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


def test_list_names_all_of_them_and_what_a_reader_must_know() -> None:
    done = bench("list", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    assert list(answer["environments"]) == list(registry.ENVIRONMENTS)
    assert list(answer["workloads"]) == list(WORKLOADS)
    assert answer["workloads"]["serve"]["variants"]["way"] == ["client", "host", "local"]
    assert "workload/encrypt/small" in answer["experiments"]
    text = listing.table(answer)
    for name in (*registry.ENVIRONMENTS, *WORKLOADS):
        assert f"\n  {name} " in text


def test_doctor_looks_and_says_why_not(requires) -> None:
    requires.root()
    done = bench("doctor", "--quick", "--json")
    answer = json.loads(done.stdout)
    rows = {row["name"]: row for row in answer["rows"]}
    assert done.returncode == 0
    assert rows["bare"]["usable"] and rows["minictr"]["usable"]
    assert set(registry.ENVIRONMENTS) | set(WORKLOADS) | set(doctor.TOOLS) <= set(rows)
    for row in answer["rows"]:
        assert row["about"], row
    assert answer["facts"]["kernel"] and "load_before" in answer["noise"] and isinstance(answer["better"], list)
    text = doctor.table(answer)
    assert "environments\n" in text and "what would make it better" in text


def test_a_job_is_really_run_and_its_state_compared(requires, monkeypatch: pytest.MonkeyPatch) -> None:
    requires.root()
    monkeypatch.setattr(registry, "ENVIRONMENTS", {"bare": registry.ENVIRONMENTS["bare"]})
    (row,) = doctor.environments(quick=False)
    assert row.usable and "its state as planned" in row.about
    monkeypatch.setattr(registry.ENVIRONMENTS["bare"], "planned", lambda self, job: {"seccomp": 3})
    (row,) = doctor.environments(quick=False)
    assert not row.usable and row.about == "seccomp is 0, planned was 3"


def test_no_root_file_system_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch, requires) -> None:
    requires.root()

    def fails(*_: object, **__: object) -> None:
        raise rootfs.RootfsError("no room")

    monkeypatch.setattr(rootfs, "ensure", fails)
    rows = doctor.environments(quick=False)
    assert len(rows) == len(registry.ENVIRONMENTS)
    assert not any(row.usable for row in rows) and {row.about for row in rows} == {"no room"}


def test_a_tool_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    rows = [*doctor.tools(), *doctor.workloads()]
    assert [row.about for row in rows if row.name == "wget"] == ["not installed: the client of serve"]
    assert not next(row for row in rows if row.name == "serve").usable
    assert any("bootstrap.sh bench" in line for line in doctor.advice({}, {}, rows))


def test_the_boot_of_a_sector_is_told_from_one_that_does_not_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By programs in QEMU's place: whether the real one boots is the machine's matter."""
    if machine.kvm_trouble().startswith("the boot that is tried"):
        pytest.skip("x86_64 only")
    kvm = Path("/dev/kvm").exists()
    for script, words in (
        ("exit 99", "" if kvm else "/dev/kvm"),
        ("echo broken firmware >&2; exit 1", "broken firmware" if kvm else "/dev/kvm"),
        ("exec sleep 60", "did not boot under KVM within" if kvm else "/dev/kvm"),
    ):
        fake = tmp_path / "qemu"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(machine, "QEMU", str(fake))
        monkeypatch.setattr(machine, "DEADLINE", 1.0)
        found = machine.kvm_trouble()
        assert words in found and bool(found) is bool(words)
    monkeypatch.setattr(machine, "QEMU", "no-such-qemu")
    assert machine.kvm_trouble().startswith("no-such-qemu not installed")
