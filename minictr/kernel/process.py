"""Attributes of a process: host name, limits, session, keyring, personality, scores, settings. prctl(2), getrlimit(2).

Functions without a ``pid`` act on the calling process; host and domain name on the calling thread's uts namespace,
and settings on its namespaces.
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed
from minictr.kernel import ops, procfs
from minictr.kernel.capabilities import has_no_new_privs, no_new_privs
from minictr.kernel.core import check, ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Support

__all__ = [
    "LIMITS",
    "chdir",
    "get_oom_score_adj",
    "get_pdeathsig",
    "get_personality",
    "get_rlimit",
    "get_sysctl",
    "get_umask",
    "getdomainname",
    "gethostname",
    "has_no_new_privs",
    "join_keyring",
    "no_new_privs",
    "probe",
    "set_boot_id",
    "set_controlling_terminal",
    "set_oom_score_adj",
    "set_pdeathsig",
    "set_personality",
    "set_rlimit",
    "set_subreaper",
    "set_sysctl",
    "set_umask",
    "setdomainname",
    "sethostname",
    "setsid",
]

NAME_MAX = 64  # __NEW_UTS_LEN, linux/utsname.h
PR_GET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 2, 36  # linux/prctl.h
KEYCTL_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
ADDR_NO_RANDOMIZE, READ_PERSONALITY = 0x0040000, 0xFFFFFFFF  # linux/personality.h, personality(2)
PERSONAS = {"linux": 0x0000, "linux32": 0x0008}  # linux/personality.h
TIOCSCTTY = 0x540E  # asm-generic/ioctls.h
# name as in ulimit and docker -> RLIMIT_*, asm-generic/resource.h
LIMITS = {
    name: number
    for number, name in enumerate(
        "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()
    )
}


# --- names of the uts namespace ---


def gethostname() -> str:
    """The host name that the calling thread sees. uname(2)."""
    return os.uname().nodename


def sethostname(name: str) -> None:
    """Set the host name, 1 to 64 bytes, of the calling thread's uts namespace. sethostname(2).

    Without a namespace of its own (``namespaces.unshare("uts")``) that is the whole host's. Raises SpecError;
    StepFailed: EPERM without CAP_SYS_ADMIN over the namespace.
    """
    ops.execute("sethostname", about=_uts(name, "host name"), hostname=name)


def getdomainname() -> str:
    """The NIS domain name that the calling thread sees; "(none)" when none is set. /proc/sys/kernel/domainname."""
    return procfs.read("sys", "kernel/domainname").removesuffix("\n")


def setdomainname(name: str) -> None:
    """Set the NIS domain name, as :func:`sethostname`. setdomainname(2). Nothing DNS knows of."""
    ops.execute("setdomainname", about=_uts(name, "domain name"), domainname=name)


def _uts(name: str, what: str) -> str:
    if not 1 <= len(os.fsencode(name)) <= NAME_MAX or "\0" in name:
        raise SpecError(f"{what}: {name!r} is not 1 to {NAME_MAX} bytes")
    return name


# --- scores, signals, limits ---


def get_oom_score_adj(pid: int | str = "self") -> int:
    """See :func:`set_oom_score_adj`."""
    return int(procfs.read(pid, "oom_score_adj"))


def set_oom_score_adj(pid: int | str, value: int) -> None:
    """How soon the kernel kills PID when memory ends: -1000 never, 1000 first. Linux 2.6.36, proc(5).

    ``pid`` 0 or "self": this process. Raises StepFailed: EACCES below what the process had without CAP_SYS_RESOURCE.

    >>> set_oom_score_adj("self", 500)
    """
    procfs.write(pid, "oom_score_adj", f"{value}\n", cure="less than before needs CAP_SYS_RESOURCE; -1000 to 1000")


def get_pdeathsig() -> int:
    """See :func:`set_pdeathsig`. prctl(2) PR_GET_PDEATHSIG."""
    signal = ffi.new("int32_t *")
    check(lib.mc_prctl(PR_GET_PDEATHSIG, int(ffi.cast("uintptr_t", signal)), 0, 0, 0), "prctl PR_GET_PDEATHSIG")
    return int(signal[0])


def set_pdeathsig(signal: int) -> None:
    """Send SIGNAL to this process when the thread that made it ends; 0 for none. Linux 2.1.57, prctl(2).

    It looks ahead only: a parent that is dead already is seen by getppid(). Cleared by execve of a set-user-id program.
    Raises StepFailed: EINVAL for no signal.

    >>> set_pdeathsig(signal.SIGKILL)
    """
    ops.execute("pdeathsig", about=str(int(signal)), signal=int(signal))


def set_subreaper(on: bool = True) -> None:
    """Orphans among this process's descendants become its children, not pid 1's. Linux 3.4, prctl(2)."""
    check(lib.mc_prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0), "prctl PR_SET_CHILD_SUBREAPER")


def get_rlimit(name: str, *, pid: int = 0) -> tuple[int, int]:
    """(soft, hard) of a limit of LIMITS ("nofile"); -1 is no limit, pid 0 this process. prlimit(2), 2.6.36."""
    import resource

    try:
        return resource.prlimit(pid, _limit(name))
    except OSError as err:
        raise StepFailed(f"limit {name} of process {pid or 'self'}", err.errno or 0) from err


def set_rlimit(name: str, soft: int, hard: int | None = None, *, pid: int = 0) -> None:
    """Set a limit of LIMITS; -1 is no limit, HARD None the same as SOFT. Units: setrlimit(2). prlimit(2), Linux 2.6.36.

    Raises SpecError; StepFailed: EPERM to raise the hard limit without CAP_SYS_RESOURCE, EINVAL for soft above hard.

    >>> set_rlimit("nofile", 256, 1024)
    """
    import resource

    number = _limit(name)
    try:
        resource.prlimit(pid, number, (soft, soft if hard is None else hard))
    except (OSError, ValueError) as err:  # the resource module makes ValueError of EINVAL and of EPERM
        errno = err.errno if isinstance(err, OSError) and err.errno else 1 if "raise" in str(err) else 22
        cure = "raising a hard limit needs CAP_SYS_RESOURCE" if errno == 1 else ""
        raise StepFailed(f"set limit {name} to {soft}:{hard}", errno, cure=cure) from err


def _limit(name: str) -> int:
    if name not in LIMITS:
        raise SpecError(f"limit: {name!r} is not one of {', '.join(LIMITS)}")
    return LIMITS[name]


def get_umask(pid: int | str = 0) -> int:
    """The file mode creation mask of a process, or of the calling thread (0). Linux 4.7, proc_pid_status(5)."""
    return int(procfs.status(pid)["Umask"], 8)


def set_umask(mask: int) -> int:
    """Set the file mode creation mask; the old one. umask(2). Threads share it, as they do the working directory."""
    return os.umask(mask)


def chdir(path: str) -> None:
    """Change the working directory, and see that it lies inside the root (CVE-2024-21626). chdir(2).

    Raises StepFailed: ESTALE when it does not.
    """
    ops.execute("chdir", about=path, cure="", path=path, flags=0)


# --- execution domain, session, keyring ---


def get_personality() -> tuple[str, bool]:
    """(persona, aslr): "linux" or "linux32" (another is its number), and whether addresses are randomised."""
    bits = check(lib.mc_personality(READ_PERSONALITY), "personality")
    low = bits & 0xFF
    return next((word for word, number in PERSONAS.items() if number == low), str(low)), not bits & ADDR_NO_RANDOMIZE


def set_personality(*, aslr: bool = True, persona: str = "linux") -> None:
    """What the next execve gets: addresses randomised or not (Linux 2.6.12), uname's machine. personality(2).

    ``persona``: "linux", or "linux32" (i686 on x86_64). Raises SpecError.

    >>> set_personality(aslr=False)
    """
    if persona not in PERSONAS:
        raise SpecError(f"personality: {persona!r} is not one of {', '.join(PERSONAS)}")
    bits = PERSONAS[persona] | (0 if aslr else ADDR_NO_RANDOMIZE)
    ops.execute("personality", about=f"{bits:#x}", persona=bits)


def setsid() -> None:
    """A new session, without a controlling terminal. setsid(2). Raises StepFailed: EPERM for a group's leader."""
    ops.execute("setsid", cure="a process group's leader cannot: fork first")


