"""Bombs: what one container could take from all others, each bounded by a limit.

The limit is read first, from the kernel and from outside, while the program still waits: no bomb starts before it is
known to be in force. What shows that a test can fail stops by itself at a number (attempts/limits.c).
"""

from __future__ import annotations

import os
import time

import compiled
import pytest

import minictr as mc

MIB = 1 << 20


@pytest.fixture
def bounded():
    """``bounded(BOX, NAME, {FIELD: VALUE}, FACT=VALUE...)``: the verdict on a bomb that starts only when
    ``mc.isolation`` of its process says that these fields hold."""

    def run(box: mc.Container, name: str, holds: dict[str, object], **facts: object) -> compiled.Verdict:
        words = " ".join(["attempt", name, *(f"{key}={value}" for key, value in facts.items())])
        script = ["bash", "-c", f"read -r && exec {words}"]
        with box.popen(script, stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
            with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
                program = (children.read().split() or [process.pid])[0]
            found = mc.isolation(int(program))
            for field, value in holds.items():
                there, key = field.split("/", 1)
                seen = getattr(found, there)[key]
                assert value in seen.split(",") if isinstance(seen, str) else seen == value, (field, seen)
            said = process.communicate("go\n", timeout=60)[0]
        assert name in compiled.verdicts(said), said
        return compiled.verdicts(said)[name]

    return run


def test_a_fork_bomb(hostile, bounded):
    """pids.max, Linux 4.3. All that it makes fork as well, for a second; the host forks on meanwhile."""
    begin = time.monotonic()
    verdict = bounded(hostile.with_(mc.Pids(64)), "bomb_fork", {"limits/pids.max": 64})
    assert verdict.result == compiled.BLOCKED and "refused" in verdict.how
    assert time.monotonic() - begin < 60
    assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]) == 0


def test_processes(hostile, bounded, tried):
    """The default has 1,024 (features/profiles.py); without the limit more are to be had."""
    verdict = bounded(hostile, "processes", {"limits/pids.max": 1024}, most=1200)
    assert verdict.errno == "EAGAIN" and 1000 < int(verdict.how.split()[2]) < 1024
    assert tried(hostile.without("pids"), "processes", most=1200).result == compiled.SUCCEEDED


def test_a_limit_of_processes_is_not_escaped_by_other_users(hostile, bounded):
    """RLIMIT_NPROC counts by user, host-wide (CVE-2021-32027's neighbourhood, setrlimit(2)); pids.max by container."""
    small = hostile.with_(mc.Pids(30), mc.Identity("alice"))
    verdict = bounded(small, "processes", {"limits/pids.max": 30}, most=100)
    assert verdict.errno == "EAGAIN" and int(verdict.how.split()[2]) < 30


def test_a_memory_bomb(hostile, bounded, tried):
    """memory.max, memory.limit_in_bytes: the one who takes is killed, and the container is told. There is no limit by
    default, as in docker: -m gives one."""
    small = hostile.with_(mc.Memory("32M", swap=0))
    verdict = bounded(small, "memory", {"limits/memory.max": 32 * MIB}, most=128)
    assert verdict.result == compiled.BLOCKED and int(verdict.how.split(" at ")[1].split()[0]) < 32
    done = small.run(["attempt", "memory", "most=128"], capture_output=True, text=True, timeout=60)
    assert done.usage.oom_kills == 1
    assert tried(hostile, "memory", most=128).result == compiled.SUCCEEDED


def test_memory_by_shared_memory(hostile, bounded, tried):
    """What is written to /dev/shm is memory of who wrote it, and stays when he ends."""
    wide = hostile.with_(mc.Shm(size="256M"))
    small = wide.with_(mc.Memory("32M", swap=0))
    words = {"limits/memory.max": 32 * MIB, "mounts//dev/shm": "size=262144k"}
    assert "SIGKILL" in bounded(small, "shm", words, most=96).how
    assert tried(wide, "shm", most=96).result == compiled.SUCCEEDED


def test_open_files(hostile, bounded, tried):
    """RLIMIT_NOFILE, --ulimit nofile: the default has its caller's. The kernel's memory for them counts as memory."""
    small = hostile.with_(mc.Rlimits((("nofile", 64, 64),)))
    verdict = bounded(small, "open_files", {"rlimits/nofile": (64, 64)}, most=1000)
    assert verdict.errno == "EMFILE" and int(verdict.how.split()[2]) < 64
    assert tried(hostile, "open_files", most=1000).result == compiled.SUCCEEDED


def test_shared_memory(hostile, bounded, tried):
    """tmpfs(5) size: 64 MiB, as docker's."""
    verdict = bounded(hostile, "shm", {"mounts//dev/shm": "size=65536k"}, most=96)
    assert verdict.errno == "ENOSPC" and int(verdict.how.split()[2]) == 64
    assert tried(hostile.with_(mc.Shm(size="256M")), "shm", most=96).result == compiled.SUCCEEDED


def test_inodes_of_shared_memory(hostile, bounded, tried):
    """tmpfs(5) nr_inodes: an empty file is a kilobyte of the kernel's. Docker has no limit."""
    verdict = bounded(hostile, "shm_inodes", {"mounts//dev/shm": "nr_inodes=16384"}, most=20000)
    assert verdict.errno == "ENOSPC"
    assert tried(hostile.with_(mc.Shm(inodes=0)), "shm_inodes", most=20000).result == compiled.SUCCEEDED


def test_inodes_of_dev(hostile, bounded, tried):
    """The same on /dev, where root inside may make files."""
    verdict = bounded(hostile, "dev_inodes", {"mounts//dev": "nr_inodes=16384"}, most=20000)
    assert verdict.errno == "ENOSPC"
    assert tried(hostile.with_(mc.Dev(inodes=0)), "dev_inodes", most=20000).result == compiled.SUCCEEDED


def test_pseudo_terminals(hostile, bounded, tried):
    """All containers share kernel.pty.max, but for the 1,024 that the host keeps: devpts has a limit of its own."""
    verdict = bounded(hostile, "terminals", {"mounts//dev/pts": "max=1024"}, most=1100)
    assert verdict.errno == "ENOSPC" and int(verdict.how.split()[2]) == 1024
    assert tried(hostile.with_(mc.Devpts(max=0)), "terminals", most=1100).result == compiled.SUCCEEDED
