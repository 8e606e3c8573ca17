"""The workloads on the bare machine and in minictr, at their smallest size: what they leave, what they find wrong."""

from __future__ import annotations

import contextlib
import os
import re
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from places import prepared

from bench import rootfs
from bench.blocks import Blocks, Plan
from bench.environments import registry
from bench.environments.base import WORK, EnvironmentBroken, Job, Ran
from bench.environments.state import differences
from bench.samples import AGAIN, BARE, Sample
from bench.stage import Stage, StageError
from bench.workloads import arms, catalogue, cli, client, inputs
from bench.workloads import compile as compiling
from bench.workloads.base import WrongResult, last_words
from bench.workloads.compress import Compress
from bench.workloads.encrypt import Encrypt
from bench.workloads.receive import Receive
from bench.workloads.serve import Serve

ALONE = ("compress", "encrypt", "compile")  # those without a client
EVERY = {"wall_s", "user_s", "system_s", "whole_s", "nvcsw", "nivcsw", "minflt", "majflt", "output_bytes"}


class TestJobs:
    """What runs, as values."""

    def test_the_commands_are_those_of_the_thesis(self) -> None:
        assert Compress("small").job().argv == ("xz", "-T1", "-6", f"{WORK}/input")
        assert Encrypt("small").job().argv[:3] == ("openssl", "enc", "-aes-256-cbc")
        assert "make -s " in compiling.Compile("small").job().argv[2]
        assert Serve("small").job().ports == (80,)
        assert Receive("small").job().ports == (22,)

    def test_the_sizes_are_those_of_the_thesis(self) -> None:
        from bench.workloads import compress, encrypt, receive, serve

        mib = [module.BYTES["full"] / 2**20 for module in (compress, encrypt, receive)]
        assert mib == [256, 4096, 1024]
        assert serve.SITES["full"] == (16539, 348 * 2**20)
        assert serve.SITES["small"] == (2000, 38 * 2**20)

    @pytest.mark.parametrize("name", catalogue.WORKLOADS)
    def test_a_job_is_the_same_each_time(self, name: str) -> None:
        assert catalogue.made(name, "tiny").job() == catalogue.made(name, "tiny").job()
        assert catalogue.made(f"{name}:data=volume", "tiny").job().data == "volume"

    def test_what_is_chosen_is_in_the_job_and_in_the_path(self) -> None:
        other = catalogue.made("compress:tool=zstd:level=3", "small")
        assert other.job().argv == ("zstd", "-q", "--rm", "-3", f"{WORK}/input")
        assert catalogue.experiment(other) == "workload/compress/small/tool=zstd/level=3"
        assert catalogue.experiment(catalogue.made("compress:tool=xz", "small")) == "workload/compress/small"
        assert "-j4" in catalogue.made("compile:jobs=4", "small").job().argv[2]

    @pytest.mark.parametrize(
        ("text", "size", "words"),
        [
            ("bake", "small", "no workload bake; there are compress"),
            ("compress:tool=rar", "small", "tool is one of xz"),
            ("compress:colour=red", "small", "nothing called colour to choose; there is data, tool, level"),
            ("serve:local", "small", "KEY=VALUE, not local"),
            ("compile:jobs=0", "small", "jobs is a number from 1 up"),
            ("encrypt", "huge", "no size huge; there are tiny"),
        ],
    )
    def test_a_wish_that_cannot_be_is_one_line(self, text: str, size: str, words: str) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            catalogue.made(text, size)

    def test_the_root_file_system_has_what_they_need(self) -> None:
        needed = {package for it in catalogue.WORKLOADS.values() for package in it.NEEDS}
        assert needed <= {*rootfs.PACKAGES}


@pytest.fixture(scope="module")
def stage(requires) -> Iterator[Stage]:
    requires.root()
    requires("cc", "make", "xz", "openssl")
    with Stage(cli.own_programs()) as it:
        yield it


@pytest.fixture(scope="module", params=["bare", "minictr"])
def environment(request: pytest.FixtureRequest, stage: Stage) -> Iterator[object]:
    yield from prepared(request.param, stage)


