"""Capabilities and securebits of a container, as its program finds them: each with the wish and without."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from joined import said

import minictr as mc
from minictr.features.capabilities import CAPABILITIES, ordered
from minictr.kernel import capabilities
from minictr.kernel.capabilities import Sets, mask

SETS = {
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}
KILL, CHOWN, NET_RAW = ("KILL",), ("CHOWN",), ("NET_RAW",)


def found(rows: dict[str, str]) -> dict[str, int]:
    return {name: int(rows[row], 16) for name, row in SETS.items()}


def wanted(**sets: tuple[str, ...]) -> dict[str, int]:
    return {name: mask(sets.get(name, ())) for name in SETS}


# uid 0, then 1000: what execve leaves (capabilities(7), "Transformation of capabilities during execve")
@pytest.mark.parametrize(
    ("wish", "root", "user"),
    [
        ({"bounding": KILL}, {"bounding": KILL, "permitted": KILL, "effective": KILL}, {"bounding": KILL}),
        ({"bounding": ()}, {}, {}),
        (
            {"bounding": KILL + CHOWN, "inheritable": CHOWN},
            {"bounding": KILL + CHOWN, "inheritable": CHOWN, "permitted": KILL + CHOWN, "effective": KILL + CHOWN},
            {"bounding": KILL + CHOWN, "inheritable": CHOWN},
        ),
        (
            {"bounding": KILL, "inheritable": KILL, "ambient": KILL},
            dict.fromkeys(SETS, KILL),
            dict.fromkeys(SETS, KILL),
        ),
    ],
)
@pytest.mark.parametrize("who", ["0", "1000"])
def test_each_set_is_as_it_was_wished(box, status, who, wish, root, user) -> None:
    which = box.with_(mc.Capabilities(**wish), mc.Identity(who))
    assert found(status(which)) == wanted(**(root if who == "0" else user))


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[mc.Container], Sets]]:
    """``held(box)``: the sets with which its program is going to be executed, as the kernel shows them."""
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    made: list[mc.Instance] = []

    def look(box: mc.Container) -> Sets:
        made.append(box.create(["true"]))
        return mc.isolation(made[-1]).capabilities

    yield look
    for instance in made:
        instance.remove(force=True)


@pytest.mark.parametrize("effective", [(), KILL])
def test_effective_and_permitted_are_told_apart_until_execve(box, held, effective) -> None:
    wish = mc.Capabilities(KILL + CHOWN, effective=effective, permitted=KILL)
    assert held(box.with_(wish)) == Sets(effective, KILL, (), ordered(KILL + CHOWN), ())


def test_a_user_and_noroot_begin_with_what_execve_leaves(box, held, status) -> None:
    wish = mc.Capabilities(KILL + CHOWN, inheritable=KILL, ambient=KILL)
    every = Sets(KILL, KILL, KILL, ordered(KILL + CHOWN), KILL)
    assert held(box.with_(wish)).effective == ordered(KILL + CHOWN)
    for which in (box.with_(wish, mc.Identity("1000")), box.with_(wish, mc.Securebits(("noroot",)))):
        assert held(which) == every
        assert found(status(which)) == dict.fromkeys(SETS, mask(KILL)) | {"bounding": mask(KILL + CHOWN)}


def test_without_the_wish_they_are_the_callers(box, status) -> None:
    mine = capabilities.get()
    rows = found(status(box.without("capabilities")))
    assert {name: rows[name] for name in SETS} == {name: mask(getattr(mine, name)) for name in SETS}


def test_what_is_added_for_a_user_is_his(lab, run_cli) -> None:
    """podman's way: docker leaves a user nothing of --cap-add. The kernel opens a raw socket for NET_RAW alone."""

    def opens(*options: str) -> bool:
        done = run_cli("run", "--rootfs", lab, *options, "--", "probe", "raw-socket")
        assert done.stdout.startswith("ok") or "not permitted" in done.stdout + done.stderr, done
        return bool(done.stdout.startswith("ok"))

    assert opens("--cap-add", "NET_RAW", "-u", "1000") and opens("--cap-add", "NET_RAW", "-u", "alice")
    assert opens("--cap-add", "NET_RAW") and not opens() and not opens("-u", "1000")
    assert not opens("--cap-add", "KILL", "-u", "1000")
    assert opens("--profile", "lxc") and not opens("--profile", "lxc", "-u", "1000")
    assert opens("--profile", "lxc", "-u", "1000", "--cap-add", "13")


def test_what_is_added_for_a_user_who_joins(box, inside) -> None:
    target = inside(box)
    for options, bits in (({"user": "1000"}, 0), ({"user": "1000", "cap_add": ("SYS_NICE",)}, mask(("SYS_NICE",)))):
        rows = dict(line.split(":") for line in said(target, "exec cat /proc/self/status", **options).splitlines())
        assert int(rows["CapEff"], 16) == int(rows["CapAmb"], 16) == bits


# --- numbers ---

NEXT = capabilities.last_cap() + 1


def test_a_capability_of_a_later_kernel_ends_the_start(box, inside, run_cli, lab) -> None:
    last = f"cap_{NEXT}: this kernel's last capability is {NEXT - 1}"
    wish = mc.Capabilities(("KILL", str(NEXT)))
    with pytest.raises(mc.Unsupported, match=last) as caught:
        box.with_(wish).run(["true"])
    assert set(caught.value.parts) == {f"cap_{NEXT}"}
    with pytest.raises(mc.Unsupported, match=last):
        said(inside(box), "true", cap_add=(str(NEXT),))
    done = run_cli("run", "--rootfs", lab, "--cap-add", f"CAP_{NEXT}", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1) and last in done.stderr
    assert box.with_(mc.Capabilities(("KILL", str(NEXT - 1)))).run(["true"]).returncode == 0


