"""What surrounds this process: an outer container, a filter, a security module, capabilities that root has not.

``refused_calls`` performs: each system call the runtime needs is made with arguments that the kernel itself refuses
with another error than EPERM, ENOSYS or a signal before it looks at anything; so whoever answers that stands before
the kernel. seccomp(2), Linux 3.17.
"""

from __future__ import annotations

import ctypes
import os
import signal

from minictr.errors import StepFailed, Unsupported, errno_name
from minictr.kernel import capabilities, labels, procfs, users
from minictr.values import Value

__all__ = ["HARMLESS", "Surroundings", "refused_calls", "surroundings"]

EPERM, EACCES, ENOSYS = 1, 13, 38
EVERY_ID = ((0, 0, 4294967295),)
BAD = -1  # no descriptor, no process
WRONG = 0x7FFFFFFF  # flags, commands and sizes that no kernel knows

# call -> arguments, and whether the kernel wants CAP_SYS_ADMIN before it looks at them
HARMLESS: dict[str, tuple[tuple[int, ...], bool]] = {
    "bpf": ((WRONG, 0, 0), True),
    "chroot": ((0,), False),
    "clone3": ((0, 0), False),
    "close_range": ((2, 1, 0), False),
    "execveat": ((BAD, 0, 0, 0, WRONG), False),
    "fsopen": ((0, WRONG), True),
    "keyctl": ((WRONG, 0, 0, 0, 0), False),
    "landlock_create_ruleset": ((0, 0, 1), False),  # its version, or EOPNOTSUPP where it is switched off
    "memfd_create": ((0, WRONG), False),
    "mknodat": ((BAD, 0, 0, 0), False),
    "mount": ((0, 0, 0, 0, 0), False),
    "mount_setattr": ((BAD, 0, WRONG, 0, 0), False),
    "move_mount": ((BAD, 0, BAD, 0, WRONG), True),
    "open_tree": ((BAD, 0, 0), False),
    "openat2": ((BAD, 0, 0, 0), False),
    "personality": ((0xFFFFFFFF,), False),  # asks
    "pidfd_open": ((BAD, 0), False),
    "pidfd_send_signal": ((BAD, 0, 0, 0), False),
    "pivot_root": ((0, 0), True),
    "prctl": ((WRONG, 0, 0, 0, 0), False),
    "ptrace": ((WRONG, BAD, 0, 0), False),
    "seccomp": ((WRONG, 0, 0), False),
    "sethostname": ((0, BAD), True),
    "setns": ((BAD, 0), False),
    "umount2": ((0, WRONG), False),
    "unshare": ((1,), False),
}


class Surroundings(Value):
    """``filters``: seccomp filters on this thread; 1 where the kernel only says that there are some (before Linux 5.9).

    ``effective``: its capabilities; ``lacking``: those that its bounding set has not, and so its root has not either.
    ``own_users``: in a user namespace of its own. ``modules``: the kernel's security modules, ``label``: the live one's
    word for this thread. ``refused``: call -> errno name, or the signal that ended the call."""

    uid: int
    effective: tuple[str, ...]
    lacking: tuple[str, ...]
    own_users: bool
    no_new_privs: bool
    filters: int
    modules: tuple[str, ...]
    label: str
    refused: dict[str, str]

    @property
    def confined(self) -> bool:
        """Whether a security module has a label for this process that is not its word for none."""
        return bool(self.label) and not self.label.startswith(("unconfined", "kernel"))


def surroundings() -> Surroundings:
    """Those of the calling thread. Some milliseconds: one child. Raises StepFailed where /proc is not readable."""
    rows = procfs.status()
    bounding = capabilities.bounding()
    known = capabilities.names((1 << capabilities.last_cap() + 1) - 1)
    effective = capabilities.get().effective
    own_users = users.read_map() != EVERY_ID
    mode = int(rows.get("Seccomp", "0"))
    return Surroundings(
        uid=os.geteuid(),
        effective=effective,
        lacking=tuple(name for name in known if name not in bounding),
        own_users=own_users,
        no_new_privs=rows.get("NoNewPrivs") == "1",
        filters=int(rows.get("Seccomp_filters", "1")) if mode == 2 else 0,
        modules=labels.active(),
        label=_label(),
        refused=refused_calls(administrator="SYS_ADMIN" in effective and not own_users),
    )


def _label() -> str:
    for path in ("apparmor/current", "current"):
        try:
            text = labels.attribute(0, path)
        except StepFailed:
            continue
        if text:
            return text
    return ""


def refused_calls(*, administrator: bool) -> dict[str, str]:
    """Call -> who it is answered by: ``EPERM``, ``ENOSYS`` (a filter, or a kernel without it), ``SIGSYS``.

    ADMINISTRATOR: whether this thread has CAP_SYS_ADMIN on the host; without it nothing can be said of some calls. Each
    is made in a child of its own, for a filter may kill. Nothing is found without libseccomp. Raises StepFailed where
    no child can be made.
    """
    try:
        from minictr.kernel.seccomp_library import number_of
    except Unsupported:
        return {}  # no libseccomp, which knows the numbers
    libc = ctypes.CDLL(None, use_errno=True)
    machine = os.uname().machine
    found = {}
    for name, (args, needs) in HARMLESS.items():
        number = number_of(name, machine)
        if number is None or number < 0 or (needs and not administrator):
            continue
        answer = _answer(libc, number, args)
        if answer:
            found[name] = answer
    return found


def _answer(libc: ctypes.CDLL, number: int, args: tuple[int, ...]) -> str:
    """What the call NUMBER comes back with, where that is not the kernel's own word; else ""."""
    try:
        pid = os.fork()
    except OSError as err:
        raise StepFailed("fork a child to try system calls in", err.errno or 0) from err
    if pid == 0:
        code = 255
        try:
            done = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
            code = ctypes.get_errno() if done == -1 else 0
        finally:
            os._exit(min(code, 254))
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return errno_name(code) if code in (EPERM, EACCES, ENOSYS) else ""
