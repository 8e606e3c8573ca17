"""Settings become texts in files, and texts readings: both versions, on plain directories. Nobody needs to be root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr import Cgroup
from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import cgroup1, cgroup2, cgroup_files, cgroup_weights, cgroups
from minictr.kernel.cgroup_readings import Readings
from minictr.kernel.cgroup_usage import DeviceIo, HugetlbUsage
from minictr.kernel.cgroups import Place

DISK = (254, 0)
UNLIMITED = "9223372036854771712\n"

# version, controller, settings -> files written
WRITTEN: list[tuple[int, str, dict[str, Any], dict[str, str]]] = [
    (1, "memory", {"max": 1 << 20}, {"memory.limit_in_bytes": "1048576"}),
    (1, "memory", {"max": 1 << 20, "swap": 4096}, {"memory.memsw.limit_in_bytes": "1052672"}),
    (1, "memory", {"max": 1 << 20, "swap": 0}, {"memory.memsw.limit_in_bytes": "1048576"}),
    (1, "memory", {"max": 1 << 20, "swap": -1}, {"memory.memsw.limit_in_bytes": "-1"}),
    (1, "memory", {"max": -1, "low": 4096}, {"memory.limit_in_bytes": "-1", "memory.soft_limit_in_bytes": "4096"}),
    (1, "memory", {"swappiness": 10, "oom_kill_disable": 1}, {"memory.swappiness": "10", "memory.oom_control": "1"}),
    (1, "cpu", {"quota": 5000, "period": 10000}, {"cpu.cfs_quota_us": "5000", "cpu.cfs_period_us": "10000"}),
    (1, "cpu", {"burst": 100, "idle": 1}, {"cpu.cfs_burst_us": "100", "cpu.idle": "1"}),
    (1, "cpu", {"shares": 512}, {"cpu.shares": "512"}),
    (1, "cpu", {"weight": 100}, {"cpu.shares": "1024"}),
    (1, "cpu", {"quota": -1}, {"cpu.cfs_quota_us": "-1"}),
    (1, "cpuset", {"cpus": "0-1", "mems": "0"}, {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
    (1, "pids", {"max": 64}, {"pids.max": "64"}),
    (1, "pids", {"max": -1}, {"pids.max": "max"}),
    (1, "io", {"weight": 4950}, {"blkio.bfq.weight": "500"}),
    (1, "io", {"read_bps": ((DISK, 1024),)}, {"blkio.throttle.read_bps_device": "254:0 1024"}),
    (1, "io", {"write_bps": ((DISK, -1),)}, {"blkio.throttle.write_bps_device": "254:0 0"}),
    (1, "io", {"read_iops": ((DISK, 5),)}, {"blkio.throttle.read_iops_device": "254:0 5"}),
    (1, "io", {"write_iops": ((DISK, 6),)}, {"blkio.throttle.write_iops_device": "254:0 6"}),
    (1, "io", {"weight_device": ((DISK, 10000),)}, {"blkio.bfq.weight_device": "254:0 1000"}),
    (1, "hugetlb", {"limits": (("2MB", 1 << 21),)}, {"hugetlb.2MB.limit_in_bytes": "2097152"}),
    (1, "rdma", {"limits": (("mlx5_0", "hca_handle=2"),)}, {"rdma.max": "mlx5_0 hca_handle=2"}),
    (1, "misc", {"limits": (("sev", 3),)}, {"misc.max": "sev 3"}),
    (2, "memory", {"max": 1 << 20, "swap": 0}, {"memory.max": "1048576", "memory.swap.max": "0"}),
    (2, "memory", {"max": -1, "swap": -1}, {"memory.max": "max", "memory.swap.max": "max"}),
    (2, "memory", {"high": 9, "low": 8, "min": 7}, {"memory.high": "9", "memory.low": "8", "memory.min": "7"}),
    (2, "memory", {"oom_group": 1}, {"memory.oom.group": "1"}),
    (2, "cpu", {"quota": 5000, "period": 10000}, {"cpu.max": "5000 10000"}),
    (2, "cpu", {"quota": -1, "period": 10000}, {"cpu.max": "max 10000"}),
    (2, "cpu", {"quota": 5000}, {"cpu.max": "5000"}),
    (2, "cpu", {"period": 20000}, {"cpu.max": "max 20000"}),
    (2, "cpu", {"shares": 1024}, {"cpu.weight": "100"}),
    (2, "cpu", {"weight": 7, "idle": 0, "burst": 9}, {"cpu.weight": "7", "cpu.idle": "0", "cpu.max.burst": "9"}),
    (2, "cpuset", {"cpus": "1", "mems": "0"}, {"cpuset.cpus": "1", "cpuset.mems": "0"}),
    (2, "cpuset", {"partition": "root"}, {"cpuset.cpus.partition": "root"}),
    (2, "pids", {"max": -1}, {"pids.max": "max"}),
    (2, "io", {"weight": 4950}, {"io.weight": "default 4950", "io.bfq.weight": "default 500"}),
    (2, "io", {"weight_device": ((DISK, 4950),)}, {"io.weight": "254:0 4950", "io.bfq.weight": "254:0 500"}),
    (2, "io", {"read_bps": ((DISK, 1024),)}, {"io.max": "254:0 rbps=1024"}),
    (2, "io", {"write_bps": ((DISK, 7),)}, {"io.max": "254:0 wbps=7"}),
    (2, "io", {"read_iops": ((DISK, 8),)}, {"io.max": "254:0 riops=8"}),
    (2, "io", {"write_iops": ((DISK, -1),)}, {"io.max": "254:0 wiops=max"}),
    (2, "hugetlb", {"limits": (("2MB", -1),)}, {"hugetlb.2MB.max": "max", "hugetlb.2MB.rsvd.max": "max"}),
    (2, "rdma", {"limits": (("mlx5_0", "hca_object=max"),)}, {"rdma.max": "mlx5_0 hca_object=max"}),
    (2, "misc", {"limits": (("sev", -1),)}, {"misc.max": "sev max"}),
]
# what the kernel has in a new group, for those files that are read before they are written
FRESH = {"memory.limit_in_bytes": UNLIMITED, "memory.memsw.limit_in_bytes": UNLIMITED, "cpu.max": "max 100000\n"}


def files_of(version: int, controller: str) -> set[str]:
    """Every file that the tables know for a controller; of the two names of a blkio weight the newer one."""
    table = (cgroup1.FILES if version == 1 else cgroup2.FILES)[controller]
    names = {file.format("2MB") for _, files in table.values() for file in files}
    return names - {"blkio.weight", "blkio.weight_device", "hugetlb.2MB.rsvd.limit_in_bytes"}


@pytest.mark.parametrize(("version", "controller", "settings", "expected"), WRITTEN)
def test_settings_are_written(
    version: int, controller: str, settings: dict[str, Any], expected: dict[str, str], tmp_path: Path
) -> None:
    for file in files_of(version, controller):
        (tmp_path / file).write_text(FRESH.get(file, ""))
    cgroups.write(Place(version, controller, str(tmp_path)), **settings)
    after = {file: (tmp_path / file).read_text() for file in files_of(version, controller)}
    assert {file: after[file] for file in expected} == expected
    changed = {file for file, text in after.items() if text != FRESH.get(file, "")}
    assert changed <= {*expected, "memory.limit_in_bytes"}, "nothing else is touched"


def test_every_setting_of_the_tables_is_tried() -> None:
    made_of = {"memsw": "swap", "quota_period": "quota"}
    for version, table in ((1, cgroup1.FILES), (2, cgroup2.FILES)):
        known = {(c, made_of.get(name, name)) for c, row in table.items() for name in row if c != "raw"}
        tried = {(c, name) for v, c, settings, _ in WRITTEN if v == version for name in settings}
        assert known <= tried


@pytest.mark.parametrize(
    ("version", "controller", "settings", "words"),
    [
        (1, "memory", {"high": 1}, "cgroup v1 has no high; max kills"),
        (1, "memory", {"min": 1}, "cgroup v1 has no min"),
        (1, "memory", {"oom_group": 1}, "cgroup v1 has no oom_group"),
        (1, "cpuset", {"partition": "root"}, "cgroup v1 has no partition"),
        (2, "memory", {"swappiness": 1}, "cgroup v2 has no swappiness"),
        (2, "memory", {"oom_kill_disable": 1}, "cgroup v2 has no oom_kill_disable"),
    ],
)
def test_what_a_version_does_not_have(
    version: int, controller: str, settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match=words):
        cgroups.write(Place(version, controller, str(tmp_path)), **settings)


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_no_setting(version: int, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'maximum' is no setting; there are: max"):
        cgroups.write(Place(version, "pids", str(tmp_path)), maximum=1)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("controller", "settings"),
    [("pids", {"max": "a"}), ("io", {"read_bps": 5}), ("io", {"read_bps": ((1, 2, 3),)}), ("hugetlb", {"limits": 3})],
)
def test_what_has_another_form(version: int, controller: str, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f"cgroup {controller}: {next(iter(settings))}=.*the table"):
        cgroups.write(Place(version, controller, str(tmp_path)), **settings)


@pytest.mark.parametrize(
    ("file", "words"),
    [("cgroup.procs", "no limit"), ("cgroup.kill", "no limit"), ("memory", "not CONTROLLER.KEY"), ("../x.y", "not")],
)
def test_what_raw_does_not_write(file: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        cgroup2.rows("raw", {"files": ((file, "1"),)})


def test_raw_says_which_controllers_it_needs() -> None:
    files = (("memory.high", "200M"), ("memory.low", "1"), ("cgroup.max.depth", "3"), ("io.latency", "8:0 target=1"))
    assert cgroup2.raw_controllers(files) == ("memory", "io")
    assert cgroup2.rows("raw", {"files": files[:1]}) == [(("memory.high", "200M"),)]


def test_v1_swap_alone_keeps_the_limit_and_the_limit_alone_keeps_the_swap(tmp_path: Path) -> None:
    place = Place(1, "memory", str(tmp_path))
    limit, memsw = tmp_path / "memory.limit_in_bytes", tmp_path / "memory.memsw.limit_in_bytes"
    limit.write_text("1048576\n")
    memsw.write_text("2097152\n")
    cgroups.write(place, swap=4096)
    assert memsw.read_text() == "1052672"
    cgroups.write(place, max=8192)
    assert (limit.read_text(), memsw.read_text()) == ("8192", "12288")
    limit.write_text(UNLIMITED)
    with pytest.raises(SpecError, match="a swap limit needs a memory limit"):
        cgroups.write(place, swap=4096)


def test_v1_without_swap_accounting(tmp_path: Path) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text(UNLIMITED)
    place = Place(1, "memory", str(tmp_path))
    cgroups.write(place, max=4096)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == "4096"
    with pytest.raises(StepFailed, match="memory.memsw.limit_in_bytes: ENOENT.*swapaccount=1"):
        cgroups.write(place, max=4096, swap=0)


def test_a_missing_file_says_which_linux_has_it(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"write '5' to .*/cpu.cfs_burst_us: ENOENT .*it needs Linux 5.14"):
        cgroups.write(Place(1, "cpu", str(tmp_path)), burst=5)
    with pytest.raises(StepFailed, match="is not there: removed meanwhile"):
        cgroups.write(Place(1, "cpu", str(tmp_path / "gone")), burst=5)


def test_rows_are_written_in_an_order_the_kernel_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """limit <= memsw always holds, as in the kernel: whichever way both move, no order is right."""
    state = {"limit": 10, "memsw": 20}

    def put(_directory: str, file: str, text: str) -> None:
        new = {**state, file: int(text)}
        if new["limit"] > new["memsw"]:
            raise OSError(22, "Invalid argument")
        state.update(new)

    monkeypatch.setattr(cgroup_files, "put", put)
    for limit, memsw in ((30, 40), (5, 6), (50, 50), (1, 1)):
        cgroup_files.write_rows("/", [(("limit", str(limit)),), (("memsw", str(memsw)),)])
        assert state == {"limit": limit, "memsw": memsw}
    with pytest.raises(StepFailed, match="write '9' to //limit: EINVAL"):
        cgroup_files.write_rows("/", [(("limit", "9"),), (("memsw", "3"),)])


# --- weights ---


def test_weights_are_converted_as_runc_does() -> None:
    """The values of opencontainers/cgroups' own tests, and the ends."""
    shares = {0: 1, 1: 1, 2: 1, 1024: 100, 262144: 10000, 300000: 10000}
    assert {number: cgroup_weights.shares_to_weight(number) for number in shares} == shares
    assert [cgroup_weights.blkio_to_io(number) for number in (10, 500, 1000)] == [1, 4950, 10000]


