"""``on_syscall``: a function of this process decides calls of a program, proved by what the program gets."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from joined import target_of
from notifying import DIRECTORIES, HERE, NODES, Slow, asking, path_of

import minictr as mc
from minictr.runtime.join import exec_run
from minictr.runtime.supervisor import AT_ONCE

pytestmark = pytest.mark.usefixtures("nothing_left")
MKDIR32, GETPID32 = 39, 20
STARTS = [
    ("default", ()),
    ("default", ("init",)),
    ("default", ("no_new_privs",)),
    ("default", ("no_new_privs", "init")),
    ("default", ("pid",)),
    ("docker", ()),
    ("bare", ()),
]


@pytest.mark.parametrize("beside", [(), ("sendmsg",)], ids=["sent", "sent-beside"])
@pytest.mark.parametrize(("profile", "without"), STARTS)
def test_it_decides(lab, sh, profile, without, beside):
    """An errno, a value without a deed, and the deed itself; whatever else is in the container, and whether the
    listener is sent by the start itself or, where sendmsg would wait, by a thread beside."""
    box = mc.Container(lab, features=profile).without(*without)
    asked = []

    def handler(call):
        asked.append(path_of(call))
        if call.name in NODES:
            return 0 if asked[-1] == "/dev/mine" else mc.Errno("EXDEV")
        return mc.CONTINUE

    box = box.with_(asking(*NODES, *DIRECTORIES, *beside))
    box = box.with_(mc.Tmpfs("/asked")) if profile != "bare" else box
    place = "/asked" if profile != "bare" else "/tmp"
    script = f"mknod /dev/mine c 1 3 && test ! -e /dev/mine && ! mknod /dev/other c 1 3; cd {place} && mkdir made"
    script += " && rmdir made && echo was made"
    done = box.run(["bash", "-c", script], on_syscall=handler, capture_output=True, text=True, timeout=30)
    assert done.stdout == "was made\n", done
    assert "Invalid cross-device link" in done.stderr
    assert asked == ["/dev/mine", "/dev/other", "made"]
    assert done.handler_errors == ()


@pytest.mark.parametrize("beside", [(), ("sendmsg",)])
def test_in_a_user_namespace(lab, sh, beside):
    box = mc.Container(lab).with_(mc.UserNamespace(), asking(*NODES, *beside))
    script = "mknod /dev/mine c 1 3 && echo as told"
    assert sh(box, script, on_syscall=lambda call: 0 if path_of(call) == "/dev/mine" else mc.Errno("EIO")) == "as told"


def test_a_file_that_the_container_cannot_see(box, tmp_path, sh):
    secret = tmp_path / "secret"
    secret.write_text("from outside\n")

    def handler(call):
        if call.string(call.args[1]) != "/secret":
            return mc.CONTINUE
        with open(secret) as file:
            return call.add_fd(file, cloexec=True)

    open_files = box.with_(asking("openat"))
    assert sh(open_files, "cat /secret; exec 7</secret; readlink /proc/self/fd/7", on_syscall=handler) == (
        f"from outside\n{secret}"
    )
    assert "No such file" in sh(box, "cat /secret 2>&1", code=1)


def test_a_descriptor_and_another_answer(box, sh, tmp_path):
    """At a number of our choice, while the call says something else."""
    (tmp_path / "given").write_text("given\n")

    def handler(call):
        fd = os.open(tmp_path / "given", os.O_RDONLY)
        try:
            assert call.add_fd(fd, at=9, answer=False) == 9
            assert call.waits
        finally:
            os.close(fd)
        return 0o123

    # a word of the shell's own, so the shell has it: what was "the mask before" is what is said
    assert sh(box.with_(asking("umask")), "umask; cat <&9", on_syscall=handler) == "0123\ngiven"


@pytest.mark.parametrize("without", [(), ("no_new_privs",), ("init",)])
def test_every_call_of_the_program_and_none_of_the_start(box, sh, without):
    """The first that is asked about is the execve of the program itself; the start's own calls are not shown."""
    names = []

    def handler(call):
        names.append((call.name, call.pid))
        return mc.CONTINUE

    everything = box.without(*without).with_(mc.Seccomp(mc.SeccompFilter("notify")))
    assert sh(everything, "echo ran", on_syscall=handler) == "ran"
    assert names[0][0] == "execve"
    assert len({pid for _, pid in names}) == 1
    assert {"write", "exit_group", "mmap"} <= {name for name, _ in names}
    assert {"capset", "setresuid", "seccomp", "close_range"}.isdisjoint(name for name, _ in names)


