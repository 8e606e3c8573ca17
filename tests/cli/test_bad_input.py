"""Every option with what it cannot mean: exit code 125, one line that names the option, nothing made."""

from __future__ import annotations

import os

import pytest

from minictr.cli import options

# option -> values it must refuse
BAD = {
    "--profile": ["", "none", "Default"],
    "--with": ["", "nosuch", "bind", "tmpfs", "hostname"],
    "--without": ["", "nosuch", "tmpfs:"],
    "--name": ["/", "a b", "-x", "x" * 65, "\n"],
    "-e": ["", "=x"],
    "--env": ["=", "a\nb=c"],
    "--env-file": ["", "/nosuch", "/tmp", "/dev/null/x"],
    "-w": ["", "relative", "/a/../b"],
    "-u": ["", ":", "a:b:c", "nobody:nosuchgroup", "nosuchuser", "-1", "4294967295", "a b"],
    "-h": ["", "a b", "-", "x" * 65, "a..b"],
    "--domainname": ["", "x" * 65],
    "--stop-signal": ["", "0", "65", "NOPE", "-9", "RTMIN+99"],
    "-v": ["", "/", "/tmp", ":/x", "/tmp:", "/tmp:relative", "/nosuch:/x", "/tmp:/x:nope", "/tmp:/x:ro,rw"],
    "--volume": ["/tmp:/x:ro:rw", "/tmp:/", "/tmp:/x:shared", "/tmp:/x:z"],
    "--mount": ["", "type=bind", "type=nope,target=/x", "type=bind,src=/no,dst=/x", "type=tmpfs,target=x", "dst=/x"],
    "--tmpfs": ["", "x", "/", "/x:size=", "/x:size=huge", "/x:mode=9", "/x:nope"],
    "--upper": ["", "/dev/null", "/nosuch/deeper"],
    "--shm-size": ["0", "-1", "x", "1q"],
    "--cap-add": ["", "NOPE", "CAP_", "99"],
    "--securebits": ["", "noroot", "+nope", "+keep_caps", "+noroot,", "+noroot,-no-root"],
    "--cap-drop": ["", "NOPE"],
    "--security-opt": ["", "nope", "no-new-privileges=maybe", "no-new-privileges=", "seccomp=file", "label=x"],
    "--ulimit": ["", "nofile", "nope=1", "nofile=", "nofile=2:1", "nofile=x"],
    "--sysctl": ["", "net.ipv4.ip_forward", "kernel.panic=1", "vm.swappiness=1", "../x=1"],
    "--best-effort": ["", "nosuch", "tmpfs:/x"],
    "--device": ["", "null", "/nosuch", "/etc/passwd", "/tmp", "/dev/null:", "/dev/null:x", "/dev/null:/x"],
    "--device-cgroup-rule": ["", "c 1:3", "c 1:3 x", "x 1:3 r", "c 1 r", "a 1:1 r", "c 1:3 rwm rwm"],
    "--ro": ["", "relative", "/nosuch", "/a/../b"],
    "--rw": ["", "./out", "/nosuch"],
    "--landlock-access": ["", "fs:", "fs:read", "net", "fs:read-file,"],
    "--landlock-rule": ["", "/tmp:read-file", "path-beneath:read:/tmp", "path-beneath:read-file:", "path-beneath:/tmp"],
    "--landlock-bind": ["", "x", "-1", "65536", "80,81"],
    "--landlock-connect": ["", "x", "-1", "65536"],
    "--landlock-scope": ["", "net", "signal,abstract-unix-socket"],
    "-m": ["", "x", "1", "-1", "1q"],
    "--memory": ["1e9", "9999999999999999999g"],
    "--memory-swap": ["", "x", "1g", "-2"],
    "--memory-reservation": ["", "x", "-1"],
    "--memory-swappiness": ["", "x", "101", "-2"],
    "--cpus": ["", "x", "-1", "0.001", "nan", "1e1", "99999"],
    "-c": ["", "1", "262145", "x"],
    "--cpu-shares": ["-1"],
    "--cpu-quota": ["", "999", "x", "-2"],
    "--cpu-period": ["", "999", "1000001", "x"],
    "--cpuset-cpus": ["", "x", "1-", "3-1", "0,,1", "99999"],
    "--cpuset-mems": ["", "-1"],
    "--pids-limit": ["", "-2", "x", "4194305"],
    "--blkio-weight": ["", "9", "1001", "x"],
    "--blkio-weight-device": ["", "8:0", "/dev/null:500", "8:0:5", "/nosuch:500", ":500"],
    "--device-read-bps": ["", "/dev/sda", "/dev/null:1m", "8:0:x", "8:0:0", "8:0:"],
    "--device-write-bps": ["x:1m"],
    "--device-read-iops": ["8:0:1m"],
    "--device-write-iops": ["8:0:-1"],
    "--cgroup-conf": ["", "memory.high", "=1", "memory=1", "cgroup.procs=1", "../a.b=1", "a.b="],
    "--cgroup-parent": ["", ".", "..", "/a/../b", "a\nb"],
    "--oom-score-adj": ["", "x", "1001", "-1001", "1.5"],
    **{
        option: ["", "nope", "ns:", "ns:/nosuch", "pid:", "pid:x", "pid:0", "pid:4194304", "Host"]
        for option in ("--pid", "--ipc", "--uts", "--net", "--userns", "--cgroupns", "--time")
    },
    "--network": ["container:x", "container:", "bridge:nosuch", "bridge:a/b", "slirp4netns", "bridge:mtu=x", "macvlan",
        "ipvlan:", "pasta:ip=",
        "macvlan:nosuch0", "macvlan:lo:mode=l2", "macvlan:lo:ip=10.1.0.5", "macvlan:lo:subnet=10.1.0.0/24,ip=10.2.0.5",
        "ipvlan:lo:mode=bridge", "ipvlan:lo:mac=02:00:00:00:00:01", "macvlan:lo:gateway=x", "pasta:nope", "pasta:ip=x",
        "pasta:ipv4_only,ipv6_only", "pasta:tcp_ns=x", "pasta:ip6=10.1.0.5", "pasta:mtu=1", "pasta:prefix=33"],
    "-p": ["", "0", "65536", "80:", "x:80", "1:2:3:4", "80/icmp", "8000-8001:80", "9-8", "::1:80:80", "1.2.3:80:80"],
    "--publish": ["80-81", "[::1:80:80", "80:80-", "-1:80"],
    "--network-alias": ["", "a b", "-a", "x" * 64],
    "--add-host": ["", "db", "db:", ":1.2.3.4", "db:1.2.3", "a b:1.2.3.4"],
    "--egress": ["", "some", "allow=", "allow=10.0.0.0/40", "allow=10.0.0.0/8:70000", "deny=10.0.0.0/8:1/icmp"],
    "--publish-proxy=": ["no", "also"],
    "--dns": ["", "one.one", "1.2.3", "1.2.3.4:53"],
    "--dns-search": ["", "a b", "-lan"],
    "--dns-option": ["", "a b"],
    "--expose": ["", "x", "80:80", "80/icmp"],
    "--ip": ["", "x", "10.0.0.256", "fd00::1"],
    "--ip6": ["", "x", "10.0.0.1"],
    "--mac-address": ["", "x", "02:00:00:00:00", "01:00:00:00:00:01"],
    "--uidmap": ["", "0", "0:0:0", "a:b:c", "0:0:1:1", "4294967295:0:1", "0:-1:1"],
    "--gidmap": ["", "x"],
    "--time-offset": ["", "1", "realtime=1", "boottime=", "boottime=x", "boottime=1e30"],
    "--timeout": ["", "0", "-1", "x", "nan", "inf"],
    "--trace=": ["/nosuch/file", "/tmp"],
    "--json-status-fd": ["", "x", "-1", "99", "99999999999"],
    "--preserve-fds": ["", "x", "-1", "1000"],
}  # fmt: skip


