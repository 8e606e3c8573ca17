"""dockerd started and stopped beside containers of ours, in the host's network of the test: who is in whose way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from world import HERE, THERE, World

SECONDS = 60


@contextmanager
def dockerd(net: World) -> Iterator[None]:
    """One with all its files in a directory of its own, its mounts in a namespace of its own, in the network of the
    test's host."""
    place = Path(tempfile.mkdtemp(prefix="mcd-"))
    try:
        with open(place / "log", "w") as log:
            files = {"data-root": "data", "exec-root": "exec", "pidfile": "pid", "config-file": "config"}
            (place / "config").write_text("{}")
            words = [f"--{option}={place / name}" for option, name in files.items()]
            command = ["unshare", "-m", "--propagation", "private", "dockerd", *words, f"--host=unix://{place}/api"]
            with subprocess.Popen(net.inside(net.host, command), stdout=log, stderr=log) as process:
                try:
                    until_it_answers(place / "api", process, place / "log")
                    yield
                finally:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
    finally:
        shutil.rmtree(place)


def until_it_answers(path: Path, process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
                client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                if b"200 OK" in client.recv(100):
                    return
            except OSError:
                pass
        time.sleep(0.1)
    process.kill()
    pytest.skip(f"dockerd does not start here: {' '.join(log.read_text().splitlines()[-1:])}")


def in_the_way(net: World) -> list[str]:
    (found,) = json.loads(net.minictr("network", "inspect", "minictr0"))
    return list(found["InTheWay"])


def theirs(net: World) -> list[str]:
    """What nft lists that is not ours, without counters."""
    rows = json.loads(net.run("nft", "-s", "-j", "list", "ruleset"))["nftables"]
    return [str(row) for row in rows if "minictr" not in str(row) and "metainfo" not in row]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_beside_each_other(net: World, requires: Any) -> None:
    """dockerd, where it switches forwarding on, drops what is forwarded: that is named, with the rule that helps, which
    does. What is not forwarded goes on. Neither touches what the other has, at no start and no end of either."""
    requires("dockerd")
    with dockerd(net):
        web = net.start("web", "-p", "8080:80")
        proxied = net.start("proxied", "-p", "8081:80", "--publish-proxy=only")
        assert "docker0" in net.links()
        (line,) = in_the_way(net)
        assert "FORWARD" in line and "DOCKER-USER" in line
        with net.server(web, 80), net.server(proxied, 80), net.server(net.remote, 81):
            assert net.ask(net.remote, HERE, 8080, seconds=1) == "TimeoutError"
            assert net.ask(web, THERE, 81, seconds=1) == "TimeoutError"
            assert net.ask(net.remote, HERE, 8081) == "10.90.0.1"  # by the proxy: not forwarded
            assert net.ask(net.host, "127.0.0.1", 8080) == "10.90.0.1"
            for way in ("-i", "-o"):  # as the line says
                net.run("iptables", "-I", "DOCKER-USER", way, "minictr0", "-j", "ACCEPT")
            works(net, web)
            before = theirs(net)
            late = net.start("late", "-p", "8082:80", "--egress", "none")
            with net.server(late, 80):
                assert net.ask(net.remote, HERE, 8082) == THERE
            net.minictr("rm", "-f", "late")
            assert theirs(net) == before
    ours = net.elements()
    with net.server(web, 80), net.server(net.remote, 81):
        works(net, web)  # after its end
        with dockerd(net):
            works(net, web)  # and it came while we were there
            assert net.elements() == ours
            before = theirs(net)
            net.minictr("rm", "-f", "web", "proxied")
            assert theirs(net) == before
    assert [row for row in net.nft("tables") if "minictr" in row["table"]["name"]] == []
    assert net.links() == {"docker0"}
    assert not os.listdir(net.state / "network" / "ports")


def works(net: World, web: int) -> None:
    """In and out, beyond the host."""
    assert net.ask(net.remote, HERE, 8080) == THERE
    assert net.ask(web, THERE, 81) == HERE
