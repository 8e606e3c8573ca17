"""What ``inspect --file-capabilities`` says a file gives, beside what the kernel gives who executes it."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import minictr as mc
from minictr.kernel.capabilities import mask, names
from minictr.runtime.join import exec_run, target_of
from minictr.runtime.privilege import privilege_of, privilege_of_root

KILL, NET_RAW = mask(("KILL",)), mask(("NET_RAW",))
ROOT = 100_000
ROWS = ((0, ROOT, 65_536),)


def attribute(permitted: int, inheritable: int = 0, *, effective: bool = True, rootid: int = 0) -> bytes:
    head = struct.pack("<5I", (0x03000000 if rootid else 0x02000000) | effective, permitted, inheritable, 0, 0)
    return head + (struct.pack("<I", rootid) if rootid else b"")


ATTRIBUTES = {
    "raw": attribute(NET_RAW),
    "kill": attribute(KILL),
    "both": attribute(KILL | NET_RAW, effective=False),
    "inheriting": attribute(0, KILL, effective=False),
    "of-the-namespace": attribute(KILL, rootid=ROOT),
    "of-another": attribute(KILL, rootid=5000),
    "malformed": b"",
}


@pytest.fixture(scope="module")
def root(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a copy of cat for each attribute, one that is set-user-ID, and one that is set-group-ID."""
    from minictr.images.minimal import minimal

    path = tmp_path_factory.mktemp("privilege") / "rootfs"
    minimal(str(path), ("bash", "cat", "sleep"))
    for name, value in ATTRIBUTES.items():
        shutil.copy(path / "usr/bin/cat", path / "usr/bin" / name)
        os.setxattr(path / "usr/bin" / name, "security.capability", value)
    for name, mode, owner in (("user", 0o4755, 0), ("group", 0o2755, 0), ("mapped", 0o6755, ROOT + 7)):
        shutil.copy(path / "usr/bin/cat", path / "usr/bin" / name)
        os.chown(path / "usr/bin" / name, owner, owner)
        (path / "usr/bin" / name).chmod(mode)
    return path


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[mc.Container], mc.Instance]]:
    """``started(box)``: a container of it that sleeps."""
    monkeypatch.setenv("MINICTR_ROOT", str(tmp_path / "state"))
    made: list[mc.Instance] = []

    def start(box: mc.Container) -> mc.Instance:
        made.append(box.start(["sleep", "1000"]))
        return made[-1]

    yield start
    for instance in made:
        instance.remove(force=True)


def got(target: object, program: str) -> tuple[object, ...]:
    """What user 1000 of the container is once it has executed PROGRAM: permitted, effective, euid, egid; or errno."""
    try:
        done = exec_run(target, [program, "/proc/self/status"], user="1000:1000", capture_output=True, text=True)
    except mc.StepFailed as err:
        return (err.errno,)
    rows = dict(line.split(":\t") for line in done.stdout.splitlines())
    ids = (int(rows[row].split()[1]) for row in ("Uid", "Gid"))
    return int(rows["CapPrm"], 16), int(rows["CapEff"], 16), *ids


def said(effect: str, bounding: tuple[str, ...], noroot: bool) -> tuple[object, ...]:
    """The same, as EFFECT tells it."""
    permitted = effective = 0
    uid = gid = 1000
    for part in effect.split("; "):
        words = part.replace(",", "").split()
        if part.startswith("is not executed"):
            return (1 if "EPERM" in part else 22,)
        if words[0] == "gives":
            permitted = mask(words[1:-3] if part.endswith("not yet effective") else words[1:])
            effective = 0 if part.endswith("not yet effective") else permitted
        elif words[:2] == ["becomes", "user"]:
            uid = int(words[2])
            permitted = effective = mask(bounding) if uid == 0 and not noroot else permitted
        elif words[:2] == ["becomes", "group"]:
            gid = int(words[2])
        else:
            assert words[0] == "nothing:"
    return permitted, effective, uid, gid


