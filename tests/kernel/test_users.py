"""User namespaces and their maps, by /proc/PID/uid_map and by who owns what; as root and as an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import core, mounts, namespaces, procfs, users
from minictr.kernel.child import Child

NOBODY = 65534
CLONE_NEWUSER = 0x10000000  # linux/sched.h


def status_ids(pid: int) -> tuple[str, str]:
    rows = procfs.status(pid)
    return rows["Uid"], rows["Gid"]


@pytest.mark.parametrize(("text", "rows"), [("0 100000 65536\n", ((0, 100000, 65536),)), ("", ((0, 0, 1),))])
def test_maps_as_root(in_child: Any, text: str, rows: object) -> None:
    def body() -> Any:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, text)
            users.write_gid_map(child.pid, text)
            return users.read_map(child.pid), users.read_map(child.pid, kind="gid"), procfs.read(child.pid, "setgroups")

    assert in_child(body) == (rows, rows, "allow\n")


def test_several_rows(in_child: Any) -> None:
    def body() -> Any:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, "".join(f"{n} {1000 + 2 * n} 1\n" for n in range(340)))
            return len(users.read_map(child.pid))

    assert in_child(body) == 340


@pytest.mark.parametrize(
    ("text", "errno"), [("0 1000 1\n0 2000 1\n", 22), ("nonsense", 22), ("0 0 0", 22), ("0 4294967295 2", 22)]
)
def test_a_map_that_cannot_be(in_child: Any, text: str, errno: int) -> None:
    def body() -> int:
        with Child(CLONE_NEWUSER) as child, pytest.raises(StepFailed) as caught:
            users.write_uid_map(child.pid, text)
        return caught.value.errno or 0

    assert in_child(body) == errno


def test_a_map_is_written_once(in_child: Any) -> None:
    def body() -> str:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, "")
            with pytest.raises(StepFailed) as caught:
                users.write_uid_map(child.pid, "")
        return str(caught.value)

    assert "written already" in in_child(body)


def test_setgroups_is_denied_when_asked(in_child: Any) -> None:
    def body() -> str:
        with Child(CLONE_NEWUSER) as child:
            users.write_gid_map(child.pid, "", "deny")
            return procfs.read(child.pid, "setgroups")

    assert in_child(body) == "deny\n"
    with pytest.raises(SpecError, match="not allow or deny"):
        users.write_gid_map(1, "", "perhaps")


def test_an_ordinary_user_maps_himself(as_nobody: Any) -> None:
    def body() -> Any:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, "")
            users.write_gid_map(child.pid, "", setgroups="deny")
            return users.read_map(child.pid), users.read_map(child.pid, kind="gid"), status_ids(child.pid)[0].split()

    assert as_nobody(body) == (((0, NOBODY, 1),), ((0, NOBODY, 1),), [str(NOBODY)] * 4)


def test_an_ordinary_user_must_deny_setgroups(as_nobody: Any) -> None:
    """CVE-2014-8989: the kernel refuses the map otherwise, and the error says what to do."""

    def body() -> str:
        with Child(CLONE_NEWUSER) as child, pytest.raises(StepFailed) as caught:
            users.write_gid_map(child.pid, "", setgroups="allow")
        return str(caught.value)

    words = as_nobody(body)
    assert "EPERM" in words
    assert "deny setgroups" in words


def with_delegation(place: Path, text: str) -> None:
    """Our own /etc/subuid and /etc/subgid, over the host's, in this mount namespace."""
    (place / "sub").write_text(text)
    for path in ("/etc/subuid", "/etc/subgid"):
        mounts.bind(str(place / "sub"), path).keep()


