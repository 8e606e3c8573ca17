"""Seccomp notification: calls that wait until whoever has the filter's listener answers. seccomp_unotify(2), Linux 5.0.

The listener is what :func:`minictr.kernel.seccomp.load` answers with ``flags=NEW_LISTENER``: a descriptor that is
readable while calls wait, and hangs up (Linux 5.9) when no process has the filter any more. When it is closed
everywhere, what waits and what comes fails with ENOSYS.

::

    found = receive(listener)                 # the next call, or None: it is gone
    path = string(listener, found.id, found.pid, found.args[0])
    respond(listener, found.id, error=errno.EPERM)

What a call's pointers lead to is memory of a program that runs on: another thread of it can change it after it was
read. So a decision about memory is worth something only if the call is then answered, never if it is let go on
(``proceed``), for then the kernel reads it again: seccomp_unotify(2), "Caveats".
"""

from __future__ import annotations

import fcntl
import os
import struct

from minictr.errors import MinictrError, SpecError, StepFailed, errno_name
from minictr.kernel.core import ffi, lib
from minictr.steps import Support

__all__ = [
    "Gone",
    "Notification",
    "Refusal",
    "add_fd",
    "probe",
    "read",
    "receive",
    "respond",
    "sizes",
    "string",
    "valid",
]

# linux/seccomp.h: struct seccomp_notif, seccomp_notif_resp, seccomp_notif_addfd
NOTIF = struct.Struct("=QIIiIQ6Q")
RESPONSE = struct.Struct("=QqiI")
ADDFD = struct.Struct("=QIIII")
ID = struct.Struct("=Q")
# SECCOMP_IOCTL_NOTIF_*: _IOWR('!', 0, struct seccomp_notif) and so on, asm-generic/ioctl.h
RECV, SEND, ID_VALID, ADD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5
SETFD, ADDFD_SEND = 1, 2  # SECCOMP_ADDFD_FLAG_*, Linux 5.9 and 5.14
ENOENT, ESRCH, EINTR, EIO, EFAULT, EINVAL, EMFILE, ENAMETOOLONG = 2, 3, 4, 5, 14, 22, 24, 36
PATH_MAX = 4096  # linux/limits.h, with the NUL
MOST = 1 << 20  # bytes that are read at once
PAGE = 4096


class Gone(ProcessLookupError):
    """The call waits no more: its process was killed, a signal interrupted it, or it is answered."""


class Refusal(OSError):
    """What the kernel would have told the program itself: a bad address (EFAULT), a text without an end (ENAMETOOLONG),
    too many open files (EMFILE)."""


class Notification:
    """A call that waits: ``id``; ``pid``, of the calling thread as this process counts, 0 where it cannot see it;
    ``number``; ``arch``: AUDIT_ARCH_*; ``instruction``: the address it was made at; ``args``: six unsigned numbers."""

    __slots__ = ("arch", "args", "id", "instruction", "number", "pid")

    def __init__(self, data: bytes | bytearray) -> None:
        self.id, self.pid, _, self.number, self.arch, self.instruction, *args = NOTIF.unpack_from(data)
        self.args: tuple[int, ...] = tuple(args)


def sizes() -> tuple[int, int, int]:
    """Bytes of the kernel's struct seccomp_notif, seccomp_notif_resp and seccomp_data (SECCOMP_GET_NOTIF_SIZES).

    Raises StepFailed: EINVAL before Linux 5.0, ENOSYS.
    """
    found = ffi.new("uint16_t[3]")
    result = lib.mc_notif_sizes(found)
    if result < 0:
        raise StepFailed("seccomp notification sizes", -result, cure="notify needs Linux 5.0")
    return found[0], found[1], found[2]


_sizes: list[int] = []


def _buffer(kind: struct.Struct, which: int) -> bytearray:
    """Room for KIND, and for what a newer kernel has behind it."""
    if not _sizes:
        _sizes.extend(sizes())
    return bytearray(max(kind.size, _sizes[which]))


def receive(listener: int) -> Notification | None:
    """The next call that waits; None where it went while it was looked at. Waits for one: poll first.

    Raises OSError.
    """
    while True:
        data = _buffer(NOTIF, 0)  # zeroed, or it is EINVAL
        try:
            fcntl.ioctl(listener, RECV, data)
        except OSError as err:
            if err.errno == EINTR:
                continue
            if err.errno == ENOENT:
                return None
            raise
        return Notification(data)


def valid(listener: int, id: int) -> bool:
    """Whether call ID still waits. While it does, its pid is nobody else's. Raises OSError."""
    try:
        fcntl.ioctl(listener, ID_VALID, ID.pack(id))
    except OSError as err:
        if err.errno == ENOENT:
            return False
        raise
    return True


def must_be_valid(listener: int, id: int) -> None:
    """Raise Gone where call ID waits no more."""
    if not valid(listener, id):
        raise Gone(ESRCH, "the system call waits no more")


def respond(listener: int, id: int, *, value: int = 0, error: int = 0, proceed: bool = False) -> bool:
    """Call ID returns VALUE, or fails with the errno ERROR, or with ``proceed`` (Linux 5.5) is done as if nobody had
    been asked. False: it is gone. Raises OSError; SpecError for numbers that say something else to a program.

    ``proceed`` never permits what memory decides, see above: it is for calls that another rule or right will judge.
    """
    if not 0 <= error <= 4095 or bool(value) + bool(error) + proceed > 1:
        raise SpecError("seccomp: a call returns a value, fails with an errno up to 4095, or proceeds")
    if not -(1 << 63) <= value < 1 << 63 or -4095 <= value < 0:
        raise SpecError(f"seccomp: {value} is no value of a system call: from -4095 to -1 are errno, else 64 bits")
    data = _buffer(RESPONSE, 1)
    RESPONSE.pack_into(data, 0, id, value, -error, CONTINUE if proceed else 0)
    try:
        fcntl.ioctl(listener, SEND, data)
    except OSError as err:
        if err.errno == ENOENT:
            return False
        raise
    return True


