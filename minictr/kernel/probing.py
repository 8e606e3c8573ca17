"""Performed, not guessed: each feature is done once in a throwaway child, and what the kernel says is put into words.

``trials`` holds what is done. Where this user may not do it, it is tried again in a user namespace: "yes" then means
together with the ``userns`` feature. Nothing here changes the calling process.
"""

from __future__ import annotations

import os

from minictr.errors import MinictrError, StepFailed, errno_name
from minictr.kernel import procfs, users
from minictr.kernel.child import Child
from minictr.kernel.trials import CLONE_NEWUSER, TRIALS, Trial
from minictr.steps import Support

TYPE_CHECKING = False
if TYPE_CHECKING:
    Failure = tuple[str, int]

__all__ = ["support", "tried"]

EPERM, EACCES, EINVAL, ENODEV, ENOSPC, ENOSYS, EUSERS, EOPNOTSUPP = 1, 13, 22, 19, 28, 38, 87, 95
REFUSED = frozenset({EPERM, EACCES})
ABSENT = frozenset({EINVAL, ENODEV, ENOSYS, EOPNOTSUPP})
OUTER = "an outer container or a security module refuses it: allow it there"


def tried(module: str) -> dict[str, Support]:
    """Support of every feature that MODULE of this package stands for."""
    return {name: support(trial) for name, trial in TRIALS[module].items()}


def support(trial: Trial) -> Support:
    """Do it; where that is refused, do it in a user namespace; say why not."""
    if not trial.ops and not trial.flags:
        return Support(True)
    failed = attempt(trial, own_user=bool(trial.flags & CLONE_NEWUSER))
    if failed is None:
        return Support(True, trial.told() if trial.told is not None else "")
    if failed[1] in REFUSED and not trial.flags & CLONE_NEWUSER:
        inside = attempt(trial, own_user=True)
        if inside is None:
            return Support(True, "with a user namespace", "add the userns feature, or be root")
        if attempt(TRIALS["namespaces"]["userns"], own_user=True) is not None:
            words = f"be root, or let users have user namespaces: {user_namespace_cure()}"
            return Support(False, reason(*failed), words, failed[1])
        failed = inside  # privilege is to be had: it is something else that refuses
    return Support(False, reason(*failed), cure(trial, *failed), failed[1])


def reason(call: str, number: int) -> str:
    """What failed, and how; CALL is an op, or the words of an error."""
    return f"{call if ' ' in call else call.replace('_', ' ')}: {errno_name(number)} ({os.strerror(number)})"


def attempt(trial: Trial, *, own_user: bool) -> Failure | None:
    """One child: None, or the (call, errno) that failed."""
    ops = trial.inside_ops if own_user and trial.inside_ops is not None else trial.ops
    fds = trial.descriptors()
    try:
        program = [(call, {**args, **{name: fds[name] for name in args if name in fds}}) for call, args in ops]
        theirs = [fd for name, fd in fds.items() if name]
        with Child(trial.flags | (CLONE_NEWUSER if own_user else 0), program, theirs) as child:
            if own_user:
                users.write_uid_map(child.pid, "")
                users.write_gid_map(child.pid, "", "deny")
            if trial.outside is not None:
                trial.outside(child.pid)
            return child.attempt()
    except StepFailed as err:
        return err.what, err.errno or 0
    except MinictrError as err:
        return str(err), EPERM
    finally:
        for fd in fds.values():
            os.close(fd)


def cure(trial: Trial, call: str, number: int) -> str:
    """What would help."""
    if number in (ENOSPC, EUSERS) and trial.flags:
        counted = limits(trial.flags)
        if shut := [name for name in counted if allows_none(name)]:
            return f"none are allowed, as root: sysctl {' '.join(f'{name}=10000' for name in shut)}"
        return f"a limit is reached: sysctl {', '.join(counted)}, or 32 nested namespaces"
    if number in ABSENT and not (number == EINVAL and call in ("write_file", "rlimit")):
        return f"needs Linux {trial.since}" + (f" with {trial.config}" if trial.config else "")
    if number not in REFUSED:
        return ""
    return user_namespace_cure() if trial.flags & CLONE_NEWUSER else trial.refused or OUTER


def limits(flags: int) -> list[str]:
    """The sysctls that count the namespaces of FLAGS. namespaces(7), Linux 4.9."""
    from minictr.kernel.namespaces import KINDS

    return [f"user.max_{word}_namespaces" for flag, word in KINDS.values() if flags & flag]


def allows_none(name: str) -> bool:
    """Whether that sysctl is 0 here. One of an outer user namespace, which also counts, is not to be seen."""
    try:
        return procfs.read("sys", name.replace(".", "/")).strip() == "0"
    except StepFailed:
        return False


def user_namespace_cure() -> str:
    """Which switch keeps user namespaces from ordinary users, by looking at each."""
    from minictr.kernel.restricted import closed_switch, cure_of_privilege

    return closed_switch() or cure_of_privilege(EPERM) or OUTER
