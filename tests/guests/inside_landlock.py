"""Runs inside guests with Landlock, and only there: what a container gets from a kernel that has some of its rights."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest

import minictr as mc
from minictr.images.minimal import minimal
from minictr.kernel import landlock
from minictr.rights import ACCESS, NETWORK, SCOPES

MINIMAL_ABI = {"bookworm": 2, "bookworm-backports": 6, "trixie-backports": 7}  # of Linux 6.1, 6.12, 7.3
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc")
SCRIPT = "{ echo >/tmp/made; } 2>&- && echo tmp; { echo >/root/made; } 2>&- && echo root; cat /home/file"


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> mc.Container:
    rootfs = tmp_path_factory.mktemp("image") / "rootfs"
    minimal(str(rootfs), ["sh", "cat", "ls", "true", "sleep"])
    for name in ("home", "root", "tmp"):
        (rootfs / name).mkdir(exist_ok=True)
    (rootfs / "home" / "file").write_text("told\n")
    return mc.Container(rootfs).with_(mc.Tmpfs("/tmp"), mc.Tmpfs("/root"))


def known() -> tuple[str, ...]:
    return tuple(name for name, (_, abi) in ACCESS.items() if abi <= landlock.abi())


def said(box: mc.Container) -> tuple[list[str], str]:
    done = box.run(["sh", "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    return str(done.stdout).split(), str(done.stderr)


def test_the_abi_is_the_kernels() -> None:
    found = landlock.abi()
    assert found >= MINIMAL_ABI[os.environ["GUEST"]]
    assert os.environ["GUEST"] != "bookworm" or found == 2
    assert str(mc.support("landlock")) == f"yes (ABI {found})"


def test_what_it_can_deny_is_denied(box: mc.Container) -> None:
    free, _ = said(box)
    assert free[:2] == ["tmp", "root"] and free[-1] == "told"
    confined, words = said(box.with_(mc.Landlock(SYSTEM, rw=("/tmp", "/dev"), access=known())))
    assert "tmp" in confined and not {"root", "told"} & set(confined)
    assert "/home/file: Permission denied" in words


def test_what_it_cannot_deny_is_refused_by_name(box: mc.Container) -> None:
    """Before anything is touched; --best-effort does without just that."""
    everything = mc.Landlock(SYSTEM, rw=("/tmp", "/dev"), bind=(), connect=(), scopes=tuple(SCOPES), log=True)
    rows = {**ACCESS, **NETWORK, **SCOPES, "log": (0, 7)}
    lacking = [name for name, (_, abi) in rows.items() if abi > landlock.abi()]
    wished = box.with_(everything)
    if not lacking:
        assert "told" not in said(wished)[0]
        return
    with pytest.raises(mc.Unsupported) as caught:
        wished.run(["true"])
    assert sorted(caught.value.parts) == sorted(lacking)
    for name in lacking:
        assert re.search(rf"{name} needs Landlock ABI {rows[name][1]} ", str(caught.value)), caught.value
    start = lambda out: wished.without(*out).run(["sh", "-c", SCRIPT], capture_output=True, text=True)  # noqa: E731
    done, left = mc.best_effort(start, ["landlock"], lambda _: None)
    assert sorted(item.name for item in left) == sorted(f"landlock:{name}" for name in lacking)
    assert "tmp" in done.stdout.split() and "told" not in done.stdout.split()


@pytest.mark.timeout(400)
def test_the_command_line(kept: Callable[..., Any], box: mc.Container) -> None:
    """A whole life under it: who joins later is bound as well."""
    options = [word for path in SYSTEM for word in ("--ro", path)]
    access = ("--landlock-access", "fs:" + ",".join(known()))
    options += ["--rw", "/dev", *access]
    started = kept("run", "-d", "--name", "lab", "--rootfs", box.rootfs, *options, "--", "sleep", "100")
    assert started.returncode == 0, started.stderr
    assert kept("exec", "lab", "cat", "/etc/passwd").returncode == 0
    joined = kept("exec", "lab", "cat", "/home/file")
    assert joined.returncode == 1 and "Permission denied" in joined.stderr
    assert kept("exec", "--without", "landlock", "lab", "cat", "/home/file").stdout == "told\n"
