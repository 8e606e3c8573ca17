"""Labels of security modules: what is written, where, and what refuses to be written.

Where a module is not live (most machines) the kernel refuses at the last moment, so the way there is seen in full; what
a label then does is shown in guests (tests/guests/inside_apparmor.py, inside_selinux.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minictr as mc
from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import apparmor, labels, ops, selinux
from minictr.kernel.core import check, lib

LAB = "lab_u:lab_r:lab_t:s0:c1,c2"


# --- what is written, and where ---


@pytest.mark.parametrize(
    ("call", "path", "written"),
    [
        ('apparmor.exec_label("lab")', "thread-self/attr/apparmor/exec", "exec lab"),
        ('apparmor.exec_label("&lab")', "thread-self/attr/apparmor/exec", "stack lab"),
        (f'selinux.exec_context("{LAB}")', "thread-self/attr/exec", LAB),
    ],
)
def test_one_write_to_the_threads_own_file_by_a_verified_way(
    requires: Any, tmp_path: Path, call: str, path: str, written: str
) -> None:
    """As strace(1) sees it: /proc is a procfs, no mount is crossed, no magic link followed, one write."""
    trace = tmp_path / "trace"
    program = f"from minictr.kernel import apparmor, selinux; {call}"
    command = [requires("strace"), "-s", "200", "-o", trace, "-e", "trace=openat2,fstatfs,write,pread64"]
    subprocess.run([*command, sys.executable, "-P", "-c", program], capture_output=True, timeout=60, check=False)
    rows = trace.read_text().splitlines()
    begin = next(i for i, row in enumerate(rows) if '"/proc"' in row and "RESOLVE_NO_SYMLINKS" in row)
    assert "PROC_SUPER_MAGIC" in rows[begin + 1]
    opened = rows[begin + 2]
    assert f'"{path}"' in opened
    assert set(re.findall(r"RESOLVE_\w+", opened)) == {"RESOLVE_BENEATH", "RESOLVE_NO_XDEV", "RESOLVE_NO_MAGICLINKS"}
    if "ENOENT" in opened:  # this kernel does not know AppArmor at all
        assert "apparmor" in path
        return
    assert "PROC_SUPER_MAGIC" in rows[begin + 3]
    assert f'"{written}", {len(written)})' in rows[begin + 4]


def attributes() -> str:
    """The directory of the calling thread's attributes, without a link."""
    return os.path.realpath("/proc/thread-self/attr")


def bound(what: str, where: str) -> None:
    check(lib.mc_mount(os.fsencode(what), os.fsencode(where), b"", 0x1000, b""), "mount")  # MS_BIND


def asked() -> int:
    """The errno of asking for a context."""
    try:
        selinux.exec_context(LAB)
    except StepFailed as err:
        return err.errno or 0
    return 0


def test_what_lies_over_proc_is_not_written_to(in_child: Any, place: Path) -> None:
    """CVE-2019-16884: an image's own /proc, with a file where the label would go."""

    def body() -> tuple[int, str]:
        (place / "thread-self" / "attr").mkdir(parents=True)
        (place / "thread-self" / "attr" / "exec").write_text("")
        bound(str(place), "/proc")
        number = asked()
        return number, (place / "thread-self" / "attr" / "exec").read_text()

    assert in_child(body) == (124, "")  # EMEDIUMTYPE


@pytest.mark.parametrize("over", ["a file", "a directory", "another file of procfs"])
def test_what_lies_over_a_part_of_proc_is_not_written_to(in_child: Any, place: Path, over: str) -> None:
    """CVE-2019-19921, CVE-2025-52881: no mount is crossed, be it a procfs too."""

    def body() -> tuple[int, str]:
        if over == "a directory":
            (place / "exec").write_text("")
            bound(str(place), attributes())
            target = place / "exec"
        else:
            target = place / "file" if over == "a file" else Path(f"{attributes()}/../comm").resolve()
            if over == "a file":
                target.write_text("")
            bound(str(target), f"{attributes()}/exec")
        before = target.read_text()
        number = asked()
        return number, "" if target.read_text() == before else target.read_text()

    assert in_child(body) == (18, "")  # EXDEV


def test_a_link_in_the_place_of_proc_is_not_followed(in_child: Any, place: Path) -> None:
    """A root in which /proc is a link, entered by who calls."""

    def body() -> int:
        (place / "other").mkdir()
        (place / "proc").symlink_to("other")
        bound("/proc", str(place / "other"))
        os.chroot(place)
        return asked()

    assert in_child(body) == 40  # ELOOP


