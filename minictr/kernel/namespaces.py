"""Namespaces: make, join, leave, identify. namespaces(7), unshare(2), setns(2).

=========  ========  ======  ====================================  ======================================
kind       /proc     Linux   own                                   left again by ``with unshare(...)``
=========  ========  ======  ====================================  ======================================
mnt        mnt       2.4.19  mount table                           yes; cwd and umask stay its own
uts        uts       2.6.19  host name, NIS domain name            yes
ipc        ipc       2.6.19  System V IPC, POSIX message queues    yes
pid        pid       2.6.24  process ids, of children only         yes; meanwhile it starts no threads
net        net       2.6.29  devices, addresses, routes, ports     yes
cgroupns   cgroup    4.6     root of the cgroup tree               yes
timens     time      5.6     monotonic and boot clock, children    yes, if the process has one thread
userns     user      3.8     ids and capabilities                  no: see :func:`unshare`
=========  ========  ======  ====================================  ======================================

Namespaces belong to a *thread*: everything here acts on the calling one.
"""

from __future__ import annotations

import os
from _thread import get_native_id
from fcntl import ioctl

from minictr.errors import MinictrError, SpecError, StepFailed, Unsupported
from minictr.kernel import procfs
from minictr.kernel.core import check, lib
from minictr.kernel.handles import Handle, shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = [
    "KINDS",
    "Inside",
    "enter",
    "identify",
    "open_namespace",
    "pid_for_children",
    "probe",
    "set_time_offsets",
    "time_offsets",
    "unshare",
]

CLONE_FS = 0x00000200  # linux/sched.h
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h; Linux 4.11
# kind -> (CLONE_NEW* of linux/sched.h, word under /proc/PID/ns)
KINDS: dict[str, tuple[int, str]] = {
    "mnt": (0x00020000, "mnt"),
    "uts": (0x04000000, "uts"),
    "ipc": (0x08000000, "ipc"),
    "pid": (0x20000000, "pid"),
    "net": (0x40000000, "net"),
    "userns": (0x10000000, "user"),
    "cgroupns": (0x02000000, "cgroup"),
    "timens": (0x00000080, "time"),
}
_KERNEL_WORDS = {"user": "userns", "cgroup": "cgroupns", "time": "timens", "mount": "mnt"}
_NEEDS_ADMIN = "this needs CAP_SYS_ADMIN: be root, or work in a child process with a user namespace of its own"


def kind_name(kind: str) -> str:
    """KIND as features are called; the kernel's own words (user, cgroup, time) are taken too."""
    name = _KERNEL_WORDS.get(kind, kind)
    if name not in KINDS:
        raise SpecError(f"namespace: {kind!r} is not one of {', '.join(KINDS)}")
    return name


# --- files of namespaces ---


def open_namespace(path: str, kind: str) -> int:
    """A descriptor of the namespace file PATH (``/proc/PID/ns/*``, or a bind of one), which must be of KIND.

    The caller closes it. Linux 4.11 (NS_GET_NSTYPE), ioctl_ns(2). Raises SpecError for a file that is no namespace or
    one of another kind, StepFailed where it cannot be opened.

    >>> fd = open_namespace("/run/netns/blue", "net")
    """
    name = kind_name(kind)
    try:
        # NONBLOCK, NOCTTY: a FIFO or a terminal given by mistake must not hold us
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as err:
        number = err.errno or 0 if isinstance(err, OSError) else 22
        raise StepFailed(f"open {name} namespace {path}", number) from err
    found = _kind_of(fd)
    if found != name:
        shut(fd)
        raise SpecError(f"{path}: " + (f"a {found} namespace, not {name}" if found else "not a namespace file"))
    return fd


def _kind_of(fd: int) -> str:
    """The kind of namespace FD is; "" for anything else, a pidfd included."""
    try:
        flag = ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        return ""
    return next((name for name, (number, _) in KINDS.items() if number == flag), "")


def identify(target: int | str, *, kind: str = "") -> int:
    """The inode number of a namespace: equal numbers are the same namespace. namespaces(7).

    TARGET is a process id with ``kind``, or the path of a namespace file. Raises StepFailed.

    >>> identify(os.getpid(), kind="net") == identify(1, kind="net")
    """
    if isinstance(target, int) or target in ("self", "thread-self"):
        if not kind:
            raise SpecError(f"identify: which namespace of process {target}? give kind=")
        target = f"/proc/{target or 'self'}/ns/{KINDS[kind_name(kind)][1]}"
    try:
        return os.stat(target).st_ino
    except OSError as err:
        raise StepFailed(f"identify namespace {target}", err.errno or 0) from err