def test_the_execve_of_the_start(box, lab):
    tried = []

    def handler(call):
        tried.append(call.string(call.args[0]))
        return mc.Errno("EPERM") if tried[-1] == "/bin/true" or tried[-1] == "/usr/bin/true" else mc.CONTINUE

    def broken(call):
        raise RuntimeError("a mistake")

    guarded = box.with_(asking("execve"))
    assert guarded.run(["env", "echo"], on_syscall=handler, stdout=mc.DEVNULL).returncode == 0
    assert [Path(path).name for path in tried][-1] == "echo"
    for function in (handler, broken):
        with pytest.raises(mc.CommandNotExecutable, match="exec .*EPERM") as caught:
            guarded.run(["true"], on_syscall=function)
        told = getattr(caught.value, "__notes__", [])
        assert [words for words in told if "a mistake" in words] == told
        assert len(told) == (function is broken)


@pytest.mark.parametrize("beside", [(), ("sendmsg",)])
def test_nothing_of_it_is_in_the_program(box, sh, beside):
    """No listener, no socket, no thread and no child that it did not make."""
    judged = box.with_(asking(*NODES, *beside))
    script = (
        "ls -l /proc/self/fd; cat /proc/self/task/*/children; echo threads /proc/$$/task/*; ls /proc | tr '\\n' ' '"
    )
    said = sh(judged, script, on_syscall=lambda _: 0)
    assert "seccomp" not in said
    assert "socket" not in said
    assert len([line for line in said.splitlines() if " -> " in line]) == 4  # with the directory itself
    (threads,) = (line.split()[1:] for line in said.splitlines() if line.startswith("threads"))
    assert len(threads) == 1
    status = sh(judged, "cat /proc/self/status", on_syscall=lambda _: 0)
    assert "Seccomp:\t2\n" in status


def test_addresses_and_numbers(made, asks):
    """What a program gets for an address that is none is what the kernel says, and no mistake of the function's."""

    def handler(call):
        assert call.signed(0) == -100  # AT_FDCWD
        assert (call.arch, call.args[2]) == (os.uname().machine, 0o700)
        return mc.Errno(errno.EXDEV) if call.string(call.args[1]) else 0

    done = made.run(["asks", "bad"], on_syscall=handler, capture_output=True, text=True)
    assert (done.stdout, done.handler_errors) == (f"{errno.EFAULT}\n", ())


def test_i386(box, lab, requires, sh):
    if os.uname().machine != "x86_64":
        pytest.skip("numbers and ABIs of x86_64")
    program = lab / "bin" / "calls"
    if not program.exists():
        flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-static", "-no-pie")
        subprocess.run([requires("gcc"), *flags, "-o", program, HERE / "calls.c"], check=True)
    tried = box.without("seccomp").run(["calls", "32", str(GETPID32)], capture_output=True)
    if (tried.returncode, tried.stdout) != (0, b"0\n"):  # killed, or taken for another number
        pytest.skip("not exercisable here: this kernel runs no i386 system calls")
    seen = []

    def handler(call):
        seen.append((call.name, call.arch, call.string(call.args[0]), call.args[1]))
        return mc.Errno("EXDEV")

    path = int.from_bytes(b"/ab\0", "little")
    judged = box.with_(asking("mkdir"))
    for abi, number in (("32", MKDIR32), ("64", 83)):
        assert sh(judged, f"calls {abi} {number} @{path} 448", on_syscall=handler) == f"-{errno.EXDEV}"
    assert seen == [("mkdir", "x86", "/ab", 0o700), ("mkdir", "x86_64", "/ab", 0o700)]


