"""Filters in containers, proved by calls that fail: by name and by number, on x86_64, on i386 and with x32's bit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minictr as mc

HERE = Path(__file__).resolve().parent
AF_INET, AF_ALG, AF_VSOCK = 2, 38, 40
SOCKET, IO_URING_SETUP, PERSONALITY, CLONE3, UNSHARE, GETPID = 41, 425, 135, 435, 272, 39  # x86_64
SOCKET32, SOCKETCALL32, GETPID32, UNSHARE32 = 359, 102, 20, 310
SYS_SOCKET, SYS_SHUTDOWN = 1, 13
BEYOND = 999  # no kernel has it yet


@pytest.fixture(scope="module")
def calls(lab, tmp_path_factory, requires):
    """``calls(box, abi, number, *args)``: 0, or the errno of that system call made in a container."""
    gcc = requires("gcc")
    if os.uname().machine != "x86_64":
        pytest.skip("numbers and ABIs of x86_64")
    path = lab / "bin" / "calls"
    if not path.exists():
        source = HERE / "calls.c"
        flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static", "-no-pie")
        subprocess.run([gcc, *flags, "-o", path, source], check=True)

    def call(box, abi, number, *args):
        done = box.run(["calls", abi, str(number), *map(str, args)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done
        return -int(done.stdout)

    return call


@pytest.fixture(scope="module")
def ia32(calls, box):
    if box.without("seccomp").run(["calls", "32", str(GETPID32)], capture_output=True).returncode:
        pytest.skip("not exercisable here: this kernel runs no i386 system calls")


@pytest.fixture(scope="module")
def open_box(box):
    """Without a filter, and able: what is refused with one is refused by it."""
    return box.without("seccomp")


@pytest.mark.parametrize("profile", ["default", "docker", "lxc"])
def test_a_profile_has_its_filter(lab, status, profile):
    box = mc.Container(lab, features=profile)
    found = status(box)
    assert (found["Seccomp"], found["Seccomp_filters"]) == ("2", "1")
    assert found["NoNewPrivs"] == ("1" if profile == "default" else "0")
    assert status(box.without("seccomp"))["Seccomp"] == "0"


def test_bare_has_none():
    assert "seccomp" not in {feature.name for feature in mc.profiles.BARE}


@pytest.mark.parametrize("family", [AF_ALG, AF_VSOCK])
def test_families_are_closed(box, open_box, calls, family):
    assert calls(box, "64", SOCKET, family, 5, 0) == errno.EPERM
    assert calls(open_box, "64", SOCKET, family, 5, 0) != errno.EPERM
    assert calls(box, "64", SOCKET, AF_INET, 2, 0) == 0


@pytest.mark.parametrize("family", [AF_ALG, AF_VSOCK])
def test_families_are_closed_to_i386(box, open_box, calls, ia32, family):
    assert calls(box, "32", SOCKET32, family, 5, 0) == errno.EPERM
    assert calls(open_box, "32", SOCKET32, family, 5, 0) != errno.EPERM
    assert calls(box, "32", SOCKET32, AF_INET, 2, 0) == 0


def test_socketcall_makes_no_sockets(box, lab, calls, ia32):
    """The family is in memory there, where no filter looks; Docker lets it through for programs that know no other."""
    assert calls(box, "32", SOCKETCALL32, SYS_SOCKET, f"@{AF_INET},2,0") == errno.ENOSYS
    assert calls(box, "32", SOCKETCALL32, SYS_SHUTDOWN, "@99,0") == errno.EBADF
    assert calls(mc.Container(lab, features="docker"), "32", SOCKETCALL32, SYS_SOCKET, f"@{AF_INET},2,0") == 0


def test_io_uring_is_closed(box, open_box, calls):
    assert calls(box, "64", IO_URING_SETUP, 1, 0) == errno.EPERM
    assert calls(open_box, "64", IO_URING_SETUP, 1, 0) in (errno.EFAULT, errno.ENOSYS)


def test_x32_is_refused(box, lab, calls):
    assert calls(box, "x32", GETPID) == errno.ENOSYS
    foreign = mc.SeccompFilter("allow", bad_arch="errno")
    assert calls(box.with_(mc.Seccomp(foreign)), "x32", GETPID) == errno.EPERM  # by the filter, not by the kernel


def test_i386_is_covered(box, calls, ia32):
    assert calls(box, "32", GETPID32) == 0
    denied = box.with_(mc.Seccomp(mc.SeccompFilter("allow").deny("getpid", errno="EXDEV")))
    assert calls(denied, "32", GETPID32) == calls(denied, "64", GETPID) == errno.EXDEV
    only = mc.SeccompFilter("allow", arches=("x86_64",), bad_arch="errno")
    assert calls(box.with_(mc.Seccomp(only)), "32", GETPID32) == errno.EPERM


def test_calls_newer_than_libseccomp(box, open_box, calls):
    """ENOSYS, upon which a program tries an older call; EPERM would end it."""
    strict = box.with_(mc.Seccomp(mc.SeccompFilter.docker().replace(newer=None)))
    assert calls(strict, "64", BEYOND) == errno.EPERM
    assert calls(box, "64", BEYOND) == calls(open_box, "64", BEYOND) == errno.ENOSYS


def test_clone3_is_not_there_and_clone_makes_no_namespace(box, calls):
    assert calls(box, "64", CLONE3, 0, 0) == errno.ENOSYS
    assert calls(box, "64", UNSHARE, 0x10000000) == errno.EPERM
    assert calls(box, "64", PERSONALITY, 0x1234) == errno.EPERM
    assert calls(box, "64", PERSONALITY, 0xFFFFFFFF) == 0


def test_what_a_policy_allows_hangs_on_capabilities(lab, calls):
    docker = mc.Container(lab, features="docker")
    assert calls(docker, "64", UNSHARE, 0x04000000) == errno.EPERM
    features = {feature.name: feature for feature in mc.profiles.DOCKER}
    held = features["capabilities"].bounding
    assert calls(docker.with_(mc.Capabilities((*held, "SYS_ADMIN"))), "64", UNSHARE, 0x04000000) == 0


@pytest.mark.parametrize("without", [(), ("no_new_privs",), ("init",), ("pid",)])
def test_a_filter_of_ones_own(box, sh, status, without):
    flt = mc.SeccompFilter("allow").deny("mkdir", "mkdirat", errno="EDQUOT").deny("kill", when=(1, "==", 10))
    judged = box.without(*without).with_(mc.Tmpfs("/tmp"), mc.Seccomp(flt))
    assert "Disk quota" in sh(judged, "mkdir /tmp/x 2>&1", code=1)
    assert sh(judged, "kill -s 0 $$ && ! kill -s USR1 $$ 2>/dev/null; echo $?") == "0"
    assert status(judged)["Seccomp"] == "2"


def test_strict(box, lab, requires):
    """Four calls of mode 1, execve and exit_group: a static program of these runs, any other is killed."""
    gcc = requires("gcc")
    source = (
        "#include <unistd.h>\n#include <sys/syscall.h>\n"
        'void _start(void) { syscall(SYS_write, 1, "said\\n", 5); if (MORE) syscall(SYS_getpid);'
        " syscall(SYS_exit, 3); }"
    )
    judged = box.with_(mc.Seccomp("strict"))
    for more in (0, 1):
        program = lab / "bin" / f"strict{more}"
        command = [gcc, "-O1", "-static", "-nostartfiles", f"-DMORE={more}", "-x", "c", "-", "-o", program]
        subprocess.run(command, input=source.encode(), check=True)
    done = judged.run(["strict0"], capture_output=True)
    assert (done.returncode, done.stdout) == (3, b"said\n")
    assert judged.run(["strict1"], capture_output=True).signal == 31
    assert judged.run(["true"], capture_output=True).signal == 31  # a dynamic program maps memory


def test_exec_has_the_containers_filter(box, calls, tmp_path):
    """The program itself is written down: what is installed or said later changes nothing."""
    flt = mc.SeccompFilter("allow").deny("personality", errno="EXDEV")
    instance = box.with_(mc.Seccomp(flt)).start(["sleep", "100"], root=tmp_path / "root")
    try:
        with open(os.path.join(instance.directory, "state.json"), encoding="utf-8") as file:
            features = json.load(file)["spec"]["features"]
        program = next(row for row in features if row["feature"] == "seccomp")["program"]["hex"]
        assert bytes.fromhex(program) == flt.program
        asked = ["calls", "64", str(PERSONALITY), "0xffffffff"]
        done = instance.exec(asked, capture_output=True, text=True)
        assert done.stdout == f"-{errno.EXDEV}\n"
        done = instance.exec(asked, capture_output=True, text=True, without=("seccomp",))
        assert done.stdout == "0\n"
        done = instance.exec(["cat", "/proc/self/status"], capture_output=True, text=True)
        assert "Seccomp:\t2\nSeccomp_filters:\t1\n" in done.stdout
        shown = next(row for row in instance.inspect()["Features"] if row["feature"] == "seccomp")
        assert shown["program"]["instructions"] == len(flt.program) // 8
        assert shown["source"] == "filter"
    finally:
        instance.remove(force=True)


@pytest.mark.parametrize("flt", ['"default"', '"docker"', "mc.SeccompFilter('allow').deny('prctl')"])
def test_a_success_that_was_none_ends_the_start(box, requires, tmp_path, flt):
    """seccomp(2) that is made to do nothing and say 0: the mode is read back, and the program does not run."""
    strace = requires("strace")
    code = (
        f"import minictr as mc\nbox = mc.Container({box.rootfs!r}).without('init').with_(mc.Seccomp({flt}))\n"
        "print('ran', box.run(['true']).returncode)"
    )
    for inject, ran in ((("-e", "inject=seccomp:retval=0"), False), ((), True)):
        command = [
            strace,
            "-f",
            "-o",
            str(tmp_path / "trace"),
            "-e",
            "trace=seccomp",
            *inject,
            sys.executable,
            "-c",
            code,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
        text = (tmp_path / "trace").read_text()
        assert ("INJECTED" in text) is not ran
        assert "SECCOMP_SET_MODE_FILTER" in text
        assert done.stdout == ("ran 0\n" if ran else "")
        assert ("StepFailed: seccomp" in done.stderr) is not ran, done.stderr


def test_flags_reach_the_kernel(box, requires, tmp_path):
    requires("strace")
    plan = box.with_(mc.Seccomp("docker", flags=("log",))).plan(["true"])
    assert next(step for step in plan if step.call == "seccomp").args["flags"] == 2  # SECCOMP_FILTER_FLAG_LOG
    assert box.with_(mc.Seccomp("docker", flags=("log", "spec_allow"))).run(["true"]).returncode == 0