def test_a_difference_names_no_system_call() -> None:
    """None failed: what was read back is not what was asked for. (0 is read(2) on x86.)"""
    failed = ops.what_failed("verify_label", -1, "apparmor lab")
    assert failed == "verify label apparmor lab"
    with pytest.raises(StepFailed, match=r"^verify ids: EPERM"):
        ops.execute("verify_ids", uid=os.getuid() + 1, gid=os.getgid(), groups=b"")


# --- where a module is not live ---


def live(module: Any) -> bool:
    return bool(module.enabled())


@pytest.mark.parametrize(
    ("module", "feature"),
    [(apparmor, mc.AppArmor("lab")), (selinux, mc.SELinux(LAB))],
    ids=["apparmor", "selinux"],
)
def test_asking_without_the_module_says_why_and_what_would_help(module: Any, feature: Any) -> None:
    if live(module):
        pytest.skip(f"{feature.name} is live here")
    assert module.current() is None
    assert module.current(os.getpid()) is None
    answer = mc.support(feature.name)
    assert not answer
    assert answer == mc.supports()[feature.name] == module.probe()[feature.name]
    assert "live" in answer.reason or "policy" in answer.reason
    assert f"security={feature.name}" in answer.cure
    with pytest.raises(Unsupported) as caught:
        mc.Container(features=(feature,)).run(["/bin/true"])
    assert (caught.value.feature, caught.value.reason, caught.value.cure) == (feature.name, answer.reason, answer.cure)


def test_the_words_for_a_list_of_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labels, "SECURITYFS", str(tmp_path))
    assert labels.active() == ()
    (tmp_path / "lsm").write_text("capability,landlock,yama")
    assert labels.active() == ("capability", "landlock", "yama")
    assert labels.told() == "the security modules of this kernel are capability, landlock, yama"


# --- what is read ---


def test_profiles_and_their_modes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "profiles"
    monkeypatch.setattr(apparmor, "PROFILES", str(path))
    monkeypatch.setattr(apparmor, "enabled", lambda: True)
    with pytest.raises(StepFailed, match="ENOENT.*mount -t securityfs"):
        apparmor.profiles()
    apparmor.check("not-ours-to-see")
    path.write_text("docker-default (enforce)\n/usr/bin/man (complain)\na (b) c (unconfined)\nplain//child (kill)\n")
    assert apparmor.profiles() == {
        "docker-default": "enforce",
        "/usr/bin/man": "complain",
        "a (b) c": "unconfined",
        "plain//child": "kill",
    }
    for name in ("docker-default", "&docker-default", "a (b) c", "unconfined", ":other:profile"):
        apparmor.check(name)
    with pytest.raises(StepFailed, match="apparmor profile docker: ENOENT.*apparmor_parser -r FILE"):
        apparmor.check("docker")


def test_what_the_kernel_says_confines_a_process() -> None:
    split, is_ = apparmor.split, apparmor.Confinement
    assert split("unconfined") == is_("unconfined")
    assert split("a//&b (mixed)") == is_("a//&b", "mixed")
    assert str(split("x (y) (enforce)")) == "x (y) (enforce)"


@pytest.mark.parametrize("name", ["", "&", " a", "a\0"])
def test_no_profile_has_such_a_name(name: str) -> None:
    with pytest.raises(SpecError):
        apparmor.exec_label(name)


@pytest.mark.parametrize("context", ["", "a b", "a:b:c\n"])
def test_no_context_looks_like_that(context: str) -> None:
    with pytest.raises(SpecError):
        selinux.exec_context(context)
    with pytest.raises(SpecError):
        selinux.mount_option(context.replace("a b", 'a"b'))


def test_levels_hold_commas_so_the_option_is_quoted() -> None:
    assert selinux.mount_option(LAB) == f'context="{LAB}"'


def test_the_hosts_contexts_for_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, own, policy = tmp_path / "config", tmp_path / "contexts", tmp_path / "lab"
    monkeypatch.setattr(selinux, "CONFIG", str(config))
    monkeypatch.setattr(selinux, "CONTEXTS", (str(own), f"{tmp_path}/{{policy}}"))
    assert selinux.container_contexts() == {}
    config.write_text("# SELINUXTYPE=other\nSELINUX=enforcing\nSELINUXTYPE=lab\n")
    policy.write_text('process = "a:b:c:s0"\ncontent = "a:b:d"\nfile = "a:object_r:f:s0"\n')
    assert selinux.container_contexts() == {"process": "a:b:c:s0", "file": "a:object_r:f:s0"}
    own.write_text('process = "x:y:z"\n')
    assert selinux.container_contexts() == {"process": "x:y:z"}