def test_it_does_not_hold_up_the_event_loop(made):
    async def main() -> tuple[mc.Result, int]:
        slow, ticks = Slow(), 0
        running = asyncio.create_task(made.run_async(["mkdir", "/asked/x"], on_syscall=slow))
        while not slow.entered.is_set() or ticks < 5:
            ticks += 1
            await asyncio.sleep(0.01)
        slow.go.set()
        return await running, ticks

    done, ticks = asyncio.run(main())
    assert done.returncode == 0
    assert ticks >= 5


def test_many_threads_ask_at_once(made, asks):
    """As many as there may be are decided at the same time: each waits here for all the others."""
    together = threading.Barrier(AT_ONCE)
    seen = Counter()

    def handler(call):
        together.wait(20)
        seen[call.pid] += 1
        return int(path_of(call).rpartition("/")[2])

    done = made.run(["asks", str(2 * AT_ONCE)], on_syscall=handler, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.handler_errors) == (f"{sum(range(2 * AT_ONCE))}\n", ())
    assert set(seen.values()) == {1}
    assert len(seen) == 2 * AT_ONCE


def test_two_containers_have_each_its_own(made, sh):
    found = {}

    def run(word):
        script = f"mkdir /asked/{word} && echo {word}"
        found[word] = sh(made, script, on_syscall=lambda call: 0 if word in path_of(call) else mc.Errno("EIO"))

    threads = [threading.Thread(target=run, args=(word,)) for word in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"one": "one", "other": "other"}


# --- exec ---


@pytest.mark.parametrize("pids", [True, False])
def test_exec(box, inside, pids):
    which = box if pids else box.without("pid")
    target = inside(which)
    options = {"capture_output": True, "text": True, "timeout": 30, "seccomp": asking(*NODES).program}
    seen = []

    def handler(call):
        seen.append(path_of(call))
        return 0

    for _ in range(2):  # the second by the kept program
        done = exec_run(target, ["bash", "-c", "mknod /x c 1 3 && ls /proc/self/fd"], on_syscall=handler, **options)
        assert done.stdout.split() == ["0", "1", "2", "3"], done
    other = mc.SeccompFilter("allow").deny(*NODES, errno="EXDEV")
    done = exec_run(target, ["mknod", "/x", "c", "1", "3"], **{**options, "seccomp": other})
    assert "cross-device" in done.stderr
    assert seen == ["/x", "/x"]
    with pytest.raises(mc.SpecError, match="give on_syscall="):
        exec_run(target, ["true"], **options)
    with pytest.raises(mc.SpecError, match="no filter asks it"):
        exec_run(target, ["true"], **{**options, "seccomp": other}, on_syscall=handler)


def test_exec_repeats_the_container_s_own(box, made):
    with made.popen(["sleep", "100"], on_syscall=lambda _: 0) as process:
        target = target_of(process, made)
        done = exec_run(target, ["mkdir", "/asked/x"], on_syscall=lambda _: mc.Errno("EXDEV"), capture_output=True)
        assert b"cross-device" in done.stderr
        with pytest.raises(mc.SpecError, match="give on_syscall="):
            exec_run(target, ["true"])
        assert exec_run(target, ["mkdir", "/asked/x"], without=("seccomp",)).returncode == 0


def test_exec_without_no_new_privs(lab, inside):
    """The filter is loaded before it is born in the container: no thread beside can be made then."""
    target = inside(mc.Container(lab, features="docker"))
    command = ["mknod", "/x", "c", "1", "3"]
    options = {"on_syscall": lambda _: 0}
    assert exec_run(target, command, seccomp=asking(*NODES).program, **options).returncode == 0
    both = asking(*NODES, "sendmsg").program
    with pytest.raises(mc.SpecError, match="no_new_privs=True"):
        exec_run(target, command, seccomp=both, **options)
    assert exec_run(target, command, seccomp=both, no_new_privs=True, **options).returncode == 0


def test_exec_in_a_kept_container(box):
    with_nothing = box.replace(name="asked-about").start(["sleep", "100"])
    try:
        options = {"seccomp": asking(*NODES).program, "on_syscall": lambda call: 0}
        assert with_nothing.exec(["mknod", "/x", "c", "1", "3"], **options).returncode == 0
    finally:
        with_nothing.remove(force=True)
