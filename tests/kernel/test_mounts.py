"""Mounts, by /proc/self/mountinfo and by what can be done on them; each with the new API and with mount(2)."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from minictr.errors import SpecError, StepFailed
from minictr.kernel import capabilities, mounts, namespaces, process, seccomp
from minictr.kernel.mounts import MountInfo, bind, mountinfo

APIS = pytest.mark.parametrize("api", ["new", "old"])
ENOSYS = 38
OPEN_TREE, MOVE_MOUNT, FSOPEN, MOUNT_SETATTR = 428, 429, 430, 442  # asm-generic/unistd.h


def at(target: object) -> MountInfo | None:
    """The topmost mount there."""
    return next((mount for mount in reversed(mountinfo()) if mount.target == str(target)), None)


def is_writable(path: Path) -> bool:
    return not os.statvfs(path).f_flag & os.ST_RDONLY and os.access(path, os.W_OK)


@APIS
def test_tmpfs(in_child: Any, place: Path, api: str) -> None:
    def body() -> tuple[MountInfo, int, int, int]:
        with mounts.tmpfs(str(place), size="1M", mode=0o711, inodes=7, nosuid=True, nodev=True, api=api) as mounted:
            assert mounted.target == str(place)
            info, stat = at(place), os.statvfs(place)
            assert info is not None
            assert info.id == mounted.id
            return info, stat.f_blocks * stat.f_frsize, stat.f_files, place.stat().st_mode & 0o7777

    info, size, inodes, mode = in_child(body)
    assert (info.fstype, info.source, size, inodes, mode) == ("tmpfs", "tmpfs", 1 << 20, 7, 0o711)
    assert {"nosuid", "nodev", "relatime"} <= set(info.options)
    assert "noexec" not in info.options
    assert at(place) is None


def test_tmpfs_is_full_when_it_is_full(in_child: Any, place: Path) -> None:
    def body() -> tuple[int, int]:
        with mounts.tmpfs(str(place), size=65536, inodes=3):
            codes = []
            for name, data in (("large", b"x" * 100_000), ("a", b""), ("b", b""), ("c", b"")):
                try:
                    (place / name).write_bytes(data)
                except OSError as err:
                    codes.append(err.errno)
            return codes[0], len(codes)

    assert in_child(body) == (28, 3)  # ENOSPC


@APIS
@pytest.mark.parametrize(
    ("kind", "fstype", "shows"), [("proc", "proc", "self"), ("sysfs", "sysfs", "class"), ("mqueue", "mqueue", "")]
)
def test_the_kernels_own(in_child: Any, place: Path, kind: str, fstype: str, shows: str, api: str) -> None:
    def body() -> tuple[str, set[str], bool]:
        with getattr(mounts, kind)(str(place), api=api):
            info = at(place)
            assert info is not None
            return info.fstype, set(info.options), not shows or (place / shows).exists()

    got, options, there = in_child(body)
    assert (got, there) == (fstype, True)
    assert {"nosuid", "nodev", "noexec"} <= options


def test_proc_is_of_the_pid_namespace(in_child: Any, place: Path) -> None:
    def body() -> list[str]:
        with namespaces.unshare("pid"):
            pid = os.fork()
            if pid == 0:
                with mounts.proc(str(place), subset="pid"):
                    found = sorted(os.listdir(place))
                os._exit(found != ["1", "self", "thread-self"])
            return [str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))]

    assert in_child(body) == ["0"]


@APIS
def test_devpts_is_of_its_own(in_child: Any, place: Path, api: str) -> None:
    def body() -> tuple[list[str], list[str]]:
        with mounts.devpts(str(place), ptmxmode=0o600, gid=5, api=api):
            before = sorted(os.listdir(place))
            fd = os.open(place / "ptmx", os.O_RDWR | os.O_NOCTTY)
            after = sorted(os.listdir(place))
            assert (place / "0").stat().st_gid == 5
            os.close(fd)
            return before, after

    assert in_child(body) == (["ptmx"], ["0", "ptmx"])


@APIS
def test_devpts_has_no_more_terminals_than_it_may(in_child: Any, place: Path, api: str) -> None:
    def body() -> int:
        with mounts.devpts(str(place), max=2, api=api):
            opened = [os.open(place / "ptmx", os.O_RDWR | os.O_NOCTTY) for _ in range(2)]
            try:
                os.close(os.open(place / "ptmx", os.O_RDWR | os.O_NOCTTY))
            except OSError as err:
                return err.errno or 0
            finally:
                for fd in opened:
                    os.close(fd)
        return 0

    assert in_child(body) == errno.ENOSPC


@APIS
@pytest.mark.parametrize(("readonly", "top", "below"), [("", True, True), ("ro", False, True), ("rro", False, False)])
def test_bind(in_child: Any, place: Path, readonly: str, top: bool, below: bool, api: str) -> None:
    source = place / "source"
    (source / "sub").mkdir(parents=True)
    (place / "target").mkdir()

    def body() -> tuple[bool, bool, bool]:
        with mounts.tmpfs(str(source / "sub")), bind(str(source), str(place / "target"), readonly=readonly, api=api):
            return is_writable(place / "target"), is_writable(place / "target/sub"), is_writable(source)

    assert in_child(body) == (top, below, True)


@APIS
def test_bind_without_what_is_below(in_child: Any, place: Path, api: str) -> None:
    (place / "source/sub").mkdir(parents=True)
    (place / "target").mkdir()

    def body() -> list[bool]:
        found = []
        with mounts.tmpfs(str(place / "source/sub")):
            for recursive in (False, True):
                with bind(str(place / "source"), str(place / "target"), recursive=recursive, api=api):
                    found.append(os.path.ismount(place / "target/sub"))
        return found

    assert in_child(body) == [False, True]


@APIS
def test_bind_of_a_file_with_flags(in_child: Any, place: Path, api: str) -> None:
    script, target = place / "script", place / "target"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    target.touch()

    def body() -> tuple[set[str], int]:
        with bind(str(script), str(target), noexec=True, nosuid=True, nodev=True, noatime=True, api=api):
            info = at(target)
            assert info is not None
            with pytest.raises(PermissionError):
                os.execv(target, [str(target)])
            return set(info.options), os.spawnv(os.P_WAIT, str(script), [str(script)])

    options, code = in_child(body)
    assert {"noexec", "nosuid", "nodev", "noatime", "rw"} <= options
    assert code == 0


@APIS
def test_set_attributes(in_child: Any, place: Path, api: str) -> None:
    (place / "top").mkdir()

    def body() -> list[Any]:
        found: list[Any] = []
        with mounts.tmpfs(str(place / "top"), noexec=True):
            (place / "top/sub").mkdir()
            with mounts.tmpfs(str(place / "top/sub")):
                for recursive in (False, True):
                    mounts.set_attributes(str(place / "top"), readonly=True, recursive=recursive, api=api)
                    found.append((is_writable(place / "top"), is_writable(place / "top/sub")))
                    mounts.set_attributes(
                        str(place / "top"), readonly=False, noatime=True, recursive=recursive, api=api
                    )
                info, sub = at(place / "top"), at(place / "top/sub")
                assert info is not None
                assert sub is not None
                found += ["noexec" in info.options, "noatime" in info.options, "noatime" in sub.options]
        return found

    assert in_child(body) == [(False, True), (False, False), True, True, True]


@pytest.mark.parametrize(
    ("kind", "tag"),
    [("private", ""), ("shared", "shared"), ("slave", ""), ("unbindable", "unbindable"), ("rshared", "shared")],
)
def test_propagation(in_child: Any, place: Path, kind: str, tag: str) -> None:
    def body() -> tuple[str, ...]:
        with mounts.tmpfs(str(place)):
            mounts.propagation(str(place), kind)
            info = at(place)
            assert info is not None
            return info.propagation

    assert [word.partition(":")[0] for word in in_child(body)] == ([tag] if tag else [])


def test_a_slave_gets_and_does_not_give(in_child: Any, place: Path) -> None:
    for name in ("master/sub", "slave"):
        (place / name).mkdir(parents=True)

    def body() -> tuple[bool, bool]:
        with bind(str(place / "master"), str(place / "master"), propagation="shared"):
            with bind(str(place / "master"), str(place / "slave"), propagation="slave"):
                with mounts.tmpfs(str(place / "master/sub")):
                    came = os.path.ismount(place / "slave/sub")
                with mounts.tmpfs(str(place / "slave/sub")):
                    went = os.path.ismount(place / "master/sub")
            return came, went

    assert in_child(body) == (True, False)


# --- the fallback, forced by a kernel that has no new API ---


@pytest.mark.parametrize("missing", [(FSOPEN, OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR), (MOUNT_SETATTR,)])
def test_on_an_older_kernel(in_child: Any, place: Path, refusing: Any, missing: tuple[int, ...]) -> None:
    """A filter answers ENOSYS, as Linux before 5.2 and before 5.12 does: everything works the old way."""
    (place / "target").mkdir()

    def body() -> tuple[str, bool, bool]:
        capabilities.no_new_privs()
        seccomp.load(refusing(ENOSYS, *missing))
        with mounts.tmpfs(str(place), size="1M"):
            (place / "target").mkdir()
            with bind("/usr", str(place / "target"), readonly="rro"):
                info = at(place / "target")
                assert info is not None
                mounts.set_attributes(str(place), readonly=True)
                top = at(place)
                assert top is not None
                with pytest.raises(StepFailed, match="ENOSYS"):
                    mounts.set_attributes(str(place), readonly=False, api="new")
                return info.fstype, info.readonly, top.readonly

    assert in_child(body)[1:] == (True, True)


# --- handles ---


def test_leaving_a_busy_mount_takes_it_from_the_tree(in_child: Any, place: Path) -> None:
    def body() -> tuple[bool, str]:
        with mounts.tmpfs(str(place)):
            (place / "file").write_text("still there")
            file = open(place / "file")  # noqa: SIM115
            with pytest.raises(StepFailed, match=r"EBUSY.*detach"):
                mounts.unmount(str(place))
        with file:
            return os.path.ismount(place), file.read()

    assert in_child(body) == (False, "still there")


def test_it_never_unmounts_what_another_put_there(in_child: Any, place: Path) -> None:
    def body() -> tuple[str, bool, bool]:
        ours = mounts.tmpfs(str(place))
        theirs = mounts.tmpfs(str(place))
        with pytest.raises(StepFailed, match="another mount lies over it") as caught:
            ours.close()
        there = os.path.ismount(place)
        theirs.close()
        mounts.unmount(str(place))
        gone = mounts.tmpfs(str(place))
        mounts.unmount(str(place), detach=True)
        gone.close()  # somebody did it already
        return str(caught.value), there, os.path.ismount(place)

    assert in_child(body)[1:] == (True, False)


def test_keep_and_drop(in_child: Any, place: Path) -> None:
    def body() -> tuple[bool, bool, str]:
        import gc
        import warnings

        mounts.tmpfs(str(place)).keep()
        kept = os.path.ismount(place)
        mounts.unmount(str(place))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mounts.tmpfs(str(place))
            gc.collect()
        return kept, os.path.ismount(place), caught[0].category.__name__

    assert in_child(body) == (True, False, "ResourceWarning")


def test_no_descriptor_is_left(in_child: Any, place: Path) -> None:
    def body() -> int:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with mounts.tmpfs(str(place)), bind("/usr", str(place), readonly="ro"):
                pass
            with pytest.raises(StepFailed):
                mounts.tmpfs(str(place), size="x")
            with pytest.raises(StepFailed):
                bind("/nowhere", str(place))
        return len(os.listdir("/proc/self/fd")) - before

    assert in_child(body) == 0


# --- mistakes ---


def test_mistakes_are_told(in_child: Any, place: Path) -> None:
    (place / "file").touch()

    def body() -> list[str]:
        said = []
        for call in (
            lambda: mounts.tmpfs(str(place), size="much"),
            lambda: mounts.tmpfs(str(place / "none")),
            lambda: mounts.file_system("nofs", str(place)),
            lambda: bind(str(place), str(place / "file")),
            lambda: bind("/nowhere", str(place)),
            lambda: mounts.set_attributes(str(place), readonly=True),
            lambda: mounts.propagation(str(place), "private"),
            lambda: mounts.unmount(str(place)),
        ):
            with pytest.raises(StepFailed) as caught:
                call()
            said.append(str(caught.value).replace(str(place), "DIR"))
        return said

    assert in_child(body) == [
        "mount tmpfs on DIR: option size=much: EINVAL (Invalid argument): tmpfs: Bad value for 'size'",
        "open mount point DIR/none: ENOENT (No such file or directory): the mount point must exist",
        "mount nofs on DIR: fsopen: ENODEV (No such device): this kernel has no such file system",
        "mount DIR on DIR/file: EINVAL (Invalid argument): a directory goes on a directory, a file on a file",
        "open tree /nowhere: ENOENT (No such file or directory)",
        "set attributes of DIR: EINVAL (Invalid argument): no mount point",
        "make DIR private: EINVAL (Invalid argument): no mount point",
        "unmount DIR: EINVAL (Invalid argument)",
    ]


def test_words_that_are_none() -> None:
    with pytest.raises(SpecError, match="not ro or rro"):
        bind("/a", "/b", readonly="maybe")
    with pytest.raises(SpecError, match="not auto, new or old"):
        mounts.tmpfs("/b", api="newest")
    with pytest.raises(SpecError, match="is not one of private"):
        mounts.propagation("/", "public")
    with pytest.raises(TypeError, match="unexpected nosetuid"):
        mounts.tmpfs("/b", nosetuid=True)
    with pytest.raises(SpecError, match="lower is needed"):
        mounts.overlay("/b", lower=[], upper="/u", work="/w")


def test_an_ordinary_user_may_not(as_nobody: Any, place: Path) -> None:
    def body() -> str:
        with pytest.raises(StepFailed) as caught:
            mounts.tmpfs(str(place))
        return str(caught.value)

    assert "EPERM" in as_nobody(body)


def test_on_the_host_nothing_is_seen(in_child: Any, place: Path) -> None:
    """The seam of every test here: what a child mounts, the host does not have."""
    before = mountinfo()
    in_child(lambda: (mounts.tmpfs(str(place)).keep(), process.set_umask(0)))
    assert mountinfo() == before
