"""The C sources: formatted, and without a warning on both architectures."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest
import sources

pytestmark = [pytest.mark.lint, pytest.mark.beside]

CORE = sources.files(".c", under=("minictr/_core",))
HEADERS = sources.files(".h", under=("minictr/_core",))
PROGRAMS = sources.files(".c", ".h", under=("bench", "tests/security/attempts"))
MACHINES = ("x86_64", "aarch64")
WARNINGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def compiler(machine: str) -> str:
    """gcc for this machine, or the cross compiler for the other one."""
    return "gcc" if machine == platform.machine() else f"{machine.replace('_', '-')}-linux-gnu-gcc"


@pytest.mark.parametrize("path", CORE + HEADERS + PROGRAMS, ids=sources.name)
def test_it_is_formatted(path: Path, requires) -> None:
    tool = requires("clang-format")
    answer = subprocess.run([tool, "--dry-run", "-Werror", str(path)], capture_output=True, text=True, check=False)
    wrong = re.findall(r":(\d+):\d+: error:", answer.stderr)
    assert answer.returncode == 0, f"clang-format -i {sources.name(path)} would change line {', '.join(wrong)}"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("path", CORE + [path for path in PROGRAMS if path.suffix == ".c"], ids=sources.name)
def test_it_compiles_without_a_warning(path: Path, machine: str, tmp_path: Path, requires) -> None:
    if machine != platform.machine() and platform.machine() != "x86_64":
        pytest.skip(f"Debian's cross compiler for {machine} is looked for on x86_64 only")
    gcc = requires(compiler(machine))
    for made in (
        "stub_bytes.inc",
        "monitor_bytes.inc",
        "proxy_bytes.inc",
    ):  # by the build; what is in them does not matter here
        (tmp_path / made).write_text("0\n")
    command = [gcc, "-fsyntax-only", *WARNINGS, f"-I{path.parent}", f"-I{tmp_path}", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
