"""Every environment that can be had without a daemon: jobs, servers, files, state, and nothing left."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import SERVER, ask

from bench import rootfs
from bench.environments import bare, live, ours, registry
from bench.environments.base import WORK, Bind, EnvironmentBroken, Job
from bench.environments.live import read
from bench.environments.place import STEERING, Place
from bench.environments.state import differences
from bench.lan import Lan
from bench.stage import Stage, StageError

QUICK = ("bare", "host", "minictr-bare", "minictr", "minictr-docker", "minictr-lxc", "lxc", "lxc-unprivileged")
QUICK += ("runc", "crun", "bwrap", "nspawn")
FEW = ("bare", "minictr", "lxc-unprivileged")  # one that has none of it, ours, and one with a monitor and mapped users


def each() -> list[object]:
    """QUICK, of which `make test` takes FEW and `make test-bench` the others."""
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.bench) for name in QUICK]


@pytest.fixture(params=each())
def place(request: pytest.FixtureRequest, stage: Stage, requires) -> Iterator[Place]:
    yield from made(request.param, stage, requires)


@pytest.fixture(params=QUICK)
def any_place(request: pytest.FixtureRequest, stage: Stage, requires) -> Iterator[Place]:
    yield from made(request.param, stage, requires)


def made(name: str, stage: Stage, requires) -> Iterator[Place]:
    requires.root()
    it = registry.make(name, stage)
    missing = [program for program in it.PROGRAMS if not requires.has(program)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: a peer's")
    assert it.unavailable() == ""
    try:
        yield it
    finally:
        assert list(it.cleanup()) == []
        assert not os.path.exists(it.path())


@pytest.fixture
def minictr(stage: Stage, requires) -> Iterator[ours.Minictr]:
    requires.root()
    it = ours.Minictr(stage, "lab")
    try:
        yield it
    finally:
        assert list(it.cleanup()) == []


def test_a_job_a_server_and_what_they_leave(any_place: Place, tmp_path: Path) -> None:
    """One environment after another, in one test each: making one takes longer than asking it everything."""
    place = any_place
    for data in ("image", "volume"):
        script = f"cat {WORK}/in; echo made >{WORK}/out; echo aside >&2; test -e {WORK}/old && exit 9; exit 3"
        job = Job(("sh", "-c", script), env={"WORD": "x"}, data=data)
        place.fresh(job)
        (tmp_path / "in").write_text(f"bytes of {data}\n")
        place.put(str(tmp_path / "in"), f"{WORK}/in")
        ran = place.run(job)
        assert (ran.returncode, ran.stdout.decode()) == (3, f"bytes of {data}\n"), ran.stderr
        assert ran.stderr.startswith(b"aside\n")
        assert 0 < ran.values["wall_s"] < ran.values["whole_s"]
        assert {"user_s", "system_s", "nvcsw", "nivcsw", "minflt", "majflt"} <= ran.values.keys()
        place.get(f"{WORK}/out", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == "made\n"
        assert differences(place.planned(job), place.state(job)) == []
        place.rest()
    server = Job(SERVER, network="lan", ports=(8000,))
    place.fresh(server)
    with place.start(server) as live:
        assert {"client", "host"} <= live.addresses.keys()
        for way, address in live.addresses.items():
            assert ask(place, way, address, live.ports[8000]) == "hello\n", way
        assert live.stop().returncode == 128 + 15
    assert differences(place.planned(server), place.state(server)) == []


def test_nothing_of_one_sample_is_left_in_the_next(place: Place) -> None:
    job = Job(
        ("sh", "-c", f"echo spoilt >/etc/passwd; rm /bin/true; echo x >{WORK}/old; touch /root/new 2>/dev/null; :")
    )
    look = Job(("sh", "-c", f"ls {WORK}; ls /root; head -c 5 /etc/passwd; ls /bin/true"))
    if place.name == "host":
        job, look = Job(("touch", f"{WORK}/old")), Job(("ls", WORK))
    place.fresh(job)
    assert place.run(job).returncode == 0
    place.fresh(look)
    ran = place.run(look)
    wanted = b"" if place.name == "host" else b"root:/bin/true\n"
    assert (ran.returncode, ran.stdout) == (0, wanted), ran.stderr


def test_the_jobs_time_has_neither_the_start_nor_the_reading_of_its_state(minictr: ours.Minictr) -> None:
    job = Job(("sleep", "0.3"))
    minictr.fresh(job)
    begin = time.perf_counter()
    ran = minictr.run(job)
    assert 0.3 <= ran.values["wall_s"] <= ran.values["whole_s"] <= time.perf_counter() - begin
    assert ran.values["nvcsw"] >= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"namespaces": {"net": "host"}}, "namespaces.net is own, planned was host"),
        ({"no_new_privs": False}, "no_new_privs is on, planned was off"),
        ({"seccomp": 0}, "seccomp is 1, planned was 0"),
        ({"network": {"interfaces": ["eth0", "lo"]}}, "network.interfaces is lo, planned was eth0 lo"),
        ({"cgroups": {"memory": "own"}}, "cgroups.memory is host, planned was own"),
        ({"capabilities": {"effective": 1}}, "capabilities.effective is"),
        ({"nonsense": 1}, "nonsense is unknown, planned was 1"),
    ],
)
def test_a_wrong_plan_is_found(minictr: ours.Minictr, change: dict, words: str) -> None:
    job = Job(("true",))
    minictr.fresh(job)
    minictr.run(job)
    found = minictr.state(job)
    assert differences(minictr.planned(job), found) == []
    (line,) = differences(change, found)
    assert line.startswith(words)


def test_a_feature_left_out_is_seen_in_the_state(stage: Stage, requires) -> None:
    """The plan is made of the features, the state read from the kernel: each alone says what the other does."""
    requires.root()
    import minictr as mc

    whole = mc.Container(stage.rootfs).features
    less = mc.Container(stage.rootfs).without("seccomp", "no_new_privs", "ipc").features
    job, states = Job(("true",)), []
    for name, features in (("whole", whole), ("less", less)):
        it = ours.Minictr(stage, name, features=features)
        try:
            it.fresh(job)
            it.run(job)
            assert differences(it.planned(job), it.state(job)) == []
            states.append(it.state(job))
        finally:
            it.cleanup()
    assert [state["seccomp"] for state in states] == [1, 0]
    assert [state["no_new_privs"] for state in states] == [True, False]
    assert [state["namespaces"]["ipc"] for state in states] == ["own", "host"]


@pytest.mark.parametrize(
    ("rungs", "seen"),
    [
        ((), {"bridge": False, "masquerade": False, "dnat": False}),
        (("veth",), {"bridge": False, "masquerade": False, "dnat": False}),
        (("veth", "bridge"), {"bridge": True, "masquerade": False, "dnat": False}),
        (("veth", "bridge", "conntrack", "nat"), {"bridge": True, "masquerade": True, "dnat": False}),
        (ours.DOCKER_RUNGS, {"bridge": True, "masquerade": True, "dnat": True}),
    ],
)
def test_each_rung_of_the_network_is_reached_and_seen(stage: Stage, requires, rungs, seen) -> None:
    requires.root()
    requires("socat")
    it = ours.Minictr(stage, "rungs", rungs=rungs)
    job = Job(SERVER, network="lan", ports=(8000,))
    try:
        it.fresh(job)
        with it.start(job) as live:
            for way, address in live.addresses.items():
                assert ask(it, way, address, live.ports[8000]) == "hello\n"
        assert differences(it.planned(job), it.state(job)) == []
        assert seen.items() <= it.state(job)["network"].items()
    finally:
        assert list(it.cleanup()) == []


def test_binds_are_seen_and_read_only_where_asked(place: Place, stage: Stage) -> None:
    if place.name == "host":
        pytest.skip("nothing is mounted in the machine's own root")
    shown = Path(stage.directory, "shown")  # where mapped users get to
    shown.mkdir(exist_ok=True)
    (shown / "file").write_text("from outside")
    job = Job(("sh", "-c", "cat /data/file; ! touch /data/new 2>/dev/null"), binds=(Bind(str(shown), "/data", True),))
    place.fresh(job)
    ran = place.run(job)
    assert (ran.returncode, ran.stdout) == (0, b"from outside"), ran.stderr
    assert not (shown / "new").exists()


def test_a_job_that_takes_too_long_is_killed_with_all_it_began(place: Place) -> None:
    mark = str(secrets.randbelow(10**8) + 10**8)
    job = Job(("sh", "-c", f"sleep {mark} & sleep {mark}"), timeout=0.5)
    place.fresh(job)
    with pytest.raises(EnvironmentBroken, match="not over after"):
        place.run(job)
    assert not seen(mark, wanted=False)


def seen(word: str, *, wanted: bool) -> bool:
    """Whether there is a process with WORD among its arguments, or there is none: what is WANTED is waited for."""
    deadline = time.monotonic() + 10
    while True:
        names = filter(str.isdecimal, os.listdir("/proc"))
        found = any(word.encode() in read(f"/proc/{name}/cmdline").split(b"\0") for name in names)
        if found is wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


@pytest.mark.parametrize("script", ["sleep 0.3", "true"])
def test_a_disk_that_fills_up_under_a_job_is_told(
    minictr: ours.Minictr, small_disk: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """The clock cannot write its report there: the arm breaks in one line, and nothing waits for the job's timeout."""
    monkeypatch.setattr(live, "UNHEARD", 0.5)
    job = Job(("sh", "-c", script), timeout=100)
    minictr.fresh(job)
    path = minictr.path
    monkeypatch.setattr(
        minictr, "path", lambda *names: str(small_disk / "err") if names == ("stderr",) else path(*names)
    )
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(b"x" * room.f_bavail * room.f_frsize)
    began = time.monotonic()
    with pytest.raises(EnvironmentBroken, match="its clock's report did not come: no room is left on the disk of "):
        minictr.run(job)
    assert time.monotonic() - began < 60


