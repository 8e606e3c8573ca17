"""Which ids of the host are free: by the files of a mount namespace of the test's own, and by the maps of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.kernel import mounts, subids, users
from minictr.kernel.child import Child

CLONE_NEWUSER = 0x10000000  # linux/sched.h
RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6)


def members(ranges: Any) -> set[int]:
    return {number for first, count in ranges for number in range(first, first + count)}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=4), RANGES)
def test_less_is_the_difference(starts: list[tuple[int, int]], busy: list[tuple[int, int]]) -> None:
    ranges = [(20 * place + first, count) for place, (first, count) in enumerate(starts)]  # apart, as subuid(5)'s are
    left = subids.less(ranges, busy)
    assert members(left) == members(ranges) - members(busy)
    assert left == sorted(left)
    assert sum(count for _, count in left) == len(members(left))


@given(RANGES, st.integers(1, 30), st.integers(0, 1 << 64))
def test_a_free_range_is_free(busy: list[tuple[int, int]], count: int, seed: int) -> None:
    first = subids.free_range([(5, 60)], busy, count, seed)
    free = members([(5, 60)]) - members(busy)
    if first < 0:
        assert not any(set(range(start, start + count)) <= free for start in range(70))
    else:
        assert set(range(first, first + count)) <= free


def test_the_seed_chooses() -> None:
    assert {subids.free_range([(0, 40)], [(10, 10)], 10, seed) for seed in range(9)} == {0, 20, 30}
    with pytest.raises(SpecError, match="0 is not a number of ids"):
        subids.free_range([(0, 40)], [], 0)


def bound(place: Path, name: str, text: str) -> None:
    (place / name).write_text(text)
    mounts.bind(str(place / name), f"/etc/{name}").keep()


def test_ranges_of_the_user_containers(in_child: Any, place: Path) -> None:
    def body() -> Any:
        bound(place, "subuid", "alice:100000:65536\ncontainers:500000:1000\ncontainers:700000:5\n")
        bound(place, "subgid", "alice:100000:65536\n")
        taken = subids.taken()["uid"]
        return subids.configured("uid"), subids.configured("gid"), (100000, 65536) in taken, (500000, 1000) in taken

    assert in_child(body) == (((500000, 1000), (700000, 5)), (subids.DEFAULT,), True, False)


def test_the_default_is_nobodys() -> None:
    """Above what useradd and systemd-nspawn give away, below systemd's foreign ids and the sign bit."""
    first, count = subids.DEFAULT
    assert first > max(600100000, 0x6FFFFFFF)
    assert first + count == 0x7FFE0000


def test_users_and_groups_of_the_host_are_taken(in_child: Any, place: Path) -> None:
    def body() -> Any:
        bound(place, "passwd", "root:x:0:0::/:/bin/sh\nlab:x:1900000000:7::/:/bin/sh\nspoilt\nx:y:z:\n")
        bound(place, "group", "root:x:0:\nlab:x:1900000001:\n")
        return [(1900000000, 1) in subids.taken()["uid"], (1900000001, 1) in subids.taken()["gid"]]

    assert in_child(body) == [True, True]


def test_maps_of_processes_are_taken(in_child: Any) -> None:
    def body() -> Any:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, "0 1800000000 10\n10 1800000100 5\n")
            users.write_gid_map(child.pid, "0 1800000200 10\n")
            found = [*subids.live_maps().values()]
        return [(1800000000, 10) in found[0], (1800000100, 5) in found[0], (1800000200, 10) in found[1]], found

    there, found = in_child(body)
    assert there == [True] * 3
    assert (0, 4294967295) not in [*found[0], *found[1]]
    assert (1800000000, 10) not in subids.live_maps()["uid"]


def test_inside_a_user_namespace_only_its_own_ids_are_to_be_had(in_child: Any) -> None:
    def body() -> Any:
        with users.user_namespace(uid_map="0 100000 70000\n", gid_map="0 100000 70000\n") as made:
            users.check(users.lib.mc_setns(made.fileno(), CLONE_NEWUSER), "setns")
        return subids.less([(60000, 20000)], subids.taken()["uid"])

    free = in_child(body)
    assert max(first + count for first, count in free) <= 70000