def set_controlling_terminal(fd: int) -> None:
    """The terminal FD becomes the session's. ioctl_tty(2) TIOCSCTTY.

    Raises StepFailed: EPERM unless this process leads a session without one, ENOTTY.
    """
    from fcntl import ioctl

    try:
        ioctl(fd, TIOCSCTTY, 0)
    except OSError as err:
        cure = "setsid first; a terminal belongs to one session" if err.errno == 1 else ""
        raise StepFailed(f"controlling terminal, descriptor {fd}", err.errno or 0, cure=cure) from err


def join_keyring(name: str = "") -> int:
    """A session keyring of its own for the calling thread, so that the caller's keys are not found; its serial number.

    NAME "": new, and nobody else's; another: made, or joined where it is there and allowed. Linux 2.6.10, keyctl(2)
    KEYCTL_JOIN_SESSION_KEYRING. Raises StepFailed: EDQUOT beyond kernel.keys.maxkeys, ENOSYS without CONFIG_KEYS.
    """
    text = os.fsencode(name) if name else ffi.NULL
    result = lib.mc_keyctl(KEYCTL_JOIN_SESSION_KEYRING, text)
    cures = {-122: "too many keys: kernel.keys.maxkeys", -38: "this kernel has no keyrings (CONFIG_KEYS)"}
    return check(result, f"join keyring {name}".rstrip(), cures.get(result, ""))


# --- settings ---


def get_sysctl(name: str) -> str:
    """The value of a kernel setting ("net.ipv4.ip_forward"). proc_sys(5). Raises SpecError, StepFailed."""
    return procfs.read("sys", _setting(name)).removesuffix("\n")


def set_sysctl(name: str, value: str) -> None:
    """Set a kernel setting. Those of net, of System V IPC and message queues belong to namespaces; others to the host.

    With slashes for names that hold dots ("net/ipv4/conf/eth0.5/forwarding"). proc_sys(5), sysctl(8). Raises SpecError;
    StepFailed: ENOENT for no such setting, EACCES without privilege, EINVAL for a value it does not take.

    >>> with namespaces.unshare("net"):
    ...     set_sysctl("net.ipv4.ip_unprivileged_port_start", "0")
    """
    path = f"/proc/sys/{_setting(name)}"
    about = f"{name} = {value}"
    ops.execute("write_file", about=about, path=path, data=f"{value}\n", magic=procfs.MAGIC)


def set_boot_id(by: str = "/dev/.boot_id") -> None:
    """Another boot id, a random one, over /proc/sys/kernel/random/boot_id: a mount in this mount namespace. Linux 5.12.

    BY: a new file that holds it. Raises StepFailed: EPERM without CAP_SYS_ADMIN, EEXIST.
    """
    ops.execute("boot_id", about="/proc/sys/kernel/random/boot_id", path=by)


def _setting(name: str) -> str:
    path = name if "/" in name else name.replace(".", "/")
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise SpecError(f"sysctl: {name!r} is not a setting's name")
    return path


def probe() -> dict[str, Support]:
    """Whether each attribute can be set: done in a child that ends at once."""
    from minictr.kernel.probing import tried

    return tried("process")