def test_leaving_a_server_ends_it(place: Place) -> None:
    mark = str(secrets.randbelow(10**8) + 10**8)
    job = Job(
        ("sh", "-c", f"sleep {mark} & exec {' '.join(SERVER[:2])} 'SYSTEM:echo hello'"), network="lan", ports=(8000,)
    )
    place.fresh(job)
    with place.start(job):
        assert seen(mark, wanted=True)
    assert not seen(mark, wanted=False)


@pytest.mark.parametrize("argv", [("no-such-program",), ("sh", "-c", "exit 4")])
def test_a_server_that_does_not_listen_is_told(minictr: ours.Minictr, argv: tuple[str, ...]) -> None:
    job = Job(argv, network="lan", ports=(8000,))
    minictr.fresh(job)
    with pytest.raises(EnvironmentBroken, match=r"nothing listens on port \[8000\]"):
        minictr.start(job)


def test_a_job_without_a_fresh_container_is_refused(minictr: ours.Minictr) -> None:
    with pytest.raises(EnvironmentBroken, match="fresh"):
        minictr.run(Job(("true",)))
    minictr.fresh(Job(("true",)))
    with pytest.raises(EnvironmentBroken, match="another job"):
        minictr.run(Job(("false",)))


def test_cleanup_may_be_called_at_any_time(place: Place) -> None:
    assert list(place.cleanup()) == []
    job = Job(("true",))
    place.fresh(job)
    assert list(place.cleanup()) == []
    assert list(place.cleanup()) == []
    place.fresh(job)  # and it can be used again
    assert place.run(job).returncode == 0


