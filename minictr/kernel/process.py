"""Attributes of a process: host name, limits, session, keyring, personality, scores. prctl(2), getrlimit(2).

Functions without a ``pid`` act on the calling process; host and domain name on the calling thread's uts namespace.
"""

from __future__ import annotations

from minictr.kernel import ops, procfs

__all__ = ["set_oom_score_adj", "set_pdeathsig"]


def set_oom_score_adj(pid: int | str, value: int) -> None:
    """How soon the kernel kills PID when memory ends: -1000 never, 1000 first. Linux 2.6.36, proc(5).

    ``pid`` 0 or "self": this process. Raises StepFailed: EACCES below what the process had without CAP_SYS_RESOURCE.

    >>> set_oom_score_adj("self", 500)
    """
    procfs.write(pid, "oom_score_adj", f"{value}\n", cure="less than before needs CAP_SYS_RESOURCE; -1000 to 1000")


def set_pdeathsig(signal: int) -> None:
    """Send SIGNAL to this process when the thread that made it ends; 0 for none. Linux 2.1.57, prctl(2).

    It looks ahead only: a parent that is dead already is seen by getppid(). Cleared by execve of a set-user-id program.
    Raises StepFailed: EINVAL for no signal.

    >>> set_pdeathsig(signal.SIGKILL)
    """
    ops.execute("pdeathsig", about=str(int(signal)), signal=int(signal))
