"""The feature landlock in containers, in the host's own root, and for programs that join: by what is then denied."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joined import said, target_of

import minictr as mc
from minictr.kernel import landlock, landlock_abi
from minictr.rights import ACCESS
from minictr.runtime.join import exec_popen, exec_run, exec_spec

SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
TOOLS = (*SYSTEM, "/etc", "/proc")
WISH = mc.Landlock(TOOLS, rw=("/tmp", "/dev"))
BOUNDING = next(f for f in mc.profiles.DEFAULT if isinstance(f, mc.Capabilities)).bounding
# a word for each that could be done
TRIED = (
    "{ echo >/tmp/a$RANDOM; } 2>&- && echo tmp; { echo >/root/a; } 2>&- && echo root;"
    " ls /home >/dev/null 2>&1 && echo home; true"
)


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.root()
    requires.landlock(7)


@pytest.fixture
def own(own_rootfs: Path) -> mc.Container:
    """A container of the default profile on a root of its own."""
    (own_rootfs / "root").mkdir(exist_ok=True)
    (own_rootfs / "home").mkdir(exist_ok=True)
    (own_rootfs / "tmp").chmod(0o1777)
    return mc.Container(own_rootfs)


def test_in_a_container_off_and_on(own: mc.Container, sh: Callable[..., str]) -> None:
    assert sh(own, TRIED).split() == ["tmp", "root", "home"]
    assert sh(own.with_(WISH), TRIED).split() == ["tmp"]
    assert sh(own.with_(WISH.replace(rw=("/",))), TRIED).split() == ["tmp", "root", "home"]


@pytest.mark.parametrize("shape", ["docker", "user", "userns", "userns without no_new_privs", "chroot", "overlay"])
def test_in_every_shape(own: mc.Container, sh: Callable[..., str], shape: str) -> None:
    """With and without no_new_privs, with other users and roots: the same is denied."""
    rows = ((0, 100_000, 65_536),)
    mapped = own.with_(mc.UserNamespace(uid_map=rows, gid_map=rows))
    box = {
        "docker": mc.Container(own.rootfs, features=[f for f in mc.profiles.DOCKER if f.name != "cpuset"]),
        "user": own.with_(mc.Identity("1000:1000")),
        "userns": mapped,
        "userns without no_new_privs": mapped.without("no_new_privs"),
        "chroot": mc.Container(own.rootfs, features=[mc.Chroot(), mc.Env(), mc.NoNewPrivs()]),
        "overlay": own.with_(mc.Overlay()),
    }[shape]
    assert sh(box.with_(WISH), TRIED.replace("/root/a", "/tmp/../root/a")).split() == ["tmp"]
    assert "home" in sh(box, TRIED).split()


def test_a_path_that_is_closed_to_the_user_can_be_a_rule(own: mc.Container, sh: Callable[..., str]) -> None:
    """It is looked up while root can: the rule holds, and the file's mode decides as ever."""
    closed = Path(own.rootfs) / "srv"
    (closed / "open").mkdir(parents=True, exist_ok=True)
    closed.chmod(0o700)
    wish = WISH.replace(ro=(*TOOLS, "/srv/open"))
    box = own.with_(wish, mc.Identity("1000:1000"))
    assert sh(box, "ls /srv/open 2>&1; id -u", code=0).endswith("1000")
    assert sh(box.with_(mc.Identity("0")), "ls /srv/open && echo yes") == "yes"


