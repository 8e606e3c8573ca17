"""No further user namespace inside: tried by unshare, clone and clone3, as root with every capability."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import minictr as mc
from minictr.features.capabilities import CAPABILITIES

LIMIT = Path("/proc/sys/user/max_user_namespaces")
MAPS = ((0, 0, 1 << 16),)  # root is mapped to root: it has a row, so that nothing but the limit forbids one
TRY = """
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tell(long result)
{
    if (result == 0)
        _exit(0);
    return puts(result > 0 ? "made" : strerrorname_np(errno)), 0;
}

int main(void)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    tell(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    tell(syscall(SYS_clone3, &args, sizeof(args)));
    puts(unshare(CLONE_NEWUSER) ? strerrorname_np(errno) : "made");
    return 0;
}
"""


@pytest.fixture(scope="session")
def trying(lab: Path, tmp_path_factory: pytest.TempPathFactory, requires) -> Path:
    """``lab`` with a program that tries each way, and says what came of it."""
    path = tmp_path_factory.mktemp("trying")
    (path / "try.c").write_text(TRY)
    program = lab / "bin" / "try"
    subprocess.run([requires("gcc"), "-O1", "-Wall", "-static", "-o", program, path / "try.c"], check=True)
    return lab


@pytest.fixture
def free(trying: Path) -> mc.Container:
    """With nothing of the default profile in the way: every capability, no filter."""
    box = mc.Container(trying).without("seccomp", "no_new_privs", "readonly_paths")
    return box.with_(mc.Capabilities(CAPABILITIES, drop_only=True))


def without_resource(box: mc.Container) -> mc.Container:
    kept = tuple(name for name in CAPABILITIES if name != "SYS_RESOURCE")
    return box.with_(mc.Capabilities(kept, drop_only=True))


@pytest.fixture(params=["host", "mapped", "auto"])
def way(request: pytest.FixtureRequest, free: mc.Container) -> tuple[mc.Container, list[str]]:
    """A container that may make user namespaces, and what it is told once it may not: clone, clone3, unshare."""
    if request.param == "host":
        return free, ["EPERM", "ENOSYS", "EPERM"]
    user = mc.UserNamespace(MAPS, MAPS) if request.param == "mapped" else mc.UserNamespace(auto=65536)
    extra = (mc.Idmap(),) if request.param == "auto" else ()
    return without_resource(free).with_(user, *extra), ["ENOSPC"] * 3


def test_on_and_off(way: tuple[mc.Container, list[str]], sh) -> None:
    box, refused = way
    before = LIMIT.read_text()
    assert sh(box, "try").split() == ["made"] * 3
    closed = box.with_(mc.DisableUserns())
    assert sh(closed, "try").split() == refused
    assert LIMIT.read_text() == before


def test_with_a_user_of_no_privilege(way: tuple[mc.Container, list[str]], sh) -> None:
    """Whom user namespaces are for."""
    box, refused = way
    for privileges in ((), (mc.NoNewPrivs(),)):
        user = box.with_(mc.Identity("1000:1000"), *privileges)
        assert sh(user, "try").split() == ["made"] * 3
        assert sh(user.with_(mc.DisableUserns()), "try").split() == refused


def test_root_inside_cannot_undo_it(way: tuple[mc.Container, list[str]], sh) -> None:
    """Where the limit is the container's: it cannot be raised. Where it is the host's it is not touched at all."""
    box, refused = way
    closed = box.with_(mc.DisableUserns())
    if refused[0] == "EPERM":
        assert sh(closed, f"cat {LIMIT}") == LIMIT.read_text().strip()
        return
    assert "denied" in sh(closed, f"(echo 100 > {LIMIT}) 2>&1; cat {LIMIT}")
    assert sh(closed, f"cat {LIMIT}; try").split() == ["0", *refused]


def test_who_could_undo_it_is_not_started(free: mc.Container) -> None:
    for box in (free, free.without("capabilities")):
        with pytest.raises(mc.SpecError, match="CAP_SYS_RESOURCE"):
            box.with_(mc.UserNamespace(MAPS, MAPS), mc.DisableUserns()).run(["true"])


def test_a_limit_that_does_not_hold_ends_the_start(free: mc.Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried before the program runs: with the write left out, the trial makes one, and no program is started."""
    from minictr.features.disable_userns import DisableUserns

    steps = DisableUserns.steps
    monkeypatch.setattr(DisableUserns, "steps", lambda self, ctx: (one for one in steps(self, ctx) if one.phase > 3))
    box = without_resource(free).with_(mc.UserNamespace(MAPS, MAPS), mc.DisableUserns())
    calls = [step.call for step in box.plan(["true"]) if step.feature == "disable_userns"]
    assert calls == ["verify_no_userns"]
    with pytest.raises(mc.StepFailed, match="a user namespace could be made inside all the same: refused"):
        box.run(["true"])


def test_a_program_that_joins_is_under_it_too(way: tuple[mc.Container, list[str]], inside) -> None:
    from minictr.runtime.join import exec_run

    box, refused = way
    target = inside(box.with_(mc.DisableUserns()))
    assert exec_run(target, ["try"], capture_output=True, text=True).stdout.split() == refused
    target = inside(box)
    assert exec_run(target, ["try"], capture_output=True, text=True).stdout.split() == ["made"] * 3


def test_its_filter_is_below_the_programs_own(free: mc.Container, status) -> None:
    plain = mc.Container(free.rootfs)
    before, after = (int(status(box).get("Seccomp_filters", "0")) for box in (plain, plain.with_(mc.DisableUserns())))
    assert after == before + 1
