"""``--network pasta``: what is inside, what gets in and out, how it lives and ends, what is said when it cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from lab import HERE, HERE6, THERE, THERE6, UID, Lab


@pytest.fixture(autouse=True)
def _pasta(requires: Any) -> None:
    requires("pasta")


@pytest.fixture
def served(lab: Lab) -> Iterator[int]:
    """A container with ports, and a server at 80 in it: the pid of its first process."""
    ports = ("-p", "8080:80", "-p", "9090:80/udp", "-p", "127.0.0.1:7000-7001:79-80", "-p", "8888:8888/udp")
    pid = lab.up("web", "--network", "pasta:mac=02:00:00:00:00:07", *ports)
    with lab.server(pid, 80), lab.server(pid, 8888):
        yield pid


def gone(lab: Lab, seconds: float = 10) -> bool:
    """Whether no pasta and no port of one is there any more, within SECONDS."""
    deadline = time.monotonic() + seconds
    while (lab.pastas() or bound(lab, 8080)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lab.pastas() and not bound(lab, 8080)


def bound(lab: Lab, port: int) -> bool:
    return f":{port} " in lab.run("ss", "-Hlntu")


def test_what_is_inside(lab: Lab, served: int) -> None:
    """The host's own addresses and routes, on a tap device of pasta's; and inspect says the same."""
    (device,) = (row for row in lab.ip("address", pid=served) if row["ifname"] == "eth0")
    assert device["linkinfo"]["info_kind"] == "tun"
    assert (device["address"], device["mtu"], device["operstate"]) == ("02:00:00:00:00:07", 65520, "UNKNOWN")
    assert {HERE, HERE6} <= {row["local"] for row in device["addr_info"]}
    (route,) = (row for row in lab.ip("route", pid=served) if row["dst"] == "default")
    assert route["gateway"] == THERE
    (route,) = (row for row in lab.ip("-6", "route", pid=served) if row["dst"] == "default")
    assert route["gateway"] == THERE6
    told = json.loads(lab.ok("inspect", "-f", "{{json .NetworkSettings}}", "web"))
    assert told["Networks"]["pasta"] == {
        "Interface": "eth0",
        "HostInterface": "",
        "IPAddress": HERE,
        "IPPrefixLen": 24,
        "GlobalIPv6Address": HERE6,
        "GlobalIPv6PrefixLen": 64,
        "Gateway": THERE,
        "MacAddress": "02:00:00:00:00:07",
        "Aliases": [],
        "DNSNames": [],
    }
    assert told["Ports"]["80/udp"] == [{"HostIp": "0.0.0.0", "HostPort": "9090"}]
    assert "0.0.0.0:8080->80/tcp" in lab.ok("ps")


def test_its_files_fit_its_network(lab: Lab) -> None:
    """/etc/resolv.conf asks pasta's address; where there is none, or by --dns, others; off, the image's are seen."""

    def servers(*options: str) -> list[str]:
        text = lab.ok("run", *lab.box("--network", *options), "cat", "/etc/resolv.conf")
        return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]

    assert servers("pasta") == ["169.254.1.1"]
    assert servers("pasta:dns=169.254.9.9") == ["169.254.9.9"]
    assert "169.254.1.1" not in servers("pasta:dns=none")
    assert servers("pasta", "--dns", "192.0.2.1") == ["192.0.2.1"]
    hosts = lab.ok("run", *lab.box("--network", "pasta", "--name", "me"), "cat", "/etc/hosts")
    assert "127.0.1.1 me" in hosts.splitlines()
    without = ("pasta", "--without", "resolv_conf", "--without", "hosts")
    assert "resolv.conf" not in lab.ok("run", *lab.box("--network", *without), "cat", "/proc/self/mountinfo")


def test_what_gets_in(lab: Lab, served: int) -> None:
    for pid, address in ((lab.host, "127.0.0.1"), (lab.host, HERE), (lab.remote, HERE), (lab.remote, HERE6)):
        assert lab.ask(pid, address, 8080) not in ("ConnectionRefusedError", "TimeoutError"), address
    for address in (HERE, HERE6):  # pasta of Debian 12 drops what the host itself sends to another port's number
        assert "Error" not in lab.ask(lab.remote, address, 9090, "udp"), address
    assert "Error" not in lab.ask(lab.host, "127.0.0.1", 8888, "udp")
    assert "Error" not in lab.ask(lab.host, "127.0.0.1", 7001)
    assert "Error" in lab.ask(lab.remote, HERE, 7001, seconds=1)  # of 127.0.0.1 alone
    assert "Error" in lab.ask(lab.remote, HERE, 80, seconds=1)  # nothing that was not published
    assert "Error" in lab.ask(lab.remote, HERE, 8080, "udp", seconds=1)  # tcp alone


def test_what_gets_out(lab: Lab, served: int) -> None:
    """To others under the host's own address; to the host's own loopback not."""
    with lab.server(lab.remote, 5000), lab.server(lab.host, 6000):
        for address, seen in ((THERE, HERE), (THERE6, HERE6)):
            for kind in ("tcp", "udp"):
                assert lab.ask(served, address, 5000, kind) == seen
        assert "Error" in lab.ask(served, "127.0.0.1", 6000, seconds=1)
        assert "Error" in lab.ask(served, THERE, 6000, seconds=1)  # the gateway is not the host in disguise
        pid = lab.up("mapped", "--network", "pasta:map_gw,tcp_ns=6000,mtu=1400,interface_name=lan0,ipv4_only")
        assert "Error" not in lab.ask(pid, THERE, 6000)
        assert "Error" not in lab.ask(pid, "127.0.0.1", 6000)
        (device,) = (row for row in lab.ip("address", pid=pid) if row["ifname"] == "lan0")
        assert device["mtu"] == 1400
        assert [row["local"] for row in device["addr_info"] if row["scope"] == "global"] == [HERE]


def test_a_stream_each_way(lab: Lab, served: int) -> None:
    with lab.server(lab.remote, 5000):
        assert arrives(lab, lab.remote, HERE, 8080)
        assert arrives(lab, served, THERE, 5000)


def arrives(lab: Lab, pid: int, address: str, port: int) -> bool:
    """Whether 32 MiB are there as they were sent. Debian 12's pasta resets a connection now and then where the machine
    is overloaded: that is tried again, a wrong byte is not."""
    for _ in range(3):
        try:
            return lab.stream(pid, address, port, 32 << 20)
        except AssertionError as err:
            if "ConnectionResetError" not in str(err):
                raise
    return False


def test_names_by_the_hosts_resolver(lab: Lab, served: int) -> None:
    """The lab's /etc/resolv.conf names 127.0.0.1, which nobody else could reach: an address inside stands for it."""
    with lab.server(lab.host, 53):
        assert "Error" not in lab.ask(served, "169.254.1.1", 53, "udp")
        pid = lab.up("other", "--network", "pasta:dns=none")
        assert "Error" in lab.ask(pid, "169.254.1.1", 53, "udp", seconds=1)


