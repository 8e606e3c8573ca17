"""What ``generate systemd`` writes, under a real systemd: that of a container, with minictr and containers in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from systems import Life

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SERVICE = 'echo started; trap "exit 3" USR1; while :; do sleep 0.1; done'
INITTAB = "::sysinit:/bin/echo ready to work\n::respawn:/bin/sleep 1000\n"


class Host:
    """A system container that has this very minictr, a root to run, and units."""

    def __init__(self, life: Life, minictr: str) -> None:
        self.life, self.minictr = life, minictr

    def systemctl(self, *words: str) -> str:
        return self.life.exec("host", "systemctl", *words)

    def says(self, unit: str, *properties: str) -> list[str]:
        shown = self.systemctl("show", *(f"-p{each}" for each in properties), unit).splitlines()
        values = dict(line.split("=", 1) for line in shown)
        return [values[each] for each in properties]

    def journal(self, unit: str) -> list[str]:
        return self.life.exec("host", "journalctl", "-u", unit, "-o", "cat", "--no-pager").splitlines()

    def __call__(self, *words: str) -> str:
        """minictr in there."""
        return self.life.exec("host", self.minictr, "--root", str(self.life.root), *words)

    def left(self) -> str:
        """What is there of containers and of their groups."""
        return self("ps", "-aq") + self.life.exec(
            "host", "find", "/sys/fs/cgroup", "-name", "minictr-*", "!", "-name", "*.service"
        )


@pytest.fixture(scope="module")
def host(lives: Any, debian_root: Callable[[str], Path], tmp_path_factory: Any) -> Iterator[Host]:
    minictr = Path(sys.executable).parent / "minictr"
    if not minictr.exists():
        pytest.skip("minictr is not installed beside this interpreter, so that a unit could name it")
    image, table = str(debian_root("inits")), tmp_path_factory.mktemp("table") / "inittab"
    table.write_text(INITTAB)
    units, places = tmp_path_factory.mktemp("units"), {image: image, str(table): str(table)}
    with lives("systemd") as life:
        made = {
            "web": ("--rootfs", image, "--read-only", "--", "sh", "-c", SERVICE),
            "small": (
                *("--profile", "lxc", "--rootfs", image, "--read-only", "-v", f"{table}:/etc/inittab"),
                *("--", "/bin/busybox", "init"),
            ),
        }
        for name, words in made.items():
            life("create", "--name", name, *words, cwd="/")
            unit = units / f"minictr-{name}.service"
            unit.write_text(life("generate", "systemd", name) + "\n")
            places[str(unit)] = f"/etc/systemd/system/{unit.name}"
            life("rm", name)
        places |= {prefix: prefix for prefix in (sys.prefix, sys.base_prefix) if prefix != "/usr"}
        binds = [word for source, target in places.items() for word in ("-v", f"{source}:{target}:ro")]
        life.start("host", "/sbin/init", options=("--profile", "lxc", *binds))
        life.until(lambda: life.is_up("host"), 60)
        if life.done("exec", "host", str(minictr), "version").returncode:
            pytest.skip(f"the root's own libraries, or its Python, cannot run {minictr}")
        yield Host(life, str(minictr))


def test_systemd_accepts_it(host: Host) -> None:
    for name in ("web", "small"):
        done = host.life.done("exec", "host", "systemd-analyze", "verify", f"minictr-{name}.service")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_service_is_started_restarted_and_stopped(host: Host) -> None:
    unit = "minictr-web"
    host.systemctl("start", unit)
    host.life.until(lambda: host.journal(unit).count("started") == 1)
    assert host("ps", "--format", "{{.Names}} {{.State}}") == "web running"
    host("kill", "-s", "USR1", "web")
    host.life.until(lambda: host.journal(unit).count("started") == 2)
    assert host.says(unit, "NRestarts", "ActiveState") == ["1", "active"]
    assert any("code=exited, status=3" in line for line in host.journal(unit))
    host.systemctl("stop", unit)
    assert host.says(unit, "ActiveState") == ["inactive"]
    assert f"{unit}.service: Deactivated successfully." in host.journal(unit)[-3:]  # 143 is what was asked for
    assert host.left() == ""


def test_a_system_container_reboots_and_is_stopped(host: Host) -> None:
    """Its reboot is a restart whatever the policy, its end by the init's own signal a success."""
    unit = "minictr-small"
    host.systemctl("start", unit)
    host.life.until(lambda: host.journal(unit).count("ready to work") == 1)
    host.life.done("exec", "host", host.minictr, "--root", str(host.life.root), "exec", "small", "busybox", "reboot")
    host.life.until(lambda: host.journal(unit).count("ready to work") == 2)
    assert host.says(unit, "NRestarts", "ActiveState") == ["1", "active"]
    host.systemctl("stop", unit)
    assert host.says(unit, "ActiveState") == ["inactive"]
    assert f"{unit}.service: Deactivated successfully." in host.journal(unit)[-3:]
    assert not any("Failed" in line for line in host.journal(unit))
    assert host.left() == ""