def test_every_option_with_a_value_is_here():
    short = {
        "-m": "memory",
        "-c": "cpu_shares",
        "-e": "env",
        "-w": "workdir",
        "-u": "user",
        "-h": "hostname",
        "-v": "volume",
        "-p": "publish",
    }
    covered = {short.get(option, option.strip("-=").replace("-", "_")) for option in BAD}
    rows = {row[1] for row in options.RUN_OPTIONS if row[2] != options.FLAG}
    assert rows - covered == {"rootfs"}  # has a test of its own


@pytest.fixture
def refused(run_cli, rootfs, tmp_path, requires):
    """``refused(option, ...)``: runs with ROOT and OPTIONS, expects one line and 125; the line."""
    requires.root()

    def check(*words, root=rootfs, code=125):
        before = sorted(os.listdir(tmp_path))
        named = ["--rootfs", root] if root is not None else []
        done = run_cli("run", *named, *words, "--", "true", cwd=tmp_path)
        assert done.returncode == code, (words, done)
        assert done.stdout == ""
        assert done.stderr.startswith("minictr run: ")
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.endswith("\n")
        assert sorted(os.listdir(tmp_path)) == before
        return done.stderr

    return check


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BAD.items() for value in values])
def test_a_bad_value(refused, option, value):
    words = [option + value] if option.endswith("=") else [option, value]
    line = refused(*words)
    assert len(line) < 600


