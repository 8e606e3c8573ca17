"""Limits by option: the words of docker, as the kernel has them inside; and doing without, where that is allowed."""

from __future__ import annotations

import os

import pytest

from minictr.kernel import cgroups

V1 = cgroups.home("memory").version == 1


@pytest.fixture
def run(run_cli, rootfs, requires):
    """``run(script, *options)``: what the script prints."""
    requires.root()

    def shell(script, *options, code=0):
        done = run_cli("run", "--rootfs", rootfs, *options, "--", "sh", "-c", script)
        assert done.returncode == code, done
        return done

    return shell


def files(controller, v1, v2):
    """A shell word for a file of its group, on the kind of host this is."""
    home = cgroups.home(controller)
    if home.version == 1:
        return f"/sys/fs/cgroup/{os.path.basename(home.mount)}/{v1}"
    top = "/sys/fs/cgroup" if home.mount == "/sys/fs/cgroup" else "/sys/fs/cgroup/unified"
    return f"{top}/{v2}"


@pytest.mark.parametrize(
    ("options", "file", "wanted"),
    [
        (["-m", "64m"], files("memory", "memory.limit_in_bytes", "memory.max"), "67108864"),
        (["-m64m", "--memory-reservation=8m"], files("memory", "memory.soft_limit_in_bytes", "memory.low"), "8388608"),
        ([], files("pids", "pids.max", "pids.max"), "1024"),
        (["--pids-limit", "33"], files("pids", "pids.max", "pids.max"), "33"),
        (["--pids-limit", "-1"], files("pids", "pids.max", "pids.max"), "max"),
        (["--cpuset-cpus", "0"], files("cpuset", "cpuset.cpus", "cpuset.cpus"), "0"),
    ],
)
def test_limits(run, options, file, wanted):
    assert run(f"cat {file}", *options).stdout.strip() == wanted


def test_processor_time(run):
    if cgroups.home("cpu").version == 1:
        script = "cd /sys/fs/cgroup/cpu; cat cpu.cfs_quota_us cpu.cfs_period_us cpu.shares"
        assert run(script, "--cpus", "1.5", "-c", "512").stdout.split() == ["150000", "100000", "512"]
    else:
        assert run("cat /sys/fs/cgroup/cpu.max", "--cpus", "1.5").stdout.split() == ["150000", "100000"]


def test_swap_is_what_docker_makes_of_it(run):
    file = files("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    for options, swap in (([], 64 << 20), (["--memory-swap", "64m"], 0), (["--memory-swap", "80m"], 16 << 20)):
        wanted = swap + (64 << 20 if V1 else 0)
        assert run(f"cat {file}", "-m", "64m", *options).stdout.strip() == str(wanted)


def test_without_takes_one_out(run):
    listed = run("ls /sys/fs/cgroup", "-m", "64m", "--cpus", "1", "--without", "memory").stdout.split()
    if V1:
        assert "memory" not in listed
        assert {"cpu", "pids"} <= set(listed)
    assert run("ls -A /sys/fs/cgroup", "--without", "pids").stdout == ""


def test_oom_kill_disable(run):
    if V1:
        script = "cat /sys/fs/cgroup/memory/memory.oom_control"
        assert "oom_kill_disable 1" in run(script, "-m", "64m", "--oom-kill-disable").stdout
    else:
        assert "memory: cgroup v2 has no" in run("true", "-m", "64m", "--oom-kill-disable", code=125).stderr


def test_a_device(run):
    assert run("stat -c %F:%a /dev/x/z", "--device", "/dev/zero:/dev/x/z:r").stdout == "character special file:666\n"


def test_rates_of_a_block_device(run, requires):
    disk = next((f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if os.path.exists(f"/dev/{name}")), None)
    if disk is None:
        pytest.skip("there is no block device here")
    numbers = os.stat(disk).st_rdev
    told = run(
        f"cat {files('io', 'blkio.throttle.read_bps_device', 'io.max')}",
        "--device-read-bps",
        f"{disk}:1mb",
        "--with",
        "io",
    ).stdout
    assert told.startswith(f"{os.major(numbers)}:{os.minor(numbers)} ")
    assert "1048576" in told


def test_best_effort(run):
    """A hierarchy is asked for that no host has; the conf of v2 where memory is on v1."""
    conf = ["--cgroup-conf", "memory.nosuch=1"]
    failed = run("echo ran", *conf, code=125)
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    done = run("echo ran", *conf, "--best-effort", "cgroup_conf")
    assert done.stdout == "ran\n"
    assert done.stderr.startswith("minictr run: cgroup_conf is left out: ")
    assert done.stderr.count("\n") == 1
    assert run("echo ran", *conf, "--best-effort", "memory", code=125).stderr == failed.stderr
    assert run("exit 7", "--best-effort", "memory", code=7).stderr == ""


def test_best_effort_says_what_else_is_gone(run):
    words = ["--profile", "bare", "--with", "mnt", "--with", "sysfs", "--with", "cgroupns", "--with", "cgroupfs"]
    done = run("echo ran", *words, "--cgroup-conf", "memory.nosuch=1", "--best-effort", "cgroup_conf")
    assert done.stdout == "ran\n"
    assert "(and with it cgroupfs)" in done.stderr


def test_a_group_below_a_parent(run):
    name = f"minictr-test-{os.getpid()}"
    shown = run("cat /proc/self/cgroup", "--cgroup-parent", name, "--cgroupns", "host").stdout
    own = cgroups.home("pids").own
    try:
        assert f"/{name}/" in shown
    finally:
        if os.path.isdir(f"{own}/{name}"):
            cgroups.remove(f"{own}/{name}")