@pytest.fixture
def bare(stage: Stage) -> Iterator[object]:
    it = registry.make("bare", stage)
    it.prepare()
    try:
        yield it
    finally:
        it.cleanup()


@pytest.mark.parametrize("name", ALONE)
def test_a_sample_has_its_values_and_leaves_no_input(name: str, environment, stage: Stage) -> None:
    workload = catalogue.made(name, "tiny")
    before = set(os.listdir(stage.directory))
    values = workload.measure(environment, stage)
    assert values.keys() >= EVERY
    assert 0 < values["wall_s"] <= values["whole_s"]
    assert values["user_s"] + values["system_s"] > 0
    assert values["output_bytes"] > 0
    state = environment.state(workload.job())
    assert differences(environment.planned(workload.job()), state) == []
    made_by_environment = {environment.name, "tree-0"}
    assert set(os.listdir(stage.directory)) - before <= made_by_environment
    environment.fresh(Job(("true",)))
    with pytest.raises(EnvironmentBroken):
        environment.get(f"{WORK}/input", str(Path(stage.directory) / "gone"))


def test_a_volume_holds_the_same_bytes(bare, stage: Stage) -> None:
    sizes = {
        catalogue.made(text, "tiny").measure(bare, stage)["output_bytes"] for text in ("encrypt", "encrypt:data=volume")
    }
    assert len(sizes) == 1


class Spoiled:
    """An environment that does something to what a job leaves, or is given."""

    def __init__(self, environment: object, spoil: Callable[[str], None] | None = None, *, lose: bool = False) -> None:
        self._environment, self._spoil, self._lose = environment, spoil, lose

    def __getattr__(self, name: str) -> object:
        return getattr(self._environment, name)

    def put(self, source: str, inside: str) -> None:
        if not self._lose:
            self._environment.put(source, inside)  # type: ignore[attr-defined]

    def get(self, inside: str, target: str) -> None:
        self._environment.get(inside, target)  # type: ignore[attr-defined]
        if self._spoil:
            self._spoil(target)


