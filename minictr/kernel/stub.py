"""The stub on its way into a child: the sealed memory file, the region it interprets, and the clone3 that starts it.

Used by a container's start (``runtime/launch.py``), by short-lived children (``kernel/child.py``), and by a monitor
(``kernel/monitor.py``), whose program is sealed here too. Layouts are those of ``_core/core.h``, by field name.
Linux 5.5 (CLONE_CLEAR_SIGHAND), memory files 3.17.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from minictr.errors import StepFailed
from minictr.kernel.core import ffi, lib
from minictr.kernel.handles import shut
from minictr.kernel.ops import OP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_INTO_CGROUP = 0x200000000  # linux/sched.h
HEADER_SIZE = ffi.sizeof("struct mc_region")
MAX_KEEP = int(lib.MC_MAX_KEEP)
EBADF = 9
_MFD = 0x3  # MFD_CLOEXEC | MFD_ALLOW_SEALING, linux/memfd.h
_MFD_EXEC = 0x10  # Linux 6.3: where vm.memfd_noexec=1 is set, a program must ask
_F_ADD_SEALS, _ALL_SEALS = 1033, 0xF  # linux/fcntl.h
_sealed: dict[str, tuple[int, int]] = {}  # descriptor and inode of this process's programs
_making = allocate_lock()
STUB, MONITOR, PROXY = "minictr-init", "minictr-mon", "minictr-proxy"  # as ps shows them
_PROGRAMS = {
    STUB: lambda: bytes(ffi.buffer(lib.mc_stub(), lib.mc_stub_size())),
    MONITOR: lambda: bytes(ffi.buffer(lib.mc_monitor_program(), lib.mc_monitor_program_size())),
    PROXY: lambda: bytes(ffi.buffer(lib.mc_proxy_program(), lib.mc_proxy_program_size())),
}


def region(
    ops: bytes, blob: bytes, report: int, keep: Collection[int], *, joins: bool = False, forks: bool = False
) -> bytes:
    """struct mc_region with OPS and BLOB behind it. REPORT: the pipe's write end. KEEP: all the child needs.

    ``joins``: the child enters namespaces that others are in, and must not be traceable from its first instruction.
    ``forks``: it goes on in a child of its own (:func:`born_offset`).
    """
    head = ffi.new("struct mc_region *")
    head.magic, head.version = lib.MC_REGION_MAGIC, lib.MC_REGION_VERSION
    head.n_ops, head.blob_offset = len(ops) // OP.size, HEADER_SIZE + len(ops)
    head.size = HEADER_SIZE + len(ops) + len(blob)
    head.report_fd, head.n_keep = report, len(keep)
    head.flags = (lib.MC_REGION_JOINS if joins else 0) | (lib.MC_REGION_FORKS if forks else 0)
    head.keep[0 : len(keep)] = sorted(keep)
    return bytes(ffi.buffer(head)) + ops + blob


def born_offset(size: int) -> int:
    """Where, behind a region of SIZE bytes, the pid of the child stands that the op fork made: an int32, 0 before."""
    align = int(lib.MC_BORN_ALIGN)
    return -(-size // align) * align


def spawn(flags: int, region_fd: int, keep: Collection[int], cgroup: int = -1) -> tuple[int, int]:
    """clone3 with FLAGS (CLONE_NEW*) and the exec of the stub in the child: (pid, pidfd), the pid unreaped.

    ``cgroup``: a descriptor of a cgroup v2 directory that the child is born in (CLONE_INTO_CGROUP, Linux 5.7).
    Raises :class:`StepFailed` for clone3, or for the exec after reaping the child.
    """
    request = ffi.new("struct mc_spawn *")
    request.flags, request.stub_fd, request.region_fd = flags, sealed_stub(), region_fd
    if cgroup >= 0:
        request.flags, request.cgroup_fd = flags | CLONE_INTO_CGROUP, cgroup
    request.raise_caps, request.name = bool(flags & CLONE_NEWUSER), STUB.encode()
    result = lib.mc_spawn(request, list(keep), len(keep))
    if result < 0:
        raise StepFailed("clone3", -result)
    if request.exec_error:
        shut(request.pidfd)
        os.waitpid(request.pid, 0)
        raise not_executed(request.exec_error)
    return request.pid, request.pidfd


def not_executed(number: int) -> StepFailed:
    """The exec of a sealed program failed with errno NUMBER."""
    return StepFailed("execveat of the sealed stub", number, cure="vm.memfd_noexec must not be 2")


def sealed_stub() -> int:
    """The sealed memory file with the static program: one a process, made when first needed, close-on-exec."""
    return _program(STUB)


def sealed_monitor() -> int:
    """As :func:`sealed_stub`, of the monitor."""
    return _program(MONITOR)


def sealed_proxy() -> int:
    """As :func:`sealed_stub`, of the proxy of published ports."""
    return _program(PROXY)


def _program(name: str) -> int:
    with _making:  # threads that start at once make one
        fd, inode = _sealed.get(name, (-1, 0))
        try:
            if fd >= 0 and os.fstat(fd).st_ino == inode:
                return fd
        except OSError as err:
            if err.errno != EBADF:  # somebody closed all descriptors, as daemons do
                raise
        _sealed[name] = _new_program(name)
        return _sealed[name][0]


def _new_program(name: str) -> tuple[int, int]:
    """(descriptor, inode) of a fresh one."""
    import fcntl

    data = _PROGRAMS[name]()
    try:
        fd = os.memfd_create(name, _MFD | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create(name, _MFD)
    try:
        os.write(fd, data)
        fcntl.fcntl(fd, _F_ADD_SEALS, _ALL_SEALS)
        return fd, os.fstat(fd).st_ino
    except BaseException:
        shut(fd)
        raise