@given(st.integers(1, 10000))
def test_weights_come_back(weight: int) -> None:
    assert cgroup_weights.shares_to_weight(cgroup_weights.weight_to_shares(weight)) == weight


@given(st.integers(10, 1000), st.integers(2, 262143))
def test_more_stays_more(weight: int, shares: int) -> None:
    assert cgroup_weights.io_to_blkio(cgroup_weights.blkio_to_io(weight)) == weight
    assert cgroup_weights.shares_to_weight(shares) <= cgroup_weights.shares_to_weight(shares + 1)


# --- readings ---

READ: dict[tuple[int, str], dict[str, str]] = {
    (1, "memory"): {
        "memory.usage_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "8192\n",
        "memory.memsw.usage_in_bytes": "5096\n",
        "memory.limit_in_bytes": UNLIMITED,
        "memory.failcnt": "3\n",
        "memory.memsw.failcnt": "1\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory.stat": "cache 1\nrss 2\ntotal_swap 1000\n",
    },
    (2, "memory"): {
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.swap.current": "1000\n",
        "memory.swap.peak": "1001\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 5\nmax 4\noom 1\noom_kill 2\noom_group_kill 0\n",
        "memory.stat": "anon 2\nfile 1\n",
    },
    (1, "cpu"): {"cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 1500000000\nnr_bursts 1\nburst_time 1000\n"},
    (1, "cpuacct"): {
        "cpuacct.usage": "2500000000\n",
        "cpuacct.usage_user": "2000000000\n",
        "cpuacct.usage_sys": "500000000\n",
        "cpuacct.stat": "user 200\nsystem 50\n",
    },
    (2, "cpu"): {
        "cpu.stat": (
            "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 5\nnr_throttled 2\n"
            "throttled_usec 1500000\nnr_bursts 1\nburst_usec 1\n"
        ),
        "cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=2000000\n",
    },
    (1, "pids"): {"pids.current": "3\n", "pids.peak": "9\n", "pids.events": "max 4\n", "pids.max": "max\n"},
    (2, "pids"): {"pids.current": "3\n", "pids.peak": "9\n", "pids.events": "max 4\n", "pids.max": "9\n"},
    (1, "io"): {
        "blkio.throttle.io_service_bytes_recursive": "254:0 Read 10\n254:0 Write 20\n254:0 Discard 5\nTotal 30\n",
        "blkio.throttle.io_serviced_recursive": "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n",
    },
    (2, "io"): {"io.stat": "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n8:0 \n"},
    (1, "hugetlb"): {
        "hugetlb.2MB.usage_in_bytes": "2097152\n",
        "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
        "hugetlb.2MB.failcnt": "0\n",
        "hugetlb.2MB.rsvd.failcnt": "1\n",
        "hugetlb.2MB.rsvd.usage_in_bytes": "0\n",
    },
    (2, "hugetlb"): {"hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.events": "max 1\n", "hugetlb.2MB.max": "0\n"},
    (2, "rdma"): {"rdma.current": "mlx5_0 hca_handle=2 hca_object=max\n"},
    (2, "misc"): {"misc.current": "sev 3\n"},
}