def flip(path: str) -> None:
    """One bit in the middle of the file."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def shorten(path: str) -> None:
    os.truncate(path, os.path.getsize(path) - 40)


def empty(path: str) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("compress", flip, "the output (gives back other bytes|cannot be read back: xz)"),
        ("compress", shorten, "the output cannot be read back: xz: .*[Uu]nexpected end"),
        ("encrypt", flip, "the output gives back other bytes"),
        ("encrypt", empty, "the output cannot be read back|gives back other bytes"),
        ("compile", shorten, "vmlinux was cut short"),
        ("compile", empty, "vmlinux is not an ELF file"),
        ("compile", os.unlink, f"no {WORK}/build/vmlinux"),
    ],
)
def test_wrong_bytes_are_found(name: str, spoil: Callable[[str], None], words: str, bare, stage: Stage) -> None:
    with pytest.raises(WrongResult, match=words):
        catalogue.made(name, "tiny").measure(Spoiled(bare, spoil), stage)


def test_wrong_bytes_are_found_after_right_ones(bare, stage: Stage) -> None:
    """What was once decrypted is known by its digest; other bytes are looked at again."""
    workload = catalogue.made("encrypt", "tiny")
    workload.measure(bare, stage)
    with pytest.raises(WrongResult, match="other bytes"):
        workload.measure(Spoiled(bare, flip), stage)
    workload.measure(bare, stage)


def test_every_arm_makes_the_same_vmlinux_or_is_told(environment, stage: Stage) -> None:
    workload = catalogue.made("compile", "tiny")
    first = workload.measure(environment, stage)
    assert workload.measure(environment, stage)["output_bytes"] == first["output_bytes"]
    with pytest.raises(WrongResult, match=f"vmlinux has the SHA-256 .*, that of {environment.NAME} "):
        workload.measure(Spoiled(environment, flip), stage)


def test_no_kernel_is_no_vmlinux(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\x3e\x00" + bytes(60))  # ET_REL: an object file
    with pytest.raises(WrongResult, match="type 1 for machine 62, no kernel"):
        compiling.elf(str(path))


def test_a_job_that_fails_is_told_in_its_own_words(bare, stage: Stage) -> None:
    with pytest.raises(WrongResult, match=rf"^openssl left with 1: .*{WORK}/input"):
        catalogue.made("encrypt", "tiny").measure(Spoiled(bare, lose=True), stage)


def test_without_the_kernels_source_nothing_is_compiled(bare, stage: Stage) -> None:
    with pytest.raises(EnvironmentBroken, match=r"no linux-source-6\.1 on this stage"):
        catalogue.made("compile", "small").measure(bare, stage)


def test_last_words() -> None:
    assert last_words(b"\none\nmore\ntwo\n\n") == "one ... two"
    assert last_words(b"one\n") == "one"
    assert last_words(b" \n") == "it said nothing"
    assert len(last_words(b"x" * 10000)) == 200


class Nowhere:
    """An environment that takes everything and does nothing. Its lan is this machine."""

    NAME, KNOWN = "nowhere", ()
    ran = Ran(0, b"", b"", {"wall_s": 1.0})

    def __init__(self, addresses: dict[str, str] | None = None) -> None:
        self.addresses, self.ports = addresses or {}, {80: 8080}
        self.lan = types.SimpleNamespace(command=lambda argv, where: list(argv))

    features = ()

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *arguments: self.ran if name == "run" else {} if name in ("state", "planned") else ""


def test_a_full_disk_is_one_arms_failure(small_disk: Path) -> None:
    """The inputs do not fit: the arm is out with the file's name, and what was written goes."""
    full = types.SimpleNamespace(directory=str(small_disk), linux="")
    them = arms.arms([Encrypt("tiny")], [named(BARE), named(AGAIN)], full)  # type: ignore[list-item, arg-type]
    outcome = Blocks(them, "r", lambda record: None, Plan(3, 1, rest=0)).measure()
    assert len(outcome.failed) == 2
    for line in outcome.failed.values():
        assert "No space left on device" in line
    assert os.listdir(small_disk) == []
    assert all(isinstance(it, Sample) and it.discarded for it in outcome.samples)


def named(name: str) -> Nowhere:
    it = Nowhere()
    it.NAME = name  # type: ignore[misc]
    return it


def test_the_disk_is_asked_before_anything_is_made(small_disk: Path) -> None:
    with pytest.raises(StageError, match=r"encrypt at size full needs 12\.0 GiB in .* where 1\.0 MiB are free"):
        cli.room([Encrypt("full"), Compress("full")], str(small_disk))


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestClient:
    def test_its_own_time_and_the_servers_are_apart(self) -> None:
        found = client.run(Nowhere(), "client", ["sh", "-c", "exit 0"], 20.0)  # type: ignore[arg-type]
        assert found["wall_s"] > 0
        both = client.together(found, Ran(0, b"", b"", {"wall_s": 9.0, "user_s": 1.0}))
        assert both["wall_s"] == found["wall_s"] and both["server_wall_s"] == 9.0 and both["user_s"] == 1.0

    def test_a_client_that_fails_is_told_in_its_own_words(self) -> None:
        with pytest.raises(WrongResult, match="sh left with 3: refused"):
            client.run(Nowhere(), "client", ["sh", "-c", "echo refused >&2; exit 3"], 20.0)  # type: ignore[arg-type]

    def test_a_client_that_hangs_is_killed_with_its_children(self, tmp_path: Path) -> None:
        script = f"sleep 1000 & echo $! >{tmp_path}/pid; wait"
        with pytest.raises(WrongResult, match=r"sh had not ended after 1 s"):
            client.run(Nowhere(), "client", ["sh", "-c", script], 1.0)  # type: ignore[arg-type]
        pid = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 20
        while alive(pid):  # the signal was sent; it dies when it runs next
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def test_a_way_that_is_not_there_is_told(self) -> None:
        with pytest.raises(EnvironmentBroken, match="nowhere: a server in it is not reached by the way 'local'"):
            client.address(Nowhere({"client": "10.0.0.1"}), "local", "nowhere")  # type: ignore[arg-type]


