"""The inputs of the workloads: the same bytes each time, of the kind that is promised. No root."""

from __future__ import annotations

import lzma
import os
import re
from pathlib import Path

import pytest

from bench.workloads import inputs


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    for make in (inputs.binary, inputs.noise):
        digests = {make(str(tmp_path / name), 3 * inputs.MIB + 77) for name in "ab"}
        assert digests == {inputs.digest(str(tmp_path / "a"))}
        assert (tmp_path / "b").stat().st_size == 3 * inputs.MIB + 77


def test_a_binary_compresses_and_noise_does_not(tmp_path: Path) -> None:
    shares = []
    for make in (inputs.binary, inputs.noise):
        make(str(tmp_path / "x"), inputs.MIB)
        shares.append(len(lzma.compress((tmp_path / "x").read_bytes(), preset=1)) / inputs.MIB)
    assert 0.2 < shares[0] < 0.6 and shares[1] > 0.99


def test_a_site_is_exact_linked_and_the_same_each_time(tmp_path: Path) -> None:
    sites = [inputs.site(str(tmp_path / name), 300, 2 * inputs.MIB) for name in "ab"]
    assert sites[0] == sites[1]
    found = {str(it.relative_to(tmp_path / "a")): it for it in (tmp_path / "a").rglob("*") if it.is_file()}
    assert len(found) == sites[0].files == 300
    sizes = sorted(it.stat().st_size for it in found.values())
    assert sum(sizes) == sites[0].size == 2 * inputs.MIB
    assert sizes[-1] > 20 * sizes[len(sizes) // 2], "a few large files"
    assert reachable(tmp_path / "a") == set(found)
    assert inputs.tree_digest(str(tmp_path / "a")) == sites[0].digest


def test_a_site_too_small_for_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few for"):
        inputs.site(str(tmp_path / "a"), 300, 1000)


def test_one_byte_or_one_name_is_another_digest(tmp_path: Path) -> None:
    inputs.site(str(tmp_path), 60, inputs.MIB)
    before, victim = inputs.tree_digest(str(tmp_path)), tmp_path / "index.html"
    victim.write_bytes(victim.read_bytes().swapcase())
    changed = inputs.tree_digest(str(tmp_path))
    victim.rename(tmp_path / "index.htm")
    assert len({before, changed, inputs.tree_digest(str(tmp_path))}) == 3


def reachable(site: Path) -> set[str]:
    """What a client finds that follows links from the index."""
    ahead, found = ["index.html"], set()
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            if name.endswith("index.html"):
                links = re.findall(rb'href="([^"]+)"', (site / name).read_bytes())
                ahead += [os.path.join(os.path.dirname(name), link.decode()) for link in links]
    return found
