"""Mounts inside the container: the kernel's file systems, devices, binds, tmpfs. Masks: see ``masks``.

Every target is reached from the container's own root by openat2(2) with RESOLVE_IN_ROOT, and our standard targets
with no symlink anywhere in them: an image in which /proc or /dev is a link gets an error, not a mount elsewhere.
mount(8), proc(5), sysfs(5), tmpfs(5), open_tree(2), mount_setattr(2).
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import ID_MAX, choice, frozen, inside, integer, number, sequence, shown, size, word
from minictr.features.namespaces import MS_PRIVATE, MS_SLAVE, own
from minictr.steps import PREPARE, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MOUNT_ATTR_RDONLY = 0x1  # linux/mount.h
MOUNT_ATTR_NOSUID = 0x2  # linux/mount.h
MOUNT_ATTR_NODEV = 0x4  # linux/mount.h
MOUNT_ATTR_NOEXEC = 0x8  # linux/mount.h
MOUNT_ATTR_NOATIME = 0x10  # linux/mount.h
AT_RECURSIVE = 0x8000  # linux/fcntl.h
S_IFCHR = 0o020000  # linux/stat.h
MKDIR, RECURSIVE, NOFOLLOW = 1, 4, 8  # enum mc_path_flag of the core
OURS = MKDIR | NOFOLLOW
PLAIN = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
TTY_GROUP = 5  # group "tty" in every distribution: what grantpt(3) expects of a terminal

# name, major, minor: Documentation/admin-guide/devices.txt
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
)
NEEDS_MNT = ("mnt", "it would be mounted on the host")


def fresh(feature: Feature, fstype: str, path: str, about: str = "", **differing: Any) -> Step:
    """A new file system of FSTYPE on PATH: nosuid, nodev, noexec, without options, no symlink in PATH, unless told."""
    args = {"fstype": fstype, "path": path, "options": [], "attr": PLAIN, "flags": OURS, **differing}
    return feature.step("mount", SETUP, about or f"{fstype} on {path}", **args)


def mount_options(ctx: Context) -> list[str]:
    """What a file system that is made for the container gets besides its own options: mount(8), context=."""
    selinux = ctx.get("selinux")
    return [f"context={selinux.mount}"] if selinux is not None and selinux.mount else []


def revealing(
    feature: Feature, ctx: Context, fstype: str, path: str, about: str = "", attr: int = PLAIN
) -> Iterator[Step]:
    """A new procfs or sysfs on PATH. In a user namespace the kernel makes one only while the host's, unmasked, is still
    mounted in the same namespace (mount_too_revealing, fs/namespace.c): so before the root is changed."""
    if not ctx.has("userns"):
        yield fresh(feature, fstype, path, about, attr=attr)
        return
    yield feature.step("fsmount", SETUP, fstype, into=fstype, fstype=fstype, options=[], attr=attr)
    yield feature.step("attach", SETUP, about or f"{fstype} on {path}", tree=fstype, path=path, flags=OURS)


def attributes(feature: Feature, tree: str, about: str, **differing: int) -> Step:
    """mount_setattr(2) on a tree that is not attached yet."""
    args: dict[str, Any] = {"set": 0, "clear": 0, "propagation": 0, "userns": -1, "flags": 0, **differing}
    return feature.step("setattr", SETUP, about, tree=tree, **args)


def idmapped(feature: Feature, ctx: Context, path: str, tree: str, *, recursive: bool) -> Iterator[Step]:
    """The handle TREE is a clone of PATH's mount on which owners are shown through the maps of userns."""
    uids, gids = ctx.get("userns").texts
    args: dict[str, Any] = {"into": f"idmap:{tree}", "path": path, "recursive": recursive}
    yield feature.step("idmap_tree", PREPARE, path, undo="closed", uid_map=uids, gid_map=gids, **args)
    yield feature.step("adopt", SETUP, path, into=tree, fd=args["into"])


def host_bind(feature: Feature, path: str, *, readonly: bool) -> Iterator[Step]:
    """The host's own PATH with all that is mounted below, where this user cannot mount a fresh one."""
    tree = f"host:{path}"
    yield feature.step("open_tree", SETUP, f"the host's {path}", into=tree, path=path, flags=AT_RECURSIVE)
    if readonly:
        yield attributes(feature, tree, f"{path} ro", set=MOUNT_ATTR_RDONLY, flags=RECURSIVE)
    yield feature.step("attach", SETUP, f"the host's {path}", tree=tree, path=path, flags=OURS)