ROOTS = {
    "missing": lambda path: None,
    "a file": lambda path: path.write_text(""),
    "a link": lambda path: path.symlink_to("/"),
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "empty": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", ROOTS)
def test_a_bad_root(refused, tmp_path, kind):
    ROOTS[kind](tmp_path / "root")
    line = refused(root=tmp_path / "root")
    assert str(tmp_path / "root") in line


@pytest.mark.parametrize("root", ["", "\x01", "x" * 5000])
def test_a_root_that_is_no_path(refused, root):
    refused(root=root)


@pytest.mark.parametrize("place", ["proc", "sys", "dev"])
def test_a_root_that_leads_elsewhere(refused, own_rootfs, place):
    (own_rootfs / place).rmdir()
    (own_rootfs / place).symlink_to(f"/{place}")
    assert f"/{place}" in refused(root=own_rootfs)


def test_no_root(refused):
    assert "--rootfs" in refused(root=None)


def test_contradictions(refused, tmp_path):
    assert "twice" in refused("-v", "/tmp:/x", "--tmpfs", "/y", "--tmpfs", "/y")
    assert "leave one of them out" in refused("--userns", "host", "--uidmap", "0:0:1")
    assert "leave one of them out" in refused("--time", "host", "--time-offset", "boottime=1")
    assert "uts" in refused("--uts", "host", "-h", "lab")
    assert "preserve" in refused("--preserve-fds", "1", "--json-status-fd", "3")


def test_no_command(run_cli, rootfs):
    done = run_cli("run", "--rootfs", rootfs)
    assert (done.returncode, done.stderr) == (
        125,
        "minictr run: no command: name the program to run after the options\n",
    )


def test_a_name_cannot_write_to_the_terminal(refused):
    assert "\x1b" not in refused("--rootfs", "\x1b]0;owned\x07")


@pytest.mark.parametrize("verb", ["run", "plan", "features", "rootfs", "completion", "version", ""])
def test_an_unknown_option_is_one_line(run_cli, verb):
    done = run_cli(*filter(None, [verb, "--nosuch"]))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    assert "--nosuch" in done.stderr


def test_an_unknown_verb_is_one_line(run_cli):
    done = run_cli("ruun")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.count("\n") == 1
    assert "ruun" in done.stderr