def delegated(place: Path, text: str, function: Any) -> Any:
    """FUNCTION's answer as nobody, to whom TEXT delegates."""
    with_delegation(place, text)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        core.lib.mc_prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
        try:
            answer = function()
        except Exception as err:
            answer = f"{type(err).__name__}: {err}"
        os.write(writer, str(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def map_what_is_delegated() -> str:
    with Child(CLONE_NEWUSER) as child:
        users.write_uid_map(child.pid, users.delegated_map("/etc/subuid"))
        users.write_gid_map(child.pid, users.delegated_map("/etc/subgid"))
        return f"{users.read_map(child.pid)} {users.read_map(child.pid, kind='gid')}"


def test_newuidmap_writes_what_is_delegated(in_child: Any, place: Path, requires: Any) -> None:
    requires("newuidmap", "newgidmap")
    rows = ((0, NOBODY, 1), (1, 300000, 65536))
    assert in_child(delegated, place, "nobody:300000:65536\n", map_what_is_delegated) == f"{rows} {rows}"


def test_newuidmap_refuses_what_is_not(in_child: Any, place: Path, requires: Any) -> None:
    requires("newuidmap", "newgidmap")

    def steal() -> None:
        with Child(CLONE_NEWUSER) as child:
            users.write_uid_map(child.pid, "0 65534 1\n1 0 1000\n")

    answer = in_child(delegated, place, "nobody:300000:65536\n", steal)
    assert answer.startswith("StepFailed: newuidmap ")
    assert "/etc/subuid" in answer


def test_without_newuidmap_the_error_names_it(in_child: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minictr.kernel import delegated as programs

    monkeypatch.setattr(programs, "_PLACES", ())
    monkeypatch.setenv("PATH", str(place))
    answer = in_child(delegated, place, "nobody:300000:65536\n", map_what_is_delegated)
    assert answer.startswith("Unsupported: userns: this map needs privilege or newuidmap")


def descriptors() -> int:
    """How many are open once the first namespace was made: from then on libffi may keep a file of its own (3.5)."""
    users.user_namespace().close()
    return len(os.listdir("/proc/self/fd"))


def test_no_zombie_and_no_descriptor_is_left(as_nobody: Any) -> None:
    def body() -> tuple[int, str]:
        before = descriptors()
        for _ in range(3):
            with users.user_namespace():
                pass
            with pytest.raises((StepFailed, Unsupported)):
                users.user_namespace(uid_map="0 0 10\n", gid_map="0 0 10\n")
        return descriptors() - before, procfs.read("thread-self", "children")

    assert as_nobody(body) == (0, "")


# --- a namespace without a process ---


def test_user_namespace_outlives_its_child(in_child: Any) -> None:
    def body() -> tuple[bool, str, str]:
        with users.user_namespace(uid_map="0 5000 10\n", gid_map="0 6000 10\n") as userns:
            different = os.fstat(userns.fileno()).st_ino != namespaces.identify("self", kind="userns")
            assert not os.get_inheritable(userns.fileno())
            pid = os.fork()
            if pid == 0:
                core.check(core.lib.mc_setns(userns.fileno(), CLONE_NEWUSER), "setns")
                same = users.read_map() == ((0, 5000, 10),)
                os._exit(not same)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return different, str(code), procfs.read("thread-self", "children")

    assert in_child(body) == (True, "0", "")


def test_user_namespace_as_an_ordinary_user(as_nobody: Any) -> None:
    def body() -> bool:
        with users.user_namespace() as userns:
            return os.fstat(userns.fileno()).st_ino != namespaces.identify("self", kind="userns")

    assert as_nobody(body)


def test_user_namespace_dropped_warns(in_child: Any) -> None:
    def body() -> tuple[str, int]:
        import gc
        import warnings

        before = descriptors()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            users.user_namespace()
            gc.collect()
        return caught[0].category.__name__, descriptors() - before

    assert in_child(body) == ("ResourceWarning", 0)


# --- /etc/subuid ---


def test_subordinate_ids(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("# comment\n\nalice:100000:65536\nbob:165536:10\nalice:500000:1\n1000:7:7\n")
    assert users.subordinate_ids(str(path), user="alice") == ((100000, 65536), (500000, 1))
    assert users.subordinate_ids(str(path), user="1000") == ((7, 7),)
    assert users.subordinate_ids(str(path), user="carol") == ()
    assert users.subordinate_ids(str(tmp_path / "none"), user="alice") == ()
    assert users.delegated_map(str(path), user="alice", own=1000) == "0 1000 1\n1 100000 65536\n65537 500000 1\n"


@pytest.mark.parametrize("row", ["alice:1", "alice:x:1", "alice:1:2:3", "alice:-1:2", "alice::"])
def test_subordinate_ids_of_a_spoilt_file(tmp_path: Path, row: str) -> None:
    path = tmp_path / "subuid"
    path.write_text(f"bob:1:1\n{row}\n")
    with pytest.raises(SpecError, match=r"subuid:2: .* is not NAME:FIRST:COUNT"):
        users.subordinate_ids(str(path), user="alice")
    assert users.subordinate_ids(str(path), user="bob") == ((1, 1),)


def test_procfs_is_verified(in_child: Any, place: Path) -> None:
    """CVE-2019-16884: something else mounted over a process's directory is not written to."""

    def body() -> str:
        with Child(CLONE_NEWUSER) as child:
            (place / "uid_map").touch()
            with mounts.bind(str(place), f"/proc/{child.pid}"), pytest.raises(StepFailed) as caught:
                users.write_uid_map(child.pid, "")
        return f"{caught.value.errno} {(place / 'uid_map').read_text()!r}"

    assert in_child(body) == "124 ''"  # EMEDIUMTYPE


# --- limits, and whose files are ---


def test_no_user_namespace_below_a_limited_one(in_child: Any) -> None:
    """Off: one can be made. On: ENOSPC, for the namespace it was written in, and not for the host."""

    def body() -> list[str]:
        answers = []
        for limited in (False, True):
            # with a row for who makes one: who has none may not, whatever the limit
            with users.user_namespace(uid_map="0 0 10\n", gid_map="0 0 10\n") as userns:
                pid = os.fork()
                if pid == 0:
                    core.check(core.lib.mc_setns(userns.fileno(), CLONE_NEWUSER), "setns")
                    if limited:
                        users.limit_user_namespaces(0)
                    os._exit(-core.lib.mc_unshare(CLONE_NEWUSER))
                answers.append(os.strerror(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        return answers

    before = Path("/proc/sys/user/max_user_namespaces").read_text()
    assert in_child(body) == ["Success", "No space left on device"]
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == before


def test_files_are_made_as_somebody(in_child: Any, place: Path) -> None:
    def body() -> tuple[list[int], bool]:
        from minictr.kernel import capabilities

        before = capabilities.get()
        with users.file_ids(4242, 4343):
            (place / "theirs").touch()
            kept = capabilities.get() == before
        (place / "mine").touch()
        ids = [number for name in ("theirs", "mine") for number in ((place / name).stat())[4:6]]
        return ids, kept and capabilities.get() == before

    assert in_child(body) == ([4242, 4343, 0, 0], True)


def test_an_ordinary_user_makes_his_own_files(as_nobody: Any) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            users.file_ids(4242, 4343)
        return str(caught.value)

    assert "setfsuid 4242" in as_nobody(body)