@pytest.fixture
def copies(tmp_path: Path) -> dict[tuple[int, str], Place]:
    """A directory for each reader, with what the kernel writes there."""
    found = {}
    for (version, controller), files in READ.items():
        directory = tmp_path / f"{version}-{controller}"
        directory.mkdir()
        for file, text in files.items():
            (directory / file).write_text(text)
        found[version, controller] = Place(version, controller, str(directory))
    return found


@pytest.mark.parametrize("version", [1, 2])
def test_readings(version: int, copies: dict[tuple[int, str], Place]) -> None:
    usage = cgroups.usage(place for (each, _), place in copies.items() if each == version)
    memory, cpu, pids, io = usage.memory, usage.cpu, usage.pids, usage.io
    assert memory is not None and cpu is not None and pids is not None and io is not None
    assert (memory.current, memory.peak, memory.swap, memory.limit) == (4096, 8192, 1000, -1)
    assert (memory.limit_hits, memory.oom_kills, usage.oom_kills) == (4, 2, 2)
    assert memory.events["oom_kill"] == 2
    assert memory.stat["rss" if version == 1 else "anon"] == 2
    assert (cpu.usage, cpu.user, cpu.system) == (2.5, 2.0, 0.5)
    assert (cpu.periods, cpu.throttled_periods, cpu.throttled, cpu.bursts, cpu.burst) == (5, 2, 1.5, 1, 1e-6)
    assert (pids.current, pids.peak, pids.hits, pids.limit) == (3, 9, 4, -1 if version == 1 else 9)
    assert io.devices[0] == DeviceIo(254, 0, 10, 20, 1, 2, 5)
    assert (io.read_bytes, io.write_bytes) == (10, 20)
    assert usage.hugetlb == (HugetlbUsage("2MB", 2097152, 4194304 if version == 1 else None, 1),)
    if version == 2:
        assert (memory.high_hits, memory.swap_peak) == (5, 1001)
        assert usage.misc == {"sev": 3}
        assert usage.rdma == {"mlx5_0": {"hca_handle": 2, "hca_object": -1}}
        some = usage.pressure["cpu"].some
        assert some is not None and (some.avg10, some.total) == (1.5, 2.0)


