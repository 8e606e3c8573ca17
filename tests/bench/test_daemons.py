"""Docker and podman, each with a daemon or a storage of the bench's own; `make test-bench`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import SERVER, ask, one_daemon

from bench import rootfs
from bench.environments import docker_daemon, registry
from bench.environments.base import WORK, EnvironmentBroken, Job
from bench.environments.live import read
from bench.environments.place import Place
from bench.environments.state import differences
from bench.stage import Stage

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]  # waiting for the lock is in it
HOST = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/route_localnet")


@pytest.fixture(scope="module")
def stage(requires) -> Iterator[Stage]:
    requires.root()
    with one_daemon(), Stage(rootfs.MINIMAL) as it:
        yield it
        assert it.touched() == ""


def host() -> tuple[str, ...]:
    """What a daemon changes on a machine: links, rules, mounts, settings, directories. Of the first three what is a
    daemon's by name: somebody else may test here."""
    said = []
    for words in LOOKS:
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        said.append("\n".join(line for line in found if any(name in line.lower() for name in NAMES)))
    said += [Path(path).read_text() for path in HOST]
    return (*said, *(str(os.path.lexists(path)) for path in PLACES), str(sorted(os.listdir("/etc/docker"))))


LOOKS = (("ip", "-br", "link"), ("nft", "list", "ruleset"), ("findmnt", "-rno", "TARGET"))
NAMES = ("docker", "podman", "cni", "libpod", "containers/", "br-", "containerd")
PLACES = ("/run/libpod", "/run/containers", "/var/lib/containers", "/var/lib/docker", "/var/lib/cni", "/run/netns")


def made(name: str, stage: Stage) -> Iterator[Place]:
    before = host()
    it = registry.make(name, stage)
    assert it.unavailable() == ""
    try:
        yield it
    finally:
        assert list(it.cleanup()) == []
        assert not os.path.exists(it.path())
        assert host() == before
        for parent in docker_daemon.hierarchies():
            assert not [name for name in os.listdir(parent) if name.startswith(f"minictr-bench-{os.getpid()}")]


@pytest.fixture(params=["docker", "docker-volume", "podman", "bare-dockerd"])
def place(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Place]:
    yield from made(request.param, stage)


@pytest.fixture
def docker(stage: Stage) -> Iterator[Place]:
    yield from made("docker", stage)


def test_a_job_a_server_and_what_they_leave(place: Place, tmp_path: Path) -> None:
    for data in ("image", "volume"):
        job = Job(
            ("sh", "-c", f"cat {WORK}/in; echo made >{WORK}/out; test -e {WORK}/old && exit 9; exit 3"), data=data
        )
        place.fresh(job)
        (tmp_path / "in").write_text(f"bytes of {data}\n")
        place.put(str(tmp_path / "in"), f"{WORK}/in")
        ran = place.run(job)
        assert (ran.returncode, ran.stdout.decode()) == (3, f"bytes of {data}\n"), ran.stderr
        assert 0 < ran.values["wall_s"] < ran.values["whole_s"]
        place.get(f"{WORK}/out", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == "made\n"
        assert differences(place.planned(job), place.state(job)) == []
        place.rest()
    server = Job(SERVER, network="lan", ports=(8000,))
    place.fresh(server)
    with place.start(server) as live:
        for way, address in live.addresses.items():
            assert ask(place, way, address, live.ports[8000]) == "hello\n", way
        assert live.stop().returncode == 128 + 15
    assert differences(place.planned(server), place.state(server)) == []


def test_a_users_own_docker_is_neither_asked_nor_in_the_way(stage: Stage, tmp_path: Path, monkeypatch) -> None:
    """Another daemon, another context, certificates that are not there, a configuration that is no JSON."""
    (tmp_path / "config.json").write_text("not json")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "nowhere"}')
    for docker in made("docker", stage):
        job = Job(("cat", "/proc/self/cgroup"))
        docker.fresh(job)
        ran = docker.run(job)
        assert ran.returncode == 0 and docker.daemon.mark.encode() in ran.stdout, ran.stderr  # type: ignore[attr-defined]
        assert differences(docker.planned(job), docker.state(job)) == []
        assert "DOCKER_HOST" in docker.KNOWN[-1]


