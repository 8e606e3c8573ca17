"""SELinux: whether it enforces, what context a process has, and the context of the next program. selinux(8).

By the kernel's own interface, without libselinux: /proc/PID/attr and selinuxfs.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed, Unsupported
from minictr.kernel import labels
from minictr.steps import Support

__all__ = [
    "canonical",
    "check",
    "container_contexts",
    "current",
    "enabled",
    "enforcing",
    "exec_context",
    "mount_option",
    "probe",
]

SELINUXFS = "/sys/fs/selinux"
EPERM, ENOENT, EACCES, EINVAL = 1, 2, 13, 22
LIVE = "boot with security=selinux, or with selinux in lsm=, and a policy that is loaded (load_policy(8))"
CURES = {
    ENOENT: "there is no /proc",
    EACCES: "the policy lets this domain set no context for a program: allow it process:setexec",
    EPERM: "what was read back is not what was asked for: refused",
    EINVAL: "the loaded policy has no such context: an unknown part, or two that do not go together",
}
# Where distributions keep the contexts of containers: container-selinux; a policy's own, by its name.
CONTEXTS = ("/usr/share/containers/selinux/contexts", "/etc/selinux/{policy}/contexts/lxc_contexts")
CONFIG = "/etc/selinux/config"


def enabled() -> bool:
    """Whether SELinux is live and has a policy: without one the kernel takes any context, and gives its own instead."""
    return reason() == ""


def reason() -> str:
    """Why SELinux cannot be had; "" where it can."""
    try:
        with open("/proc/filesystems", encoding="utf-8") as file:
            if "selinuxfs" not in file.read().split():
                return f"SELinux is not live: {labels.told()}"
    except OSError as err:
        return f"/proc/filesystems: {err.strerror}"
    own = labels.attribute(0, "current")
    return "" if own is not None and ":" in own else "SELinux has no policy: every process is the kernel's"


def enforcing() -> bool:
    """Whether what the policy forbids is refused, and not only logged. Raises Unsupported; StepFailed."""
    must_be_live()
    path = f"{SELINUXFS}/enforce"
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip() == "1"
    except OSError as err:
        raise StepFailed(f"read {path}", err.errno or 0, cure=f"mount -t selinuxfs selinuxfs {SELINUXFS}") from err


def current(pid: int | str = 0) -> str | None:
    """The context of PID, or of the calling thread (0); None where SELinux is not live. Raises StepFailed."""
    return labels.attribute(pid, "current") if enabled() else None


def must_be_live() -> None:
    """Raises Unsupported where SELinux is not."""
    why = reason()
    if why:
        raise Unsupported("selinux", why, LIVE)


def canonical(context: str) -> str | None:
    """CONTEXT as the kernel spells it: levels in short, categories in order; None where selinuxfs cannot be asked.

    Raises SpecError; StepFailed (EINVAL) for one that the loaded policy does not have.
    """
    path = f"{SELINUXFS}/context"
    if not context or "\0" in context:
        raise SpecError(f"selinux: {context!r} is not a context")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, os.fsencode(context))
        return os.fsdecode(os.read(fd, 4096).rstrip(b"\0"))  # a file of transactions: the answer to what was written
    except OSError as err:
        if err.errno in (EACCES, EPERM):
            return None  # the policy does not let this domain ask: security:check_context
        raise StepFailed(f"selinux context {context}", err.errno or 0, cure=CURES.get(err.errno or 0, "")) from err
    finally:
        os.close(fd)


def check(context: str) -> None:
    """Whether CONTEXT can be asked for, as far as this domain may know. Raises Unsupported; StepFailed (EINVAL) for one
    that the policy does not have, or that the kernel spells otherwise: what is read back could not be compared."""
    must_be_live()
    spelt = canonical(context)
    if spelt not in (None, context):
        raise StepFailed(f"selinux context {context}", EINVAL, cure=f"the kernel spells it {spelt}: give it so")


def exec_context(context: str) -> None:
    """The calling thread's next execve has CONTEXT; read back before this returns. Raises SpecError; StepFailed.

    With no_new_privs the policy must allow process2:nnp_transition from this domain to that one, or execve fails.

    >>> exec_context("system_u:system_r:container_t:s0:c1,c2")
    """
    if not context or any(letter in context for letter in "\0\n "):
        raise SpecError(f"selinux: {context!r} is not a context")
    labels.set_exec("selinux", context, context, CURES)


def mount_option(context: str) -> str:
    """The option of mount(8) that gives every file of a file system CONTEXT, quoted: levels hold commas."""
    if not context or any(letter in context for letter in '\0\n"'):
        raise SpecError(f"selinux: {context!r} is not a context")
    return f'context="{context}"'


def container_contexts() -> dict[str, str]:
    """What this host's policy means for containers: "process" and "file" -> context; {} where it says nothing."""
    policy = _assignments(CONFIG).get("SELINUXTYPE", "targeted")
    for place in CONTEXTS:
        found = _assignments(place.format(policy=policy))
        if "process" in found:
            return {name: found[name] for name in ("process", "file") if name in found}
    return {}


def _assignments(path: str) -> dict[str, str]:
    """``name = "value"`` lines of PATH; {} where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            rows = [line.partition("=") for line in file if not line.lstrip().startswith("#")]
    except OSError:
        return {}
    return {name.strip(): value.strip().strip('"') for name, equals, value in rows if equals}


def probe() -> dict[str, Support]:
    """Whether a context can be asked for: a child asks for the one it has already."""
    why = reason()
    if why:
        return {"selinux": Support(False, why, LIVE)}
    own = labels.attribute(0, "current") or ""
    return {"selinux": labels.tried("selinux", own, own, CURES)}
