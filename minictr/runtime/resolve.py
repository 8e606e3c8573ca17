"""What only the root file system knows, found before anything is touched: is it one, who is USER, is the program there.

Everything inside the root is reached from its own descriptor with ``openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS)``:
a hostile image answers for itself only. Names are looked up in the image's own passwd and group, never by NSS.
"""

from __future__ import annotations

import os

from minictr.boot import is_init
from minictr.errors import SpecError, Unsupported
from minictr.features.cgroupfs import TOP
from minictr.features.check import decimal
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.runtime.filters import with_program
from minictr.runtime.looks import MOUNTED_BY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.features.users import Identity
    from minictr.spec import Spec

RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS = 0x10, 0x02  # linux/openat2.h
MAX_DATABASE = 4 << 20  # bytes of a passwd or group file that are read


def resolve(spec: Spec) -> Spec:
    """SPEC with an absolute, checked root and a numeric user.

    Block devices that limits name become numbers, the cgroup file system learns which hierarchies the host has, and a
    seccomp filter becomes a program.

    Raises :class:`SpecError` for a root that is missing, a file, a link or empty, for /proc, /sys or /dev being a link
    in it, and for a user or group that it does not know.
    """
    if spec.rootfs:
        spec = spec.replace(rootfs=checked_root(spec.rootfs))
        _no_links(spec)
    overlay: Any = spec.get("overlay")
    if overlay is not None and overlay.many:
        _check_layers(1 + len(overlay.lower))
    io: Any = spec.get("io")
    if io is not None and io.paths:
        spec = spec.with_(io.resolved({path: _block_device(path) for path in io.paths}))
    if "cgroupfs" in spec.names or "named_cgroup" in spec.names:
        spec = _host_hierarchies(spec)
    if "seccomp" in spec.names:
        spec = with_program(spec)
    if is_init(spec):
        _check_systemd(spec)
    env: Any = spec.get("env")
    if env is None or not env.clear:
        spec = spec.replace(environ=caller_environment())
    return look_up_user(spec)


def look_up_user(spec: Spec) -> Spec:
    """SPEC with a numeric user. Raises :class:`SpecError` for a user or group that its root does not know."""
    identity: Any = spec.get("user")
    return spec if identity is None else spec.with_(_known(identity, spec))


def caller_environment() -> tuple[str, ...]:
    """Ours, as a spec has it."""
    return tuple(f"{key}={value}" for key, value in os.environ.items())


def told_by_fingerprint(spec: Spec) -> bool:
    """Whether what :func:`resolve` makes of SPEC hangs on the root alone: on no environment, on no other layers."""
    env: Any = spec.get("env")
    io: Any = spec.get("io")
    return env is not None and env.clear and spec.get("overlay") is None and (io is None or not io.paths)


def _check_layers(count: int) -> None:
    """More layers than one option names need a kernel that takes an option for each. Raises :class:`Unsupported`."""
    from minictr.features.rootfs import LAYERS_JOINED
    from minictr.kernel.rootfs import many_layers

    if why := many_layers():
        cure = f"merge layers until there are {LAYERS_JOINED}, the root file system included"
        raise Unsupported("overlay", f"{count} layers: more than {LAYERS_JOINED} need Linux 6.5 ({why})", cure)


def _check_systemd(spec: Spec) -> None:
    """systemd as PID 1 gives up when it cannot mount, or make groups of its own: said before it is started."""
    if program_file(spec) != "systemd":
        return
    capabilities: Any = spec.get("capabilities")
    cgroupfs: Any = spec.get("cgroupfs")
    missing = []
    if capabilities is not None and "SYS_ADMIN" not in capabilities.bounding:
        missing.append("CAP_SYS_ADMIN")
    bound = any(getattr(feature, "target", "") == TOP for feature in spec.features)
    if (cgroupfs is None or cgroupfs.mode != "rw") and not bound:
        missing.append(f"a writable {TOP}")
    if missing:
        cure = f"run it with --profile lxc; missing here: {' and '.join(missing)}"
        raise SpecError(f"{spec.argv[0]} is systemd, which mounts file systems and makes control groups: {cure}")


def program_file(spec: Spec) -> str:
    """The name of the file that SPEC's program is, all links followed; as given where it is not there."""
    program = spec.argv[0]
    if program.startswith("/") and spec.rootfs:
        try:
            fd = open_inside(spec.rootfs, program, os.O_PATH)
        except OSError:
            return ""
        try:
            program = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            shut(fd)
    return program.rpartition("/")[2]