STRAY = {
    "DOCKER_HOST": "tcp://192.0.2.1:2375",
    "DOCKER_CONTEXT": "nowhere",
    "DOCKER_CONFIG": "{}",
    "DOCKER_TLS_VERIFY": "1",
    "DOCKER_CERT_PATH": "{}/none",
    "DOCKER_API_VERSION": "1.12",
    "DOCKER_CONTENT_TRUST": "1",
}


def test_nothing_of_one_sample_is_left_in_the_next(docker: Place) -> None:
    job = Job(("sh", "-c", f"echo spoilt >/etc/passwd; rm /bin/true; echo x >{WORK}/old"))
    docker.fresh(job)
    assert docker.run(job).returncode == 0
    look = Job(("sh", "-c", f"ls {WORK}; head -c 5 /etc/passwd; ls /bin/true"))
    docker.fresh(look)
    assert docker.run(look).stdout == b"root:/bin/true\n"


def test_a_daemon_at_rest_takes_no_time(docker: Place) -> None:
    docker.fresh(Job(("true",)))
    docker.rest()
    ticks = {pid: read(f"/proc/{pid}/stat").split()[13:15] for pid in docker.daemon.processes()}  # type: ignore[attr-defined]
    assert ticks
    time.sleep(1)
    for pid, before in ticks.items():
        words = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        assert words[0] == b"T"
        assert read(f"/proc/{pid}/stat").split()[13:15] == before


@pytest.mark.parametrize("when", ["between", "while a job runs"])
def test_a_daemon_that_is_killed_is_told_and_cleaned_up(docker: Place, when: str) -> None:
    job = Job(("sleep", "300"), network="lan", timeout=30)
    docker.fresh(job)
    daemon = docker.daemon  # type: ignore[attr-defined]
    (pid,) = (pid for pid in daemon.processes() if read(f"/proc/{pid}/comm").strip() == b"dockerd")
    if when == "between":
        os.kill(pid, signal.SIGKILL)
        daemon.process.wait(10)
        with pytest.raises(EnvironmentBroken, match="dockerd is gone"):
            docker.fresh(job)
    else:
        with docker._live(job) as live:
            live.go()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(EnvironmentBroken):
                live.wait(20)
    assert list(docker.cleanup()) == []
    assert daemon.processes() == []
    docker.fresh(Job(("true",)))  # and another one comes up
    assert docker.run(Job(("true",))).returncode == 0


def test_a_foreign_daemon_is_refused(docker: Place, stage: Stage) -> None:
    docker.prepare()
    assert docker_daemon.foreign(stage.directory) == 0
    pid = docker_daemon.foreign("/nowhere")
    assert read(f"/proc/{pid}/comm").strip() == b"dockerd"
    other = registry.make("docker", stage)
    other.stage = type("Elsewhere", (), {"directory": "/nowhere"})()  # type: ignore[assignment]
    assert other.unavailable().startswith(f"a dockerd runs already, as process {pid}: stop it")


def test_a_daemon_that_does_not_start_says_why(docker: Place) -> None:
    docker.daemon.storage = "no-such-driver"  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentBroken, match="dockerd does not start: .*driver"):
        docker.prepare()


@pytest.mark.timeout(1200)
def test_the_whole_debian_runs_what_the_workloads_run(requires) -> None:
    """Built by mmdebstrap when it is not there yet: the longest test of all."""
    requires("mmdebstrap")
    with Stage() as stage:
        assert os.path.exists(f"{stage.linux}/Makefile")
        assert {"xz-utils", "openssl", "nginx-light", "openssh-server"} <= stage.facts["versions"].keys()  # type: ignore[attr-defined]
        for name in ("bare", "minictr-overlay"):
            it = registry.make(name, stage)
            script = "set -e; xz --version; openssl version; gcc --version; make --version; nginx -v; ls /usr/sbin/sshd"
            job = Job(("sh", "-c", script))
            try:
                it.fresh(job)
                assert it.run(job).returncode == 0
            finally:
                assert list(it.cleanup()) == []
        assert stage.touched() == ""
