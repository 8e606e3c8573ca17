"""What a hostile program tries inside, each with the feature that stands against it on and, where that is safe, off."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest

import minictr as mc

# --- init ---


def test_init_cannot_be_traced(box, attempt, powerful):
    assert attempt(box, "ptrace 1")
    # with the capability, and what is gained is a process that may do nothing: see the next test
    assert attempt(powerful(box, "SYS_PTRACE"), "ptrace 1") == ""


def test_who_traces_init_gains_nothing(box, status):
    init = status(box.without("capabilities", "no_new_privs"), "/proc/1/status")
    assert int(init["CapEff"], 16) == 1 << 5 and init["Seccomp"] == "2" and init["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", ["KILL", "STOP", "TERM", "SEGV"])
def test_init_cannot_be_killed_from_inside(box, sh, name):
    """kill -9 and -STOP of PID 1 do nothing; what has a default action is passed on, to the program itself."""
    script = f"trap 'echo mine' TERM; (kill -{name} 1; true); sleep 0.1; echo lives"
    done = box.run(["bash", "-c", script], stdout=mc.PIPE, text=True, timeout=10)
    if name == "SEGV":
        assert done.signal in (0, signal.SIGSEGV)
    else:
        assert done.stdout.split() == (["mine", "lives"] if name == "TERM" else ["lives"])


# --- terminal ---


def test_typing_into_the_callers_terminal(box, attempt):
    """TIOCSTI wants a controlling terminal: a session of its own has none (CVE-2017-5226)."""
    master, slave = pty.openpty()
    try:
        assert attempt(box, "sti", stdin=slave)
    finally:
        os.close(master)
        os.close(slave)


# --- processes ---


def test_processes_of_the_host(box, sh):
    """None is seen, and none can be signalled; without the namespace both are possible."""
    with subprocess.Popen(["sleep", "987"]) as victim:
        try:
            assert sh(box, "ps ax | while read a b c d e f; do case $f in 987) echo seen;; esac; done") == ""
            assert "No such process" in sh(box, f"kill -9 {victim.pid} 2>&1", code=1)
            assert victim.poll() is None
            sh(box.without("pid"), f"kill -9 {victim.pid}")
            assert victim.wait(10) == -9
        finally:
            victim.kill()


def test_kill_everything(box):
    with subprocess.Popen(["sleep", "987"]) as bystander:
        box.run(["bash", "-c", "kill -9 -1; sleep 0.1"], timeout=10)
        assert bystander.poll() is None
        bystander.kill()


def test_joining_the_hosts_namespaces(box, attempt):
    """/proc/1/ns is the container's own; there is no other file to join by."""
    assert attempt(box, "setns /proc/1/ns/mnt")
    assert attempt(box, "setns /proc/self/ns/net")


# --- privilege ---


def test_a_set_user_id_program(box, sh):
    alice = box.with_(mc.Identity("alice"))
    assert sh(alice, "suid user") == "ok 1000 1000"
    assert sh(alice.without("no_new_privs"), "suid user") == "ok 1000 0"
    on_tmpfs = alice.with_(mc.Bind(f"{box.rootfs}/bin", "/mnt", nosuid=True)).without("no_new_privs")
    assert sh(on_tmpfs, "/mnt/suid user") == "ok 1000 1000"


@pytest.mark.parametrize("verb", ["raw-socket", "mount tmpfs", "umount /proc/sys", "handle"])
def test_root_inside_is_not_root(box, attempt, verb):
    assert "not permitted" in attempt(box, verb)


def test_root_of_a_user_namespace_is_nobody_outside(box, sh, tmp_path):
    """A file it makes in a shared directory belongs to the mapped id, and root's own files are closed to it."""
    rows = ((0, 200_000, 1000),)
    tmp_path.chmod(0o777)
    (tmp_path / "roots").write_text("secret")
    (tmp_path / "roots").chmod(0o600)
    mapped = box.with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.Bind(str(tmp_path), "/mnt"))
    assert "ermission denied" in sh(mapped, "touch /mnt/mine; cat /mnt/roots 2>&1", code=1)
    assert os.stat(tmp_path / "mine").st_uid == 200_000
    assert sh(box.with_(mc.Bind(str(tmp_path), "/mnt")), "cat /mnt/roots") == "secret"
