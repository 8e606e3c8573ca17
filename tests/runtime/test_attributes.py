"""What the program is given: environment, directory, limits, and the other attributes of a process."""

from __future__ import annotations

import ctypes
import os
import resource

import pytest

import minictr as mc

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(box: mc.Container, sh) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in sh(box, "exec cat /proc/self/environ").split("\0") if line)


# --- environment ---


def test_the_environment_is_exactly(box, monkeypatch):
    monkeypatch.setenv("SECRET", "of the caller")
    done = box.run(["env"], stdout=mc.PIPE, text=True)
    assert sorted(done.stdout.splitlines()) == ["HOME=/root", "HOSTNAME=minictr", f"PATH={PATH}"]


def test_variables_on_top(box):
    more = box.with_(mc.Env((("A", "1"), ("B", "with space\nand line"), ("PATH", "/bin"), ("C", ""))))
    done = more.run(["env", "-0"], stdout=mc.PIPE, text=True)
    found = dict(row.split("=", 1) for row in done.stdout.split("\0") if row)
    assert found == {
        "A": "1",
        "B": "with space\nand line",
        "C": "",
        "PATH": "/bin",
        "HOME": "/root",
        "HOSTNAME": "minictr",
    }


@pytest.mark.parametrize("how", ["absent", "not cleared"])
def test_without_clearing_it_is_the_callers(box, monkeypatch, how):
    monkeypatch.setenv("OF_THE_CALLER", "yes")
    open_box = box.without("env") if how == "absent" else box.with_(mc.Env((("X", "y"),), clear=False))
    done = open_box.run(["env"], stdout=mc.PIPE, text=True)
    assert "OF_THE_CALLER=yes" in done.stdout
    assert ("X=y" in done.stdout.splitlines()) == (how == "not cleared")
    monkeypatch.setenv("OF_THE_CALLER", "changed")  # not kept from the run before
    assert "OF_THE_CALLER=changed" in open_box.run(["env"], stdout=mc.PIPE, text=True).stdout


def test_a_large_environment_and_many_arguments(box):
    variables = tuple((f"V{i}", "x" * 1000) for i in range(100))
    done = box.with_(mc.Env(variables)).run(["sh", "-c", "echo $# ${#V99}", *["word"] * 5001], stdout=mc.PIPE)
    assert done.stdout == b"5000 1000\n"


# --- directory, umask, limits ---


def test_cwd(box, sh):
    assert sh(box, "pwd") == "/"
    assert sh(box.with_(mc.Cwd("/usr/bin")), "pwd") == "/usr/bin"


def test_cwd_is_made_if_missing(box, sh):
    fresh = box.with_(mc.Tmpfs("/work-space"), mc.Cwd("/work-space/a/b"))
    assert sh(fresh, "pwd; ls -ld . | cut -c1-10") == "/work-space/a/b\ndrwxr-xr-x"


def test_cwd_that_the_user_may_not_enter(box):
    """Nor with a capability that root would have kept: what is left at execve is what the program is to have."""
    closed = box.with_(mc.Tmpfs("/private-room", mode=0o700), mc.Cwd("/private-room"), mc.Identity("alice"))
    with pytest.raises(mc.StepFailed, match=r"chdir /private-room: EACCES .*feature cwd"):
        closed.run(["true"])


def test_umask(box, sh):
    old = os.umask(0o077)
    try:
        assert sh(box, "umask") == "0022"
        assert sh(box.with_(mc.Umask(0o027)), "umask") == "0027"
        assert sh(box.without("umask"), "umask") == "0077"
    finally:
        os.umask(old)


def test_rlimits(box, sh):
    limited = box.with_(mc.Rlimits((("nofile", 100, 200), ("core", 0, 0), ("cpu", 5, 10), ("stack", 1 << 20, 1 << 21))))
    told = sh(limited, "prlimit --noheadings --raw -o RESOURCE,SOFT,HARD").splitlines()
    rows = {row.split()[0]: row.split()[1:] for row in told}
    assert rows["NOFILE"] == ["100", "200"]
    assert rows["CPU"] == ["5", "10"]
    assert rows["STACK"] == [str(1 << 20), str(1 << 21)]
    ours = resource.getrlimit(resource.RLIMIT_NPROC)
    assert rows["NPROC"] == ["unlimited" if n == -1 else str(n) for n in ours]


def test_no_core_dumps_by_default(box, sh):
    assert sh(box, "ulimit -c") == "0"


