"""The virtual machine: by emulation, which is never measured, everything that KVM only makes faster.

Where no machine boots under KVM the accelerator is all that these tests do not show: the place, its disks, its network,
its first program and its ends are those of a measurement.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import SERVER, ask

from bench import __main__ as front
from bench import samples
from bench.environments import machine, vm, vm_guest
from bench.environments.base import WORK, Bind, EnvironmentBroken, Job
from bench.environments.live import read
from bench.environments.state import differences
from bench.environments.vm import VirtualMachine
from bench.stage import Stage

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]  # emulated boots, on a machine that may be busy

ROOT = str(Path(front.__file__).parent.parent)
MEMORY = 512 << 20
TRUE = Job(("true",))
# Of every file below the working directory: bytes, name; mode, owners, size, time, name
LOOK = """
shopt -s globstar dotglob
for name in **; do
    case $name in proc/*|sys/*|dev/*) continue ;; esac
    if [ -f "$name" ] && [ ! -L "$name" ]; then all+=("$name"); fi
done
sha256sum -- "${all[@]}" && stat -c '%a %u %g %s %Y %n' -- "${all[@]}"
"""


def emulated(stage: Stage, name: str) -> VirtualMachine:
    return VirtualMachine(stage, name, accelerator="tcg", memory=MEMORY)


@pytest.fixture
def place(stage: Stage, requires) -> Iterator[VirtualMachine]:
    requires.root()
    requires(machine.QEMU, *VirtualMachine.PROGRAMS, "socat", "cc")
    it = emulated(stage, "vm-test")
    try:
        yield it
    finally:
        assert list(it.cleanup()) == []
        assert not os.path.exists(it.path())
    assert machines() == []


def machines() -> list[str]:
    """The machines that run, of this stage or another of this session."""
    mark = os.environ.get("MINICTR_TEST_SESSION", "").encode()
    names = filter(str.isdecimal, os.listdir("/proc"))
    found = [name for name in names if machine.QEMU.encode() in read(f"/proc/{name}/cmdline").split(b"\0")]
    return [name for name in found if mark in read(f"/proc/{name}/environ")]


@pytest.mark.parametrize("data", ["image", "volume"])
def test_a_job_its_files_its_state_and_its_end(place: VirtualMachine, tmp_path: Path, data: str) -> None:
    script = f"cat {WORK}/in; mkdir {WORK}/made; echo made >{WORK}/made/out; seq 100000 >{WORK}/long; echo aside >&2; "
    script += "echo $WORD; pwd; head -c 5 /etc/passwd; exit 3"
    job = Job(("sh", "-c", script), env={"WORD": "two words"}, cwd="/tmp", data=data)
    place.fresh(job)
    (tmp_path / "in").write_text("bytes\n")
    place.put(str(tmp_path / "in"), f"{WORK}/in")
    ran = place.run(job)
    assert (ran.returncode, ran.stdout.decode()) == (3, "bytes\ntwo words\n/tmp\nroot:"), ran.stderr
    assert ran.stderr == b"aside\n"
    assert 0 < ran.values["wall_s"] < ran.values["whole_s"]
    assert 0 < ran.values["outside_wall_s"] < ran.values["whole_s"]
    assert {"user_s", "system_s", "nvcsw", "nivcsw", "minflt", "majflt", "vm_cpu_s"} <= ran.values.keys()
    place.get(f"{WORK}/long", str(tmp_path / "long"))
    assert (tmp_path / "long").read_text() == "".join(f"{number}\n" for number in range(1, 100001))
    place.get(f"{WORK}/made", str(tmp_path / "made"))
    assert (tmp_path / "made" / "out").read_text() == "made\n"
    with pytest.raises(EnvironmentBroken, match="nothing"):
        place.get(f"{WORK}/nothing", str(tmp_path / "nothing"))
    state = place.state(job)
    assert differences(place.planned(job), state) == []
    assert state["machine"]["kernel"] == place.kernel.release and state["machine"]["read_mib"] > 5
    under_kvm = VirtualMachine(place.stage, "vm", memory=MEMORY).planned(job)
    assert differences(under_kvm, state) == ["machine.hypervisor is TCGTCGTCGTCG, planned was KVMKVMKVM"]
    place.rest()
    assert not list(Path(place.path()).glob("*.img")), "disks of a sample that is over"


def test_the_bytes_are_those_of_the_root_and_of_no_other_sample(place: VirtualMachine, stage: Stage) -> None:
    """The second sample sees nothing of the first, and of every file of the root the bytes, the mode and the owner."""
    spoil = Job(("sh", "-c", f"echo spoilt >/etc/passwd; rm /bin/true; echo x >{WORK}/old; mknod /dev/new c 1 3"))
    place.fresh(spoil)
    assert place.run(spoil).returncode == 0
    look = Job(("bash", "-c", LOOK))
    place.fresh(look)
    inside = place.run(look)
    assert inside.returncode == 0, inside.stderr
    wanted = subprocess.run(["bash", "-c", LOOK], cwd=stage.rootfs, capture_output=True, check=True)
    lines = wanted.stdout.splitlines()
    assert len(lines) > 100 and sorted(inside.stdout.splitlines()) == sorted(lines)


def test_a_server_is_reached_by_its_address_and_its_state_is_as_planned(place: VirtualMachine) -> None:
    job = Job(SERVER, network="lan", ports=(8000,))
    place.fresh(job)
    with place.start(job) as live:
        assert live.addresses.keys() == {"client", "host"}
        for way, address in live.addresses.items():
            assert ask(place, way, address, live.ports[8000], seconds=40) == "hello\n", way
        assert live.stop().returncode == 128 + 15
    assert differences(place.planned(job), place.state(job)) == []
    assert place.state(job)["network"]["bridge"] is True
    other = dataclasses.replace(job, argv=("sh", "-c", "echo no server >&2; exit 4"))
    place.fresh(other)
    with pytest.raises(EnvironmentBroken, match=r"nothing listens on port \[8000\]: no server"):
        place.start(other)


def test_a_directory_is_bound_to_be_read_and_never_to_be_written(place: VirtualMachine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside")
    job = Job(("sh", "-c", "cat /data/file; ! touch /data/new"), binds=(Bind(str(tmp_path), "/data", True),))
    place.fresh(job)
    ran = place.run(job)
    assert (ran.returncode, ran.stdout) == (0, b"from outside"), ran.stderr
    assert b"Read-only file system" in ran.stderr and not (tmp_path / "new").exists()
    with pytest.raises(EnvironmentBroken, match="/data: a machine shares no directory to be written to"):
        place.fresh(Job(("true",), binds=(Bind(str(tmp_path), "/data"),)))


def test_a_machine_that_is_killed_is_told_and_leaves_nothing(place: VirtualMachine) -> None:
    job = Job(("sleep", "300"))
    place.fresh(job)
    with place.hold(job) as live:
        assert live.cat(f"/proc/{live.pid}/comm") == "init\n", "its first instruction waits: its state has been read"
        live.go()
        assert wait_for(lambda: live.cat(f"/proc/{live.pid}/comm") == "timed\n")
        assert live.qemu is not None
        os.kill(live.qemu.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentBroken, match="the machine is gone"):
            live.wait(60.0)
    assert machines() == []
    place.fresh(TRUE)  # and the next one is a whole one
    assert place.run(TRUE).returncode == 0


def test_a_job_beyond_its_deadline_is_killed_with_its_machine(place: VirtualMachine) -> None:
    job = Job(("sleep", "300"), timeout=0.5)
    place.fresh(job)
    with pytest.raises(EnvironmentBroken, match="not over after 0 s: it was killed"):
        place.run(job)
    assert machines() == []


def test_a_machine_that_does_not_boot_is_told_with_its_last_words(place: VirtualMachine, monkeypatch) -> None:
    place.fresh(TRUE)
    assert place.kernel is not None
    Path(place.path("initial")).write_bytes(b"no archive")
    with pytest.raises(EnvironmentBroken, match=r"gone: .*(panic|VFS|rootfs|init)"):
        place.run(TRUE)
    place.kernel = dataclasses.replace(place.kernel, image=place.path("no-such-kernel"))
    with pytest.raises(EnvironmentBroken, match="no-such-kernel"):
        place.run(TRUE)


KILLED = """
import os, signal, sys
from bench import rootfs
from bench.environments.base import Job
from bench.environments.vm import VirtualMachine
from bench.stage import Stage
with Stage(rootfs.MINIMAL, scratch=sys.argv[1]) as stage:
    it = VirtualMachine(stage, "vm-killed", accelerator="tcg", memory=512 << 20)
    job = Job(("sleep", "300"))
    try:
        it.fresh(job)
        with it.hold(job) as live:
            live.go()
            print(live.qemu.pid, flush=True)
            live.wait(300)
    finally:
        left = it.cleanup()
        assert not left, left
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_bench_that_is_killed_or_interrupted_takes_its_machine_along(number: int, tmp_path: Path, requires) -> None:
    requires.root()
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    scratch = Path("/var/tmp") / f"minictr-test-vm-{os.getpid()}-{number}"
    scratch.mkdir()
    try:
        command = [sys.executable, "-c", KILLED, str(scratch)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            pidfd = os.pidfd_open(int(line))
            try:
                process.send_signal(number)
                signal_ended = wait_for(lambda: pidfd_ended(pidfd))
                process.communicate(timeout=60)
            finally:
                os.close(pidfd)
        assert signal_ended
        if number == signal.SIGINT:
            assert list(scratch.iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", "--", str(scratch)], check=True)
    assert machines() == []
    assert subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout == links


def wait_for(true) -> bool:
    deadline = time.monotonic() + 30
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def pidfd_ended(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def test_where_kvm_does_not_boot_it_is_unavailable_and_never_measured(stage: Stage, tmp_path: Path, requires) -> None:
    """By the commands, as a user would find it: the same reason everywhere, and no sample."""
    if boots(stage, requires):
        pytest.skip("a machine boots under KVM here: it is measured")
    listed = bench("list", "--json")
    assert "emulation is never measured" in " ".join(listed["environments"]["vm"]["known"])
    (row,) = [row for row in bench("doctor", "--quick", "--json")["rows"] if row["name"] == "vm"]
    assert row["usable"] is False and "under KVM" in row["about"]
    out = tmp_path / "r.jsonl"
    words = ["run", "--size", "tiny", "--own-programs", "--rest", "0.02", "--workloads", "encrypt", "--blocks", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words, "--environments", "vm", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    records = list(samples.read(str(out)))
    assert "vm" not in {it.arm for it in records if isinstance(it, samples.Sample)}
    assert "KVM" in done.stdout + done.stderr


def test_a_kernel_that_does_not_come_up_is_unavailable_whatever_a_sector_says(
    stage: Stage, requires, monkeypatch
) -> None:
    """Where KVM is itself emulated a sector boots, sooner or later; that is no machine to measure in."""
    if boots(stage, requires):
        pytest.skip("a machine boots under KVM here: it is measured")
    monkeypatch.setattr(vm, "kvm_trouble", lambda: "")
    monkeypatch.setattr(vm_guest, "TRIED_WITHIN", 5.0)
    it = VirtualMachine(stage, "vm-tried", memory=MEMORY)
    assert it.unavailable().startswith("no kernel came up under KVM: ")
    assert machines() == [] and not os.path.exists(it.path())
    monkeypatch.setattr(vm_guest, "TRIED_WITHIN", vm_guest.BOOTED_WITHIN)
    assert emulated(stage, "vm-tried").boot_trouble() == "", "it is KVM that is at fault, and not what is booted"


def boots(stage: Stage, requires) -> bool:
    requires.root()
    requires(machine.QEMU, *VirtualMachine.PROGRAMS, "cc")
    return not VirtualMachine(stage, "vm-boots", memory=MEMORY).unavailable()


def bench(*arguments: str) -> dict:
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    return json.loads(done.stdout)
