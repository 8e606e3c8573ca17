"""Every limit bites: the same tests on v1, v2 and hybrid hosts, each on whichever side the controller is."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from cgrouptools import block_device, disk_of, outcome, start, text
from waiting import eventually

from minictr.errors import MinictrError, StepFailed, Unsupported
from minictr.kernel import cgroups

SPIN = "import os, time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass\nprint(os.times()[0])"
# in steps of 1 MiB, each written to; 64 at most
FILL = "kept = []\nfor _ in range(64): kept.append(bytearray(b'x' * (1 << 20)))\nprint(len(kept))"
FORK = """
import os, time
count = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError as err:
    print(count, err.errno)
"""


def memory(place: Any) -> Any:
    found = cgroups.usage([place]).memory
    assert found is not None
    return found


def test_memory(group: Any) -> None:
    place = group("memory", max=32 << 20, swap=0)
    assert memory(place).limit == 32 << 20
    returncode, output = outcome(FILL, place)
    assert (returncode, output) == (-9, "")
    used = memory(place)
    assert used.oom_kills == 1 == cgroups.usage([place]).oom_kills
    if used.peak is not None:
        assert 31 << 20 < used.peak <= 32 << 20
    assert used.current < 16 << 20
    assert used.events["oom_kill"] == 1
    assert used.stat


def test_memory_off(group: Any) -> None:
    place = group("memory")
    assert memory(place).limit == -1
    assert outcome(FILL, place) == (0, "64\n")
    used = memory(place)
    assert used.oom_kills == 0
    assert used.peak is None or used.peak > 64 << 20


def test_memory_limits_move_up_and_down_with_swap(group: Any) -> None:
    """v1: limit and memsw bound each other; whatever the order of raising and lowering, it is found."""
    place = group("memory", max=16 << 20, swap=0)
    for most, swap in ((64 << 20, 16 << 20), (8 << 20, 0), (32 << 20, 4 << 20), (-1, -1)):
        cgroups.write(place, max=most, swap=swap)
        assert memory(place).limit == most
        if place.version == 1:
            memsw = int(text(place, "memory.memsw.limit_in_bytes"))
            assert memsw == most + swap if most > 0 else memsw > 1 << 60
        else:
            assert text(place, "memory.swap.max") == ("max" if swap < 0 else str(swap))
    cgroups.write(place, max=64 << 20, swap=16 << 20)
    cgroups.write(place, max=32 << 20)  # alone: swap stays
    if place.version == 1:
        assert int(text(place, "memory.memsw.limit_in_bytes")) == 48 << 20


def test_memory_below_what_is_in_use(group: Any) -> None:
    place = group("memory", max=64 << 20, swap=0)
    filled = "kept = bytearray(b'x' * (24 << 20))\nprint('filled', flush=True)\nimport time; time.sleep(60)"
    with start(filled, place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "filled\n"
        if place.version == 1:
            with pytest.raises(StepFailed, match=rf"EBUSY .*bytes are in use.* or end {process.pid} \(python"):
                cgroups.write(place, max=4 << 20, swap=0)
            assert process.poll() is None
        else:  # v2 kills instead of refusing
            cgroups.write(place, max=4 << 20, swap=0)
            assert process.wait(10) == -9
        process.kill()


def test_memory_low(group: Any) -> None:
    place = group("memory", low=8 << 20)
    file = "memory.soft_limit_in_bytes" if place.version == 1 else "memory.low"
    assert text(place, file) == str(8 << 20)


def test_memory_high_min_and_oom_group(group: Any) -> None:
    place = group("memory")
    if place.version == 1:
        for setting in ("high", "min", "oom_group"):
            with pytest.raises(Unsupported, match=f"cgroup v1 has no {setting}"):
                cgroups.write(place, **{setting: 1})
        cgroups.write(place, swappiness=0, oom_kill_disable=0)
        assert text(place, "memory.swappiness") == "0"
        return
    cgroups.write(place, max=64 << 20, swap=0, high=16 << 20, min=4096, oom_group=1)
    with start("x = bytearray(b'x' * (24 << 20))", place) as process:  # above high it is slowed down, more and more
        eventually(lambda: memory(place).high_hits > 0, 20)
        process.kill()
    assert text(place, "memory.oom.group") == "1"


def test_cpu_quota(group: Any) -> None:
    place = group("cpu", quota=20_000, period=100_000)
    account = [place] if place.version == 2 else [place, group("cpuacct")]
    began = time.monotonic()
    returncode, output = outcome(SPIN.format(1.0), *account)
    took = time.monotonic() - began
    used = cgroups.usage(account).cpu
    assert returncode == 0 and used is not None
    assert used.throttled_periods >= 3 and used.throttled > 0.02  # since Linux 6.18 counted from the way to user space
    assert float(output) < 0.6 * took
    assert 0.05 < used.usage < 0.6 * took
    assert used.user + used.system == pytest.approx(used.usage, abs=0.2)


def test_cpu_off(group: Any) -> None:
    place = group("cpu")
    outcome(SPIN.format(0.2), place)
    used = cgroups.usage([place]).cpu
    assert used is not None
    assert (used.throttled_periods, used.throttled) == (0, 0)


def test_cpu_in_any_order(group: Any) -> None:
    """burst <= quota: both grow, both shrink; a period alone keeps the quota."""
    place = group("cpu", quota=50_000, period=100_000)
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us")
    for quota, period, burst in ((80_000, 100_000, 60_000), (10_000, 20_000, 10_000), (500_000, 1_000_000, 400_000)):
        cgroups.write(place, quota=quota, period=period, burst=burst)
        if place.version == 1:
            assert [int(text(place, file)) for file in files] == [quota, period, burst]
        else:
            assert (text(place, "cpu.max"), text(place, "cpu.max.burst")) == (f"{quota} {period}", str(burst))
    cgroups.write(place, burst=0, quota=-1)
    cgroups.write(place, period=50_000)
    shown = text(place, "cpu.max") if place.version == 2 else [int(text(place, file)) for file in files[:2]]
    assert shown == ("max 50000" if place.version == 2 else [-1, 50_000])


def test_cpu_refused(group: Any) -> None:
    place = group("cpu", quota=20_000, period=100_000)
    inner = group("cpu", "inner")
    with pytest.raises(StepFailed, match=r"cpu\.\S+: (EINVAL|ERANGE)"):
        cgroups.write(inner, quota=10, period=100_000)
    if place.version == 1:
        with pytest.raises(StepFailed, match="no larger part of time than the parent's, 20000 of 100000 us"):
            cgroups.write(inner, quota=50_000, period=100_000)


def test_cpu_weight_and_shares(group: Any) -> None:
    place = group("cpu", weight=200)
    file = "cpu.shares" if place.version == 1 else "cpu.weight"
    assert text(place, file) == ("2451" if place.version == 1 else "200")
    cgroups.write(place, shares=512)
    assert text(place, file) == ("512" if place.version == 1 else "59")
    if os.path.exists(f"{place.directory}/cpu.idle"):
        cgroups.write(place, idle=1)
        assert text(place, "cpu.idle") == "1"
        cgroups.write(place, idle=0, weight=100)  # idle comes first in the table: weights are refused while it is set
        assert text(place, file) == ("1024" if place.version == 1 else "100")


def test_cpuset(group: Any) -> None:
    place = group("cpuset", cpus="0")
    mask = "import os; print(sorted(os.sched_getaffinity(0)))"
    assert outcome(mask, place) == (0, "[0]\n")
    with pytest.raises(StepFailed, match=r"cpuset.cpus: \w+ .*only what the parent has"):
        cgroups.write(place, cpus="4000")


def test_cpuset_off(group: Any) -> None:
    """A new v1 cpuset is empty: it is given its parent's, also where several are made at once."""
    place = group("cpuset", "a/b")
    if place.version == 1:
        parent = (
            Path(place.base, "cpuset.cpus").read_text().strip(),
            Path(place.base, "cpuset.mems").read_text().strip(),
        )
        assert (text(place, "cpuset.cpus"), text(place, "cpuset.mems")) == parent
    assert outcome("print('in')", place) == (0, "in\n")


