"""Labels of security modules, as /proc/PID/attr and securityfs show them. What apparmor and selinux have in common.

proc_pid_attr(5), Documentation/admin-guide/LSM.
"""

from __future__ import annotations

import os

from minictr.errors import StepFailed, errno_name
from minictr.kernel import ops, procfs
from minictr.kernel.child import Child
from minictr.steps import Support

__all__ = ["active", "attribute", "set_exec", "told", "tried"]

SECURITYFS = "/sys/kernel/security"
ENOENT, EINVAL = 2, 22


def active() -> tuple[str, ...]:
    """The security modules of this kernel, in its order. Linux 4.9; () where securityfs is not mounted or not ours."""
    try:
        with open(f"{SECURITYFS}/lsm", encoding="utf-8") as file:
            return tuple(file.read().strip().split(","))
    except OSError:
        return ()


def told() -> str:
    """The modules that are live, in words."""
    modules = active()
    return f"the security modules of this kernel are {', '.join(modules)}" if modules else "this kernel runs without it"


def attribute(pid: int | str, path: str) -> str | None:
    """The label in /proc/PID/attr/PATH, 0 for the calling thread; None where no such module is live.

    Raises StepFailed: ENOENT or ESRCH for a process that is over, EACCES.
    """
    try:
        return procfs.read(pid or "thread-self", f"attr/{path}").rstrip("\0\n")
    except StepFailed as err:
        if err.errno == EINVAL:
            return None  # nobody answers
        if err.errno == ENOENT and not os.path.exists(f"/proc/thread-self/attr/{path}"):
            return None  # this kernel does not know the module
        raise


def set_exec(module: str, order: str, label: str, cures: dict[int, str]) -> None:
    """The label of the calling thread's next program, verified to be LABEL. CURES: by errno."""
    try:
        ops.execute("exec_label", about=f"{module} {label}", module=module, order=order, label=label)
    except StepFailed as err:
        number = err.errno or 0
        raise StepFailed(err.what, number, cure=cures.get(number, "")) from err


def tried(module: str, order: str, label: str, cures: dict[int, str]) -> Support:
    """Whether a label can be set: done in a child that ends at once."""
    try:
        with Child(0, [("exec_label", {"module": module, "order": order, "label": label})]) as child:
            failed = child.attempt()
    except StepFailed as err:
        return Support(False, str(err))
    if failed is None:
        return Support(True)
    call, number = failed
    words = f"{call.replace('_', ' ')}: {errno_name(number)} ({os.strerror(number)})"
    return Support(False, words, cures.get(number, ""), number)