def test_root_cannot_mount_its_way_out(own: mc.Container, sh: Callable[..., str]) -> None:
    """Nor by links, by another name of the same file, or by procfs."""
    box = own.with_(WISH, mc.Capabilities(("SYS_ADMIN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "SYS_CHROOT", "MKNOD")))
    secret = Path(own.rootfs) / "srv" / "secret"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret")
    ways = [
        "ln -s /srv/secret /tmp/link; cat /tmp/link",
        "ln /srv/secret /tmp/hard && cat /tmp/hard",
        "mv /srv/secret /tmp/moved && cat /tmp/moved",
        "cat /proc/self/root/srv/secret",
        "cd /srv; cat secret",
        "mkdir -p /tmp/m; mount --bind /srv /tmp/m && cat /tmp/m/secret",
        "chroot /srv /secret",
        "exec 3</srv; cat /proc/self/fd/3/secret",
    ]
    for way in ways:
        answer = box.run(["bash", "-c", way], capture_output=True, text=True, timeout=20)
        assert answer.returncode != 0 and "secret" not in answer.stdout, way
    assert sh(box.without("landlock"), ways[0]) == "secret"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_ports_and_scopes_on_the_host(listener: socket.socket) -> None:
    port = listener.getsockname()[1]

    def connects(*features: mc.Feature) -> bool:
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        return mc.run(["bash", "-c", script], features=features, stderr=mc.DEVNULL).returncode == 0

    def signals(*features: mc.Feature) -> bool:
        script = f"kill -0 {os.getpid()}"
        return mc.run(["bash", "-c", script], features=features, stderr=mc.DEVNULL).returncode == 0

    allowed = mc.Landlock(connect=(port,), scopes=("abstract_unix_socket",))
    denied = mc.Landlock(connect=(), scopes=("signal",))
    assert (connects(), signals()) == (True, True)
    assert (connects(mc.NoNewPrivs(), allowed), signals(mc.NoNewPrivs(), allowed)) == (True, True)
    assert (connects(mc.NoNewPrivs(), denied), signals(mc.NoNewPrivs(), denied)) == (False, False)


# --- what fails, and how it is told ---


def test_a_rule_for_nothing(own: mc.Container, sh: Callable[..., str]) -> None:
    wish = WISH.replace(ro=(*TOOLS, "/nosuch"))
    with pytest.raises(mc.StepFailed, match=r"landlock path /nosuch: .*ENOENT.*feature landlock.*ignore") as caught:
        own.with_(wish).run(["true"])
    assert caught.value.feature == "landlock"
    assert sh(own.with_(wish.replace(ignore_missing=True)), TRIED).split() == ["tmp"]


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (("/etc/passwd", ("read_dir",)), "EINVAL", "rights of a directory"),
        (("/proc/self/exe", ("read_file",)), "ELOOP", "magic links"),
    ],
)
def test_a_rule_that_cannot_be(own: mc.Container, rule: tuple[str, tuple[str, ...]], error: str, words: str) -> None:
    with pytest.raises(mc.StepFailed, match=f"landlock path {rule[0]}.*{error}.*{words}"):
        own.with_(WISH.replace(rules=(rule,))).run(["true"])


def test_a_link_of_the_image_stays_in_it(own: mc.Container, sh: Callable[..., str]) -> None:
    """A rule for a link means what it leads to in the container, not on the host."""
    (Path(own.rootfs) / "lead").symlink_to("../../../../home")
    assert sh(own.with_(WISH.replace(ro=(*TOOLS, "/lead"))), TRIED).split() == ["tmp", "home"]


def test_a_program_that_may_not_be_executed(own: mc.Container) -> None:
    with pytest.raises(mc.CommandNotExecutable, match="EACCES.*no rule of landlock") as caught:
        own.with_(mc.Landlock(rw=("/tmp",))).run(["true"])
    assert caught.value.exit_code == 126


def test_without_privilege_and_no_new_privs(monkeypatch: pytest.MonkeyPatch, own: mc.Container) -> None:
    from minictr.kernel import capabilities

    sets = capabilities.get()
    monkeypatch.setattr(capabilities, "get", lambda: sets.replace(effective=()))
    with pytest.raises(mc.Unsupported, match="needs CAP_SYS_ADMIN; add no_new_privs"):
        own.with_(WISH).without("no_new_privs").run(["true"])
    assert own.with_(WISH).run(["true"]).returncode == 0


def test_seventeen_domains_in_one_another() -> None:
    box = mc.Container(features=[mc.NoNewPrivs(), mc.Landlock(access=("make_dir",))])
    pid = os.fork()
    if pid == 0:
        try:
            with landlock.ruleset(["make_dir"]) as rules:
                for _ in range(16):
                    landlock.restrict(rules)
            with pytest.raises(mc.StepFailed, match="landlock_restrict_self: E2BIG.*16 domains"):
                box.run(["true"])
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


class TestAnOlderKernel:
    """ABI 4, by what the kernel module says: the wish needs 5, 6 and 7."""

    WISH = mc.Landlock(TOOLS, rw=("/tmp", "/dev"), bind=(), scopes=("signal",), log=True)

    @pytest.fixture(autouse=True)
    def _older(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(landlock_abi, "abi", lambda: 4)

    def test_what_it_cannot_deny_is_an_error(self, own: mc.Container) -> None:
        with pytest.raises(mc.Unsupported) as caught:
            own.with_(self.WISH).run(["true"])
        assert caught.value.feature == "landlock"
        assert list(caught.value.parts) == ["ioctl_dev", "signal", "log"]
        for words in ("ioctl_dev needs Landlock ABI 5 (Linux 6.10)", "signal needs Landlock ABI 6", "--best-effort"):
            assert words in str(caught.value)

    def test_best_effort_leaves_out_just_that(self, own: mc.Container) -> None:
        box, told = own.with_(self.WISH), []

        def start(out: tuple[str, ...]) -> mc.Result:
            return box.without(*out).run(["bash", "-c", TRIED], capture_output=True, text=True)

        done, left = mc.best_effort(start, ["landlock"], told.append)
        assert [item.name for item in left] == ["landlock:ioctl_dev", "landlock:signal", "landlock:log"]
        assert list(left) == told
        assert str(left[0]).startswith("landlock:ioctl_dev is left out: ioctl_dev needs Landlock ABI 5")
        assert done.stdout.split() == ["tmp"]

    def test_another_name_does_not_help(self, own: mc.Container) -> None:
        with pytest.raises(mc.Unsupported):
            mc.best_effort(lambda out: own.with_(self.WISH).without(*out).run(["true"]), ["memory"])


def test_no_landlock_at_all(monkeypatch: pytest.MonkeyPatch, own: mc.Container) -> None:
    monkeypatch.setattr(
        landlock_abi, "lib", type("lib", (), {"mc_landlock_abi": staticmethod(lambda: -errno.EOPNOTSUPP)})
    )
    with pytest.raises(mc.StepFailed, match="landlock_create_ruleset: E(OP)?NOTSUPP?.*feature landlock.*lsm="):
        own.with_(WISH).run(["true"])
    done, left = mc.best_effort(lambda out: own.with_(WISH).without(*out).run(["true"]), ["landlock"])
    assert (done.returncode, [item.name for item in left]) == (0, ["landlock"])


# --- programs that join ---


def test_who_joins_is_as_restricted(inside: Any, own: mc.Container) -> None:
    target = inside(own.with_(WISH))
    assert said(target, TRIED).split() == ["tmp"]
    assert said(target, TRIED, user="1000:1000").split() == ["tmp"]
    assert said(target, TRIED, without=("landlock",)).split() == ["tmp", "root", "home"]
    assert said(target, TRIED, privileged=True).split() == ["tmp", "root", "home"]


def test_who_joins_without_no_new_privs(inside: Any, own: mc.Container) -> None:
    target = inside(own.with_(WISH).without("no_new_privs"))
    assert said(target, TRIED).split() == ["tmp"]
    assert said(target, TRIED, without=("landlock",)).split() == ["tmp", "root", "home"]


def test_who_joins_with_a_terminal(inside: Any, own: mc.Container) -> None:
    """The terminal is made before the domain is entered."""
    target = inside(own.with_(mc.Landlock(SYSTEM)))
    with (
        mc.Console() as console,
        exec_popen(target, ["stat", "-c", "%F", "/proc/self/fd/0"], console=console) as joined,
    ):
        assert joined.wait(10) == 0
        assert os.read(console.master, 4096).decode().strip() == "symbolic link"


def test_who_joins_what_was_no_container() -> None:
    """The host's root and no namespaces: nothing is entered, and the rules hold all the same."""
    box = mc.Container(features=[mc.NoNewPrivs(), mc.Landlock(("/",), rw=("/dev",))])
    with box.popen(["sleep", "100"]) as process:
        target = target_of(process, box)
        script = "{ echo >/tmp/minictr-not-made; } 2>&- && echo made; id -u"
        done = exec_run(target, ["bash", "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "0\n")
        assert not os.path.exists("/tmp/minictr-not-made")


def test_who_is_restricted_cannot_look_into_who_is_not(inside: Any, own: mc.Container) -> None:
    """So a program that joins loses nothing to those inside before it is restricted, whatever they may trace."""
    target = inside(own.with_(WISH, mc.Capabilities((*BOUNDING, "SYS_PTRACE"))))
    with exec_popen(target, ["sleep", "100"], without=["landlock"]) as free:
        with open(f"/proc/{free.pid}/status") as file:
            pid = next(line for line in file if line.startswith("NSpid")).split()[-1]
        look = f"readlink /proc/{pid}/fd/0 || echo closed"
        assert said(target, look) == "closed"
        assert said(target, look, without=("landlock",)) not in ("", "closed")


def test_the_plan_of_who_joins(inside: Any, own: mc.Container) -> None:
    target = inside(own.with_(WISH))
    assert exec_spec(target, ["true"]).get("landlock") == WISH
    assert exec_spec(target, ["true"], without=("landlock",)).get("landlock") is None


# --- what it costs ---


def test_twenty_paths_cost_little(own: mc.Container) -> None:
    """Under half a millisecond, by the time line of the best of some starts."""
    paths = tuple(f"/srv/{number}" for number in range(20))
    for path in paths:
        (Path(own.rootfs) / path[1:]).mkdir(parents=True)
    box = own.with_(mc.Landlock(SYSTEM, rw=paths))
    times = [box.run(["true"]).timeline.by_feature()["landlock"] for _ in range(10)]
    assert min(times) < 500, times


def test_a_subprocess_is_bound_as_well(own: mc.Container) -> None:
    """Whatever a program starts is in its domain: here, on the host, by a shell of a shell."""
    box = mc.Container(
        features=[mc.NoNewPrivs(), mc.Landlock(access=tuple(n for n in ACCESS if n != "execute"), ro=("/",))]
    )
    done = box.run(["sh", "-c", "sh -c 'sh -c \"echo >/tmp/minictr-not-made\"'"], stderr=mc.DEVNULL)
    assert done.returncode != 0
    assert not os.path.exists("/tmp/minictr-not-made")
    assert subprocess.run(["true"], check=False).returncode == 0
