"""Real traffic on every rung: a long stream with its checksum, HTTP, UDP, IPv6, SCTP; from elsewhere and from the host.

``MINICTR_STREAM_MIB=1024`` makes the streams longer than the 256 MiB they have all together otherwise.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, HERE6, THERE, THERE6, World

SIZE = int(os.environ.get("MINICTR_STREAM_MIB", "0")) << 20  # of each way; 0: 256 MiB in four
HTTP = """
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode() + b" " + b"x" * int(self.path[1:])
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", int(sys.argv[1])), Answer); print("ready", flush=True)
server.serve_forever()
"""
GET = """
import http.client, sys
connection, seen = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20), set()
for size in (0, 1, 100000) * 20:
    connection.request("GET", f"/{size}")
    answer = connection.getresponse(); who, _, body = answer.read().partition(b" ")
    assert (answer.status, len(body)) == (200, size); seen.add(who.decode())
print(*seen)
"""
# many datagrams of all sizes up to what one of IPv4 holds: each is answered whole
MANY_DATAGRAMS = """
import os, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.connect((sys.argv[1], int(sys.argv[2]))); lost = 0
for size in [1, 1400, 1472, 1473, 9000, 60000] * 10:
    data = os.urandom(size)
    try:
        s.send(data); assert s.recv(1 << 16).partition(b" ")[2] == data
    except OSError:
        lost += 1
print(lost)
"""
SCTP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132); s.settimeout(10)
if sys.argv[1] == "serve":
    s.bind(("", 80)); s.listen(); print("ready", flush=True)
    c, peer = s.accept(); c.sendall(peer[0].encode() + b" " + c.recv(100))
else:
    s.connect((sys.argv[2], 8080)); s.sendall(b"hello"); print(s.recv(100).decode())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rung", ["routed", "bridge", "dnat", "proxy"])
def test_a_long_stream_is_whole(net: World, rung: str) -> None:
    """Out of a container by nat, and into one by its address, by dnat, or by a proxy."""
    options: dict[str, tuple[str, ...]] = {
        "routed": ("--network", "routed"),
        "bridge": ("--network", "bridge"),
        "dnat": ("-p", "8080:80"),
        "proxy": ("-p", "8080:80", "--publish-proxy=only"),
    }
    pid = net.start("one", *options[rung])
    size = SIZE or 32 << 20
    with net.server(pid, 80), net.server(net.remote, 81):
        into = (net.host, net.address("one"), 80) if rung in ("routed", "bridge") else (net.remote, HERE, 8080)
        assert net.stream(*into, size, seconds=300)
        assert net.stream(pid, THERE, 81, size, seconds=300)
    for where in (pid, net.remote, net.host):
        rows = [line.split() for line in net.run("cat", "/proc/net/snmp", pid=where).splitlines()]
        counts = {
            f"{name[0]}{key}": int(value)
            for name, values in zip(rows[::2], rows[1::2])
            for key, value in zip(name[1:], values[1:])
        }
        assert (counts["Tcp:InCsumErrors"], counts["Udp:InCsumErrors"], counts["Ip:FragFails"]) == (0, 0, 0)


def test_http_udp_and_both_families(net: World) -> None:
    net.minictr("network", "create", "six", "--subnet", "10.66.0.0/24", "--ipv6", "fd00:66::/64")
    pid = net.start("web", "--network", "six", "-p", "8080:80", "-p", "8081:81/udp", "-p", "9000:80")
    with net.server(pid, 81), net.program(pid, HTTP, "80"):
        for address, who in ((HERE, THERE), (HERE6, THERE6)):
            assert net.run(sys.executable, "-c", GET, address, 8080, pid=net.remote) == who
            assert net.run(sys.executable, "-c", MANY_DATAGRAMS, address, 8081, pid=net.remote) == "0"
        for address in ("127.0.0.1", HERE, "10.66.0.1"):
            assert net.run(sys.executable, "-c", GET, address, 9000) in ("10.66.0.1", HERE)
            assert net.run(sys.executable, "-c", MANY_DATAGRAMS, address, 8081) == "0"


def test_sctp(net: World) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as err:
        # what publishing is in rules can be seen without
        net.start("web", "-p", "8080:80/sctp")
        assert any("sctp" in str(row) for row in net.elements()["ports4"])
        pytest.skip(f"this kernel has no SCTP sockets (CONFIG_IP_SCTP): {err.strerror}")
    pid = net.start("web", "-p", "8080:80/sctp")
    with net.program(pid, SCTP, "serve"):
        assert net.run(sys.executable, "-c", SCTP, "ask", HERE, pid=net.remote) == f"{THERE} hello"


def test_a_smaller_mtu_on_the_way(net: World) -> None:
    """All devices of a network have its MTU; where one beyond has less, that is found out and told (ICMP gets in)."""
    net.minictr("network", "create", "lan", "--mtu", "1400")
    pid = net.start("one", "--network", "lan", "-p", "8080:80")
    rows = {row["ifname"]: row["mtu"] for row in net.ip("link")}
    assert {mtu for name, mtu in rows.items() if name not in ("lo", "wire0")} == {1400}
    assert next(row["mtu"] for row in net.ip("link", pid=pid) if row["ifname"] == "eth0") == 1400
    for end in (net.host, net.remote):
        net.run("ip", "link", "set", "wire0", "mtu", "1280", pid=end)
    with net.server(pid, 80), net.server(net.remote, 81):
        assert net.stream(pid, THERE, 81, 4 << 20)
        assert net.stream(net.remote, HERE, 8080, 4 << 20)
        lost = net.run(sys.executable, "-c", MANY_DATAGRAMS.replace("] * 10", ", 1300] * 2"), THERE, 81, pid=pid)
        assert int(lost) <= 2  # those by which it was found out: EMSGSIZE, or nothing came