def test_a_limit_that_is_above_the_callers(box):
    with open("/proc/self/status") as file:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    if held >> 24 & 1:
        pytest.skip("this root has CAP_SYS_RESOURCE and may raise any limit")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with pytest.raises(mc.StepFailed, match=r"rlimit .*EPERM.*CAP_SYS_RESOURCE"):
        box.with_(mc.Rlimits((("nofile", hard + 1, hard + 1),))).run(["true"])


def test_a_cpu_limit_ends_the_program(box):
    done = box.with_(mc.Rlimits((("cpu", 1, 1),))).run(["bash", "-c", "while :; do :; done"], timeout=30)
    assert done.signal == 9


def test_oom_score_adj(box, sh):
    own = int(open_text("/proc/self/oom_score_adj"))
    assert int(sh(box, "cat /proc/self/oom_score_adj")) == own
    assert sh(box.with_(mc.OomScoreAdj(500)), "cat /proc/self/oom_score_adj /proc/1/oom_score_adj") == "500\n500"


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


# --- kernel settings ---


def test_sysctl(box, sh):
    before = open_text("/proc/sys/net/ipv4/ip_forward"), open_text("/proc/sys/kernel/shmmax")
    told = mc.Sysctl((("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "123456"), ("net/ipv4/ip_default_ttl", "77")))
    read = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_default_ttl"
    assert sh(box.with_(told), read).split() == ["1", "123456", "77"]
    assert (open_text("/proc/sys/net/ipv4/ip_forward"), open_text("/proc/sys/kernel/shmmax")) == before


def test_ping_and_low_ports_for_all_by_default(box, sh):
    read = "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert sh(box, read).split() == ["0", "2147483647", "0"]
    assert sh(box.without("sysctl"), read).split() == ["1", "0", "1024"]


@pytest.mark.parametrize(
    ("key", "error"), [("net.ipv4.no_such_thing", "ENOENT"), ("net.ipv4.ip_default_ttl", "EINVAL")]
)
def test_a_sysctl_that_the_kernel_refuses(box, key, error):
    with pytest.raises(mc.StepFailed, match=error):
        box.with_(mc.Sysctl(((key, "100000"),))).run(["true"])


def test_keyring(box, sh):
    """A key of the caller's session is found without the feature only. Filters close keyctl(2) altogether."""
    box = box.without("seccomp")
    libc = ctypes.CDLL(None, use_errno=True)
    add_key, keyctl = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
    join, unlink, session = 1, 9, -3
    if libc.syscall(keyctl, join, None) < 0:
        pytest.skip("no keyrings here")
    key = libc.syscall(add_key, b"user", b"minictr-test", b"secret", 6, session)
    assert key > 0
    try:
        assert "not available" in sh(box, "exec probe key minictr-test", code=1)
        assert sh(box.without("keyring"), "exec probe key minictr-test") == f"ok key {key}"
    finally:
        libc.syscall(keyctl, unlink, key, session)


def test_address_randomisation(box, sh):
    def places(which: mc.Container) -> set[str]:
        return {sh(which, "exec probe stack") for _ in range(6)}

    assert len(places(box)) > 1
    fixed = box.with_(mc.Personality(aslr=False))
    assert len(places(fixed)) == 1
    assert sh(fixed, "exec probe personality") == "ok 40000"
    assert sh(box, "exec probe personality") == "ok 0"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="a 32-bit machine to show is i686 on x86_64 only")
def test_a_32_bit_machine_on_show(box, sh):
    assert sh(box.with_(mc.Personality(persona="linux32")), "uname -m") == "i686"


# --- session, signals ---


def test_session(box, sh):
    """Field 6 of /proc/self/stat: the session, 0 for one that was begun outside."""
    read = "read -a f < /proc/self/stat; echo ${f[5]} $$"
    own, pid = sh(box, read).split()
    assert own == pid
    assert sh(box.without("session"), read).split()[0] == "0"


def test_signals_are_as_by_default(box, status):
    """Python ignores SIGPIPE; a caller may block others. The program gets none of it."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for less in ((), ("init",)):
            found = status(box.without(*less))
            assert [found[name] for name in ("SigBlk", "SigIgn")] == ["0" * 16] * 2
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGTERM})


def test_pdeathsig(box, sh):
    assert sh(box.with_(mc.Pdeathsig()).without("init"), "exec probe pdeathsig") == "ok 9"
    assert sh(box.with_(mc.Pdeathsig("TERM")).without("init"), "exec probe pdeathsig") == "ok 15"
    assert sh(box.without("init"), "exec probe pdeathsig") == "ok 0"
    # outside a pid namespace nothing but this ends the program with its init
    assert sh(box.without("pid"), "exec probe pdeathsig") == "ok 9"