class pid_for_children(Handle):
    """``with pid_for_children(fd):`` children of this thread are born in the pid namespace of descriptor FD.

    setns(2) with CLONE_NEWPID, Linux 3.8; the thread itself stays where it is. FD must be of this pid namespace or of
    one below it. Meanwhile the kernel refuses this thread to start threads (EINVAL). Raises StepFailed.
    """

    def __init__(self, fd: int) -> None:
        self._fd, self._saved = fd, -1

    def __enter__(self) -> pid_for_children:
        self._saved = os.open("/proc/thread-self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        result = lib.mc_setns(self._fd, KINDS["pid"][0])
        if result < 0:
            shut(self._saved)
            check(result, "setns pid: children into the namespace", _NEEDS_ADMIN if result == -1 else "")
        self._open = True
        return self

    def _close(self) -> None:
        try:
            check(lib.mc_setns(self._saved, KINDS["pid"][0]), "setns pid: children back into the own namespace")
        finally:
            shut(self._saved)


# --- make and join, with the way back ---


class Inside(Handle):
    """This thread is in other namespaces until ``close()`` or the end of ``with``. Made by unshare() and enter().

    ``kinds``: which. ``keep()`` gives up the way back.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self._thread, self._process = get_native_id(), os.getpid()
        self._saved: dict[str, int] = {}
        try:
            for kind in kinds:
                word = "pid_for_children" if kind == "pid" else KINDS[kind][1]
                self._saved[kind] = os.open(f"/proc/thread-self/ns/{word}", os.O_RDONLY | os.O_CLOEXEC)
            if "mnt" in kinds:  # setns(2) moves both to the root of the namespace
                for name in ("/", "."):
                    self._saved[name] = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            self._forget()
            raise StepFailed(f"save the way back from {', '.join(kinds)}", err.errno or 0) from err

    def __repr__(self) -> str:
        return f"<inside {', '.join(self.kinds)}>"

    def keep(self) -> None:
        """Stay: the way back is forgotten."""
        self._open = False
        self._forget()

    def _close(self) -> None:
        if os.getpid() == self._process and get_native_id() != self._thread:
            self._open = True
            raise MinictrError(f"leave {', '.join(self.kinds)}: only the thread that went in can leave")
        try:
            for kind in self.kinds:
                check(lib.mc_setns(self._saved[kind], KINDS[kind][0]), f"setns {kind}: back", _way_back(kind))
            if "mnt" in self._saved:
                os.fchdir(self._saved["/"])
                os.chroot(".")
                os.fchdir(self._saved["."])
        finally:
            self._forget()

    def _drop(self) -> None:
        self.keep()  # the collector may run in any thread

    def _forget(self) -> None:
        while self._saved:
            shut(self._saved.popitem()[1])


def _way_back(kind: str) -> str:
    if kind == "mnt":
        return "a thread started meanwhile shares this thread's root and directory, or the privilege is gone"
    return "a second thread was started meanwhile" if kind == "timens" else "the privilege to go back is gone"


def unshare(*kinds: str, propagation: str = "private", monotonic: float = 0, boottime: float = 0) -> Inside:
    """New namespaces for the calling thread, at once; ``with`` leaves them again. unshare(2), setns(2).

    KINDS: see the module's table. ``propagation`` of a new mount namespace: private (nothing crosses), slave (the
    parent's later mounts come in), shared (new mounts reach the parent), or "" as copied. ``monotonic`` and
    ``boottime``: offsets in seconds of a new time namespace, which only children enter; as do those of a pid namespace.

    A mount namespace gives the thread a root, directory and umask of its own for the rest of its life (CLONE_FS):
    chdir() in other threads no longer moves it. In a chroot whose root is no mount point give ``propagation=""``.

    Raises SpecError for ``userns``: a thread that came back would regain privilege it gave up, so setns(2) refuses, and
    a process with threads cannot even go in (EINVAL). Use a child process: ``users.user_namespace``, or a container
    with the userns feature. Raises Unsupported for ``timens`` in a process with several threads, StepFailed otherwise.

    >>> with unshare("net", "uts"):
    ...     process.sethostname("lab")
    """
    names = _checked(kinds, "unshare")
    if propagation not in ("", "private", "slave", "shared"):
        raise SpecError(f"unshare mnt propagation: {propagation!r} is not private, slave or shared")
    if (monotonic or boottime) and "timens" not in names:
        raise SpecError("unshare: offsets need a new time namespace")
    inside = Inside(names)
    flags = sum(KINDS[name][0] for name in names)
    result = lib.mc_unshare(flags)
    if result < 0:
        inside.keep()
        check(result, f"unshare {', '.join(names)}", _refused(-result))
    inside._open = True
    try:
        if "mnt" in names and propagation:
            from minictr.kernel.mounts import propagation as set_propagation

            set_propagation("/", f"r{propagation}")
        if monotonic or boottime:
            set_time_offsets(monotonic=monotonic, boottime=boottime)
    except BaseException:
        inside.close()
        raise
    return inside


def enter(target: int | str = 0, *kinds: str, fd: int = -1) -> Inside:
    """Join namespaces with the calling thread, at once; ``with`` leaves them again. setns(2).

    TARGET is a process id (of which KINDS are joined, all or none; pidfd, Linux 5.8) or the path of a namespace file.
    ``fd`` instead: a pidfd, or a descriptor of a namespace; it stays the caller's. For a file KINDS may be left out;
    given, it is checked. For ``pid`` and ``timens`` only children go in. Raises as :func:`unshare`.

    >>> with enter(container.pid, "net"):
    ...     print(network.interfaces())
    """
    own = -1
    try:
        if fd < 0 and isinstance(target, int):
            fd = own = check(lib.mc_pidfd_open(target, 0), f"enter namespaces of process {target}")
        elif fd < 0:
            fd = own = _open_any(str(target))
        found = _kind_of(fd)
        if found and kinds and (found,) != tuple(map(kind_name, kinds)):
            raise SpecError(f"enter {target or fd}: a {found} namespace, not {', '.join(kinds)}")
        if not found and isinstance(target, str):
            raise SpecError(f"{target}: not a namespace file")
        return _join(fd, _checked((found,) if found else kinds, "enter"), str(target or f"descriptor {fd}"))
    finally:
        if own >= 0:
            shut(own)


def _join(fd: int, names: tuple[str, ...], whose: str) -> Inside:
    inside = Inside(names)
    if "mnt" in names:  # mntns_install() in fs/namespace.c refuses a thread that shares root and directory
        check(lib.mc_unshare(CLONE_FS), "unshare root and directory")
    result = lib.mc_setns(fd, sum(KINDS[name][0] for name in names))
    if result < 0:
        inside.keep()
        check(result, f"enter {', '.join(names)} of {whose}", _refused(-result))
    inside._open = True
    return inside


def _open_any(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as err:
        raise StepFailed(f"enter {path}", err.errno or 0) from err


def _checked(kinds: tuple[str, ...], verb: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(kind_name(kind) for kind in kinds))
    if not names:
        raise SpecError(f"{verb}: which namespaces? {', '.join(KINDS)}")
    if "userns" in names:
        raise SpecError(
            f"{verb} userns: a thread can never leave a user namespace (setns(2): it would regain privilege):"
            " use a child process, with users.user_namespace or a container's userns feature"
        )
    if "timens" in names and len(os.listdir("/proc/self/task")) > 1:
        raise Unsupported("timens", "setns(2) refuses it to a process with several threads", "use a child process")
    return names


def _refused(number: int) -> str:
    if number == 1:
        return _NEEDS_ADMIN
    cures = {22: "this kernel was built without it", 28: "a limit is reached: user.max_*_namespaces, or 32 nested ones"}
    return cures.get(number, "")


# --- clocks of a time namespace ---


def time_offsets(pid: int | str = "self") -> tuple[float, float]:
    """(monotonic, boottime): seconds by which the clocks of PID's *children* differ from the host's.

    Linux 5.6, time_namespaces(7). Raises StepFailed: ENOENT before 5.6.
    """
    rows = (line.split() for line in procfs.read(pid, "timens_offsets").splitlines())
    found = {clock: int(seconds) + int(nanoseconds) / 1e9 for clock, seconds, nanoseconds in rows}
    return found["monotonic"], found["boottime"]


def set_time_offsets(*, monotonic: float = 0, boottime: float = 0) -> None:
    """Set the clocks of the time namespace that this process's next children enter. Seconds; time_namespaces(7).

    Only after unshare("timens") and before the first child; EACCES afterwards, ERANGE beyond some 146 years.
    """
    rows = ""
    for clock, offset in (("monotonic", monotonic), ("boottime", boottime)):
        seconds, nanoseconds = divmod(round(offset * 1_000_000_000), 1_000_000_000)
        rows += f"{clock} {seconds} {nanoseconds}\n"
    procfs.write("self", "timens_offsets", rows, cure="only before the first child of a new time namespace")


def probe() -> dict[str, Support]:
    """Whether each of the eight can be had, each made once in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("namespaces")
