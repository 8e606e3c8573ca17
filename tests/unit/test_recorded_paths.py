"""Rights over many paths, merged: what was used stays allowed, and nothing becomes writable by it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minictr.rights import ACCESS, READ
from minictr.runtime.observed.paths import MANY, covers, rules_of, stable

NAMES = st.sampled_from(["usr", "etc", "a", "b", "proc", "12", "lib", "dev", "pts", "0", "tmp"])
PATHS = st.lists(NAMES, max_size=4).map(lambda parts: "/" + "/".join(parts))
RIGHTS = st.sets(st.sampled_from(list(ACCESS)), min_size=1)


@given(st.dictionaries(PATHS, RIGHTS, max_size=20))
def test_all_that_was_used_is_allowed_and_nothing_else_is_writable(rights):
    ro, rw, rules = rules_of(rights)
    for path, names in rights.items():
        if any(covers(top, path) for top in rw):
            continue
        assert names <= set(READ), path
        given = set(READ) if any(covers(top, path) for top in ro) else set()
        for top, extra in rules:
            given |= set(extra) if covers(top, path) else set()
        assert names <= given, path
    assert set(rw) <= {stable(path) for path, names in rights.items() if not names <= set(READ)}


def test_installed_files_are_named_by_their_second_level():
    paths = ("/usr/lib/x/liba.so", "/usr/bin/env", "/lib64/ld.so", "/etc/passwd")
    read = {path: {"read_file"} for path in paths}
    assert rules_of(read)[0] == ("/etc/passwd", "/lib64", "/usr/bin", "/usr/lib")


def test_many_files_of_a_directory_are_the_directory_but_not_of_etc():
    crowd = {f"/srv/data/{n}": {"read_file"} for n in range(MANY)}
    crowd |= {f"/etc/{n}": {"read_file"} for n in range(MANY)}
    assert rules_of(crowd)[0] == (*(f"/etc/{n}" for n in range(MANY)), "/srv/data")


def test_a_directory_that_is_listed_alone_is_not_read_as_a_whole():
    assert rules_of({"/": {"read_dir"}, "/etc": {"read_dir"}}) == (
        (),
        (),
        (("/", ("read_dir",)), ("/etc", ("read_dir",))),
    )
    assert rules_of({"/proc/12/status": {"read_file"}, "/dev/pts/0": {"write_file"}}) == (("/proc",), ("/dev/pts",), ())