def test_copies_of_the_final_files_tell_the_same(copies: dict[tuple[int, str], Place], tmp_path: Path) -> None:
    for place in copies.values():
        names = cgroups.final_files(place)
        copy = tmp_path / "copy" / f"{place.version}-{place.controller}"
        copy.mkdir(parents=True)
        for name in names:
            (copy / name).write_bytes((Path(place.directory) / name).read_bytes())
        assert cgroups.usage([place.replace(directory=str(copy))]) == cgroups.usage([place])


def test_readings_tell_the_same_when_the_group_is_gone(copies: dict[tuple[int, str], Place]) -> None:
    for version in (1, 2):
        places = [place for (each, _), place in copies.items() if each == version]
        taken, now = cgroups.take(places), cgroups.usage(places)
        for place in places:
            for name in os.listdir(place.directory):
                os.unlink(f"{place.directory}/{name}")
        assert taken.usage() == now
        assert taken.bitten  # forks were refused
        assert cgroups.usage(places) != now


@pytest.mark.parametrize(
    ("file", "text", "bitten"),
    [
        ("pids.events", "max 0\n", False),
        ("pids.events", "max 3\n", True),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        ("memory.events", "low 5\nhigh 9\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n", False),
        ("memory.events", "max 7\noom_kill 1\n", True),
        ("cpu.stat", "nr_periods 9\nnr_throttled 0\nthrottled_time 0\n", False),
        ("cpu.stat", "nr_periods 9\nnr_throttled 1\nthrottled_time 77\n", True),
        ("cpu.stat", "usage_usec 5\nthrottled_usec 7\n", True),
        ("cpuacct.usage", "max 3\n", False),
    ],
)
def test_a_limit_that_bit_is_seen_without_understanding_all(file: str, text: str, bitten: bool) -> None:
    assert Readings([], {"/there": {file: text.encode()}}).bitten is bitten