def test_pids(group: Any) -> None:
    place = group("pids", max=6)
    assert text(place, "pids.max") == "6"
    with start(FORK, place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "5 11\n"
        used = cgroups.usage([place]).pids
        assert used is not None
        assert (used.limit, used.hits) == (6, 1)
        assert used.peak in (None, 6)
        cgroups.kill([place])
    assert text(place, "pids.max") == "6"
    # a dead process is uncounted when the kernel frees it, some milliseconds later
    eventually(lambda: text(place, "pids.current") == "0", 5)


def test_pids_off(group: Any) -> None:
    place = group("pids")
    with start(FORK, place) as process:
        process.wait(10)
        used = cgroups.usage([place]).pids
        assert used is not None
        assert (used.current, used.hits, used.limit) == (20, 0, -1)
        cgroups.kill([place])


def test_io_rates(group: Any) -> None:
    place = group("io")
    disk = block_device()
    rates = {"read_bps": 1 << 20, "write_bps": 2 << 20, "read_iops": 100, "write_iops": 200}
    cgroups.write(place, **{name: ((disk, number),) for name, number in rates.items()})
    device = f"{disk[0]}:{disk[1]}"
    if place.version == 1:
        found = {name: text(place, f"blkio.throttle.{name}_device") for name in rates}
        assert found == {name: f"{device} {number}" for name, number in rates.items()}
    else:
        assert text(place, "io.max") == f"{device} rbps=1048576 wbps=2097152 riops=100 wiops=200"
    cgroups.write(place, read_bps=((disk, -1),))
    file = "blkio.throttle.read_bps_device" if place.version == 1 else "io.max"
    assert "1048576" not in text(place, file)
    with pytest.raises(StepFailed, match="ENODEV .*no such disk"):
        cgroups.write(place, read_bps=(((4000, 1), 5),))


# one that the page cache has, and one that goes to the disk at once: that needs memory in whole pages
WRITTEN = """
import mmap, os
page = mmap.mmap(-1, 1 << 20)
page.write(b"x" * (1 << 20))
fd = os.open({!r}, os.O_CREAT | os.O_WRONLY | {})
os.write(fd, page)
os.fsync(fd)
"""


def test_io_is_counted(group: Any, tmp_path: Path) -> None:
    """v2: whoever dirtied the page, with a memory group to know it by. v1: whoever gives the disk a write that the
    throttle looks at; Linux 6.1's looks at none of a group without a rate."""
    place = group("io")
    disk = disk_of(tmp_path)
    if place.version == 2:
        places, flags = [place, group("memory")], 0
    else:
        places, flags = [place], os.O_DIRECT
        cgroups.write(place, write_bps=((disk, 1 << 30),))
    assert outcome(WRITTEN.format(str(tmp_path / "file"), flags), *places) == (0, "")
    used = cgroups.usage([place]).io
    assert used is not None
    assert used.write_bytes >= 1 << 20
    assert any(device.writes for device in used.devices)


def test_io_weight(group: Any) -> None:
    place = group("io")
    files = {"blkio.bfq.weight": "500", "blkio.weight": "500", "io.weight": "default 4950", "io.bfq.weight": "500"}
    there = {file for file in files if os.path.exists(f"{place.directory}/{file}")}
    if not there:
        with pytest.raises(StepFailed, match="ENOENT"):
            cgroups.write(place, weight=4950)
        return
    cgroups.write(place, weight=4950)
    assert {file: text(place, file).removeprefix("default 500 ") for file in there}
    for file in there:
        assert files[file] in text(place, file)


def test_hugetlb(group: Any) -> None:
    place = group("hugetlb")
    sizes = [row.page_size for row in cgroups.usage([place]).hugetlb or ()]
    assert sizes
    cgroups.write(place, limits=((sizes[-1], 0),))
    file = f"hugetlb.{sizes[-1]}." + ("limit_in_bytes" if place.version == 1 else "max")
    assert text(place, file) == "0"
    with pytest.raises(StepFailed, match="hugetlb.3MB"):
        cgroups.write(place, limits=(("3MB", 0),))


DEVICES = (
    (False, "a", -1, -1, "rwm"),
    (True, "c", -1, -1, "m"),
    (True, "c", 1, 3, "rwm"),
    (True, "c", 1, 5, "r"),
)
TRY = """
for name, mode in (("null", "wb"), ("zero", "rb"), ("zero", "wb"), ("full", "rb")):
    try:
        open("/dev/" + name, mode).close()
        print("yes", end=" ")
    except OSError as err:
        print(err.errno, end=" ")
"""


def test_devices(group: Any) -> None:
    try:
        place = group("devices", rules=DEVICES)
    except MinictrError as err:
        if "ENOSYS" in str(err) or "EINVAL" in str(err):
            pytest.skip(f"this kernel has no device programs: {err}")
        raise
    assert outcome(TRY, place) == (0, "yes yes 1 1 ")
    cgroups.write(place, rules=((True, "a", -1, -1, "rwm"), (False, "c", 1, 7, "r")))
    assert outcome(TRY, place) == (0, "yes yes yes 1 ")


def test_devices_off(group: Any) -> None:
    assert outcome(TRY, group("devices")) == (0, "yes yes yes yes ")


def test_devices_never_more_than_the_parent(group: Any) -> None:
    parent = (
        group("devices", rules=((True, "c", 1, 3, "rwm"),)) if cgroups.has("devices") else pytest.skip("no devices")
    )
    inner = group("devices", "inner")
    if parent.version == 1:
        with pytest.raises(StepFailed, match=r"devices.allow: EPERM .*never more than the parent .*devices.list"):
            cgroups.write(inner, rules=((True, "c", 1, 5, "r"),))
    else:
        cgroups.write(inner, rules=((True, "c", 1, 5, "r"),))
        assert outcome(TRY, inner) == (0, "1 1 1 1 ")


def test_raw(group: Any) -> None:
    place = group("raw")
    controller = next((name for name in ("memory", "hugetlb") if cgroups.home(name).version == 2), "")
    if controller == "memory":
        cgroups.write(place, files=(("memory.high", "200M"), ("cgroup.max.depth", "3")))
        assert text(place, "memory.high") == str(200 << 20)
    else:
        if controller:
            cgroups.write(place, files=(("hugetlb.2MB.max", "2M"), ("cgroup.max.depth", "3")))
            assert text(place, "hugetlb.2MB.max") == str(2 << 20)
        with pytest.raises(Unsupported, match="memory is on cgroup v1 here"):
            cgroups.write(place, files=(("memory.high", "200M"),))
    if controller:
        assert text(place, "cgroup.max.depth") == "3"


def test_limits_off_touch_nothing(group: Any) -> None:
    """A group without settings has what the kernel gives it."""
    for controller in ("memory", "cpu", "pids", "io"):
        if cgroups.has(controller):
            place = group(controller)
            fresh = os.path.join(place.directory, "fresh")
            os.mkdir(fresh)
            files = [
                name for name in os.listdir(fresh) if name.endswith((".max", "limit_in_bytes", "quota_us", "shares"))
            ]
            assert [name for name in files if text(place, name) != text(place.replace(directory=fresh), name)] == []
            os.rmdir(fresh)