def test_best_effort_leaves_out_that_one_only(lab, run_cli) -> None:
    options = ("--cap-drop", "ALL", "--cap-add", "kill", "--cap-add", str(NEXT), "--best-effort", "capabilities")
    done = run_cli("run", "--rootfs", lab, *options, "--", "cat", "/proc/self/status")
    rows = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert int(rows["CapPrm"], 16) == int(rows["CapBnd"], 16) == mask(KILL), done
    assert f"capabilities:cap_{NEXT} is left out" in done.stderr


def test_all_but_a_few_asks_for_nothing_that_is_not_there(box, status) -> None:
    every = int(status(box.with_(mc.Capabilities(CAPABILITIES, drop_only=True)))["CapBnd"], 16)
    assert every == mask(capabilities.bounding())
    with pytest.raises(mc.Unsupported, match="last capability"):
        box.with_(mc.Capabilities((*CAPABILITIES, "63"), drop_only=True)).run(["true"])


# --- securebits ---


def bits_of(box: mc.Container, sh) -> str:
    return next(line for line in sh(box, "setpriv --dump").splitlines() if line.startswith("Securebits"))


@pytest.fixture(scope="session")
def with_setpriv(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which a program can tell its own securebits."""
    from minictr.images.minimal import minimal

    path = tmp_path_factory.mktemp("image") / "setpriv"
    minimal(str(path), ("bash", "setpriv", "grep", "cat", "sleep"))
    shutil.copy(lab / "bin" / "suid", path / "usr" / "bin" / "suid")
    os.chmod(path / "usr" / "bin" / "suid", 0o4755)
    return path


@pytest.mark.parametrize("profile", ["default", "docker", "lxc", "bare"])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_the_program_has_the_securebits_and_no_setpcap_for_them(with_setpriv, sh, profile, user) -> None:
    box = mc.Container(with_setpriv, features=(*mc.features.PROFILES[profile],)).with_(mc.Identity(user))
    assert bits_of(box, sh).endswith(": [none]")
    box = box.with_(mc.Securebits(("noroot", "noroot_locked", "no_cap_ambient_raise")))
    if profile == "bare":
        if user == "0":
            assert bits_of(box, sh).endswith(": noroot,noroot_locked,0x40")
        return
    box = box.with_(mc.Capabilities(KILL + CHOWN, inheritable=KILL, ambient=KILL))
    assert bits_of(box, sh).endswith(": noroot,noroot_locked,0x40")
    rows = dict(line.split() for line in sh(box, "grep ^Cap /proc/self/status").splitlines())
    assert {row: int(value, 16) for row, value in rows.items()} == dict.fromkeys(rows, mask(KILL)) | {
        "CapBnd:": mask(KILL + CHOWN)
    }


def test_noroot_takes_what_being_root_gives(box, sh) -> None:
    """A set-user-ID program, and root's own: both are user 0, and neither has a capability."""
    wide = box.without("no_new_privs").with_(mc.Capabilities((*KILL, *NET_RAW)))

    def opens(which: mc.Container, program: str) -> bool:
        return which.run([program, "raw-socket"], capture_output=True, text=True).stdout.startswith("ok")

    for user, program in (("0", "probe"), ("1000", "suid")):
        which = wide.with_(mc.Identity(user))
        assert opens(which, program)
        assert not opens(which.with_(mc.Securebits(("noroot",))), program)
        assert opens(which.with_(mc.Securebits(("no_setuid_fixup",))), program)
    assert not opens(wide.with_(mc.Identity("1000")), "probe")


def test_securebits_come_along_to_who_joins(with_setpriv, sh, inside) -> None:
    box = mc.Container(with_setpriv).with_(mc.Securebits(("noroot", "noroot_locked")))
    target = inside(box)
    assert "Securebits: noroot,noroot_locked" in said(target, "setpriv --dump")
    assert "Securebits: [none]" in said(target, "setpriv --dump", without=("securebits",))
    assert "Securebits: [none]" in said(target, "setpriv --dump", privileged=True)


def test_a_lock_of_the_callers_ends_the_start(box) -> None:
    def body() -> tuple[int | None, bool]:
        capabilities.set_securebits("noroot_locked")
        with pytest.raises(mc.StepFailed, match=r"feature securebits\): needs CAP_SETPCAP, a bit that") as caught:
            box.with_(mc.Securebits(("noroot",))).run(["true"])
        return caught.value.errno, box.with_(mc.Securebits(("noroot_locked",))).run(["true"]).returncode == 0

    with ThreadPoolExecutor(1) as pool:  # they are a thread's
        assert pool.submit(body).result() == (1, True)
    assert capabilities.securebits() == ()


def test_root_of_a_user_namespace_has_them(with_setpriv, sh) -> None:
    rows = ((0, 100_000, 65_536),)
    box = mc.Container(with_setpriv).with_(mc.UserNamespace(uid_map=rows, gid_map=rows), mc.Securebits(("noroot",)))
    assert bits_of(box, sh).endswith(": noroot")
    assert bits_of(box.without("securebits"), sh).endswith(": [none]")


def test_securebits_and_sets_are_the_same_by_what_an_earlier_exec_compiled(
    with_setpriv, run_cli, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    options = ("--securebits", "+noroot", "--cap-add", "KILL", "-u", "1000")
    assert (
        run_cli("run", "-d", "--name", "web", "--rootfs", with_setpriv, *options, "--", "sleep", "1000").returncode == 0
    )
    try:
        first, second = (run_cli("exec", "web", "setpriv", "--dump").stdout for _ in range(2))
        assert first == second and "Securebits: noroot\n" in first and "Ambient capabilities: kill\n" in first
    finally:
        run_cli("rm", "-f", "web")