def _block_device(path: str) -> tuple[int, int]:
    """The numbers of the host's block device PATH."""
    try:
        stat = os.stat(path)
    except OSError as err:
        raise SpecError(f"io: {path}: {err.strerror}") from None
    if stat.st_mode >> 12 != 0o06:
        raise SpecError(f"io: {path} is no block device: name the disk, as /dev/sda")
    return os.major(stat.st_rdev), os.minor(stat.st_rdev)


def _host_hierarchies(spec: Spec) -> Spec:
    """SPEC with the host's hierarchies in its cgroupfs, and without groups that are wished for only where the host has
    such a hierarchy."""
    from minictr.kernel.cgroups import hierarchies

    mounted = [found for found in hierarchies() if found.mount]
    there = {name for found in mounted for name in found.controllers}
    legacy = [found for found in mounted if found.version == 1]
    if len(mounted) > len(legacy):
        there.add("unified")
    features = tuple(
        feature
        for feature in spec.features
        if feature.name != "named_cgroup" or getattr(feature, "required", True) or _controllers(feature) <= there
    )
    spec = spec.replace(features=features)
    cgroupfs: Any = spec.get("cgroupfs")
    if cgroupfs is None:
        return spec
    rows = [(1, os.path.basename(found.mount), found.controllers) for found in legacy]
    top = "unified" if legacy else ""
    rows += [(2, top, found.controllers) for found in mounted if found.version == 2]
    return spec.with_(cgroupfs.replace(hierarchies=tuple(rows)))


def _controllers(feature: Any) -> set[str]:
    return set(feature.controllers())


def checked_root(rootfs: str) -> str:
    """The absolute path of ROOTFS, which is a directory with something in it."""
    name = rootfs.rstrip("/") or "/"
    parent, last = os.path.split(name)
    plain = last not in ("", ".", "..")
    path = os.path.join(os.path.realpath(parent or "."), last) if plain else os.path.realpath(name)
    try:
        mode = os.lstat(path).st_mode
    except OSError as err:
        cure = "; make one with: minictr rootfs minimal DIR bash @coreutils" if err.errno == 2 else ""
        raise SpecError(f"rootfs {rootfs}: {err.strerror}{cure}") from None
    if mode >> 12 == 0o12:
        raise SpecError(f"rootfs {rootfs} is a symbolic link to {os.readlink(path)}: name the directory itself")
    if mode >> 12 != 0o04:
        raise SpecError(f"rootfs {rootfs} is not a directory")
    try:
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except PermissionError:
        return path  # to be searched need not mean to be read
    if empty:
        raise SpecError(f"rootfs {rootfs} is empty; fill it with: minictr rootfs minimal|debian|import")
    return path


def _no_links(spec: Spec) -> None:
    for place, feature in MOUNTED_BY.items():
        if feature not in spec.names:
            continue
        try:
            target = os.readlink(spec.rootfs + place)
        except OSError:
            continue
        raise SpecError(
            f"rootfs {spec.rootfs}: {place} is a symbolic link to {target}: {feature} would be mounted there; "
            f"make it a directory, or run --without {feature}"
        )