class Proc(Feature):
    """A fresh procfs on /proc. proc(5).

    It shows the pid namespace the child is in: without ``pid`` that is the host's processes. In a user namespace
    without a pid namespace of its own the kernel refuses a fresh one, and the host's /proc is bound instead.
    """

    NAME = "proc"
    SUMMARY = "/proc, of its own pid namespace"
    NEEDS = (NEEDS_MNT,)

    def steps(self, ctx: Context) -> Iterator[Step]:
        if ctx.has("userns") and not ctx.has("pid"):
            yield from host_bind(self, "/proc", readonly=False)
        else:
            yield from revealing(self, ctx, "proc", "/proc")


class Sysfs(Feature):
    """Sysfs on /sys, read-only or with ``mode`` "rw": much in it sets up the host. sysfs(5).

    Network devices shown are those of the network namespace at mount time. In a user namespace without a network of
    its own the kernel refuses a fresh one, and the host's /sys is bound instead."""

    NAME = "sysfs"
    SUMMARY = "/sys, read-only"
    NEEDS = (NEEDS_MNT,)

    mode: str = "ro"

    def check(self) -> None:
        choice(self.mode, "sysfs mode", ("ro", "rw"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        if ctx.has("userns") and not own(ctx, "net"):
            yield from host_bind(self, "/sys", readonly=self.mode == "ro")
        else:
            attr = PLAIN | (MOUNT_ATTR_RDONLY if self.mode == "ro" else 0)
            yield from revealing(self, ctx, "sysfs", "/sys", f"sysfs on /sys {self.mode}", attr)


class Dev(Feature):
    """A small tmpfs on /dev with null, zero, full, random, urandom, tty and the links to /proc/self/fd. mknod(2).

    In a user namespace no device node can be made: the host's nodes are bound one by one. ``inodes``: how many files
    there may be in it, 0 for no limit but the kernel's. Its root may make some, and each is memory of the kernel's.
    """

    NAME = "dev"
    SUMMARY = "/dev with the six harmless devices and the standard links"
    NEEDS = (NEEDS_MNT,)

    inodes: int = 16384

    def check(self) -> None:
        integer(self.inodes, "dev inodes", 0, 1 << 31)

    def steps(self, ctx: Context) -> Iterator[Step]:
        options = tmpfs_options("64M", 0o755, self.inodes) + mount_options(ctx)
        yield fresh(self, "tmpfs", "/dev", options=options, attr=MOUNT_ATTR_NOSUID)
        for name, major, minor in DEVICES:
            path = f"/dev/{name}"
            if ctx.has("userns"):
                tree = f"dev:{name}"
                yield self.step("open_tree", SETUP, f"the host's {path}", into=tree, path=path, flags=0)
                yield self.step("attach", SETUP, f"the host's {path}", tree=tree, path=path, flags=OURS)
            else:
                about = f"{path} {major}:{minor}"
                yield self.step("mknod", SETUP, about, path=path, mode=S_IFCHR | 0o666, major=major, minor=minor)
        for target, path in DEVICE_LINKS:
            yield self.step("symlink", SETUP, f"{path} -> {target}", target=target, path=path)


class Devpts(Feature):
    """Pseudo terminals of its own on /dev/pts, and /dev/ptmx. Linux 2.6.29 (newinstance), pts(4).

    ``max``: how many at once (Linux 3.4), 0 for no limit but kernel.pty.max, which all containers have together.
    """

    NAME = "devpts"
    SUMMARY = "its own pseudo terminals"
    NEEDS = (NEEDS_MNT, ("dev", "/dev/pts would be made in the image"))

    max: int = 1024  # LXC's

    def check(self) -> None:
        integer(self.max, "devpts max", 0, 1 << 20)  # NR_UNIX98_PTY_MAX, linux/tty.h

    def steps(self, ctx: Context) -> Iterator[Step]:
        options = ["newinstance", "ptmxmode=0666", "mode=0620", *([f"max={self.max}"] if self.max else [])]
        user = ctx.get("userns")
        if user is None or (not user.join and user.maps_gid(TTY_GROUP)):
            options.append(f"gid={TTY_GROUP}")
        options += mount_options(ctx)
        yield fresh(self, "devpts", "/dev/pts", options=options, attr=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
        yield self.step("symlink", SETUP, "/dev/ptmx -> pts/ptmx", target="pts/ptmx", path="/dev/ptmx")


class Shm(Feature):
    """A tmpfs on /dev/shm for shm_open(3). ``size`` in bytes or "64M", ``inodes`` 0 for no limit but the kernel's."""

    NAME = "shm"
    SUMMARY = "POSIX shared memory of its own, of limited size"
    NEEDS = (NEEDS_MNT,)

    size: str | int = "64M"
    inodes: int = 16384  # one a page: empty files are not free either

    def check(self) -> None:
        if self.size != "":
            size(self.size, "shm size")
        integer(self.inodes, "shm inodes", 0, 1 << 31)

    def steps(self, ctx: Context) -> Iterator[Step]:
        options = tmpfs_options(self.size, 0o1777, self.inodes) + mount_options(ctx)
        about = f"tmpfs on /dev/shm {told_size(self.size)}" + (f", {self.inodes} inodes" if self.inodes else "")
        yield fresh(self, "tmpfs", "/dev/shm", about, options=options)


class Mqueue(Feature):
    """The ipc namespace's POSIX message queues as files in /dev/mqueue. mq_overview(7)."""

    NAME = "mqueue"
    SUMMARY = "POSIX message queues as files in /dev/mqueue"
    NEEDS = (NEEDS_MNT,)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield fresh(self, "mqueue", "/dev/mqueue")


def tmpfs_options(limit: str | int, mode: int, inodes: int) -> list[str]:
    """tmpfs(5) options as fsconfig(2) takes them."""
    options = [f"mode={mode:o}"]
    if limit != "":
        options.append(f"size={size(limit)}")
    if inodes:
        options.append(f"nr_inodes={inodes}")
    return options


def told_size(limit: str | int) -> str:
    """A size in words, for the plan."""
    return f"size {limit}" if limit != "" else "size unlimited but by half the memory"


# What docker accepts after "--tmpfs DIR:", beyond size and mode: word -> bit, and whether the word sets or clears it.
TMPFS_WORDS = {
    "ro": (MOUNT_ATTR_RDONLY, True),
    "rw": (MOUNT_ATTR_RDONLY, False),
    "nosuid": (MOUNT_ATTR_NOSUID, True),
    "suid": (MOUNT_ATTR_NOSUID, False),
    "nodev": (MOUNT_ATTR_NODEV, True),
    "dev": (MOUNT_ATTR_NODEV, False),
    "noexec": (MOUNT_ATTR_NOEXEC, True),
    "exec": (MOUNT_ATTR_NOEXEC, False),
    "noatime": (MOUNT_ATTR_NOATIME, True),
    "atime": (MOUNT_ATTR_NOATIME, False),
}
TMPFS_KEYS = ("uid", "gid")


class Tmpfs(Feature):
    """A fresh tmpfs on TARGET, nosuid, nodev and noexec as in docker; ``options`` lift them: exec, suid, dev.

    ``size`` in bytes or "64M" ("" is half the memory), ``mode`` of its root, ``inodes`` 0 for the kernel's limit,
    ``options`` words of mount(8) and ``uid=N``, ``gid=N``. tmpfs(5).
    """

    NAME = "tmpfs"
    SUMMARY = "a fresh tmpfs on a directory"
    MANY = True
    NEEDS = (NEEDS_MNT,)

    target: str
    size: str | int = ""
    mode: int = 0o1777
    inodes: int = 0
    options: tuple[str, ...] = ()

    def check(self) -> None:
        frozen(self, "target", inside(self.target, "tmpfs target", root=False))
        if self.size != "":
            size(self.size, f"tmpfs {self.target} size")
        integer(self.mode, f"tmpfs {self.target} mode", 0, 0o7777)
        integer(self.inodes, f"tmpfs {self.target} inodes", 0, 1 << 31)
        frozen(self, "options", sequence(self.options, "tmpfs options"))
        for option in self.options:
            key, equals, value = word(option, f"tmpfs {self.target} option").partition("=")
            if key in TMPFS_KEYS and equals:
                number(value, f"tmpfs {self.target} {key}", 0, ID_MAX)
            elif option not in TMPFS_WORDS:
                known = ", ".join((*TMPFS_WORDS, *(f"{name}=N" for name in TMPFS_KEYS)))
                raise SpecError(f"tmpfs {self.target}: option {shown(option)} is not one of {known}, size, mode")

    @property
    def label(self) -> str:
        return f"tmpfs:{self.target}"

    def steps(self, ctx: Context) -> Iterator[Step]:
        attr, options = PLAIN, tmpfs_options(self.size, self.mode, self.inodes) + mount_options(ctx)
        for option in self.options:
            bit, on = TMPFS_WORDS.get(option, (0, False))
            attr = attr | bit if on else attr & ~bit
            if "=" in option:
                options.append(option)
        about = f"tmpfs on {self.target} {told_size(self.size)}"
        yield fresh(self, "tmpfs", self.target, about, options=options, attr=attr, flags=MKDIR)
        yield self.step("verify_mount", SETUP, self.target, path=self.target)


BIND_BITS = {
    "ro": MOUNT_ATTR_RDONLY,
    "rro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
}
# Shared is missing knowingly: a mount made inside must not be able to reach the host.
BIND_PROPAGATIONS = {"private": MS_PRIVATE, "rprivate": MS_PRIVATE, "slave": MS_SLAVE, "rslave": MS_SLAVE}


def devices_of_the_host(source: str) -> bool:
    """Whether SOURCE is the host's /dev or something in it, but for /dev/shm, where anybody's files are."""
    parts = source.split("/")
    return parts[:2] == ["", "dev"] and parts[2:3] != ["shm"] and ".." not in parts


class Bind(Feature):
    """The host's SOURCE, a file or a directory, on TARGET. Linux 5.12 (mount_setattr), mount_setattr(2).

    ``readonly``: "" writable, "ro" this mount, "rro" and every mount below it. ``recursive``: with what is mounted
    below SOURCE. ``propagation``: private, rprivate, slave, rslave, or "" as the container's table has it. ``idmap``:
    owners on disk are shown through the container's id map (a file of 0 on disk is one of 0 inside). ``dev``: device
    nodes in it can be opened though there is the feature ``nodev``; those of the host's /dev always can.
    """

    NAME = "bind"
    SUMMARY = "a file or directory of the host"
    MANY = True
    NEEDS = (NEEDS_MNT,)

    source: str
    target: str
    readonly: str = ""
    recursive: bool = True
    propagation: str = ""
    idmap: bool = False
    nosuid: bool = False
    nodev: bool = False
    noexec: bool = False
    dev: bool = False

    def check(self) -> None:
        word(self.source, "bind source")
        frozen(self, "target", inside(self.target, "bind target", root=False))
        choice(self.readonly, f"bind {self.target} readonly", ("", "ro", "rro"))
        if self.propagation in ("shared", "rshared"):
            cure = "rslave lets the host's come in"
            raise SpecError(f"bind {self.target}: with {self.propagation} mounts made inside reach the host: {cure}")
        choice(self.propagation, f"bind {self.target} propagation", ("", *BIND_PROPAGATIONS))
        if self.dev and self.nodev:
            raise SpecError(f"bind {self.target}: dev and nodev are both said: keep one")

    @property
    def label(self) -> str:
        return f"bind:{self.target}"

    def steps(self, ctx: Context) -> Iterator[Step]:
        tree, told = self.label, f"bind {self.source} -> {self.target} {self.readonly}".rstrip()
        if self.idmap:
            yield from self.mapped_tree(ctx, tree)
        else:
            flags = AT_RECURSIVE if self.recursive else 0
            yield self.step("open_tree", SETUP, self.source, into=tree, path=self.source, flags=flags)
        words = [self.readonly] if self.readonly else []
        words += [name for name in ("nosuid", "nodev", "noexec") if getattr(self, name)]
        if words:
            bits = sum(BIND_BITS[word] for word in words)
            flags = RECURSIVE if self.readonly == "rro" else 0
            yield attributes(self, tree, f"{self.target} {' '.join(words)}", set=bits, flags=flags)
        if ctx.has("nodev") and not (self.dev or devices_of_the_host(self.source)):
            flags = RECURSIVE if self.recursive else 0
            yield attributes(self, tree, f"{self.target} nodev", set=MOUNT_ATTR_NODEV, flags=flags)
        if self.propagation:
            kind = BIND_PROPAGATIONS[self.propagation]
            flags = RECURSIVE if self.propagation.startswith("r") else 0
            yield attributes(self, tree, f"{self.target} {self.propagation}", propagation=kind, flags=flags)
        yield self.step("attach", SETUP, told, tree=tree, path=self.target, flags=MKDIR)
        yield self.step("verify_mount", SETUP, self.target, path=self.target)

    def mapped_tree(self, ctx: Context, tree: str) -> Iterator[Step]:
        """mount_setattr(MOUNT_ATTR_IDMAP) wants privilege over the file system: the parent does it."""
        yield from idmapped(self, ctx, self.source, tree, recursive=self.recursive)
