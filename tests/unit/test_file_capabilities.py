"""security.capability read as the kernel reads it, and what a container leaves of what files give."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minictr.errors import SpecError
from minictr.kernel.capabilities import mask, names
from minictr.kernel.file_capabilities import FileCapabilities, PrivilegedFile, parse
from minictr.runtime.privilege import Terms, effect

SET = st.integers(0, (1 << 64) - 1)
KILL, CHOWN = ("KILL",), ("CHOWN",)


def attribute(permitted: int, inheritable: int, revision: int, *, effective: bool = False, rootid: int = 0) -> bytes:
    """struct vfs_cap_data, or vfs_ns_cap_data, of linux/capability.h: little-endian, low words of both sets first."""
    words = [revision << 24 | effective, permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF]
    if revision > 1:
        words += [permitted >> 32, inheritable >> 32]
    return struct.pack(f"<{len(words)}I", *words) + (struct.pack("<I", rootid) if revision == 3 else b"")


@given(SET, SET, st.sampled_from((1, 2, 3)), st.booleans(), st.integers(0, (1 << 32) - 1))
def test_what_was_written_is_read(permitted: int, inheritable: int, revision: int, on: bool, rootid: int) -> None:
    if revision == 1:
        permitted, inheritable = permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF
    found = parse(attribute(permitted, inheritable, revision, effective=on, rootid=rootid))
    assert (mask(found.permitted), mask(found.inheritable)) == (permitted, inheritable)
    wanted = FileCapabilities(names(permitted), names(inheritable), on, revision, rootid if revision == 3 else 0)
    assert found == wanted


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    told = ""
    try:
        assert len(data) == {1: 12, 2: 20, 3: 24}[parse(data).revision]
    except SpecError as err:
        told = str(err)
    assert not told or (told.startswith("file capabilities: ") and "\n" not in told)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "0 bytes are too few"),
        (b"\1\0\0", "3 bytes are too few"),
        (attribute(1, 0, 2)[:-1], "revision 2 has 20 bytes, not 19"),
        (attribute(1, 0, 2) + b"\0", "revision 2 has 20 bytes, not 21"),
        (attribute(1, 0, 3)[:20], "revision 3 has 24 bytes, not 20"),
        (attribute(1, 0, 1) + bytes(8), "revision 1 has 12 bytes, not 20"),
        (attribute(1, 0, 4), "revision 0x4000000 is not known"),
        (bytes(20), "revision 0x0 is not known"),
        (attribute(1, 0, 2)[::-1], "is not known"),
    ],
)
def test_malformed(data: bytes, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        parse(data)


@pytest.mark.parametrize(
    ("has", "text"),
    [
        (FileCapabilities(("NET_RAW",), (), True), "cap_net_raw=ep"),
        (FileCapabilities(("CHOWN", "KILL"), ("KILL",)), "cap_chown=p cap_kill=ip"),
        (FileCapabilities((), ("cap_41",), False, 3, 1000), "cap_41=i [rootid=1000]"),
        (FileCapabilities(()), "="),
    ],
)
def test_shown_as_getcap_does(has: FileCapabilities, text: str) -> None:
    assert str(has) == text


def file(permitted: tuple[str, ...] = (), inheritable: tuple[str, ...] = (), **fields: object) -> PrivilegedFile:
    chosen = {name: fields.pop(name) for name in ("effective", "revision", "rootid") if name in fields}
    has = FileCapabilities(permitted, inheritable, **chosen) if permitted or inheritable else None  # type: ignore[arg-type]
    return PrivilegedFile("/x", **{"uid": 0, "gid": 0, "capabilities": has, **fields})  # type: ignore[arg-type]


MAPPED = {"uid_map": ((0, 1000, 10),), "gid_map": ((0, 1000, 10),)}


@pytest.mark.parametrize(
    ("one", "terms", "told"),
    [
        (file(KILL, effective=True), Terms(KILL), "gives KILL"),
        (file(KILL, effective=True), Terms(), "gives KILL"),
        (file(KILL), Terms(KILL), "gives KILL, not yet effective"),
        (file(CHOWN + KILL), Terms(KILL), "gives KILL, not yet effective"),
        (file(CHOWN + KILL, effective=True), Terms(KILL), "is not executed: EPERM, the bounding set is without CHOWN"),
        (
            file(CHOWN + KILL, effective=True),
            Terms(KILL, no_new_privs=True),
            "is not executed: EPERM, the bounding set is without CHOWN",
        ),
        (file(CHOWN, CHOWN, effective=True), Terms(KILL, CHOWN), "gives CHOWN"),
        (file(KILL, effective=True), Terms(KILL, no_new_privs=True), "nothing: no_new_privs"),
        (file(CHOWN), Terms(KILL), "nothing: what it names is not in the bounding set"),
        (file((), KILL), Terms(KILL), "nothing: none is inheritable here"),
        (file((), KILL), Terms((), KILL), "gives KILL, not yet effective"),
        (file(KILL, effective=True), Terms((), nosuid=True), "nothing: the root is mounted nosuid"),
        (file(KILL, revision=3, rootid=5), Terms(), "nothing: user 5 is not root here"),
        (file(KILL, revision=3, rootid=1000, effective=True), Terms(**MAPPED), "gives KILL"),
        (file(KILL, revision=3, rootid=1001), Terms(**MAPPED), "nothing: user 1001 is not root here"),
        (file(KILL, effective=True), Terms(**MAPPED), "gives KILL"),
        (file(malformed="x"), Terms(), "is not executed: EINVAL, the attribute is malformed"),
        (file(setuid=True), Terms(()), "becomes user 0"),
        (file(setuid=True), Terms(noroot=True), "becomes user 0, without capabilities: noroot"),
        (file(setuid=True, uid=7), Terms(noroot=True), "becomes user 7"),
        (file(setuid=True), Terms(no_new_privs=True), "nothing: no_new_privs"),
        (file(setuid=True), Terms(nosuid=True), "nothing: the root is mounted nosuid"),
        (file(setuid=True), Terms(**MAPPED), "nothing: user 0 is not in the user namespace"),
        (file(setuid=True, uid=1003), Terms(**MAPPED), "nothing: group 0 is not in the user namespace"),
        (file(setuid=True, setgid=True, uid=1003, gid=1004), Terms(**MAPPED), "becomes user 3; becomes group 4"),
        (file(KILL, effective=True, setgid=True, gid=8), Terms(KILL), "gives KILL; becomes group 8"),
        (file(KILL, setuid=True), Terms(KILL, no_new_privs=True), "nothing: no_new_privs"),
    ],
)
def test_what_executing_it_gives(one: PrivilegedFile, terms: Terms, told: str) -> None:
    assert effect(one, terms) == told
