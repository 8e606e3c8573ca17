"""What the README shows works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import sources

README = sources.ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def test_the_python_examples_run(own_rootfs: Path, tmp_path: Path) -> None:
    """All of them, in order, as one program."""
    own_rootfs.rename(tmp_path / "demo-root")
    program = "\n".join(blocks("python"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("0 lab\n")
    assert "minictr-init" in answer.stdout


def test_the_command_lines_run(tmp_path: Path, minictr_cli: list[str]) -> None:
    """All that need no terminal, in order, in one directory."""
    (shown,) = (block for block in blocks("sh") if "minictr" in block and "make" not in block)
    lines = [line for line in shown.splitlines() if " -it " not in line]
    function = f'minictr() {{ {" ".join(minictr_cli)} "$@"; }}\nset -e\n'
    environment = {**os.environ, "PYTHONPATH": str(sources.ROOT)} if len(minictr_cli) > 1 else None
    answer = subprocess.run(
        ["sh", "-c", function + "\n".join(lines)],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "\n2\n" in f"\n{answer.stdout}"
