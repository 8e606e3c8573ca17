"""What keeps ordinary users from user namespaces on this host, looked up once one was refused."""

from __future__ import annotations

__all__ = ["closed_switch", "cure_of_clone", "cure_of_privilege"]

EPERM, ENOSPC, ENOSYS = 1, 28, 38
# file below /proc/sys -> (its value that forbids, cure)
SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "as root: sysctl kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "as root: sysctl user.max_user_namespaces=10000"),
)
APPARMOR = "kernel/apparmor_restrict_unprivileged_userns"
APPARMOR_CURE = (
    "AppArmor takes all privilege from user namespaces of programs without a profile: as root: "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give the interpreter a profile with the rule userns"
)


def closed_switch(proc: str = "/proc") -> str:
    """The switch that gives ordinary users no user namespace at all, with its cure; "" where none is closed."""
    for name, value, cure in SWITCHES:
        if _setting(proc, name) == value:
            return f"this host gives ordinary users no user namespace ({name.replace('/', '.')}={value}): {cure}"
    return ""


def cure_of_clone(number: int, proc: str = "/proc") -> str:
    """Why clone3 refused a user namespace with errno NUMBER, and what helps; "" where nothing is known."""
    closed = closed_switch(proc)
    if closed:
        return closed
    if number == ENOSPC:
        return "a limit of user namespaces is reached: user.max_user_namespaces, or 32 nested ones"
    if number == EPERM and _setting(proc, APPARMOR) == "1":
        return APPARMOR_CURE
    if number in (EPERM, ENOSYS) and _filtered(proc):
        return "a seccomp filter over this process refuses it, an outer container's: allow clone3 and unshare there"
    return ""


def cure_of_privilege(number: int, proc: str = "/proc") -> str:
    """Why something that root of a user namespace may do was refused all the same."""
    return APPARMOR_CURE if number in (EPERM, 13) and _setting(proc, APPARMOR) == "1" else ""


def _setting(proc: str, name: str) -> str:
    return b" ".join(_content(f"{proc}/sys/{name}").split()).decode("latin-1")


def _filtered(proc: str) -> bool:
    return any(line.split() == [b"Seccomp:", b"2"] for line in _content(f"{proc}/self/status").splitlines())


def _content(path: str) -> bytes:
    """What a file has, nothing where this kernel has none. No text file: its codec may be out of an ordinary user's
    reach by now."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 16) or b""
    except OSError:
        return b""
