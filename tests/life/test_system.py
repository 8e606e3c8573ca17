"""Debian's systemd as LXC would run it: up, looked at from all sides, changed while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from systems import Life
from terminals import Terminal

from minictr.runtime.top import top

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FETCH = "import urllib.request as u; print(u.urlopen('http://127.0.0.1/', timeout=10).read().decode())"
GREET = "import socket; print(socket.create_connection(('127.0.0.1', 22), 10).recv(64))"
SERVICES = ("nginx", "ssh", "redis-server", "postgresql@15-main", "systemd-journald", "systemd-logind", "dbus")


@pytest.fixture(scope="module")
def life(lives: Any) -> Iterator[Life]:
    """``sys``, booted."""
    with lives("systemd") as life:
        life.start("sys", "/sbin/init", options=("--profile", "lxc"))
        life.until(lambda: life.is_up("sys"), 60)
        yield life


def test_it_boots_and_nothing_failed(life: Life) -> None:
    assert life.exec("sys", "systemctl", "--failed", "--no-legend", "--plain") == ""
    assert life.exec("sys", "systemctl", "is-system-running") == "running"
    assert life.exec("sys", "cat", "/proc/1/comm") == "systemd"
    assert life.exec("sys", "systemctl", "is-active", *SERVICES).split() == ["active"] * len(SERVICES)


def test_services_answer(life: Life) -> None:
    assert "Welcome to nginx" in life.exec("sys", "python3", "-c", FETCH)
    assert "SSH-2.0-OpenSSH" in life.exec("sys", "python3", "-c", GREET)
    assert life.exec("sys", "redis-cli", "ping") == "PONG"
    assert life.exec("sys", "su", "-", "postgres", "-c", "psql -Atc 'select 6 * 7'") == "42"


def test_a_service_can_be_stopped_and_started(life: Life) -> None:
    before = life.exec("sys", "systemctl", "show", "-P", "MainPID", "nginx")
    life.exec("sys", "systemctl", "restart", "nginx")
    assert life.exec("sys", "systemctl", "show", "-P", "MainPID", "nginx") not in (before, "0")
    life.exec("sys", "systemctl", "stop", "nginx")
    life.exec("sys", "python3", "-c", FETCH, code=1)
    life.exec("sys", "systemctl", "start", "nginx")
    assert "Welcome to nginx" in life.exec("sys", "python3", "-c", FETCH)


def test_the_journal_keeps_what_is_said(life: Life) -> None:
    life.exec("sys", "logger", "-t", "lab", "a word of ours")
    life.until(lambda: "a word of ours" in life.exec("sys", "journalctl", "-b", "-t", "lab", "--no-pager"), 10)
    assert "Startup finished" in life.exec("sys", "journalctl", "-b", "_PID=1", "--no-pager")
    boots = life.exec("sys", "journalctl", "--list-boots", "-q").splitlines()
    boot_id = life.exec("sys", "cat", "/proc/sys/kernel/random/boot_id").replace("-", "")
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert file.read().strip().replace("-", "") != boot_id
    assert boot_id in boots[-1]


def test_every_service_is_in_a_group_below_the_containers_own(life: Life) -> None:
    """On a hybrid host systemd 252 keeps its units in name=systemd; on a unified one in the only tree there is."""
    main = life.exec("sys", "systemctl", "show", "-P", "MainPID", "nginx").strip()
    inside = dict(line.split(":", 2)[1:] for line in life.exec("sys", "cat", f"/proc/{main}/cgroup").splitlines())
    path = inside.get("name=systemd") or inside[""]
    assert path == "/system.slice/nginx.service"
    pid = life.state("sys")["Pid"]
    with open(f"/proc/{pid}/cgroup") as file:
        seen = dict(line.rstrip("\n").split(":", 2)[1:] for line in file)
    own = seen.get("name=systemd") or seen[""]
    assert own.endswith("/init.scope")
    assert life.inspect("sys")["Id"][:12] in own or "sys" in own
    assert str(pid) in life("top", "sys", "-o", "pid,cgroup")


def test_the_console_has_a_login(life: Life, minictr_cli: list[str]) -> None:
    """attach shows a prompt, somebody logs in there, and leaves by the keys: the system runs on."""
    life.exec("sys", "passwd", "-d", "root")
    window = Terminal([*minictr_cli, "--root", str(life.root), "attach", "sys"])
    try:
        window.type("\n")
        window.expect("login: ")
        window.type("root\n")
        window.expect("~# ")
        window.type("echo $((6 * 7)) from $(tty) of $(ps -o comm= -p 1)\n")
        window.expect("42 from /dev/console of systemd")
        window.type("\x10\x11")
        assert window.end() == 0
    finally:
        window.close()
    assert life.state("sys")["Running"]
    assert life.exec("sys", "who").split()[:2] == ["root", "console"]


def test_exec_of_a_login_shell(life: Life, minictr_cli: list[str]) -> None:
    said = life.exec("sys", "su", "-", "-c", "id -un; echo $HOME; pwd; shopt -q login_shell && echo login")
    assert said.split() == ["root", "/root", "/root", "login"]
    window = Terminal([*minictr_cli, "--root", str(life.root), "exec", "-it", "sys", "login", "-f", "root"])
    try:
        window.expect("~# ")
        window.type("echo on $(tty); exit 7\n")
        window.expect("on /dev/pts/")
        assert window.end() in (0, 7)  # login(1) keeps its shell's code to itself
    finally:
        window.close()


def test_pause_holds_all_of_it(life: Life) -> None:
    life("pause", "sys")
    try:
        assert life.state("sys")["Status"] == "paused"
        before = used(life)
        assert len(before) > 10
        time.sleep(0.5)
        assert used(life) == before
        done = life.done("exec", "sys", "true")
        assert (done.returncode, done.stderr) == (
            125,
            "minictr exec: exec sys: it is paused: minictr unpause sys first\n",
        )
    finally:
        life("unpause", "sys")
    assert life.exec("sys", "systemctl", "is-system-running") == "running"


def used(life: Life) -> dict[int, float]:
    """Seconds of processor time, by process."""
    return {row.pid: row.cpu for row in top(life.instance("sys"))}


def test_limits_change_while_it_runs_and_hold(life: Life) -> None:
    pids = len(used(life))
    life("update", "-m", "512m", "--cpus", "1.5", "--pids-limit", str(pids), "sys")
    limits = life.inspect("sys")["Limits"]
    assert (limits["memory"]["max"], limits["pids"]["max"]) == (512 << 20, pids)
    assert limits["cpu"]["quota"] * 2 == limits["cpu"]["period"] * 3
    done = life.done("exec", "sys", "sh", "-c", "sleep 0 & sleep 0 & wait")
    assert done.returncode != 0
    assert "fork" in done.stderr.lower()
    life("update", "-m", "0", "--pids-limit", "-1", "--cpus", "0", "sys")
    assert life.inspect("sys")["Limits"]["pids"]["max"] == -1
    assert life.exec("sys", "sh", "-c", "sleep 0 & wait; echo forked") == "forked"


def test_stats_and_top(life: Life) -> None:
    rows = life("top", "sys").splitlines()
    for program in ("/sbin/init", "systemd-journald", "nginx: master", "sshd", "redis-server", "postgres"):
        assert any(program in row for row in rows), rows
    assert len(rows) - 1 == len(used(life)) > 10
    said = life("stats", "--no-stream", "--format", "json", "sys")
    assert '"sys"' in said
    usage = life.inspect("sys")["Usage"]
    assert usage["memory"]["current"] > 10 << 20
    assert usage["pids"]["current"] >= len(rows) - 1


def test_files_go_in_and_out(life: Life, tmp_path: Any) -> None:
    (tmp_path / "page").write_text("a page of ours\n")
    life("cp", str(tmp_path / "page"), "sys:/var/www/html/page")
    assert "a page of ours" in life.exec("sys", "python3", "-c", FETCH.replace("127.0.0.1/", "127.0.0.1/page"))
    life("cp", "sys:/etc/machine-id", str(tmp_path / "id"))
    assert (tmp_path / "id").read_text().strip() == life.exec("sys", "cat", "/etc/machine-id")
    assert "A /var/www/html/page" in life("diff", "sys").splitlines()
    assert not os.path.exists(life.rootfs / "var/www/html/page")