def add_fd(listener: int, id: int, fd: int, *, at: int = -1, cloexec: bool = False, send: bool = False) -> int:
    """A copy of FD among the descriptors of who made call ID: its number there. Linux 5.9.

    ``at``: that very number, whatever it was; -1: the lowest free. ``send``: the call is answered with it in the same
    moment (Linux 5.14; before, by a second step). Raises Gone; Refusal: EMFILE, it may have no more; OSError: EBADF,
    EINVAL before 5.9.
    """
    flags, newfd = SETFD if at >= 0 else 0, max(at, 0)
    try:
        return _add(listener, id, flags | (ADDFD_SEND if send else 0), fd, newfd, cloexec)
    except OSError as err:
        if err.errno != EINVAL or not send:
            raise
    number = _add(listener, id, flags, fd, newfd, cloexec)
    if not respond(listener, id, value=number):
        raise Gone(ESRCH, "the system call waits no more")
    return number


def _add(listener: int, id: int, flags: int, fd: int, newfd: int, cloexec: bool) -> int:
    data = bytearray(ADDFD.pack(id, flags, fd, newfd, os.O_CLOEXEC if cloexec else 0))
    try:
        return int(fcntl.ioctl(listener, ADD, data))
    except OSError as err:
        if err.errno == ENOENT:
            raise Gone(ESRCH, "the system call waits no more") from None
        if err.errno == EMFILE:
            raise Refusal(EMFILE, "the program may open no more descriptors") from None
        raise


def read(listener: int, id: int, pid: int, address: int, size: int) -> bytes:
    """SIZE bytes (at most 1 MiB) at ADDRESS of the process that made call ID, PID its thread; fewer at the end of what
    is mapped.

    By /proc/PID/mem: opened, then the call looked at again, for until then PID may be another's; and once more when
    they are read. Raises Gone; Refusal (EFAULT); OSError: EACCES without the right to trace it (ptrace(2)), ESRCH where
    it is in a pid namespace that this process does not see.
    """
    if not 0 <= size <= MOST:
        raise SpecError(f"seccomp: {size} bytes of a program's memory: from 0 to {MOST}")
    memory = _memory(listener, id, pid)
    try:
        data = _peek(memory, address, size)
    finally:
        os.close(memory)
    must_be_valid(listener, id)
    return data


def string(listener: int, id: int, pid: int, address: int, limit: int = PATH_MAX) -> bytes:
    """The bytes up to a NUL at ADDRESS: as :func:`read`. Refusal (ENAMETOOLONG) where there is none in LIMIT bytes."""
    if not 0 < limit <= MOST:
        raise SpecError(f"seccomp: {limit} bytes of a program's memory: from 1 to {MOST}")
    memory = _memory(listener, id, pid)
    found = b""
    try:
        while b"\0" not in found:
            if len(found) >= limit:
                raise Refusal(ENAMETOOLONG, f"no end of the text in {limit} bytes")
            at = address + len(found)
            found += _peek(memory, at, min(PAGE - at % PAGE, limit - len(found)))
    finally:
        os.close(memory)
    must_be_valid(listener, id)
    return found[: found.index(b"\0")]


def _memory(listener: int, id: int, pid: int) -> int:
    """A descriptor of the process's memory: as long as it is open, of no other."""
    if pid == 0:
        raise ProcessLookupError(ESRCH, "the process is in a pid namespace that this one does not see")
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):  # it is reaped, or waits for that
        raise Gone(ESRCH, "the process is gone") from None
    try:
        must_be_valid(listener, id)
    except BaseException:
        os.close(memory)
        raise
    return memory


def _peek(memory: int, address: int, size: int) -> bytes:
    if not size:
        return b""
    try:
        data = os.pread(memory, size, address)
    except OverflowError:  # not even the kernel has addresses there that files can tell
        raise Refusal(EFAULT, f"bad address {address:#x}") from None
    except OSError as err:
        if err.errno not in (EIO, EFAULT):
            raise
        raise Refusal(EFAULT, f"bad address {address:#x}") from None
    if not data:
        raise Gone(ESRCH, "the process is gone")
    return data


def probe() -> dict[str, Support]:
    """Whether calls can be decided so: by the kernel's own words, nothing is loaded. ``reason`` tells what it lacks."""
    try:
        sizes()
        from minictr.kernel.seccomp import actions_available

        if "user_notif" not in actions_available():
            return {"seccomp_notify": Support(False, "this kernel's filters have no user_notif", "needs Linux 5.0")}
    except StepFailed as err:
        return {"seccomp_notify": Support(False, errno_name(err.errno or 0), "needs Linux 5.0")}
    except MinictrError as err:
        return {"seccomp_notify": Support(False, str(err))}
    return {"seccomp_notify": Support(True, "" if killable() else "a signal interrupts a call, before Linux 5.19")}


def killable() -> bool:
    """Whether this kernel has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: an unknown flag is EINVAL before all else."""
    return int(lib.mc_seccomp(1, 8 | 32, ffi.NULL, 0)) != -EINVAL
