"""An id that cannot be told: nobody could name the container again."""

from __future__ import annotations

import os

import pytest

from minictr.cli.entry import told


def test_a_container_whose_id_cannot_be_written_is_removed(run_cli, rootfs, requires, tmp_path):
    requires.root()
    environment = {**os.environ, "MINICTR_ROOT": str(tmp_path / "state")}
    with open("/dev/full", "w") as full:
        done = run_cli("run", "-d", "--rootfs", rootfs, "sleep", "1000", env=environment, stdout=full, stderr=-1)
    assert done.returncode == 125
    assert "write the container's id to standard output: ENOSPC" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not os.listdir(tmp_path / "state" / "containers")


def test_an_error_of_the_kernel_names_what_was_done():
    """Which module and function of minictr, on what, and the errno: never "[Errno 5] Input/output error" alone."""
    from minictr.runtime.removal import remove_tree

    devices = os.open("/dev", os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError) as caught:
            remove_tree("null", devices)
    finally:
        os.close(devices)
    assert told(caught.value) == "runtime.removal.remove_tree null: ENOTDIR (Not a directory)"
