"""Options about seccomp -> Spec, without a kernel."""

from __future__ import annotations

import pytest

from minictr.cli import options
from minictr.cli.build import build
from minictr.cli.fastparse import parse
from minictr.errors import SpecError
from minictr.spec import Spec


def spec(line: str) -> Spec:
    opts, command = parse([*line.split(), "--rootfs", "/image", "--", "cmd"], options.TABLES["run"])
    return build(opts, command, False)


@pytest.mark.parametrize(
    ("line", "program", "flags"),
    [
        ("", "default", ()),
        ("--profile docker", "docker", ()),
        ("--profile lxc", "lxc", ()),
        ("--security-opt seccomp=docker", "docker", ()),
        ("--security-opt seccomp:strict", "strict", ()),
        ("--seccomp-log", "default", ("log",)),
        ("--profile bare --security-opt seccomp=lxc --seccomp-log", "lxc", ("log",)),
        ("--security-opt seccomp=unconfined --security-opt seccomp=docker", "docker", ()),
    ],
)
def test_filters_by_name(line, program, flags):
    found = spec(line).get("seccomp")
    assert (found.program, found.flags) == (program, flags)


@pytest.mark.parametrize("line", ["--profile bare", "--security-opt seccomp=unconfined", "--privileged"])
def test_no_filter(line):
    assert "seccomp" not in spec(line).names
    with pytest.raises(SpecError, match="--seccomp-log: there is no filter"):
        spec(f"{line} --seccomp-log")


def test_a_filter_from_a_file(tmp_path):
    """Docker's conditions are compared with the capabilities that are kept."""
    path = tmp_path / "profile.json"
    rule = '{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}'
    path.write_text(f'{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rule}]}}')
    found = spec(f"--security-opt seccomp={path}").get("seccomp")
    assert (found.source, str(found.program.explain("mount").action)) == ("profile.json", "errno EPERM")
    found = spec(f"--security-opt seccomp={path} --cap-add SYS_ADMIN").get("seccomp")
    assert str(found.program.explain("mount").action) == "allow"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "is no JSON"), (b"\xff\xfe", "not UTF-8"), (b"{}", "defaultAction is missing"), (None, "No such file")],
)
def test_a_file_that_is_no_profile(tmp_path, content, words):
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=words) as caught:
        spec(f"--security-opt seccomp={path}")
    assert str(caught.value).startswith(f"--security-opt seccomp={path}: ")
