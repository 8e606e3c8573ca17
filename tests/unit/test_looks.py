"""What is looked at again and again: cheap answers about a running container."""

from __future__ import annotations

from pathlib import Path

import pytest

from minictr.runtime.looks import frozen


@pytest.mark.parametrize(
    ("v1", "v2", "answer"),
    [
        ("THAWED", "0", False),
        ("FROZEN", "0", True),
        ("FREEZING", "0", True),
        ("THAWED", "1", True),
        (None, "1", True),
        ("FROZEN", None, True),
        (None, None, False),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_one_frozen_group_is_enough(tmp_path: Path, v1: str | None, v2: str | None, answer: bool, order: int) -> None:
    """Of a hybrid host's two, whichever is written down first; a group that is gone says nothing."""
    groups = []
    for version, controller, file, text in ((2, "pids", "cgroup.freeze", v2), (1, "freezer", "freezer.state", v1)):
        directory = tmp_path / controller
        directory.mkdir()
        if text is not None:
            (directory / file).write_text(f"{text}\n")
        groups.append((controller, version, str(directory)))
    assert frozen(groups[::order]) is answer
    assert frozen([("memory", 1, str(tmp_path))]) is False