def test_it_lives_as_long_as_the_container(lab: Lab, served: int) -> None:
    (pid,) = lab.pastas()
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
    assert "Seccomp:\t2\n" in status
    lab.ok("stop", "-t", "1", "web")
    assert gone(lab)
    lab.ok("start", "web")
    assert list(lab.pastas()) not in ([], [pid])
    assert bound(lab, 8080)
    os.kill(lab.pid_of("web"), signal.SIGKILL)
    assert gone(lab)


def test_created_and_restarted(lab: Lab) -> None:
    lab.ok("create", "--name", "c", *lab.box("-p", "8080:80"), "--", "cat", "/proc/net/if_inet6")
    assert len(lab.pastas()) == 1
    here = "20010db8000000000000000000000001"
    assert here in lab.ok("start", "-a", "c")
    assert gone(lab)
    assert here in lab.ok("start", "-a", "c")
    assert gone(lab)


def test_a_killed_monitor(lab: Lab) -> None:
    """Monitor and container at once: nobody is left who could end it but the next sweep."""
    lab.up("web", "-p", "8080:80")
    (told,) = json.loads(lab.ok("inspect", "web"))
    for pid in (told["Monitor"]["Pid"], told["State"]["Pid"]):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "pasta" not in (said := lab.ok("gc")):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert gone(lab)