BOTH = mc.Capabilities(names(KILL | NET_RAW))
SHAPES: dict[str, Callable[[mc.Container], mc.Container]] = {
    "default": lambda box: box,
    "both": lambda box: box.without("no_new_privs").with_(BOTH),
    "kill": lambda box: box.without("no_new_privs").with_(mc.Capabilities(("KILL",))),
    "no_new_privs": lambda box: box.with_(BOTH),
    "noroot": lambda box: box.without("no_new_privs").with_(BOTH, mc.Securebits(("noroot",))),
    "userns": lambda box: box.without("no_new_privs").with_(BOTH, mc.UserNamespace(uid_map=ROWS, gid_map=ROWS)),
    "inheritable": lambda box: box.without("no_new_privs").with_(BOTH.replace(inheritable=("KILL",))),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_says_is_what_the_kernel_does(root: Path, started, shape: str) -> None:
    box = SHAPES[shape](mc.Container(root))
    instance = started(box)
    report = privilege_of(instance)
    assert report.complete and report.terms is not None
    assert {path for path, _ in report.left_out} >= {"/proc", "/sys", "/dev"}
    rows = {row.file.path.rpartition("/")[2]: row.effect for row in report.files}
    assert set(rows) >= {*ATTRIBUTES, "user", "group", "mapped"}
    target = target_of(instance)
    try:
        found = {name: got(target, name) for name in (*ATTRIBUTES, "user", "group", "mapped")}
    finally:
        os.close(target.pidfd)
    bounding = report.terms.bounding or ()
    assert {name: said(rows[name], bounding, report.terms.noroot) for name in found} == found
    # not the same everywhere, or nothing would be shown
    assert found["user"][2:3] == ((0,) if shape in ("both", "kill", "inheritable", "noroot") else (1000,)), found
    assert found["raw"] == {"default": (1,), "kill": (1,), "no_new_privs": (0, 0, 1000, 1000)}.get(
        shape, (NET_RAW, NET_RAW, 1000, 1000)
    )


def test_of_one_that_is_over_it_is_what_was_asked_for(root: Path, started) -> None:
    instance = started(SHAPES["both"](mc.Container(root)))
    running = privilege_of(instance)
    instance.stop(timeout=0)
    over = privilege_of(instance)
    assert [(row.file, row.effect) for row in over.files] == [(row.file, row.effect) for row in running.files]
    assert over.left_out == ()  # nothing is mounted in it any more


def test_a_directory_is_judged_by_nothing(root: Path) -> None:
    report = privilege_of_root(str(root))
    assert report.terms is None and {row.effect for row in report.files} == {""}


def test_the_reason_is_told_where_execve_refuses(root: Path) -> None:
    for program, told in (
        ("raw", "want NET_RAW: --cap-add NET_RAW, or setcap -r"),
        ("malformed", "cannot make sense of the attribute: setcap -r it"),
    ):
        with pytest.raises(mc.CommandNotExecutable, match=told):
            mc.Container(root).run([program, "/dev/null"])
    assert mc.Container(root).with_(BOTH).run(["raw", "/dev/null"]).returncode == 0


def test_the_command_line(root: Path, started, run_cli) -> None:
    instance = started(mc.Container(root, name="box"))
    done = run_cli("inspect", "--file-capabilities", "box")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["PATH", "HAS", "EXECUTED", "HERE"]
    told = "is not executed: EPERM, the bounding set is without NET_RAW"
    assert ["/usr/bin/raw", "cap_net_raw=ep", told] in [line.split(maxsplit=2) for line in lines]
    assert "set-user-ID 0, set-group-ID 0" not in done.stdout and "note: what is mounted there" in done.stderr
    (one,) = json.loads(run_cli("inspect", "--file-capabilities", "--format", "json", "box").stdout)
    assert one["complete"] and one["terms"]["no_new_privs"] and "NET_RAW" not in one["terms"]["bounding"]
    raw = next(row for row in one["files"] if row["path"].endswith("/raw"))
    assert raw["capabilities"] == {
        "permitted": ["NET_RAW"], "inheritable": [], "effective": True, "revision": 2, "rootid": 0,
    }  # fmt: skip
    both = run_cli("inspect", "--file-capabilities", "box", f"{root}/")
    assert both.stdout.startswith("box:\n") and f"\n\n{root}/:\nPATH" in both.stdout
    assert instance.label in run_cli("inspect", "--format", "{{.Name}}", "box").stdout
    for wrong in (("nosuch",), ("--diff", "box"), (), ("--format", "{{.Id}}", "box"), (f"{root}/nosuch/",)):
        done = run_cli("inspect", "--file-capabilities", *wrong)
        assert done.returncode == 125 and done.stderr.count("\n") == 1 and done.stderr.startswith("minictr inspect: ")