def test_a_runtime_that_fails_to_start_leaves_nothing(stage: Stage, requires) -> None:
    requires.root()
    it = registry.make("lxc", stage)
    if it.unavailable():
        pytest.skip(it.unavailable())
    it.ROWS = ("lxc.no.such.key = 1",)  # type: ignore[misc]
    job = Job(("true",))
    try:
        it.fresh(job)
        with pytest.raises(EnvironmentBroken, match="did not start: .*such"):
            it.run(job)
    finally:
        assert list(it.cleanup()) == []


def test_rungs_and_names_that_are_not_there_are_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="magic is not one of"):
        ours.Minictr(stage, rungs=("magic",))
    with pytest.raises(KeyError):
        registry.make("magic", stage)


def test_the_machine_of_a_lan_is_not_this_one(requires) -> None:
    requires.root()
    forwarding = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    with Lan() as lan:
        inside = subprocess.run(
            lan.command(["ip", "-br", "address"], "host"), capture_output=True, text=True, check=True
        )
        assert lan.host_address in inside.stdout
        pinged = subprocess.run(
            lan.command(["socat", "-u", "OPEN:/dev/null", f"UDP:{lan.host_address}:9"]),
            capture_output=True,
            check=False,
        )
        assert pinged.returncode == 0
        assert os.stat("/proc/self/ns/net").st_ino not in (lan.id("host"), lan.id("client"))
        assert subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout == links
        path = lan.path("host")
    assert not os.path.exists(path)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forwarding


def test_a_stage_wants_a_disk(tmp_path: Path, small_disk: Path) -> None:
    with pytest.raises(StageError, match="is on tmpfs"), Stage(rootfs.MINIMAL, scratch=str(small_disk)):
        pass
    assert not os.listdir(small_disk)


def test_the_callers_daemons_are_not_asked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has set for his own docker or podman reaches no tool of an arm, and the arm says so."""
    named = {"DOCKER_HOST": "tcp://192.0.2.1:2375", "DOCKER_TLS_VERIFY": "1", "CONTAINERS_CONF": "/no", "KEPT": "x"}
    for name in filter(str.isupper, tuple(os.environ)):
        if name.startswith(STEERING):
            monkeypatch.delenv(name)
    assert not any("not used" in line for line in registry.make("docker", stage).KNOWN)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    it = registry.make("docker", stage)
    assert it.KNOWN[-1].startswith(
        "CONTAINERS_CONF, DOCKER_HOST, DOCKER_TLS_VERIFY of the caller's environment not used"
    )
    it = registry.make("bare", stage)
    with it.lan:
        given = dict(line.split("=", 1) for line in it.tool("env", "-0").stdout.split("\0") if line)
    assert given["KEPT"] == "x" and not named.keys() & given.keys() - {"KEPT"}


def test_all_have_words_for_a_reader() -> None:
    for name, kind in registry.ENVIRONMENTS.items():
        assert name == kind.NAME and kind.ABOUT and kind.KNOWN, name
    assert issubclass(registry.ENVIRONMENTS["bare-again"], bare.Bare)
