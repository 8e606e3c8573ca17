"""A small world for tests of networks: a host of its own, and a remote machine on a cable to it.

Both are network namespaces that nothing but a sleeping process holds; this machine's own network is not touched.

    remote 192.0.2.2, 2001:db8::2 ---- 192.0.2.1, 2001:db8::1 host ---- containers
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 240 if "GUEST" in os.environ else 60  # seconds for one command; a guest is 15 times slower
HERE, THERE = "192.0.2.1", "192.0.2.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"

# Answers each message with the address it came from, and what it was; TCP and UDP of one port, IPv4 and IPv6.
SERVER = """
import selectors, socket, sys
port = int(sys.argv[1]); chosen = selectors.DefaultSelector()
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(("", port))
        if kind == socket.SOCK_STREAM: s.listen(64)
        chosen.register(s, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        s = key.fileobj
        if s.type == socket.SOCK_DGRAM:
            data, peer = s.recvfrom(1 << 16); s.sendto(peer[0].encode() + b" " + data, peer)
            continue
        c, peer = s.accept()
        with c:
            c.settimeout(120)
            data = c.recv(1 << 16)
            if data.startswith(b"take "):
                import hashlib
                left, digest = int(data[5:16]), hashlib.sha256()
                data = data[16:]
                while True:
                    digest.update(data); left -= len(data)
                    if left <= 0: break
                    data = c.recv(1 << 20)
                c.sendall(digest.hexdigest().encode())
            else:
                c.sendall(peer[0].encode() + b" " + data)
"""
CLIENT = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
address, port = sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind); s.settimeout(float(sys.argv[4]))
try:
    s.connect(socket.getaddrinfo(address, port)[0][4]); s.send(b"hello"); print(s.recv(1 << 16).decode())
except OSError as err:
    print(type(err).__name__)
"""
STREAM = """
import hashlib, os, socket, sys
size = int(sys.argv[3]); block = os.urandom(1 << 20); digest = hashlib.sha256()
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 120)
s.sendall(b"take %11d" % size)
for _ in range(size >> 20):
    digest.update(block); s.sendall(block)
print(s.recv(64).decode() == digest.hexdigest())
"""


class World:
    """``host`` and ``remote``: pids that hold the namespaces. ``root``: minictr's state directory there."""

    def __init__(self, host: int, remote: int, state: Path, cli: list[str], rootfs: Path) -> None:
        self.host, self.remote, self.state, self.cli, self.rootfs = host, remote, state, cli, rootfs
        self.environment = {**os.environ, "MINICTR_ROOT": str(state)}

    def inside(self, pid: int, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command]

    def run(self, *command: object, pid: int = 0, check: bool = True, **options: Any) -> str:
        """What COMMAND prints in the host's network, or in that of PID."""
        done = subprocess.run(
            self.inside(pid or self.host, [str(word) for word in command]),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            **{"timeout": PATIENCE, **options},
        )
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip() if check else f"{done.returncode} {done.stdout}{done.stderr}".strip()

    def minictr(self, *words: object, check: bool = True, **options: Any) -> str:
        return self.run(*self.cli, *words, check=check, **options)

    def start(self, name: str, *options: object, command: Sequence[str] = ("sleep", "1000")) -> int:
        """A container in the background: the pid of its first process."""
        self.minictr("run", "-d", "--name", name, "--rootfs", self.rootfs, *options, "--", *command)
        return self.pid(name)

    def pid(self, name: str) -> int:
        return int(self.minictr("inspect", "-f", "{{.State.Pid}}", name))

    def address(self, name: str, key: str = "IPAddress") -> str:
        found = json.loads(self.minictr("inspect", "-f", "{{json .NetworkSettings.Networks}}", name))
        return str(next(iter(found.values()))[key])

    @contextmanager
    def server(self, pid: int, port: int) -> Iterator[None]:
        """SERVER in the network of PID."""
        with self.program(pid, SERVER, str(port)):
            yield

    @contextmanager
    def program(self, pid: int, source: str, *words: str) -> Iterator[None]:
        """A program of Python's in the network of PID, that says when it is ready."""
        command = self.inside(pid, [sys.executable, "-c", source, *words])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert select.select([process.stdout], [], [], 20)[0]
                assert process.stdout.readline() == b"ready\n"
                yield
            finally:
                process.kill()

    def ask(self, pid: int, address: str, port: int, kind: str = "tcp", seconds: float = 5) -> str:
        """What the server at ADDRESS answers to the network of PID: whom it saw; or the error's name."""
        answer = self.run(sys.executable, "-c", CLIENT, kind, address, port, seconds, pid=pid)
        return answer.removesuffix(" hello")

    def stream(self, pid: int, address: str, port: int, size: int, seconds: float = 60) -> bool:
        """SIZE bytes to the server at ADDRESS: whether it got them all as they were."""
        return self.run(sys.executable, "-c", STREAM, address, port, size, pid=pid, timeout=seconds) == "True"

    def nft(self, *words: str) -> list[dict[str, Any]]:
        found = json.loads(self.run("nft", "-j", "list", *words))["nftables"]
        return [row for row in found if "metainfo" not in row]

    def ip(self, *words: str, pid: int = 0) -> list[dict[str, Any]]:
        return list(json.loads(self.run("ip", "-j", "-d", *words, pid=pid) or "[]"))

    def sysctl(self, name: str) -> str:
        return self.run("cat", f"/proc/sys/{name.replace('.', '/')}")

    def elements(self) -> dict[str, list[Any]]:
        """Set or map -> its elements, of our tables; those of bridges have "bridge " in front."""
        found = {}
        for row in self.nft("ruleset"):
            for kind in ("set", "map"):
                if kind in row and row[kind]["table"].startswith("minictr"):
                    family = "bridge " if row[kind]["family"] == "bridge" else ""
                    found[family + row[kind]["name"]] = row[kind].get("elem", [])
        return found

    def tracked(self) -> int:
        """How many connections are tracked. Without its module none is, and the module comes with the first rule."""
        if self.run("test", "-e", "/proc/sys/net/netfilter/nf_conntrack_count", check=False)[0] != "0":
            return 0
        return int(self.sysctl("net.netfilter.nf_conntrack_count"))

    def links(self) -> set[str]:
        return {row["ifname"] for row in self.ip("link")} - {"lo", "wire0"}

    def nothing_left(self) -> None:
        """No link, table, lease or setting of ours is left; links go with namespaces, a moment later."""
        deadline = time.monotonic() + 5
        while self.links() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.links() == set()
        assert self.nft("tables") == []
        assert self.sysctl("net.ipv4.ip_forward") == "0"
        left = [path for path in self.state.rglob("*") if not path.is_dir() and "network" in path.parts]
        assert left == []
        assert not [path for path in (self.state / "containers").glob("*") if path.is_dir()]


def hosts(net: World, name: str) -> dict[str, set[str]]:
    """Name -> addresses, as the container's file says."""
    found: dict[str, set[str]] = {}
    for line in net.minictr("exec", name, "cat", "/etc/hosts").splitlines():
        address, *words = line.partition("#")[0].split() or ("",)
        for word in words:
            found.setdefault(word, set()).add(address)
    return found


def mounts(net: World, pid: int) -> dict[str, list[str]]:
    """Path below /etc -> its fields of mountinfo."""
    rows = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return {row[4]: row for row in rows if row[4].startswith("/etc")}


def listing(root: Path) -> list[tuple[str, int, int, int, bytes]]:
    """All that can be told of a tree."""
    found = []
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found.append((str(path), stat.st_mode, stat.st_mtime_ns, stat.st_nlink, data))
    return found


@contextmanager
def namespace() -> Iterator[int]:
    """A pid in a network namespace of its own, lo up."""
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo ready; exec sleep 1000"], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()


@contextmanager
def world(state: Path, cli: list[str], rootfs: Path) -> Iterator[World]:
    with namespace() as host, namespace() as remote:
        made = World(host, remote, state, cli, rootfs)
        made.run("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire0", "netns", remote)
        for pid, four, six in ((host, HERE, HERE6), (remote, THERE, THERE6)):
            made.run("ip", "address", "add", f"{four}/24", "dev", "wire0", pid=pid)
            if os.path.exists("/proc/sys/net/ipv6"):  # User-mode Linux has none
                made.run("ip", "address", "add", f"{six}/64", "dev", "wire0", "nodad", pid=pid)
            made.run("ip", "link", "set", "wire0", "up", pid=pid)
        try:
            yield made
        finally:
            for row in json.loads(made.minictr("ps", "-a", "--format", "json")):
                made.minictr("rm", "-f", row["ID"])
            for row in json.loads(made.minictr("network", "ls", "--format", "json")):
                made.minictr("network", "rm", row["Name"])