def test_readings_longer_than_expected(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("".join(f"name{number} {number}\n" for number in range(20_000)))
    (tmp_path / "memory.failcnt").write_text("7\n")
    (tmp_path / "memory.limit_in_bytes").write_text("")
    (tmp_path / "memory.oom_control").mkdir()  # EISDIR: cannot be read
    place = Place(1, "memory", str(tmp_path))
    memory = cgroups.take([place]).usage().memory
    assert memory is not None
    assert (memory.stat["name19999"], memory.limit_hits, memory.limit, memory.oom_kills) == (19999, 7, None, None)


def test_readings_of_a_live_group_are_those_of_usage(requires) -> None:
    requires.root()
    fds = len(os.listdir("/proc/self/fd"))
    with Cgroup("minictr-test-readings", memory="64M", pids=10) as cg:
        places = list(cg.places.values())
        taken, now = cgroups.take(places).usage(), cgroups.usage(places)
        assert len(os.listdir("/proc/self/fd")) == fds
    assert taken.pids == now.pids
    assert taken.memory is not None and now.memory is not None
    assert (taken.memory.limit, taken.memory.stat.keys()) == (64 << 20, now.memory.stat.keys())


def test_readings_of_what_is_not_there(tmp_path: Path) -> None:
    place = Place(1, "memory", str(tmp_path / "gone"))
    taken = cgroups.take([place, place.replace(controller="hugetlb")])
    assert not taken.bitten
    assert taken.usage().oom_kills == 0


def test_readings_of_nothing(tmp_path: Path) -> None:
    usage = cgroups.usage(Place(1, controller, str(tmp_path / "gone")) for controller in ("memory", "pids", "io"))
    assert usage.memory is not None and usage.memory.current is None
    assert usage.oom_kills == 0
    assert usage.io is not None and usage.io.read_bytes == 0