def test_a_mirror_is_compared_file_by_file(tmp_path: Path) -> None:
    serve = Serve("tiny")
    serve.site = inputs.site(str(tmp_path), 60, inputs.MIB)
    serve.compare(str(tmp_path))
    victim = tmp_path / "00/00/00001.jpg"
    flip(str(victim))
    with pytest.raises(WrongResult, match="the mirror's 60 files are not those of the site"):
        serve.compare(str(tmp_path))
    victim.unlink()
    with pytest.raises(WrongResult, match="the mirror has 59 files, the site 60"):
        serve.compare(str(tmp_path))


SERVERS = rootfs.Recipe(("nginx-light", "openssh-server"))  # built once for a machine, in some twenty seconds


@pytest.fixture(scope="module")
def network_stage(requires) -> Iterator[Stage]:
    requires.root()
    requires("wget", "scp", "nsenter")
    with contextlib.ExitStack() as stack:
        try:
            stage = stack.enter_context(Stage(SERVERS))
        except rootfs.RootfsError as err:
            pytest.skip(f"no Debian mirror from here: {err}")
        yield stage


@pytest.fixture(scope="module", params=["bare", "minictr-overlay"])
def server_environment(request: pytest.FixtureRequest, network_stage: Stage) -> Iterator[object]:
    yield from prepared(request.param, network_stage)


@pytest.mark.bench
class TestServers:
    """nginx and sshd, with their clients in another network namespace."""

    @pytest.mark.parametrize("text", ["serve", "serve:way=host", "serve:way=local", "serve:data=volume", "receive"])
    def test_a_sample(self, text: str, server_environment, network_stage: Stage) -> None:
        workload = catalogue.made(text, "tiny")
        values = workload.measure(server_environment, network_stage)
        assert values.keys() >= {*EVERY, "server_wall_s", "client_user_s", "client_system_s"}
        assert 0 < values["wall_s"] < values["server_wall_s"]
        assert values["user_s"] + values["system_s"] > 0, "the server's own share"
        state = server_environment.state(workload.job())
        assert differences(server_environment.planned(workload.job()), state) == []

    def test_another_page_is_found(self, server_environment, network_stage: Stage) -> None:
        with pytest.raises(WrongResult, match="the mirror's 60 files are not those of the site"):
            catalogue.made("serve", "tiny").measure(Swapped(server_environment), network_stage)

    def test_a_missing_page_is_found(self, server_environment, network_stage: Stage) -> None:
        with pytest.raises(WrongResult, match=r"wget left with 8|the mirror has 59 files, the site 60"):
            catalogue.made("serve", "tiny").measure(Swapped(server_environment, remove=True), network_stage)

    def test_other_bytes_than_those_sent_are_found(self, server_environment, network_stage: Stage) -> None:
        with pytest.raises(WrongResult, match="2097152 bytes were received that are not those sent"):
            catalogue.made("receive", "tiny").measure(Spoiled(server_environment, flip), network_stage)

    def test_a_server_that_does_not_start_is_told(self, server_environment, network_stage: Stage) -> None:
        with pytest.raises(EnvironmentBroken, match=r"nginx\.conf"):
            catalogue.made("serve", "tiny").measure(Spoiled(server_environment, lose=True), network_stage)
        catalogue.made("serve", "tiny").measure(server_environment, network_stage)


class Swapped(Spoiled):
    """The site that is served is not the one that was made: one page is another, or is not there."""

    def __init__(self, environment: object, *, remove: bool = False) -> None:
        super().__init__(environment)
        self._remove = remove

    def put(self, source: str, inside: str) -> None:
        if inside == f"{WORK}/site":
            victim = next(Path(source).glob("*/*/*.css"))
            victim.unlink() if self._remove else flip(str(victim))
        super().put(source, inside)