def test_a_killed_starter(lab: Lab) -> None:
    """``minictr run`` in the foreground: the container dies with it, and the next start sweeps the rest."""
    words = lab.box("-p", "8080:80", "--", "sh", "-c", "echo up; sleep 1000")
    command = lab.inside(lab.host, [*lab.as_user(), *lab.cli, "run", *map(str, words)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=lab.env) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert len(lab.pastas()) == 1
        finally:
            process.kill()
    assert lab.ok("run", *lab.box("-p", "8080:80"), "--", "echo", "again") == "again"
    assert gone(lab)


def test_a_start_that_fails_leaves_nothing(lab: Lab) -> None:
    done = lab.user("run", *lab.box("-p", "8080:80"), "--", "/nosuch")
    assert done.returncode == 127
    assert gone(lab)


def test_many_by_the_library(lab: Lab) -> None:
    """One process, its ledger, several containers at once and after each other."""
    code = """
import sys; sys.path.append(sys.argv[1])
import minictr as mc
box = mc.Container(sys.argv[2]).without("pids").with_(mc.UserNamespace(), mc.Pasta(), mc.Publish(0, 80))
first, second = (box.popen(["sleep", "100"]) for _ in range(2))
print(len(box.run(["cat", "/proc/net/route"], capture_output=True, text=True).stdout.splitlines()))
for one in (first, second):
    one.kill(); one.wait()
"""
    command = [*lab.as_user(), lab.cli[0], "-IS", "-c", code, str(lab.place / "site"), str(lab.rootfs)]
    done = subprocess.run(
        lab.inside(lab.host, command), env=lab.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert gone(lab)


def test_as_root(lab: Lab) -> None:
    """Root's container, without and with a user namespace: it gets in, and has no more of root's than it says."""
    for options, caps in (((), True), (("--userns", "auto"), False)):
        lab.start("own", "--network", "pasta", "-p", "80:80", *options)
        pid = lab.pid("own")
        with lab.server(pid, 80):
            assert "Error" not in lab.ask(lab.remote, HERE, 80)
        (served,) = lab.pastas()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{served}/status").read_text().splitlines())
        assert int(status["CapEff"], 16) == 1 << 21 | 1 << 10  # SYS_ADMIN, NET_BIND_SERVICE
        host = os.readlink(f"/proc/{served}/ns/user") == os.readlink("/proc/self/ns/user")
        assert host is caps
        assert os.readlink(f"/proc/{served}/ns/mnt") != os.readlink(f"/proc/{lab.host}/ns/mnt")
        lab.minictr("rm", "-f", "own")
        assert gone(lab)


def test_ports_that_cannot_be(lab: Lab) -> None:
    lab.up("web", "-p", "8080:80")
    for text, words in {
        "8080:81": "another program has it",
        "80:80": "net.ipv4.ip_unprivileged_port_start",
        "7000:80/sctp": "pasta carries tcp and udp",
        "192.0.2.77:7000:80": "is no address of this host",
    }.items():
        told = lab.refused("run", *lab.box("-p", text), "--", "true")
        assert words in told, told
    assert len(lab.pastas()) == 1


FAKE = (
    "mkdir -p {place}/fake; printf '#!/bin/sh\\n%s\\n' '{script}' >{place}/fake/pasta; chmod 755 {place}/fake/pasta; "
)
COVER = FAKE + "mount --bind {place}/fake/pasta /usr/bin/pasta"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("mount --bind /dev/null /usr/bin/pasta", ["pasta is not here", "apt-get install passt"]),
        ("chmod 600 /dev/net/tun", ["/dev/net/tun is closed to you", "chmod 0666 /dev/net/tun"]),
        ("ip route del default; ip -6 route del default", ["no default route", "template=DEV"]),
        (COVER.replace("{script}", "echo unrecognized option --dns-forward >&2; exit 1"), ["older", "passt"]),
        (COVER.replace("{script}", "echo oh no >&2; exit 3"), ["pasta: oh no", "status 3"]),
    ],
)
def test_what_it_says_when_it_cannot_be(lab: Lab, before: str, words: list[str]) -> None:
    after = ""
    if before.startswith("chmod"):
        after = "chmod 666 /dev/net/tun"
    if before.startswith("ip"):
        after = f"ip route add default via {THERE}; ip -6 route add default via {THERE6}"
    try:
        told = lab.refused("run", *lab.box("--network", "pasta"), "--", "true", before=before.format(place=lab.place))
    finally:
        if after:
            lab.run("sh", "-ec", after)
    assert all(word in told for word in words), told
    assert gone(lab)


def test_one_that_hangs_is_not_waited_for(lab: Lab) -> None:
    code = """
import sys, time; sys.path.append(sys.argv[1])
import minictr as mc
box = mc.Container(sys.argv[2]).without("pids").with_(mc.UserNamespace(), mc.Pasta())
begin = time.monotonic()
try:
    box.popen(["true"], start_timeout=1)
except mc.StepFailed as err:
    print(err.errno, time.monotonic() - begin < 30)
"""
    before = COVER.replace("{script}", "exec sleep 1000").format(place=lab.place)
    command = [*lab.as_user(), lab.cli[0], "-IS", "-c", code, str(lab.place / "site"), str(lab.rootfs)]
    wrapped = ["unshare", "-m", "sh", "-ec", f'{before}; exec "$@"', "sh", *command]
    done = subprocess.run(
        lab.inside(lab.host, wrapped), env=lab.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["110", "True"]), (done.stdout, done.stderr)


def test_bridges_are_roots(lab: Lab) -> None:
    told = lab.refused("run", *lab.box("--network", "bridge"), "--", "true")
    assert "CAP_NET_ADMIN" in told and "--network pasta" in told
    alone = lab.refused("run", *lab.box("--network", "pasta", "--network", "bridge"), "--", "true")
    assert "stands alone" in alone
