"""Landlock's mistakes, and kernels that have less of it: what is told, and the table of rights against the kernel's."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from minictr import rights
from minictr.errors import SpecError, StepFailed
from minictr.kernel import capabilities, core, landlock, landlock_abi, seccomp

CREATE_RULESET = 444  # asm-generic/unistd.h
HEADER = Path("/usr/include/linux/landlock.h")


@pytest.fixture(autouse=True)
def _there(requires: Any) -> None:
    requires.landlock()


def test_mistakes(requires: Any, tmp_path: Path) -> None:
    requires.landlock(4)
    for wrong in ({}, {"access": ["read"]}, {"network": ["udp"]}, {"scopes": ["net"]}, {"access": "execute"}):
        with pytest.raises(SpecError, match="landlock"):
            landlock.ruleset(**wrong)
    with landlock.ruleset(["read_file"], ["bind_tcp"]) as rules:
        with pytest.raises(StepFailed, match="landlock path /nosuch: read_file: openat2: ENOENT"):
            rules.allow_path("/nosuch")
        with pytest.raises(StepFailed, match="ELOOP.*magic links"):
            rules.allow_path("/proc/self/exe")
        with pytest.raises(StepFailed, match="landlock_add_rule: EINVAL.*not handled"):
            rules.allow_path(tmp_path, ["execute"])
        with pytest.raises(StepFailed, match="landlock port 80: connect_tcp.*EINVAL.*not handled"):
            rules.allow_port(80, ["connect_tcp"])
        for port in (-1, 65536, "80", True):
            with pytest.raises(SpecError, match="not between 0 and 65535"):
                rules.allow_port(port)
    for call in (lambda: rules.allow_path("/"), lambda: landlock.restrict(rules)):
        with pytest.raises(StepFailed, match="EBADF.*closed"):
            call()


def test_a_ruleset_dropped_unclosed_is_told() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.warns(ResourceWarning, match="Ruleset read_file"):
        landlock.ruleset(["read_file"])
    assert len(os.listdir("/proc/self/fd")) == before


# --- which kernel has what ---


def test_what_an_older_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock_abi, "abi", lambda: 3)
    missing = landlock.lacking(rights.ACCESS, rights.NETWORK, rights.SCOPES, log=True)
    assert list(missing) == ["ioctl_dev", "bind_tcp", "connect_tcp", "abstract_unix_socket", "signal", "log"]
    assert missing["ioctl_dev"] == "ioctl_dev needs Landlock ABI 5 (Linux 6.10), this kernel has ABI 3"
    with pytest.raises(StepFailed, match="ioctl_dev needs Landlock ABI 5"):
        landlock.ruleset(["read_file", "ioctl_dev"])


def test_this_kernel_lacks_what_its_abi_says() -> None:
    tables = {**rights.ACCESS, **rights.NETWORK, **rights.SCOPES, "log": (0, rights.LOG_ABI)}
    missing = landlock.lacking(rights.ACCESS, rights.NETWORK, rights.SCOPES, log=True)
    assert set(missing) == {name for name, (_, abi) in tables.items() if abi > landlock.abi()}


def test_each_right_is_the_kernels_or_is_refused(requires: Any) -> None:
    """The kernel itself takes a ruleset of that right alone, or the right is one that it is said to lack."""
    for name, (_, abi) in rights.ACCESS.items():
        if abi <= landlock.abi():
            landlock.ruleset([name]).close()
        else:
            with pytest.raises(StepFailed, match=f"{name} needs Landlock ABI {abi}"):
                landlock.ruleset([name])


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.ENOSYS, "5.13"), (errno.EOPNOTSUPP, "lsm="), (errno.EPERM, "filter")]
)
def test_a_kernel_without_it(in_child: Any, refusing: Any, number: int, cure: str) -> None:
    def body() -> list[str]:
        capabilities.no_new_privs()
        seccomp.load(refusing(number, CREATE_RULESET))
        found = []
        for call in (landlock.abi, lambda: landlock.ruleset(["execute"])):
            with pytest.raises(StepFailed) as caught:
                call()
            found.append(str(caught.value))
        answer = landlock.probe()["landlock"]
        return [*found, f"{answer.ok} {answer.reason}; {answer.cure}"]

    first, second, probed = in_child(body)
    assert errno.errorcode[number] in first and cure in first
    assert second == first
    assert probed.startswith("False landlock ruleset: ")


def test_probe_tells_the_abi() -> None:
    answer = landlock.probe()["landlock"]
    assert answer
    assert str(answer) == f"yes (ABI {landlock.abi()})"


def test_the_table_is_the_kernels() -> None:
    """Bits that its header names, as far as the one installed here goes; and no bit beyond the table is known."""
    tables = {"ACCESS_FS": rights.ACCESS, "ACCESS_NET": rights.NETWORK, "SCOPE": rights.SCOPES}
    row = re.compile(r"^#define LANDLOCK_(ACCESS_FS|ACCESS_NET|SCOPE)_(\w+)\s+\(1ULL << (\d+)\)", re.MULTILINE)
    found = row.findall(HEADER.read_text()) if HEADER.exists() else []
    assert len(found) >= 13 or not HEADER.exists()
    for kind, name, bit in found:
        assert tables[kind][name.lower()][0] == int(bit)
    for mask in (rights.bits(rights.ACCESS, rights.ACCESS),):
        assert mask == (1 << 16) - 1
    assert core.lib.mc_landlock_abi() == landlock.abi()