def open_inside(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of PATH as a process with ROOT as its / would see it. Raises OSError."""
    top = os.open(root or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = lib.mc_openat2(top, os.fsencode(path), flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    finally:
        shut(top)
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd), path)
    return int(fd)


def open_regular(root: str, path: str) -> int:
    """As :func:`open_inside`, for reading; OSError EINVAL for what is no regular file, which is not opened at all: a
    FIFO would hang us, and some devices act when they are opened."""
    fd = open_inside(root, path, os.O_PATH)
    try:
        if os.fstat(fd).st_mode >> 12 != 0o10:
            raise OSError(22, "is not a regular file", path)
    finally:
        shut(fd)
    return open_inside(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)


def removed(layer: str, path: str) -> bool:
    """Whether PATH is a whiteout of LAYER: device 0:0, which says that no layer below has it. overlayfs.rst."""
    fd = open_inside(layer, path, os.O_PATH)
    try:
        stat = os.fstat(fd)
        return stat.st_mode >> 12 == 0o02 and stat.st_rdev == 0
    finally:
        shut(fd)


def _rows(spec: Spec, path: str) -> Iterator[list[str]]:
    """The rows of a database file of the root, from the topmost layer that has it; none if there is none."""
    overlay: Any = spec.get("overlay")
    layers = [spec.rootfs] if overlay is None else [*filter(None, (overlay.upper,)), spec.rootfs, *overlay.lower]
    for layer in layers:
        try:
            fd = open_regular(layer, path)
        except OSError as err:
            if err.errno == 22 and removed(layer, path):
                return
            if err.errno == 22:
                raise SpecError(f"rootfs {spec.rootfs}: {path} is not a regular file") from None
            continue
        with open(fd, "rb") as file:
            text = file.read(MAX_DATABASE).decode("utf-8", "surrogateescape")
        for line in text.split("\n"):
            fields = line.split(":")
            if len(fields) >= 4 and not line.startswith(("#", "+", "-")):
                yield fields
        return


def _known(identity: Identity, spec: Spec) -> Identity:
    """IDENTITY with numbers: uid, gid, supplementary groups and home, as docker resolves USER[:GROUP]."""
    user, colon, group = identity.user.partition(":")
    passwd = [row for row in _rows(spec, "/etc/passwd") if len(row) >= 7 and _is_id(row[2]) and _is_id(row[3])]
    uid, gid, home, name = _user(user, passwd, spec.rootfs)
    groups = [row for row in _rows(spec, "/etc/group") if _is_id(row[2])]
    extra: set[int] = set(identity.groups)
    if colon:
        gid = _group(group, groups, spec.rootfs)
    elif name:
        extra |= {int(row[2]) for row in groups if name in row[3].split(",")}
    return identity.replace(uid=uid, gid=gid, groups=tuple(sorted(extra - {gid})), home=identity.home or home)


def _is_id(text: str) -> bool:
    """Whether TEXT is a user or group id: a hostile database may hold a number of a million digits."""
    return text.isascii() and text.isdigit() and len(text) <= 10


def _user(user: str, passwd: list[list[str]], root: str) -> tuple[int, int, str, str]:
    """(uid, gid, home, name): a number need not be known, a name must be. A number is never a name: an image with a
    user "1000" of id 0 would make root of who asked for 1000 (runc: libcontainer/user, GetExecUser)."""
    if decimal(user):
        row = next((row for row in passwd if int(row[2]) == int(user)), None)
        if row is None:
            return int(user), 0, "/", ""
    else:
        row = next((row for row in passwd if row[0] == user), None)
    if row is None:
        raise SpecError(f"--user {user}: no such user in {root or ''}/etc/passwd; give a number, or add it there")
    return int(row[2]), int(row[3]), row[5] or "/", row[0]


def _group(group: str, groups: list[list[str]], root: str) -> int:
    if decimal(group):
        return int(group)
    row = next((row for row in groups if row[0] == group), None)
    if row is not None:
        return int(row[2])
    raise SpecError(f"--user :{group}: no such group in {root or ''}/etc/group; give a number, or add it there")


def check_program(spec: Spec, paths: tuple[str, ...]) -> None:
    """End a start that must fail at exec before it begins: the program is looked for as exec will.

    Left to the kernel where a bind, tmpfs or layer could bring the program in, or where the path is relative or a file
    of procfs or of /dev (``/dev/fd/3``).
    """
    if spec.names & {"bind", "tmpfs", "overlay"}:
        return
    if any(not path.startswith("/") or path.startswith(("/proc/", "/dev/")) for path in paths):
        return
    for path in paths:
        try:
            fd = open_inside(spec.rootfs, path, os.O_PATH)
        except OSError as err:
            if err.errno not in (2, 20):  # ENOENT, ENOTDIR: as exec, the search goes on
                return
            continue
        try:
            stat = os.fstat(fd)
        finally:
            shut(fd)
        if stat.st_mode >> 12 == 0o10 and stat.st_mode & 0o111 and _magic(spec.rootfs, path):
            return
    from minictr.runtime.diagnose import exec_failed

    raise exec_failed(spec, paths, 0, 0, 0)


def _magic(root: str, path: str) -> bool:
    """Whether the file begins as a program for this machine, or a script, does; unreadable counts as yes."""
    try:
        fd = open_regular(root, path)
    except OSError:
        return True
    try:
        head = os.read(fd, 20)
    finally:
        shut(fd)
    if head[:4] != b"\x7fELF":
        return head[:2] == b"#!"
    foreign = int.from_bytes(head[18:20], "little" if head[5:6] == b"\x01" else "big") not in machines()
    return not foreign or os.path.exists("/proc/sys/fs/binfmt_misc/status")  # an emulator may be registered for it


def machines() -> tuple[int, ...]:
    """ELF machine numbers that this kernel's own architecture runs (elf.h): x86_64 also i386, arm64 also arm."""
    return {"x86_64": (62, 3), "aarch64": (183, 40)}.get(os.uname().machine, ())
